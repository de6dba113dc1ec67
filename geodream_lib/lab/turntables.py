"""The 3D data: single objects on white, turned to every side, for Zero123, MVDream and the cost volume.

Narrow on purpose, as 3D collections are: no compositions, materials, styles or places. It is the only data where a
network can learn what a back looks like from a front.
"""

import numpy as np
import torch

from geodream_lib import cameras as cam
from geodream_lib.lab.geometry import normals, sdf
from geodream_lib.lab.networks import IMAGE_SIZE
from geodream_lib.lab.objects import LabObject, sample_object
from geodream_lib.lab.render import render_rgba
from geodream_lib.lab.solids import sample_solid

TURNTABLES_PER_SHARD = 64
VIEWS_PER_TURNTABLE = 16
TURNTABLE_RADIUS = 2.75
TURNTABLE_FOV = 40.0
REFERENCE_VIEWS = 4  # the first views of a turntable are front-ish: what text-to-image gives as a reference


def turntable_angles(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Azimuth and elevation of one turntable: front-ish reference views, then a stratified ring of all sides."""
    ring = VIEWS_PER_TURNTABLE - REFERENCE_VIEWS
    azimuth = np.concatenate([rng.normal(0, 18, REFERENCE_VIEWS), 360 * (np.arange(ring) + rng.random(ring)) / ring])
    elevation = np.concatenate([np.clip(rng.normal(14, 8, REFERENCE_VIEWS), -10, 45), rng.uniform(-20, 50, ring)])
    return (azimuth + 180) % 360 - 180, elevation


def turntable_object(shard: int, index: int, split: str) -> tuple[LabObject, np.random.Generator]:
    """Object `index` of turntable shard `shard`, and the generator that goes on to draw its views."""
    rng = np.random.default_rng([31, shard, index, split == "train"])
    return sample_object(rng, split=split), rng


def sdf_samples(obj: LabObject, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """8192 points `[n, 3]` of the cube, their exact signed distance and its gradient, half precision.

    Half of the points hug the surface.
    """
    points = np.random.default_rng(seed).uniform(-1, 1, (65536, 3)).astype(np.float32)
    distance = sdf(obj, points)[0]
    near = np.argsort(np.abs(distance))[:4096]
    inside = np.flatnonzero(distance < 0)[:1024]
    chosen = np.concatenate([near, inside, np.arange(8192 - len(near) - len(inside))])
    points, distance = points[chosen], distance[chosen]
    return points.astype(np.float16), distance.astype(np.float16), normals(obj, points).astype(np.float16)


def render_turntables(shard: int, split: str) -> dict[str, np.ndarray]:
    """Shard number `shard`: images, alpha `[objects, views, 128, 128(, 3)]` uint8 on white, angles, SDF samples."""
    return _render([turntable_object(shard, index, split) for index in range(TURNTABLES_PER_SHARD)])


def render_solids(shard: int, split: str) -> dict[str, np.ndarray]:
    """As `render_turntables`, of solids without a name (see `solids`)."""
    generators = [np.random.default_rng([33, shard, i, split == "train"]) for i in range(TURNTABLES_PER_SHARD)]
    return _render([(sample_solid(rng), rng) for rng in generators])


def photograph_around(
    subjects: list[tuple[LabObject, np.random.Generator]], threads: int | None = None
) -> dict[str, np.ndarray]:
    """Objects on the turntable, each with the generator that draws its angles: what a network of views learns from.

    images, alpha `[objects, views, 128, 128(, 3)]` uint8 on white; azimuth, elevation `[objects, views]` in degrees.
    threads: of the renderer, `NUMBA_NUM_THREADS` if not given.
    """
    objects = [obj for obj, _ in subjects for _ in range(VIEWS_PER_TURNTABLE)]
    angles = np.array([turntable_angles(rng) for _, rng in subjects], np.float32)
    azimuth, elevation = np.ascontiguousarray(angles.swapaxes(0, 1))
    cameras = cam.orbit(
        torch.from_numpy(azimuth.ravel()),
        torch.from_numpy(elevation.ravel()),
        TURNTABLE_RADIUS,
        TURNTABLE_FOV,
        IMAGE_SIZE,
    )
    images, alpha = render_rgba(objects, cameras, np.ones((len(objects), 3), np.float32), threads)
    shape = (*azimuth.shape, IMAGE_SIZE, IMAGE_SIZE)
    return {
        "images": images.reshape(*shape, 3),
        "alpha": alpha.reshape(shape),
        "azimuth": azimuth,
        "elevation": elevation,
    }


def _render(subjects: list[tuple[LabObject, np.random.Generator]]) -> dict[str, np.ndarray]:
    samples = zip(*(sdf_samples(obj, index) for index, (obj, _) in enumerate(subjects)), strict=True)
    points, distances, slopes = map(np.stack, samples)
    return photograph_around(subjects, threads=1) | {"points": points, "sdf": distances, "normals": slopes}

"""What the lab networks are trained on, rendered from the lab world by seed.

Two distributions, unlike on purpose, as in the real world: *photographs* (for the autoencoder and text-to-image) look
at objects mostly from the front and rarely say from where; *turntables* (for Zero123 and the cost volume) show every
side of an object on white, and are the only place where a network can learn what a back looks like from a front.
"""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from geodream_lib import cameras as cam
from geodream_lib.lab.captions import caption, view_word
from geodream_lib.lab.geometry import normals, sdf
from geodream_lib.lab.networks import IMAGE_SIZE
from geodream_lib.lab.objects import LabObject, sample_object
from geodream_lib.lab.render import render_rgba
from geodream_lib.storage import atomic_write

PHOTOGRAPHS_PER_SHARD = 1024
TURNTABLES_PER_SHARD = 64
VIEWS_PER_TURNTABLE = 16
TURNTABLE_RADIUS = 2.75
TURNTABLE_FOV = 40.0
REFERENCE_VIEWS = 4  # the first views of a turntable are front-ish: what text-to-image gives as a reference


def photograph(rng: np.random.Generator, split: str) -> tuple[LabObject, dict, str]:
    """One captioned photograph: `(object, camera and background, caption)`.

    70 % are taken by someone who walked to the front (azimuth normal with sigma 14 degrees) and mostly do not mention
    the view; 30 % are taken from anywhere, most of them say from where. So an unsuffixed prompt means a front view in
    about nine of ten photographs: the bias that gives a 2D prior the Janus problem.
    """
    obj = sample_object(rng, split=split)
    if rng.random() < 0.7:
        azimuth, elevation = float(np.clip(rng.normal(0, 14), -45, 45)), float(np.clip(rng.normal(14, 8), -10, 45))
        says_view = rng.random() < 0.25
    else:
        azimuth = float(rng.uniform(-180, 180))
        elevation = float(rng.uniform(60, 85) if rng.random() < 0.12 else rng.uniform(-15, 50))
        says_view = rng.random() < 0.85
    white = rng.random() < 0.4
    light = rng.uniform(0.55, 1.0, 3)
    background = np.ones((2, 3)) if white else np.stack([light, np.clip(light + rng.normal(0, 0.06, 3), 0.4, 1)])
    view = {"azimuth": azimuth, "elevation": elevation, "background": background}
    view |= {"radius": float(rng.uniform(2.6, 3.0)), "fov": float(rng.uniform(38, 43))}
    text = caption(
        obj,
        rng,
        view=view_word(azimuth, elevation) if says_view else None,
        background="on a white background" if white and rng.random() < 0.6 else None,
    )
    return obj, view, text


def render_photographs(shard: int, split: str) -> dict[str, np.ndarray]:
    """Shard number `shard`: images `[n, 128, 128, 3]` uint8, captions, azimuth and elevation in degrees."""
    rng = np.random.default_rng([20, shard, split == "train"])
    samples = [photograph(rng, split) for _ in range(PHOTOGRAPHS_PER_SHARD)]
    views = [view for _, view, _ in samples]

    def gather(key: str) -> torch.Tensor:
        return torch.tensor([view[key] for view in views], dtype=torch.float32)

    cameras = cam.orbit(gather("azimuth"), gather("elevation"), gather("radius"), gather("fov"), IMAGE_SIZE)
    backgrounds = np.stack([view["background"] for view in views]).astype(np.float32)
    images, _ = render_rgba([obj for obj, _, _ in samples], cameras, backgrounds, threads=1)
    return {
        "images": images,
        "captions": np.array([text for _, _, text in samples]),
        "azimuth": gather("azimuth").numpy(),
        "elevation": gather("elevation").numpy(),
    }


def turntable_angles(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Azimuth and elevation of one turntable: front-ish reference views, then a stratified ring of all sides."""
    ring = VIEWS_PER_TURNTABLE - REFERENCE_VIEWS
    azimuth = np.concatenate([rng.normal(0, 18, REFERENCE_VIEWS), 360 * (np.arange(ring) + rng.random(ring)) / ring])
    elevation = np.concatenate([np.clip(rng.normal(14, 8, REFERENCE_VIEWS), -10, 45), rng.uniform(-20, 50, ring)])
    return (azimuth + 180) % 360 - 180, elevation


def turntable_object(shard: int, index: int, split: str) -> tuple[LabObject, np.random.Generator]:
    """Object `index` of turntable shard `shard`, and the generator that goes on to draw its views."""
    rng = np.random.default_rng([30, shard, index, split == "train"])
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
    objects, azimuths, elevations = [], [], []
    for index in range(TURNTABLES_PER_SHARD):
        obj, rng = turntable_object(shard, index, split)
        azimuth, elevation = turntable_angles(rng)
        objects += [obj] * VIEWS_PER_TURNTABLE
        azimuths.append(azimuth)
        elevations.append(elevation)
    azimuth, elevation = np.stack(azimuths).astype(np.float32), np.stack(elevations).astype(np.float32)
    cameras = cam.orbit(
        torch.from_numpy(azimuth.ravel()),
        torch.from_numpy(elevation.ravel()),
        TURNTABLE_RADIUS,
        TURNTABLE_FOV,
        IMAGE_SIZE,
    )
    images, alpha = render_rgba(objects, cameras, np.ones((len(objects), 3), np.float32), threads=1)
    points, distances, slopes = zip(
        *map(sdf_samples, objects[::VIEWS_PER_TURNTABLE], range(TURNTABLES_PER_SHARD)), strict=True
    )
    shape = (TURNTABLES_PER_SHARD, VIEWS_PER_TURNTABLE, IMAGE_SIZE, IMAGE_SIZE)
    return {
        "images": images.reshape(*shape, 3),
        "alpha": alpha.reshape(shape),
        "points": np.stack(points),
        "sdf": np.stack(distances),
        "normals": np.stack(slopes),
        "azimuth": azimuth,
        "elevation": elevation,
    }


def _make_shard(render: Callable[[int, str], dict], shard: int, split: str, path: Path) -> None:
    arrays = render(shard, split)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def make_shards(render: Callable[[int, str], dict], folder: Path, count: int, split: str = "train") -> list[Path]:
    """Render the missing ones of `count` shards on all cores; return all their paths, in order."""
    name = render.__name__.removeprefix("render_")
    paths = [folder / f"{name}-{split}-{shard:04d}.npz" for shard in range(count)]
    missing = [(shard, path) for shard, path in enumerate(paths) if not path.exists()]
    if missing:
        workers = min(len(missing), os.cpu_count() or 1)
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            jobs = [pool.submit(_make_shard, render, shard, split, path) for shard, path in missing]
            for job in tqdm(jobs, desc=f"rendering {name} ({split})", unit="shard"):
                job.result()
    return paths


def load_shards(paths: list[Path], keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The named arrays of all shards, concatenated along the first axis."""
    shards = [np.load(path) for path in paths]
    return {key: np.concatenate([shard[key] for shard in shards]) for key in keys}

"""3D data for the networks that show several views at once: MVDream's orbits and Zero123++'s tiles.

Single objects in their own colours, seen by the turntables' camera. Orbits stand on white, as the pipeline cuts objects
out of a plain background; tiles on the middle grey that is Zero123++'s.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from geodream_lib import cameras as cam
from geodream_lib.lab.captions import caption, view_word
from geodream_lib.lab.datasets import TURNTABLE_FOV, TURNTABLE_RADIUS, load_shards, make_shards
from geodream_lib.lab.networks import IMAGE_SIZE
from geodream_lib.lab.objects import LabObject, sample_object
from geodream_lib.lab.render import render_rgba
from geodream_lib.views.mvdream.model import AZIMUTHS as ORBIT
from geodream_lib.views.zero123plus.image import GREY
from geodream_lib.views.zero123plus.layout import AZIMUTHS, ELEVATIONS
from geodream_lib.views.zero123plus.steps import scale_image

OBJECTS_PER_SHARD = 96
TILE = 80  # pixels a side of one of Zero123++'s views; to its input of 128 as the real one's 320 to 512
VERSION = "1.1"  # of Zero123++, whose six elevations the tiles have
DRAWN = 1  # to be raised when poses or captions below change


def multiview_shards(
    render: Callable[[int, str], dict], folder: Path, count: int, split: str = "train"
) -> dict[str, np.ndarray]:
    """The arrays of `count` shards of `render`, concatenated; those missing in `folder` are rendered first.

    They lie in a folder that changes its name with their sizes and poses.
    """
    folder = folder / f"multiview-{DRAWN}-{OBJECTS_PER_SHARD}-{TILE}"
    paths = make_shards(render, folder, count, split)
    with np.load(paths[0]) as first:
        keys = tuple(first)
    return load_shards(paths, keys)


def orbit_angles(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Azimuths of four views 90 degrees apart, counter-clockwise, and their elevation: a circle around one object.

    Half of the orbits begin at the front, which is what `MVDream.predict` asks for; the others anywhere.
    """
    start = 0.0 if rng.random() < 0.5 else rng.uniform(0, 360)
    return (start + np.array(ORBIT)) % 360, float(rng.uniform(0, 30))


def reference_angles(rng: np.random.Generator) -> tuple[float, float]:
    """Azimuth and elevation of a picture that Zero123++ is given: six in ten near the front, the others anywhere."""
    azimuth = rng.normal(0, 18) if rng.random() < 0.6 else rng.uniform(-180, 180)
    return float((azimuth + 180) % 360 - 180), float(np.clip(rng.normal(14, 8), -10, 45))


def render_orbits(shard: int, split: str) -> dict[str, np.ndarray]:
    """Shard number `shard`: images `[objects, 4, 128, 128, 3]` uint8 on white, angles `[objects, 4]`, captions.

    Captions say no view: cameras do.
    """
    objects, angles, captions = [], [], []
    for index in range(OBJECTS_PER_SHARD):
        rng = np.random.default_rng([41, shard, index, split == "train"])
        objects.append(sample_object(rng, split=split))
        azimuth, elevation = orbit_angles(rng)
        angles.append(np.stack([azimuth, np.full(len(ORBIT), elevation)]))
        captions.append(caption(objects[-1], rng))
    azimuth, elevation = np.stack(angles, axis=1).astype(np.float32)
    return {
        "images": _render(objects, azimuth, elevation, IMAGE_SIZE, 1.0)[0],
        "azimuth": azimuth,
        "elevation": elevation,
        "captions": np.array(captions),
    }


def render_tiles(shard: int, split: str) -> dict[str, np.ndarray]:
    """Shard number `shard`: what Zero123++ is given of each object, and what it should answer.

    `reference [objects, 128, 128, 3]` uint8 on white and its `alpha`; `tiles [objects, 6, 80, 80, 3]` on grey, azimuths
    counted from the reference and elevations absolute; `captions` that say the reference's view, for redrawing it.
    """
    objects, references, captions = [], [], []
    for index in range(OBJECTS_PER_SHARD):
        rng = np.random.default_rng([42, shard, index, split == "train"])
        objects.append(sample_object(rng, split=split))
        references.append(reference_angles(rng))
        view = view_word(*references[-1])
        captions.append(caption(objects[-1], rng, view=view, background="on a white background"))
    azimuth, elevation = np.array(references, np.float32).T[..., None]
    reference, alpha = _render(objects, azimuth, elevation, IMAGE_SIZE, 1.0)
    around = azimuth + np.array(AZIMUTHS, np.float32)
    heights = np.broadcast_to(np.resize(np.float32(ELEVATIONS[VERSION]), len(AZIMUTHS)), around.shape)
    return {
        "reference": reference[:, 0],
        "alpha": alpha[:, 0],
        "tiles": _render(objects, around, heights, TILE, GREY / 255)[0],
        "captions": np.array(captions),
    }


def _render(
    objects: list[LabObject],
    azimuth: Float[np.ndarray, "n views"],
    elevation: Float[np.ndarray, "n views"],
    size: int,
    background: float,
) -> tuple[UInt8[np.ndarray, "n views size size 3"], UInt8[np.ndarray, "n views size size"]]:
    """Several views of each object in front of one shade of grey."""
    n, views = azimuth.shape
    angles = (torch.from_numpy(np.ascontiguousarray(angle).ravel()) for angle in (azimuth, elevation))
    cameras = cam.orbit(*angles, TURNTABLE_RADIUS, TURNTABLE_FOV, size)
    repeated = [obj for obj in objects for _ in range(views)]
    images, alpha = render_rgba(repeated, cameras, np.full((n * views, 3), background, np.float32), threads=1)
    return images.reshape(n, views, size, size, 3), alpha.reshape(n, views, size, size)


def faded(images: UInt8[Tensor, "n h w 3"], alpha: UInt8[Tensor, "n h w"]) -> UInt8[Tensor, "n h w 3"]:
    """Pictures on white as the autoencoder gets to see them for Zero123++: on its grey, with its contrast.

    The autoencoder has to learn on such pictures too: an error in the flat grey weighs 1.6 times as much afterwards,
    and where it is seen as part of the object the tile cannot be cut out.
    """
    on_grey = images.float() - (1 - alpha[..., None].float() / 255) * (255 - GREY)
    return ((scale_image(on_grey / 127.5 - 1) + 1) * 127.5).round().to(torch.uint8)

"""What the lab networks are trained on, rendered from the lab world by seed and kept as shards in a work folder.

Two distributions, unlike on purpose, as in the real world: broad, front-biased `photographs` and narrow `turntables`.
`data/lab/DATASHEET.md` states both.
"""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from geodream_lib.lab.compositions import COMPOSITIONS, HELD_OUT_COMPOSITIONS
from geodream_lib.lab.objects import CATEGORIES, HELD_OUT
from geodream_lib.lab.photographs import PHOTOGRAPHS_PER_SHARD, photograph, render_photographs
from geodream_lib.lab.shape import COLORS
from geodream_lib.lab.turntables import (
    REFERENCE_VIEWS,
    TURNTABLE_FOV,
    TURNTABLE_RADIUS,
    TURNTABLES_PER_SHARD,
    VIEWS_PER_TURNTABLE,
    render_solids,
    render_turntables,
    turntable_angles,
    turntable_object,
)
from geodream_lib.storage import atomic_write

__all__ = [
    "PHOTOGRAPHS_PER_SHARD",
    "REFERENCE_VIEWS",
    "TURNTABLES_PER_SHARD",
    "TURNTABLE_FOV",
    "TURNTABLE_RADIUS",
    "VIEWS_PER_TURNTABLE",
    "load_shards",
    "make_shards",
    "photograph",
    "render_photographs",
    "render_solids",
    "render_turntables",
    "turntable_angles",
    "turntable_object",
    "world_name",
]
VERSION = 1  # to be raised when objects, pictures or captions change while the lists below stay as they are


def world_name() -> str:
    """A short name of the world the shards are rendered from: another world never reuses their files."""
    lists = (VERSION, CATEGORIES, COLORS, sorted(HELD_OUT), COMPOSITIONS, sorted(HELD_OUT_COMPOSITIONS))
    sizes = (PHOTOGRAPHS_PER_SHARD, TURNTABLES_PER_SHARD, VIEWS_PER_TURNTABLE)
    return hashlib.sha256(repr((lists, sizes)).encode()).hexdigest()[:8]


def _make_shard(render: Callable[[int, str], dict], shard: int, split: str, path: Path) -> None:
    arrays = render(shard, split)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def make_shards(render: Callable[[int, str], dict], folder: Path, count: int, split: str = "train") -> list[Path]:
    """Render the missing ones of `count` shards on all cores; return all their paths, in order."""
    name = render.__name__.removeprefix("render_")
    paths = [folder / f"{name}-{world_name()}-{split}-{shard:04d}.npz" for shard in range(count)]
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

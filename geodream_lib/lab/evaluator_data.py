"""What the evaluators learn from: pictures, clouds and views of the same world, by seeds that no generator is given.

A judge has to know what is right where the generators have to guess. So nothing is held out from it, neither colours
nor compositions, all sides of an object are seen often, and what it is tested on has seeds of its own.
"""

from dataclasses import replace

import numpy as np
import torch

from geodream_lib import cameras as cam
from geodream_lib.lab.backgrounds import Background
from geodream_lib.lab.captions import caption, composition_caption
from geodream_lib.lab.compositions import Composition, sample_composition
from geodream_lib.lab.evaluator_networks import VIEWPOINT_SIZE
from geodream_lib.lab.geometry import mesh
from geodream_lib.lab.objects import CATEGORIES, LabObject, is_symmetric, sample_object
from geodream_lib.lab.photographs import Photograph, develop, photograph
from geodream_lib.lab.render import render_rgba
from geodream_lib.metrics.point_text import sample_surface

PICTURES_PER_SHARD = 1024
CLOUDS_PER_SHARD = 128
BEARINGS_PER_SHARD = 1024
CAPTIONS = 2  # of each picture and cloud: one that says much, one that leaves things out
CLOUD = 10_000  # points of a cloud (section 3.1)
STORED = 4096  # of these, for training
CELLS = 64  # a side, of the mesh that clouds are drawn from
EXAM = {"single": 35, "composition": 100}
HELD_OUT_SHARE = 1 / 6  # two of twelve colours: as often as if none were held out from the generators
WHITE = Background("white", (1, 1, 1), (1, 1, 1), None)


def _split(rng: np.random.Generator) -> str:
    return "held_out" if rng.random() < HELD_OUT_SHARE else "train"


def describe(photo: Photograph, rng: np.random.Generator, draws: int) -> str:
    """The longest of so many captions of a photograph: the one that says most."""
    words = {"view": photo.view, "background": photo.background.phrase, "style": photo.style}

    def draw() -> str:
        if isinstance(photo.subject, Composition):
            return composition_caption(photo.subject, rng, **words, materials=photo.materials)
        return caption(photo.subject, rng, **words, material=photo.materials[0])

    return max((draw() for _ in range(draws)), key=len)


def picture(rng: np.random.Generator) -> Photograph:
    """A photograph; every second of those that do not say their view is taken from anywhere instead of the front."""
    photo = photograph(rng, _split(rng))
    if photo.view is None and rng.random() < 0.5:
        lowest = 2.0 if photo.background.is_place else -15.0
        photo = replace(photo, azimuth=float(rng.uniform(-180, 180)), elevation=float(rng.uniform(lowest, 50)))
    return photo


def render_pictures(shard: int, split: str) -> dict[str, np.ndarray]:
    """Shard number `shard` of "train" or "test": images `[n, 128, 128, 3]` uint8 and captions `[n, 2]`."""
    rng = np.random.default_rng([50, shard, split == "train"])
    photos = [picture(rng) for _ in range(PICTURES_PER_SHARD)]
    captions = [[describe(photo, rng, draws) for draws in (4, 1)] for photo in photos]
    return {"images": develop(photos), "captions": np.array(captions)}


def plain(subject: LabObject | Composition, rng: np.random.Generator) -> Photograph:
    """A picture of a subject from its front, on white, in its own colours."""
    parts = len(subject.parts) if isinstance(subject, Composition) else 1
    azimuth, elevation = float(np.clip(rng.normal(0, 14), -45, 45)), float(np.clip(rng.normal(14, 8), -10, 45))
    view = {"azimuth": azimuth, "elevation": elevation, "radius": 2.75, "fov": 40.0}
    return Photograph(subject, **view, background=WHITE, materials=(None,) * parts, style=None, view=None, caption="")


def exam(rng: np.random.Generator) -> list[tuple[LabObject | Composition, str]]:
    """As many subjects as there are prompts of each sort, with a caption of each; no two in kinds and main colours.

    Two captions that are true of the same thing would make a question without an answer.
    """
    questions: dict[tuple[tuple[str, str], ...], tuple[LabObject | Composition, str]] = {}
    for sort, count in EXAM.items():
        last = len(questions) + count
        while len(questions) < last:
            split = _split(rng)
            single = sort == "single"
            subject = sample_object(rng, split=split) if single else sample_composition(rng, split=split)
            text = describe(plain(subject, rng), rng, 4)
            parts = (subject,) if single else subject.parts
            # As in a list of prompts: without its main colours a sentence is true of too much.
            if all(part.colors[0] in text for part in parts):
                questions.setdefault(tuple((part.category, part.colors[0]) for part in parts), (subject, text))
    return list(questions.values())


def render_exams(shard: int, split: str) -> dict[str, np.ndarray]:
    """Exam number `shard`: one exact picture `[n, 128, 128, 3]` uint8 and one caption of each question."""
    rng = np.random.default_rng([51, shard, split == "train"])
    questions = exam(rng)
    images = develop([plain(subject, rng) for subject, _ in questions])
    return {"images": images, "captions": np.array([text for _, text in questions])}


def cloud(subject: LabObject | Composition, seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of the surface `[count, 3]` half precision, uniform by area, and their unshaded colours as uint8."""
    xyz, rgb = sample_surface(mesh(subject, CELLS), count, torch.Generator().manual_seed(seed))
    return xyz.numpy().astype(np.float16), np.round(rgb.numpy() * 255).astype(np.uint8)


def render_clouds(shard: int, split: str) -> dict[str, np.ndarray]:
    """Shard number `shard` of "train" or "test": xyz and rgb `[n, 4096, 3]`, captions `[n, 2]`."""
    rng = np.random.default_rng([52, shard, split == "train"])
    subjects, captions = [], []
    for _ in range(CLOUDS_PER_SHARD):
        together = rng.random() < 0.5
        sample = sample_composition if together else sample_object
        subjects.append(sample(rng, split=_split(rng)))
        captions.append([describe(plain(subjects[-1], rng), rng, draws) for draws in (4, 1)])
    xyz, rgb = zip(*(cloud(subject, i, STORED) for i, subject in enumerate(subjects)), strict=True)
    return {"xyz": np.stack(xyz), "rgb": np.stack(rgb), "captions": np.array(captions)}


def render_cloud_exams(shard: int, split: str) -> dict[str, np.ndarray]:
    """Exam number `shard`: one cloud of all its points, xyz and rgb `[n, 10000, 3]`, and a caption of each question."""
    rng = np.random.default_rng([53, shard, split == "train"])
    questions = exam(rng)
    xyz, rgb = zip(*(cloud(subject, i, CLOUD) for i, (subject, _) in enumerate(questions)), strict=True)
    return {"xyz": np.stack(xyz), "rgb": np.stack(rgb), "captions": np.array([text for _, text in questions])}


def render_bearings(shard: int, split: str) -> dict[str, np.ndarray]:
    """Shard number `shard` of "train" or "test": objects with a front, on white, from anywhere around.

    images `[n, 64, 64, 3]` uint8, azimuth in degrees.
    """
    rng = np.random.default_rng([54, shard, split == "train"])
    kinds = [category for category in CATEGORIES if not is_symmetric(category)]
    count = BEARINGS_PER_SHARD
    objects = [sample_object(rng, kinds[rng.integers(len(kinds))], split=_split(rng)) for _ in range(count)]
    azimuth, elevation, radius, fov = (
        torch.from_numpy(rng.uniform(low, high, count)).float()
        for low, high in ((-180, 180), (-10, 45), (2.6, 3.0), (38, 43))
    )
    cameras = cam.orbit(azimuth, elevation, radius, fov, VIEWPOINT_SIZE)
    images, _ = render_rgba(objects, cameras, np.ones((count, 3), np.float32), threads=1)
    return {"images": images, "azimuth": azimuth.numpy()}

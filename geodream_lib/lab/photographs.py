"""The 2D data: photographs as people take and caption them, for the autoencoder, text-to-image and image-text.

Broad and front-biased on purpose: single objects and compositions of two, materials, styles and places, seen mostly
from the front, the view mostly unsaid. Pictures that do say their view have a distribution of their own, in which backs
are frequent: so a network learns what ", back view" means and still takes an unsaid view for a front.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from geodream_lib import cameras as cam
from geodream_lib.lab.backgrounds import Background, draw_background, sample_background
from geodream_lib.lab.captions import caption, composition_caption
from geodream_lib.lab.compositions import Composition, sample_composition
from geodream_lib.lab.materials import MATERIALS, grain, made_of
from geodream_lib.lab.networks import IMAGE_SIZE
from geodream_lib.lab.objects import LabObject, sample_object
from geodream_lib.lab.primitives import CENTRE, COLOUR
from geodream_lib.lab.render import render, render_rgba
from geodream_lib.lab.styles import STYLES, stylized

PHOTOGRAPHS_PER_SHARD = 1024
SINGLE, COMPOSITION = 0, 1
COMPOSITION_SHARE = 0.43  # 38 % of the photographs are compositions in neither a material nor a style
MATERIAL_SHARE, STYLE_SHARE = 0.065, 0.055
SAID_VIEW_SHARE = 0.35
VIEW_SHARES = {"front view": 0.4, "side view": 0.2, "back view": 0.3, "overhead view": 0.1}  # of those that say it
WHITE_SHARE_OF_SAID_FRONTS, WHITE_SHARE = 0.65, 0.42  # 45 % together; references of the 3D stages are such fronts


@dataclass(frozen=True)
class Photograph:
    """One captioned photograph before it is rendered.

    subject: what is seen, in its own colours. azimuth, elevation, radius, fov: of the camera; angles in degrees.
    materials: of the one object or the two parts, a name of `MATERIALS` or None. style: a name of `STYLES` or None.
    view: one of `VIEWS` if the caption says it.
    """

    subject: LabObject | Composition
    azimuth: float
    elevation: float
    radius: float
    fov: float
    background: Background
    materials: tuple[str | None, ...]
    style: str | None
    view: str | None
    caption: str


def sample_view(rng: np.random.Generator) -> tuple[float, float, str | None]:
    """Azimuth and elevation in degrees, and the view word if the caption says it.

    An unsaid view is a walk to the front (azimuth normal, sigma 18 degrees), in 4 % anything else.
    """
    if rng.random() >= SAID_VIEW_SHARE:
        azimuth = rng.uniform(-180, 180) if rng.random() < 0.04 else rng.normal(0, 18)
        return float(azimuth), float(np.clip(rng.normal(14, 8), -10, 45)), None
    view = rng.choice(list(VIEW_SHARES), p=list(VIEW_SHARES.values()))
    elevation = np.clip(rng.normal(14, 6 if view == "front view" else 9), -10, 50)
    if view == "front view":
        azimuth = np.clip(rng.normal(0, 10), -29.5, 29.5)
    elif view == "side view":
        azimuth = rng.choice([-1, 1]) * np.clip(rng.normal(85, 22), 30.5, 135)
    elif view == "back view":
        azimuth = 180 + np.clip(rng.normal(0, 15), -39, 39)
    else:
        azimuth, elevation = np.clip(rng.normal(0, 40), -130, 130), rng.uniform(61, 85)
    return float((azimuth + 180) % 360 - 180), float(elevation), str(view)


def photograph(rng: np.random.Generator, split: str) -> Photograph:
    """Draw one photograph of a split of objects and compositions."""
    azimuth, elevation, view = sample_view(rng)
    special, name, style = rng.random(), None, None
    if special < MATERIAL_SHARE:
        name = str(rng.choice(MATERIALS))
    elif special < MATERIAL_SHARE + STYLE_SHARE:
        style = str(rng.choice(STYLES))
    if rng.random() < COMPOSITION_SHARE:
        subject = sample_composition(rng, split=split)
        parts, materials = subject.parts, (name, None) if rng.random() < 0.5 else (None, name)
    else:
        subject = sample_object(rng, split=split)
        parts, materials = (subject,), (name,)
    colors = tuple(part.colors[0] for part in parts)
    white = WHITE_SHARE_OF_SAID_FRONTS if view == "front view" else WHITE_SHARE
    background = sample_background(rng, white, colors)
    if background.is_place:
        elevation = max(elevation, 2.0)
    words = {"view": view, "background": background.phrase, "style": style}
    if isinstance(subject, Composition):
        text = composition_caption(subject, rng, **words, materials=materials)
    else:
        text = caption(subject, rng, **words, material=name)
    radius, fov = float(rng.uniform(2.6, 3.0)), float(rng.uniform(38, 43))
    return Photograph(subject, azimuth, elevation, radius, fov, background, materials, style, view, text)


def render_photographs(shard: int, split: str) -> dict[str, np.ndarray]:
    """Shard number `shard`: images `[n, 128, 128, 3]` uint8, captions, azimuth and elevation in degrees, kind.

    Kind is `SINGLE` or `COMPOSITION`.
    """
    rng = np.random.default_rng([21, shard, split == "train"])
    photos = [photograph(rng, split) for _ in range(PHOTOGRAPHS_PER_SHARD)]
    return {
        "images": develop(photos),
        "captions": np.array([photo.caption for photo in photos]),
        "azimuth": np.array([photo.azimuth for photo in photos], np.float32),
        "elevation": np.array([photo.elevation for photo in photos], np.float32),
        "kind": np.array([isinstance(photo.subject, Composition) for photo in photos], np.uint8),
    }


def develop(photos: list[Photograph]) -> np.ndarray:
    """Images `[n, 128, 128, 3]` uint8 of photographs, on one thread."""
    images = np.empty((len(photos), IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    special = [i for i, photo in enumerate(photos) if photo.style or any(photo.materials)]
    usual = sorted(set(range(len(photos))) - set(special))
    if usual:
        chosen = [photos[i] for i in usual]
        white = np.ones((len(chosen), 3), np.float32)
        images[usual], alpha = render_rgba([photo.subject for photo in chosen], _cameras(chosen), white, threads=1)
        for i, cover in zip(usual, alpha, strict=True):
            if photos[i].background.kind != "white":
                picture = _over_background(photos[i], images[i] / np.float32(255), cover)
                images[i] = _to_bytes(picture)
    for i in special:
        images[i] = _develop_special(photos[i])
    return images


def _cameras(photos: list[Photograph]) -> cam.Cameras:
    azimuth, elevation, radius, fov = (
        torch.tensor([getattr(photo, name) for photo in photos], dtype=torch.float32)
        for name in ("azimuth", "elevation", "radius", "fov")
    )
    return cam.orbit(azimuth, elevation, radius, fov, IMAGE_SIZE)


def _owner(subject: LabObject | Composition) -> np.ndarray:
    return subject.owner if isinstance(subject, Composition) else np.zeros(len(subject.primitives), np.int64)


def _over_background(photo: Photograph, image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """A picture rendered on white, put before the photograph's background."""
    floor = float(photo.subject.primitives[:, CENTRE.start + 2].min()) - 0.1
    behind = draw_background(photo.background, photo.elevation, photo.radius, photo.fov, floor, IMAGE_SIZE)
    clear = 1 - (alpha / np.float32(255))[..., None]
    return image - clear * (1 - behind)


def _develop_special(photo: Photograph) -> np.ndarray:
    """A picture in its materials and style: needs the depth and the solids that are seen, so it costs more."""
    rows, owner = photo.subject.primitives.copy(), _owner(photo.subject)
    for index, material in enumerate(photo.materials):
        if material:
            rows[owner == index] = made_of(rows[owner == index], material)
    cameras = _cameras([photo])
    drawn = render([replace(photo.subject, primitives=rows)], cameras, np.ones((1, 3), np.float32), threads=1)
    part, picture = drawn.part[0].astype(np.int64), drawn.rgb[0] / np.float32(255)
    origin, direction = cam.rays(cameras)
    points = (origin[0] + torch.from_numpy(drawn.depth[0])[..., None] * direction[0]).numpy()
    for index, material in enumerate(photo.materials):
        if material:
            seen = (part >= 0) & (owner[part] == index)
            picture[seen] *= grain(material, points[seen], drawn.normal[0][seen])[:, None]
    picture = _over_background(photo, picture, drawn.alpha[0])
    if photo.style:
        picture = stylized(photo.style, picture, rows[part, COLOUR], part)
    return _to_bytes(picture)


def _to_bytes(picture: np.ndarray) -> np.ndarray:
    return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)

"""What is behind the object of a photograph: white, a plain colour, a gradient, or a simple place with a horizon."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from geodream_lib.lab.shape import COLORS

# colours of the sky above and at the horizon and of the ground
_PLACES = {
    "grass": ((0.50, 0.72, 0.95), (0.82, 0.91, 0.98), (0.40, 0.62, 0.26)),
    "snow": ((0.60, 0.74, 0.92), (0.82, 0.89, 0.96), (0.95, 0.97, 1.00)),
    "beach": ((0.45, 0.72, 0.95), (0.80, 0.92, 0.98), (0.91, 0.83, 0.62)),
    "night": ((0.05, 0.06, 0.20), (0.20, 0.20, 0.42), (0.15, 0.18, 0.26)),
}
_SEA = (0.16, 0.52, 0.68)
PHRASES: dict[str, str] = {
    "white": "on a white background",
    "plain": "on a plain background",
    "gradient": "on a gradient background",
    "grass": "on grass",
    "snow": "in the snow",
    "beach": "at the beach",
    "night": "at night",
}
PLACES: tuple[str, ...] = tuple(_PLACES)
# how often a caption says what is behind
_SAID = {"white": 0.6, "plain": 0.25, "gradient": 0.15}
_SAID_PLACE = 0.85
_KINDS, _SHARES = ("plain", "gradient", *PLACES), (0.44, 0.2, 0.09, 0.09, 0.09, 0.09)


@dataclass(frozen=True)
class Background:
    """kind: a key of `PHRASES`. top, bottom: sRGB of sky and ground, or of a gradient. phrase: the words, if said."""

    kind: str
    top: tuple[float, float, float]
    bottom: tuple[float, float, float]
    phrase: str | None

    @property
    def is_place(self) -> bool:
        """Whether it has a horizon: the camera must not be below the ground."""
        return self.kind in PLACES


def sample_background(rng: np.random.Generator, white_share: float, colors: tuple[str, ...]) -> Background:
    """Draw a background unlike every named colour of the object before it.

    Args:
        rng: the only source of randomness.
        white_share: probability of plain white.
        colors: names of `COLORS` to keep away from.
    """
    if rng.random() < white_share:
        return Background("white", (1, 1, 1), (1, 1, 1), _said(rng, "white"))
    while True:
        kind = rng.choice(_KINDS, p=_SHARES)
        if kind in PLACES:
            top, _, bottom = (np.clip(np.add(c, rng.normal(0, 0.02, 3)), 0, 1) for c in _PLACES[kind])
        else:
            light = rng.uniform(0.55, 1.0, 3)
            top = bottom = 0.7 * light + 0.3 * light.mean()  # pale
        if kind == "gradient":
            bottom = np.clip(top + rng.uniform(0.1, 0.25) * rng.choice([-1, 1], 3), 0.4, 1.0)
        if all(math.dist(COLORS[name], colour) > 0.25 for name in colors for colour in (top, bottom)):
            return Background(str(kind), tuple(map(float, top)), tuple(map(float, bottom)), _said(rng, kind))


def _said(rng: np.random.Generator, kind: str) -> str | None:
    return PHRASES[kind] if rng.random() < _SAID.get(kind, _SAID_PLACE) else None


def draw_background(
    background: Background, elevation: float, radius: float, fov: float, floor: float, size: int
) -> Float[np.ndarray, "size size 3"]:
    """The background as the camera sees it, sRGB 0..1.

    Args:
        background: what is drawn.
        elevation, radius, fov: of a camera that looks at the origin; degrees, units, degrees. The elevation says how
            high the horizon of a place is.
        floor: height of the ground on which the object casts its soft shadow, below 0.
        size: pixels of a side.
    """
    rows = (np.arange(size) + 0.5) / size
    top, bottom = np.array(background.top), np.array(background.bottom)
    if not background.is_place:
        return np.broadcast_to((top + rows[:, None, None] * (bottom - top)), (size, size, 3))
    slope = math.tan(math.radians(fov / 2))
    up, right = slope * (1 - 2 * rows)[:, None], slope * (2 * rows - 1)[None]
    sin, cos = math.sin(math.radians(elevation)), math.cos(math.radians(elevation))
    fall = sin - up * cos  # how steeply a ray goes down; 0 on the horizon
    ahead = (radius * sin - floor) / np.maximum(fall, 0.02)
    x, y = radius * cos - ahead * (cos + up * sin), ahead * right
    ground = _ground(background, x, y)
    haze = np.clip(-x / 30, 0, 0.8)[..., None]
    horizon = np.array(_PLACES[background.kind][1])
    ground = ground + haze * (horizon - ground)
    sky = horizon + np.clip(-fall / 0.5, 0, 1)[..., None] * (top - horizon)
    soft = np.clip(0.5 + fall / 0.016, 0, 1)[..., None]
    return soft * ground + (1 - soft) * sky


def _ground(background: Background, x: np.ndarray, y: np.ndarray) -> Float[np.ndarray, "h w 3"]:
    """Colour of the ground at places `x` towards the camera and `y` to the side: the sea far off, a soft shadow."""
    ground = np.broadcast_to(np.array(background.bottom), (*y.shape, 3))
    if background.kind == "beach":
        sea = np.clip((-x - 3.2 + 0.15 * np.sin(2 * y)) / 0.25, 0, 1)[..., None]
        ground = ground + sea * (np.array(_SEA) - ground)
    shadow = np.exp(-((x / 0.62) ** 2) - (y / 0.62) ** 2)[..., None]
    return ground * (1 - 0.4 * shadow)

"""Filters on a finished picture, each with a phrase for the caption. Only the 2D data shows them."""

import numpy as np
from jaxtyping import Float, Int

CARTOON, PIXEL_ART, BLACK_AND_WHITE = STYLES = ("cartoon", "pixel art", "black and white photo")
_PIXELS = 4  # side of one block of pixel art
_LEVELS = 9
_LUMA = np.array([0.30, 0.59, 0.11])


def stylized(
    style: str,
    image: Float[np.ndarray, "h w 3"],
    flat: Float[np.ndarray, "h w 3"],
    part: Int[np.ndarray, "h w"],
) -> Float[np.ndarray, "h w 3"]:
    """The picture in a style of `STYLES`.

    Args:
        style: a name of `STYLES`.
        image: the finished picture, sRGB 0..1.
        flat: unshaded colour of the visible solid.
        part: row of the visible solid, -1 on the background.
    """
    if style == CARTOON:
        return _cartoon(image, flat, part)
    if style == PIXEL_ART:
        h, w, _ = image.shape
        blocks = image.reshape(h // _PIXELS, _PIXELS, w // _PIXELS, _PIXELS, 3).mean((1, 3))
        blocks = np.round(blocks * _LEVELS) / _LEVELS
        return blocks.repeat(_PIXELS, 0).repeat(_PIXELS, 1)
    luminance = image @ _LUMA
    return np.clip(0.5 + 1.15 * (luminance - 0.5), 0, 1)[..., None].repeat(3, -1)


def _cartoon(image, flat, part) -> Float[np.ndarray, "h w 3"]:
    """Two tones of every colour, and an ink line where the colour changes."""
    inside = part >= 0
    light = image.mean(-1) / np.maximum(flat.mean(-1), 0.05)
    tones = np.where(inside[..., None], flat * np.where(light > 0.88, 1.0, 0.8)[..., None], image)
    colour = np.where(inside, np.round(flat * 255) @ np.array([65536.0, 256.0, 1.0]), -1.0)
    line = np.zeros(part.shape)
    for axis in (0, 1):
        change = np.diff(colour, axis=axis) != 0
        before, after = [slice(None)] * 2, [slice(None)] * 2
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        line[tuple(before)] = np.maximum(line[tuple(before)], change)
        line[tuple(after)] = np.maximum(line[tuple(after)], change)
    padded = np.pad(line, 1)
    soft = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] + 4 * line) / 8
    return tones * (1 - 0.9 * soft[..., None])

"""Cut the object out of a plain background and centre it on white, as the multi-view networks want their input.

The released systems use a segmentation network here. Text-to-image with ", white background" or a product photograph
has a background that is plain, and then the border of the image says what it is.
"""

import logging
import math

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from geodream_lib.errors import InputError
from geodream_lib.views.images import on_white

logger = logging.getLogger(__name__)

SMALLEST = 16  # pixels a side below which there is no border to learn from
NOISE_LIMIT = 0.04  # robust noise of the border, in 0..1, above which a background is not plain
INLIERS = 0.6  # share of the border that has to be background


def remove_background(image: Float[Tensor, "h w c"]) -> Float[Tensor, "h w"]:
    """Alpha of the object in `image` (3 or 4 channels, 0..1).

    An alpha channel that is not opaque everywhere is returned as it is. Else the background's colour is fitted to the
    border of the image (constant, linear and quadratic from top to bottom, robust against an object that touches the
    border), and what looks like it and is connected to the border is background. Enclosed parts in the background's
    colour (a white belly) stay object; so does the hole of a ring.

    Raises:
        InputError: the image is smaller than 16 pixels, its background is not plain, or nothing stands out from it.
    """
    height, width = image.shape[:2]
    if min(height, width) < SMALLEST:
        raise InputError(
            f"the image is {width}x{height}; expected at least {SMALLEST}x{SMALLEST} pixels, use a larger one"
        )
    if image.shape[2] == 4 and (image[..., 3] < 254 / 255).any():
        if (image[..., 3] <= 0.5).all():
            raise InputError("the image is transparent everywhere; expected an object, check its alpha channel")
        return image[..., 3]
    color = image[..., :3].detach().cpu().double().numpy()
    distance, noise = _distance_to_background(color)
    # Two thresholds: the low one follows the edge of the object, the high one tells an object from a faint shadow.
    low, high = max(0.03, 3 * noise), max(0.1, 6 * noise)
    labels, _ = ndimage.label(distance < low)
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    candidate = ~np.isin(labels, border[border > 0])
    parts, count = ndimage.label(candidate, np.ones((3, 3)))
    index = np.arange(1, count + 1)
    contrast = ndimage.maximum(distance, parts, index) if count else np.zeros(0)
    area = ndimage.sum(candidate, parts, index) if count else np.zeros(0)
    # Specks, as unfinished denoising leaves them, would shift and shrink the object when it is centred.
    smallest = max(0.0005 * height * width, 0.03 * np.max(area, initial=0.0))
    solid = np.isin(parts, index[(np.asarray(contrast) > high) & (np.asarray(area) >= smallest)])
    if not solid.any():
        raise InputError(
            "no object found: everything looks like the background; expected one object that differs from a plain "
            "background, or an image with an alpha channel"
        )
    return torch.from_numpy(_soft_edge(solid, distance)).to(image)


def cut_out(image: Float[Tensor, "h w c"]) -> Float[Tensor, "h w"]:
    """As `remove_background`, for pictures that networks made: where it fails the whole picture stays, with a warning.

    One source view with its background is better than a run that ends.
    """
    try:
        return remove_background(image)
    except InputError as error:
        logger.warning("a predicted view keeps its background: %s", error)
        return image.new_ones(image.shape[:2])


def _distance_to_background(color: np.ndarray) -> tuple[np.ndarray, float]:
    """Distance of every pixel to the fitted background (largest channel difference), and the border's noise."""
    height, width = color.shape[:2]
    strip = max(2, round(0.02 * min(height, width)))
    mask = np.ones((height, width), bool)
    mask[strip:-strip, strip:-strip] = False
    y = np.linspace(-1, 1, height)
    basis = np.stack([np.ones(height), y, y * y], axis=1)
    design, target = basis[np.nonzero(mask)[0]], color[mask]
    # Iteratively reweighted least squares (Cauchy weights), started from the median colour.
    residual = np.abs(target - np.median(target, axis=0)).max(1)
    for _ in range(20):
        scale = max(1.4826 * np.median(residual), 0.004)
        weight = 1 / (1 + (residual / (2 * scale)) ** 2)
        ridge = 1e-6 * len(design) * np.eye(3)
        normal = design.T @ (design * weight[:, None]) + ridge
        coefficients = np.linalg.solve(normal, design.T @ (target * weight[:, None]))
        residual = np.abs(target - design @ coefficients).max(1)
    noise = 1.4826 * float(np.median(residual))
    share = float((residual < max(0.06, 4 * noise)).mean())
    if noise > NOISE_LIMIT or share < INLIERS:
        raise InputError(
            f"the background is not plain ({100 * share:.0f} % of the border fits one colour, noise {noise:.2f}); "
            "expected an object on a plain background, or an image with an alpha channel"
        )
    return np.abs(color - (basis @ coefficients)[:, None]).max(2), noise


def _soft_edge(solid: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Alpha from the mask: along the edge, the share of the way from the background to the object's nearby colour."""
    core = ndimage.binary_erosion(solid, np.ones((3, 3)), border_value=1)
    nearby = ndimage.maximum_filter(np.where(core, distance, 0), size=5)
    mixed = np.clip(distance / np.maximum(nearby, 1e-6), 0, 1)
    return np.where(core, 1.0, np.where(solid & (nearby > 0), mixed, solid.astype(float)))


def center_object(
    image: Float[Tensor, "h w 3"], alpha: Float[Tensor, "h w"], size: int, fill: float
) -> tuple[Float[Tensor, "{size} {size} 3"], Float[Tensor, "{size} {size}"]]:
    """Square crop of `size` pixels, object in the middle, its longer side filling `fill` of the frame, on white.

    Zero123's inputs fill 0.75 of the frame. Returns the image composited on white and its alpha, both 0..1.

    Raises:
        InputError: alpha is nowhere above one half.
    """
    rows, columns = torch.nonzero(alpha > 0.5, as_tuple=True)
    if len(rows) == 0:
        raise InputError("the object is empty (alpha is nowhere above one half); use another image")
    top, bottom = int(rows.min()), int(rows.max()) + 1
    left, right = int(columns.min()), int(columns.max()) + 1
    side = max(1, round(max(bottom - top, right - left) / fill))
    y, x = math.floor((top + bottom - side) / 2), math.floor((left + right - side) / 2)
    height, width = alpha.shape
    # Negative padding crops; outside of the picture is white and transparent.
    around = (-x, x + side - width, -y, y + side - height)
    layers = torch.cat([on_white(image, alpha), alpha[..., None]], dim=-1).permute(2, 0, 1)
    layers = torch.cat([functional.pad(layers[:3], around, value=1.0), functional.pad(layers[3:], around, value=0.0)])
    layers = functional.interpolate(layers[None], size=(size, size), mode="bicubic", antialias=True)[0].clamp(0, 1)
    return layers[:3].permute(1, 2, 0), layers[3]

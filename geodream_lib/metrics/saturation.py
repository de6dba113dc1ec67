"""What over-optimisation leaves in colours and in the field: glare, clipping, fog (figure 4, e and d)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geodream_lib.errors import InputError

EMPTY, SOLID = 0.1, 0.9  # opacity below which a pixel shows nothing, and above which it shows a surface
LEVEL = 1 / 255


@dataclass(frozen=True)
class Saturation:
    """Colour saturation of an object's pixels, HSV, 0..1: mean and 95th percentile.

    clipped: share of the pixels with a channel within one level of 8 bits of black or of full.
    """

    mean: float
    high: float
    clipped: float


def saturation(images: Float[Tensor, "n h w 3"], mask: Bool[Tensor, "n h w"]) -> Saturation:
    """Saturation of the pixels in `mask`; SDS is known to raise it above what its prior shows (section 3.2).

    Raises:
        InputError: there is no pixel in the mask.
    """
    pixels = images[mask]
    if len(pixels) == 0:
        raise InputError("the pictures show no object; expected some pixels of it, is the mesh within [-1, 1]^3?")
    high, low = pixels.amax(dim=-1), pixels.amin(dim=-1)
    values = torch.where(high > 0, (high - low) / high.clamp(min=1e-6), 0.0)
    clipped = (high >= 1 - LEVEL) | (low <= LEVEL)
    rank = round(0.95 * (len(values) - 1))
    return Saturation(values.mean().item(), values.sort().values[rank].item(), clipped.float().mean().item())


def half_transparent(opacity: Float[Tensor, "n h w"]) -> float:
    """Share of the silhouette (opacity above 0.1) that is neither empty nor solid (below 0.9): fog, 0..1.

    Raises:
        InputError: the field shows nothing.
    """
    seen = opacity > EMPTY
    if not seen.any():
        raise InputError("the field is empty everywhere; expected an object, refine it anew")
    return (seen & (opacity < SOLID)).sum().item() / seen.sum().item()

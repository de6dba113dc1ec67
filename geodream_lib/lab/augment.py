"""Exact pictures made as soft, shifted and off-colour as generated ones, so that a judge of both sees the object."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional


def disturb(images: UInt8[Tensor, "n h w 3"], generator: torch.Generator) -> Float[Tensor, "n h w 3"]:
    """Pictures in 0..1: moved and scaled a little, some of them blurred by a detour over fewer pixels, in other light,
    with noise."""
    pixels = images.permute(0, 3, 1, 2).float() / 255
    pixels = _soften(_move(pixels, generator), generator)
    count = len(pixels)

    def draw(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator, device=pixels.device)

    gain, offset = 0.9 + 0.2 * draw(3, 1, 1), 0.06 * (draw(1, 1, 1) - 0.5)
    noise = torch.randn(pixels.shape, generator=generator, device=pixels.device) * (0.04 * draw(1, 1, 1))
    # White stays white: the background of a render is no matter of light.
    return (1 - (1 - pixels) * gain + offset * (1 - pixels) + noise).clamp(0, 1).permute(0, 2, 3, 1)


def _move(pixels: Float[Tensor, "n 3 h w"], generator: torch.Generator) -> Float[Tensor, "n 3 h w"]:
    """Shifted by up to 6 % and seen 0.87 to 1.15 times as large; the border is continued."""
    count = len(pixels)
    drawn = torch.rand(count, 3, generator=generator, device=pixels.device)
    affine = torch.zeros(count, 2, 3, device=pixels.device)
    affine[:, 0, 0] = affine[:, 1, 1] = 0.87 + 0.28 * drawn[:, 0]
    affine[:, :, 2] = 0.24 * (drawn[:, 1:] - 0.5)
    grid = functional.affine_grid(affine, list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def _soften(pixels: Float[Tensor, "n 3 h w"], generator: torch.Generator) -> Float[Tensor, "n 3 h w"]:
    """The first third of a batch, resized to 0.3 to 0.8 of its size and back."""
    soft = len(pixels) // 3
    if not soft:
        return pixels
    side = pixels.shape[-1]
    drawn = torch.rand((), generator=generator, device=pixels.device).item()
    small = functional.interpolate(pixels[:soft], size=round(side * (0.3 + 0.5 * drawn)), mode="area")
    back = functional.interpolate(small, size=(side, side), mode="bilinear", align_corners=False)
    return torch.cat([back, pixels[soft:]])

"""Image files in and out: the library's images are `[H, W, 3 or 4]`, float32, 0..1, sRGB."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from geodream_lib.errors import InputError
from geodream_lib.storage import atomic_write


def read_image(path: Path | str) -> Float[Tensor, "h w c"]:
    """Read an 8-bit image file as it should be seen (EXIF rotation applied): 3 channels, or 4 when it has an alpha.

    The colours of a transparent image are the stored ones (not multiplied by alpha).

    Raises:
        InputError: the file is missing, is not an image, is truncated or has more than 8 bits a channel.
    """
    if not Path(path).is_file():
        raise InputError(f"no image at {path}; check the path")
    try:
        with Image.open(path) as file:
            if file.mode[0] in "IF":
                raise InputError(f"{path} has pixel mode {file.mode}; expected an 8-bit image, convert it first")
            file = ImageOps.exif_transpose(file)
            mode = "RGBA" if file.has_transparency_data else "RGB"
            pixels = np.asarray(file.convert(mode))
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read the image {path}: {error}; expected a whole PNG, JPEG or WebP file") from error
    return torch.from_numpy(pixels.astype(np.float32) / 255)


def write_image(path: Path | str, image: Float[Tensor, "h w c"]) -> None:
    """Write `image` (3 or 4 channels, clamped to 0..1, rounded to 8 bits) as PNG, whole or not at all."""
    pixels = (image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    with atomic_write(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def on_white(color: Float[Tensor, "*n h w 3"], alpha: Float[Tensor, "*n h w"]) -> Float[Tensor, "*n h w 3"]:
    """Composite straight colours on white."""
    return color * alpha[..., None] + (1 - alpha[..., None])


def off_white(image: Float[Tensor, "*n h w 3"], alpha: Float[Tensor, "*n h w"]) -> Float[Tensor, "*n h w 3"]:
    """Straight colours of an image that was composited on white, the inverse of `on_white`; white where alpha is 0."""
    return torch.where(
        alpha[..., None] > 0, ((image - 1) / alpha[..., None].clamp(min=1e-6) + 1).clamp(0, 1), torch.ones_like(image)
    )

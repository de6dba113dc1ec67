"""The reference image as the networks of Zero123++ want it: on grey, in two sizes, with two normalisations.

The released image processors work on 8-bit images with Pillow's filters, and so does this: the same picture gives the
same pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

GREY = 127  # of 255; the network's background, zero after the VAE branch's normalisation


@dataclass(frozen=True)
class ImageInput:
    """What a network wants of an image: `size` pixels a side, filtered by `resample`, (x - mean) / std of x in 0..1.

    Zero123++ has two. The VAE gets 512 pixels (though the output tiles have 320), bilinear, mean 0.5 and std 0.8: the
    same as [-1, 1] and then `scale_image`. CLIP gets 224 pixels, bicubic, with its own mean and std.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: Image.Resampling


def on_grey(image: Float[Tensor, "h w c"]) -> UInt8[Tensor, "h w 3"]:
    """The image in 8 bits, pasted on grey where its alpha says so; 3 or 4 channels, straight colours, 0..1."""
    pixels = Image.fromarray((image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy())
    if pixels.mode == "RGBA":
        background = Image.new("RGB", pixels.size, (GREY, GREY, GREY))
        background.paste(pixels, mask=pixels.getchannel("A"))
        pixels = background
    return torch.from_numpy(np.array(pixels))


def network_pixels(image: UInt8[Tensor, "n n 3"], how: ImageInput) -> Float[Tensor, "1 3 {how.size} {how.size}"]:
    """The square image resized and normalised as `how` says.

    The released processors bring the shortest edge to `size` and crop the centre, which for a square is a resize.
    """
    resized = Image.fromarray(image.numpy()).resize((how.size, how.size), how.resample)
    values = torch.from_numpy(np.array(resized)).float() / 255
    return ((values - torch.tensor(how.mean)) / torch.tensor(how.std)).permute(2, 0, 1)[None]

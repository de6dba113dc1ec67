"""Viewpoint evaluator: from where was this picture taken? The lab's own; by it the Janus problem is measured.

A picture of a back that looks like a front is what the problem is. So the network does not give one angle: it gives a
distribution over the circle, in which doubt between front and back is seen.
"""

import math
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from geodream_lib.checkpoints import read_weights
from geodream_lib.errors import InputError
from geodream_lib.storage import load_into, read_json, save_tensors, write_json

BINS = 36  # of 10 degrees, the first in the middle of the front
FRONT = 45.0  # degrees: a camera nearer to the front than this shows it
BATCH = 128
WEIGHTS = "model.safetensors"


class Residual(nn.Module):
    """Two convolutions behind norms, added to their input."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return x + self.conv2(functional.silu(self.norm2(self.conv1(functional.silu(self.norm1(x))))))


class Viewpoint(nn.Module):
    """A small convolutional network: a picture of one object on white to a distribution of its azimuth.

    Only kinds of object that have a front have an answer; others give a flat distribution at best.

    Args:
        widths: channels at a half, a quarter and so on of the image size; multiples of 8.
        image_size: pixels a side to which every picture is resized, a multiple of 2^len(widths).
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 96, 128), image_size: int = 64):
        super().__init__()
        self.widths, self.image_size = widths, image_size
        levels = []
        for before, width in zip((3, *widths[:-1]), widths, strict=True):
            # Two by two pixels become channels: nothing is lost on the way down.
            levels += [nn.PixelUnshuffle(2), nn.Conv2d(4 * before, width, 3, padding=1), Residual(width)]
        self.levels = nn.Sequential(*levels)
        self.norm = nn.GroupNorm(8, widths[-1])
        side = image_size >> len(widths)
        # What is left and right of the middle tells the two sides apart, so places are kept.
        self.head = nn.Linear(widths[-1] * side * side, BINS)

    def forward(self, pixels: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n bins"]:
        """Logits over azimuth 0, 10, ... 350 degrees of pictures in -1..1 of the network's own size."""
        return self.head(functional.silu(self.norm(self.levels(pixels))).flatten(1))

    @classmethod
    def load(cls, source: Path | str, device: torch.device | str = "cpu") -> "Viewpoint":
        """Read a folder with config.json and model.safetensors.

        Raises:
            InputError: the folder is missing or damaged, or holds another network.
        """
        folder = Path(source)
        config = read_json(folder / "config.json")
        try:
            network = cls(tuple(config["widths"]), config["image_size"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{folder}/config.json describes no viewpoint network ({error}); expected widths and image_size"
            ) from error
        load_into(network, read_weights(folder / WEIGHTS), str(folder))
        return network.eval().requires_grad_(False).to(device)

    def save(self, folder: Path) -> None:
        """Write the folder that `load` reads.

        Raises:
            InputError: the folder cannot be written.
        """
        save_tensors(folder / WEIGHTS, self.state_dict())
        write_json(folder / "config.json", {"widths": list(self.widths), "image_size": self.image_size})

    def prepare(self, images: Float[Tensor, "n h w 3"]) -> Float[Tensor, "n 3 s s"]:
        """Pictures in 0..1 of any square size to what the network takes."""
        pixels = images.permute(0, 3, 1, 2)
        if pixels.shape[-1] != self.image_size or pixels.shape[-2] != self.image_size:
            shape = (self.image_size, self.image_size)
            pixels = functional.interpolate(pixels, shape, mode="bicubic", antialias=True, align_corners=False)
        return pixels.clamp(0, 1) * 2 - 1

    @torch.no_grad()
    def distribution(self, images: Float[Tensor, "n h w 3"]) -> Float[Tensor, "n bins"]:
        """Probability of azimuth 0, 10, ... 350 degrees, for each picture in 0..1 of one object on white.

        Raises:
            InputError: there is no picture, or they are not square.
        """
        if not len(images) or images.shape[1] != images.shape[2]:
            raise InputError(f"pictures {tuple(images.shape)}; expected square ones, at least one")
        device = self.head.weight.device
        parts = [self(self.prepare(part.to(device))) for part in images.split(BATCH)]
        return torch.cat(parts).float().softmax(dim=-1)

    def predict(self, images: Float[Tensor, "n h w 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Azimuth in degrees, in (-180, 180], and how concentrated its distribution is: 0 (anywhere) to 1 (certain).

        The mean direction of the distribution: where front and back are both likely the two cancel, the concentration
        is small, and the likelier one is left.
        """
        return mean_direction(self.distribution(images))

    def frontness(self, images: Float[Tensor, "n h w 3"]) -> Float[Tensor, " n"]:
        """Probability that the picture shows the front: its azimuth is nearer to 0 than 45 degrees."""
        turned = ((bin_angles() + 180) % 360 - 180).abs()
        return self.distribution(images)[:, turned < FRONT].sum(dim=-1)


def bin_angles() -> Float[Tensor, " bins"]:
    """Azimuth of the middle of each bin, degrees."""
    return torch.arange(BINS) * (360.0 / BINS)


def mean_direction(distribution: Float[Tensor, "n bins"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Direction, degrees in (-180, 180], and length of the mean of the bins' unit vectors, weighted by probability."""
    angles = bin_angles().to(distribution.device) * (math.pi / 180)
    east, north = distribution @ angles.cos(), distribution @ angles.sin()
    azimuth = torch.atan2(north, east) * (180 / math.pi)
    return torch.where(azimuth <= -180, azimuth + 360, azimuth), (east.square() + north.square()).sqrt()

"""A KL autoencoder for small machines: Stable Diffusion's, with its two finest levels replaced by space-to-depth.

At 128 pixels on a CPU three quarters of the usual autoencoder's time go into the two finest levels, on few channels.
Here they only rearrange pixels (2x2 into channels, twice); training sees about five times as many images an hour. The
rest is diffusers' `AutoencoderKL`: same latents, same calls, and `StableDiffusionPipeline` loads it by name.
"""

import inspect
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    ModelMixin,  # noqa: F401  pipelines look for it beside a class they load by the name of its module
)
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from geodream_lib.components import part_home
from geodream_lib.storage import read_json

PATCH = 4


class UnshuffleAutoencoderKL(AutoencoderKL):
    """Factor-8 autoencoder, images `[n, 3, h, w]` in [-1, 1] to latents `[n, latent_channels, h/8, w/8]`.

    `block_out_channels` names four levels, as for any factor-8 autoencoder (pipelines count them): the first two are
    fixed at 12 and 48, what 2x2 and 4x4 pixels hold.
    """

    def __init__(
        self,
        block_out_channels: Sequence[int] = (12, 48, 64, 128),
        layers_per_block: int = 1,
        latent_channels: int = 4,
        norm_num_groups: int = 16,
        sample_size: int = 128,
        scaling_factor: float = 1.0,
    ) -> None:
        super().__init__(
            in_channels=3 * PATCH**2,
            out_channels=3 * PATCH**2,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=tuple(block_out_channels[2:]),
            layers_per_block=layers_per_block,
            latent_channels=latent_channels,
            norm_num_groups=norm_num_groups,
            sample_size=sample_size,
            scaling_factor=scaling_factor,
        )
        self.register_to_config(in_channels=3, out_channels=3, block_out_channels=tuple(block_out_channels))

    def to_json_string(self) -> str:
        """The configuration file: what `__init__` takes, without what the base class derives from it."""
        whole = json.loads(super().to_json_string())
        kept = {"_class_name", "_diffusers_version", *inspect.signature(type(self).__init__).parameters}
        return json.dumps({key: value for key, value in whole.items() if key in kept}, indent=2) + "\n"

    def encode(self, x: Float[Tensor, "n 3 h w"], return_dict: bool = True) -> AutoencoderKLOutput | tuple:
        """Posterior over latents, as `AutoencoderKL.encode`."""
        return super().encode(functional.pixel_unshuffle(x, PATCH), return_dict=return_dict)

    def decode(
        self, z: Float[Tensor, "n c hl wl"], return_dict: bool = True, generator: torch.Generator | None = None
    ) -> DecoderOutput | tuple[Tensor]:
        """Images, as `AutoencoderKL.decode`."""
        image = functional.pixel_shuffle(super().decode(z, return_dict=False)[0], PATCH)
        return DecoderOutput(sample=image) if return_dict else (image,)


def autoencoder_class(source: Path | str) -> type[AutoencoderKL]:
    """Which of the two autoencoders a diffusers folder holds in `vae/`; a hub id has the usual one."""
    config = Path(part_home(source, "vae")) / "vae" / "config.json"
    named = read_json(config).get("_class_name") if config.is_file() else None
    return UnshuffleAutoencoderKL if named == UnshuffleAutoencoderKL.__name__ else AutoencoderKL

"""Diffusers folders, from disk or from the hub: safetensors weights and known component classes, no foreign code."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from geodream_lib.components import part_home, read_component, read_network
from geodream_lib.errors import InputError
from geodream_lib.guidance.diffusion import Denoiser, LatentDiffusion
from geodream_lib.storage import read_json
from geodream_lib.unshuffle_vae import UnshuffleAutoencoderKL, autoencoder_class

# What a part cannot be read without: one of the files. Without a vocabulary transformers makes an empty tokenizer.
FILES = {
    "tokenizer": ("tokenizer.json", "vocab.json"),
    "text_encoder": ("config.json",),
    "vae": ("config.json",),
    "unet": ("config.json",),
    "scheduler": ("scheduler_config.json",),
}


def load_diffusion(
    source: Path | str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    autocast: torch.dtype | None = None,
) -> LatentDiffusion:
    """Load a text-to-image Stable Diffusion: a local diffusers folder (the hub is not touched) or a hub id.

    Args:
        source: folder with unet/, vae/, text_encoder/, tokenizer/, scheduler/; or `owner/name` on the hub.
        dtype: type of the frozen weights (`torch.float16` halves the memory of a GPU).
        autocast: half-precision type for the arithmetic of float32 weights.

    Raises:
        InputError: the folder is missing, incomplete, truncated, or holds another kind of model.
    """
    _check_folder(source, list(FILES))
    tokenizer = read_component(CLIPTokenizer, source, "tokenizer")
    text_encoder = read_network(CLIPTextModel, source, "text_encoder", dtype)
    vae = read_network(autoencoder_class(source), source, "vae", dtype)
    denoiser = load_denoiser(source, device, dtype, autocast)
    width, expected = text_encoder.config.hidden_size, denoiser.unet.config.cross_attention_dim
    if width != expected:
        raise InputError(
            f"{source}: the text encoder gives {width} numbers per token and the unet expects {expected}; "
            "the two come from different models, fetch the folder anew"
        )
    return LatentDiffusion(vae, text_encoder, tokenizer, denoiser).to(device)


def load_denoiser(
    source: Path | str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    autocast: torch.dtype | None = None,
) -> Denoiser:
    """Load unet/ and scheduler/ alone: the network under the LoRA when it is not the pretrained one.

    VSD as released uses Stable Diffusion 2.1, which predicts velocity, beside 2.1-base, which predicts noise.
    Arguments and errors as in `load_diffusion`.
    """
    _check_folder(source, ["unet", "scheduler"])
    scheduler = read_component(DDIMScheduler, source, "scheduler")
    unet = read_network(UNet2DConditionModel, source, "unet", dtype)
    return Denoiser(unet, scheduler, autocast).requires_grad_(False).eval().to(device)


def _check_folder(source: Path | str, parts: list[str]) -> None:
    """A local folder must exist and have its parts; `owner/name` that is no folder is left to the hub."""
    folder = Path(source)
    if not folder.is_dir():
        if isinstance(source, str) and source.count("/") == 1 and not source.startswith((".", "/", "~")):
            return
        raise InputError(f"no diffusion model at {source}: expected a diffusers folder, or a hub id such as owner/name")
    for part in parts:
        home = Path(part_home(folder, part))
        if not any((home / part / file).is_file() for file in FILES[part]):
            raise InputError(
                f"{home} is not a whole diffusers folder: no {part}/{FILES[part][-1]}; "
                f"expected {', '.join(f'{name}/' for name in parts)}, fetch it anew"
            )
    for part, expected in (("unet", (UNet2DConditionModel,)), ("vae", (AutoencoderKL, UnshuffleAutoencoderKL))):
        if part in parts:
            name = read_json(Path(part_home(folder, part)) / part / "config.json").get("_class_name")
            if name not in [kind.__name__ for kind in expected]:
                raise InputError(
                    f"{source}/{part} is a {name}, expected a {expected[0].__name__}; "
                    "this is not a Stable Diffusion folder, choose another"
                )

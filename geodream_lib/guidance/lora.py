"""epsilon_l of Eq. 9: a frozen UNet with trainable low-rank updates and a camera embedding."""

import copy
import math
import re
from collections.abc import Mapping

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.embeddings import TimestepEmbedding
from peft import LoraConfig
from torch import Tensor, nn

from geodream_lib.errors import InputError
from geodream_lib.guidance.diffusion import Denoiser

# Query, key, value and output projection of every attention, self and cross, and nothing else.
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


def add_camera_lora(
    denoiser: Denoiser, generator: torch.Generator, rank: int = 4, silent_camera: bool = True
) -> Denoiser:
    """A denoiser with the weights of `denoiser`, LoRA on its attentions and a camera embedding.

    The frozen weights are the same tensors, so it costs no memory to make epsilon_l out of the pretrained network
    itself, and `denoiser` stays as it was. Scale of the update: alpha / rank = 1. The camera's 16 numbers go through
    two linear layers and are added to the time embedding (the UNet's slot for class labels).

    At the start the new network predicts exactly what `denoiser` does, for every camera: the LoRA's second factor is
    zero, and so is the last layer of the camera embedding. With `silent_camera` False that layer is left at its random
    initialisation, as in the released code.
    """
    unet = _sharing_copy(denoiser.unet)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS))
    unet.class_embedding = TimestepEmbedding(16, unet.time_embedding.linear_2.out_features)
    unet.class_embedding.to(unet.conv_in.weight.device)
    for name, parameter in unet.named_parameters():
        if parameter.requires_grad:
            # Trainable weights stay in float32 also under half-precision base weights.
            parameter.data = parameter.data.float()
            _initialise(name, parameter, rank, silent_camera, generator)
    return Denoiser(unet, denoiser.scheduler, denoiser.autocast).to(denoiser.alphas_cumprod.device).eval()


def copy_lora(lora: Denoiser) -> Denoiser:
    """Another epsilon_l that is the same now and is trained by itself; the frozen weights are the same tensors."""
    frozen = [tensor for tensor in (*lora.parameters(), *lora.buffers()) if not tensor.requires_grad]
    return copy.deepcopy(lora, memo={id(tensor): tensor for tensor in frozen})


def lora_parameters(lora: Denoiser) -> list[nn.Parameter]:
    """What the LoRA optimiser trains: low-rank factors and camera embedding."""
    return [parameter for parameter in lora.parameters() if parameter.requires_grad]


def lora_state(lora: Denoiser) -> dict[str, Tensor]:
    """The trainable tensors alone, named `<attention>.to_q.lora_A.weight`, …, `class_embedding.linear_1.weight`, …."""
    return {
        name.replace(".default.", "."): parameter.detach()
        for name, parameter in lora.unet.named_parameters()
        if parameter.requires_grad
    }


@torch.no_grad()
def load_lora_state(lora: Denoiser, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors saved from `lora_state`, or LoRA weights with the names of diffusers' former attention processors.

    Raises:
        InputError: a tensor is missing, unknown or has another shape; the message names the first.
    """
    own = lora_state(lora)
    given = {modern_name(name): tensor for name, tensor in tensors.items()}
    wrong = sorted(own.keys() ^ given.keys()) or [name for name in own if own[name].shape != given[name].shape]
    if wrong:
        raise InputError(
            f"{source} does not fit the LoRA: {len(wrong)} tensors are missing, unknown or of another shape, first "
            f"{wrong[0]}; it was trained on another network or with another rank"
        )
    for name, tensor in given.items():
        own[name].copy_(tensor)


def modern_name(name: str) -> str:
    """`….processor.to_out_lora.up.weight`, as older LoRA files are written, to `….to_out.0.lora_B.weight`."""
    match = re.fullmatch(r"(.+)\.processor\.(to_[qkv]|to_out)_lora\.(down|up)\.weight", name)
    if match is None:
        return name
    attention, projection, factor = match.groups()
    projection = "to_out.0" if projection == "to_out" else projection
    return f"{attention}.{projection}.lora_{'A' if factor == 'down' else 'B'}.weight"


def _sharing_copy(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """New modules around the same parameter and buffer tensors."""
    shared = [*unet.parameters(), *unet.buffers()]
    return copy.deepcopy(unet, memo={id(tensor): tensor for tensor in shared})


def _initialise(name: str, parameter: nn.Parameter, rank: int, silent_camera: bool, generator: torch.Generator) -> None:
    """First factor normal(0, 1/rank), the camera's layers by PyTorch's uniform rule, what is silent zero."""
    random_layers = ("class_embedding.linear_1.",) if silent_camera else ("class_embedding.",)
    if ".lora_A." in name:
        values = torch.randn(parameter.shape, generator=generator, device=generator.device) / rank
    elif name.startswith(random_layers):
        # nn.Linear draws weight and bias alike from +-1/sqrt(fan_in): 16 for the camera, then the layer's own width.
        fan_in = 16 if "linear_1" in name else parameter.shape[0]
        values = (2 * torch.rand(parameter.shape, generator=generator, device=generator.device) - 1) / math.sqrt(fan_in)
    else:
        values = torch.zeros(parameter.shape)
    with torch.no_grad():
        parameter.copy_(values)

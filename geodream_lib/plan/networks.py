"""The networks of a preset without their weights: modules on the meta device, built from configurations alone.

Public ones from the released configurations, whether they are on disk or not; local ones from their folder's
`config.json` files.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.embeddings import TimestepEmbedding
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from geodream_lib.components import part_home
from geodream_lib.storage import load_tensors, read_json
from geodream_lib.unshuffle_vae import autoencoder_class
from geodream_lib.views.zero123.model import CameraProjection
from geodream_lib.volume.networks import CostVolumeNetworks, load_cost_volume_networks
from geodream_lib.weights.folder import network_path, ready_path
from geodream_lib.weights.ldm import (
    MVDREAM_SD15_UNET,
    MVDREAM_SD21_UNET,
    VAE,
    ZERO123_UNET,
    unet_config,
    vae_config,
)
from geodream_lib.weights.table import NETWORKS

# MVDream's UNet is Stable Diffusion's, which was trained on larger latents. All others in the table are Zero123's.
_UNETS = {
    "sd21-base": MVDREAM_SD21_UNET | {"image_size": 64},
    "sd21": MVDREAM_SD21_UNET | {"image_size": 96},
    "sd15": MVDREAM_SD15_UNET | {"image_size": 64},
    "mvdream-sd21": MVDREAM_SD21_UNET,
    "mvdream-sd15": MVDREAM_SD15_UNET,
    "zero123plus-v1.1": MVDREAM_SD21_UNET | {"image_size": 64},
    "zero123plus-v1.2": MVDREAM_SD21_UNET | {"image_size": 64},
}
# CLIP's text towers by their width: OpenAI's ViT-L/14, and OpenCLIP's ViT-H/14 without its last layer.
_TEXT = {
    768: {"intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    1024: {"intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16},
}
# CLIP's image towers by the width of what they give: ViT-L/14 of Zero123, ViT-H/14 of Zero123++.
_IMAGE = {
    768: {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
    1024: {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16},
}


def make_networks(name: str, parts: tuple[str, ...], dtype: torch.dtype) -> nn.ModuleDict:
    """Parts of the network `name` on the meta device, frozen, as they are loaded.

    Args:
        name: of the weights table, or a folder as in a preset.
        parts: of "unet", "vae", "text_encoder", "camera_embedding" (MVDream's), "image_encoder" and
            "clip_camera_projection" (Zero123's), "vision_encoder" (Zero123++'s).

    Raises:
        InputError: a local folder is missing or has no such part.
    """
    folder = None if name in NETWORKS else network_path(name)
    with torch.device("meta"):
        made = {part: _public(name, part) if folder is None else _local(folder, part) for part in parts}
    return nn.ModuleDict(made).to(dtype).requires_grad_(False).eval()


def make_cost_volume_networks(name: str) -> CostVolumeNetworks:
    """One-2-3-45's networks on the meta device; of a local file, in its sizes."""
    if name not in NETWORKS:
        return load_cost_volume_networks(network_path(name)).to("meta")
    with torch.device("meta"):
        return CostVolumeNetworks()


def learnt_sharpness(name: str) -> float | None:
    """The sharpness s that a cost volume's networks learnt; None where their file is not there."""
    path = ready_path(name) if name in NETWORKS else network_path(name)
    if not path.exists():
        return None
    return float((10 * load_tensors(path)[0]["variance_network_lod0.variance"]).exp())


def count_parameters(network: nn.Module) -> int:
    """How many numbers they are."""
    return sum(parameter.numel() for parameter in network.parameters())


def weight_bytes(network: nn.Module) -> int:
    """Memory that its parameters take."""
    return sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())


def _public(name: str, part: str) -> nn.Module:
    unet = _UNETS.get(name, ZERO123_UNET)
    width = unet["context_dim"]
    if part == "unet":
        return UNet2DConditionModel(**unet_config(unet))
    if part == "vae":
        return AutoencoderKL(**vae_config(VAE))
    if part == "text_encoder":
        return CLIPTextModel(CLIPTextConfig(hidden_size=width, **_TEXT[width]))
    if part == "camera_embedding":
        return TimestepEmbedding(16, 4 * unet["model_channels"])
    if part == "clip_camera_projection":
        return CameraProjection(width, width)
    return CLIPVisionModelWithProjection(CLIPVisionConfig(patch_size=14, projection_dim=width, **_IMAGE[width]))


def _local(folder: Path, part: str) -> nn.Module:
    if part == "camera_embedding":
        return TimestepEmbedding(16, 4 * read_json(folder / "unet" / "config.json")["block_out_channels"][0])
    config = read_json(Path(part_home(folder, part)) / part / "config.json")
    if part == "unet":
        return UNet2DConditionModel.from_config(config)
    if part == "vae":
        return autoencoder_class(folder).from_config(config)
    if part == "text_encoder":
        return CLIPTextModel(CLIPTextConfig(**config))
    if part == "clip_camera_projection":
        return CameraProjection(config["embedding_dim"], config["output_dim"])
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**config))

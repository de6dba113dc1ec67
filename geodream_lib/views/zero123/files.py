"""Zero123's folder in the diffusers layout, read strictly and written whole."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import diffusers
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection

from geodream_lib.components import INDEX, SHARED, check_shared, part_home, read_component, read_network
from geodream_lib.errors import InputError
from geodream_lib.storage import load_tensors, read_json, save_tensors, write_json
from geodream_lib.unshuffle_vae import autoencoder_class

if TYPE_CHECKING:
    from geodream_lib.views.zero123.model import Zero123

NETWORKS = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "image_encoder": CLIPVisionModelWithProjection}
PROJECTION = "clip_camera_projection"
WEIGHTS = "diffusion_pytorch_model.safetensors"


def load_parts(
    folder: Path, dtype: torch.dtype
) -> tuple[dict[str, nn.Module | DDIMScheduler], dict[str, Tensor], bool]:
    """`(networks and scheduler by name, weights of the camera projection, whether it is Stable Zero123)`.

    Raises:
        InputError: the folder or a part of it is missing, truncated, or does not fit together as Zero123.
    """
    if not (folder / INDEX).is_file():
        raise InputError(
            f"{folder} is not a Zero123 folder (no model_index.json); expected the diffusers layout with "
            f"{', '.join(NETWORKS)}, {PROJECTION} and scheduler (a save that was interrupted leaves none: save again)"
        )
    for name in (*NETWORKS, PROJECTION, "scheduler"):
        if not (Path(part_home(folder, name)) / name).is_dir():
            raise InputError(f"{folder} has no {name}/; expected Zero123 in the diffusers layout, fetch it anew")
    kinds = NETWORKS | {"vae": autoencoder_class(folder)}
    parts = {name: read_network(kind, folder, name, dtype) for name, kind in kinds.items()}
    parts["scheduler"] = read_component(DDIMScheduler, folder, "scheduler")
    projection, _ = load_tensors(folder / PROJECTION / WEIGHTS)
    check_fit(parts, projection, str(folder))
    config = folder / PROJECTION / "config.json"
    return parts, projection, bool(config.is_file() and read_json(config).get("stable", False))


def check_fit(parts: Mapping[str, nn.Module | DDIMScheduler], projection: Mapping[str, Tensor], source: str) -> None:
    """That the parts belong to one Zero123.

    Raises:
        InputError: the UNet does not see two latents, or the projection does not join the image encoder to it.
    """
    channels, latent = parts["unet"].config.in_channels, parts["vae"].config.latent_channels
    if channels != 2 * latent:
        raise InputError(
            f"the UNet of {source} has {channels} input channels; expected {2 * latent} (noisy and reference latent), "
            "it is not Zero123's"
        )
    wanted = (parts["unet"].config.cross_attention_dim, parts["image_encoder"].config.projection_dim + 4)
    shapes = {name: tuple(tensor.shape) for name, tensor in projection.items()}
    if shapes != {"proj.weight": wanted, "proj.bias": wanted[:1]}:
        expected = f"proj.weight {wanted} and proj.bias {wanted[:1]}"
        raise InputError(f"{PROJECTION} of {source} holds {shapes}; expected {expected}, do the parts belong together?")


def save_parts(model: "Zero123", folder: Path, shared: Mapping[str, str]) -> None:
    """Write every part of `model` but the `shared` ones; `model_index.json` is removed first and written last.

    Raises:
        InputError: the folder cannot be written, or a shared part is not where `shared` says.
    """
    check_shared(folder, shared, NETWORKS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INDEX).unlink(missing_ok=True)
        for name in (*NETWORKS, "scheduler"):
            if name in shared:
                shutil.rmtree(folder / name, ignore_errors=True)  # of an earlier save
            else:
                getattr(model, name).save_pretrained(folder / name)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot write {folder}: {error}; free some space or choose another folder") from error
    projection = model.clip_camera_projection
    save_tensors(folder / PROJECTION / WEIGHTS, projection.state_dict())
    context, width = projection.proj.weight.shape
    config = {"_class_name": "CLIPCameraProjection", "embedding_dim": width - 4, "additional_embeddings": 4}
    write_json(folder / PROJECTION / "config.json", config | {"output_dim": context, "stable": model.stable})
    libraries = {
        name: ["transformers" if name == "image_encoder" else "diffusers", kind.__name__]
        for name, kind in NETWORKS.items()
    }
    libraries |= {"scheduler": ["diffusers", "DDIMScheduler"], PROJECTION: ["zero123", "CLIPCameraProjection"]}
    index = {"_class_name": "Zero123Pipeline", "_diffusers_version": diffusers.__version__}
    write_json(folder / INDEX, index | libraries | ({SHARED: dict(shared)} if shared else {}))

"""Zero123++'s folder in the public diffusers layout, read strictly and written whole.

Read are JSON and safetensors, by classes that are named here; the pipeline code that public copies carry stays unread.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from geodream_lib.components import INDEX, SHARED, check_shared, part_home, read_component, read_network
from geodream_lib.errors import InputError
from geodream_lib.storage import atomic_folder, read_json, write_json
from geodream_lib.unshuffle_vae import autoencoder_class
from geodream_lib.views.zero123plus.image import ImageInput

if TYPE_CHECKING:
    from geodream_lib.views.zero123plus.model import Zero123Plus

NETWORKS = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "vision_encoder": CLIPVisionModelWithProjection,
}
PLAIN = {"tokenizer": CLIPTokenizer, "scheduler": EulerAncestralDiscreteScheduler}
INPUTS = ("feature_extractor_vae", "feature_extractor_clip")
RAMP = "ramping_coefficients"


def load_parts(folder: Path, dtype: torch.dtype) -> dict[str, object]:
    """The arguments of `Zero123Plus` out of its folder, networks in `dtype`.

    Raises:
        InputError: the folder or a part of it is missing, truncated, or does not fit together as Zero123++.
    """
    if not (folder / INDEX).is_file():
        raise InputError(
            f"{folder} is not a Zero123++ folder (no model_index.json); expected the diffusers layout with "
            f"{', '.join((*NETWORKS, *PLAIN, *INPUTS))}, fetch it anew"
        )
    for name in (*NETWORKS, *PLAIN, *INPUTS):
        if not (Path(part_home(folder, name)) / name).is_dir():
            raise InputError(f"{folder} has no {name}/; expected Zero123++ in the diffusers layout, fetch it anew")
    # Without a vocabulary transformers makes an empty tokenizer.
    words = Path(part_home(folder, "tokenizer")) / "tokenizer"
    if not any((words / file).is_file() for file in ("tokenizer.json", "vocab.json")):
        raise InputError(f"{words} holds no vocab.json or tokenizer.json; fetch the folder anew")
    kinds = NETWORKS | {"vae": autoencoder_class(folder)}
    parts = {name: read_network(kind, folder, name, dtype) for name, kind in kinds.items()}
    parts |= {name: read_component(kind, folder, name) for name, kind in PLAIN.items()}
    parts |= {name: _image_input(folder / name / "preprocessor_config.json") for name in INPUTS}
    parts[RAMP] = _ramp(folder / INDEX)
    _check_fit(folder, parts)
    return parts


def _image_input(path: Path) -> ImageInput:
    """What a `preprocessor_config.json` of transformers says; sizes and means may also be single numbers."""
    config = read_json(path)
    try:
        size, crop = config["size"], config["crop_size"]
        size = size["shortest_edge"] if isinstance(size, dict) else size
        crops = {crop["height"], crop["width"]} if isinstance(crop, dict) else {crop}
        how = ImageInput(
            int(size),
            *(tuple(np.broadcast_to(config[key], 3).astype(float).tolist()) for key in ("image_mean", "image_std")),
            Image.Resampling(config["resample"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is not understood ({type(error).__name__}: {error}); expected size, crop_size, image_mean, "
            "image_std and resample of a CLIPImageProcessor, fetch the folder anew"
        ) from error
    if crops != {how.size} or min(how.size, *how.std) <= 0:
        raise InputError(
            f"{path} asks for size {size}, crop {crop}, mean {how.mean}, std {how.std}; expected a crop as large as "
            "the size and a positive std, it is not Zero123++'s"
        )
    return how


def _ramp(path: Path) -> tuple[float, ...]:
    values = read_json(path).get(RAMP)
    if not isinstance(values, list) or not all(isinstance(value, (int, float)) for value in values):
        raise InputError(f"{path} has no list of numbers {RAMP}; it is not Zero123++'s, fetch the folder anew")
    return tuple(float(value) for value in values)


def _check_fit(folder: Path, parts: dict[str, object]) -> None:
    """The parts are of one model: equal widths, one ramp weight per token, and a network that predicts velocity."""
    unet, text, vision = (parts[name].config for name in ("unet", "text_encoder", "vision_encoder"))
    latent, ramp = parts["vae"].config.latent_channels, len(parts[RAMP])
    facts = (
        ("UNet input and output channels", (unet.in_channels, unet.out_channels), (latent, latent)),
        ("text and image embedding widths", (text.hidden_size, vision.projection_dim), (unet.cross_attention_dim,) * 2),
        (RAMP, ramp, text.max_position_embeddings),
        ("CLIP input size", parts["feature_extractor_clip"].size, vision.image_size),
        ("prediction type", parts["scheduler"].config.prediction_type, "v_prediction"),
    )
    for what, found, expected in facts:
        if found != expected:
            raise InputError(f"{folder}: {what} {found}; expected {expected}, its parts are not those of one Zero123++")


def save_parts(model: "Zero123Plus", folder: Path, shared: Mapping[str, str]) -> None:
    """Write every part of `model` but the `shared` ones in the public layout, the whole folder or nothing.

    Raises:
        InputError: the folder holds files of another origin, cannot be written, or a shared part is not there.
    """
    check_shared(folder, shared, (*NETWORKS, *PLAIN))
    libraries = {
        name: ["transformers" if kind.__module__.startswith("transformers") else "diffusers", kind.__name__]
        for name, kind in (NETWORKS | PLAIN).items()
    }
    libraries |= {name: ["transformers", "CLIPImageProcessor"] for name in INPUTS}
    index = {"_class_name": "Zero123PlusPipeline", "_diffusers_version": diffusers.__version__}
    index |= {RAMP: list(model.ramping_coefficients)} | ({SHARED: dict(shared)} if shared else {})
    with atomic_folder(folder) as new:
        for name in (*NETWORKS, *PLAIN):
            if name not in shared:
                getattr(model, name).save_pretrained(new / name)
        for name in INPUTS:
            write_json(new / name / "preprocessor_config.json", _processor_config(getattr(model, name)))
        write_json(new / INDEX, index | libraries)


def _processor_config(how: ImageInput) -> dict[str, object]:
    config = {f"do_{step}": True for step in ("convert_rgb", "resize", "center_crop", "rescale", "normalize")}
    return config | {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": how.size},
        "crop_size": {"height": how.size, "width": how.size},
        "resample": int(how.resample),
        "rescale_factor": 1 / 255,
        "image_mean": list(how.mean),
        "image_std": list(how.std),
    }

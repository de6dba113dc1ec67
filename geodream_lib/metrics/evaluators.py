"""The networks that judge, loaded once for all runs, and the prompts that a picture can be taken for."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from geodream_lib.errors import InputError
from geodream_lib.metrics.image_text import ImageText
from geodream_lib.metrics.point_text import PointText
from geodream_lib.metrics.viewpoint import Viewpoint
from geodream_lib.presets import Preset
from geodream_lib.weights.folder import network_path


@dataclass(frozen=True)
class Evaluators:
    """The three evaluators, each None if it is not there; then `missing` says why, by its name.

    prompts: distinct, what is retrieved among. image_texts, point_texts: their embeddings, unit rows, as far as there
    is a network.
    """

    image_text: ImageText | None
    point_text: PointText | None
    viewpoint: Viewpoint | None
    prompts: tuple[str, ...]
    image_texts: Float[Tensor, "m d"] | None
    point_texts: Float[Tensor, "m e"] | None
    missing: dict[str, str]


def load_evaluators(preset: Preset, prompts: list[str], device: torch.device) -> Evaluators:
    """The preset's evaluators, those that can be loaded, and what they make of the prompts."""
    missing: dict[str, str] = {}
    prompts = list(dict.fromkeys(prompts))

    def load(name: str, kind: type) -> ImageText | PointText | Viewpoint | None:
        source = getattr(preset, name)
        if not source:
            missing[name] = f"preset {preset.name} has none"
            return None
        try:
            return kind.load(network_path(source), device)
        except InputError as error:
            missing[name] = str(error)
            return None

    image_text, point_text = load("image_text", ImageText), load("point_text", PointText)
    return Evaluators(
        image_text,
        point_text,
        load("viewpoint", Viewpoint),
        tuple(prompts),
        image_text.embed_texts(prompts).cpu() if image_text else None,
        point_text.embed_texts(prompts).cpu() if point_text else None,
        missing,
    )

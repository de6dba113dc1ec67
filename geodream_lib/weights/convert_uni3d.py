"""A released Uni3D, `model.pt`, to the folder that `metrics.PointText` loads."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from geodream_lib.errors import InputError
from geodream_lib.metrics.point_encoder import PointEncoderConfig, Uni3D
from geodream_lib.metrics.point_text import save_uni3d
from geodream_lib.storage import load_into

TEXTS = "../eva02-clip-text"  # that network of the table, which is installed beside it
# What the trunk had as a network for pictures: patches of pixels, their places, and classes.
UNUSED = r"point_encoder\.visual\.(cls_token|pos_embed|patch_embed\..*|head\..*)"
GIANT, GIANT_HEADS, HEAD = 1408, 16, 64  # width and heads of the giant; a head of the others is 64 wide


def convert_uni3d(tensors: Mapping[str, Tensor], out: Path, config: Mapping | None = None, texts: str = TEXTS) -> None:
    """Write the folder `out` from the tensors of a released checkpoint.

    Which of the five it is follows from its shapes. How clouds are divided does not: 512 patches of 64 points, as the
    released evaluation has it for all of them.

    Args:
        tensors: by their released names, with or without the `module.` that its trainer put before them.
        config: for a network that was not released, any of `heads`, `groups`, `group_size` and `points`.
        texts: folder of the text tower, as seen from `out`.

    Raises:
        InputError: keys or shapes are not those of Uni3D, or `out` cannot be written.
    """
    source = "Uni3D's checkpoint"
    names = {name: name.removeprefix("module.") for name in tensors}
    weights = {own: tensors[name] for name, own in names.items() if not re.fullmatch(UNUSED, own)}
    # Without memory: only names and shapes are compared, and the tensors themselves are written.
    with torch.device("meta"):
        uni3d = Uni3D(uni3d_config(weights, source, config or {}))
    load_into(uni3d, {name: tensor.to("meta") for name, tensor in weights.items()}, source)
    uni3d.load_state_dict(weights, assign=True)
    save_uni3d(out, uni3d, texts)


def uni3d_config(weights: Mapping[str, Tensor], source: str, known: Mapping[str, int]) -> PointEncoderConfig:
    """The sizes that the shapes of a checkpoint tell, and those that are `known`.

    Raises:
        InputError: these are not the shapes of a point encoder.
    """
    blocks = [re.match(r"point_encoder\.visual\.blocks\.(\d+)\.", name) for name in weights]
    depth = 1 + max((int(block[1]) for block in blocks if block), default=-1)

    def rows(name: str) -> int:
        tensor = weights.get(f"point_encoder.{name}.weight")
        if tensor is None or tensor.ndim < 2:
            raise InputError(f"{source} has no point_encoder.{name}.weight; expected the model.pt of a Uni3D")
        return tensor.shape[0]

    mlp, first = "visual.blocks.0.mlp", "visual.blocks.0.mlp.fc1"
    width = rows("encoder2trans")
    if f"point_encoder.{mlp}.fc1_g.weight" in weights:
        kind, hidden = "gated_norm", rows(f"{mlp}.fc1_g")
    else:
        inner = weights.get(f"point_encoder.{mlp}.fc2.weight")
        gated = inner is not None and inner.ndim == 2 and rows(first) == 2 * inner.shape[1]
        kind, hidden = ("gated", rows(first) // 2) if gated else ("plain", rows(first))
    sizes = {
        "width": width,
        "depth": depth,
        "heads": GIANT_HEADS if width == GIANT else max(1, width // HEAD),
        "mlp": kind,
        "hidden": hidden,
        "embed_dim": rows("trans2embed"),
        "patch_widths": [rows(f"encoder.{name}") for name in ("first_conv.0", "first_conv.3", "second_conv.0")],
        "patch_dim": rows("encoder.second_conv.3"),
    }
    return PointEncoderConfig.from_json(sizes | dict(known), source)

"""CLIP's towers from the layouts that released checkpoints hold them in to that of transformers.

What `cond_stage_model.*` of a latent diffusion checkpoint may be: OpenAI's image tower (Zero123), OpenCLIP's text tower
(Stable Diffusion 2, MVDream's sd-v2.1) or a text tower of transformers itself (Stable Diffusion 1.5, MVDream's
sd-v1.5). The evaluators need whole towers, with their projections. Sizes follow from the shapes; a head is 64 wide in
all of them, unless `heads` counts otherwise.
"""

import math
import re
from collections.abc import Mapping

from accelerate import init_empty_weights
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from geodream_lib.errors import InputError
from geodream_lib.weights.strict import network, rename

_HEAD = 64
# One layer of OpenAI's and OpenCLIP's towers and of transformers'.
_LAYER = {
    "ln_1": "layer_norm1",
    "attn.out_proj": "self_attn.out_proj",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_QUERY_KEY_VALUE = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def openai_image_tower(
    tensors: Mapping[str, Tensor], source: str, heads: int | None = None
) -> CLIPVisionModelWithProjection:
    """OpenAI's image tower with its projection; the names are those after `cond_stage_model.model.visual.`.

    Raises:
        InputError: a parameter is missing, unknown or of another shape.
    """
    layers = _count_layers(tensors, "transformer.resblocks", source)
    own = "vision_model.embeddings"
    names = {
        "class_embedding": f"{own}.class_embedding",
        "positional_embedding": f"{own}.position_embedding.weight",
        "conv1.weight": f"{own}.patch_embedding.weight",
        "proj": "visual_projection.weight",
    }
    names |= _parameters({"ln_pre": "vision_model.pre_layrnorm", "ln_post": "vision_model.post_layernorm"})
    names |= _layer_names(layers, "vision_model.encoder.layers")
    weights = _split_attention(rename(tensors, names, source))
    # A factor on the right of x there, the matrix of a linear layer here.
    weights["visual_projection.weight"] = weights["visual_projection.weight"].T.contiguous()
    width, _, _, patch = _shape(weights, f"{own}.patch_embedding.weight", 4, source)
    positions, _ = _shape(weights, f"{own}.position_embedding.weight", 2, source)
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=_shape(weights, "vision_model.encoder.layers.0.mlp.fc1.weight", 2, source)[0],
        projection_dim=_shape(weights, "visual_projection.weight", 2, source)[0],
        num_hidden_layers=layers,
        num_attention_heads=_heads(width, heads, source),
        # One position per patch and one for the class token.
        image_size=patch * math.isqrt(positions - 1),
        patch_size=patch,
        hidden_act="quick_gelu",
    )
    return network(CLIPVisionModelWithProjection, {"config": config}, weights, source)


def open_clip_text_tower(tensors: Mapping[str, Tensor], source: str, heads: int | None = None) -> CLIPTextModel:
    """OpenCLIP's text tower as Stable Diffusion 2 uses it; the names are those after `cond_stage_model.model.`.

    The context is the output of the last layer but one, under the final norm. So the model returned has one layer less;
    the checkpoint's last layer, its `text_projection` and its `logit_scale` are left out on purpose.

    Raises:
        InputError: a parameter is missing, unknown or of another shape.
    """
    layers = _count_layers(tensors, "transformer.resblocks", source)
    if layers < 2:
        raise InputError(f"{source} has one layer; expected at least two, the last is not used")
    used = {name: tensor for name, tensor in tensors.items() if name not in ("text_projection", "logit_scale")}
    weights = _split_attention(rename(used, _open_clip_names(layers), source))
    last = f"encoder.layers.{layers - 1}."
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith(last)}
    return _text_model(weights, layers - 1, "gelu", heads, source)


def open_clip_text_projection(
    tensors: Mapping[str, Tensor], source: str, heads: int | None = None, activation: str = "gelu"
) -> CLIPTextModelWithProjection:
    """OpenCLIP's whole text tower with its projection, by which texts are compared with images or points.

    Args:
        tensors: named as after `text.` of EVA's CLIP; OpenAI's CLIP has the same names beside `visual.`.
        activation: "quick_gelu" for OpenAI's weights.

    Raises:
        InputError: a parameter is missing, unknown or of another shape.
    """
    layers = _count_layers(tensors, "transformer.resblocks", source)
    names = _open_clip_names(layers) | {"text_projection": "text_projection"}
    weights = _split_attention(rename(tensors, names, source))
    # A factor on the right of x there, the matrix of a linear layer here.
    projection = weights.pop("text_projection").T.contiguous()
    config = _text_config(weights, layers, activation, heads, source)
    config.projection_dim = projection.shape[0]
    weights = {f"text_model.{name}": tensor for name, tensor in weights.items()}
    weights["text_projection.weight"] = projection
    return network(CLIPTextModelWithProjection, {"config": config}, weights, source)


def hf_text_tower(tensors: Mapping[str, Tensor], source: str, heads: int | None = None) -> CLIPTextModel:
    """OpenAI's text tower in transformers' layout, named as after `cond_stage_model.transformer.text_model.`.

    The context of Stable Diffusion 1 is the output of the last layer, under the final norm. `embeddings.position_ids`
    (0, 1, 2, ... in files of older versions) is left out on purpose.

    Raises:
        InputError: a parameter is missing, unknown or of another shape.
    """
    layers = _count_layers(tensors, "encoder.layers", source)
    own = [f"encoder.layers.{i}.{name}" for i in range(layers) for name in (*_LAYER.values(), *_QUERY_KEY_VALUE)]
    own = list(_parameters({name: name for name in (*own, "final_layer_norm")}))
    own += ["embeddings.token_embedding.weight", "embeddings.position_embedding.weight"]
    used = {name: tensor for name, tensor in tensors.items() if name != "embeddings.position_ids"}
    return _text_model(rename(used, {name: name for name in own}, source), layers, "quick_gelu", heads, source)


def _open_clip_names(layers: int) -> dict[str, str]:
    """Names of OpenCLIP's text tower and of transformers'."""
    names = {
        "token_embedding.weight": "embeddings.token_embedding.weight",
        "positional_embedding": "embeddings.position_embedding.weight",
    }
    return names | _parameters({"ln_final": "final_layer_norm"}) | _layer_names(layers, "encoder.layers")


def _text_model(
    weights: Mapping[str, Tensor], layers: int, activation: str, heads: int | None, source: str
) -> CLIPTextModel:
    config = _text_config(weights, layers, activation, heads, source)
    # Inside the model the names start with `text_model.` in transformers 4, at once in 5.
    with init_empty_weights():
        prefix = next(iter(CLIPTextModel(config).state_dict())).partition("embeddings.")[0]
    return network(CLIPTextModel, {"config": config}, {f"{prefix}{n}": t for n, t in weights.items()}, source)


def _text_config(
    weights: Mapping[str, Tensor], layers: int, activation: str, heads: int | None, source: str
) -> CLIPTextConfig:
    tokens, width = _shape(weights, "embeddings.token_embedding.weight", 2, source)
    positions, _ = _shape(weights, "embeddings.position_embedding.weight", 2, source)
    return CLIPTextConfig(
        vocab_size=tokens,
        hidden_size=width,
        intermediate_size=_shape(weights, "encoder.layers.0.mlp.fc1.weight", 2, source)[0],
        num_hidden_layers=layers,
        num_attention_heads=_heads(width, heads, source),
        max_position_embeddings=positions,
        hidden_act=activation,
        # CLIP's vocabulary ends with the marks of beginning and end.
        bos_token_id=tokens - 2,
        eos_token_id=tokens - 1,
    )


def _count_layers(tensors: Mapping[str, Tensor], prefix: str, source: str) -> int:
    """Layers are numbered from 0; the highest number tells how many there are."""
    found = [re.match(rf"{re.escape(prefix)}\.(\d+)\.", name) for name in tensors]
    numbers = [int(match[1]) for match in found if match]
    if not numbers:
        raise InputError(f"{source} has no {prefix}.*; expected a tower of CLIP, is it another network?")
    return 1 + max(numbers)


def _layer_names(layers: int, own: str) -> dict[str, str]:
    """Official to own names of every layer; queries, keys and values still in one (see `_split_attention`)."""
    names = {}
    for i in range(layers):
        official, ours = f"transformer.resblocks.{i}", f"{own}.{i}"
        names |= _parameters({f"{official}.{a}": f"{ours}.{b}" for a, b in _LAYER.items()})
        names |= {f"{official}.attn.in_proj_{kind}": f"{ours}.in_proj.{kind}" for kind in ("weight", "bias")}
    return names


def _split_attention(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`in_proj` stacks the rows of queries, keys and values; here they are three layers with memory of their own."""
    apart = {}
    for name, tensor in weights.items():
        layer, stacked, kind = name.partition(".in_proj.")
        if not stacked:
            apart[name] = tensor
            continue
        for part, rows in zip(_QUERY_KEY_VALUE, tensor.chunk(3), strict=True):
            apart[f"{layer}.{part}.{kind}"] = rows.clone()
    return apart


def _parameters(layers: Mapping[str, str]) -> dict[str, str]:
    return {f"{a}.{kind}": f"{b}.{kind}" for a, b in layers.items() for kind in ("weight", "bias")}


def _heads(width: int, heads: int | None, source: str) -> int:
    count = heads or width // _HEAD
    if count == 0 or width % count:
        raise InputError(f"{source} is {width} wide, not a multiple of its {count} heads; say how many it has")
    return count


def _shape(weights: Mapping[str, Tensor], name: str, ndim: int, source: str) -> tuple[int, ...]:
    shape = tuple(weights[name].shape)
    if len(shape) != ndim:
        raise InputError(f"{source}: {name} is {shape}; expected {ndim} numbers, is it the weights of another network?")
    return shape

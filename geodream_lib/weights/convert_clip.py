"""OpenCLIP's checkpoints to the folders that the evaluators load: CLIP whole, or the text tower of EVA's CLIP alone."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from geodream_lib.components import read_component
from geodream_lib.errors import InputError
from geodream_lib.metrics.clip_images import Preparation
from geodream_lib.metrics.image_text import ImageText
from geodream_lib.weights.clip import open_clip_text_projection, openai_image_tower
from geodream_lib.weights.strict import network, split

# The image tower of EVA's CLIP takes nine tenths of the file; points are compared with texts alone.
EVA_UNUSED = (r"visual\..*", r"logit_scale", r"text\.attn_mask")


def convert_clip(tensors: Mapping[str, Tensor], out: Path, tokenizer: Path, config: Mapping | None = None) -> None:
    """Write `out`, the folder of transformers' CLIPModel, from OpenAI's weights in the layout of OpenCLIP.

    Args:
        tensors: by their released names, as `visual.conv1.weight` and `token_embedding.weight`.
        tokenizer: folder with CLIP's vocab.json and merges.txt.
        config: for networks of other sizes, `image_heads` and `text_heads`, the numbers of heads.

    Raises:
        InputError: keys or shapes are not those of CLIP, the tokenizer does not fit, or `out` cannot be written.
    """
    config, source = config or {}, "CLIP's checkpoint"
    parts = split(tensors, ("visual.", ""), (), source)
    rest = parts[""]
    if "logit_scale" not in rest:
        raise InputError(f"{source} has no logit_scale; expected the weights of a whole CLIP, fetch the file anew")
    scale = rest.pop("logit_scale")
    image = openai_image_tower(parts["visual."], f"the image tower of {source}", config.get("image_heads"))
    text = open_clip_text_projection(rest, f"the text tower of {source}", config.get("text_heads"), "quick_gelu")
    sizes = CLIPConfig(
        text_config=text.config.to_dict(),
        vision_config=image.config.to_dict(),
        projection_dim=text.config.projection_dim,
    )
    clip = network(
        CLIPModel, {"config": sizes}, image.state_dict() | text.state_dict() | {"logit_scale": scale}, source
    )
    side = image.config.image_size
    ImageText(clip, _tokenizer(tokenizer, text.config.vocab_size), Preparation(side, (side, side))).save(out)


def convert_eva_text(tensors: Mapping[str, Tensor], out: Path, tokenizer: Path, config: Mapping | None = None) -> None:
    """Write `out`, the folder of transformers' CLIPTextModelWithProjection, from EVA's CLIP in OpenCLIP's layout.

    Arguments and errors as in `convert_clip`; of `config` only `text_heads`.
    """
    source = "EVA's CLIP"
    parts = split(tensors, ("text.",), EVA_UNUSED, source)
    heads = (config or {}).get("text_heads")
    text = open_clip_text_projection(parts["text."], f"the text tower of {source}", heads)
    words = _tokenizer(tokenizer, text.config.vocab_size)
    try:
        text.save_pretrained(out)
        words.save_pretrained(out)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error}; free some space or choose another folder") from error


def _tokenizer(folder: Path, tokens: int) -> CLIPTokenizer:
    # Without a vocabulary transformers makes an empty tokenizer.
    if not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json")):
        raise InputError(f"{folder} has no vocab.json; expected CLIP's vocab.json and merges.txt there (--tokenizer)")
    words = read_component(CLIPTokenizer, folder, "")
    last = max(words.get_vocab().values())
    if last >= tokens:
        raise InputError(f"{folder} has a token {last} and the text tower knows {tokens}; give CLIP's tokenizer")
    return words

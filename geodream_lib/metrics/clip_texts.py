"""CLIP's text tower and its tokenizer, alone or as a half of CLIP: texts to directions in the shared space."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from transformers import CLIPModel, CLIPTextModelWithProjection, CLIPTokenizer, PreTrainedModel

from geodream_lib.components import read_component, read_network
from geodream_lib.errors import InputError
from geodream_lib.storage import read_json

# What `model_type` of a configuration calls the two.
KINDS = {"clip": CLIPModel, "clip_text_model": CLIPTextModelWithProjection}


def read_clip(folder: Path, kinds: tuple[str, ...] = tuple(KINDS)) -> tuple[PreTrainedModel, CLIPTokenizer]:
    """CLIP, or its text tower with projection, and the tokenizer: a folder as transformers saves it, all in one place.

    Args:
        kinds: which of `KINDS` will do.

    Raises:
        InputError: the folder is missing, incomplete or damaged, or holds another kind of model.
    """
    expected = " or ".join(KINDS[kind].__name__ for kind in kinds)
    if not (folder / "config.json").is_file():
        raise InputError(f"no CLIP at {folder} (no config.json); expected a folder of transformers' {expected}")
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in kinds:
        raise InputError(f"{folder} holds a model of type {kind!r}; expected {expected}, choose another folder")
    # Without a vocabulary transformers makes an empty tokenizer.
    if not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json")):
        raise InputError(f"{folder} has no vocab.json or tokenizer.json; expected CLIP's tokenizer beside its weights")
    model = read_network(KINDS[kind], folder, "")
    tokenizer = read_component(CLIPTokenizer, folder, "")
    text = model.config.text_config if kind == "clip" else model.config
    last = max(tokenizer.get_vocab().values())
    if last >= text.vocab_size:
        raise InputError(f"the tokenizer of {folder} has a token {last} and the model knows {text.vocab_size}")
    return model.eval().requires_grad_(False), tokenizer


def text_features(
    tower: CLIPModel | CLIPTextModelWithProjection, tokenizer: CLIPTokenizer, texts: list[str]
) -> Float[Tensor, "n d"]:
    """The token that ends each text, projected to the shared space; its length is not normalised.

    What fills a short text up comes after that token, and no token sees a later one, so it does not matter.
    """
    length = tower.text_model.config.max_position_embeddings
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt").input_ids
    return tower.text_projection(tower.text_model(input_ids=tokens.to(tower.device)).pooler_output)


@torch.no_grad()
def embed_texts(
    tower: CLIPModel | CLIPTextModelWithProjection, tokenizer: CLIPTokenizer, texts: list[str], batch: int = 64
) -> Float[Tensor, "n d"]:
    """Unit rows, one for each text.

    Raises:
        InputError: there is no text.
    """
    if not texts:
        raise InputError("no text to embed; expected one at least")
    parts = [text_features(tower, tokenizer, texts[i : i + batch]) for i in range(0, len(texts), batch)]
    return functional.normalize(torch.cat(parts), dim=-1)

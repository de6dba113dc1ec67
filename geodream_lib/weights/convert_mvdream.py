"""The released MVDream, `sd-v2.1-base-4view.pt` or `sd-v1.5-4view.pt`, to the folder that `views.MVDream` loads."""

from collections.abc import Mapping
from pathlib import Path

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.embeddings import TimestepEmbedding
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from geodream_lib.errors import InputError
from geodream_lib.guidance.diffusion import Denoiser, LatentDiffusion
from geodream_lib.views.mvdream.model import MVDream
from geodream_lib.views.mvdream.network import MultiViewUNet
from geodream_lib.weights.clip import hf_text_tower, open_clip_text_tower
from geodream_lib.weights.ldm import (
    MVDREAM_SD15_UNET,
    MVDREAM_SD21_UNET,
    SCHEDULE_BUFFERS,
    SCHEDULER,
    VAE,
    unet_config,
    unet_names,
    vae_config,
    vae_weights,
)
from geodream_lib.weights.strict import network, rename, split

UNET_PREFIX, VAE_PREFIX = "model.diffusion_model.", "first_stage_model."
OPEN_CLIP_PREFIX, HF_PREFIX = "cond_stage_model.model.", "cond_stage_model.transformer.text_model."
CAMERA = "camera_embed."


def convert_mvdream(tensors: Mapping[str, Tensor], out: Path, tokenizer: Path, config: Mapping | None = None) -> None:
    """Write the folder `out` from the tensors of a released checkpoint, whole or not at all.

    Which of the two it is follows from its shapes. Every tensor goes to one place; the numbers of the noise schedule
    are left out, they follow from the schedule.

    Args:
        tensors: by their released names; the folder's numbers have their precision.
        tokenizer: folder with the vocabulary of CLIP, `tokenizer/` of any Stable Diffusion.
        config: for networks of other sizes, `unet` and `vae` in the official style (the `unet_config` and `ddconfig` of
            a released configuration) and `text`, {"heads": number of heads}.

    Raises:
        InputError: keys or shapes are not those of MVDream, the tokenizer does not fit, or `out` cannot be written.
    """
    config, source = config or {}, "MVDream's checkpoint"
    parts = split(tensors, (UNET_PREFIX, VAE_PREFIX, OPEN_CLIP_PREFIX, HF_PREFIX), SCHEDULE_BUFFERS, source)
    unet, vae = parts[UNET_PREFIX], parts[VAE_PREFIX]
    multi_view = mvdream_unet(config.get("unet") or released_unet_config(unet), unet, f"the UNet of {source}")
    sizes, name = vae_config(config.get("vae", VAE)), f"the VAE of {source}"
    autoencoder = network(AutoencoderKL, sizes, vae_weights(vae, sizes, name), name)
    text, words = _text_encoder(parts, tokenizer, config.get("text", {}).get("heads"), f"the text tower of {source}")
    width, expected = text.config.hidden_size, multi_view.unet.config.cross_attention_dim
    if width != expected:
        raise InputError(
            f"{source}: the text tower gives {width} numbers per token and the UNet expects {expected}; "
            "the two come from different models, fetch the file anew"
        )
    diffusion = LatentDiffusion(autoencoder, text, words, Denoiser(multi_view.unet, DDIMScheduler(**SCHEDULER)))
    MVDream(diffusion, multi_view.camera_embedding).save(out)


def mvdream_unet(official: Mapping, tensors: Mapping[str, Tensor], source: str) -> MultiViewUNet:
    """The network of an official `unet_config` and its parameters (names without `model.diffusion_model.`).

    Raises:
        InputError: the configuration lacks a number, or the parameters are not those that it describes.
    """
    config = unet_config(official)
    camera = {name: tensor for name, tensor in tensors.items() if name.startswith(CAMERA)}
    plain = {name: tensor for name, tensor in tensors.items() if name not in camera}
    unet = network(UNet2DConditionModel, config, rename(plain, unet_names(config), source), source)
    names = {
        f"{CAMERA}{theirs}.{kind}": f"{ours}.{kind}"
        for theirs, ours in ((0, "linear_1"), (2, "linear_2"))
        for kind in ("weight", "bias")
    }
    shape = {"in_channels": 16, "time_embed_dim": unet.time_embedding.linear_2.out_features}
    return MultiViewUNet(unet, network(TimestepEmbedding, shape, rename(camera, names, source), source))


def released_unet_config(tensors: Mapping[str, Tensor]) -> dict:
    """The official `unet_config` of the released network that has these parameters, told by the width of its text.

    Raises:
        InputError: it is neither of the two.
    """
    keys = tensors.get("middle_block.1.transformer_blocks.0.attn2.to_k.weight")
    width = None if keys is None else keys.shape[-1]
    for official in (MVDREAM_SD21_UNET, MVDREAM_SD15_UNET):
        if width == official["context_dim"]:
            return official
    raise InputError(
        f"a UNet whose text has {width or 'no'} numbers per token; expected MVDream's sd-v2.1-base-4view (1024) or "
        "sd-v1.5-4view (768), give the configuration of a network of other sizes"
    )


def _text_encoder(
    parts: Mapping[str, Mapping[str, Tensor]], tokenizer: Path, heads: int | None, source: str
) -> tuple[CLIPTextModel, CLIPTokenizer]:
    """The text tower and its tokenizer; the vocabulary is one, what fills a text up to 77 tokens is not.

    OpenCLIP fills with token 0, a "!" that is not the last of its word and stays one in a text. OpenAI's CLIP fills
    with the token that ends a text.
    """
    if parts[OPEN_CLIP_PREFIX] and parts[HF_PREFIX]:
        raise InputError(f"{source} is there twice, from OpenCLIP and from transformers; expected one of them")
    if parts[OPEN_CLIP_PREFIX]:
        text = open_clip_text_tower(parts[OPEN_CLIP_PREFIX], source, heads)
        filling = {"pad_token": _tokenizer(tokenizer).convert_ids_to_tokens(0), "split_special_tokens": True}
    else:
        text = hf_text_tower(parts[HF_PREFIX], source, heads)
        filling = {"pad_token": _tokenizer(tokenizer).eos_token}
    words = _tokenizer(tokenizer, model_max_length=text.config.max_position_embeddings, **filling)
    last, known = max(words.get_vocab().values()), text.config.vocab_size
    if last >= known:
        raise InputError(
            f"{tokenizer} has a token {last} and {source} knows {known}; give Stable Diffusion's tokenizer"
        )
    return text, words


def _tokenizer(folder: Path, **options: object) -> CLIPTokenizer:
    # Without a vocabulary transformers makes an empty tokenizer.
    if not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json")):
        raise InputError(f"{folder} has no vocab.json or tokenizer.json; expected tokenizer/ of a Stable Diffusion")
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True, **options)
    except Exception as error:  # the library has its own errors for a damaged file, down to a bare Exception
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"cannot read the tokenizer {folder}: {reason}; fetch it anew") from error

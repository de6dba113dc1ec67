"""MVDream's released layout to ours: every key has one place, and nothing is written unless all have."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from geodream_lib.errors import InputError
from geodream_lib.views import MVDream
from geodream_lib.weights.convert_mvdream import (
    CAMERA,
    UNET_PREFIX,
    convert_mvdream,
    mvdream_unet,
    released_unet_config,
)
from geodream_lib.weights.ldm import SCHEDULER, unet_config, unet_names, vae_config, vae_names

UNET = {
    "image_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "attention_resolutions": [1, 2],
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "num_head_channels": 16,
    "context_dim": 32,
    "use_linear_in_transformer": True,
}
OTHERS = {
    "three levels": {"channel_mult": [1, 2, 2], "num_res_blocks": 2},
    "attention on the coarse level alone": {"attention_resolutions": [2]},
    "attention in the middle of three levels": {"channel_mult": [1, 1, 2], "attention_resolutions": [2]},
    "heads counted, convolutions": {"num_head_channels": -1, "num_heads": 4, "use_linear_in_transformer": False},
    "deep transformers": {"transformer_depth": 2},
}
VAE = {"z_channels": 4, "resolution": 16, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 1]}
CONFIG = {"unet": UNET, "vae": VAE | {"num_res_blocks": 1, "attn_resolutions": []}, "text": {"heads": 2}}
VOCABULARY = ["!", "a", "b", "!</w>", "a</w>", "b</w>", "<|startoftext|>", "<|endoftext|>"]
TOKENS, WIDTH, LAYERS = 8, UNET["context_dim"], 3
START, END = VOCABULARY.index("<|startoftext|>"), VOCABULARY.index("<|endoftext|>")


def drawn(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) / 10 for name, shape in shapes.items()}


def linear(name: str, out: int, into: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def official_unet(official: dict) -> dict[str, Tensor]:
    """Random parameters under their official names."""
    config = unet_config(official)
    shapes = {name: tuple(tensor.shape) for name, tensor in UNet2DConditionModel(**config).state_dict().items()}
    named = {name: shapes[own] for name, own in unet_names(config).items()}
    width = 4 * official["model_channels"]
    return drawn(named | linear(f"{CAMERA}0", width, 16) | linear(f"{CAMERA}2", width, width))


def official_vae() -> dict[str, Tensor]:
    config = vae_config(CONFIG["vae"])
    shapes = {name: tuple(tensor.shape) for name, tensor in AutoencoderKL(**config).state_dict().items()}
    named = {name: shapes[own] for name, own in vae_names(config).items()}
    one = {name: (*shape, 1, 1) for name, shape in named.items() if ".attn_1." in name and len(shape) == 2}
    return drawn(named | one)


def open_clip_text() -> dict[str, Tensor]:
    shapes = {
        "token_embedding.weight": (len(VOCABULARY), WIDTH),
        "positional_embedding": (TOKENS, WIDTH),
        "text_projection": (WIDTH, WIDTH),
        "logit_scale": (),
        "ln_final.weight": (WIDTH,),
        "ln_final.bias": (WIDTH,),
    }
    for i in range(LAYERS):
        own = f"transformer.resblocks.{i}"
        shapes |= {f"{own}.{norm}.{kind}": (WIDTH,) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")}
        shapes |= {f"{own}.attn.in_proj_weight": (3 * WIDTH, WIDTH), f"{own}.attn.in_proj_bias": (3 * WIDTH,)}
        shapes |= linear(f"{own}.attn.out_proj", WIDTH, WIDTH)
        shapes |= linear(f"{own}.mlp.c_fc", 4 * WIDTH, WIDTH) | linear(f"{own}.mlp.c_proj", WIDTH, 4 * WIDTH)
    return {f"cond_stage_model.model.{name}": tensor for name, tensor in drawn(shapes).items()}


def hf_text() -> dict[str, Tensor]:
    shapes = {
        "embeddings.token_embedding.weight": (len(VOCABULARY), WIDTH),
        "embeddings.position_embedding.weight": (TOKENS, WIDTH),
        "final_layer_norm.weight": (WIDTH,),
        "final_layer_norm.bias": (WIDTH,),
    }
    for i in range(LAYERS):
        own = f"encoder.layers.{i}"
        shapes |= {f"{own}.layer_norm{k}.{kind}": (WIDTH,) for k in (1, 2) for kind in ("weight", "bias")}
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear(f"{own}.self_attn.{name}", WIDTH, WIDTH)
        shapes |= linear(f"{own}.mlp.fc1", 4 * WIDTH, WIDTH) | linear(f"{own}.mlp.fc2", WIDTH, 4 * WIDTH)
    tensors = drawn(shapes) | {"embeddings.position_ids": torch.arange(TOKENS)[None]}
    return {f"cond_stage_model.transformer.text_model.{name}": tensor for name, tensor in tensors.items()}


def checkpoint(text: dict[str, Tensor]) -> dict[str, Tensor]:
    tensors = {f"{UNET_PREFIX}{name}": tensor for name, tensor in official_unet(UNET).items()}
    tensors |= {f"first_stage_model.{name}": tensor for name, tensor in official_vae().items()}
    schedule = dict.fromkeys(("betas", "alphas_cumprod_prev", "posterior_mean_coef1"), torch.rand(1000))
    return tensors | text | schedule


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Filled with the end token, as Stable Diffusion 1.5's."""
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(VOCABULARY)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TOKENS, "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def converted(tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("converted") / "mvdream"
    convert_mvdream(checkpoint(open_clip_text()), out, tokenizer, CONFIG)
    return out


def call(network, frames: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    unet = network.unet
    n, size = 2 * frames, unet.config.sample_size
    noisy = torch.randn(n, unet.config.in_channels, size, size, generator=generator)
    text = torch.randn(n, TOKENS, unet.config.cross_attention_dim, generator=generator)
    camera = torch.randn(n, 16, generator=generator)
    with torch.no_grad():
        return network(noisy, torch.arange(n), text, camera, frames)


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_networks_of_other_shapes(change) -> None:
    """All official names are used, all parameters are filled, and the network runs."""
    official = UNET | change
    tensors = official_unet(official)
    network = mvdream_unet(official, tensors, "a random UNet")
    assert len(network.state_dict()) == len(tensors)
    output = call(network)
    assert output.isfinite().all() and output.std() > 0
    with pytest.raises(InputError, match="1 missing"):
        mvdream_unet(official, dict(list(tensors.items())[1:]), "a random UNet")


def test_heads_cut_the_same_weights_differently() -> None:
    """Heads leave no trace in the shapes: they are the configuration's to tell."""
    tensors = official_unet(UNET)
    one, other = (mvdream_unet(UNET | {"num_head_channels": width}, tensors, "") for width in (16, 32))
    assert not torch.allclose(call(one), call(other), atol=1e-4)


def test_the_folder_holds_the_networks_of_the_checkpoint(converted) -> None:
    model = MVDream.load(converted)
    torch.testing.assert_close(call(model.network), call(mvdream_unet(UNET, official_unet(UNET), "")))
    images = model.predict("a b", torch.Generator().manual_seed(0), steps=2, size=16)
    assert images.shape == (4, 16, 16, 3) and images.isfinite().all()
    assert {name: model.diffusion.denoiser.scheduler.config[name] for name in SCHEDULER} == SCHEDULER


def test_the_context_is_the_last_layer_but_one(converted) -> None:
    assert MVDream.load(converted).diffusion.text_encoder.config.num_hidden_layers == LAYERS - 1


def ids(folder: Path, text: str) -> list[int]:
    words = MVDream.load(folder).diffusion.tokenizer
    return words(text, padding="max_length", max_length=words.model_max_length, truncation=True).input_ids


def test_texts_are_filled_as_their_encoder_learned_it(converted, tokenizer, tmp_path) -> None:
    """OpenCLIP with token 0, which stays an exclamation mark where one is written; OpenAI's CLIP with the end token."""
    word = [START, VOCABULARY.index("a</w>"), VOCABULARY.index("!</w>"), END]
    assert ids(converted, "a!") == word + [0] * 4
    convert_mvdream(checkpoint(hf_text()), tmp_path / "out", tokenizer, CONFIG)
    assert ids(tmp_path / "out", "a!") == word + [END] * 4
    assert MVDream.load(tmp_path / "out").diffusion.text_encoder.config.num_hidden_layers == LAYERS


@pytest.mark.parametrize("prefix", [UNET_PREFIX, UNET_PREFIX + CAMERA, "first_stage_model.", "cond_stage_model.model."])
def test_a_key_too_few_or_too_many_writes_nothing(prefix, tokenizer, tmp_path) -> None:
    whole = checkpoint(open_clip_text())
    first = next(name for name in whole if name.startswith(prefix))
    few = {name: tensor for name, tensor in whole.items() if name != first}
    many = whole | {f"{prefix}more": torch.zeros(1)}
    misshapen = whole | {first: torch.zeros(3, 5, 7)}
    for tensors in (few, many, misshapen):
        with pytest.raises(InputError) as caught:
            convert_mvdream(tensors, tmp_path / "out", tokenizer, CONFIG)
        assert "\n" not in str(caught.value)
        assert list(tmp_path.iterdir()) == []


def test_what_is_not_mvdream_is_refused(tokenizer, tmp_path) -> None:
    whole = checkpoint(open_clip_text())
    with pytest.raises(InputError, match="keys of no known network"):
        convert_mvdream(whole | {"model_ema.decay": torch.zeros(())}, tmp_path / "out", tokenizer, CONFIG)
    with pytest.raises(InputError, match="text has 32 numbers per token"):
        convert_mvdream(whole, tmp_path / "out", tokenizer)
    with pytest.raises(InputError, match="there twice"):
        convert_mvdream(whole | hf_text(), tmp_path / "out", tokenizer, CONFIG)
    with pytest.raises(InputError, match="no vocab.json"):
        convert_mvdream(whole, tmp_path / "out", tmp_path, CONFIG)
    small = whole | {"cond_stage_model.model.token_embedding.weight": torch.zeros(4, WIDTH)}
    with pytest.raises(InputError, match="has a token 7"):
        convert_mvdream(small, tmp_path / "out", tokenizer, CONFIG)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs_golden("manifests")
@pytest.mark.parametrize("name", ["mvdream_sd-v2.1-base-4view_unet", "mvdream_sd-v1.5-4view_unet"])
def test_every_parameter_of_the_released_networks_has_its_place(golden, name) -> None:
    """Names and shapes alone, at full size."""
    manifest = json.loads((golden / "manifests" / f"{name}.json").read_text())
    tensors = {
        key.removeprefix(manifest["checkpoint_prefix"]): torch.empty(shape, device="meta")
        for key, shape in manifest["params"].items()
    }
    network = mvdream_unet(released_unet_config(tensors), tensors, name)
    assert sum(parameter.numel() for parameter in network.parameters()) == manifest["total_parameters"]
    assert len(network.state_dict()) == len(manifest["params"])
    with pytest.raises(InputError, match="camera_embed"):
        mvdream_unet(released_unet_config(tensors), tensors | {f"{CAMERA}4.weight": torch.empty(1)}, name)

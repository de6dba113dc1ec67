"""A released Zero123 file, with all it carries along: every key has its place or a rule that leaves it out."""

import json

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from geodream_lib.errors import InputError
from geodream_lib.views.zero123.model import Zero123
from geodream_lib.weights.convert_zero123 import IMAGE_TOWER, PROJECTION, UNET, VAE_PREFIX, convert_zero123
from geodream_lib.weights.ldm import SCHEDULER, unet_config, unet_names, vae_config, vae_names

WIDTH, EMBEDDING, CONTEXT = 32, 24, 16
CONFIG = {
    "unet": {
        "image_size": 8,
        "in_channels": 8,
        "out_channels": 4,
        "model_channels": 32,
        "attention_resolutions": [1],
        "num_res_blocks": 1,
        "channel_mult": [1, 2],
        "num_heads": 2,
        "context_dim": CONTEXT,
    },
    "vae": {
        "z_channels": 4,
        "resolution": 16,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 1],
        "num_res_blocks": 1,
        "attn_resolutions": [],
    },
    "image": {"heads": 2},
}
TOWER = {
    "class_embedding": (WIDTH,),
    "positional_embedding": (5, WIDTH),
    "proj": (WIDTH, EMBEDDING),
    "conv1.weight": (WIDTH, 3, 4, 4),
    **{f"{norm}.{kind}": (WIDTH,) for norm in ("ln_pre", "ln_post") for kind in ("weight", "bias")},
}
LAYER = {
    "attn.in_proj_weight": (3 * WIDTH, WIDTH),
    "attn.in_proj_bias": (3 * WIDTH,),
    "attn.out_proj.weight": (WIDTH, WIDTH),
    "attn.out_proj.bias": (WIDTH,),
    "mlp.c_fc.weight": (64, WIDTH),
    "mlp.c_fc.bias": (64,),
    "mlp.c_proj.weight": (WIDTH, 64),
    "mlp.c_proj.bias": (WIDTH,),
    **{f"{norm}.{kind}": (WIDTH,) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")},
}
# What a trainer's file carries besides: the schedule, counters, and the rest of CLIP's text half.
BESIDES = {
    "betas": (1000,),
    "alphas_cumprod": (1000,),
    "alphas_cumprod_prev": (1000,),
    "sqrt_alphas_cumprod": (1000,),
    "sqrt_one_minus_alphas_cumprod": (1000,),
    "log_one_minus_alphas_cumprod": (1000,),
    "sqrt_recip_alphas_cumprod": (1000,),
    "sqrt_recipm1_alphas_cumprod": (1000,),
    "posterior_variance": (1000,),
    "posterior_log_variance_clipped": (1000,),
    "posterior_mean_coef1": (1000,),
    "posterior_mean_coef2": (1000,),
    "cond_stage_model.model.positional_embedding": (9, WIDTH),
    "cond_stage_model.model.text_projection": (WIDTH, EMBEDDING),
    "cond_stage_model.model.logit_scale": (),
    "cond_stage_model.model.token_embedding.weight": (40, WIDTH),
    "cond_stage_model.model.ln_final.weight": (WIDTH,),
    "cond_stage_model.model.ln_final.bias": (WIDTH,),
}


def drawn(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) / 10 for name, shape in shapes.items()}


def official_unet(seed: int) -> dict[str, Tensor]:
    config = unet_config(CONFIG["unet"])
    own = {name: tuple(tensor.shape) for name, tensor in UNet2DConditionModel(**config).state_dict().items()}
    return drawn({name: own[ours] for name, ours in unet_names(config).items()}, seed)


def official_vae() -> dict[str, Tensor]:
    config = vae_config(CONFIG["vae"])
    own = {name: tuple(tensor.shape) for name, tensor in AutoencoderKL(**config).state_dict().items()}
    named = {name: own[ours] for name, ours in vae_names(config).items()}
    one = {name: (*shape, 1, 1) for name, shape in named.items() if ".attn_1." in name and len(shape) == 2}
    return drawn(named | one)


def averaged(unet: dict[str, Tensor]) -> dict[str, Tensor]:
    """As the trainer stores its running average."""
    dotless = {f"model_ema.{f'diffusion_model.{name}'.replace('.', '')}": tensor for name, tensor in unet.items()}
    return dotless | {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}


@pytest.fixture(scope="module")
def plain() -> dict[str, Tensor]:
    """Networks alone, no average."""
    layers = {f"transformer.resblocks.{i}.{name}": shape for i in (0, 1) for name, shape in LAYER.items()}
    projection = {"weight": (CONTEXT, EMBEDDING + 4), "bias": (CONTEXT,)}
    return {
        **{f"{UNET}{name}": tensor for name, tensor in official_unet(1).items()},
        **{f"{VAE_PREFIX}{name}": tensor for name, tensor in official_vae().items()},
        **{f"{PROJECTION}{name}": tensor for name, tensor in drawn(projection).items()},
        **{f"{IMAGE_TOWER}{name}": tensor for name, tensor in drawn(TOWER | layers).items()},
    }


@pytest.fixture(scope="module")
def released(plain) -> dict[str, Tensor]:
    return plain | averaged(official_unet(2)) | drawn(BESIDES)


def converted(tensors, folder, **options) -> Zero123:
    convert_zero123(tensors, folder, **{"config": CONFIG, **options})
    return Zero123.load(folder)


def has_unet(model: Zero123, official: dict[str, Tensor]) -> bool:
    own, names = model.unet.state_dict(), unet_names(unet_config(CONFIG["unet"]))
    return all(torch.equal(own[names[name]], tensor) for name, tensor in official.items())


def test_the_average_is_what_samples(plain, released, tmp_path):
    """The released code swaps it in while it samples, unless its configuration says otherwise."""
    assert has_unet(converted(released, tmp_path / "average"), official_unet(2))
    assert has_unet(converted(released, tmp_path / "last", config=CONFIG | {"use_ema": False}), official_unet(1))
    assert has_unet(converted(plain, tmp_path / "none"), official_unet(1))


def test_the_rest_of_the_folder(released, tmp_path):
    model = converted(released, tmp_path / "out", config=CONFIG | {"scale_factor": 0.5, "timesteps": 500})
    assert torch.equal(model.clip_camera_projection.proj.weight, released[f"{PROJECTION}weight"])
    assert torch.equal(model.vae.decoder.conv_in.weight, released[f"{VAE_PREFIX}decoder.conv_in.weight"])
    assert torch.equal(model.image_encoder.visual_projection.weight, released[f"{IMAGE_TOWER}proj"].T)
    assert model.image_encoder.config.num_attention_heads == CONFIG["image"]["heads"]
    assert model.vae.config.scaling_factor == 0.5
    assert model.scheduler.config.num_train_timesteps == 500
    assert model.scheduler.config.beta_end == SCHEDULER["beta_end"]


def test_stable_is_written_down(released, tmp_path):
    assert converted(released, tmp_path / "stable", stable=True).stable
    assert not converted(released, tmp_path / "plain").stable


def test_a_file_without_image_tower_takes_one_from_a_folder(plain, tmp_path):
    bare = {name: tensor for name, tensor in plain.items() if not name.startswith(IMAGE_TOWER)}
    with pytest.raises(InputError, match="no image tower"):
        converted(bare, tmp_path / "out")
    with pytest.raises(InputError, match="cannot load"):
        converted(bare, tmp_path / "out", image_encoder=tmp_path / "nowhere")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    for width, folder in ((EMBEDDING, "clip"), (EMBEDDING + 1, "other")):
        tower = CLIPVisionConfig(**sizes, projection_dim=width)
        CLIPVisionModelWithProjection(tower).save_pretrained(tmp_path / folder)
    with pytest.raises(InputError, match="clip_camera_projection"):
        converted(bare, tmp_path / "out", image_encoder=tmp_path / "other")
    assert not (tmp_path / "out").exists()
    assert converted(bare, tmp_path / "out", image_encoder=tmp_path / "clip").image_encoder.config.hidden_size == 16


@pytest.mark.parametrize(
    "change, message",
    [
        ({"optimizer": torch.zeros(1)}, r"1 unknown \(optimizer\)"),
        ({f"{UNET}camera_embed.0.weight": torch.zeros(1)}, r"unknown \(camera_embed.0.weight\)"),
        ({"cond_stage_model.model.transformer.resblocks.0.ln_1.bias": torch.zeros(1)}, "resblocks.0.ln_1.bias"),
        ({"model_ema.diffusion_modelout3": torch.zeros(1)}, "average of the UNet.*diffusion_modelout3"),
        ({f"{UNET}out.2.bias": None}, r"1 missing \(out.2.bias\)"),
        ({"model_ema.diffusion_modelout2bias": None}, r"1 missing \(diffusion_modelout2bias\)"),
        ({f"{VAE_PREFIX}quant_conv.bias": None}, r"1 missing \(quant_conv.bias\)"),
        ({f"{PROJECTION}bias": None}, r"1 missing \(bias\)"),
        ({f"{IMAGE_TOWER}proj": None}, r"1 missing \(proj\)"),
        ({"model_ema.diffusion_modelout2bias": torch.zeros(3)}, r"conv_out.bias is \(3,\), expected \(4,\)"),
    ],
)
def test_a_key_too_many_or_too_few_leaves_nothing_behind(released, tmp_path, change, message):
    changed = {name: tensor for name, tensor in (released | change).items() if tensor is not None}
    with pytest.raises(InputError, match=message):
        convert_zero123(changed, tmp_path / "out", config=CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_another_configuration_is_named(released, tmp_path):
    for config, message in (
        ({}, "parameters"),
        (CONFIG | {"unet": {"in_channels": 8}}, "UNet's configuration"),
        (CONFIG | {"unet": CONFIG["unet"] | {"num_res_blocks": 2}}, "missing"),
        (CONFIG | {"vae": CONFIG["vae"] | {"ch": 64}}, "expected"),
    ):
        with pytest.raises(InputError, match=message):
            convert_zero123(released, tmp_path / "out", config=config)
    assert list(tmp_path.iterdir()) == []


def test_half_precision_stays_half_on_disk(released, tmp_path):
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in released.items()}
    convert_zero123(half, tmp_path / "out", config=CONFIG)
    convert_zero123(released, tmp_path / "whole", config=CONFIG)
    weights = "unet/diffusion_pytorch_model.safetensors"
    sizes = [(tmp_path / name / weights).stat().st_size for name in ("out", "whole")]
    assert sizes[1] == pytest.approx(2 * sizes[0], rel=0.05)
    assert json.loads((tmp_path / "out" / "model_index.json").read_text())["unet"][1] == "UNet2DConditionModel"

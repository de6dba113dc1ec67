"""From the layout of the latent diffusion code to that of diffusers: the UNet and the VAE, name by name.

Stable Diffusion, Zero123 and MVDream were released in the first layout (`input_blocks`, `middle_block`,
`output_blocks`); Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022. The names are
written out from a network's configuration, so a parameter that is missing, or one too many, is an error and never a
guess.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from geodream_lib.errors import InputError
from geodream_lib.weights.strict import rename

_SD_UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "attention_resolutions": [4, 2, 1],
    "num_res_blocks": 2,
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": 1,
}
# The `unet_config` of the released configurations; MVDream's have a camera embedding besides.
ZERO123_UNET = _SD_UNET | {"in_channels": 8, "num_heads": 8, "context_dim": 768}
MVDREAM_SD15_UNET = _SD_UNET | {"num_heads": 8, "context_dim": 768}
MVDREAM_SD21_UNET = _SD_UNET | {"num_head_channels": 64, "context_dim": 1024, "use_linear_in_transformer": True}
# The `ddconfig` of the VAE, the same in all of them.
VAE = {
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
}
SCALE_FACTOR = 0.18215
# What was called a linear schedule there is linear in the square root of beta; all of these networks predict epsilon.
SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "epsilon",
}
# Numbers of the noise schedule that a checkpoint carries along; they follow from SCHEDULER.
SCHEDULE_BUFFERS = (
    r"betas",
    r"alphas_cumprod(_prev)?",
    r"sqrt_(alphas_cumprod|one_minus_alphas_cumprod|recip_alphas_cumprod|recipm1_alphas_cumprod)",
    r"log_one_minus_alphas_cumprod",
    r"posterior_(variance|log_variance_clipped|mean_coef1|mean_coef2)",
    r"logvar",
)


def unet_config(official: Mapping) -> dict:
    """Arguments of `UNet2DConditionModel` from an official `unet_config`.

    `attention_resolutions` there are the downsampling factors that have attention; the middle always has it.
    `num_head_channels`, when it is given and not -1, is the width of a head, otherwise `num_heads` counts them. What
    diffusers calls `attention_head_dim` is the number of heads.

    Raises:
        InputError: a number is missing.
    """
    with _reading("the UNet's configuration"):
        widths = [official["model_channels"] * mult for mult in official["channel_mult"]]
        attention = [2**level in official["attention_resolutions"] for level in range(len(widths))]
        head = official.get("num_head_channels", -1)
        heads = [width // head for width in widths] if head != -1 else [official["num_heads"]] * len(widths)
        return {
            "sample_size": official["image_size"],
            "in_channels": official["in_channels"],
            "out_channels": official["out_channels"],
            "block_out_channels": widths,
            "layers_per_block": official["num_res_blocks"],
            "down_block_types": ["CrossAttnDownBlock2D" if has else "DownBlock2D" for has in attention],
            "up_block_types": ["CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(attention)],
            "cross_attention_dim": official["context_dim"],
            "attention_head_dim": heads,
            "transformer_layers_per_block": official.get("transformer_depth", 1),
            "use_linear_projection": official.get("use_linear_in_transformer", False),
        }


def unet_names(config: Mapping) -> dict[str, str]:
    """Official name to diffusers name for every parameter of the UNet that `config` (of `unet_config`) describes.

    MVDream's `camera_embed` is not among them: the UNet of diffusers has no place for it.
    """
    widths, depth = config["block_out_channels"], config["transformer_layers_per_block"]
    blocks, last = config["layers_per_block"], len(widths) - 1
    layers = {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "input_blocks.0.0": "conv_in",
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
    }
    number, width = 1, widths[0]
    for level, kind in enumerate(config["down_block_types"]):
        own = f"down_blocks.{level}"
        for i in range(blocks):
            layers |= _unet_resnet(f"input_blocks.{number}.0", f"{own}.resnets.{i}", width != widths[level])
            if kind == "CrossAttnDownBlock2D":
                layers |= _transformer(f"input_blocks.{number}.1", f"{own}.attentions.{i}", depth)
            number, width = number + 1, widths[level]
        if level < last:
            layers[f"input_blocks.{number}.0.op"] = f"{own}.downsamplers.0.conv"
            number += 1
    layers |= _unet_resnet("middle_block.0", "mid_block.resnets.0", False)
    layers |= _transformer("middle_block.1", "mid_block.attentions.0", depth)
    layers |= _unet_resnet("middle_block.2", "mid_block.resnets.1", False)
    number = 0
    for level, kind in enumerate(config["up_block_types"]):
        own = f"up_blocks.{level}"
        for i in range(blocks + 1):
            # Each takes what the way down left beside its input, so it is always wider going in than coming out.
            layers |= _unet_resnet(f"output_blocks.{number}.0", f"{own}.resnets.{i}", True)
            place = 1
            if kind == "CrossAttnUpBlock2D":
                layers |= _transformer(f"output_blocks.{number}.1", f"{own}.attentions.{i}", depth)
                place = 2
            if level < last and i == blocks:
                layers[f"output_blocks.{number}.{place}.conv"] = f"{own}.upsamplers.0.conv"
            number += 1
    return _parameters(layers)


def vae_config(official: Mapping, scale_factor: float = SCALE_FACTOR) -> dict:
    """Arguments of `AutoencoderKL` from an official `ddconfig`; latents are multiplied by `scale_factor`.

    Raises:
        InputError: a number is missing, or there is attention outside the middle.
    """
    if official.get("attn_resolutions"):
        raise InputError("the VAE's configuration has attn_resolutions; expected attention in the middle only")
    with _reading("the VAE's configuration"):
        widths = [official["ch"] * mult for mult in official["ch_mult"]]
        return {
            "sample_size": official["resolution"],
            "in_channels": official["in_channels"],
            "out_channels": official["out_ch"],
            "latent_channels": official["z_channels"],
            "block_out_channels": widths,
            "layers_per_block": official["num_res_blocks"],
            "down_block_types": ["DownEncoderBlock2D"] * len(widths),
            "up_block_types": ["UpDecoderBlock2D"] * len(widths),
            "scaling_factor": scale_factor,
        }


def vae_names(config: Mapping) -> dict[str, str]:
    """Official name to diffusers name for every parameter of the VAE that `config` (of `vae_config`) describes."""
    widths, blocks = config["block_out_channels"], config["layers_per_block"]
    last = len(widths) - 1
    layers = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    for half in ("encoder", "decoder"):
        layers |= {f"{half}.{name}": f"{half}.{name}" for name in ("conv_in", "conv_out")}
        layers[f"{half}.norm_out"] = f"{half}.conv_norm_out"
        for i in (0, 1):
            layers |= _vae_resnet(f"{half}.mid.block_{i + 1}", f"{half}.mid_block.resnets.{i}", False)
        layers |= _vae_attention(f"{half}.mid.attn_1", f"{half}.mid_block.attentions.0")
    width = widths[0]
    for level, wide in enumerate(widths):
        official, own = f"encoder.down.{level}", f"encoder.down_blocks.{level}"
        for i in range(blocks):
            layers |= _vae_resnet(f"{official}.block.{i}", f"{own}.resnets.{i}", width != wide)
            width = wide
        if level < last:
            layers[f"{official}.downsample.conv"] = f"{own}.downsamplers.0.conv"
    # The decoder counts its levels from the finest there, from the coarsest here.
    for level, wide in reversed(list(enumerate(widths))):
        official, own = f"decoder.up.{level}", f"decoder.up_blocks.{last - level}"
        for i in range(blocks + 1):
            layers |= _vae_resnet(f"{official}.block.{i}", f"{own}.resnets.{i}", width != wide)
            width = wide
        if level > 0:
            layers[f"{official}.upsample.conv"] = f"{own}.upsamplers.0.conv"
    return _parameters(layers)


def vae_weights(tensors: Mapping[str, Tensor], config: Mapping, source: str) -> dict[str, Tensor]:
    """The official VAE (names without `first_stage_model.`) as the state dict of `AutoencoderKL(**config)`.

    The middle's queries, keys, values and output are 1x1 convolutions there and matrices here: [c, c, 1, 1] to [c, c].

    Raises:
        InputError: as for `rename`.
    """
    renamed = rename(tensors, vae_names(config), source)
    matrix = re.compile(r".*\.attentions\.0\.to_(q|k|v|out\.0)\.weight")
    return {name: t.flatten(1) if matrix.fullmatch(name) else t for name, t in renamed.items()}


@contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise InputError(f"cannot read {what} ({type(error).__name__}: {error}); expected that of a release") from error


def _unet_resnet(official: str, own: str, shortcut: bool) -> dict[str, str]:
    inner = {
        "in_layers.0": "norm1",
        "in_layers.2": "conv1",
        "emb_layers.1": "time_emb_proj",
        "out_layers.0": "norm2",
        "out_layers.3": "conv2",
    }
    if shortcut:
        inner["skip_connection"] = "conv_shortcut"
    return {f"{official}.{a}": f"{own}.{b}" for a, b in inner.items()}


def _transformer(official: str, own: str, depth: int) -> dict[str, str]:
    """Its names are the same on both sides."""
    inner = ["norm", "proj_in", "proj_out"]
    for i in range(depth):
        block = [f"attn{k}.{name}" for k in (1, 2) for name in ("to_q", "to_k", "to_v", "to_out.0")]
        block += ["norm1", "norm2", "norm3", "ff.net.0.proj", "ff.net.2"]
        inner += [f"transformer_blocks.{i}.{name}" for name in block]
    return {f"{official}.{name}": f"{own}.{name}" for name in inner}


def _vae_resnet(official: str, own: str, shortcut: bool) -> dict[str, str]:
    layers = {f"{official}.{name}": f"{own}.{name}" for name in ("norm1", "conv1", "norm2", "conv2")}
    return layers | ({f"{official}.nin_shortcut": f"{own}.conv_shortcut"} if shortcut else {})


def _vae_attention(official: str, own: str) -> dict[str, str]:
    inner = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
    return {f"{official}.{a}": f"{own}.{b}" for a, b in inner.items()}


def _parameters(layers: Mapping[str, str]) -> dict[str, str]:
    """Weight and bias of every layer; the transformers' queries, keys and values have no bias."""
    return {
        f"{official}.{kind}": f"{own}.{kind}"
        for official, own in layers.items()
        for kind in ("weight", "bias")
        if not (kind == "bias" and official.endswith((".to_q", ".to_k", ".to_v")))
    }

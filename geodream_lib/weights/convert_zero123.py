"""A released checkpoint of Zero123, Zero123-XL or Stable Zero123 to the folder that `views.zero123.Zero123` loads."""

from collections.abc import Mapping
from pathlib import Path

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from geodream_lib.components import read_network
from geodream_lib.errors import InputError
from geodream_lib.storage import atomic_folder
from geodream_lib.views.zero123.files import check_fit
from geodream_lib.views.zero123.model import CameraProjection, Zero123
from geodream_lib.weights.clip import openai_image_tower
from geodream_lib.weights.ldm import (
    SCALE_FACTOR,
    SCHEDULE_BUFFERS,
    SCHEDULER,
    VAE,
    ZERO123_UNET,
    unet_config,
    unet_names,
    vae_config,
    vae_weights,
)
from geodream_lib.weights.strict import network, rename, split

# The released configuration, sd-objaverse-finetune-c_concat-256. It leaves `use_ema` to the code, which says yes.
ZERO123 = {
    "unet": ZERO123_UNET,
    "vae": VAE,
    "scale_factor": SCALE_FACTOR,
    "linear_start": SCHEDULER["beta_start"],
    "linear_end": SCHEDULER["beta_end"],
    "timesteps": SCHEDULER["num_train_timesteps"],
    "use_ema": True,
}
UNET, AVERAGED_UNET, VAE_PREFIX = "model.diffusion_model.", "model_ema.", "first_stage_model."
PROJECTION, IMAGE_TOWER = "cc_projection.", "cond_stage_model.model.visual."
UNUSED = (
    *SCHEDULE_BUFFERS,
    # Counters of the averaging.
    r"model_ema\.(decay|num_updates)",
    # The released code deletes CLIP's text transformer; these five of its text half stay behind.
    r"cond_stage_model\.model\.(positional_embedding|text_projection|logit_scale|token_embedding\.weight)",
    r"cond_stage_model\.model\.ln_final\.(weight|bias)",
)


def convert_zero123(
    tensors: Mapping[str, Tensor],
    out: Path,
    stable: bool = False,
    config: Mapping | None = None,
    image_encoder: Path | None = None,
) -> None:
    """Write the folder `out` from the tensors of a released checkpoint, whole or not at all.

    Every tensor goes to one place or is left out by the rules of `UNUSED`. The released code keeps a running average of
    the UNet beside it and samples with the average: so does this, unless `use_ema` is false or the file has none.

    Args:
        tensors: by their released names; the folder's numbers have their precision.
        stable: the file is a Stable Zero123.
        config: for a network of other sizes, in the official words: `unet` and `vae` (the `unet_config` and `ddconfig`
            of a released configuration), `scale_factor`, `linear_start`, `linear_end`, `timesteps`, `use_ema`; and
            `image`, {"heads": number of heads}. What it leaves out is as released.
        image_encoder: folder of CLIP's image tower in transformers' layout, for a file that has none; not read else.

    Raises:
        InputError: keys or shapes are not those of Zero123, there is no image tower, or `out` cannot be written.
    """
    official, source = {**ZERO123, **(config or {})}, "Zero123's checkpoint"
    parts = split(tensors, (UNET, AVERAGED_UNET, VAE_PREFIX, PROJECTION, IMAGE_TOWER), UNUSED, source)
    projection = rename(parts[PROJECTION], {name: f"proj.{name}" for name in ("weight", "bias")}, "cc_projection")
    networks = {
        "unet": zero123_unet(official["unet"], parts, official["use_ema"], f"the UNet of {source}"),
        "vae": zero123_vae(official, parts[VAE_PREFIX], f"the VAE of {source}"),
    }
    if parts[IMAGE_TOWER]:
        heads, name = official.get("image", {}).get("heads"), f"the image tower of {source}"
        networks["image_encoder"] = openai_image_tower(parts[IMAGE_TOWER], name, heads)
    elif image_encoder is not None:
        networks["image_encoder"] = read_network(CLIPVisionModelWithProjection, image_encoder, "")
    else:
        raise InputError(f"{source} has no image tower ({IMAGE_TOWER}*); give the folder of CLIP ViT-L/14's besides")
    check_fit(networks, projection, source)
    context, width = projection["proj.weight"].shape
    sizes = {"embedding": width - 4, "context": context}
    networks["clip_camera_projection"] = network(CameraProjection, sizes, projection, "cc_projection")
    with atomic_folder(out) as folder:
        Zero123(**networks, scheduler=zero123_scheduler(official), stable=stable).save(folder)


def zero123_unet(
    official: Mapping, parts: Mapping[str, Mapping[str, Tensor]], use_ema: bool, source: str
) -> UNet2DConditionModel:
    """The UNet to sample with: the average where there is one and `use_ema` says so.

    Both must be whole. The average is stored under names that lost their dots, of `diffusion_model.<name>`.
    """
    config = unet_config(official)
    names = unet_names(config)
    weights = rename(parts[UNET], names, source)
    if parts[AVERAGED_UNET]:
        dotless = {f"diffusion_model.{name}".replace(".", ""): own for name, own in names.items()}
        averaged = rename(parts[AVERAGED_UNET], dotless, f"the average of {source}")
        weights = averaged if use_ema else weights
    return network(UNet2DConditionModel, config, weights, source)


def zero123_vae(official: Mapping, tensors: Mapping[str, Tensor], source: str) -> AutoencoderKL:
    """The VAE, whose latents the sampler sees multiplied by the official `scale_factor`."""
    config = vae_config(official["vae"], official["scale_factor"])
    return network(AutoencoderKL, config, vae_weights(tensors, config, source), source)


def zero123_scheduler(official: Mapping) -> DDIMScheduler:
    """The noise schedule of the official configuration."""
    own = {
        "num_train_timesteps": official["timesteps"],
        "beta_start": official["linear_start"],
        "beta_end": official["linear_end"],
    }
    return DDIMScheduler(**(SCHEDULER | own))

"""Stage 1 as rows of a plan: the reference views, and the source views around them."""

from collections import Counter

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from geodream_lib.plan.networks import count_parameters, make_networks, weight_bytes
from geodream_lib.plan.step import Step
from geodream_lib.plan.trace import Cost, meta, trace
from geodream_lib.presets import Preset
from geodream_lib.views.ddim import ddim_timesteps
from geodream_lib.views.mvdream.model import AZIMUTHS, denoise_views, released_timesteps
from geodream_lib.views.mvdream.network import MultiViewUNet
from geodream_lib.views.sampling import RelativePose, released_rounds
from geodream_lib.views.sources import viewpoints
from geodream_lib.views.zero123.model import Zero123
from geodream_lib.views.zero123plus.attention import (
    install_reference_attention,
    predict_with_reference,
    reference_tokens,
)
from geodream_lib.views.zero123plus.layout import COLUMNS, ROWS
from geodream_lib.weights.ldm import SCHEDULER

ZERO123_BATCH = 8  # views that `Zero123.predict` takes at a time


@torch.no_grad()
def view_steps(preset: Preset, image: bool) -> list[Step]:
    """Stage 1: the reference views, then the source views around them."""
    settings = preset.views
    sides = not image and settings.reference == "mvdream"
    poses = viewpoints(settings, sides, torch.Generator())
    steps = [] if image else [_mvdream(preset) if sides else _front_view(preset)]
    if sides and settings.predictor == "zero123plus":
        return [*steps, _zero123plus(preset, len({pose.reference for pose in poses if not _is_reference(pose)}))]
    if settings.sampling == "released" and not sides:
        first, second = released_rounds()
        rounds = [(len(first), settings.steps)]
        rounds += [(n, settings.neighbour_steps) for n in Counter(index for index, _ in second).values()]
    else:
        groups = Counter(pose.reference for pose in poses if not _is_reference(pose))
        rounds = [(n, settings.steps) for n in groups.values()]
    return [*steps, _zero123(preset, rounds)]


def _front_view(preset: Preset) -> Step:
    """Appendix F, i: one picture by text-to-image."""
    networks = _make(preset, preset.text_to_image, "text_encoder")
    unet, steps = networks["unet"], preset.views.reference_steps
    size = unet.config.sample_size
    latents, text = meta(2, _channels(networks), size, size), _text(networks, 2)

    def denoise() -> Tensor:
        return unet(latents.to(unet.dtype), 500, encoder_hidden_states=text.to(unet.dtype)).sample

    step, decode = trace(denoise), _decode(networks, latents[:1])
    return _view_row("text to image", networks, steps, f"1 front view, {size * _factor(networks)} px", step, decode)


def _mvdream(preset: Preset) -> Step:
    """Appendix F, ii: four sides of the prompt at once."""
    networks = _make(preset, preset.mvdream, "text_encoder", "camera_embedding")
    settings, views = preset.views, len(AZIMUTHS)
    side = settings.size // _factor(networks)
    network = MultiViewUNet(networks["unet"], networks["camera_embedding"])
    scheduler = DDIMScheduler(**SCHEDULER)
    noise, camera = meta(views, _channels(networks), side, side), meta(views, 16)
    text = _text(networks, views)
    steps, guidance = settings.mvdream_steps, settings.mvdream_guidance
    step = trace(lambda: next(denoise_views(network, scheduler, noise, text, text, camera, steps, guidance, views)))
    count = len(released_timesteps(scheduler.config.num_train_timesteps, steps))
    return _view_row("MVDream", networks, count, f"{views} views, {settings.size} px", step, _decode(networks, noise))


def _zero123(preset: Preset, rounds: list[tuple[int, int]]) -> Step:
    """Source views one by one; `rounds`: how many of one reference, and in how many steps."""
    networks = _make(preset, preset.zero123, "image_encoder", "clip_camera_projection")
    side = preset.views.size // _factor(networks)
    batch, views = min(ZERO123_BATCH, max(n for n, _ in rounds)), sum(n for n, _ in rounds)
    sample = meta(batch, _channels(networks), side, side)
    token = meta(batch, 1, networks["unet"].config.cross_attention_dim)
    zero123 = Zero123(**networks, scheduler=DDIMScheduler(**SCHEDULER))
    one = trace(lambda: zero123.guided(sample, token, sample, 500, preset.views.guidance))
    decode = _decode(networks, sample)
    counts = {steps: len(ddim_timesteps(zero123.scheduler, steps, preset.views.drop_noisiest)) for _, steps in rounds}
    # Every view is denoised by itself, in as many steps as its round has.
    steps, total = counts[rounds[0][1]], sum(n * counts[steps] for n, steps in rounds)
    largest = one.flops / batch * max(n for n, _ in rounds)
    flops = one.flops / batch * total + decode.flops / batch * views
    memory = weight_bytes(networks) + max(one.peak, decode.peak)
    sizes = f"{views} views, {preset.views.size} px, {batch} at once"
    return Step("views", "Zero123", steps, sizes, count_parameters(networks), largest, flops, memory)


def _zero123plus(preset: Preset, references: int) -> Step:
    """Six views at once of each reference."""
    networks = _make(preset, preset.zero123plus, "text_encoder", "vision_encoder")
    unet, settings = networks["unet"], preset.views
    tile = settings.tile // _factor(networks)
    # The reference is seen in the size that Stable Diffusion makes, whatever the tiles have.
    channels = _channels(networks)
    condition = meta(2, channels, unet.config.sample_size, unet.config.sample_size)
    picture, text = meta(2, channels, ROWS * tile, COLUMNS * tile), _text(networks, 2)
    install_reference_attention(unet)

    def denoise() -> Tensor:
        tokens = reference_tokens(unet, condition, 500.0, text)
        return predict_with_reference(unet, picture, 500.0, text, tokens)

    step, decode = trace(denoise), _decode(networks, picture[:1])
    sizes = f"{references} x 6 views, {settings.tile} px"
    return _view_row("Zero123++", networks, references * settings.steps, sizes, step, decode, references)


def _view_row(
    what: str, networks: nn.ModuleDict, steps: int, sizes: str, step: Cost, decode: Cost, pictures: int = 1
) -> Step:
    memory = weight_bytes(networks) + max(step.peak, decode.peak)
    flops = steps * step.flops + pictures * decode.flops
    return Step("views", what, steps, sizes, count_parameters(networks), step.flops, flops, memory)


def _make(preset: Preset, name: str, *parts: str) -> nn.ModuleDict:
    return make_networks(name, ("unet", "vae", *parts), getattr(torch, preset.precision))


def _text(networks: nn.ModuleDict, n: int) -> Tensor:
    tokens = networks["text_encoder"].config.max_position_embeddings
    return meta(n, tokens, networks["unet"].config.cross_attention_dim)


def _channels(networks: nn.ModuleDict) -> int:
    """Numbers in one latent."""
    return networks["vae"].config.latent_channels


def _factor(networks: nn.ModuleDict) -> int:
    """Pixels a side of one latent."""
    return 2 ** (len(networks["vae"].config.block_out_channels) - 1)


def _decode(networks: nn.ModuleDict, latents: Tensor) -> Cost:
    vae = networks["vae"]
    return trace(lambda: vae.decode(latents.to(vae.dtype)).sample.float())


def _is_reference(pose: RelativePose) -> bool:
    return pose.azimuth == 0.0 and pose.elevation == 0.0

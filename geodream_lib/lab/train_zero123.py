"""Train the lab's Zero123 on turntables: one view and a relative pose in, another view of the same object out."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional

from geodream_lib.components import read_network
from geodream_lib.lab.bench import Bench
from geodream_lib.lab.captions import caption, view_word
from geodream_lib.lab.datasets import (
    REFERENCE_VIEWS,
    TURNTABLES_PER_SHARD,
    load_shards,
    make_shards,
    render_turntables,
    turntable_object,
)
from geodream_lib.lab.imagined import REDRAWN, redraw_once
from geodream_lib.lab.latents import add_noise, encode_once, sample_latents
from geodream_lib.lab.networks import (
    CONTEXT,
    make_image_encoder,
    make_scheduler,
    make_unet,
    speed_up_training,
)
from geodream_lib.lab.train_vae import load_vae
from geodream_lib.lab.train_viewpoint import angle_between
from geodream_lib.lab.training import Budget, coarse_then_fine, train
from geodream_lib.precision import fast_autocast
from geodream_lib.views.zero123.model import CameraProjection, Zero123, pose_token

COARSE_SHARE = 0.4  # of the training time, at half the resolution
HELD_OBJECTS = 32
SIDES = (0.0, 90.0, -90.0)  # degrees: what MVDream's views are looked around from (appendix F, ii)
NEAR = 45.0  # degrees of azimuth: how far from them
FRONT_SHARE = 0.4  # of the inputs, from the views near the front; the others are any
DRAWN_SHARE = 0.4  # of the inputs, as text-to-image draws them
NEAR_SHARE = 0.6  # of the views asked for, within `NEAR` of the input


@torch.no_grad()
def widen_input(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """A UNet with twice the input channels that begins as the given one: the weights of the new channels are zero."""
    channels = unet.config.in_channels
    wide = make_unet(channels, in_channels=2 * channels)
    state = unet.state_dict()
    weight = torch.zeros_like(wide.conv_in.weight)
    weight[:, :channels] = state["conv_in.weight"]
    wide.load_state_dict(state | {"conv_in.weight": weight})
    return wide


def start_zero123(text_to_image: UNet2DConditionModel, vae: AutoencoderKL) -> Zero123:
    """An untrained Zero123: like the real one its UNet starts as a text-to-image one."""
    return Zero123(
        widen_input(text_to_image), vae, make_image_encoder(), CameraProjection(CONTEXT, CONTEXT), make_scheduler()
    )


def side_views(azimuth: Float[Tensor, "n views"]) -> Int[Tensor, "n sides"]:
    """Which view of each object comes nearest to its front, its left and its right; azimuths in degrees."""
    return angle_between(azimuth[:, None], azimuth.new_tensor(SIDES)[:, None]).argmin(dim=-1)


def pictures_of(images: UInt8[Tensor, "n views h w 3"], chosen: Int[Tensor, "n k"]) -> UInt8[Tensor, "n k h w 3"]:
    """Those of the `views` of each object that are `chosen`."""
    return images[torch.arange(len(images))[:, None], chosen]


def draw_targets(
    azimuth: Float[Tensor, "b views"], source: Int[Tensor, " b"], generator: torch.Generator
) -> Int[Tensor, " b"]:
    """Which view of each object is asked for: `NEAR_SHARE` of them another one near the source, the others any."""
    near = angle_between(azimuth, azimuth.gather(1, source[:, None])) < NEAR
    near.scatter_(1, source[:, None], False)
    anywhere = torch.rand(len(source), generator=generator, device=source.device) >= NEAR_SHARE
    anywhere |= ~near.any(dim=1)
    return torch.multinomial((near | anywhere[:, None]).float(), 1, generator=generator)[:, 0]


def train_zero123(
    zero123: Zero123,
    images: Tensor,
    azimuth: Tensor,
    elevation: Tensor,
    redrawn: Tensor,
    *,
    held_objects: int = HELD_OBJECTS,
    coarse: bool = False,
    budget: Budget,
    folder: Path,
    device: torch.device,
) -> Zero123:
    """Train on turntables: uint8 `images [objects, views, h, w, 3]`, angles `[objects, views]` in degrees.

    Four in ten inputs are front-ish reference views, the others any view; six in ten of the views asked for lie near
    the input, since the strategy of appendix F looks around sides that MVDream has drawn. Four in ten inputs are taken
    from `redrawn [k, 3, h, w, 3]`, the `side_views` of the first k objects as text-to-image draws them (see
    `imagined`): a network that has seen flawless inputs alone takes a drawn robot for an owl. One sample in ten drops
    both conditions (zeros for the concatenated latent, zeros for the token *after* its projection), which is the
    unconditional branch sampling uses; the released training zeroes the image embedding before the projection instead.
    The image encoder is trained along, in place of the frozen CLIP of the real one; the autoencoder stays as it is. The
    last `held_objects` are held out for the validation loss. `coarse`: at half the resolution (see
    `latents.add_noise`).
    """
    first_drawn, views = images.shape[0] * images.shape[1], images.shape[1]
    drawn_views = side_views(azimuth[: len(redrawn)]).to(device)
    images = torch.cat([images.flatten(0, 1), redrawn.flatten(0, 1)])
    vae = zero123.vae.to(device)
    moments = encode_once(vae, images, folder.parent, device)
    images = images.to(device)
    azimuth, elevation = azimuth.to(device), elevation.to(device)
    trained_objects, objects = len(azimuth) - held_objects, len(azimuth)
    alphas = make_scheduler().alphas_cumprod.to(device)
    channels = moments.shape[1] // 2

    def batch(first: int, last: int, size: int, drawn_share: float, generator: torch.Generator) -> tuple[Tensor, ...]:
        draw = {"generator": generator, "device": device}
        obj = torch.randint(first, last, (size,), **draw)
        frontish = torch.rand(size, **draw) < FRONT_SHARE
        front, anywhere = (torch.randint(count, (size,), **draw) for count in (REFERENCE_VIEWS, views))
        source = torch.where(frontish, front, anywhere)
        picture = obj * views + source
        is_drawn, side = torch.rand(size, **draw) < drawn_share, torch.randint(len(SIDES), (size,), **draw)
        obj = torch.where(is_drawn, obj % len(redrawn), obj)
        source = torch.where(is_drawn, drawn_views[obj % len(redrawn), side], source)
        picture = torch.where(is_drawn, first_drawn + obj * len(SIDES) + side, picture)
        target = draw_targets(azimuth[obj], source, generator)
        pose = pose_token(
            azimuth[obj, target] - azimuth[obj, source],
            elevation[obj, target] - elevation[obj, source],
            torch.zeros(size, device=device),
        )
        drop = torch.rand(size, **draw) < 0.1
        return picture, obj * views + target, pose, drop

    def error(parts: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        source, target, pose, drop = parts
        latents = sample_latents(moments[target], vae.config.scaling_factor, generator)
        t, noisy, velocity = add_noise(latents, alphas, generator, coarse=coarse)
        # The condition latent is the posterior mode, not scaled (as released).
        condition = torch.where(drop[:, None, None, None], 0.0, moments[source, :channels].float())
        condition = functional.avg_pool2d(condition, 2) if coarse else condition
        with fast_autocast(device):
            token = zero123.clip_camera_projection(zero123.clip_embedding(images[source].float() / 255), pose)
            token = torch.where(drop[:, None, None], 0.0, token)
            predicted = zero123.unet(torch.cat([noisy, condition], dim=1), t, token).sample
        return functional.mse_loss(predicted.float(), velocity)

    def loss(model: nn.ModuleDict, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        return error(batch(0, trained_objects, budget.batch_size, DRAWN_SHARE, generator), generator), {}

    @torch.no_grad()
    def validate(model: nn.ModuleDict) -> dict[str, float]:
        fixed = torch.Generator(device).manual_seed(1)
        return {"held_out_loss": error(batch(trained_objects, objects, 256, 0.0, fixed), fixed).item()}

    trained = nn.ModuleDict(
        {name: getattr(zero123, name) for name in ("unet", "image_encoder", "clip_camera_projection")}
    ).requires_grad_(True)
    speed_up_training(zero123.unet, device)
    train(folder.name, trained, loss, budget=budget, folder=folder, device=device, validate=validate)
    return zero123.eval()


def make_zero123(bench: Bench) -> None:
    """Train Zero123 on turntables, from the text-to-image network that is there."""
    source, folder = bench.out / "text_to_image", bench.out / "zero123"
    paths = make_shards(render_turntables, bench.data, bench.turntables)
    arrays = load_shards(paths, ("images", "azimuth", "elevation"))
    turntables = {key: torch.from_numpy(value) for key, value in arrays.items()}
    if bench.warm_start:
        zero123 = Zero123.load(folder)
    else:
        zero123 = start_zero123(read_network(UNet2DConditionModel, source, "unet"), load_vae(source))
    objects = [turntable_object(*divmod(i, TURNTABLES_PER_SHARD), "train")[0] for i in range(len(turntables["images"]))]
    first = slice(min(REDRAWN, len(objects) - HELD_OBJECTS))
    azimuth, elevation = turntables["azimuth"][first], turntables["elevation"][first]
    chosen, rng = side_views(azimuth), np.random.default_rng(0)
    captions = [
        caption(obj, rng, view=view_word(*angles), background="on a white background")
        for obj, *sides in zip(objects[first], azimuth.gather(1, chosen), elevation.gather(1, chosen), strict=True)
        for angles in zip(*(side.tolist() for side in sides), strict=True)
    ]
    pictures = pictures_of(turntables["images"][first], chosen).flatten(0, 1)[:, None]
    redrawn = redraw_once(source, pictures, captions, bench.work, bench.device).unflatten(0, chosen.shape)[:, :, 0]
    data = turntables | {"redrawn": redrawn}
    fine, device = bench.budget, bench.device
    if not bench.warm_start:
        coarse, fine = coarse_then_fine(fine, COARSE_SHARE)
        work = bench.folder("zero123_coarse")
        zero123 = train_zero123(zero123, **data, coarse=True, budget=coarse, folder=work, device=device)
    zero123 = train_zero123(zero123, **data, budget=fine, folder=bench.folder("zero123"), device=device)
    zero123.half().save(folder, {"vae": "../text_to_image"})
    bench.keep_curve("zero123", folder)

"""Train the lab's MVDream: text-to-image whose four views see each other, on orbits and, to stay broad, photographs."""

from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from geodream_lib.cameras import orbit
from geodream_lib.cameras_sampling import mvdream_condition
from geodream_lib.guidance import load_diffusion
from geodream_lib.guidance.diffusion import LatentDiffusion
from geodream_lib.lab.bench import Bench
from geodream_lib.lab.datasets import (
    TURNTABLE_FOV,
    TURNTABLE_RADIUS,
    load_shards,
    make_shards,
    render_photographs,
)
from geodream_lib.lab.latents import add_noise, encode_once, sample_latents
from geodream_lib.lab.multiview_data import multiview_shards, render_orbits
from geodream_lib.lab.networks import IMAGE_SIZE, make_camera_embedding, publish
from geodream_lib.lab.training import Budget, coarse_then_fine, train
from geodream_lib.precision import fast_autocast
from geodream_lib.views import MVDream

COARSE_SHARE = 0.4  # of the training time, at half the resolution
SHARE_3D = 0.7  # of the batches, as in the paper; the others are photographs, one view and no camera each
SUFFIX = ", 3d asset"  # what captions of 3D objects end with, as those of the released network
HELD_OBJECTS, HELD_PHOTOGRAPHS = 32, 128
PHOTOGRAPH_SHARE = 0.25  # of the photographs there are: enough to remember them by


def start_mvdream(text_to_image: LatentDiffusion) -> MVDream:
    """An untrained MVDream: of each view by itself it says what the text-to-image network does."""
    return MVDream(text_to_image, make_camera_embedding(text_to_image.denoiser.unet))


def orbit_conditions(
    azimuth: Float[Tensor, "n views"], elevation: Float[Tensor, "n views"]
) -> Float[Tensor, "n views 16"]:
    """What the network is told of the cameras at these angles, degrees."""
    cameras = orbit(azimuth.flatten(), elevation.flatten(), TURNTABLE_RADIUS, TURNTABLE_FOV, IMAGE_SIZE)
    return mvdream_condition(cameras.c2w).unflatten(0, azimuth.shape)


def multiview_loss(
    mvdream: MVDream,
    latents: Float[Tensor, "n views c h w"],
    captions: list[str],
    camera: Float[Tensor, "n views 16"] | None,
    generator: torch.Generator,
    coarse: bool = False,
) -> Float[Tensor, ""]:
    """Squared error of the velocity of all views of an object, noised to one timestep, since they are denoised at once.

    Args:
        latents: scaled, the views of each object.
        captions: one per object; an empty one for classifier-free guidance.
        camera: of every view, or None for pictures that have none.
        coarse: at half the resolution (see `latents.add_noise`), where views see each other at a sixteenth of the cost.
    """
    alphas, (views, channels) = mvdream.diffusion.denoiser.alphas_cumprod, latents.shape[1:3]
    t, noisy, velocity = add_noise(latents.flatten(1, 2), alphas, generator, coarse=coarse)
    noisy, velocity = (x.unflatten(1, (views, channels)).flatten(0, 1) for x in (noisy, velocity))
    text = mvdream.diffusion.encode_text(captions).repeat_interleave(views, 0)
    camera = None if camera is None else camera.flatten(0, 1)
    with fast_autocast(latents.device):
        predicted = mvdream.network(noisy, t.repeat_interleave(views), text, camera, views)
    return functional.mse_loss(predicted, velocity)


def train_mvdream(
    mvdream: MVDream,
    images: UInt8[Tensor, "objects views h w 3"],
    azimuth: Float[Tensor, "objects views"],
    elevation: Float[Tensor, "objects views"],
    captions: list[str],
    photographs: UInt8[Tensor, "n h w 3"],
    photograph_captions: list[str],
    *,
    coarse: bool = False,
    budget: Budget,
    folder: Path,
    device: torch.device,
) -> MVDream:
    """Train the UNet and the camera embedding; text encoder and autoencoder stay as they are.

    A batch has `budget.batch_size` objects, or as many photographs as these have views. One caption in ten is empty.
    The last objects and photographs are held out for the validation losses. `coarse`: at half the resolution.
    """
    mvdream.to(device)
    scale, (objects, views) = mvdream.diffusion.vae.config.scaling_factor, images.shape[:2]
    orbits = encode_once(mvdream.diffusion.vae, images.flatten(0, 1), folder.parent, device).unflatten(
        0, (objects, views)
    )
    flat = encode_once(mvdream.diffusion.vae, photographs, folder.parent, device)[:, None]
    cameras = orbit_conditions(azimuth, elevation).to(device)

    def error(
        data: Tensor, index: Tensor, said: list[str], camera: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Loss of these rows of the orbits' or the photographs' moments."""
        rows = data[index]
        latents = sample_latents(rows.flatten(0, 1), scale, generator).unflatten(0, rows.shape[:2])
        return multiview_loss(mvdream, latents, said, camera, generator, coarse)

    def loss(model: nn.ModuleDict, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        draw = {"generator": generator, "device": device}
        if torch.rand((), **draw) < SHARE_3D:
            index = torch.randint(objects - HELD_OBJECTS, (budget.batch_size,), **draw)
            said = [captions[i] + SUFFIX for i in index.tolist()]
            return error(orbits, index, _some_empty(said, generator), cameras[index], generator), {}
        index = torch.randint(len(flat) - HELD_PHOTOGRAPHS, (budget.batch_size * views,), **draw)
        said = [photograph_captions[i] for i in index.tolist()]
        return error(flat, index, _some_empty(said, generator), None, generator), {}

    @torch.no_grad()
    def validate(model: nn.ModuleDict) -> dict[str, float]:
        fixed = torch.Generator(device).manual_seed(1)
        index = torch.arange(objects - HELD_OBJECTS, objects, device=device)
        said = [text + SUFFIX for text in captions[-HELD_OBJECTS:]]
        photo = torch.arange(len(flat) - HELD_PHOTOGRAPHS, len(flat), device=device)
        return {
            "held_out_loss": error(orbits, index, said, cameras[index], fixed).item(),
            "held_out_loss_2d": error(flat, photo, photograph_captions[-HELD_PHOTOGRAPHS:], None, fixed).item(),
        }

    trained = nn.ModuleDict({"network": mvdream.network}).requires_grad_(True)
    train(folder.name, trained, loss, budget=budget, folder=folder, device=device, validate=validate)
    return mvdream.eval()


def _some_empty(captions: list[str], generator: torch.Generator) -> list[str]:
    """One caption in ten is empty: for classifier-free guidance."""
    drop = torch.rand(len(captions), generator=generator, device=generator.device) < 0.1
    return ["" if dropped else text for text, dropped in zip(captions, drop.tolist(), strict=True)]


def make_mvdream(bench: Bench) -> None:
    """Train MVDream on orbits and photographs, from the text-to-image network that is there."""
    folder = bench.out / "mvdream"
    mvdream = MVDream.load(folder) if bench.warm_start else start_mvdream(load_diffusion(bench.out / "text_to_image"))
    orbits = multiview_shards(render_orbits, bench.data, bench.turntables)
    shards = make_shards(render_photographs, bench.data, max(1, round(PHOTOGRAPH_SHARE * bench.photographs)))
    photographs = load_shards(shards, ("images", "captions"))
    data = (
        *(torch.from_numpy(orbits[key]) for key in ("images", "azimuth", "elevation")),
        orbits["captions"].tolist(),
        torch.from_numpy(photographs["images"]),
        photographs["captions"].tolist(),
    )
    fine, device = bench.budget, bench.device
    if not bench.warm_start:
        coarse, fine = coarse_then_fine(fine, COARSE_SHARE)
        work = bench.folder("mvdream_coarse")
        mvdream = train_mvdream(mvdream, *data, coarse=True, budget=coarse, folder=work, device=device)
    mvdream = train_mvdream(mvdream, *data, budget=fine, folder=bench.folder("mvdream"), device=device)
    publish(mvdream, folder)
    bench.keep_curve("mvdream", folder)

"""Train the lab's Zero123++: one picture in, a picture of its object from six fixed sides out."""

from pathlib import Path

import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from geodream_lib.guidance import load_diffusion
from geodream_lib.guidance.diffusion import LatentDiffusion
from geodream_lib.lab.bench import Bench
from geodream_lib.lab.imagined import REDRAWN, redraw_once
from geodream_lib.lab.latents import add_noise, encode_once, sample_latents
from geodream_lib.lab.multiview_data import multiview_shards, render_tiles
from geodream_lib.lab.networks import (
    IMAGE_SIZE,
    TEXT_TOKENS,
    make_image_encoder,
    make_zero123plus_scheduler,
    publish,
    speed_up_training,
)
from geodream_lib.lab.training import Budget, coarse_then_fine, train
from geodream_lib.precision import fast_autocast
from geodream_lib.views import Zero123Plus
from geodream_lib.views.background import cut_out
from geodream_lib.views.images import off_white
from geodream_lib.views.zero123.model import CLIP_MEAN, CLIP_STD
from geodream_lib.views.zero123plus.attention import predict_with_reference, reference_tokens
from geodream_lib.views.zero123plus.image import ImageInput, on_grey
from geodream_lib.views.zero123plus.layout import join_tiles
from geodream_lib.views.zero123plus.steps import noised_condition, ramped_embedding, scale_latents

COARSE_SHARE = 0.4  # of the training time, at half the resolution
REDRAWN_SHARE = 0.3  # of the references that a batch is given
HELD_OBJECTS = 32
# Of all that the autoencoder sees here: `scale_image` of pictures, and the same as (x - 0.5) / 0.8 for references.
CONTRAST = 0.5 / 0.8


def start_zero123plus(text_to_image: LatentDiffusion) -> Zero123Plus:
    """An untrained Zero123++: the text-to-image UNet, an image encoder that knows nothing, a ramp from 0 to 1."""
    return Zero123Plus(
        unet=text_to_image.denoiser.unet,
        vae=text_to_image.vae,
        text_encoder=text_to_image.text_encoder,
        tokenizer=text_to_image.tokenizer,
        vision_encoder=make_image_encoder(),
        scheduler=make_zero123plus_scheduler(),
        feature_extractor_vae=ImageInput(IMAGE_SIZE, (0.5,) * 3, (0.8,) * 3, Image.Resampling.BILINEAR),
        feature_extractor_clip=ImageInput(IMAGE_SIZE, CLIP_MEAN, CLIP_STD, Image.Resampling.BICUBIC),
        ramping_coefficients=torch.linspace(0, 1, TEXT_TOKENS).tolist(),
    ).requires_grad_(False)


def shown(image: UInt8[Tensor, "h w 3"], alpha: Float[Tensor, "h w"]) -> UInt8[Tensor, "h w 3"]:
    """A picture on white as the pipeline shows it to Zero123++: cut out, on grey."""
    colors = off_white(image.float() / 255, alpha)
    return on_grey(torch.cat([colors, alpha[..., None]], dim=-1))


def normalized(images: UInt8[Tensor, "n h w 3"], how: ImageInput) -> Float[Tensor, "n 3 h w"]:
    """Pictures that have their size already as a network wants them (see `network_pixels`)."""
    mean, std = (torch.tensor(values, device=images.device) for values in (how.mean, how.std))
    return ((images.float() / 255 - mean) / std).permute(0, 3, 1, 2)


def zero123plus_loss(
    model: Zero123Plus,
    ramp: Float[Tensor, " tokens"],
    pictures: Float[Tensor, "b c2 h w"],
    references: Float[Tensor, "b c2 hl wl"],
    images: UInt8[Tensor, "b hi wi 3"],
    drop: Bool[Tensor, " b"],
    generator: torch.Generator,
    coarse: bool = False,
) -> Float[Tensor, ""]:
    """Squared error of the velocity of the six tiles, seen beside their reference at the same noise level.

    Args:
        ramp: weights of the image embedding, one per token of the empty prompt.
        pictures, references: posterior moments (`encode_dataset`) at `CONTRAST`.
        images: the references on grey, for the image encoder.
        drop: items that see grey and the plain empty prompt instead: the unconditional half of guidance.
        coarse: tiles and reference at half the resolution (see `latents.add_noise`).
    """
    device = pictures.device
    alphas = model.scheduler.alphas_cumprod.to(device)
    latents = scale_latents(sample_latents(pictures, model.vae.config.scaling_factor, generator))
    t, noisy, velocity = add_noise(latents, alphas, generator, coarse=coarse)
    grey = model.vae.encode(torch.zeros(1, 3, *images.shape[1:3], device=device)).latent_dist
    references = torch.where(drop[:, None, None, None], torch.cat([grey.mean, grey.std], dim=1), references.float())
    # Neither scaled nor the mode, as `Zero123Plus.condition_latent`.
    condition = sample_latents(references, 1.0, generator)
    noise = torch.randn(condition.shape, generator=generator, device=device)
    sigma = ((1 - alphas[t]) / alphas[t]).sqrt()[:, None, None, None]
    seen = noised_condition(condition, noise, sigma)
    seen = functional.avg_pool2d(seen, 2) if coarse else seen
    with fast_autocast(device):
        empty = model.text_embedding(model.empty_prompt()).expand(len(images), -1, -1)
        embedding = model.image_embedding(normalized(images, model.feature_extractor_clip))
        text = torch.where(drop[:, None, None], empty, ramped_embedding(empty, embedding, ramp))
        tokens = reference_tokens(model.unet, seen, t, text)
        predicted = predict_with_reference(model.unet, noisy, t, text, tokens)
    return functional.mse_loss(predicted, velocity)


def train_zero123plus(
    model: Zero123Plus,
    references: UInt8[Tensor, "n h w 3"],
    redrawn: UInt8[Tensor, "k h w 3"],
    tiles: UInt8[Tensor, "n 6 t t 3"],
    *,
    coarse: bool = False,
    budget: Budget,
    folder: Path,
    device: torch.device,
) -> Zero123Plus:
    """Train UNet, image encoder and ramp; text encoder and autoencoder stay as they are.

    Three in ten references are of `redrawn`, the first k of `references` as text-to-image draws them, since later all
    are drawn. One sample in ten sees no reference. The last 32 objects are held out for the validation loss. The image
    encoder is trained along, in place of the frozen CLIP of the real one. `coarse`: at half the resolution.
    """
    model.to(device)
    objects = len(references)
    seen = torch.cat([references, redrawn])
    pictures, moments = (
        encode_once(model.vae, images, folder.parent, device, CONTRAST) for images in (join_tiles(tiles), seen)
    )
    seen = seen.to(device)
    ramp = nn.ParameterList([torch.tensor(model.ramping_coefficients)])

    def loss(trained: nn.ModuleDict, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        draw = {"generator": generator, "device": device}
        index = torch.randint(objects - HELD_OBJECTS, (budget.batch_size,), **draw)
        is_drawn = torch.rand(budget.batch_size, **draw) < REDRAWN_SHARE
        index = torch.where(is_drawn, index % len(redrawn), index)
        source = torch.where(is_drawn, objects + index, index)
        drop = torch.rand(budget.batch_size, **draw) < 0.1
        batch = pictures[index], moments[source], seen[source], drop
        return zero123plus_loss(model, ramp[0], *batch, generator, coarse), {}

    @torch.no_grad()
    def validate(trained: nn.ModuleDict) -> dict[str, float]:
        fixed, index = torch.Generator(device).manual_seed(1), slice(objects - HELD_OBJECTS, objects)
        drop = torch.zeros(HELD_OBJECTS, dtype=torch.bool, device=device)
        batch = pictures[index], moments[index], seen[index], drop
        return {"held_out_loss": zero123plus_loss(model, ramp[0], *batch, fixed, coarse).item()}

    speed_up_training(model.unet, device)
    trained = nn.ModuleDict({"unet": model.unet, "vision_encoder": model.vision_encoder, "ramp": ramp})
    trained.requires_grad_(True)
    train(folder.name, trained, loss, budget=budget, folder=folder, device=device, validate=validate)
    model.ramping_coefficients = tuple(ramp[0].tolist())
    return model.eval()


def make_zero123plus(bench: Bench) -> None:
    """Train Zero123++ on tiles, from the text-to-image network that is there."""
    source, folder = bench.out / "text_to_image", bench.out / "zero123plus"
    model = Zero123Plus.load(folder) if bench.warm_start else start_zero123plus(load_diffusion(source))
    arrays = multiview_shards(render_tiles, bench.data, bench.turntables)
    reference, alpha = (torch.from_numpy(arrays[key]) for key in ("reference", "alpha"))
    first = slice(min(REDRAWN, len(reference) - HELD_OBJECTS))
    captions = arrays["captions"][first].tolist()
    redrawn = redraw_once(source, reference[first, None], captions, bench.work, bench.device)[:, 0]
    data = (
        torch.stack([shown(image, cover.float() / 255) for image, cover in zip(reference, alpha, strict=True)]),
        torch.stack([shown(image, cut_out(image.float() / 255)) for image in redrawn]),
        torch.from_numpy(arrays["tiles"]),
    )
    fine, device = bench.budget, bench.device
    if not bench.warm_start:
        coarse, fine = coarse_then_fine(fine, COARSE_SHARE)
        work = bench.folder("zero123plus_coarse")
        model = train_zero123plus(model, *data, coarse=True, budget=coarse, folder=work, device=device)
    model = train_zero123plus(model, *data, budget=fine, folder=bench.folder("zero123plus"), device=device)
    publish(model, folder)
    bench.keep_curve("zero123plus", folder)

"""Train the lab's text-to-image latent diffusion on captioned photographs: the 2D prior, front-biased as real ones."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTokenizer

from geodream_lib.lab.bench import Bench
from geodream_lib.lab.captions import LEXICON
from geodream_lib.lab.datasets import load_shards, make_shards, render_photographs
from geodream_lib.lab.networks import make_scheduler, make_text_encoder, make_tokenizer, make_unet, speed_up_training
from geodream_lib.lab.train_vae import load_vae, to_network
from geodream_lib.lab.training import Budget, train
from geodream_lib.precision import fast_autocast


@torch.no_grad()
def encode_dataset(vae: AutoencoderKL, images: Tensor, device: torch.device) -> Float[Tensor, "n c2 h w"]:
    """Posterior mean and standard deviation of uint8 images, stacked along channels, half precision, on `device`."""
    moments = []
    for part in images.split(256):
        with fast_autocast(device):
            posterior = vae.encode(to_network(part, device)).latent_dist
        moments.append(torch.cat([posterior.mean, posterior.std], dim=1).half())
    return torch.cat(moments)


def sample_latents(moments: Tensor, scale: float, generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """Draw scaled latents from stored posterior moments."""
    mean, std = moments.float().chunk(2, dim=1)
    return (mean + std * torch.randn(mean.shape, generator=generator, device=mean.device)) * scale


def add_noise_for_v(
    latents: Float[Tensor, "b c h w"], alphas_cumprod: Float[Tensor, " t"], generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Uniform timesteps, noisy latents and the v-prediction target (Salimans and Ho 2022, appendix D)."""
    t = torch.randint(len(alphas_cumprod), (len(latents),), generator=generator, device=latents.device)
    alpha, sigma = alphas_cumprod[t, None, None, None].sqrt(), (1 - alphas_cumprod[t, None, None, None]).sqrt()
    noise = torch.randn(latents.shape, generator=generator, device=latents.device)
    return t, alpha * latents + sigma * noise, alpha * noise - sigma * latents


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Token ids `[n, model_max_length]`, padded with the end token."""
    return torch.tensor(
        tokenizer(captions, padding="max_length", truncation=True, max_length=tokenizer.model_max_length).input_ids
    )


def train_text_to_image(
    model: nn.ModuleDict,
    images: Tensor,
    captions: list[str],
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    *,
    budget: Budget,
    folder: Path,
    device: torch.device,
) -> nn.ModuleDict:
    """Train `unet` and `text_encoder` of `model`; the last 1024 photographs are held out for the validation loss.

    One caption in ten is replaced by the empty one, for classifier-free guidance. Pictures are mirrored at random: left
    and right are not words of the lab.
    """
    moments = torch.cat([encode_dataset(vae, images, device), encode_dataset(vae, images.flip(2), device)])
    ids = tokenize(tokenizer, captions).to(device)
    empty = tokenize(tokenizer, [""]).to(device)
    count, held = len(captions), 1024
    alphas = make_scheduler().alphas_cumprod.to(device)
    scale = vae.config.scaling_factor

    def predict(model: nn.ModuleDict, noisy: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        with fast_autocast(device):
            text = model["text_encoder"](tokens).last_hidden_state
            return model["unet"](noisy, t, text).sample.float()

    def loss(model: nn.ModuleDict, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        draw = {"generator": generator, "device": device}
        index = torch.randint(count - held, (budget.batch_size,), **draw)
        mirrored = torch.randint(2, (budget.batch_size,), **draw)
        latents = sample_latents(moments[index + count * mirrored], scale, generator)
        drop = torch.rand(budget.batch_size, 1, **draw) < 0.1
        t, noisy, target = add_noise_for_v(latents, alphas, generator)
        return functional.mse_loss(predict(model, noisy, t, torch.where(drop, empty, ids[index])), target), {}

    @torch.no_grad()
    def validate(model: nn.ModuleDict) -> dict[str, float]:
        fixed = torch.Generator(device).manual_seed(1)
        index = torch.arange(count - held, count, device=device)
        t, noisy, target = add_noise_for_v(sample_latents(moments[index], scale, fixed), alphas, fixed)
        errors = [
            functional.mse_loss(predict(model, *part[:3]), part[3])
            for part in zip(noisy.split(256), t.split(256), ids[index].split(256), target.split(256), strict=True)
        ]
        return {"held_out_loss": torch.stack(errors).mean().item()}

    speed_up_training(model["unet"], device)
    return train("text_to_image", model, loss, budget=budget, folder=folder, device=device, validate=validate)


def make_text_to_image(bench: Bench) -> None:
    """Train the UNet and text encoder on photographs, in the latents of the autoencoder that is there."""
    folder = bench.out / "text_to_image"
    shards = load_shards(make_shards(render_photographs, bench.data, bench.photographs), ("images", "captions"))
    vae = load_vae(folder).to(bench.device)
    if bench.warm_start:
        shipped = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
        tokenizer, model = shipped.tokenizer, {"unet": shipped.unet, "text_encoder": shipped.text_encoder}
    else:
        tokenizer = make_tokenizer(LEXICON, bench.work / "tokenizer")
        model = {"unet": make_unet(vae.config.latent_channels), "text_encoder": make_text_encoder(tokenizer)}
    model = train_text_to_image(
        nn.ModuleDict(model),
        torch.from_numpy(shards["images"]),
        shards["captions"].tolist(),
        vae,
        tokenizer,
        budget=bench.budget,
        folder=bench.folder("text_to_image"),
        device=bench.device,
    ).half()
    StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=model["text_encoder"],
        tokenizer=tokenizer,
        unet=model["unet"],
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    bench.keep_curve("text_to_image", folder)

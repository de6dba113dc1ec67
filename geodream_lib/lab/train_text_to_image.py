"""Train the lab's text-to-image latent diffusion on captioned photographs: the 2D prior, front-biased as real ones."""

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTokenizer

from geodream_lib.lab.bench import Bench
from geodream_lib.lab.captions import LEXICON
from geodream_lib.lab.datasets import load_shards, make_shards, render_photographs
from geodream_lib.lab.latents import add_noise_for_v, encode_once, sample_latents
from geodream_lib.lab.networks import make_scheduler, make_text_encoder, make_tokenizer, make_unet, speed_up_training
from geodream_lib.lab.train_vae import load_vae
from geodream_lib.lab.training import Budget, train
from geodream_lib.precision import fast_autocast


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Token ids `[n, model_max_length]`, padded with the end token."""
    return torch.tensor(
        tokenizer(captions, padding="max_length", truncation=True, max_length=tokenizer.model_max_length).input_ids
    )


def train_text_to_image(
    model: nn.ModuleDict,
    moments: Float[Tensor, "n c2 h w"],
    captions: list[str],
    scale: float,
    tokenizer: CLIPTokenizer,
    *,
    budget: Budget,
    folder: Path,
    device: torch.device,
) -> nn.ModuleDict:
    """Train `unet` and `text_encoder` of `model`; the last 1024 photographs are held out for the validation loss.

    One caption in ten is replaced by the empty one, for classifier-free guidance.

    Args:
        moments: of the photographs' latents (see `latents`), which `scale` brings to unit variance.
    """
    ids = tokenize(tokenizer, captions).to(device)
    empty = tokenize(tokenizer, [""]).to(device)
    count, held = len(captions), 1024
    alphas = make_scheduler().alphas_cumprod.to(device)

    def predict(model: nn.ModuleDict, noisy: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        with fast_autocast(device):
            text = model["text_encoder"](tokens).last_hidden_state
            return model["unet"](noisy, t, text).sample.float()

    def loss(model: nn.ModuleDict, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        draw = {"generator": generator, "device": device}
        index = torch.randint(count - held, (budget.batch_size,), **draw)
        latents = sample_latents(moments[index], scale, generator)
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
    vae = load_vae(folder)
    if bench.warm_start:
        shipped = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
        tokenizer, model = shipped.tokenizer, {"unet": shipped.unet, "text_encoder": shipped.text_encoder}
    else:
        tokenizer = make_tokenizer(LEXICON, bench.work / "tokenizer")
        model = {"unet": make_unet(vae.config.latent_channels), "text_encoder": make_text_encoder(tokenizer)}
    model = train_text_to_image(
        nn.ModuleDict(model),
        encode_once(vae, torch.from_numpy(shards["images"]), bench.work, bench.device),
        shards["captions"].tolist(),
        vae.config.scaling_factor,
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

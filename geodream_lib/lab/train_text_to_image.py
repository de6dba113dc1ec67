"""Train the lab's text-to-image latent diffusions on captioned photographs: the 2D prior, front-biased as real ones.

As of Stable Diffusion 2.1 there are two. One predicts velocity (2.1); the other, made of it, predicts noise (2.1-base).
"""

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from geodream_lib import components
from geodream_lib.lab.bench import Bench
from geodream_lib.lab.captions import LEXICON
from geodream_lib.lab.datasets import load_shards, make_shards, render_photographs
from geodream_lib.lab.latents import add_noise, encode_once, sample_latents
from geodream_lib.lab.networks import (
    SHARED,
    make_scheduler,
    make_text_encoder,
    make_tokenizer,
    make_unet,
    speed_up_training,
)
from geodream_lib.lab.train_vae import load_vae
from geodream_lib.lab.training import Budget, coarse_then_fine, train
from geodream_lib.precision import fast_autocast
from geodream_lib.storage import read_json, write_json

COARSE_SHARE = 0.4  # of the training time, at half the resolution


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
    predicts: str = "v_prediction",
    coarse: bool = False,
    budget: Budget,
    folder: Path,
    device: torch.device,
) -> nn.ModuleDict:
    """Train what is not frozen of `unet` and `text_encoder`; the last 1024 photographs are held out for validation.

    One caption in ten is replaced by the empty one, for classifier-free guidance.

    Args:
        moments: of the photographs' latents (see `latents`), which `scale` brings to unit variance.
        predicts: "v_prediction" or "epsilon".
        coarse: at half the resolution (see `latents.add_noise`), where three times as many pictures go through in the
            same time.
    """
    ids = tokenize(tokenizer, captions).to(device)
    empty = tokenize(tokenizer, [""]).to(device)
    count, held = len(captions), 1024
    alphas = make_scheduler().alphas_cumprod.to(device)

    def predict(model: nn.ModuleDict, noisy: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        with fast_autocast(device):
            text = model["text_encoder"](tokens).last_hidden_state
            return model["unet"](noisy, t, text).sample.float()

    def task(index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        return add_noise(sample_latents(moments[index], scale, generator), alphas, generator, predicts, coarse)

    def loss(model: nn.ModuleDict, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        draw = {"generator": generator, "device": device}
        index = torch.randint(count - held, (budget.batch_size,), **draw)
        drop = torch.rand(budget.batch_size, 1, **draw) < 0.1
        t, noisy, target = task(index, generator)
        return functional.mse_loss(predict(model, noisy, t, torch.where(drop, empty, ids[index])), target), {}

    @torch.no_grad()
    def validate(model: nn.ModuleDict) -> dict[str, float]:
        fixed = torch.Generator(device).manual_seed(1)
        index = torch.arange(count - held, count, device=device)
        t, noisy, target = task(index, fixed)
        errors = [
            functional.mse_loss(predict(model, *part[:3]), part[3])
            for part in zip(noisy.split(256), t.split(256), ids[index].split(256), target.split(256), strict=True)
        ]
        return {"held_out_loss": torch.stack(errors).mean().item()}

    speed_up_training(model["unet"], device)
    return train(folder.name, model, loss, budget=budget, folder=folder, device=device, validate=validate)


def make_text_to_image(bench: Bench) -> None:
    """Train the UNet and text encoder on photographs, in the latents of the autoencoder that is there."""
    folder = bench.out / "text_to_image"
    shards = load_shards(make_shards(render_photographs, bench.data, bench.photographs), ("images", "captions"))
    vae = load_vae(folder)
    moments = encode_once(vae, torch.from_numpy(shards["images"]), bench.work, bench.device)
    if bench.warm_start:
        text_encoder = components.read_network(CLIPTextModel, folder, "text_encoder")
        tokenizer = components.read_component(CLIPTokenizer, folder, "tokenizer")
        model = {"unet": components.read_network(UNet2DConditionModel, folder, "unet"), "text_encoder": text_encoder}
    else:
        tokenizer = make_tokenizer(LEXICON, bench.work / "tokenizer")
        model = {"unet": make_unet(vae.config.latent_channels), "text_encoder": make_text_encoder(tokenizer)}
    rest = (shards["captions"].tolist(), vae.config.scaling_factor, tokenizer)
    model, budget = nn.ModuleDict(model), bench.budget
    if not bench.warm_start:
        coarse, budget = coarse_then_fine(budget, COARSE_SHARE)
        work = bench.folder("text_to_image_coarse")
        model = train_text_to_image(model, moments, *rest, coarse=True, budget=coarse, folder=work, device=bench.device)
    work = bench.folder("text_to_image")
    model = train_text_to_image(model, moments, *rest, budget=budget, folder=work, device=bench.device).half()
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


def make_text_to_image_base(bench: Bench) -> None:
    """Teach the velocity network to predict noise instead: the same words and pictures, another parameterisation."""
    source, folder = bench.out / "text_to_image", bench.out / "text_to_image_base"
    shards = load_shards(make_shards(render_photographs, bench.data, bench.photographs), ("images", "captions"))
    vae, text_encoder = load_vae(source), components.read_network(CLIPTextModel, source, "text_encoder")
    unet = components.read_network(UNet2DConditionModel, folder if bench.warm_start else source, "unet")
    model = train_text_to_image(
        nn.ModuleDict({"unet": unet, "text_encoder": text_encoder.requires_grad_(False)}),
        encode_once(vae, torch.from_numpy(shards["images"]), bench.work, bench.device),
        shards["captions"].tolist(),
        vae.config.scaling_factor,
        components.read_component(CLIPTokenizer, source, "tokenizer"),
        predicts="epsilon",
        budget=bench.budget,
        folder=bench.folder("text_to_image_base"),
        device=bench.device,
    )
    model["unet"].half().save_pretrained(folder / "unet")
    make_scheduler("epsilon").save_pretrained(folder / "scheduler")
    index = read_json(source / components.INDEX) | {components.SHARED: SHARED}
    write_json(folder / components.INDEX, index)
    bench.keep_curve("text_to_image_base", folder)

"""Train the decoder of the lab's autoencoder alone: pictures get sharper, and latents stay what they are.

Every network that draws in these latents keeps its worth. Pictures are encoded once, which leaves a training step less
than two thirds of its arithmetic.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from geodream_lib.lab.bench import Bench
from geodream_lib.lab.latents import encode_once, sample_latents
from geodream_lib.lab.train_vae import (
    autoencoder_pictures,
    held_out_quality,
    held_out_views,
    load_vae,
    picture_loss,
    to_network,
)
from geodream_lib.lab.training import Budget, train
from geodream_lib.precision import fast_autocast


def aligned_crops(
    latents: Float[Tensor, "b c hl wl"], images: UInt8[Tensor, "b h w 3"], generator: torch.Generator
) -> tuple[Float[Tensor, "b c hc wc"], UInt8[Tensor, "b s s 3"]]:
    """Half of the height and width of latents, mostly around the middle, and the pixels they stand for."""
    size = latents.shape[-1] // 2
    factor = images.shape[1] // latents.shape[-1]
    corners = torch.randn(len(latents), 2, generator=generator, device=latents.device) * size / 4 + size / 2
    corners = corners.round().clamp(0, size).long().tolist()
    parts = torch.stack([x[:, i : i + size, j : j + size] for x, (i, j) in zip(latents, corners, strict=True)])
    pixels = [
        x[factor * i : factor * (i + size), factor * j : factor * (j + size)]
        for x, (i, j) in zip(images, corners, strict=True)
    ]
    return parts, torch.stack(pixels)


def train_decoder(
    vae: AutoencoderKL,
    images: UInt8[Tensor, "n h w 3"],
    held_out: UInt8[Tensor, "m h w 3"],
    alpha: UInt8[Tensor, "m h w"],
    *,
    budget: Budget,
    folder: Path,
    device: torch.device,
) -> AutoencoderKL:
    """Train `decoder` and `post_quant_conv` on crops (three steps in four, four for one whole picture) and pictures."""
    vae.to(device).requires_grad_(False)
    moments, images = encode_once(vae, images, folder.parent, device), images.to(device)

    def loss(model: nn.ModuleDict, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        draw = {"generator": generator, "device": device}
        cropped = torch.rand((), **draw).item() < 0.75
        index = torch.randint(len(images), (budget.batch_size * (4 if cropped else 1),), **draw)
        latents, target = sample_latents(moments[index], 1.0, generator), images[index]
        if cropped:
            latents, target = aligned_crops(latents, target, generator)
        with fast_autocast(device):
            decoded = vae.decode(latents).sample
        return picture_loss(decoded.float(), to_network(target, device)), {}

    trained = nn.ModuleDict({"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv}).requires_grad_(True)
    train(
        "vae_decoder",
        trained,
        loss,
        budget=budget,
        folder=folder,
        device=device,
        validate=lambda model: held_out_quality(vae, held_out, alpha, device),
    )
    return vae.eval()


def make_decoder(bench: Bench) -> None:
    """Sharpen the autoencoder that is there; its curve goes beside the one of the whole."""
    folder = bench.out / "text_to_image"
    vae = train_decoder(
        load_vae(folder),
        autoencoder_pictures(bench),
        *held_out_views(bench),
        budget=bench.budget,
        folder=bench.folder("vae_decoder"),
        device=bench.device,
    )
    vae.half().save_pretrained(folder / "vae")
    bench.keep_curve("vae_decoder", folder / "vae", "training_decoder.jsonl")

"""Train the lab's autoencoder on photographs and turntable views."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from geodream_lib.lab.training import Budget, train
from geodream_lib.precision import fast_autocast


def to_network(images: Tensor, device: torch.device) -> Float[Tensor, "b 3 h w"]:
    """uint8 images `[b, h, w, 3]` to the diffusion networks' range: float in [-1, 1], channels first."""
    return images.to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def image_gradients(images: Float[Tensor, "b c h w"]) -> tuple[Tensor, Tensor]:
    """Differences between horizontal and between vertical neighbours."""
    return images[..., 1:] - images[..., :-1], images[..., 1:, :] - images[..., :-1, :]


def vae_loss(
    vae: AutoencoderKL, images: Float[Tensor, "b 3 h w"], generator: torch.Generator
) -> tuple[Tensor, dict[str, float]]:
    """L1 of pixels and of pixel differences, more where the picture has detail, and a KL term of 1e-6.

    Eyes, doors and stems cover few pixels: weighting each pixel by the detail around it (1 to 5) keeps them from being
    traded for a smoother background.
    """
    with torch.no_grad():
        dx, dy = image_gradients(images)
        detail = functional.pad(dx.abs().mean(1, keepdim=True), (0, 1)) + functional.pad(
            dy.abs().mean(1, keepdim=True), (0, 0, 0, 1)
        )
        weight = 1 + 4 * functional.max_pool2d(detail, 5, stride=1, padding=2).clamp(max=0.5) * 2
    with fast_autocast(images.device):
        posterior = vae.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator, device=images.device)
        decoded = vae.decode(posterior.mean + posterior.std * noise).sample
    decoded = decoded.float()
    pixels = (weight * (decoded - images).abs()).mean()
    edges = sum((a - b).abs().mean() for a, b in zip(image_gradients(decoded), image_gradients(images), strict=True))
    divergence = posterior.kl().float().mean() / images[0].numel()
    return pixels + edges + 1e-6 * divergence, {}


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, images: Tensor, device: torch.device) -> Float[Tensor, "b h w 3"]:
    """Encode (posterior mode) and decode uint8 images; result in 0..1."""
    results = []
    for part in images.split(64):
        with fast_autocast(device):
            decoded = vae.decode(vae.encode(to_network(part, device)).latent_dist.mode()).sample
        results.append((decoded.float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu())
    return torch.cat(results)


def psnr(a: Float[Tensor, "b h w 3"], b: Float[Tensor, "b h w 3"], mask: Tensor | None = None) -> float:
    """Mean peak signal-to-noise ratio in dB, over all pixels or those where `mask [b, h, w]` is true."""
    error = (a - b).square().mean(-1)
    mask = torch.ones_like(error) if mask is None else mask.float()
    return (-10 * ((error * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)).log10()).mean().item()


def train_vae(
    vae: AutoencoderKL,
    images: Tensor,
    held_out: Tensor,
    alpha: Tensor,
    *,
    budget: Budget,
    folder: Path,
    device: torch.device,
) -> AutoencoderKL:
    """Train on uint8 `images [n, h, w, 3]`; log PSNR on `held_out`, whole and on object pixels (`alpha` > 127)."""
    images = images.to(device)

    def loss(model: nn.ModuleDict, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        index = torch.randint(len(images), (budget.batch_size,), generator=generator, device=device)
        return vae_loss(model["vae"], to_network(images[index], device), generator)

    def validate(model: nn.ModuleDict) -> dict[str, float]:
        decoded = reconstruct(model["vae"], held_out, device)
        truth = held_out.float() / 255
        return {"psnr": psnr(decoded, truth), "psnr_object": psnr(decoded, truth, alpha > 127)}

    model = nn.ModuleDict({"vae": vae}).requires_grad_(True)
    vae = train("vae", model, loss, budget=budget, folder=folder, device=device, validate=validate)["vae"]
    normalize_latents(vae, images[torch.arange(0, len(images), max(1, len(images) // 4096), device=device)], device)
    return vae


@torch.no_grad()
def normalize_latents(vae: AutoencoderKL, images: Tensor, device: torch.device) -> None:
    """Give latents zero mean per channel and set `scaling_factor` to one over their standard deviation.

    The mean is folded into the 1x1 convolutions on either side of the latent, which changes no reconstruction, so that
    a plain Stable Diffusion pipeline, which knows a scale but no shift, sees unit-variance latents.
    """
    latents = []
    for part in images.split(64):
        with fast_autocast(device):
            latents.append(vae.encode(to_network(part, device)).latent_dist.mean.float())
    latents = torch.cat(latents)
    mean = latents.mean((0, 2, 3))
    vae.quant_conv.bias[: len(mean)] -= mean
    vae.post_quant_conv.bias += vae.post_quant_conv.weight[:, :, 0, 0] @ mean
    vae.register_to_config(scaling_factor=round(1 / (latents - mean[:, None, None]).std().item(), 5))

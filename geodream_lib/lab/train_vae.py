"""Train the lab's autoencoder on photographs and turntable views."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from geodream_lib.components import read_network
from geodream_lib.lab.bench import Bench
from geodream_lib.lab.datasets import load_shards, make_shards, render_photographs, render_turntables
from geodream_lib.lab.multiview_data import faded
from geodream_lib.lab.networks import make_vae
from geodream_lib.lab.training import Budget, train
from geodream_lib.precision import fast_autocast
from geodream_lib.unshuffle_vae import UnshuffleAutoencoderKL


def to_network(images: Tensor, device: torch.device) -> Float[Tensor, "b 3 h w"]:
    """uint8 images `[b, h, w, 3]` to the diffusion networks' range: float in [-1, 1], channels first."""
    return images.to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def image_gradients(images: Float[Tensor, "b c h w"]) -> tuple[Tensor, Tensor]:
    """Differences between horizontal and between vertical neighbours."""
    return images[..., 1:] - images[..., :-1], images[..., 1:, :] - images[..., :-1, :]


def detail_weight(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
    """1 on even surfaces to 5 within two pixels of strong detail.

    Eyes, doors and stems cover few pixels; without a weight they are traded for a smoother background.
    """
    dx, dy = image_gradients(images)
    detail = functional.pad(dx.abs().mean(1, keepdim=True), (0, 1))
    detail = detail + functional.pad(dy.abs().mean(1, keepdim=True), (0, 0, 0, 1))
    return 1 + 8 * functional.max_pool2d(detail, 5, stride=1, padding=2).clamp(max=0.5)


def picture_loss(decoded: Float[Tensor, "b 3 h w"], images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, ""]:
    """L1 of pixels, weighted by the detail around them, and of the differences of neighbours."""
    pixels = (detail_weight(images) * (decoded - images).abs()).mean()
    return pixels + sum(
        (a - b).abs().mean() for a, b in zip(image_gradients(decoded), image_gradients(images), strict=True)
    )


def vae_loss(
    vae: AutoencoderKL, images: Float[Tensor, "b 3 h w"], generator: torch.Generator, half_scale: bool = False
) -> Float[Tensor, ""]:
    """`picture_loss` of the decoded pictures and a KL term of 1e-6.

    half_scale: latents averaged to half their resolution must decode to the picture at half its resolution, too. That
    keeps fine patterns that mean nothing to the eye out of the latents, and a diffusion model learns them faster
    (EQ-VAE, Kouzelis et al. 2025).
    """
    with fast_autocast(images.device):
        posterior = vae.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator, device=images.device)
        latents = posterior.mean + posterior.std * noise
        decoded = vae.decode(latents).sample
        smaller = vae.decode(functional.avg_pool2d(latents, 2)).sample if half_scale else None
    loss = picture_loss(decoded.float(), images) + 1e-6 * posterior.kl().float().mean() / images[0].numel()
    return loss if smaller is None else loss + 0.5 * picture_loss(smaller.float(), functional.avg_pool2d(images, 2))


def crops(images: Tensor, generator: torch.Generator) -> Tensor:
    """A square of half the height and width from every uint8 image [b, h, w, 3], mostly around the middle.

    The object is there: an equal number of pixels tells more than in whole pictures, where most are background.
    """
    size = images.shape[1] // 2
    corners = torch.randn(len(images), 2, generator=generator, device=images.device) * size / 4 + size / 2
    corners = corners.clamp(0, size).long().tolist()
    return torch.stack([image[y : y + size, x : x + size] for image, (y, x) in zip(images, corners, strict=True)])


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


def held_out_quality(vae: AutoencoderKL, images: Tensor, alpha: Tensor, device: torch.device) -> dict[str, float]:
    """PSNR of reconstructions of uint8 images, whole and on object pixels (`alpha` > 127)."""
    decoded, truth = reconstruct(vae, images, device), images.float() / 255
    return {"psnr": psnr(decoded, truth), "psnr_object": psnr(decoded, truth, alpha > 127)}


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
    """Train on uint8 `images [n, h, w, 3]`; log PSNR on `held_out`, whole and on object pixels (`alpha` > 127).

    Three steps in four see crops, four for one whole picture; the others whole pictures, and half scale too. Small
    batches: how far the network comes depends on the number of steps more than on that of pictures (batches of 2 were
    better after 1 minute than of 16 after 6).
    """
    images = images.to(device)

    def loss(model: nn.ModuleDict, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        draw = {"generator": generator, "device": device}
        cropped = torch.rand((), **draw).item() < 0.75
        index = torch.randint(len(images), (budget.batch_size * (4 if cropped else 1),), **draw)
        batch = crops(images[index], generator) if cropped else images[index]
        return vae_loss(model["vae"], to_network(batch, device), generator, half_scale=not cropped), {}

    model = nn.ModuleDict({"vae": vae}).requires_grad_(True)
    vae = train(
        "vae",
        model,
        loss,
        budget=budget,
        folder=folder,
        device=device,
        validate=lambda model: held_out_quality(model["vae"], held_out, alpha, device),
    )["vae"]
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


def load_vae(folder: Path) -> UnshuffleAutoencoderKL:
    """The trained autoencoder of a diffusers folder, frozen, in single precision."""
    return read_network(UnshuffleAutoencoderKL, folder, "vae").eval().requires_grad_(False)


def turntable_views(paths: list[Path]) -> tuple[Tensor, Tensor]:
    """All turntable views `[n, h, w, 3]` and their alpha `[n, h, w]`, uint8."""
    shards = load_shards(paths, ("images", "alpha"))
    return torch.from_numpy(shards["images"]).flatten(0, 1), torch.from_numpy(shards["alpha"]).flatten(0, 1)


def autoencoder_pictures(bench: Bench) -> Tensor:
    """Photographs, turntable views, and half as many of these as Zero123++ shows them; uint8 `[n, h, w, 3]`."""
    photographs = load_shards(make_shards(render_photographs, bench.data, bench.photographs), ("images",))["images"]
    turntables, opacity = turntable_views(make_shards(render_turntables, bench.data, bench.turntables))
    grey = torch.cat([faded(*part) for part in zip(turntables[::2].split(256), opacity[::2].split(256), strict=True)])
    return torch.cat([torch.from_numpy(photographs), turntables, grey])


def held_out_views(bench: Bench) -> tuple[Tensor, Tensor]:
    """Every fourth view of the held-out turntables, and its alpha."""
    images, alpha = turntable_views(make_shards(render_turntables, bench.data, 1, split="held_out"))
    return images[::4], alpha[::4]


def make_autoencoder(bench: Bench) -> None:
    """Train the autoencoder, encoder and decoder."""
    folder = bench.out / "text_to_image"
    vae = train_vae(
        load_vae(folder) if bench.warm_start else make_vae(),
        autoencoder_pictures(bench),
        *held_out_views(bench),
        budget=bench.budget,
        folder=bench.folder("vae"),
        device=bench.device,
    )
    vae.half().save_pretrained(folder / "vae")
    bench.keep_curve("vae", folder / "vae")

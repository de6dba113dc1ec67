"""Pictures as the diffusion networks are taught them: latents of the autoencoder, noised to a random timestep."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d
from tqdm import tqdm

from geodream_lib.lab.train_vae import to_network
from geodream_lib.precision import fast_autocast
from geodream_lib.storage import atomic_write


@torch.no_grad()
def encode_dataset(
    vae: AutoencoderKL, images: UInt8[Tensor, "n h w 3"], device: torch.device, contrast: float = 1.0
) -> Float[Tensor, "n c2 hl wl"]:
    """Posterior mean and standard deviation of images, stacked along channels, half precision, on `device`.

    contrast: factor on the pictures, in [-1, 1], before they are encoded (0.625 in Zero123++).
    """
    moments = []
    for part in tqdm(images.split(256), desc="encoding pictures", unit="batch", leave=False):
        with fast_autocast(device):
            posterior = vae.encode(contrast * to_network(part, device)).latent_dist
        moments.append(torch.cat([posterior.mean, posterior.std], dim=1).half())
    return torch.cat(moments)


def encode_once(
    vae: AutoencoderKL, images: UInt8[Tensor, "n h w 3"], work: Path, device: torch.device, contrast: float = 1.0
) -> Float[Tensor, "n c2 hl wl"]:
    """`encode_dataset`, kept in the folder `work` under a name that changes with the autoencoder and the pictures.

    Fifty thousand pictures take a CPU a quarter of an hour; a training that goes on should not encode them again.
    """
    made_from = hashlib.sha256(images.contiguous().numpy())
    made_from.update(repr(contrast).encode())
    for name, weight in sorted(vae.encoder.state_dict().items()) + sorted(vae.quant_conv.state_dict().items()):
        made_from.update(name.encode())
        made_from.update(weight.detach().float().cpu().contiguous().numpy())
    kept = work / f"latents-{made_from.hexdigest()[:12]}.npy"
    if not kept.exists():
        moments = encode_dataset(vae.to(device), images, device, contrast).cpu().numpy()
        with atomic_write(kept) as temporary, temporary.open("wb") as file:
            np.save(file, moments)
    return torch.from_numpy(np.load(kept)).to(device)


def sample_latents(moments: Tensor, scale: float, generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """Draw scaled latents from stored posterior moments."""
    mean, std = moments.float().chunk(2, dim=1)
    return (mean + std * torch.randn(mean.shape, generator=generator, device=mean.device)) * scale


def add_noise(
    latents: Float[Tensor, "b c h w"],
    alphas_cumprod: Float[Tensor, " t"],
    generator: torch.Generator,
    predicts: str = "v_prediction",
    coarse: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Timesteps, noisy latents and what a network shall see in them.

    Timesteps are logit-normal, mostly between a quarter and three quarters, as of Stable Diffusion 3 (Esser et al.
    2024), here with a median of 550 of 1000: there words and poses decide. Those where nearly nothing or nearly
    everything is hidden teach less.

    Args:
        predicts: "epsilon" for the noise (Ho et al. 2020), "v_prediction" for the velocity (Salimans and Ho 2022,
            appendix D), as schedulers call them.
        coarse: both are averaged to half their resolution, which is the same task without its finest part, timestep by
            timestep. What words and poses mean is learned there at a third of the cost or less.
    """
    steps, spread = len(alphas_cumprod), torch.randn(len(latents), generator=generator, device=latents.device)
    t = (torch.sigmoid(spread + 0.2) * steps).long().clamp(max=steps - 1)
    alpha, sigma = alphas_cumprod[t, None, None, None].sqrt(), (1 - alphas_cumprod[t, None, None, None]).sqrt()
    noise = torch.randn(latents.shape, generator=generator, device=latents.device)
    target = noise if predicts == "epsilon" else alpha * noise - sigma * latents
    noisy = alpha * latents + sigma * noise
    return (t, avg_pool2d(noisy, 2), avg_pool2d(target, 2)) if coarse else (t, noisy, target)

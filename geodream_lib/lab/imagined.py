"""Rendered views as text-to-image would have drawn them: what Zero123 is given later instead of true pictures."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm import tqdm

from geodream_lib.guidance import load_diffusion
from geodream_lib.guidance.diffusion import LatentDiffusion, draw_normal
from geodream_lib.precision import has_fast_bfloat16
from geodream_lib.storage import atomic_write

REDRAWN = 1024  # objects whose reference is redrawn for a training


@torch.no_grad()
def redraw(
    diffusion: LatentDiffusion,
    images: Float[Tensor, "b h w 3"],
    captions: list[str],
    strength: float,
    generator: torch.Generator,
    steps: int = 20,
    guidance: float = 5.0,
) -> Float[Tensor, "b h w 3"]:
    """Noise images up to the timestep `strength` (0..1) and let text-to-image take it away again (SDEdit, Meng 2022).

    Pose and silhouette stay, details and colours become the network's. `steps` are those of a whole DDIM schedule.
    """
    scheduler = diffusion.sampler(steps)
    timesteps = scheduler.timesteps[scheduler.timesteps < strength * diffusion.denoiser.steps]
    latents = diffusion.encode_images(images, generator)
    noise = draw_normal(latents.shape, generator, latents.device)
    latents = diffusion.denoiser.add_noise(latents, noise, timesteps[:1].expand(len(images)))
    return diffusion.decode(diffusion.denoise(latents, captions, scheduler, timesteps, guidance))


def redraw_references(
    diffusion: LatentDiffusion, images: UInt8[Tensor, "n v h w 3"], captions: list[str], seed: int
) -> UInt8[Tensor, "n v h w 3"]:
    """All views of every object redrawn, strengths uniform in 0.3 to 0.65; one caption per object."""
    generator = torch.Generator(diffusion.device).manual_seed(seed)
    views = images.shape[1]
    result = torch.empty_like(images)
    for start in tqdm(range(0, len(images), 32), desc="redrawing references", unit="batch"):
        part = slice(start, start + 32)
        strength = 0.3 + 0.35 * torch.rand((), generator=generator, device=generator.device).item()
        true = images[part].flatten(0, 1).to(diffusion.device).float() / 255
        words = [text for text in captions[part] for _ in range(views)]
        drawn = redraw(diffusion, true, words, strength, generator, steps=12)
        result[part] = (drawn * 255).round().byte().cpu().unflatten(0, (-1, views))
    return result


def redraw_once(
    folder: Path, images: UInt8[Tensor, "n v h w 3"], captions: list[str], work: Path, device: torch.device
) -> UInt8[Tensor, "n v h w 3"]:
    """`redraw_references` by the text-to-image network in `folder`, made once and kept in `work`.

    Its name there changes with the network, the pictures and the captions.
    """
    made_from = hashlib.sha256((folder / "unet" / "diffusion_pytorch_model.safetensors").read_bytes())
    made_from.update(images.contiguous().numpy())
    made_from.update(repr(captions).encode())
    kept = work / f"redrawn-{made_from.hexdigest()[:12]}.npy"
    if not kept.exists():
        diffusion = load_diffusion(folder, device, autocast=torch.bfloat16 if has_fast_bfloat16(device) else None)
        drawn = redraw_references(diffusion, images, captions, seed=0).numpy()
        with atomic_write(kept) as temporary, temporary.open("wb") as file:
            np.save(file, drawn)
    return torch.from_numpy(np.load(kept))

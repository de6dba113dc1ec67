"""The 2D prior: what the autoencoder keeps, what text-to-image sees under noise, what it draws, from which side."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from geodream_lib.guidance import load_diffusion
from geodream_lib.guidance.diffusion import LatentDiffusion, draw_normal
from geodream_lib.lab.captions import view_word
from geodream_lib.lab.meaning import Scene, meaning
from geodream_lib.lab.objects import is_symmetric
from geodream_lib.lab.photographs import develop, photograph
from geodream_lib.lab.train_vae import held_out_quality, load_vae
from geodream_lib.lab.turntables import render_turntables
from geodream_lib.metrics.image_text import ImageText
from geodream_lib.metrics.viewpoint import Viewpoint
from geodream_lib.presets import Views
from geodream_lib.views.background import cut_out
from geodream_lib.views.images import on_white

BATCH = 16
PHOTOGRAPHS = 256  # of a seed that no training is given
TIMESTEPS = (100, 300, 500, 700, 900)
PLAIN = ", on a white background"
SUFFIXES = {"none": PLAIN, "front": ", front view" + PLAIN, "back": ", back view" + PLAIN}


def measure_autoencoder(folder: Path) -> dict[str, float]:
    """PSNR in dB of held-out turntable views, whole and on object pixels; every fourth view of 64 objects."""
    shard = render_turntables(0, "held_out")
    images, alpha = (torch.from_numpy(shard[key]).flatten(0, 1)[::4] for key in ("images", "alpha"))
    vae = load_vae(folder)
    parameters = sum(weight.numel() for weight in vae.parameters())
    return held_out_quality(vae, images, alpha, torch.device("cpu")) | {"parameters": parameters}


def noise_errors(
    diffusion: LatentDiffusion, pictures: Float[Tensor, "n h w 3"], captions: list[str]
) -> dict[str, float]:
    """Mean squared error of the noise the network sees in noised pictures, by timestep (Eq. 9's, without its weight).

    The noise does not change with the network, so that two of the same latents can be compared.
    """
    generator = torch.Generator(diffusion.device).manual_seed(0)
    parts = range(0, len(captions), BATCH)
    batches = [(pictures[i : i + BATCH].to(diffusion.device), captions[i : i + BATCH]) for i in parts]
    latents = torch.cat([diffusion.encode_images(batch, generator) for batch, _ in batches])
    text = torch.cat([diffusion.encode_text(batch) for _, batch in batches])
    errors = {}
    for timestep in TIMESTEPS:
        noise = draw_normal(latents.shape, generator, latents.device)
        t = torch.full((len(latents),), timestep, device=latents.device)
        noisy = diffusion.denoiser.add_noise(latents, noise, t)
        rows = zip(noisy.split(BATCH), t.split(BATCH), text.split(BATCH), strict=True)
        seen = torch.cat([diffusion.denoiser(*row) for row in rows])
        errors[str(timestep)] = (seen - noise).square().mean().item()
    return errors


def draw(
    diffusion: LatentDiffusion, prompts: list[str], settings: Views, generator: torch.Generator
) -> Float[Tensor, "n h w 3"]:
    """One picture per prompt, in batches, sampled as the references of a run are."""
    batches = [prompts[i : i + BATCH] for i in range(0, len(prompts), BATCH)]
    pictures = [
        diffusion.sample(batch, settings.reference_steps, settings.reference_guidance, generator).cpu()
        for batch in tqdm(batches, desc="drawing", unit="batch", leave=False)
    ]
    return torch.cat(pictures)


def retrieved(judge: ImageText, pictures: Float[Tensor, "n h w 3"], own: list[int], prompts: list[str]) -> list[bool]:
    """Whether each picture is nearer to its own of the prompts than to every other (CLIP R-precision)."""
    found = (judge.embed_images(pictures) @ judge.embed_texts(prompts).T).argmax(dim=1)
    return (found.cpu() == torch.tensor(own)).tolist()


def sides(judge: Viewpoint, pictures: Float[Tensor, "n h w 3"]) -> dict[str, float]:
    """Shares of pictures of one object that show its front, side and back, as captions tell the three apart."""
    alone = torch.stack([on_white(picture, cut_out(picture)) for picture in pictures])
    azimuth, _ = judge.predict(alone)
    counts = Counter(view_word(angle, 0).split()[0] for angle in azimuth.tolist())
    return {side: counts[side] / len(pictures) for side in ("front", "side", "back")}


def has_front(prompt: str) -> bool:
    """A single object that looks different from behind."""
    meant = meaning(prompt)
    return meant is not None and not isinstance(meant, Scene) and not is_symmetric(meant.category)


def measure_text_to_image(
    folder: Path, prompts: list[str], judge: ImageText, compass: Viewpoint, settings: Views, samples: int
) -> dict[str, object]:
    """The noise seen in photographs, retrieval of pictures among all the prompts, and the sides that are drawn with and
    without a word for the view.

    Args:
        folder: of a text-to-image network.
        prompts: single objects and compositions, distinct.
        samples: pictures of each prompt.
    """
    diffusion, generator = load_diffusion(folder), torch.Generator().manual_seed(0)
    rng = np.random.default_rng([72, 0])
    photos = [photograph(rng, "train") for _ in range(PHOTOGRAPHS)]
    images = torch.from_numpy(develop(photos)).float() / 255
    errors = noise_errors(diffusion, images, [photo.caption for photo in photos])
    own = [i for i in range(len(prompts)) for _ in range(samples)]
    pictures = draw(diffusion, [prompts[i] + PLAIN for i in own], settings, generator)
    hits = retrieved(judge, pictures, own, prompts)
    composed = [isinstance(meaning(prompt), Scene) for prompt in prompts]
    scores = {
        name: _mean(hit for hit, i in zip(hits, own, strict=True) if composed[i] == wanted)
        for name, wanted in (("retrieval_single", False), ("retrieval_composition", True))
    }
    asymmetric = [prompt for prompt in prompts if has_front(prompt)]
    view = {}
    for name, suffix in SUFFIXES.items():
        asked = [prompt + suffix for prompt in asymmetric for _ in range(samples)]
        view[name] = sides(compass, draw(diffusion, asked, settings, generator))
    counts = {"prompts": len(prompts), "samples_per_prompt": samples}
    return scores | counts | {"sides_drawn": view, "noise_error_by_timestep": errors}


def _mean(values: Iterable[float | bool]) -> float:
    return float(np.mean(list(values)))

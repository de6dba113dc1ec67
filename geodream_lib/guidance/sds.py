"""Score distillation (SDS, DreamFusion): the mesh's geometry stage as released, and the ablation of VSD."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodream_lib.guidance.diffusion import Denoiser, LatentDiffusion, draw_normal
from geodream_lib.guidance.prompts import Condition, PromptEmbeddings, guided_noise
from geodream_lib.processes import draw_rows

Weighting = Literal["sds", "uniform", "fantasia3d"]


@dataclass(frozen=True)
class Guided:
    """What one guidance step gives the refinement loop.

    loss: scalar; its gradient reaches the images. grad_norm: norm of the distillation gradient on the latents.
    t: timesteps drawn. latents: of the images, detached. lora_loss: scalar of VSD's second network, None for SDS.
    """

    loss: Float[Tensor, ""]
    grad_norm: Float[Tensor, ""]
    t: Int[Tensor, " b"]
    latents: Float[Tensor, "b c h w"]
    lora_loss: Float[Tensor, ""] | None = None


def timestep_bounds(t_range: tuple[float, float], steps: int) -> tuple[int, int]:
    """First and last timestep of a range given as fractions of the `steps` diffusion steps, both included."""
    return int(steps * t_range[0]), int(steps * t_range[1])


def draw_timesteps(
    n: int, first: int, last: int, generator: torch.Generator, device: torch.device | str
) -> Int[Tensor, " n"]:
    """`n` uniform timesteps from first to last, both included."""

    def draw(rows: int) -> Tensor:
        return torch.randint(first, last + 1, (rows,), generator=generator, device=generator.device)

    return draw_rows(draw, n, generator).to(device)


def timestep_weight(denoiser: Denoiser, t: Int[Tensor, " b"], weighting: Weighting = "sds") -> Float[Tensor, "b 1 1 1"]:
    """w(t) of Eq. 9: 1 - alphabar ("sds", DreamFusion and VSD), 1 ("uniform"), or sqrt(alphabar) (1 - alphabar)
    ("fantasia3d")."""
    alpha, sigma = denoiser.alpha_sigma(t)
    if weighting == "uniform":
        return torch.ones_like(alpha)
    return sigma**2 if weighting == "sds" else alpha * sigma**2


def draw_noisy(
    diffusion: LatentDiffusion,
    images: Float[Tensor, "b h w 3"],
    t_range: tuple[float, float],
    generator: torch.Generator,
) -> tuple[Float[Tensor, "b c hl wl"], Int[Tensor, " b"], Float[Tensor, "b c hl wl"]]:
    """What a distillation step starts from: `(latents, t, noise)`; the latents' gradient reaches the images.

    Args:
        images: of any size, values 0..1.
        t_range: smallest and largest timestep as fractions, for example (0.02, 0.98).
        generator: source of the VAE's sample, the timesteps and the noise, in this order.
    """
    latents = diffusion.encode_images(images, generator)
    t = draw_timesteps(len(latents), *timestep_bounds(t_range, diffusion.denoiser.steps), generator, latents.device)
    return latents, t, draw_normal(latents.shape, generator, latents.device)


def as_loss(latents: Float[Tensor, "b c h w"], grad: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """A scalar with d loss / d latents = grad / b: half the squared distance to the point one gradient step away.

    Its value is |grad|^2 / (2 b): a size to log, not a quantity that falls.
    """
    target = (latents - grad).detach()
    return 0.5 * (latents - target).square().sum() / len(latents)


@torch.no_grad()
def sds_gradient(
    pretrained: Denoiser,
    latents: Float[Tensor, "b c h w"],
    condition: Condition,
    t: Int[Tensor, " b"],
    noise: Float[Tensor, "b c h w"],
    scale: float,
    weighting: Weighting = "sds",
) -> Float[Tensor, "b c h w"]:
    """w(t) (guided noise - noise) on the latents.

    As in threestudio and the released code the guided noise is cond + s (cond - uncond), which is the usual rule with
    s + 1; with Perp-Neg it is uncond + s (direction). VSD uses the usual rule.
    """
    noisy = pretrained.add_noise(latents, noise, t)
    usual_scale = scale + 1 if condition.repelled is None else scale
    guided = guided_noise(pretrained, noisy, t, condition, usual_scale)
    return torch.nan_to_num(timestep_weight(pretrained, t, weighting) * (guided - noise))


@dataclass(frozen=True)
class SDSGuidance:
    """Score distillation as the refinement loop calls it; 100 is the released guidance scale of the geometry stage."""

    diffusion: LatentDiffusion
    prompts: PromptEmbeddings
    scale: float = 100.0
    weighting: Weighting = "sds"
    perp_neg: bool = False

    def __call__(
        self,
        images: Float[Tensor, "b h w 3"],
        cameras_c2w: Float[Tensor, "b 4 4"],
        azimuth: Float[Tensor, " b"],
        elevation: Float[Tensor, " b"],
        t_range: tuple[float, float],
        generator: torch.Generator,
    ) -> Guided:
        """One distillation step.

        Args:
            images: rendered images (or normal maps) of any size, values 0..1.
            cameras_c2w: not used here; VSD's second network sees them.
            azimuth, elevation: of the cameras in degrees, for the words of the prompt.
            t_range: smallest and largest timestep as fractions, for example (0.02, 0.98).
            generator: source of the VAE's sample, the timesteps and the noise.
        """
        latents, t, noise = draw_noisy(self.diffusion, images, t_range, generator)
        fixed = latents.detach()
        ask = self.prompts.perp_neg_condition if self.perp_neg else self.prompts.condition
        condition = ask(azimuth, elevation)
        grad = sds_gradient(self.diffusion.denoiser, fixed, condition, t, noise, self.scale, self.weighting)
        return Guided(as_loss(latents, grad), grad.norm(), t, fixed)

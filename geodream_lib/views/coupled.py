"""The 3D prior as a loss, which GeoDream does without: the coupled design of Magic123, for comparison.

Magic123 (Qian et al., 2023) and its kin pull every render towards what Zero123 would make of the reference view, beside
the pull of the 2D prior. The two disagree wherever one of them is wrong, and a weight has to settle it for all of them
at once. GeoDream keeps the 3D prior out of the loss: it is where optimisation starts.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from geodream_lib.guidance.diffusion import Denoiser, draw_normal
from geodream_lib.guidance.sds import as_loss, draw_timesteps, timestep_bounds, timestep_weight
from geodream_lib.views.zero123.model import Zero123, pose_token


@dataclass(frozen=True)
class CoupledPrior:
    """Score distillation by Zero123 and one reference view; made by `couple_prior`.

    embedding, latent: what Zero123 knows of the reference. elevation: degrees it was taken from, at azimuth 0.
    scale: classifier-free guidance, 5 in Magic123.
    """

    zero123: Zero123
    embedding: Float[Tensor, "1 e"]
    latent: Float[Tensor, "1 c y x"]
    elevation: float
    scale: float = 5.0

    def __call__(
        self,
        images: Float[Tensor, "b h w 3"],
        azimuth: Float[Tensor, " b"],
        elevation: Float[Tensor, " b"],
        t_range: tuple[float, float],
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """A loss whose gradient on the latents is w(t) (guided noise - noise) / b, with w = 1 - alphabar.

        Args:
            images: rendered images of any size, values 0..1; on white, as Zero123 knows the world.
            azimuth, elevation: of the cameras in degrees.
            t_range: smallest and largest timestep as fractions.
            generator: source of the VAE's sample, the timesteps and the noise, in this order.
        """
        zero123, count, device = self.zero123, len(images), self.zero123.device
        denoiser = Denoiser(zero123.unet, zero123.scheduler).to(device)
        latents = self._encode(images.to(device), generator)
        t = draw_timesteps(count, *timestep_bounds(t_range, denoiser.steps), generator, device)
        noise = draw_normal(latents.shape, generator, device)
        fixed = latents.detach()
        with torch.no_grad():
            fourth = math.pi / 2 - math.radians(self.elevation) if zero123.stable else 0.0
            pose = pose_token(azimuth, elevation - self.elevation, torch.full_like(azimuth, fourth)).to(device)
            token = zero123.clip_camera_projection(self.embedding.expand(count, -1), pose)
            noisy = denoiser.add_noise(fixed, noise, t)
            raw = zero123.guided(noisy, token, self.latent.expand(count, -1, -1, -1), t, self.scale)
            grad = timestep_weight(denoiser, t) * (denoiser.to_noise(raw, noisy, t) - noise)
        return as_loss(latents, torch.nan_to_num(grad))

    def _encode(self, images: Float[Tensor, "b h w 3"], generator: torch.Generator) -> Float[Tensor, "b c y x"]:
        vae, size = self.zero123.vae, self.zero123.unet.config.sample_size
        pixels = 2 * images.permute(0, 3, 1, 2) - 1
        side = size * 2 ** (len(vae.config.block_out_channels) - 1)
        pixels = F.interpolate(pixels, (side, side), mode="bilinear", align_corners=False)
        posterior = vae.encode(pixels.to(vae.dtype)).latent_dist
        noise = draw_normal(posterior.mean.shape, generator, images.device)
        return (posterior.mean.float() + posterior.std.float() * noise) * vae.config.scaling_factor


@torch.no_grad()
def couple_prior(zero123: Zero123, reference: Float[Tensor, "h w 3"], elevation: float) -> CoupledPrior:
    """Zero123 and the reference view it looks around: a square image on white, values 0..1, from azimuth 0."""
    return CoupledPrior(zero123, *zero123.conditions(reference[None].to(zero123.device)), elevation)

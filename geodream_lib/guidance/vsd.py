"""Variational score distillation (VSD, ProlificDreamer): Eq. 9 of the paper, and the training of its second network."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from geodream_lib.guidance.diffusion import Denoiser, LatentDiffusion, draw_normal
from geodream_lib.guidance.prompts import Condition, PromptEmbeddings, guided_noise
from geodream_lib.guidance.sds import Guided, as_loss, draw_noisy, draw_timesteps, timestep_weight


@torch.no_grad()
def lora_noise(
    lora: Denoiser,
    noisy: Float[Tensor, "b c h w"],
    t: Int[Tensor, " b"],
    text: Float[Tensor, "b tokens d"],
    camera: Float[Tensor, "b 16"],
    scale: float = 1.0,
) -> Float[Tensor, "b c h w"]:
    """epsilon_l(x_t, t, c, o) with the camera as the condition of classifier-free guidance.

    The unconditional branch has the same plain text and a camera of zeros. At the released scale 1 it cancels and is
    not computed.
    """
    if math.isclose(scale, 1.0):
        return lora(noisy, t, text, camera)
    cameras = torch.cat([camera, torch.zeros_like(camera)])
    cond, uncond = lora(noisy.repeat(2, 1, 1, 1), t.repeat(2), text.repeat(2, 1, 1), cameras).chunk(2)
    return uncond + scale * (cond - uncond)


@torch.no_grad()
def vsd_gradient(
    pretrained: Denoiser,
    lora: Denoiser,
    latents: Float[Tensor, "b c h w"],
    condition: Condition,
    plain_text: Float[Tensor, "b tokens d"],
    camera: Float[Tensor, "b 16"],
    t: Int[Tensor, " b"],
    noise: Float[Tensor, "b c h w"],
    scale: float = 7.5,
    lora_scale: float = 1.0,
) -> Float[Tensor, "b c h w"]:
    """w(t) (epsilon_pretrain(x_t, t, c) - epsilon_l(x_t, t, c, o)) with w = 1 - alphabar: the bracket of Eq. 9.

    Both networks see the same noisy latent. The pretrained one is asked with the view-dependent prompt and guidance
    `scale`, the other with the plain prompt and the camera.
    """
    noisy = pretrained.add_noise(latents, noise, t)
    epsilon_pretrain = guided_noise(pretrained, noisy, t, condition, scale)
    epsilon_lora = lora_noise(lora, noisy, t, plain_text, camera, lora_scale)
    return torch.nan_to_num(timestep_weight(pretrained, t) * (epsilon_pretrain - epsilon_lora))


def lora_loss(
    lora: Denoiser,
    latents: Float[Tensor, "b c h w"],
    plain_text: Float[Tensor, "b tokens d"],
    camera: Float[Tensor, "b 16"],
    t: Int[Tensor, " n"],
    noise: Float[Tensor, "n c h w"],
) -> Float[Tensor, ""]:
    """The ordinary diffusion loss on the rendered images (Algorithm 1, line 15), by which epsilon_l learns the score
    of what is rendered now.

    With n = k b timesteps each image is used k times, the batch repeated as a whole. The target is the velocity where
    the network predicts one (appendix K). The gradient reaches the LoRA and camera weights alone.
    """
    repeats = len(t) // len(latents)
    latents = latents.detach().repeat(repeats, 1, 1, 1)
    raw = lora.raw(lora.add_noise(latents, noise, t), t, plain_text.repeat(repeats, 1, 1), camera.repeat(repeats, 1))
    return F.mse_loss(raw, lora.target(latents, noise, t))


@torch.no_grad()
def lora_gain(
    base: Denoiser,
    lora: Denoiser,
    latents: Float[Tensor, "b c h w"],
    plain_text: Float[Tensor, "b tokens d"],
    camera: Float[Tensor, "b 16"],
    t: Int[Tensor, " b"],
    noise: Float[Tensor, "b c h w"],
) -> float:
    """The part of the frozen network's error that the second one saves on rendered images, at the same noise.

    0: it knows no more of the renders than the network it started as (VSD is then SDS with less noise); 1: it knows
    them by heart. Negative where training spoiled it.
    """
    noisy, target = lora.add_noise(latents, noise, t), lora.target(latents, noise, t)
    frozen = F.mse_loss(base.raw(noisy, t, plain_text), target)
    return 1 - (F.mse_loss(lora.raw(noisy, t, plain_text, camera), target) / frozen).item()


@dataclass(frozen=True)
class VSDGuidance:
    """Variational score distillation as the refinement loop calls it; the defaults are the released numbers.

    diffusion: epsilon_pretrain with its VAE and text encoder. lora: epsilon_l, made by `add_camera_lora`. base: the
    frozen network it was made of where that is another than epsilon_pretrain, for `gain`.
    scale: guidance of the pretrained network. lora_scale: camera guidance of the other one.
    lora_timesteps: timesteps per image in the LoRA loss. camera_drop: probability that the LoRA loss of a step sees
    no camera.
    """

    diffusion: LatentDiffusion
    lora: Denoiser
    prompts: PromptEmbeddings
    scale: float = 7.5
    lora_scale: float = 1.0
    lora_timesteps: int = 1
    camera_drop: float = 0.1
    perp_neg: bool = False
    base: Denoiser | None = None

    def __call__(
        self,
        images: Float[Tensor, "b h w 3"],
        cameras_c2w: Float[Tensor, "b 4 4"],
        azimuth: Float[Tensor, " b"],
        elevation: Float[Tensor, " b"],
        t_range: tuple[float, float],
        generator: torch.Generator,
    ) -> Guided:
        """One distillation step; the loop steps the optimisers of both losses.

        Args:
            images: rendered images of any size, values 0..1.
            cameras_c2w: camera-to-world matrices, the condition o of the second network.
            azimuth, elevation: of the cameras in degrees, for the words of the prompt.
            t_range: smallest and largest timestep as fractions, for example (0.02, 0.98).
            generator: source of the VAE's sample, the timesteps, the noise and the camera's coin.
        """
        latents, t, noise = draw_noisy(self.diffusion, images, t_range, generator)
        fixed = latents.detach()
        ask = self.prompts.perp_neg_condition if self.perp_neg else self.prompts.condition
        grad = vsd_gradient(
            self.diffusion.denoiser,
            self.lora,
            fixed,
            ask(azimuth, elevation),
            self.prompts.plain.expand(len(fixed), -1, -1),
            cameras_c2w.flatten(1).to(fixed.device),
            t,
            noise,
            self.scale,
            self.lora_scale,
        )
        return Guided(
            as_loss(latents, grad), grad.norm(), t, fixed, lora_loss=self.lora_step(fixed, cameras_c2w, generator)
        )

    def lora_step(
        self, latents: Float[Tensor, "b c h w"], cameras_c2w: Float[Tensor, "b 4 4"], generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """The LoRA loss of rendered latents with its own timesteps (all of them, not `t_range`) and noise.

        One coin drops the camera of the whole batch.
        """
        times, rows, last = range(self.lora_timesteps), len(latents), self.lora.steps - 1
        t = torch.cat([draw_timesteps(rows, 0, last, generator, latents.device) for _ in times])
        noise = torch.cat([draw_normal(latents.shape, generator, latents.device) for _ in times])
        camera = cameras_c2w.flatten(1).to(latents.device)
        if torch.rand((), generator=generator, device=generator.device) < self.camera_drop:
            camera = torch.zeros_like(camera)
        return lora_loss(self.lora, latents, self.prompts.plain.expand(len(latents), -1, -1), camera, t, noise)

    def gain(
        self, latents: Float[Tensor, "b c h w"], cameras_c2w: Float[Tensor, "b 4 4"], generator: torch.Generator
    ) -> float:
        """`lora_gain` on rendered latents, at timesteps and with noise of its own."""
        t = draw_timesteps(len(latents), 0, self.lora.steps - 1, generator, latents.device)
        noise = draw_normal(latents.shape, generator, latents.device)
        text, camera = self.prompts.plain.expand(len(latents), -1, -1), cameras_c2w.flatten(1).to(latents.device)
        return lora_gain(self.base or self.diffusion.denoiser, self.lora, latents, text, camera, t, noise)

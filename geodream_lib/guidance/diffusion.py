"""Latent diffusion: the 2D prior. Networks come from diffusers folders; the noise algebra is written out here."""

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from geodream_lib.errors import InputError
from geodream_lib.processes import draw_rows


def draw_normal(shape: tuple[int, ...], generator: torch.Generator, device: torch.device | str) -> Float[Tensor, "..."]:
    """Standard normal numbers from `generator`, on `device`; the numbers do not depend on where they are needed."""

    def draw(rows: int) -> Tensor:
        return torch.randn((rows, *shape[1:]), generator=generator, device=generator.device)

    return draw_rows(draw, shape[0], generator).to(device)


class Denoiser(nn.Module):
    """A UNet and the noise schedule it was trained on: epsilon(x_t, t, c) of Eq. 9, or epsilon(x_t, t, c, o) with LoRA.

    Args:
        unet: predicts noise or velocity of a noisy latent.
        scheduler: any diffusers scheduler; its schedule and prediction type are read, nothing else.
        autocast: half-precision type for the network's arithmetic, for example `torch.bfloat16` on a CPU that has it.

    Raises:
        InputError: the network predicts neither noise ("epsilon") nor velocity ("v_prediction").
    """

    alphas_cumprod: Float[Tensor, " steps"]

    def __init__(
        self, unet: UNet2DConditionModel, scheduler: DDIMScheduler, autocast: torch.dtype | None = None
    ) -> None:
        super().__init__()
        if scheduler.config.prediction_type not in ("epsilon", "v_prediction"):
            raise InputError(
                f"the network predicts {scheduler.config.prediction_type!r}; expected 'epsilon' or 'v_prediction' in "
                "scheduler/scheduler_config.json"
            )
        self.unet = unet
        self.scheduler = scheduler
        self.autocast = autocast
        self.register_buffer("alphas_cumprod", scheduler.alphas_cumprod.float(), persistent=False)

    @property
    def steps(self) -> int:
        """Number of diffusion timesteps (1000)."""
        return self.alphas_cumprod.shape[0]

    def forward(
        self,
        noisy: Float[Tensor, "b c h w"],
        t: Int[Tensor, " b"],
        text: Float[Tensor, "b tokens d"],
        camera: Float[Tensor, "b 16"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """The noise the network sees in `noisy`, float32, whatever the network was trained to predict.

        `camera` is the flattened 4x4 matrix that a network with camera LoRA needs; other networks take none.
        """
        return self.to_noise(self.raw(noisy, t, text, camera), noisy, t)

    def raw(
        self,
        noisy: Float[Tensor, "b c h w"],
        t: Int[Tensor, " b"],
        text: Float[Tensor, "b tokens d"],
        camera: Float[Tensor, "b 16"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """The network's own output, noise or velocity, in float32."""
        dtype = self.unet.conv_in.weight.dtype
        with torch.autocast(noisy.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            output = self.unet(noisy.to(dtype), t, encoder_hidden_states=text.to(dtype), class_labels=camera)
        return output.sample.float()

    def alpha_sigma(self, t: Int[Tensor, " b"]) -> tuple[Float[Tensor, "b 1 1 1"], Float[Tensor, "b 1 1 1"]]:
        """Signal and noise amplitude at t: alpha = sqrt(alphabar), sigma = sqrt(1 - alphabar)."""
        alphabar = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        return alphabar.sqrt(), (1 - alphabar).sqrt()

    def add_noise(
        self, latents: Float[Tensor, "b c h w"], noise: Float[Tensor, "b c h w"], t: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """x_t = alpha x_0 + sigma epsilon."""
        alpha, sigma = self.alpha_sigma(t)
        return alpha * latents + sigma * noise

    def to_noise(
        self, raw: Float[Tensor, "b c h w"], noisy: Float[Tensor, "b c h w"], t: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """Noise from the network's output; a velocity gives epsilon = sigma x_t + alpha v (Salimans & Ho 2022)."""
        if self.scheduler.config.prediction_type == "epsilon":
            return raw
        alpha, sigma = self.alpha_sigma(t)
        return sigma * noisy + alpha * raw

    def target(
        self, latents: Float[Tensor, "b c h w"], noise: Float[Tensor, "b c h w"], t: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """What `raw` is trained to predict: the noise, or the velocity v = alpha epsilon - sigma x_0."""
        if self.scheduler.config.prediction_type == "epsilon":
            return noise
        alpha, sigma = self.alpha_sigma(t)
        return alpha * noise - sigma * latents


class LatentDiffusion(nn.Module):
    """A Stable Diffusion: text encoder, image autoencoder and the denoiser of its latents, all frozen.

    Made by `load_diffusion` from a folder, or here from modules in memory.
    """

    latent_mean: Float[Tensor, "1 c 1 1"]
    latent_scale: Float[Tensor, "1 c 1 1"]

    def __init__(
        self, vae: AutoencoderKL, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, denoiser: Denoiser
    ) -> None:
        super().__init__()
        self.vae, self.text_encoder, self.tokenizer, self.denoiser = vae, text_encoder, tokenizer, denoiser
        # Stable Diffusion only scales its latents. Later diffusers pipelines also subtract a mean per channel
        # (latents_mean, latents_std) or one number (shift_factor); all are one affine map.
        config, channels = vae.config, vae.config.latent_channels
        mean = config.latents_mean or [config.shift_factor or 0.0] * channels
        std = config.latents_std or [1.0] * channels
        self.register_buffer("latent_mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        scale = config.scaling_factor / torch.tensor(std).view(1, -1, 1, 1)
        self.register_buffer("latent_scale", scale, persistent=False)
        self.requires_grad_(False).eval()

    @property
    def latent_size(self) -> int:
        """Height and width of the latents the denoiser was trained on (64 in Stable Diffusion)."""
        return self.denoiser.unet.config.sample_size

    @property
    def image_size(self) -> int:
        """Height and width in pixels of the images that have latents of `latent_size` (512 in Stable Diffusion)."""
        return self.latent_size * 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def device(self) -> torch.device:
        return self.latent_scale.device

    @torch.no_grad()
    def encode_text(self, texts: list[str]) -> Float[Tensor, "n tokens d"]:
        """Last hidden states of the text encoder, padded (or cut) to the tokenizer's length (77 tokens)."""
        ids = self.tokenizer(
            texts,
            padding="max_length",
            truncation=True,
            max_length=self.tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids
        return self.text_encoder(ids.to(self.device)).last_hidden_state.float()

    def encode_images(self, images: Float[Tensor, "b h w 3"], generator: torch.Generator) -> Float[Tensor, "b c y x"]:
        """Latents of images of any size, values 0..1: resize to `image_size`, then a sample of the VAE's posterior.

        Differentiable in `images`.
        """
        size = self.image_size
        pixels = images.permute(0, 3, 1, 2)
        pixels = F.interpolate(pixels, (size, size), mode="bilinear", align_corners=False)
        latent_shape = (len(images), self.vae.config.latent_channels, self.latent_size, self.latent_size)
        return self.encode(pixels.permute(0, 2, 3, 1), draw_normal(latent_shape, generator, images.device))

    def encode(
        self, images: Float[Tensor, "b h w 3"], posterior_noise: Float[Tensor, "b c y x"]
    ) -> Float[Tensor, "b c y x"]:
        """Scaled latents, mean + std * posterior_noise of the VAE's posterior, at the images' own size."""
        pixels = (2 * images - 1).permute(0, 3, 1, 2).to(self.vae.dtype)
        with self._autocast():
            posterior = self.vae.encode(pixels).latent_dist
        latents = posterior.mean.float() + posterior.std.float() * posterior_noise
        return (latents - self.latent_mean) * self.latent_scale

    def decode(self, latents: Float[Tensor, "b c y x"]) -> Float[Tensor, "b h w 3"]:
        """Images of scaled latents, clamped to 0..1."""
        latents = latents / self.latent_scale + self.latent_mean
        with self._autocast():
            pixels = self.vae.decode(latents.to(self.vae.dtype)).sample
        return (pixels.float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)

    @torch.no_grad()
    def sample(
        self, prompts: list[str], steps: int, guidance: float, generator: torch.Generator, negative: str = ""
    ) -> Float[Tensor, "b h w 3"]:
        """One image per prompt by DDIM (eta 0) with classifier-free guidance, values 0..1.

        Args:
            steps: number of denoising steps (25 to 50).
            guidance: s in uncond + s (cond - uncond); 7.5 is Stable Diffusion's habit, 1 asks the prompt alone.
            negative: text of the unconditional branch, the same for all prompts.
        """
        shape = (len(prompts), self.vae.config.latent_channels, self.latent_size, self.latent_size)
        scheduler = self.sampler(steps)
        latents = draw_normal(shape, generator, self.device)
        return self.decode(self.denoise(latents, prompts, scheduler, scheduler.timesteps, guidance, negative))

    def sampler(self, steps: int) -> DDIMScheduler:
        """DDIM with `steps` steps on this network's noise schedule."""
        # Latents have no fixed range, so they must not be clipped, whatever the folder's scheduler says.
        scheduler = DDIMScheduler.from_config(self.denoiser.scheduler.config, clip_sample=False)
        scheduler.set_timesteps(steps, device=self.device)
        return scheduler

    @torch.no_grad()
    def denoise(
        self,
        latents: Float[Tensor, "b c y x"],
        prompts: list[str],
        scheduler: DDIMScheduler,
        timesteps: Int[Tensor, " k"],
        guidance: float,
        negative: str = "",
    ) -> Float[Tensor, "b c y x"]:
        """Take the noise of `timesteps[0]` away step by step, guided as in `sample`; `scheduler` is a `sampler`.

        All of the sampler's timesteps make an image of noise, the last ones alone redraw a noisy image.
        """
        b = len(prompts)
        text = self.encode_text([*prompts, negative])
        text = torch.cat([text[:b], text[b:].expand(b, -1, -1)])
        for t in timesteps:
            raw = self.denoiser.raw(latents.repeat(2, 1, 1, 1), t.expand(2 * b), text)
            cond, uncond = raw.chunk(2)
            latents = scheduler.step(uncond + guidance * (cond - uncond), t, latents).prev_sample
        return latents

    def _autocast(self) -> torch.autocast:
        dtype = self.denoiser.autocast
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

"""Zero123, the multi-view diffusion f_mv of equation 1: one image and a relative pose in, the image from there out.

Liu et al., "Zero-1-to-3", 2023. A Stable Diffusion UNet with two conditions: the latent of the input image beside the
noisy one (8 input channels), and one cross-attention token made of the input's CLIP embedding and the pose.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionModelWithProjection

from geodream_lib.errors import InputError
from geodream_lib.views.ddim import ddim, ddim_timesteps
from geodream_lib.views.sampling import RelativePose
from geodream_lib.views.zero123.files import load_parts, save_parts

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def pose_token(
    azimuth: Float[Tensor, " n"], elevation: Float[Tensor, " n"], radius: Float[Tensor, " n"]
) -> Float[Tensor, "n 4"]:
    """Zero123's pose T = (change of polar angle, sin and cos of the change of azimuth, change of radius).

    Args:
        azimuth, elevation: target minus reference, degrees. The polar angle is measured from the pole, so a camera that
            goes up has a negative first number. Angles in T are radians.
        radius: target minus reference; 0 when the camera stays on its sphere. Stable Zero123 was trained with another
            fourth number: the reference's own polar angle in radians, pi/2 at elevation 0 (see `Zero123.predict`).
    """
    turn = torch.deg2rad(azimuth)
    return torch.stack([-torch.deg2rad(elevation), turn.sin(), turn.cos(), radius], dim=-1)


def clip_pixels(images: Float[Tensor, "n 3 h w"], size: int) -> Float[Tensor, "n 3 {size} {size}"]:
    """Images in 0..1 as Zero123 shows them to CLIP: bicubic with aligned corners, unfiltered, normalised."""
    pixels = functional.interpolate(images, size=(size, size), mode="bicubic", align_corners=True)
    mean, std = (pixels.new_tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    return (pixels - mean) / std


class CameraProjection(nn.Module):
    """[CLIP embedding, T] to one cross-attention token; starts as the identity on the embedding."""

    def __init__(self, embedding: int, context: int) -> None:
        super().__init__()
        self.proj = nn.Linear(embedding + 4, context)
        nn.init.eye_(self.proj.weight.data[:, :embedding])
        nn.init.zeros_(self.proj.bias)

    def forward(self, embedding: Float[Tensor, "n e"], pose: Float[Tensor, "n 4"]) -> Float[Tensor, "n 1 c"]:
        return self.proj(torch.cat([embedding, pose.to(embedding.dtype)], dim=-1))[:, None]


class Zero123(nn.Module):
    """The networks of Zero123 and its sampler.

    Args:
        unet: 8 input channels, cross-attention to one token, epsilon or v-prediction as the scheduler says.
        vae: the KL autoencoder of the latents.
        image_encoder: CLIP's image tower with its projection.
        clip_camera_projection: image embedding and pose to the cross-attention token.
        scheduler: DDIM, with the noise schedule the UNet was trained on.
        stable: the fourth number of the pose is Stable Zero123's (see `pose_token`).
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        image_encoder: CLIPVisionModelWithProjection,
        clip_camera_projection: CameraProjection,
        scheduler: DDIMScheduler,
        stable: bool = False,
    ) -> None:
        super().__init__()
        self.unet, self.vae, self.image_encoder = unet, vae, image_encoder
        self.clip_camera_projection, self.scheduler, self.stable = clip_camera_projection, scheduler, stable

    @staticmethod
    def load(
        folder: Path | str,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        stable: bool | None = None,
    ) -> "Zero123":
        """Read a folder in the diffusers layout: `unet/ vae/ image_encoder/ clip_camera_projection/ scheduler/`.

        Read are folders of `save` and the public conversions of Zero123, Zero123-XL and Stable Zero123 that have a
        `clip_camera_projection/`. `stable=None` takes what the folder says, which public ones do not: pass True for
        Stable Zero123.

        Raises:
            InputError: a part is missing, truncated or of another network.
        """
        parts, projection, said_stable = load_parts(Path(folder), dtype)
        context, width = projection["proj.weight"].shape
        parts["clip_camera_projection"] = CameraProjection(width - 4, context)
        parts["clip_camera_projection"].load_state_dict(projection)
        model = Zero123(**parts, stable=said_stable if stable is None else stable)
        return model.to(device, dtype).eval().requires_grad_(False)

    def save(self, folder: Path | str, shared: Mapping[str, str] | None = None) -> None:
        """Write the folder that `load` reads; `model_index.json` comes last and marks it as whole.

        Args:
            shared: parts that are not written, as another network beside it has the same: `{"vae": "../sd"}`.

        Raises:
            InputError: the folder cannot be written, or a shared part is not there.
        """
        save_parts(self, Path(folder), shared or {})

    @property
    def device(self) -> torch.device:
        return self.unet.device

    def clip_embedding(self, images: Float[Tensor, "n h w 3"]) -> Float[Tensor, "n e"]:
        """CLIP's projected image embedding (its length is not normalised); images 0..1 on white."""
        pixels = clip_pixels(images.permute(0, 3, 1, 2), self.image_encoder.config.image_size)
        return self.image_encoder(pixels.to(self.image_encoder.dtype)).image_embeds

    def concat_latent(self, images: Float[Tensor, "n h w 3"]) -> Float[Tensor, "n c hl wl"]:
        """Latent that is laid beside the noisy one: mode of the VAE's posterior, *not* multiplied by its factor."""
        pixels = 2 * images.permute(0, 3, 1, 2) - 1
        return self.vae.encode(pixels.to(self.vae.dtype)).latent_dist.mode()

    def conditions(self, images: Float[Tensor, "n h w 3"]) -> tuple[Float[Tensor, "n e"], Float[Tensor, "n c hl wl"]]:
        """What the networks know of the reference: `(clip_embedding, concat_latent)`.

        In training the published rule drops, for classifier-free guidance, the embedding, the latent, or both, each for
        5 % of the samples; a dropped embedding is zero *before* `clip_camera_projection`, so the pose is still seen.
        When sampling, the unconditional half gets zeros for the latent and for the token itself.
        """
        return self.clip_embedding(images), self.concat_latent(images)

    @torch.no_grad()
    def predict(
        self,
        reference: Float[Tensor, "h w 3"],
        poses: Sequence[RelativePose],
        steps: int,
        guidance: float,
        eta: float,
        generator: torch.Generator,
        reference_elevation: float = 0.0,
        radius: float = 0.0,
        batch_size: int = 8,
        autocast: torch.dtype | None = None,
        drop_noisiest: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Float[Tensor, "n h w 3"]:
        """The object of `reference` seen from every pose, 0..1, on white.

        The fourth number of the pose follows one of three rules. Zero123: `radius`. Stable Zero123: the polar angle of
        the reference, 90 degrees - `reference_elevation`. One-2-3-45 and GeoDream: 0, or pi/2 for Stable Zero123
        whatever the elevation, which is what the defaults of both arguments give.

        Args:
            reference: square image on white, 0..1, object centred (`prepare_reference`); sides a multiple of the VAE's
                factor (8).
            poses: relative to this reference; their `reference` field is not read.
            steps, guidance, eta: of DDIM with classifier-free guidance; the released systems use 50 to 75, 3 and 1.
            generator: draws the noise, for all poses at once: the result does not depend on `batch_size`.
            reference_elevation: absolute elevation of the reference in degrees; read when `stable`.
            radius: how much farther from the object than the reference the poses are; read when not `stable`.
            batch_size: poses that go through the networks together (twice as many images with guidance).
            autocast: `torch.bfloat16` or `torch.float16` to compute in lower precision, None to leave it.
            drop_noisiest: the released sampler's shorter schedule (see `ddim_timesteps`).
            progress: called as `progress(done, total)` after every step.

        Raises:
            InputError: the reference's size does not fit the networks, or there is no pose.
        """
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        height, width = reference.shape[:2]
        if height != width or height % factor:
            raise InputError(f"the reference is {width}x{height}; expected a square, sides a multiple of {factor}")
        if not poses:
            raise InputError("no pose to predict; expected at least one relative pose")
        with torch.autocast(self.device.type, dtype=autocast, enabled=autocast is not None):
            embedding, latent = self.conditions(reference[None].to(self.device))
            fourth = math.radians(90.0 - reference_elevation) if self.stable else radius
            token = self._tokens(embedding, poses, fourth)
            latent = latent.expand(len(poses), -1, -1, -1)
            return self.sample(token, latent, steps, guidance, eta, generator, batch_size, drop_noisiest, progress)

    @torch.no_grad()
    def sample(
        self,
        token: Float[Tensor, "n 1 d"],
        latent: Float[Tensor, "n c hl wl"],
        steps: int,
        guidance: float,
        eta: float,
        generator: torch.Generator,
        batch_size: int = 64,
        drop_noisiest: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Float[Tensor, "n h w 3"]:
        """Run the sampler on ready conditions, of one reference or of many; images 0..1.

        Args:
            token: output of `clip_camera_projection`, one per image.
            latent: the reference's `concat_latent`, one per image.
            steps, guidance, eta, generator, batch_size, drop_noisiest, progress: as for `predict`.
        """
        parts = [slice(start, start + batch_size) for start in range(0, len(latent), batch_size)]

        def predict(sample: Tensor, t: int) -> Tensor:
            return torch.cat([self.guided(sample[i], token[i], latent[i], t, guidance) for i in parts])

        def draw() -> Tensor:
            return torch.randn(latent.shape, generator=generator, device=generator.device).to(self.device)

        timesteps = ddim_timesteps(self.scheduler, steps, drop_noisiest)
        trajectory = ddim(self.scheduler, predict, timesteps, eta, draw)
        sample = next(trajectory)
        for done, latents in enumerate(trajectory, start=1):
            sample = latents
            if progress is not None:
                progress(done, len(timesteps))
        return torch.cat([self.decode(sample[i]) for i in parts])

    def _tokens(
        self, embedding: Float[Tensor, "1 e"], poses: Sequence[RelativePose], fourth: float
    ) -> Float[Tensor, "n 1 c"]:
        """One cross-attention token per pose."""
        angles = torch.tensor([[pose.azimuth, pose.elevation] for pose in poses], device=self.device)
        pose = pose_token(angles[:, 0], angles[:, 1], torch.full_like(angles[:, 0], fourth))
        return self.clip_camera_projection(embedding.expand(len(poses), -1), pose)

    def guided(
        self,
        sample: Float[Tensor, "n c hl wl"],
        token: Float[Tensor, "n 1 d"],
        latent: Float[Tensor, "n c hl wl"],
        t: int | Int[Tensor, " n"],
        guidance: float,
    ) -> Float[Tensor, "n c hl wl"]:
        """uncond + guidance (cond - uncond); zeros in place of both conditions are the unconditional half."""
        latent = latent.to(self.unet.dtype)
        beside = torch.cat([torch.zeros_like(latent), latent])
        context = torch.cat([torch.zeros_like(token), token]).to(self.unet.dtype)
        noisy = torch.cat([sample, sample]).to(self.unet.dtype)
        t = torch.cat([t, t]) if isinstance(t, Tensor) else t
        output = self.unet(torch.cat([noisy, beside], dim=1), t, encoder_hidden_states=context).sample.float()
        unconditional, conditional = output.chunk(2)
        return unconditional + guidance * (conditional - unconditional)

    def decode(self, sample: Float[Tensor, "n c hl wl"]) -> Float[Tensor, "n h w 3"]:
        """Latents, multiplied by the VAE's factor as the sampler has them, to images 0..1."""
        pixels = self.vae.decode((sample / self.vae.config.scaling_factor).to(self.vae.dtype)).sample
        return (pixels.float().permute(0, 2, 3, 1) / 2 + 0.5).clamp(0, 1)

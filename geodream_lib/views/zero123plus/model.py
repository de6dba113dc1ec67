"""Zero123++, the other multi-view diffusion of the paper: one image in, six fixed views of its object out, at once.

Shi et al., "Zero123++: a Single Image to Consistent Multi-view Diffusion Base Model", 2023. The six views are one
picture of 3 x 2 tiles, so a plain Stable Diffusion 2 makes them consistent. It knows the input by reference attention
(local condition) and by a CLIP embedding that is spread over the empty prompt (global condition).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from geodream_lib.errors import InputError
from geodream_lib.views.zero123plus.attention import (
    install_reference_attention,
    predict_with_reference,
    reference_tokens,
)
from geodream_lib.views.zero123plus.files import load_parts, save_parts
from geodream_lib.views.zero123plus.image import ImageInput, network_pixels, on_grey
from geodream_lib.views.zero123plus.layout import COLUMNS, ROWS, split_tiles
from geodream_lib.views.zero123plus.steps import (
    ancestral_step,
    guided,
    network_input,
    noise_schedule,
    noised_condition,
    ramped_embedding,
    unscale_image,
    unscale_latents,
)

Draw = Callable[[tuple[int, ...]], Tensor]  # standard normal numbers of a shape, on the model's device


@dataclass(frozen=True)
class Condition:
    """What the UNet knows of the reference, for the halves (unconditional, conditional) of guidance."""

    text: Float[Tensor, "2 tokens d"]
    latent: Float[Tensor, "2 c hl wl"]


class Zero123Plus(nn.Module):
    """The networks of Zero123++ and its sampler; the parts are those of the public folders, by their names there."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        vision_encoder: CLIPVisionModelWithProjection,
        scheduler: EulerAncestralDiscreteScheduler,
        feature_extractor_vae: ImageInput,
        feature_extractor_clip: ImageInput,
        ramping_coefficients: Sequence[float],
    ) -> None:
        super().__init__()
        install_reference_attention(unet)
        self.unet, self.vae, self.text_encoder, self.vision_encoder = unet, vae, text_encoder, vision_encoder
        self.tokenizer, self.scheduler = tokenizer, scheduler
        self.feature_extractor_vae, self.feature_extractor_clip = feature_extractor_vae, feature_extractor_clip
        self.ramping_coefficients = tuple(ramping_coefficients)

    @staticmethod
    def load(
        folder: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> "Zero123Plus":
        """Read a folder in the public diffusers layout (`sudo-ai/zero123plus-v1.1` or `-v1.2`), or one of `save`.

        Its parts: `unet/ vae/ text_encoder/ tokenizer/ vision_encoder/ scheduler/ feature_extractor_vae/
        feature_extractor_clip/` and `model_index.json` with the 77 `ramping_coefficients`. Weights are safetensors;
        code in the folder is neither needed nor run. The folder does not say its version: see
        `zero123plus_viewpoints`. In `torch.float16` the weights take 3.8 GB, and a step of 320-pixel tiles about one
        more.

        Raises:
            InputError: a part is missing, truncated or of another network.
        """
        model = Zero123Plus(**load_parts(Path(folder), dtype))
        return model.to(device).eval().requires_grad_(False)

    def save(self, folder: Path | str, shared: Mapping[str, str] | None = None) -> None:
        """Write the folder that `load` reads, whole or not at all; an earlier one of ours is replaced.

        Args:
            shared: parts that are not written, as another network beside it has the same: `{"vae": "../sd"}`.

        Raises:
            InputError: the folder holds files of another origin, cannot be written, or a shared part is not there.
        """
        save_parts(self, Path(folder), shared or {})

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def factor(self) -> int:
        """Pixels a side of one latent (8)."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def empty_prompt(self) -> Int[Tensor, "1 tokens"]:
        """Token ids of the empty prompt, padded to the text encoder's length (77) with the tokenizer's own padding."""
        length = self.text_encoder.config.max_position_embeddings
        padded = self.tokenizer([""], padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return padded.input_ids.to(self.device)

    def text_embedding(self, ids: Int[Tensor, "b tokens"]) -> Float[Tensor, "b tokens d"]:
        """The text encoder's last hidden state."""
        return self.text_encoder(ids).last_hidden_state

    def image_embedding(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """CLIP's projected image embedding (its length is not normalised) of `network_pixels` for CLIP."""
        return self.vision_encoder(pixels.to(self.vision_encoder.dtype)).image_embeds

    def condition_latent(self, pixels: Float[Tensor, "b 3 h w"], draw: Draw) -> Float[Tensor, "b c hl wl"]:
        """The latent that the reference pass sees: a *sample* of the VAE's posterior of `network_pixels` for the VAE.

        Unlike the latents of the views it is neither multiplied by the VAE's factor nor passed through `scale_latents`.
        """
        posterior = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist
        return posterior.mean.float() + posterior.std.float() * draw(tuple(posterior.mean.shape))

    def condition(self, reference: Float[Tensor, "h w c"], draw: Draw) -> Condition:
        """Both conditions of both halves of guidance.

        The conditional half has the ramped embedding and the reference's latent. The unconditional half has the plain
        empty prompt and the latent of an all-grey image (zeros, as the VAE sees grey), which is *read* like the other.

        Args:
            reference: square image, 3 or 4 channels (straight colours), 0..1.
            draw: asked twice, for the VAE's samples of the reference and of grey.
        """
        image = on_grey(reference)
        for_vae = network_pixels(image, self.feature_extractor_vae).to(self.device)
        for_clip = network_pixels(image, self.feature_extractor_clip).to(self.device)
        latent = self.condition_latent(for_vae, draw)
        grey = self.condition_latent(torch.zeros_like(for_vae), draw)
        empty = self.text_embedding(self.empty_prompt())
        ramped = ramped_embedding(empty, self.image_embedding(for_clip), empty.new_tensor(self.ramping_coefficients))
        return Condition(text=torch.cat([empty, ramped]), latent=torch.cat([grey, latent]))

    def velocity(
        self,
        sample: Float[Tensor, "1 c h w"],
        t: float,
        sigma: float,
        condition: Condition,
        noise: Float[Tensor, "2 c hl wl"],
    ) -> Float[Tensor, "2 c h w"]:
        """The UNet's prediction for both halves: one pass writes the reference at this noise level, one reads it.

        Args:
            sample: in the sampler's scale, noise of standard deviation `sigma`.
            noise: fresh in every step, added to the condition's latents.
        """
        tokens = reference_tokens(self.unet, noised_condition(condition.latent, noise, sigma), t, condition.text)
        noisy = network_input(sample, sigma).expand(2, -1, -1, -1)
        return predict_with_reference(self.unet, noisy, t, condition.text, tokens)

    @torch.no_grad()
    def sample(
        self,
        condition: Condition,
        draw: Draw,
        steps: int,
        guidance: float,
        tile: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> Float[Tensor, "1 c h w"]:
        """Run the sampler: latents of the picture of all six views, as the UNet was trained on them (`scale_latents`).

        Args:
            condition: of `condition`.
            draw: asked for the start, then twice in every step: noise of the condition, noise of the sampler.
            steps, guidance, tile, progress: as for `predict`.
        """
        timesteps, sigmas = noise_schedule(self.scheduler, steps)
        side = tile // self.factor
        shape = (1, self.unet.config.in_channels, ROWS * side, COLUMNS * side)
        sample = draw(shape) * sigmas[0]
        for done, (t, sigma, following) in enumerate(zip(timesteps, sigmas[:-1], sigmas[1:], strict=True), start=1):
            both = self.velocity(sample, t, sigma, condition, draw(tuple(condition.latent.shape)))
            sample = ancestral_step(sample, guided(both, guidance), sigma, following, draw(shape))
            if progress is not None:
                progress(done, len(timesteps))
        return sample

    @torch.no_grad()
    def decode(self, sample: Float[Tensor, "1 c h w"]) -> Float[Tensor, "1 3 hp wp"]:
        """The picture of all six views, about -1..1, out of the sampler's latents."""
        latents = unscale_latents(sample) / self.vae.config.scaling_factor
        return unscale_image(self.vae.decode(latents.to(self.vae.dtype)).sample.float())

    @torch.no_grad()
    def predict(
        self,
        reference: Float[Tensor, "h w c"],
        generator: torch.Generator,
        steps: int = 75,
        guidance: float = 4.0,
        tile: int = 320,
        progress: Callable[[int, int], None] | None = None,
        autocast: torch.dtype | None = None,
    ) -> Float[Tensor, "6 {tile} {tile} 3"]:
        """Six views of the object of `reference`, 0..1, on the grey that the network makes; see
        `zero123plus_viewpoints`.

        Args:
            reference: square image, at least `tile` pixels a side, 0..1, object centred: 3 channels on grey, or 4
                with straight colours, which are put on grey.
            generator: draws all the noise.
            steps, guidance: as in the released examples and in GeoDream; the released pipeline's own default is 28
                steps.
            tile: pixels a side of one view, a multiple of the VAE's factor (8); trained was 320.
            progress: called as `progress(done, total)` after every step.
            autocast: `torch.bfloat16` or `torch.float16` to compute float32 weights in lower precision.

        Raises:
            InputError: the reference is not square, too small, or has neither 3 nor 4 channels; `tile` or `steps` do
                not fit the networks.
        """
        self._check(reference, tile)

        def draw(shape: tuple[int, ...]) -> Tensor:
            return torch.randn(shape, generator=generator, device=generator.device).to(self.device)

        with torch.autocast(self.device.type, dtype=autocast, enabled=autocast is not None):
            condition = self.condition(reference, draw)
            picture = self.decode(self.sample(condition, draw, steps, guidance, tile, progress))
        return split_tiles((picture[0] / 2 + 0.5).clamp(0, 1))

    def _check(self, reference: Float[Tensor, "h w c"], tile: int) -> None:
        height, width, channels = reference.shape
        if tile < self.factor or tile % self.factor:
            raise InputError(f"views of {tile} pixels asked for; expected a multiple of {self.factor}, usually 320")
        if height != width or width < tile:
            raise InputError(
                f"the reference is {width}x{height}; expected a square of at least {tile}x{tile} pixels, "
                "pad or enlarge it"
            )
        if channels not in (3, 4):
            raise InputError(f"the reference has {channels} channels; expected 3 (colour) or 4 (with alpha)")

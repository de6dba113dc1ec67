"""What score distillation costs, per image: two diffusion models, and the way from their answer back to the pixels."""

import functools
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from geodream_lib.guidance import Denoiser, add_camera_lora, lora_parameters
from geodream_lib.plan.networks import count_parameters, make_networks, weight_bytes
from geodream_lib.plan.trace import Cost, trace
from geodream_lib.presets import Guidance, Preset
from geodream_lib.weights.ldm import SCHEDULER


@dataclass(frozen=True)
class DistillationCost:
    """parameters, weights: of the frozen networks, and their bytes. trained: parameters of the LoRA and its camera.
    size: of the image that is encoded, pixels a side. image: of one image of a step."""

    parameters: int
    weights: int
    trained: int
    size: int
    image: Cost


def distillation_cost(preset: Preset, guidance: Guidance) -> DistillationCost:
    """Of the preset's 2D prior, asked as `guidance` says.

    Raises:
        InputError: a local network of the preset is not there.
    """
    lora = preset.lora if guidance.kind == "vsd" else ""
    follower = guidance.lora_rank, guidance.lora_timesteps, guidance.lora_steps
    return _distillation_cost(preset.text_to_image, lora, preset.precision, guidance.kind, *follower)


@functools.cache  # geometry and texture ask the same
def _distillation_cost(
    text_to_image: str, lora: str, precision: str, kind: str, rank: int, timesteps: int, lora_steps: int
) -> DistillationCost:
    dtype = getattr(torch, precision)
    prior = make_networks(text_to_image, ("unet", "vae", "text_encoder"), dtype)
    frozen = nn.ModuleList([prior])
    trained, follower = 0, None
    if kind == "vsd":
        frozen += [make_networks(lora, ("unet",), dtype)] if lora else []
        denoiser = Denoiser(frozen[-1]["unet"], DDIMScheduler(**SCHEDULER)).to("meta")
        denoiser = add_camera_lora(denoiser, torch.Generator(), rank)
        trained, follower = sum(p.numel() for p in lora_parameters(denoiser)), denoiser.unet
    unet, vae, tokens = prior["unet"], prior["vae"], prior["text_encoder"].config.max_position_embeddings
    size = unet.config.sample_size * 2 ** (len(vae.config.block_out_channels) - 1)
    image = torch.empty(1, 3, size, size, device="meta", requires_grad=True)

    def ask(network: nn.Module, latents: Tensor, times: int) -> Tensor:
        text = latents.new_empty(times, tokens, unet.config.cross_attention_dim, dtype=dtype)
        t, camera = latents.new_empty(times, dtype=torch.long), latents.new_empty(times, 16)
        noisy = latents.repeat(times, 1, 1, 1).to(dtype)
        return network(noisy, t, encoder_hidden_states=text, class_labels=camera).sample.float()

    def lora_loss(latents: Tensor) -> Tensor:
        predicted = ask(follower, latents, timesteps)
        return mse_loss(predicted, torch.empty_like(predicted))

    def step() -> None:
        """Algorithm 1, lines 13 to 15: encode, ask both networks, train the second, go back to the pixels."""
        posterior = vae.encode(image.to(dtype)).latent_dist
        latents = posterior.mean.float() + posterior.std.float()
        fixed, losses = latents.detach(), [latents.sum()]
        with torch.no_grad():
            ask(unet, fixed, 2)  # with and without the prompt
            if follower is not None:
                ask(follower, fixed, 1)
        if follower is not None:
            losses.append(lora_loss(fixed))
        for loss in losses:
            loss.backward()
        for _ in range(lora_steps - 1 if follower is not None else 0):
            lora_loss(fixed).backward()

    cost = trace(step)
    return DistillationCost(count_parameters(frozen), weight_bytes(frozen), trained, size, cost)

"""The algebra of Zero123++ (Shi et al. 2023): its scalings, its global condition, its noise and its sampler."""

import math

from diffusers import EulerAncestralDiscreteScheduler
from jaxtyping import Float
from torch import Tensor

from geodream_lib.errors import InputError


def scale_latents(latents: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Latents (times the VAE's factor) as the UNet was trained on them; near zero mean and smaller than usual.

    With the smaller signal the same noise schedule hides more of the image.
    """
    return (latents - 0.22) * 0.75


def unscale_latents(latents: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The sampler's output as latents times the VAE's factor, the inverse of `scale_latents`."""
    return latents / 0.75 + 0.22


def scale_image(image: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Images in [-1, 1] as the VAE saw them when the UNet was trained: with less contrast, grey stays zero."""
    return image * 0.5 / 0.8


def unscale_image(image: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The VAE's output as an image in [-1, 1], the inverse of `scale_image`."""
    return image / 0.5 * 0.8


def ramped_embedding(
    prompt: Float[Tensor, "b tokens d"], image: Float[Tensor, "b d"], ramp: Float[Tensor, " tokens"]
) -> Float[Tensor, "b tokens d"]:
    """The global condition: the image's CLIP embedding added to each token of the prompt, times the token's own weight.

    The weights are learned and grow from the first token, which is the start of every text, to the last.
    """
    return prompt + image[:, None] * ramp[:, None]


def noise_schedule(scheduler: EulerAncestralDiscreteScheduler, steps: int) -> tuple[list[float], list[float]]:
    """`(timesteps, sigmas)` from noise to image; sigmas has one entry more, the 0 of the finished image.

    sigma is noise over signal, sqrt((1 - alphabar) / alphabar). The public scheduler files say "linspace", the released
    examples override it with "trailing", which starts at the very last timestep (999); so does this.

    Raises:
        InputError: `steps` is not between 1 and the number of training timesteps.
    """
    longest = scheduler.config.num_train_timesteps
    if not 1 <= steps <= longest:
        raise InputError(f"{steps} sampling steps asked for; expected 1 to {longest}, the released examples take 75")
    trailing = EulerAncestralDiscreteScheduler.from_config(scheduler.config, timestep_spacing="trailing")
    trailing.set_timesteps(steps)
    return trailing.timesteps.tolist(), trailing.sigmas.tolist()


def network_input(
    sample: Float[Tensor, "b c h w"], sigma: float | Float[Tensor, "b 1 1 1"]
) -> Float[Tensor, "b c h w"]:
    """From the sampler's scale (signal + sigma noise) to the network's, where signal and noise have variance one."""
    return sample / (sigma**2 + 1) ** 0.5


def noised_condition(
    latent: Float[Tensor, "b c h w"], noise: Float[Tensor, "b c h w"], sigma: float | Float[Tensor, "b 1 1 1"]
) -> Float[Tensor, "b c h w"]:
    """The reference's latent at the current noise level: what is written must look like what will read it.

    In training every item of the batch has a noise level of its own.
    """
    return network_input(latent + sigma * noise, sigma)


def guided(both: Float[Tensor, "2 c h w"], guidance: float) -> Float[Tensor, "1 c h w"]:
    """Classifier-free guidance, uncond + guidance (cond - uncond), of the halves (uncond, cond)."""
    unconditional, conditional = both.chunk(2)
    return unconditional + guidance * (conditional - unconditional)


def ancestral_step(
    sample: Float[Tensor, "b c h w"],
    velocity: Float[Tensor, "b c h w"],
    sigma: float,
    next_sigma: float,
    noise: Float[Tensor, "b c h w"],
) -> Float[Tensor, "b c h w"]:
    """One Euler ancestral step from `sigma` to `next_sigma` (Karras et al. 2022; the k-diffusion sampler "Euler a").

    The predicted velocity gives the clean latent; an Euler step along the line to it goes further down than asked, and
    fresh `noise` makes up for the difference: down^2 + up^2 = next_sigma^2.
    """
    clean = sample / (sigma**2 + 1) - velocity * sigma / math.sqrt(sigma**2 + 1)
    up = next_sigma * math.sqrt(sigma**2 - next_sigma**2) / sigma
    down = math.sqrt(next_sigma**2 - up**2)
    derivative = (sample - clean) / sigma
    return sample + derivative * (down - sigma) + noise * up

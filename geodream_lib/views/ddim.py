"""DDIM, the sampler of Zero123: from noise to the latents of an image.

Song et al., "Denoising Diffusion Implicit Models", 2021.
"""

from collections.abc import Callable, Iterator, Sequence

from diffusers import DDIMScheduler
from torch import Tensor


def ddim_timesteps(scheduler: DDIMScheduler, steps: int, drop_noisiest: bool = False) -> list[int]:
    """The timesteps of a DDIM run, from noise to image.

    `drop_noisiest` is what the released Zero123 sampler does, perhaps by accident: it lists 1, 1 + r, 1 + 2r ... with
    r = 1000 // steps, and starts from the last but one. With 75 steps it starts at t = 976, with 50 at 961, with 4 at
    501, from pure noise all the same. Without it the schedule is the one of the scheduler's configuration.
    """
    scheduler.set_timesteps(steps)
    if not drop_noisiest:
        return scheduler.timesteps.tolist()
    total = scheduler.config.num_train_timesteps
    return [t + 1 for t in range(0, total, total // steps)][-2::-1]


def ddim(
    scheduler: DDIMScheduler,
    predict: Callable[[Tensor, int], Tensor],
    timesteps: Sequence[int],
    eta: float,
    draw: Callable[[], Tensor],
) -> Iterator[Tensor]:
    """The DDIM sampler: yields the latents it starts from, then those after every timestep.

    Args:
        predict: the network's guided output for latents and a timestep.
        timesteps: of `ddim_timesteps`, which also tells the scheduler how far they are apart. The last one leads to
            the first noise level, not to none.
        eta: share of fresh noise in every step, the last included, from 0 to 1.
        draw: standard normal noise of the latents' shape: first the start, then, where eta is not 0, one for each step.
    """
    latents = draw() * scheduler.init_noise_sigma
    yield latents
    for t in timesteps:
        prediction = predict(latents, t)
        noise = draw() if eta > 0 else None
        latents = scheduler.step(prediction, t, latents, eta=eta, variance_noise=noise).prev_sample
        yield latents

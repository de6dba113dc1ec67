import math

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler
from PIL import Image

from geodream_lib.views.zero123plus.image import GREY, ImageInput, network_pixels, on_grey
from geodream_lib.views.zero123plus.steps import (
    ancestral_step,
    guided,
    network_input,
    noise_schedule,
    noised_condition,
    ramped_embedding,
    scale_image,
    scale_latents,
    unscale_image,
    unscale_latents,
)


def test_the_scalings_are_undone():
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(unscale_latents(scale_latents(x)), x)
    torch.testing.assert_close(unscale_image(scale_image(x)), x)


def test_the_vae_branch_is_the_scaled_image_and_grey_is_zero():
    image = torch.randint(0, 256, (12, 12, 3), dtype=torch.uint8)
    how = ImageInput(12, (0.5,) * 3, (0.8,) * 3, Image.Resampling.BILINEAR)
    expected = scale_image(2 * image.float() / 255 - 1).permute(2, 0, 1)[None]
    torch.testing.assert_close(network_pixels(image, how), expected)
    background = network_pixels(on_grey(torch.zeros(4, 4, 4)), how)
    assert background.unique().numel() == 1 and background.abs().max() < 0.5 / 255 / 0.8 + 1e-6


def test_only_what_is_transparent_becomes_grey():
    image = torch.rand(6, 6, 4)
    image[..., 3] = (torch.arange(6) < 3).float()
    result = on_grey(image)
    assert (result[:, 3:] == GREY).all()
    assert torch.equal(result[:, :3], (image[:, :3, :3] * 255).round().to(torch.uint8))
    assert torch.equal(on_grey(image[..., :3])[:, :3], result[:, :3])


def test_the_ramp_weighs_token_by_token():
    prompt, image = torch.zeros(1, 3, 2), torch.tensor([[1.0, -2.0]])
    ramped = ramped_embedding(prompt, image, torch.tensor([0.0, 0.5, 1.0]))
    assert ramped.tolist() == [[[0.0, 0.0], [0.5, -1.0], [1.0, -2.0]]]


def test_guidance_goes_from_the_first_half_past_the_second():
    both = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
    assert [guided(both, scale).unique().item() for scale in (0.0, 1.0, 4.0)] == [0.0, 1.0, 4.0]


@pytest.mark.parametrize("steps", [1, 3, 28, 75])
def test_the_schedule_runs_from_the_last_timestep_to_the_image(steps):
    """The folder's "linspace" is overridden: with "trailing" also few steps start from pure noise."""
    scheduler = EulerAncestralDiscreteScheduler(beta_start=0.00085, beta_end=0.012, timestep_spacing="linspace")
    timesteps, sigmas = noise_schedule(scheduler, steps)
    assert (len(timesteps), len(sigmas)) == (steps, steps + 1)
    assert timesteps[0] == 999 and sigmas[-1] == 0
    assert timesteps == sorted(timesteps, reverse=True) and sigmas == sorted(sigmas, reverse=True)
    alphabar = torch.cumprod(1 - torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64), 0)
    for t, sigma in zip(timesteps, sigmas[:-1], strict=True):
        assert sigma == pytest.approx(((1 - alphabar[int(t)]) / alphabar[int(t)]).sqrt().item(), rel=1e-4)


def test_a_step_with_the_true_velocity_keeps_the_image_and_lowers_the_noise():
    """x0 + sigma e becomes x0 + down e + up noise with down^2 + up^2 = next^2; at next = 0 it is the image itself."""
    image, noise, fresh = torch.randn(3, 1, 4, 5, 5, dtype=torch.float64)
    sigma, following = 4.0, 1.5
    sample = image + sigma * noise
    amplitude = math.sqrt(sigma**2 + 1)
    velocity = (noise - sigma * image) / amplitude  # alpha e - sigma x0, of amplitudes 1 / a and sigma / a
    after = ancestral_step(sample, velocity, sigma, following, fresh)
    up = ancestral_step(sample, velocity, sigma, following, fresh + 1) - after
    down = (ancestral_step(sample, velocity, sigma, following, torch.zeros_like(fresh)) - image) / noise
    torch.testing.assert_close(up.std(), torch.zeros_like(up.std()), atol=1e-9, rtol=0)
    torch.testing.assert_close(down**2 + up**2, torch.full_like(down, following**2))
    torch.testing.assert_close(ancestral_step(sample, velocity, sigma, 0.0, fresh), image)


def test_the_condition_is_noised_as_the_views_are():
    latent, noise = torch.randn(2, 2, 4, 6, 6)
    torch.testing.assert_close(noised_condition(latent, noise, 3.0), network_input(latent + 3.0 * noise, 3.0))
    assert noised_condition(latent, torch.randn(2, 4, 6, 6), 25.0).std().item() == pytest.approx(1, abs=0.15)

"""The trainer of Zero123++: how references are shown, what is dropped, what moves."""

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch

from geodream_lib.lab import latents, train_zero123plus
from geodream_lib.lab.latents import encode_dataset
from geodream_lib.lab.multiview_data import faded
from geodream_lib.lab.networks import (
    IMAGE_SIZE,
    make_scheduler,
    make_zero123plus_scheduler,
    speed_up_training,
)
from geodream_lib.lab.train_zero123plus import (
    CONTRAST,
    normalized,
    shown,
    start_zero123plus,
    zero123plus_loss,
)
from geodream_lib.lab.training import Budget
from geodream_lib.views import Zero123Plus
from geodream_lib.views.zero123plus.attention import predict_with_reference, reference_tokens
from geodream_lib.views.zero123plus.image import GREY, network_pixels
from geodream_lib.views.zero123plus.layout import join_tiles

CPU = torch.device("cpu")
TILE = 16


def test_references_are_seen_as_the_networks_will_be_shown_them(diffusion, monkeypatch, random_images):
    monkeypatch.setattr(latents, "fast_autocast", lambda _: nullcontext())  # in bfloat16 the last bits differ
    model = start_zero123plus(diffusion)
    image, alpha = random_images(IMAGE_SIZE, IMAGE_SIZE), torch.zeros(IMAGE_SIZE, IMAGE_SIZE)
    alpha[32:96, 32:96] = 1.0
    grey = shown(image, alpha)
    assert torch.equal(grey[32:96, 32:96], image[32:96, 32:96]) and (grey[:32] == GREY).all()
    for how in (model.feature_extractor_vae, model.feature_extractor_clip):
        torch.testing.assert_close(normalized(grey[None], how), network_pixels(grey, how), atol=1e-6, rtol=0)
    white = torch.where(alpha[..., None] > 0, image, torch.tensor(255, dtype=torch.uint8))
    low = faded(white[None], (alpha * 255).byte()[None]).permute(0, 3, 1, 2).float() / 127.5 - 1
    torch.testing.assert_close(low, normalized(grey[None], model.feature_extractor_vae), atol=0.005, rtol=0)
    moments = encode_dataset(model.vae, grey[None], CPU, CONTRAST)
    with torch.no_grad():
        seen = model.vae.encode(network_pixels(grey, model.feature_extractor_vae)).latent_dist
    torch.testing.assert_close(moments.float(), torch.cat([seen.mean, seen.std], dim=1), atol=2e-3, rtol=2e-3)


def zero123plus_batch(
    model: Zero123Plus, random_images: Callable[..., torch.Tensor], n: int
) -> dict[str, torch.Tensor]:
    images = random_images(n, IMAGE_SIZE, IMAGE_SIZE)
    return {
        "pictures": encode_dataset(model.vae, join_tiles(random_images(n, 6, TILE, TILE)), CPU, CONTRAST),
        "references": encode_dataset(model.vae, images, CPU, CONTRAST),
        "images": images,
    }


def test_zero123plus_learns_a_batch(diffusion, random_images):
    model = start_zero123plus(diffusion)
    ramp = torch.nn.Parameter(torch.tensor(model.ramping_coefficients))
    trained = [ramp, *model.unet.parameters(), *model.vision_encoder.parameters()]
    optimizer = torch.optim.AdamW([p.requires_grad_(True) for p in trained], 3e-3)
    data, drop, errors = zero123plus_batch(model, random_images, 3), torch.tensor([False, True, False]), []
    for _ in range(10):
        error = zero123plus_loss(model, ramp, **data, drop=drop, generator=torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.9 * errors[0]
    assert ramp.grad.abs().max() > 0 and model.vision_encoder.visual_projection.weight.grad.abs().max() > 0


def test_a_dropped_reference_is_not_seen(diffusion, random_images):
    model = start_zero123plus(diffusion)
    data, ramp = zero123plus_batch(model, random_images, 2), torch.tensor(model.ramping_coefficients)
    other = data | {"references": data["references"].flip(0), "images": data["images"].flip(0)}

    def error(data: dict[str, torch.Tensor], dropped: bool) -> float:
        drop = torch.full((2,), dropped)
        with torch.no_grad():
            return zero123plus_loss(model, ramp, **data, drop=drop, generator=torch.Generator().manual_seed(0)).item()

    assert error(data, True) == error(other, True)
    assert error(data, False) != error(other, False)


def test_attention_written_out_looks_at_the_same_reference(diffusion):
    unet = start_zero123plus(diffusion).unet
    channels, width = unet.config.in_channels, unet.config.cross_attention_dim
    noisy, latent, text = torch.randn(1, channels, 12, 8), torch.randn(1, channels, 8, 8), torch.randn(1, 5, width)

    def predicted() -> torch.Tensor:
        return predict_with_reference(unet, noisy, 400, text, reference_tokens(unet, latent, 400, text))

    with torch.no_grad():
        fused = predicted()
        speed_up_training(unet, CPU)
        torch.testing.assert_close(predicted(), fused, atol=1e-4, rtol=1e-3)
        latent = -latent
        assert not torch.allclose(predicted(), fused, atol=1e-3), "it does look at the reference"


def test_the_coarse_task_of_zero123plus_averages_tiles_and_reference(diffusion, monkeypatch, random_images):
    """The same draws at half the resolution: what is written and what reads it stay at one noise level."""
    model, shown = start_zero123plus(diffusion), []
    data, drop = zero123plus_batch(model, random_images, 2), torch.tensor([False, True])

    def write(unet, latent, t, text):
        shown.append(latent)

    def read(unet, noisy, t, text, tokens):
        shown.append(noisy)
        return torch.zeros_like(noisy)

    monkeypatch.setattr(train_zero123plus, "reference_tokens", write)
    monkeypatch.setattr(train_zero123plus, "predict_with_reference", read)
    ramp = torch.tensor(model.ramping_coefficients)
    for coarse in (False, True):
        zero123plus_loss(model, ramp, **data, drop=drop, generator=torch.Generator().manual_seed(0), coarse=coarse)
    for whole, averaged in zip(shown[:2], shown[2:], strict=True):
        torch.testing.assert_close(averaged, torch.nn.functional.avg_pool2d(whole, 2))


def test_a_training_of_zero123plus_moves_what_sees_the_reference(diffusion, tmp_path, random_images, moved):
    model, count = start_zero123plus(diffusion), 34
    before, ramp = {name: x.clone() for name, x in model.state_dict().items()}, model.ramping_coefficients
    references = random_images(count, IMAGE_SIZE, IMAGE_SIZE)
    data = references, references[:1], random_images(count, 6, TILE, TILE)
    common = {"folder": tmp_path / "state", "device": CPU}
    train_zero123plus.train_zero123plus(model, *data, budget=Budget(0.0, 2, 1e-3), **common)
    assert moved(before, model.state_dict()) == set() and model.ramping_coefficients == pytest.approx(ramp)
    train_zero123plus.train_zero123plus(model, *data, budget=Budget(1e-3, 2, 1e-3, warmup_steps=1), **common)
    assert moved(before, model.state_dict()) == {"unet", "vision_encoder"}
    assert model.ramping_coefficients != pytest.approx(ramp, abs=1e-6)


def test_the_noise_schedule_of_zero123plus_is_the_released_one():
    """Betas grow linearly from 0.00085 to 0.012; nearly nothing is left of the picture at the end."""
    betas = make_zero123plus_scheduler().betas
    torch.testing.assert_close(betas, torch.linspace(0.00085, 0.012, 1000))
    assert make_zero123plus_scheduler().alphas_cumprod[-1] < make_scheduler().alphas_cumprod[-1]

"""The trainer of MVDream: where it begins, what an error costs, what moves."""

import pytest
import torch

from geodream_lib.lab import train_mvdream
from geodream_lib.lab.networks import (
    CONTEXT,
)
from geodream_lib.lab.train_mvdream import multiview_loss, orbit_conditions, start_mvdream
from geodream_lib.lab.training import Budget
from geodream_lib.views.mvdream.model import AZIMUTHS

CPU = torch.device("cpu")


def test_mvdream_begins_as_the_text_to_image_network(diffusion):
    noisy, text = torch.randn(4, 6, 16, 16), torch.randn(4, 5, CONTEXT)
    t, camera = torch.randint(1000, (4,)), torch.randn(4, 16)
    plain = diffusion.denoiser.raw(noisy, t, text)
    network = start_mvdream(diffusion).network
    torch.testing.assert_close(network(noisy, t, text, camera, 1), plain, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        network(noisy[:1].expand(4, -1, -1, -1), t[:1].expand(4), text[:1].expand(4, -1, -1), camera, 4),
        plain[:1].expand(4, -1, -1, -1),
        atol=1e-5,
        rtol=1e-4,
    )


def test_mvdream_learns_a_batch(diffusion):
    mvdream = start_mvdream(diffusion)
    trained = mvdream.network.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained.parameters(), 3e-3)
    latents, cameras = torch.randn(2, 4, 6, 8, 8), orbit_conditions(torch.tensor([AZIMUTHS] * 2), torch.zeros(2, 4))
    errors = []
    for _ in range(10):
        error = multiview_loss(mvdream, latents, ["a red log", ""], cameras, torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.9 * errors[0]
    assert trained.camera_embedding.linear_1.weight.grad.abs().max() > 0, "the camera has begun to speak"


def test_a_wrong_velocity_costs_its_square(diffusion, monkeypatch):
    """All views of an object have one timestep, and what is asked for is the velocity of each."""
    mvdream, latents, shown_at = start_mvdream(diffusion), torch.randn(3, 4, 6, 8, 8), []
    alphas = diffusion.denoiser.alphas_cumprod

    def knows(noisy, t, text, camera, views):
        shown_at.append(t)
        alpha = alphas[t, None, None, None]
        noise = (noisy - alpha.sqrt() * latents.flatten(0, 1)) / (1 - alpha).sqrt()
        return alpha.sqrt() * noise - (1 - alpha).sqrt() * latents.flatten(0, 1) + 0.5

    monkeypatch.setattr(mvdream.network, "forward", knows)
    error = multiview_loss(mvdream, latents, ["a log"] * 3, torch.zeros(3, 4, 16), torch.Generator().manual_seed(0))
    assert error.item() == pytest.approx(0.25, rel=1e-3)
    t = shown_at[0].unflatten(0, (3, 4))
    assert (t == t[:, :1]).all() and len(t[:, 0].unique()) == 3


def test_a_training_of_mvdream_moves_what_sees_the_views(diffusion, tmp_path, random_images, moved):
    mvdream, count = start_mvdream(diffusion), 33
    before = {name: tensor.clone() for name, tensor in mvdream.state_dict().items()}
    angles = torch.tensor([AZIMUTHS]).repeat(count, 1)
    data = random_images(count, 4, 32, 32), angles, angles.mul(0), ["a log"] * count, random_images(130, 32, 32)
    common = {"folder": tmp_path / "state", "device": CPU}
    words = ["a red log"] * 130
    train_mvdream.train_mvdream(mvdream, *data, words, budget=Budget(0.0, 2, 1e-3), **common)
    assert moved(before, mvdream.state_dict()) == set()
    train_mvdream.train_mvdream(mvdream, *data, words, budget=Budget(2e-3, 2, 1e-3, warmup_steps=1), **common)
    assert moved(before, mvdream.state_dict()) == {"network"} | {"diffusion"}
    kept = ("diffusion.vae", "diffusion.text_encoder")
    after = mvdream.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith(kept))
    assert "held_out_loss_2d" in (tmp_path / "state" / "log.jsonl").read_text()

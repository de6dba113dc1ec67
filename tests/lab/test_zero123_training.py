"""The trainer of Zero123: how it begins, what is asked of it, what moves."""

import pytest
import torch

from geodream_lib.lab.networks import make_unet, make_vae
from geodream_lib.lab.train_zero123 import (
    draw_targets,
    pictures_of,
    side_views,
    start_zero123,
    train_zero123,
    widen_input,
)
from geodream_lib.lab.training import Budget

CPU = torch.device("cpu")


def test_zero123_starts_as_the_text_to_image_network():
    torch.manual_seed(0)
    unet = make_unet(latent_channels=4).eval()
    wide = widen_input(unet).eval()
    noisy, beside, text = torch.randn(1, 4, 16, 16), torch.randn(1, 4, 16, 16), torch.randn(1, 1, 128)
    with torch.no_grad():
        narrow_out = unet(noisy, 500, text).sample
        wide_out = wide(torch.cat([noisy, beside], dim=1), 500, text).sample
    torch.testing.assert_close(wide_out, narrow_out, atol=1e-5, rtol=1e-4)


def test_a_training_begins_where_the_network_it_is_given_stands(tmp_path):
    torch.manual_seed(0)
    vae = make_vae()
    zero123 = start_zero123(make_unet(vae.config.latent_channels), vae)
    before = {name: tensor.clone() for name, tensor in zero123.state_dict().items()}
    images = torch.randint(0, 255, (33, 16, 32, 32, 3), dtype=torch.uint8)
    angles = torch.zeros(33, 16)
    shards = {"images": images, "azimuth": angles, "elevation": angles, "redrawn": images[:, :3]}
    common = {"folder": tmp_path, "device": CPU}
    trained = train_zero123(zero123, **shards, budget=Budget(0.0, 2, 1e-3), **common).state_dict()
    assert all(torch.equal(trained[name], tensor) for name, tensor in before.items())
    train_zero123(zero123, **shards, budget=Budget(1e-3, 2, 1e-3, warmup_steps=1), **common)
    moved = {
        name.split(".")[0] for name, tensor in zero123.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert moved == {"unet", "image_encoder", "clip_camera_projection"}, "the autoencoder stays"


def test_most_views_that_zero123_is_asked_for_lie_near_its_input():
    generator = torch.Generator().manual_seed(0)
    azimuth = torch.tensor([0.0, 20.0, -30.0, 90.0, 130.0, 180.0, -140.0, -90.0]).repeat(4000, 1)
    front = draw_targets(azimuth, torch.zeros(4000, dtype=torch.long), generator)
    assert set(front.tolist()) == set(range(8))
    # Six in ten among the two neighbours, the others among all eight.
    assert ((front == 1) | (front == 2)).float().mean().item() == pytest.approx(0.6 + 0.4 / 4, abs=0.03)
    lonely = draw_targets(azimuth, torch.full((4000,), 7), generator)
    assert torch.bincount(lonely, minlength=8).min() > 400, "who has no neighbour is asked for any view"


def test_side_views_are_the_nearest_to_front_left_and_right():
    azimuth = torch.tensor([[170.0, -2.0, 80.0, 300.0, -100.0], [10.0, -85.0, 95.0, 70.0, 350.0]])
    chosen = side_views(azimuth)
    assert chosen.tolist() == [[1, 2, 4], [0, 2, 1]]
    images = torch.arange(10, dtype=torch.uint8).reshape(2, 5, 1, 1, 1).expand(-1, -1, -1, -1, 3)
    assert pictures_of(images, chosen)[:, :, 0, 0, 0].tolist() == [[1, 2, 4], [5, 7, 6]]


def test_objects_that_are_held_out_teach_nothing(tmp_path):
    """Their angles are no numbers: one glance at them in training would spoil every weight."""
    torch.manual_seed(0)
    vae = make_vae()
    zero123 = start_zero123(make_unet(vae.config.latent_channels), vae)
    images = torch.randint(256, (3, 16, 32, 32, 3), dtype=torch.uint8)
    angles = torch.zeros(3, 16)
    angles[-2:] = torch.nan
    shards = {"images": images, "azimuth": angles, "elevation": angles, "redrawn": images[:1, :3]}
    budget = Budget(1e-3, 8, 1e-3, warmup_steps=1)
    train_zero123(zero123, **shards, held_objects=2, budget=budget, folder=tmp_path, device=CPU)
    assert all(tensor.isfinite().all() for tensor in zero123.state_dict().values())

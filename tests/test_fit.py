"""What a volume gains when it is moved until it shows what posed images show."""

from dataclasses import replace

import pytest
import torch

from geodream_lib.data import data_folder
from geodream_lib.fit import fit_volume
from geodream_lib.lab.measure.strangers import STRANGERS, shown, surface
from geodream_lib.lab.measure.volume import all_around, in_true_frame
from geodream_lib.presets import load_preset
from geodream_lib.volume import build_cost_volume, load_cost_volume_networks, volume_mesh


def test_a_fit_volume_is_nearer_to_the_object() -> None:
    preset = load_preset("lab")
    weights = data_folder() / preset.cost_volume
    if not weights.is_file():
        pytest.skip(f"no weights at {weights}")
    networks = load_cost_volume_networks(weights)
    true, cameras = surface(STRANGERS["chair"][0], 64), all_around(8, 3)
    images, opacity = shown(true, STRANGERS["chair"][1], cameras)
    volume = build_cost_volume(images, cameras, networks, 32)
    before = volume.volume.clone()
    settings = replace(preset.field, samples_per_ray=48, occupancy_resolution=32)
    with torch.no_grad():
        fitted = fit_volume(volume, networks, images, opacity[..., None], cameras, settings, 60)
    torch.testing.assert_close(volume.volume, before, rtol=0, atol=0)
    scores = [in_true_frame(volume_mesh(v, networks.decoder, 64), true) for v in (volume, fitted)]
    assert scores[1].chamfer < 0.8 * scores[0].chamfer
    assert scores[1].f_score > scores[0].f_score

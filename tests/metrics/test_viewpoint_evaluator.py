"""The viewpoint evaluator answers on a circle."""

import json

import pytest
import torch

from geodream_lib.errors import InputError
from geodream_lib.metrics.viewpoint import BINS, Viewpoint, bin_angles, mean_direction


@pytest.fixture
def network() -> Viewpoint:
    torch.manual_seed(0)
    return Viewpoint((8, 16), 16).eval()


def certain(*bins: int) -> torch.Tensor:
    return torch.eye(BINS)[list(bins)]


def test_a_certain_answer_is_its_direction():
    azimuth, concentration = mean_direction(torch.eye(BINS))
    turned = (azimuth - bin_angles() + 180) % 360 - 180
    torch.testing.assert_close(turned, torch.zeros(BINS), atol=1e-3, rtol=0)
    torch.testing.assert_close(concentration, torch.ones(BINS))
    assert (azimuth > -180).all() and (azimuth <= 180).all()


def test_directions_are_averaged_across_the_end_of_the_circle():
    last = BINS - 1
    azimuth, concentration = mean_direction(certain(0, last).mean(0, keepdim=True))
    assert azimuth.item() == pytest.approx(-180 / BINS, abs=1e-3), "between the last bin and the first, not opposite"
    assert concentration.item() > 0.99


def test_doubt_between_front_and_back_is_seen_and_the_likelier_one_is_left():
    front, back = certain(0), certain(BINS // 2)
    azimuth, concentration = mean_direction(0.6 * front + 0.4 * back)
    assert azimuth.item() == pytest.approx(0, abs=1e-3) and concentration.item() == pytest.approx(0.2, abs=1e-4)
    assert mean_direction(torch.full((1, BINS), 1 / BINS))[1].item() == pytest.approx(0, abs=1e-5)


def test_frontness_is_the_probability_of_what_is_near_the_front(network, monkeypatch):
    """45 degrees to either side of the front are the front, one bin further is not."""
    steps = int(45 // (360 / BINS))
    for bin_, expected in ((0, 1), (steps, 1), (BINS - steps, 1), (steps + 1, 0), (BINS // 2, 0)):
        monkeypatch.setattr(network, "distribution", lambda images, bin_=bin_: certain(bin_))
        assert network.frontness(torch.rand(1, 16, 16, 3)).item() == expected


def test_pictures_of_any_size_are_seen(network):
    images = torch.rand(3, 40, 40, 3)
    distribution = network.distribution(images)
    torch.testing.assert_close(distribution.sum(-1), torch.ones(3))
    azimuth, concentration = network.predict(images)
    assert azimuth.shape == concentration.shape == network.frontness(images).shape == (3,)
    for wrong in (images[:, :30], images[:0]):
        with pytest.raises(InputError, match="expected square ones"):
            network.predict(wrong)


def test_a_saved_network_answers_as_before(network, tmp_path):
    network.save(tmp_path / "viewpoint")
    images = torch.rand(2, 16, 16, 3)
    assert torch.equal(Viewpoint.load(tmp_path / "viewpoint").distribution(images), network.distribution(images))
    config = tmp_path / "viewpoint" / "config.json"
    config.write_text(json.dumps({"widths": [8, 24], "image_size": 16}))
    with pytest.raises(InputError, match="does not fit Viewpoint"):
        Viewpoint.load(tmp_path / "viewpoint")
    config.write_text("{}")
    with pytest.raises(InputError, match="describes no viewpoint network"):
        Viewpoint.load(tmp_path / "viewpoint")
    with pytest.raises(InputError, match="cannot read"):
        Viewpoint.load(tmp_path / "nothing")

"""Faces around the circle, counted."""

import pytest
import torch

from geodream_lib.metrics.janus import count_fronts, janus


def ring(*faces: float, count: int = 120, width: float = 50.0, height: float = 0.95) -> torch.Tensor:
    """Frontness with a bump around each azimuth in `faces`, over a floor that is a little uneven."""
    azimuth = torch.arange(count) * (360 / count)
    value = 0.05 + 0.03 * torch.sin(torch.arange(count) * 2.4)
    for face in faces:
        away = ((azimuth - face + 180) % 360 - 180).abs()
        value = torch.maximum(value, height * (1 - away / (2 * width)).clamp(min=0))
    return value


@pytest.mark.parametrize(
    ("faces", "fronts"),
    [((), 0), ((0,), 1), ((358,), 1), ((90,), 1), ((0, 180), 2), ((350, 170), 2), ((10, 130, 250), 3)],
)
@pytest.mark.parametrize("count", [36, 120])
def test_fronts_are_counted_across_the_seam_of_the_circle(faces, fronts, count):
    assert count_fronts(ring(*faces, count=count)) == fronts


def test_a_wavering_front_is_one_and_an_unlikely_one_is_none():
    one = ring(0.0)
    one[:3] -= torch.tensor([0.15, 0.0, 0.1])
    assert count_fronts(one) == 1
    assert count_fronts(ring(0.0, 180.0, height=0.4)) == 0
    assert count_fronts(torch.full((36,), 0.9)) == 1, "an object that looks like a front everywhere"


def test_back_views_are_those_of_the_cameras_behind():
    azimuth = torch.arange(120) * 3.0
    good, bad = janus(ring(0.0), azimuth), janus(ring(0.0, 180.0, width=60), azimuth)
    assert good.back_fronts == 0 and good.fronts == 1 and good.consistent
    assert bad.back_fronts > 0.9 and bad.fronts == 2 and not bad.consistent
    faceless = janus(ring(), azimuth)
    assert faceless.fronts == 0 and not faceless.consistent
    everywhere = janus(torch.full((120,), 0.9), azimuth)
    assert everywhere.back_fronts == 1 and not everywhere.consistent
    assert len(bad.frontness) == 120 and bad.frontness[0] == pytest.approx(0.95, abs=1e-3)


def test_azimuths_may_be_given_in_any_turn():
    frontness, azimuth = ring(180.0), torch.arange(120) * 3.0
    assert janus(frontness, azimuth - 720).back_fronts == janus(frontness, azimuth).back_fronts > 0

"""Colours and fog."""

import colorsys

import pytest
import torch

from geodream_lib.errors import InputError
from geodream_lib.metrics.saturation import half_transparent, saturation


def picture(*colors: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor(colors, dtype=torch.float32)[None, None]


@pytest.mark.parametrize("color", [(0.8, 0.1, 0.1), (0.3, 0.6, 0.5), (0.2, 0.2, 0.2)])
def test_saturation_is_that_of_hsv(color):
    measured = saturation(picture(color, color), torch.ones(1, 1, 2, dtype=torch.bool))
    expected = colorsys.rgb_to_hsv(*color)[1]
    assert measured.mean == pytest.approx(expected, abs=1e-6) and measured.high == pytest.approx(expected, abs=1e-6)
    assert measured.clipped == 0


def test_pure_colours_are_saturated_and_clipped_and_black_is_not_saturated():
    pure = saturation(picture((1, 0, 0), (0, 1, 0)), torch.ones(1, 1, 2, dtype=torch.bool))
    assert (pure.mean, pure.high, pure.clipped) == (1, 1, 1)
    black = saturation(picture((0, 0, 0)), torch.ones(1, 1, 1, dtype=torch.bool))
    assert (black.mean, black.clipped) == (0, 1)


def test_only_the_object_s_pixels_count():
    image = picture((1, 0, 0), (0.4, 0.4, 0.4))
    assert saturation(image, torch.tensor([[[False, True]]])).mean == 0
    with pytest.raises(InputError, match="show no object"):
        saturation(image, torch.zeros(1, 1, 2, dtype=torch.bool))


def test_fog_is_the_share_of_the_silhouette_that_is_neither_empty_nor_solid():
    opacity = torch.tensor([0.0, 0.05, 0.5, 0.7, 0.95, 1.0, 1.0, 1.0]).reshape(1, 2, 4)
    assert half_transparent(opacity) == pytest.approx(2 / 6)
    with pytest.raises(InputError, match="empty everywhere"):
        half_transparent(torch.zeros(1, 2, 2))

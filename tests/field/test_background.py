"""What lies behind the object."""

import numpy as np
import torch

from geodream_lib.field import Background, solid_background, training_background
from geodream_lib.field.background import spherical_harmonics


def some_directions(n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(n, 5, 5, 3, generator=generator), dim=-1)


def test_spherical_harmonics_are_orthonormal() -> None:
    """Gauss-Legendre in cos(theta) times equal steps in phi integrates products of bands 0..2 exactly."""
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(6))
    phi = torch.arange(12, dtype=torch.float64) * (2 * torch.pi / 12)
    z, phi = (x.reshape(-1) for x in torch.meshgrid(nodes, phi, indexing="ij"))
    ring = (1 - z * z).sqrt()
    values = spherical_harmonics(torch.stack([ring * phi.cos(), ring * phi.sin(), z], dim=-1))
    weight = weights.repeat_interleave(12) * (2 * torch.pi / 12)
    gram = values.T @ (weight[:, None] * values)
    torch.testing.assert_close(gram, torch.eye(9, dtype=torch.float64), atol=1e-6, rtol=0)


def test_environment_gives_colours_and_learns() -> None:
    background = Background()
    colors = background(some_directions(2))
    assert colors.shape == (2, 5, 5, 3) and colors.min() > 0 and colors.max() < 1
    colors.sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in background.parameters())


def test_training_background_is_one_random_colour_in_about_half_of_the_images() -> None:
    environment = Background()
    directions = some_directions(400)
    colors = training_background(environment, 0.5, torch.Generator().manual_seed(1))(directions)
    plain = (colors == colors[:, :1, :1]).flatten(1).all(1)
    assert 0.4 < plain.float().mean() < 0.6
    assert len({tuple(color) for color in colors[plain][:, 0, 0].tolist()}) == plain.sum()
    torch.testing.assert_close(colors[~plain], environment(directions)[~plain])


def test_random_colours_are_no_darker_than_asked() -> None:
    light = training_background(Background(), 1.0, torch.Generator().manual_seed(1), darkest=0.6)(some_directions(100))
    assert 0.6 <= light.min() < 0.62 and 0.98 < light.max() <= 1


def test_solid_background_is_one_colour_or_one_per_image() -> None:
    directions = some_directions(2)
    assert (solid_background(torch.ones(3))(directions) == 1).all()
    each = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(solid_background(each)(directions)[:, 2, 3], each)

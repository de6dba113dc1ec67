"""The Fréchet distance of two sets of features."""

import math

import pytest
import scipy.linalg
import torch

from geodream_lib.errors import InputError
from geodream_lib.metrics.fid import frechet_distance


def normal(count: int, mean: torch.Tensor, root: torch.Tensor, seed: int) -> torch.Tensor:
    """Rows whose sample mean is exactly `mean` and whose sample covariance is exactly `root root^T`."""
    drawn = torch.randn(count, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    drawn -= drawn.mean(dim=0)
    whitened = torch.linalg.solve_triangular(
        torch.linalg.cholesky(drawn.T @ drawn / (count - 1)), drawn.T, upper=False
    ).T
    return (mean + whitened @ root.T).float()


@pytest.mark.parametrize(("count", "width"), [(40, 8), (6, 32)])
def test_equal_sets_have_distance_zero(count, width):
    """Also where there are fewer images than features, so that the covariance is singular."""
    features = torch.randn(count, width, generator=torch.Generator().manual_seed(count))
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(features, features[torch.randperm(count)]) == pytest.approx(0, abs=1e-6)


def test_shifted_normal_distributions_have_the_closed_form():
    """|shift|^2 for equal covariances; with commuting ones (s_1 - s_2)^2 is added for each axis."""
    shift, spread = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([1.0, 2.0, 0.5])
    eye = torch.eye(3, dtype=torch.float64)
    one = normal(500, torch.zeros(3, dtype=torch.float64), eye, 0)
    assert frechet_distance(one, normal(700, shift.double(), eye, 1)) == pytest.approx(5.25, rel=1e-4)
    other = normal(700, shift.double(), torch.diag(spread).double(), 1)
    assert frechet_distance(one, other) == pytest.approx(5.25 + ((spread - 1) ** 2).sum().item(), rel=1e-4)


def test_it_is_the_distance_with_the_root_of_the_product():
    """The definition, for covariances that do not commute."""
    generator = torch.Generator().manual_seed(3)
    one = torch.randn(60, 5, generator=generator) @ torch.randn(5, 5, generator=generator)
    other = torch.randn(80, 5, generator=generator) @ torch.randn(5, 5, generator=generator) + 1
    a, b = one.double().T.cov().numpy(), other.double().T.cov().numpy()
    shift = (one.mean(dim=0) - other.mean(dim=0)).square().sum().item()
    expected = shift + (a + b - 2 * scipy.linalg.sqrtm(a @ b).real).trace()
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-5)
    assert frechet_distance(other, one) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("other", [torch.rand(1, 4), torch.rand(9, 5), torch.full((9, 4), math.nan)])
def test_sets_that_cannot_be_compared(other):
    with pytest.raises(InputError, match="FID of features"):
        frechet_distance(torch.rand(9, 4), other)

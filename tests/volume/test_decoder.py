"""Eqs. 2 and 7: samples of the volume, signed distance and gradient, and what a loss on them sends back."""

import copy

import pytest
import torch
from torch.nn import functional as F

from geodream_lib.volume import sample
from geodream_lib.volume.decoder import BETA, GeometryDecoder, positional_encoding, query_sdf, query_sdf_and_gradient
from geodream_lib.volume.prior_render import quantiles
from geodream_lib.volume.sample import sample_volume, sample_volume_with_jacobian
from geodream_lib.volume.softplus import softplus_and_slope


@pytest.fixture
def volume() -> torch.Tensor:
    """Unequal axes, so that a swap of axes shows."""
    stored = torch.randn(6, 7, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return stored.permute(3, 0, 1, 2).requires_grad_()


@pytest.fixture
def points() -> torch.Tensor:
    return torch.rand(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 1.96 - 0.98


@pytest.fixture
def decoder() -> GeometryDecoder:
    torch.manual_seed(2)
    decoder = GeometryDecoder(hidden=24, latent=8).double()
    for parameter in decoder.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return decoder


def library_samples(volume: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """The library's interpolation, with its last coordinate first; equal to ours inside the cube."""
    grid = points.flip(-1)[None, None, None]
    return F.grid_sample(volume[None], grid, align_corners=True)[0, :, 0, 0].T


def test_samples_and_jacobian_agree_with_the_library(volume: torch.Tensor, points: torch.Tensor) -> None:
    points.requires_grad_()
    expected = library_samples(volume, points)
    value, jacobian = sample_volume_with_jacobian(volume, points)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(sample_volume(volume, points), expected)
    for channel in range(volume.shape[0]):
        slope = torch.autograd.grad(expected[:, channel].sum(), points, retain_graph=True)[0]
        torch.testing.assert_close(jacobian[:, channel], slope)


def test_gradient_to_the_volume_passes_gradcheck() -> None:
    points = torch.rand(5, 3, dtype=torch.float64) * 2.4 - 1.2
    volume = torch.randn(2, 3, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: sample_volume_with_jacobian(v, points), volume)


def test_single_backward_equals_double_backward(
    volume: torch.Tensor, points: torch.Tensor, decoder: GeometryDecoder
) -> None:
    """An eikonal loss: chain rule written out, against automatic differentiation twice through the library."""
    sdf, gradient = query_sdf_and_gradient(volume, decoder, points)
    loss = (gradient.norm(dim=-1) - 1).square().mean() + sdf.square().mean()

    moving = points.clone().requires_grad_()
    same_sdf = decoder(moving, library_samples(volume, moving))[0]
    same_gradient = torch.autograd.grad(same_sdf.sum(), moving, create_graph=True)[0]
    same_loss = (same_gradient.norm(dim=-1) - 1).square().mean() + same_sdf.square().mean()
    torch.testing.assert_close(sdf, same_sdf)
    torch.testing.assert_close(gradient, same_gradient)

    wanted = [volume, *decoder.parameters()]
    ours, theirs = (torch.autograd.grad(value, wanted) for value in (loss, same_loss))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_boundary_is_zero_below_and_repeated_above() -> None:
    volume = torch.ones(1, 5, 5, 5)
    x = torch.tensor([-1.1, -1.0, -0.999, 0.0, 1.0, 1.2, 1.49, 1.51, 1e9, float("nan")])
    points = torch.stack([x, torch.zeros_like(x), torch.zeros_like(x)], dim=-1)
    expected = torch.tensor([0.0, 0, 1, 1, 1, 1, 1, 0, 0, 0])
    torch.testing.assert_close(sample_volume(volume, points)[:-1, 0], expected[:-1])
    value, jacobian = sample_volume_with_jacobian(volume, points[:-1])
    torch.testing.assert_close(value[:, 0], expected[:-1])
    assert jacobian.abs().max() == 0


def test_encoding_is_the_point_and_six_octaves() -> None:
    encoded = positional_encoding(torch.tensor([[0.1, 0.2, 0.3]]))
    assert encoded.shape == (1, 39)
    torch.testing.assert_close(encoded[0, :3], torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(encoded[0, 33:36], torch.sin(32 * torch.tensor([0.1, 0.2, 0.3])))


def test_decoder_starts_as_a_sphere_whatever_the_volume() -> None:
    torch.manual_seed(0)
    decoder = GeometryDecoder(hidden=256)
    points = torch.randn(500, 3) * 0.4
    with torch.no_grad():
        sdf = query_sdf(torch.randn(16, 4, 4, 4), decoder, points)
    radius = points.norm(dim=-1)
    assert (sdf[radius < 0.3] < 0).all() and (sdf[radius > 0.8] > 0).all()
    assert (sdf - (radius - 0.5)).abs().mean() < 0.1


def test_quantiles_fall_where_the_weight_is() -> None:
    borders = torch.linspace(0, 1, 11)[None]
    weights = torch.zeros(1, 10)
    weights[0, 6] = 1.0
    places = quantiles(borders, weights, 8)
    assert ((places > 0.6) & (places < 0.7)).all()
    assert (places.diff() > 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_frozen_decoder_says_the_same_and_sends_the_same_back(
    volume: torch.Tensor, points: torch.Tensor, decoder: GeometryDecoder, dtype: torch.dtype
) -> None:
    """Both passes written out, against automatic differentiation of what `sdf_and_gradient` says."""
    decoder, points = decoder.to(dtype), points.to(dtype)
    frozen = copy.deepcopy(decoder).requires_grad_(False)
    results = []
    for network in (decoder, frozen):
        start = volume.detach().to(dtype).requires_grad_()
        sdf, gradient = query_sdf_and_gradient(start, network, points)
        ((gradient.norm(dim=-1) - 1).square() + sdf.sin()).sum().backward()
        results.append((sdf, gradient, start.grad))
    for expected, written_out in zip(*results, strict=True):
        tolerance = {"atol": 1e-4, "rtol": 1e-4} if dtype == torch.float32 else {}
        torch.testing.assert_close(written_out, expected, **tolerance)
    torch.testing.assert_close(query_sdf(volume.to(dtype), frozen, points), results[0][0])


def test_compiled_samples_are_the_samples(
    volume: torch.Tensor, points: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside, on the border and outside of a volume with unequal axes; value, jacobian and what goes back."""
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 0.3, 1.0, 1.1])] * 3)
    everywhere = torch.cat([points.float(), corners, torch.tensor([[1e30, 0, 0]])])

    def sampled() -> tuple[torch.Tensor, ...]:
        start = volume.detach().float().requires_grad_()
        value, jacobian = sample_volume_with_jacobian(start, everywhere)
        (value.sin().sum() + (2 * jacobian).cos().sum()).backward()
        return value, jacobian, start.grad

    compiled = sampled()
    monkeypatch.setattr(sample, "_compiled_kernels", lambda: None)
    for ours, expected in zip(compiled, sampled(), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_compiled_softplus_is_right_to_the_rounding_and_passes_on_what_is_no_number() -> None:
    a = torch.cat([torch.linspace(-1, 1, 3001), torch.tensor([-1e6, 1e6, 0.0])])[:, None]
    value, slope = softplus_and_slope(a, BETA)
    torch.testing.assert_close(
        value.double(), F.softplus(BETA * a.double(), threshold=1e3) / BETA, atol=2e-8, rtol=1e-6
    )
    torch.testing.assert_close(slope.double(), torch.sigmoid(BETA * a.double()), atol=2e-7, rtol=0)
    assert softplus_and_slope(torch.full((1, 1), torch.nan), BETA)[0].isnan()

"""Normalisation by the statistics of the data: the same in training and at inference, exact for millions of values."""

import pytest
import torch
from torch import Tensor, nn

from geodream_lib.volume.norm import EPS, normalize


def layer(channels: int) -> nn.BatchNorm1d:
    generator = torch.Generator().manual_seed(0)
    norm = nn.BatchNorm1d(channels)
    norm.weight.data.normal_(generator=generator)
    norm.bias.data.normal_(generator=generator)
    return norm


def image_batch(dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(3, 5, 8, 6, generator=torch.Generator().manual_seed(1)) * 2 + 3
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("x", [image_batch(), image_batch().contiguous(), image_batch()[0, :, :, 0].T])
def test_training_and_inference_normalise_alike(x: Tensor) -> None:
    """Values and gradients; training alone moves the running statistics."""
    norm, results = layer(5), []
    for mode in (True, False):
        norm.train(mode)
        before = norm.running_mean.clone()
        given = x.detach().clone().requires_grad_()
        value = normalize(given, norm, norm.weight, "batch")
        projection = torch.linspace(-1, 1, value.numel()).view_as(value)
        results.append((value, *torch.autograd.grad((value * projection).sum(), (given, norm.weight, norm.bias))))
        assert torch.equal(norm.running_mean, before) != mode
    for training, inference in zip(*results, strict=True):
        torch.testing.assert_close(inference, training, atol=1e-4, rtol=1e-4)


def test_half_precision_stays_half_with_exact_statistics() -> None:
    norm = layer(5).eval()
    value = normalize(image_batch(torch.bfloat16), norm, norm.weight, "batch")
    exact = normalize(image_batch(torch.bfloat16).float(), norm, norm.weight, "batch")
    assert value.dtype == torch.bfloat16
    assert torch.equal(value, exact.to(torch.bfloat16))


def test_a_million_values_per_channel_lose_no_digits() -> None:
    """As many as the views of a full-size volume have pixels, and the volume voxels."""
    x = torch.randn(1_000_000, 4, generator=torch.Generator().manual_seed(2)) * 0.5 + 1
    norm = layer(4).eval()
    value = normalize(x, norm, norm.weight, "batch")
    truth = x.double()
    mean, variance = truth.mean(dim=0), truth.var(dim=0, correction=0)
    expected = (truth - mean) / (variance + EPS).sqrt() * norm.weight.double() + norm.bias.double()
    torch.testing.assert_close(value.double(), expected, atol=1e-5, rtol=1e-5)

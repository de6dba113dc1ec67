"""The hash encoding: tiny-cuda-nn's geometry, and compiled kernels that agree with the reference."""

import numpy as np
import pytest
import torch

from geodream_lib.field import hash_encoding
from geodream_lib.field.hash_encoding import HashEncoding, encode_reference, grid_levels, table_row


def some_points(n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    corners = torch.tensor([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)], dtype=torch.float32)
    return torch.cat([torch.rand(n, 3, generator=generator), corners, torch.full((1, 3), 0.5)])


def test_defaults_have_the_size_of_the_released_table() -> None:
    encoding = HashEncoding()
    assert encoding.dimension == 32
    assert encoding.table.numel() == 12_599_920
    levels = encoding.levels
    assert [level.resolution for level in levels[:3]] == [16, 24, 34] and levels[-1].resolution == 4096
    # 80^3 is the finest grid that fits into 2^19 entries.
    assert [level.dense for level in levels] == [level.resolution <= 80 for level in levels]


def test_hashed_row_is_the_xor_of_products_in_32_bits() -> None:
    level = grid_levels(levels=16, log2_table=19, base_resolution=16, growth=1.447269237440378)[-1]
    x, y, z = (np.array([value], dtype=np.uint32) for value in (4001, 3777, 2500))
    hashed = x ^ (y * np.uint32(2654435761)) ^ (z * np.uint32(805459861))
    row = table_row(torch.tensor([[4001, 3777, 2500]]), level)
    assert row.item() == level.offset + int(hashed[0]) % 2**19


def test_dense_level_reproduces_a_linear_function() -> None:
    """Trilinear interpolation is exact for linear functions; vertex v of a level stands at (v - 0.5) / scale."""
    encoding = HashEncoding(levels=1, features=1, log2_table=15, base_resolution=8)
    level = encoding.levels[0]
    axis = (torch.arange(level.resolution) - 0.5) / level.scale
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")  # x is the fastest
    encoding.table.data[:, 0] = (x + 2 * y - 3 * z).reshape(-1)
    points = some_points(200)[:200] * 0.9
    expected = points @ torch.tensor([1.0, 2.0, -3.0])
    torch.testing.assert_close(encoding(points)[:, 0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [{"levels": 8, "log2_table": 15}, {"levels": 4, "features": 4, "log2_table": 8}])
def test_compiled_kernels_agree_with_the_reference(shape: dict) -> None:
    encoding = HashEncoding(**shape)
    encoding.table.data.uniform_(-1, 1)
    points = some_points(3000)
    upstream = torch.randn(len(points), encoding.dimension)
    assert hash_encoding._compiled_kernels() is not None
    fast, reference = encoding(points), encode_reference(points, encoding.table, encoding.levels)
    torch.testing.assert_close(fast, reference, atol=1e-6, rtol=0)
    (fast_gradient,) = torch.autograd.grad(fast, encoding.table, upstream)
    (reference_gradient,) = torch.autograd.grad(reference, encoding.table, upstream)
    torch.testing.assert_close(fast_gradient, reference_gradient, atol=1e-5, rtol=1e-5)


def test_without_the_compiler_the_reference_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = HashEncoding(levels=3, log2_table=10)
    points = some_points(50)
    expected = encoding(points)
    monkeypatch.setattr(hash_encoding, "_compiled_kernels", lambda: None)
    torch.testing.assert_close(encoding(points), expected, atol=1e-9, rtol=1e-5)


def test_no_points_give_no_features_and_a_zero_gradient() -> None:
    encoding = HashEncoding(levels=2, log2_table=10)
    encoding(torch.zeros(0, 3)).sum().backward()
    assert encoding.table.grad.abs().max() == 0

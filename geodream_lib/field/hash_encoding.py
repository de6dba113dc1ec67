"""Multi-resolution hash encoding h_Omega of eq. (8): Instant-NGP (Mueller et al. 2022, section 3).

The grid geometry follows tiny-cuda-nn, so a table trained there reads the same here:

- level l has `scale = base_resolution * growth**l - 1` and `resolution = ceil(scale) + 1` vertices per axis; a point x
  in [0, 1]^3 stands at `x * scale + 0.5` (the half shifts the grids of different levels against each other);
- a level that fits into 2^log2_table entries is stored densely, x fastest, its size rounded up to a multiple of 8; any
  other level is hashed with the primes (1, 2654435761, 805459861);
- the vertex past the last of a dense row, reached only by the outer half cell, wraps into the next row.
"""

import functools
import logging
import math
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from geodream_lib.cpu_kernels import cpu_kernels
from geodream_lib.cuda_libraries import library

_compiled_kernels = functools.partial(cpu_kernels, "geodream_lib.field.hash_kernels")

logger = logging.getLogger(__name__)

PRIMES = (1, 2654435761, 805459861)


class Level(NamedTuple):
    """One grid of the encoding: `size` rows of the table from row `offset` on."""

    scale: float
    resolution: int
    offset: int
    size: int
    dense: bool


def grid_levels(levels: int, log2_table: int, base_resolution: int, growth: float) -> tuple[Level, ...]:
    """Geometry of every level, coarse to fine."""
    result, offset = [], 0
    for index in range(levels):
        # Rounded to float32 before the ceiling: 16 * growth**15 = 4096.0000000002 is meant to be 4096.
        scale = float(np.float32(base_resolution * growth**index - 1.0))
        resolution = math.ceil(scale) + 1
        dense = resolution**3 <= 2**log2_table
        size = min(-(-(resolution**3) // 8) * 8, 2**log2_table)
        result.append(Level(scale, resolution, offset, size, dense))
        offset += size
    return tuple(result)


def table_row(vertex: Int[Tensor, "*n 3"], level: Level) -> Int[Tensor, "*n"]:
    """Row of the table that holds a grid vertex (Instant-NGP eq. 4 where the level is hashed)."""
    x, y, z = vertex.unbind(-1)
    if level.dense:
        row = x + (y + z * level.resolution) * level.resolution
    else:
        row = x * PRIMES[0] ^ y * PRIMES[1] ^ z * PRIMES[2]
    return level.offset + row % level.size


def encode_reference(
    points: Float[Tensor, "n 3"], table: Float[Tensor, "rows features"], levels: tuple[Level, ...]
) -> Float[Tensor, "n dimension"]:
    """The meaning of the encoding in plain PyTorch: gather 8 vertices per level and interpolate (any device)."""
    corners = torch.tensor([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)], device=points.device)
    encoded = []
    for level in levels:
        position = points.detach() * level.scale + 0.5
        cell = position.floor()
        fraction = (position - cell)[:, None]  # [n, 1, 3]
        weight = torch.where(corners == 1, fraction, 1 - fraction).prod(-1)  # [n, 8]
        row = table_row(cell.long()[:, None] + corners, level)  # [n, 8]
        vertex = table.index_select(0, row.reshape(-1)).view(*row.shape, -1)  # [n, 8, features]
        encoded.append((weight[..., None] * vertex).sum(1))
    return torch.cat(encoded, dim=-1)


class _CompiledEncoding(torch.autograd.Function):
    """`encode_reference` by the compiled CPU kernels; differentiable in the table, once."""

    @staticmethod
    def forward(ctx, points: Tensor, table: Tensor, levels: tuple[Level, ...]) -> Tensor:
        ctx.save_for_backward(points)
        ctx.levels, ctx.table_shape = levels, table.shape
        encoded = points.new_empty(points.shape[0], len(levels) * table.shape[1])
        geometry = _level_arrays(levels)
        _compiled_kernels().encode(points.numpy(), table.detach().numpy(), *geometry, encoded.numpy())
        return encoded

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[None, Tensor, None]:
        (points,) = ctx.saved_tensors
        table_gradient = gradient.new_zeros(ctx.table_shape)
        geometry = _level_arrays(ctx.levels)
        _compiled_kernels().scatter(points.numpy(), gradient.contiguous().numpy(), *geometry, table_gradient.numpy())
        return None, table_gradient, None


@functools.cache
def _level_arrays(levels: tuple[Level, ...]) -> tuple[np.ndarray, ...]:
    dtypes = (np.float32, np.int64, np.int64, np.int64, np.bool_)
    return tuple(np.array(column, dtype) for column, dtype in zip(zip(*levels, strict=True), dtypes, strict=True))


@functools.cache
def tinycudann_grid(
    tinycudann: ModuleType,
    device: torch.device,
    levels: int,
    features: int,
    log2_table: int,
    base_resolution: int,
    growth: float,
) -> nn.Module | None:
    """tiny-cuda-nn's encoding of this geometry on the current CUDA device, its table taken away: ours is lent to it.

    In float32, as in the public systems. None where it does not know that number of features, or would read our table
    differently: it computes the scale of a level in float32, so that a dense level whose `scale` is a whole number may
    get one vertex more per axis.
    """
    if features not in (1, 2, 4, 8):
        return None
    geometry = {
        "otype": "HashGrid",
        "n_levels": levels,
        "n_features_per_level": features,
        "log2_hashmap_size": log2_table,
        "base_resolution": base_resolution,
        "per_level_scale": growth,
        "interpolation": "Linear",
    }
    grid = tinycudann.Encoding(3, geometry, dtype=torch.float32)
    last = grid_levels(levels, log2_table, base_resolution, growth)[-1]
    if grid.params.numel() != (last.offset + last.size) * features:
        logger.warning("tiny-cuda-nn lays out the hash table of %s differently, PyTorch encodes instead", geometry)
        return None
    grid.params = nn.Parameter(grid.params.new_empty(0), requires_grad=False)
    return grid


def encode_with_grid(
    grid: nn.Module, points: Float[Tensor, "n 3"], table: Float[Tensor, "rows features"]
) -> Float[Tensor, "n dimension"]:
    """`encode_reference` by a grid of `tinycudann_grid` that reads, and sends its gradient to, our table."""
    return torch.func.functional_call(grid, {"params": table.view(-1)}, (points.detach(),))


class HashEncoding(nn.Module):
    """Learnable look-up of a feature vector for any point (h_Omega of eq. (8)).

    The defaults are those of the released GeoDream configuration: 16 levels from 16 to 4096 vertices per axis. A
    float32 table goes through tiny-cuda-nn on CUDA where that is active, and on the CPU through the compiled kernels of
    hash_kernels.py (4-5 times faster) when those can be imported; everything else goes through `encode_reference`,
    which says the same.

    Warning: not differentiable with respect to the points.
    """

    def __init__(
        self,
        levels: int = 16,
        features: int = 2,
        log2_table: int = 19,
        base_resolution: int = 16,
        growth: float = 1.447269237440378,
    ):
        super().__init__()
        self.config = {
            "levels": levels,
            "features": features,
            "log2_table": log2_table,
            "base_resolution": base_resolution,
            "growth": growth,
        }
        self.levels = grid_levels(levels, log2_table, base_resolution, growth)
        rows = self.levels[-1].offset + self.levels[-1].size
        self.table = nn.Parameter(torch.empty(rows, features).uniform_(-1e-4, 1e-4))

    @property
    def dimension(self) -> int:
        """Length of an encoded vector: levels * features, coarse level first."""
        return len(self.levels) * self.table.shape[1]

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n dimension"]:
        """Encode points of the unit cube [0, 1]^3."""
        if self.table.dtype == torch.float32:
            if tinycudann := library("tinycudann", points, self.table):
                grid = tinycudann_grid(tinycudann, points.device, **self.config)
                if grid is not None and points.shape[0] > 0:
                    return encode_with_grid(grid, points, self.table)
            if points.device.type == "cpu" and _compiled_kernels():
                return _CompiledEncoding.apply(points.detach().float().contiguous(), self.table, self.levels)
        return encode_reference(points, self.table, self.levels)

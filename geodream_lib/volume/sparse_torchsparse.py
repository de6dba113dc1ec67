"""Sparse 3D convolution by torchsparse on CUDA: rows are gathered by pairs of sites, multiplied and added up.

torchsparse 1.4, on which the released networks ran, and 2.1 agree on what a pair of sites contributes and on the order
of the kernel's offsets (x the fastest). They differ in coordinates ((x, y, z, batch) became (batch, x, y, z)) and in
the sites a strided convolution puts out: 2.1 follows spconv, from 0 to the last fine site, 1.4 has other bounds (see
`strided_sites`). So the pairs are made here, from our own sites, and the gather-scatter convolution of either version
is given them in place of its own. It computes in float32; under autocast 1.4 computes in half precision.
"""

import importlib
import itertools
from types import ModuleType

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


def site_pairs(
    fine: Bool[Tensor, "x y z"], coarse: Bool[Tensor, "xs ys zs"], stride: int
) -> tuple[Int[Tensor, "p 2"], Int[Tensor, "27"]]:
    """Every (row in `fine`, row in `coarse`) whose sites a 3x3x3 kernel connects: fine site = stride * coarse + offset.

    Pairs are sorted by the kernel's offset; the second result counts those of each. With stride 1 both are one mask.
    """
    row = torch.full(fine.shape, -1, device=fine.device)
    row[fine] = torch.arange(int(fine.sum()), device=fine.device)
    # The coarse sites span `reach` fine ones; padded, `row` has an entry for every neighbour of each, -1 for no site.
    reach = [stride * (size - 1) + 1 for size in coarse.shape]
    missing = [side for d, r in zip(reversed(fine.shape), reversed(reach), strict=True) for side in (1, r + 1 - d)]
    row = F.pad(row, missing, value=-1)
    rows_at_offsets = [
        row[x : x + reach[0] : stride, y : y + reach[1] : stride, z : z + reach[2] : stride][coarse]
        for z, y, x in itertools.product(range(3), repeat=3)
    ]
    table = torch.stack(rows_at_offsets)  # [27, coarse sites]
    found = table >= 0
    return torch.stack([table[found], found.nonzero()[:, 1]], dim=1).int(), found.sum(dim=1).int()


def convolve_pairs(
    torchsparse: ModuleType,
    rows: Float[Tensor, "m ci"],
    kernel: Float[Tensor, "27 ci co"],
    fine: Bool[Tensor, "x y z"],
    coarse: Bool[Tensor, "xs ys zs"],
    stride: int,
    transposed: bool = False,
) -> Float[Tensor, "k co"]:
    """Convolution from the sites `fine` to `coarse`, or transposed, from `coarse` to `fine` with the same pairs.

    Args:
        torchsparse: the library, 1.4 or 2.1.
        rows: features of the sites it starts from.
    """
    pairs, counts = site_pairs(fine, coarse, stride)
    sizes = (int(fine.sum()), int(coarse.sum()))
    if stride > 1 and sizes[0] == sizes[1]:
        # The library takes as many rows out as in for stride 1, where the middle offset pairs every row with itself,
        # and skips that offset's pairs. One row that no pair names tells it otherwise.
        rows = F.pad(rows, (0, 0, 0, 1))
    functions = importlib.import_module(f"{torchsparse.__name__}.nn.functional.conv")
    if hasattr(functions, "ConvolutionFunction"):  # 1.4
        return functions.ConvolutionFunction.apply(rows.float(), kernel.float(), pairs, counts, sizes, transposed)
    unused = pairs.new_empty(0)  # masks of a faster path that it takes only when its benchmark switch is on
    kernel_map = {"nbmaps": pairs, "nbsizes": counts, "sizes": sizes, "input_mask": unused, "output_mask": unused}
    functions = importlib.import_module(f"{torchsparse.__name__}.nn.functional.conv.func")
    convolution = functions.GatherScatterConvolutionFuntion  # the library's spelling
    return convolution.apply(rows.float(), kernel.float(), kernel_map, {"epsilon": 0.0, "mm_thresh": 0}, transposed)

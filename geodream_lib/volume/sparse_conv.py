"""Sparse 3D convolution on the voxels that at least two views see, with the rules of torchsparse 1.4.

Sites are given as a mask over a grid and their features as rows in the mask's x-major order. The body is a dense
convolution on zeros outside the mask: most voxels of a cost volume are active, and every device has it. Under
`torch.autocast(..., torch.bfloat16)` the convolution runs in bfloat16 (2.8 times faster on CPUs that support it). On
CUDA, torchsparse computes the same where it is active (see `sparse_torchsparse`).
Kernels are `[27, c_in, c_out]` with x the fastest of the three offsets.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from geodream_lib.cuda_libraries import library
from geodream_lib.volume.sparse_torchsparse import convolve_pairs


def submanifold_conv(
    rows: Float[Tensor, "m ci"], mask: Bool[Tensor, "x y z"], kernel: Float[Tensor, "27 ci co"]
) -> Float[Tensor, "m co"]:
    """3x3x3 convolution whose output sites are the input sites; inactive neighbours contribute nothing."""
    if torchsparse := library("torchsparse", rows, kernel):
        return convolve_pairs(torchsparse, rows, kernel, mask, mask, 1)
    weight = dense_kernel(kernel)
    return to_rows(F.conv3d(to_dense(rows, mask), weight, padding=1), mask)


def strided_sites(mask: Bool[Tensor, "x y z"]) -> Bool[Tensor, "xs ys zs"]:
    """Output sites of a 3x3x3 convolution of stride 2; coarse site q stands for the fine coordinate 2 q.

    A coarse site is active when one of the 27 fine sites around 2 q is and 2 q is not below the smallest active fine
    coordinate of any axis. There is no such upper bound: 2 q may be one past the last fine coordinate, so an axis of
    `d` fine sites has d // 2 + 1 coarse ones.
    """
    padded = F.pad(mask[None, None].float(), _stride_padding(mask.shape))
    coarse = F.max_pool3d(padded, kernel_size=3, stride=2)[0, 0] > 0
    smallest = mask.nonzero().amin(dim=0)
    for axis in range(3):
        below = 2 * torch.arange(coarse.shape[axis], device=mask.device) < smallest[axis]
        shape = [1, 1, 1]
        shape[axis] = -1
        coarse = coarse & ~below.reshape(shape)
    return coarse


def strided_conv(
    rows: Float[Tensor, "m ci"],
    fine: Bool[Tensor, "x y z"],
    coarse: Bool[Tensor, "xs ys zs"],
    kernel: Float[Tensor, "27 ci co"],
) -> Float[Tensor, "k co"]:
    """3x3x3 convolution of stride 2 from the sites `fine` to `coarse = strided_sites(fine)`."""
    if torchsparse := library("torchsparse", rows, kernel):
        return convolve_pairs(torchsparse, rows, kernel, fine, coarse, 2)
    dense = to_dense(rows, F.pad(fine, _stride_padding(fine.shape)))
    return to_rows(F.conv3d(dense, dense_kernel(kernel), stride=2), coarse)


def transposed_conv(
    rows: Float[Tensor, "k ci"],
    coarse: Bool[Tensor, "xs ys zs"],
    fine: Bool[Tensor, "x y z"],
    kernel: Float[Tensor, "27 ci co"],
) -> Float[Tensor, "m co"]:
    """The way back from `coarse` to `fine`: the pairs of `strided_conv` with roles swapped and the same offset."""
    if torchsparse := library("torchsparse", rows, kernel):
        return convolve_pairs(torchsparse, rows, kernel, fine, coarse, 2, transposed=True)
    weight = dense_kernel(kernel).transpose(0, 1)
    dense = F.conv_transpose3d(to_dense(rows, coarse), weight, stride=2, padding=1)
    # An even axis of d sites has d // 2 + 1 coarse ones, which reach back to d + 1 fine ones.
    reached = F.pad(fine, [side for d in reversed(fine.shape) for side in (0, 1 - d % 2)])
    return to_rows(dense, reached)


def to_dense(rows: Float[Tensor, "m c"], mask: Bool[Tensor, "x y z"]) -> Float[Tensor, "1 c x y z"]:
    """Scatter rows into a zero volume in channels-last memory, the layout 3D convolutions are fastest in."""
    dense = rows.new_zeros(mask.numel(), rows.shape[-1]).index_copy_(0, active_index(mask), rows)
    # The batch axis comes before the permutation: added after, its stride would hide the layout from the convolution.
    return dense.view(1, *mask.shape, rows.shape[-1]).permute(0, 4, 1, 2, 3)


def to_rows(dense: Float[Tensor, "1 c x y z"], mask: Bool[Tensor, "x y z"]) -> Float[Tensor, "m c"]:
    """Rows of the active sites, in float32 also under autocast (normalisation follows)."""
    return dense[0].permute(1, 2, 3, 0).flatten(0, 2).index_select(0, active_index(mask)).float()


def active_index(mask: Bool[Tensor, "x y z"]) -> Int[Tensor, " m"]:
    """Positions of the active sites in the flattened grid, in x-major order."""
    return mask.flatten().nonzero()[:, 0]


def dense_kernel(kernel: Float[Tensor, "27 ci co"]) -> Float[Tensor, "co ci 3 3 3"]:
    """Kernel of `conv3d` over (x, y, z): offsets are stored z slowest, x fastest."""
    weight = kernel.unflatten(0, (3, 3, 3)).permute(4, 3, 2, 1, 0)
    return weight.contiguous(memory_format=torch.channels_last_3d)


def _stride_padding(shape: torch.Size) -> list[int]:
    """Padding (last axis first) that makes an unpadded stride-2 convolution return d // 2 + 1 sites per axis."""
    return [side for d in reversed(shape) for side in (1, 2 - d % 2)]

"""V(x) of eq. 2: trilinear interpolation of the cost volume, and its derivative with respect to the point.

A volume is `[c, x, y, z]`. Any memory layout works; a view of channels-last storage (`stored.permute(3, 0, 1, 2)` of a
contiguous `[x, y, z, c]`) is read without a copy, and `predict_volume` and `CostVolume` hold theirs so.

The grid's corners are the cube's corners: voxel i of d lies at -1 + 2 i / (d - 1). The boundary is not symmetric, as
in the released decoder: a point with any coordinate at or below -1 samples zero; past +1 the border value is repeated
for one voxel width, and from there on the sample is zero.
"""

import functools

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodream_lib.cpu_kernels import cpu_kernels

_compiled_kernels = functools.partial(cpu_kernels, "geodream_lib.volume.sample_kernels")


def sample_volume(volume: Float[Tensor, "c x y z"], points: Float[Tensor, "n 3"]) -> Float[Tensor, "n c"]:
    """Trilinear samples, differentiable (twice) with respect to the volume and the points."""
    needed = torch.is_grad_enabled() and (volume.requires_grad or points.requires_grad)
    if not needed and _has_kernels(volume, points):
        return sample_volume_with_jacobian(volume, points)[0]
    index, weights, _ = _corners(points, volume.shape[1:])
    rows = volume.permute(1, 2, 3, 0).reshape(-1, volume.shape[0])
    corners = rows.index_select(0, index.reshape(-1)).unflatten(0, index.shape)
    return torch.einsum("nk,nkc->nc", weights, corners)


def sample_volume_with_jacobian(
    volume: Float[Tensor, "c x y z"], points: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "n c"], Float[Tensor, "n c 3"]]:
    """Trilinear samples and their derivative with respect to the point, from one gather.

    Both are differentiable with respect to the volume in a single backward pass, which is what a loss on SDF gradients
    needs; automatic differentiation would need a second one through the interpolation.

    On a CPU in float32 through the compiled kernels of sample_kernels.py (6 times faster) where those can be imported.

    Warning: points receive no gradient.
    """
    rows, shape = volume.permute(1, 2, 3, 0).reshape(-1, volume.shape[0]), volume.shape[1:]
    if _has_kernels(volume, points):
        out = _CompiledGather.apply(rows, points.detach().contiguous(), tuple(shape))
    else:
        index, weights, slopes = _corners(points.detach(), shape)
        # One matrix per point: the value's weights and the three derivatives' weights over the eight corners.
        out = _GatherCorners.apply(rows, index, torch.cat([weights[:, None], slopes], dim=1))
    return out[:, 0], out[:, 1:].transpose(1, 2)


def _has_kernels(volume: Float[Tensor, "c x y z"], points: Float[Tensor, "n 3"]) -> bool:
    return volume.device.type == "cpu" and volume.dtype == points.dtype == torch.float32 and bool(_compiled_kernels())


class _CompiledGather(torch.autograd.Function):
    """`out[n, 0]` the value and `out[n, 1:]` the derivatives at `points`; differentiable in `rows` only, once."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        rows: Float[Tensor, "v c"],
        points: Float[Tensor, "n 3"],
        shape: tuple[int, int, int],
    ) -> Float[Tensor, "n 4 c"]:
        ctx.save_for_backward(points)
        ctx.shape, ctx.rows = shape, rows.shape
        out = rows.new_empty(points.shape[0], 4, rows.shape[1])
        _compiled_kernels().gather(rows.detach().numpy(), shape, points.numpy(), out.numpy())
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad: Float[Tensor, "n 4 c"]
    ) -> tuple[Float[Tensor, "v c"], None, None]:
        (points,) = ctx.saved_tensors
        total = grad.new_zeros(ctx.rows)
        parts = min(torch.get_num_threads(), ctx.rows[1])
        _compiled_kernels().scatter(grad.contiguous().numpy(), ctx.shape, points.numpy(), parts, total.numpy())
        return total, None, None


class _GatherCorners(torch.autograd.Function):
    """`out[n, r] = sum_k weights[n, r, k] rows[index[n, k]]`, differentiable in `rows` only."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        rows: Float[Tensor, "v c"],
        index: Int[Tensor, "n 8"],
        weights: Float[Tensor, "n r 8"],
    ) -> Float[Tensor, "n r c"]:
        ctx.save_for_backward(index, weights)
        ctx.rows = rows.shape[0]
        corners = rows.index_select(0, index.reshape(-1)).unflatten(0, index.shape)
        return torch.bmm(weights, corners)

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad: Float[Tensor, "n r c"]
    ) -> tuple[Float[Tensor, "v c"], None, None]:
        index, weights = ctx.saved_tensors
        corners = torch.bmm(weights.transpose(1, 2), grad)
        total = grad.new_zeros(ctx.rows, grad.shape[-1])
        return total.index_add_(0, index.reshape(-1), corners.flatten(0, 1)), None, None


def _corners(
    points: Float[Tensor, "n 3"], shape: torch.Size | tuple[int, ...]
) -> tuple[Int[Tensor, "n 8"], Float[Tensor, "n 8"], Float[Tensor, "n 3 8"]]:
    """Flat indices of the eight voxels around each point, their trilinear weights, and those weights' slopes."""
    size = torch.tensor(shape, device=points.device)
    position = (points + 1) / 2 * (size - 1)
    inside = ((position > 0) & (position < size)).all(dim=-1, keepdim=True)
    # A point far outside must not overflow the integer index; its weight is zero anyway.
    lower = position.detach().floor().nan_to_num().clamp(min=0).minimum(size - 1)
    upper = (lower + 1).minimum(size - 1)
    near = (position - lower) * inside
    far = 1 - near

    wx, wy, wz = (torch.stack([far[:, i], near[:, i]], dim=-1) for i in range(3))
    zero = inside.to(points.dtype)
    weights = _outer(wx, wy, wz) * zero
    slope = torch.stack([-zero[:, 0], zero[:, 0]], dim=-1)
    half = (size - 1) / 2
    slopes = torch.stack(
        [_outer(slope, wy, wz) * half[0], _outer(wx, slope, wz) * half[1], _outer(wx, wy, slope) * half[2]], dim=1
    )
    ix, iy, iz = (torch.stack([lower[:, i], upper[:, i]], dim=-1).long() for i in range(3))
    index = (ix[:, :, None, None] * shape[1] + iy[:, None, :, None]) * shape[2] + iz[:, None, None, :]
    return index.flatten(1), weights, slopes


def _outer(a: Float[Tensor, "n 2"], b: Float[Tensor, "n 2"], c: Float[Tensor, "n 2"]) -> Float[Tensor, "n 8"]:
    return (a[:, :, None, None] * b[:, None, :, None] * c[:, None, None, :]).flatten(1)

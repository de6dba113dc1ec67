"""The activation of the geometry decoder, softplus(a) = log(1 + exp(beta a)) / beta, with its slope."""

import functools

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from geodream_lib.cpu_kernels import cpu_kernels

_compiled_kernels = functools.partial(cpu_kernels, "geodream_lib.volume.softplus_kernels")


@torch.no_grad()
def softplus_and_slope(a: Float[Tensor, "n h"], beta: float) -> tuple[Float[Tensor, "n h"], Float[Tensor, "n h"]]:
    """softplus(a) and its derivative sigmoid(beta a), without a graph.

    On a CPU in float32 by one compiled kernel (softplus_kernels.py, a third of the time) where that can be imported.
    """
    if a.device.type == "cpu" and a.dtype == torch.float32 and _compiled_kernels():
        a, value, slope = a.contiguous(), torch.empty_like(a), torch.empty_like(a)
        _compiled_kernels().softplus_and_slope(a.numpy(), beta, value.numpy(), slope.numpy())
        return value, slope
    return F.softplus(a, beta), torch.sigmoid(beta * a)

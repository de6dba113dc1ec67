"""Batch normalisation as the released One-2-3-45 runs it: with the statistics of the current data, also at inference.

The released runner never switches its networks to evaluation mode, so every layer normalises by the views (2D networks)
or the active voxels (3D network) it is given, and running statistics are kept but not used. That is the default here
too; "running" selects the conventional behaviour. A volume therefore depends on which views are fed together, and on
nothing that was computed before.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Statistics = Literal["batch", "running"]
MOMENTUM = 0.1
EPS = 1e-5


def normalize(
    x: Float[Tensor, "n c *size"], norm: nn.Module, weight: Float[Tensor, " c"], statistics: Statistics
) -> Float[Tensor, "n c *size"]:
    """Normalise channel `c` over all other dimensions, then scale by `weight` and shift by `norm.bias`.

    `norm` holds `bias`, `running_mean` and `running_var`. Running statistics are updated in train mode only
    (`norm.training`), so that inference leaves no trace.
    """
    if statistics == "running":
        return F.batch_norm(x, norm.running_mean, norm.running_var, weight, norm.bias, training=False, eps=EPS)
    if norm.training:
        averages = (norm.running_mean, norm.running_var)
        return F.batch_norm(x, *averages, weight, norm.bias, training=True, momentum=MOMENTUM, eps=EPS)
    # The same in plain sums: on a CPU the training kernel adds millions of channels-last values one by one in float32,
    # and the variance it finds is off by 4e-4 of itself.
    over, per_channel = [0, *range(2, x.ndim)], [1, -1] + [1] * (x.ndim - 2)
    centered = x - x.mean(over, keepdim=True, dtype=weight.dtype)
    scale = weight.view(per_channel) * torch.rsqrt(centered.square().mean(over, keepdim=True) + EPS)
    return torch.addcmul(norm.bias.view(per_channel), centered, scale).to(x.dtype)


class ActivatedBatchNorm(nn.Module):
    """Batch normalisation and leaky ReLU (slope 0.01) with scale |weight| + eps, the convention of InPlaceABN.

    The sign of `weight` has no effect; the checkpoint has weights of either sign.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Float[Tensor, "n c h w"], statistics: Statistics = "batch") -> Float[Tensor, "n c h w"]:
        return F.leaky_relu(normalize(x, self, self.weight.abs() + EPS, statistics), 0.01, inplace=True)

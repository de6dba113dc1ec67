"""f_3D of eq. 1: a sparse 3D U-Net that turns per-voxel variance and mean into the cost volume's features."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from geodream_lib.volume import sparse_conv
from geodream_lib.volume.norm import Statistics, normalize


class SparseKernel(nn.Module):
    """The weights of one sparse convolution, `[27, c_in, c_out]`."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        bound = (27 * channels_in) ** -0.5
        self.kernel = nn.Parameter(torch.empty(27, channels_in, channels_out).uniform_(-bound, bound))


class SparseBlock(nn.Module):
    """Weights of a sparse convolution, and the normalisation over active voxels and ReLU that follow it."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.net = nn.ModuleList([SparseKernel(channels_in, channels_out), nn.BatchNorm1d(channels_out)])

    @property
    def kernel(self) -> Float[Tensor, "27 ci co"]:
        return self.net[0].kernel

    def forward(self, rows: Float[Tensor, "m c"], statistics: Statistics = "batch") -> Float[Tensor, "m c"]:
        norm = self.net[1]
        return F.relu(normalize(rows, norm, norm.weight, statistics), inplace=True)


class CostRegularizer(nn.Module):
    """f_3D: three levels down and up again, skip connections added after the ReLU."""

    def __init__(self, channels_in: int = 32, channels_out: int = 16):
        super().__init__()
        self.conv0 = SparseBlock(channels_in, channels_out)
        self.conv1 = SparseBlock(channels_out, 16)
        self.conv2 = SparseBlock(16, 16)
        self.conv3 = SparseBlock(16, 32)
        self.conv4 = SparseBlock(32, 32)
        self.conv5 = SparseBlock(32, 64)
        self.conv6 = SparseBlock(64, 64)
        self.conv7 = SparseBlock(64, 32)
        self.conv9 = SparseBlock(32, 16)
        self.conv11 = SparseBlock(16, channels_out)

    def forward(
        self, rows: Float[Tensor, "m ci"], mask: Bool[Tensor, "x y z"], statistics: Statistics = "batch"
    ) -> Float[Tensor, "m co"]:
        """Features of the active voxels `mask`, given and returned as rows in x-major order."""

        def same(block: SparseBlock, x: Tensor, sites: Tensor) -> Tensor:
            return block(sparse_conv.submanifold_conv(x, sites, block.kernel), statistics)

        def down(block: SparseBlock, x: Tensor, fine: Tensor, coarse: Tensor) -> Tensor:
            return block(sparse_conv.strided_conv(x, fine, coarse, block.kernel), statistics)

        def up(block: SparseBlock, x: Tensor, coarse: Tensor, fine: Tensor) -> Tensor:
            return block(sparse_conv.transposed_conv(x, coarse, fine, block.kernel), statistics)

        sites = [mask]
        for _ in range(3):
            sites.append(sparse_conv.strided_sites(sites[-1]))
        x0 = same(self.conv0, rows, sites[0])
        x1 = same(self.conv2, down(self.conv1, x0, sites[0], sites[1]), sites[1])
        x2 = same(self.conv4, down(self.conv3, x1, sites[1], sites[2]), sites[2])
        x3 = same(self.conv6, down(self.conv5, x2, sites[2], sites[3]), sites[3])
        x2 = x2 + up(self.conv7, x3, sites[3], sites[2])
        x1 = x1 + up(self.conv9, x2, sites[2], sites[1])
        return x0 + up(self.conv11, x1, sites[1], sites[0])

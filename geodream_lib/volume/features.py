"""f_2D of eq. 1: a feature pyramid of every source view, fused into one map at full resolution.

Architecture, key names and numbers follow One-2-3-45's released reconstruction network.
"""

from jaxtyping import Float
from torch import Tensor, cat, nn
from torch.nn import functional as F

from geodream_lib.volume.norm import ActivatedBatchNorm, Statistics


class ConvBlock(nn.Module):
    """Convolution without bias, batch normalisation, leaky ReLU."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False)
        self.bn = ActivatedBatchNorm(channels_out)

    def forward(self, x: Float[Tensor, "n ci h w"], statistics: Statistics = "batch") -> Float[Tensor, "n co ho wo"]:
        return self.bn(self.conv(x), statistics)


class FeatureNet(nn.Module):
    """f_2D: three levels of features per view (32 channels at H/4, 16 at H/2, 8 at H)."""

    def __init__(self):
        super().__init__()
        self.conv0 = nn.ModuleList([ConvBlock(3, 8), ConvBlock(8, 8)])
        self.conv1 = nn.ModuleList([ConvBlock(8, 16, 5, 2), ConvBlock(16, 16), ConvBlock(16, 16)])
        self.conv2 = nn.ModuleList([ConvBlock(16, 32, 5, 2), ConvBlock(32, 32), ConvBlock(32, 32)])
        self.toplayer = nn.Conv2d(32, 32, 1)
        self.lat1 = nn.Conv2d(16, 32, 1)
        self.lat0 = nn.Conv2d(8, 32, 1)
        self.smooth1 = nn.Conv2d(32, 16, 3, padding=1)
        self.smooth0 = nn.Conv2d(32, 8, 3, padding=1)

    def forward(
        self, images: Float[Tensor, "n 3 h w"], statistics: Statistics = "batch"
    ) -> tuple[Float[Tensor, "n 32 h4 w4"], Float[Tensor, "n 16 h2 w2"], Float[Tensor, "n 8 h w"]]:
        """Coarse, middle and fine features of images in 0..1 (no mean or deviation is subtracted).

        Height and width must be multiples of 4.
        """
        levels, x = [], images
        for blocks in (self.conv0, self.conv1, self.conv2):
            for block in blocks:
                x = block(x, statistics)
            levels.append(x)
        coarse = self.toplayer(levels[2])
        middle = upsample(coarse, 2) + self.lat1(levels[1])
        fine = upsample(middle, 2) + self.lat0(levels[0])
        return coarse, self.smooth1(middle), self.smooth0(fine)


def upsample(x: Float[Tensor, "n c h w"], factor: int) -> Float[Tensor, "n c ho wo"]:
    """Bilinear enlargement that maps corner pixel centres onto corner pixel centres."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=True)


def fuse_pyramid(
    coarse: Float[Tensor, "n 32 h4 w4"], middle: Float[Tensor, "n 16 h2 w2"], fine: Float[Tensor, "n 8 h w"]
) -> Float[Tensor, "n 56 h w"]:
    """F_i of eq. 1 at full resolution: coarse, middle, fine channels, in this order."""
    return cat([upsample(coarse, 4), upsample(middle, 2), fine], dim=1)


def compress_layer() -> ConvBlock:
    """56 fused channels to the 16 that are projected into the volume; part of One-2-3-45's SDF network."""
    return ConvBlock(56, 16)

"""P(F_i, h) and Var of eq. 1: look every voxel up in every view, and aggregate what the views show.

An affine matrix is `intrinsics @ world_to_camera` of an OpenCV camera, padded to 4x4: it maps a point of the volume's
cube [-1, 1]^3 to (u z, v z, z). Pixel *centres* have integer coordinates there, as in the released code.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from geodream_lib.cameras import Cameras, opengl_to_opencv


def affine_matrices(cameras: Cameras, pixel_center: float = 0.5) -> Float[Tensor, "n 4 4"]:
    """Affine matrices of OpenGL cameras.

    Args:
        cameras: in the frame of the volume's cube.
        pixel_center: coordinate of the first pixel's centre in `cameras.intrinsics`. 0.5 is the convention of this
            library; 0 takes the intrinsics as they are, which is what the released pipeline does with its
            principal point (128, 128) of a 256-pixel image, half a pixel off.
    """
    w2c = opengl_to_opencv(cameras.w2c.transpose(1, 2)).transpose(1, 2)
    intrinsics = cameras.intrinsics.clone()
    intrinsics[:, :2, 2] -= pixel_center
    return torch.cat([intrinsics @ w2c[:, :3], w2c[:, 3:]], dim=1)


def voxel_positions(resolution: int, device: torch.device | str = "cpu") -> Float[Tensor, "m 3"]:
    """Positions h of all voxels, x-major (z fastest): voxel i lies at -1 + 2 i / (resolution - 1) on each axis."""
    axis = torch.arange(resolution, device=device) * (2 / (resolution - 1)) - 1
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)


def project_points(
    affine: Float[Tensor, "n 4 4"], points: Float[Tensor, "m 3"], height: int, width: int
) -> tuple[Float[Tensor, "n m 2"], Float[Tensor, "n m"]]:
    """Image coordinates scaled so that the outermost pixel centres are at -1 and 1, and depth.

    Depths in [0, 1e-6) are raised to 1e-6; negative depths stay, and mirror the point through the camera.
    """
    local = affine_points(affine, points)
    depth = local[..., 2]
    depth = torch.where(depth >= 0, depth.clamp(min=1e-6), depth)
    size = points.new_tensor([width - 1, height - 1])
    return 2 * (local[..., :2] / depth[..., None]) / size - 1, depth


def affine_points(affine: Float[Tensor, "n 4 4"], points: Float[Tensor, "m 3"]) -> Float[Tensor, "n m 3"]:
    """(u z, v z, z) of every point in every view."""
    homogeneous = F.pad(points, (0, 1), value=1.0)
    return (affine @ homogeneous.T)[:, :3].transpose(1, 2)


def project_features(
    features: Float[Tensor, "n c h w"], affine: Float[Tensor, "n 4 4"], points: Float[Tensor, "m 3"]
) -> tuple[Float[Tensor, "n m c"], Bool[Tensor, "n m"]]:
    """P(F_i, h) of eq. 1: bilinear features at the projection of every point, and whether the view sees the point.

    A view sees a point in front of it that projects between its outermost pixel centres. The features themselves are
    *not* masked: a point behind a camera whose mirrored projection falls into the image carries that pixel's feature.
    The released networks were trained so, and with cameras inside the cube it happens to a few per cent of the pairs.
    """
    height, width = features.shape[-2:]
    pixels, depth = project_points(affine, points, height, width)
    visible = (pixels.abs() <= 1).all(dim=-1) & (depth > 0)
    sampled = F.grid_sample(features, pixels[:, None], mode="bilinear", padding_mode="zeros", align_corners=True)
    return sampled[:, :, 0].transpose(1, 2), visible


def aggregate_views(
    sampled: Float[Tensor, "n m c"], visible: Bool[Tensor, "n m"]
) -> tuple[Float[Tensor, "m c2"], Bool[Tensor, " m"]]:
    """Var{...} of eq. 1: variance (first `c` channels) and mean (last `c`) over the views, in any order of views.

    The paper's Var stands for both: the released network is given the two. Returns them with the mask of the points
    that at least two views see; a single view says nothing about depth. Sums run over all views, also those that do
    not see the point (their features are zero except behind a camera, see `project_features`), and are divided by the
    number of seeing views.
    """
    count = visible.sum(dim=0)
    inverse = 1 / (count.to(sampled.dtype) + 1e-5)
    # Channel by channel, as the samples lie in memory: sums along the other order take a CPU five times as long.
    sampled = sampled.transpose(1, 2)
    mean = sampled.sum(dim=0) * inverse
    variance = sampled.square().sum(dim=0) * inverse - mean.square()
    return torch.cat([variance, mean]).T, count >= min(2, len(visible))

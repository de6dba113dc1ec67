"""Eqs. 1 and 6: from posed views to the cost volume, and the volume as an artifact."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from geodream_lib.cameras import Cameras
from geodream_lib.errors import InputError
from geodream_lib.storage import load_tensors, save_tensors
from geodream_lib.volume.features import fuse_pyramid
from geodream_lib.volume.networks import CostVolumeNetworks
from geodream_lib.volume.norm import Statistics
from geodream_lib.volume.projection import affine_matrices, aggregate_views, project_features, voxel_positions
from geodream_lib.volume.sparse_conv import to_dense

# Pairs of a view and a voxel that are sampled at a time: bounds the memory of their features to 0.13 GB. In much
# smaller pieces threads wait for each other.
_PAIRS = 1 << 21


@dataclass(frozen=True)
class CostVolume:
    """V (or V_p) of eqs. 1 and 6 and where it lies.

    volume: features, channels-last in memory; voxel i of an axis of d lies at -1 + 2 i / (d - 1) of the cube.
    mask: voxels that at least two views see; the features are zero elsewhere.
    to_world: similarity that maps the cube [-1, 1]^3 to the world.
    """

    volume: Float[Tensor, "c x y z"]
    mask: Bool[Tensor, "x y z"]
    to_world: Float[Tensor, "4 4"]

    def to(self, device: torch.device | str) -> "CostVolume":
        return replace(
            self, volume=self.volume.to(device), mask=self.mask.to(device), to_world=self.to_world.to(device)
        )

    def save(self, path: Path | str, metadata: dict[str, str] | None = None) -> None:
        """Write `volume` as `[x, y, z, c]`, `mask` and `to_world` to a safetensors file."""
        tensors = {"volume": self.volume.permute(1, 2, 3, 0), "mask": self.mask, "to_world": self.to_world}
        save_tensors(path, tensors, {**(metadata or {}), "layout": "xyzc"})

    @staticmethod
    def load(path: Path | str) -> "CostVolume":
        """Read a file of `save`.

        Raises:
            InputError: the file is missing, truncated or not a cost volume.
        """
        tensors, metadata = load_tensors(path)
        volume, mask, to_world = (tensors.get(name) for name in ("volume", "mask", "to_world"))
        fits = (
            metadata.get("layout") == "xyzc"
            and volume is not None
            and mask is not None
            and to_world is not None
            and volume.ndim == 4
            and mask.dtype == torch.bool
            and mask.shape == volume.shape[:3]
            and to_world.shape == (4, 4)
        )
        if not fits:
            raise InputError(
                f"{path} is not a cost volume: expected volume [x, y, z, c], mask [x, y, z] and to_world [4, 4]; "
                "delete it to have it made again"
            )
        return CostVolume(volume.float().permute(3, 0, 1, 2), mask, to_world)


def predict_volume(
    networks: CostVolumeNetworks,
    images: Float[Tensor, "n 3 h w"],
    affine: Float[Tensor, "n 4 4"],
    resolution: int,
    statistics: Statistics = "batch",
) -> tuple[Float[Tensor, "c r r r"], Bool[Tensor, "r r r"], Float[Tensor, "n 56 h w"]]:
    """V = f_3D(Var{P(F_i, h)}) of eq. 1, differentiable with respect to the networks and the images.

    Args:
        images: 0..1 on white; height and width are multiples of 4.
        affine: from `affine_matrices`.
        resolution: voxels per axis.

    Returns:
        The volume (channels-last in memory, zero where fewer than two views see the voxel), the mask of seen voxels,
        and the fused feature maps F_i, which `blending` reads too.

    Raises:
        InputError: image sizes do not fit, or no two views see the same part of the cube.
    """
    height, width = images.shape[-2:]
    if height % 4 or width % 4:
        raise InputError(f"views are {height}x{width} pixels; height and width must be multiples of 4, resize them")
    # The 2D networks are 1.5 times faster in this layout, and a pixel's channels are then read together.
    images = images.contiguous(memory_format=torch.channels_last)
    features = fuse_pyramid(*networks.feature_net(images, statistics))
    compressed = networks.compress(features, statistics)
    rows, keeps = [], []
    for points in voxel_positions(resolution, images.device).split(max(_PAIRS // len(images), 1)):
        aggregated, keep = aggregate_views(*project_features(compressed, affine, points))
        rows.append(aggregated[keep])
        keeps.append(keep)
    mask = torch.cat(keeps).unflatten(0, (resolution,) * 3)
    if mask.sum() < 2:
        raise InputError("no voxel is seen by two views; the cameras must overlap inside the cube [-1, 1]^3")
    rows = torch.cat(rows)
    return to_dense(networks.regularizer(rows, mask, statistics), mask)[0], mask, features


@torch.no_grad()
def build_cost_volume(
    images: Float[Tensor, "n h w 3"],
    cameras: Cameras,
    networks: CostVolumeNetworks,
    resolution: int,
    to_world: Float[Tensor, "4 4"] | None = None,
    pixel_center: float = 0.5,
    statistics: Statistics = "batch",
) -> CostVolume:
    """The native 3D prior V_p of eq. 6 from predicted (or real) views.

    Args:
        images: 0..1, sRGB, on white.
        cameras: of the images, in the frame of the cube [-1, 1]^3.
        resolution: voxels per axis; 96 in the released pipeline.
        to_world: from the cube to the world; the identity when they are the same.
        pixel_center: 0.5, or 0 for the released half-pixel convention (see `affine_matrices`).
        statistics: the networks normalise by those of the given views, as released, or by running ones (see `norm`).

    Raises:
        InputError: images and cameras do not fit each other, or do not overlap inside the cube.
    """
    if len(images) != len(cameras) or images.shape[1:3] != (cameras.height, cameras.width):
        raise InputError(
            f"{len(images)} images of {images.shape[1]}x{images.shape[2]} but {len(cameras)} cameras of "
            f"{cameras.height}x{cameras.width}; give one camera per image, of its size"
        )
    affine = affine_matrices(cameras, pixel_center).to(images)
    volume, mask, _ = predict_volume(networks, images.permute(0, 3, 1, 2), affine, resolution, statistics)
    identity = torch.eye(4, device=images.device)
    return CostVolume(volume, mask, identity if to_world is None else to_world.to(identity))


def resize_volume(volume: CostVolume, resolution: int) -> CostVolume:
    """The same volume on another grid, as the released pipeline goes from 96^3 to 150^3.

    Resizing is trilinear and aligns voxel *borders*, while samples are read with voxel *centres* at the cube's corners:
    geometry is stretched by (resolution - 1) / resolution * d / (d - 1) about the centre, 0.4 per cent from 96 to 150.
    """
    size = (resolution,) * 3
    # The batch axis comes before the permutation: added after, its stride would hide the layout (see `to_dense`).
    stored = volume.volume.permute(1, 2, 3, 0).contiguous()[None].permute(0, 4, 1, 2, 3)
    features = F.interpolate(stored, size=size, mode="trilinear", align_corners=False)[0]
    mask = F.interpolate(volume.mask[None, None].float(), size=size, mode="nearest-exact")[0, 0] > 0
    return replace(volume, volume=features, mask=mask)

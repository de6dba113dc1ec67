"""Coloured point clouds as Uni3D takes them: in its frame, divided into patches."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodream_lib.errors import InputError


def to_uni3d(xyz: Float[Tensor, "n p 3"]) -> Float[Tensor, "n p 3"]:
    """World points to the frame of Uni3D: y up, their mean at the origin, the furthest at distance 1.

    World (x, y, z), z up, becomes (y, z, x), as in a glTF file. Where the front looks is of no importance: Uni3D was
    trained on clouds turned about their vertical axis.
    """
    xyz = xyz - xyz.mean(dim=1, keepdim=True)
    radius = xyz.norm(dim=-1).amax(dim=1)
    return xyz[..., [1, 2, 0]] / radius.clamp(min=1e-6)[:, None, None]


def farthest_points(xyz: Float[Tensor, "n p 3"], count: int) -> Int[Tensor, "n c"]:
    """Indices of `count` points of each cloud, each the furthest from those before it.

    The first is the one furthest from the middle. The released code begins with the first of the cloud; so the result
    does not depend on the order of the points.

    Raises:
        InputError: the clouds have fewer points.
    """
    clouds, points = xyz.shape[:2]
    if count > points:
        raise InputError(f"{count} points cannot be chosen out of {points}; draw more points from the surface")
    row = torch.arange(clouds, device=xyz.device)
    planes = xyz.permute(2, 0, 1).contiguous()  # one coordinate after the other in memory: three times as fast
    index = (xyz - xyz.mean(dim=1, keepdim=True)).square().sum(-1).argmax(-1)
    distance = torch.full((clouds, points), float("inf"), device=xyz.device)
    chosen = []
    for _ in range(count):
        chosen.append(index)
        here = planes[:, row, index][..., None]
        distance = torch.minimum(distance, (planes - here).square().sum(0))
        index = distance.argmax(-1)
    return torch.stack(chosen, dim=-1)


def take(values: Float[Tensor, "n p 3"], index: Int[Tensor, " n *k"]) -> Float[Tensor, "n *k 3"]:
    """Rows of each cloud by index."""
    row = torch.arange(len(values), device=values.device).view(-1, *[1] * (index.ndim - 1))
    return values[row, index]


def group(
    xyz: Float[Tensor, "n p 3"], rgb: Float[Tensor, "n p 3"], groups: int, size: int, spread: int = 1
) -> tuple[Float[Tensor, "n g 3"], Float[Tensor, "n g s 6"]]:
    """Uni3D's patches: centres far from each other, and the `size` nearest points of each, relative to it, in colour.

    Args:
        spread: of so many times more nearest points the `size` that are furthest from each other. So a patch of a
            denser cloud covers as much of the surface.

    Raises:
        InputError: the clouds have fewer points than groups or than points in a group.
    """
    if size * spread > xyz.shape[1]:
        raise InputError(f"groups of {size * spread} out of {xyz.shape[1]} points; draw more points from the surface")
    centres = take(xyz, farthest_points(xyz, groups))
    nearest = torch.cdist(centres, xyz).topk(size * spread, largest=False, sorted=False).indices
    if spread > 1:
        patches = take(xyz, nearest).flatten(0, 1)
        nearest = nearest.gather(2, farthest_points(patches, size).unflatten(0, nearest.shape[:2]))
    return centres, torch.cat([take(xyz, nearest) - centres[:, :, None], take(rgb, nearest)], dim=-1)

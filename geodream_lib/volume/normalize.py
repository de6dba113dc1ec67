"""From cameras around an object to the cube [-1, 1]^3 the cost volume fills, as One-2-3-45 normalises its poses."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from geodream_lib.cameras import Cameras, opengl_to_opencv


def normalize_cameras(
    reference: Cameras, sources: Cameras, near: float = 0.5, far: float = 1.8
) -> tuple[Cameras, Float[Tensor, "4 4"]]:
    """Source cameras in the frame of the cube, and the similarity from the cube to the world.

    The cube's axes are those of the reference view's OpenCV camera (x right, y down, z away from it). Its centre is
    that of the box around all view frusta between `near` and `far`, reference included; its half width is half the
    longest side of the box, times 1.1. With the released poses (distance 1.2, depths 0.5 to 1.8) all cameras lie
    inside the cube.

    Args:
        reference: one camera, the input view.
        sources: the cameras of the views the volume is built from, in the same world.
        near, far: depths along the optical axis, in units of the world.
    """
    to_reference = torch.linalg.inv(opengl_to_opencv(reference.c2w)[0].double())
    corners = torch.cat([frustum_corners(views, near, far) for views in (reference, sources)])
    corners = corners @ to_reference[:3, :3].T + to_reference[:3, 3]
    low, high = corners.amin(dim=0), corners.amax(dim=0)
    center, radius = (low + high) / 2, 1.1 * (high - low).max() / 2

    c2w = to_reference @ sources.c2w.double()
    c2w[:, :3, 3] = (c2w[:, :3, 3] - center) / radius
    scale = torch.diag(torch.cat([radius.expand(3), radius.new_ones(1)]))
    scale[:3, 3] = center
    to_world = torch.linalg.inv(to_reference) @ scale
    dtype = sources.c2w.dtype
    return replace(sources, c2w=c2w.to(dtype)), to_world.to(dtype)


def frustum_corners(cameras: Cameras, near: float, far: float) -> Float[Tensor, "m 3"]:
    """World positions of the eight corners of every view frustum; the image spans pixels 0 to width and 0 to height."""
    u, v, depth = torch.meshgrid(
        torch.tensor([0.0, cameras.width], dtype=torch.float64),
        torch.tensor([0.0, cameras.height], dtype=torch.float64),
        torch.tensor([near, far], dtype=torch.float64),
        indexing="ij",
    )
    pixels = torch.stack([u * depth, v * depth, depth], dim=-1).reshape(-1, 3).to(cameras.c2w.device)
    local = torch.einsum("nij,mj->nmi", torch.linalg.inv(cameras.intrinsics.double()), pixels)
    c2w = opengl_to_opencv(cameras.c2w).double()
    return (torch.einsum("nij,nmj->nmi", c2w[:, :3, :3], local) + c2w[:, None, :3, 3]).flatten(0, 1)


def ray_bounds(positions: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Near and far depths of rays from `positions` through the unit ball of the cube, with 5 per cent to spare.

    Near is negative for a camera inside the ball, as it is with the released poses.
    """
    distance = positions.norm(dim=-1)
    return 0.95 * (distance - 1), 1.05 * (distance + 1)

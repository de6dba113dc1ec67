"""Poses, intrinsics and rays: the only place where a camera convention is decided or converted.

World: right-handed, z up, object centred in [-1, 1]^3, its front toward +x. Azimuth in degrees, counter-clockwise from
+x seen from above; elevation in degrees above the xy-plane. A camera is its OpenGL camera-to-world matrix (columns:
right, up, backward, position) and pinhole intrinsics in pixels, with pixel (row i, column j) centred at (j+0.5, i+0.5).
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from geodream_lib.errors import InputError


@dataclass(frozen=True)
class Cameras:
    """`n` pinhole cameras that share an image size.

    c2w: OpenGL camera-to-world, rigid. intrinsics: `[[fx, 0, cx], [0, fy, cy], [0, 0, 1]]` in pixels.
    """

    c2w: Float[Tensor, "n 4 4"]
    intrinsics: Float[Tensor, "n 3 3"]
    height: int
    width: int

    def __len__(self) -> int:
        return self.c2w.shape[0]

    def __getitem__(self, index: int | slice | list[int] | Tensor) -> "Cameras":
        """A subset of the cameras; an integer keeps the leading dimension (one camera)."""
        if isinstance(index, int):
            index = [index]
        return replace(self, c2w=self.c2w[index], intrinsics=self.intrinsics[index])

    @property
    def positions(self) -> Float[Tensor, "n 3"]:
        return self.c2w[:, :3, 3]

    @property
    def w2c(self) -> Float[Tensor, "n 4 4"]:
        """OpenGL world-to-camera matrices (inverse of the rigid c2w)."""
        rotation = self.c2w[:, :3, :3].transpose(1, 2)
        result = torch.eye(4, dtype=self.c2w.dtype, device=self.c2w.device).repeat(len(self), 1, 1)
        result[:, :3, :3] = rotation
        result[:, :3, 3] = -(rotation @ self.positions[..., None])[..., 0]
        return result

    def resized(self, height: int, width: int) -> "Cameras":
        """The same cameras seen at another resolution."""
        scale = torch.tensor([width / self.width, height / self.height, 1.0], device=self.intrinsics.device)
        return replace(self, intrinsics=self.intrinsics * scale[:, None], height=height, width=width)

    def every(self, stride: int, column: int, row: int) -> "Cameras":
        """Cameras of whose pixels each is a pixel of these: every `stride`-th column and row from the given ones on."""
        intrinsics = self.intrinsics.clone()
        intrinsics[:, :2] /= stride
        first = torch.tensor([column, row], device=intrinsics.device) + 0.5  # the centre of the first pixel
        intrinsics[:, :2, 2] += 0.5 - first / stride
        height, width = -(-(self.height - row) // stride), -(-(self.width - column) // stride)
        return replace(self, intrinsics=intrinsics, height=height, width=width)

    def to(self, device: torch.device | str) -> "Cameras":
        return replace(self, c2w=self.c2w.to(device), intrinsics=self.intrinsics.to(device))


def concatenate(cameras: list[Cameras]) -> Cameras:
    """All cameras of the list in one; they must share the image size."""
    sizes = {(c.height, c.width) for c in cameras}
    if len(sizes) != 1:
        raise InputError(f"cameras have different image sizes {sorted(sizes)}; resize them to one size first")
    return replace(
        cameras[0],
        c2w=torch.cat([c.c2w for c in cameras]),
        intrinsics=torch.cat([c.intrinsics for c in cameras]),
    )


def sphere_position(
    azimuth: Float[Tensor, " n"], elevation: Float[Tensor, " n"], radius: Float[Tensor, " n"]
) -> Float[Tensor, "n 3"]:
    """Points on spheres around the origin; angles in degrees."""
    a, e = torch.deg2rad(azimuth), torch.deg2rad(elevation)
    return radius[:, None] * torch.stack([e.cos() * a.cos(), e.cos() * a.sin(), e.sin()], dim=-1)


def look_at(
    position: Float[Tensor, "n 3"], target: Float[Tensor, "n 3"], up: Float[Tensor, " 3"] | None = None
) -> Float[Tensor, "n 4 4"]:
    """OpenGL camera-to-world matrices at `position` looking at `target`; `up` defaults to +z.

    A camera that looks along `up` (straight down) takes +x as its upward direction instead of an undefined one.
    """
    up = position.new_tensor([0.0, 0.0, 1.0]) if up is None else up
    backward = torch.nn.functional.normalize(position - target, dim=-1)
    right = torch.linalg.cross(up.expand_as(backward), backward, dim=-1)
    degenerate = right.norm(dim=-1, keepdim=True) < 1e-6
    fallback = torch.linalg.cross(position.new_tensor([1.0, 0.0, 0.0]).expand_as(backward), backward, dim=-1)
    right = torch.nn.functional.normalize(torch.where(degenerate, fallback, right), dim=-1)
    upward = torch.linalg.cross(backward, right, dim=-1)
    c2w = torch.eye(4, dtype=position.dtype, device=position.device).repeat(position.shape[0], 1, 1)
    c2w[:, :3] = torch.stack([right, upward, backward, position], dim=-1)
    return c2w


def pinhole(fov_y: Float[Tensor, " n"], height: int, width: int) -> Float[Tensor, "n 3 3"]:
    """Intrinsics of a centred pinhole with square pixels; `fov_y` is the vertical field of view in degrees."""
    focal = 0.5 * height / torch.tan(torch.deg2rad(fov_y) / 2)
    intrinsics = torch.zeros(fov_y.shape[0], 3, 3, dtype=fov_y.dtype, device=fov_y.device)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
    intrinsics[:, 0, 2], intrinsics[:, 1, 2], intrinsics[:, 2, 2] = width / 2, height / 2, 1.0
    return intrinsics


def orbit(
    azimuth: Float[Tensor, " n"] | list[float],
    elevation: Float[Tensor, " n"] | list[float] | float,
    radius: Float[Tensor, " n"] | float,
    fov_y: Float[Tensor, " n"] | float,
    size: int,
) -> Cameras:
    """Cameras on a sphere that look at the origin: the camera set of every stage.

    Args:
        azimuth: degrees, counter-clockwise from +x (the object's front) seen from above.
        elevation: degrees above the xy-plane, one or `n`.
        radius: distance to the origin, one or `n`.
        fov_y: vertical field of view in degrees, one or `n`.
        size: image height and width in pixels.
    """
    azimuth = torch.as_tensor(azimuth, dtype=torch.float32)
    elevation, radius, fov_y = (
        torch.as_tensor(value, dtype=torch.float32).expand(azimuth.shape[0]) for value in (elevation, radius, fov_y)
    )
    position = sphere_position(azimuth, elevation, radius)
    return Cameras(look_at(position, torch.zeros_like(position)), pinhole(fov_y, size, size), size, size)


def azimuth_elevation(position: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Azimuth in (-180, 180] and elevation in [-90, 90] degrees of points seen from the origin."""
    x, y, z = position.unbind(-1)
    return torch.rad2deg(torch.atan2(y, x)), torch.rad2deg(torch.atan2(z, torch.hypot(x, y)))


def rays(cameras: Cameras) -> tuple[Float[Tensor, "n h w 3"], Float[Tensor, "n h w 3"]]:
    """Origins and unit directions of the ray through every pixel centre, in the world frame."""
    device, dtype = cameras.c2w.device, cameras.c2w.dtype
    v, u = torch.meshgrid(
        torch.arange(cameras.height, device=device, dtype=dtype) + 0.5,
        torch.arange(cameras.width, device=device, dtype=dtype) + 0.5,
        indexing="ij",
    )
    k = cameras.intrinsics[:, :, :, None, None]
    x = (u - k[:, 0, 2]) / k[:, 0, 0]
    y = -(v - k[:, 1, 2]) / k[:, 1, 1]
    local = torch.stack([x, y, -torch.ones_like(x)], dim=-1)
    directions = torch.einsum("nij,nhwj->nhwi", cameras.c2w[:, :3, :3], local)
    directions = torch.nn.functional.normalize(directions, dim=-1)
    return cameras.positions[:, None, None].expand_as(directions), directions


def project(cameras: Cameras, points: Float[Tensor, "m 3"]) -> tuple[Float[Tensor, "n m 2"], Float[Tensor, "n m"]]:
    """Pixel coordinates (u right, v down; centre of the first pixel at 0.5) and depth along the optical axis.

    Depth is negative behind the camera, where the pixel coordinates have no meaning.
    """
    w2c = cameras.w2c
    local = torch.einsum("nij,mj->nmi", w2c[:, :3, :3], points) + w2c[:, None, :3, 3]
    depth = -local[..., 2]
    safe = torch.where(depth.abs() < 1e-8, torch.full_like(depth, 1e-8), depth)
    k = cameras.intrinsics
    u = k[:, None, 0, 0] * local[..., 0] / safe + k[:, None, 0, 2]
    v = -k[:, None, 1, 1] * local[..., 1] / safe + k[:, None, 1, 2]
    return torch.stack([u, v], dim=-1), depth


def opengl_to_opencv(c2w: Float[Tensor, "n 4 4"]) -> Float[Tensor, "n 4 4"]:
    """Flip the camera's y and z axes: OpenGL (right, up, backward) to OpenCV (right, down, forward), or back."""
    return c2w * c2w.new_tensor([1.0, -1.0, -1.0, 1.0])


def field_of_view(cameras: Cameras) -> Float[Tensor, " n"]:
    """Vertical field of view in degrees."""
    return 2 * torch.rad2deg(torch.atan(0.5 * cameras.height / cameras.intrinsics[:, 1, 1]))


def check_rigid(c2w: Float[Tensor, "n 4 4"], names: list[str]) -> None:
    """Raise `InputError` naming the first matrix that is not a finite rotation and translation."""
    for name, matrix in zip(names, c2w, strict=True):
        if not torch.isfinite(matrix).all():
            raise InputError(f"camera of {name} has a value that is not finite; every entry must be a number")
        rotation = matrix[:3, :3].double()
        error = (rotation.T @ rotation - torch.eye(3, dtype=torch.float64)).abs().max().item()
        bottom = matrix[3] - matrix.new_tensor([0.0, 0.0, 0.0, 1.0])
        if (
            error > 1e-3
            or bottom.abs().max() > 1e-6
            or math.isclose(torch.linalg.det(rotation).item(), -1, abs_tol=0.01)
        ):
            raise InputError(
                f"camera of {name} is not rigid (R^T R differs from the identity by {error:.2g}); expected a rotation "
                "and a translation, remove scale and shear from transform_matrix"
            )

"""Rasterisation against analytic geometry."""

import math
from dataclasses import replace

import pytest
import torch
import trimesh
from torch import Tensor

from geodream_lib.cameras import Cameras, orbit, rays
from geodream_lib.errors import InputError
from geodream_lib.mesh import interpolate, rasterize
from geodream_lib.mesh.visibility import visible_faces, visible_faces_torch


def icosphere(radius: float, subdivisions: int = 4) -> tuple[Tensor, Tensor]:
    mesh = trimesh.creation.icosphere(subdivisions, radius)
    return torch.tensor(mesh.vertices, dtype=torch.float32), torch.tensor(mesh.faces)


def triangle_soup(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(count, 1, 3, generator=generator) * 1.2 - 0.6
    vertices = (centres + 0.4 * torch.randn(count, 3, 3, generator=generator)).reshape(-1, 3)
    return vertices, torch.arange(3 * count).reshape(-1, 3)


def camera_frame(cameras: Cameras, vertices: Tensor) -> Tensor:
    w2c = cameras.w2c.double()
    return torch.einsum("nij,vj->nvi", w2c[:, :3, :3], vertices.double()) + w2c[:, None, :3, 3]


def test_sphere_covers_its_silhouette_at_its_depth() -> None:
    radius, distance = 0.6, 2.5
    vertices, faces = icosphere(radius)
    cameras = orbit([0.0, 130.0], [10.0, -50.0], distance, 40.0, 128)
    raster = rasterize(cameras, vertices, faces)
    _, directions = rays(cameras)
    cosine = -(directions * torch.nn.functional.normalize(cameras.positions, dim=-1)[:, None, None]).sum(-1)
    root = radius**2 - distance**2 * (1 - cosine**2)
    hit = root > 0
    # The tangent cone of the sphere cuts a disc of this radius from the image plane.
    disc = math.pi * (cameras.intrinsics[0, 0, 0].item() * radius / math.sqrt(distance**2 - radius**2)) ** 2
    assert (raster.face_ids >= 0).sum((1, 2)).tolist() == pytest.approx([disc, disc], rel=0.01)
    depth = (distance * cosine - root.clamp(min=0).sqrt()) * cosine
    interior = hit & (root > 0.02)
    assert (raster.face_ids[interior] >= 0).all() and (raster.face_ids[root < -0.02] == -1).all()
    assert (raster.depth - depth)[interior].abs().max() < 0.006
    assert (raster.depth[raster.face_ids < 0] == 0).all()


def test_barycentrics_are_the_ray_triangle_intersection() -> None:
    vertices, faces = triangle_soup(40)
    cameras = orbit([20.0, 200.0], [30.0, -5.0], 2.0, 60.0, 48)
    raster = rasterize(cameras, vertices, faces)
    origins, directions = rays(cameras)
    hit = raster.face_ids >= 0
    origin, direction = origins[hit].double(), directions[hit].double()
    a, b, c = vertices.double()[faces[raster.face_ids[hit].long()]].unbind(1)
    # Solve a + s (b - a) + t (c - a) = origin + k direction.
    solution = torch.linalg.solve(torch.stack([b - a, c - a, -direction], dim=-1), origin - a)
    s, t, k = solution.unbind(-1)
    assert hit.float().mean() > 0.2
    assert torch.allclose(raster.barycentrics[hit].double(), torch.stack([1 - s - t, s, t], dim=-1), atol=2e-4)
    points = interpolate(vertices, raster, faces)[hit]
    assert torch.allclose(points.double(), origin + k[:, None] * direction, atol=1e-4)


@pytest.mark.parametrize("distance", [2.0, 0.3])
def test_z_buffer_equals_the_reference(distance: float) -> None:
    """Also with the camera amid the triangles, some of which reach behind it."""
    vertices, faces = triangle_soup(60, seed=3)
    faces = torch.cat([faces, faces[:5], torch.tensor([[0, 0, 1]])])  # coincident and degenerate faces
    cameras = replace(orbit([0.0, 77.0], 20.0, distance, 60.0, 40), height=33)
    local, k = camera_frame(cameras, vertices), cameras.intrinsics.double()
    fast = visible_faces(local, k, faces, 33, 40)
    assert torch.equal(fast, visible_faces_torch(local, k, faces, 33, 40))
    assert (fast >= 0).any() and fast.max() < 60  # of coincident faces the first is seen


def test_nearest_face_in_front_of_the_camera_is_seen() -> None:
    """Every pixel against all triangles, including one behind the camera and one that passes it."""
    vertices, faces = triangle_soup(30, seed=5)
    cameras = orbit([10.0], 0.0, 0.5, 70.0, 32)
    raster = rasterize(cameras, vertices, faces)
    origins, directions = rays(cameras)
    a, b, c = vertices.double()[faces].unbind(1)
    direction = directions[0].double()[:, :, None].expand(-1, -1, 30, -1)
    columns = torch.stack([(b - a).expand_as(direction), (c - a).expand_as(direction), -direction], dim=-1)
    s, t, k = torch.linalg.solve(columns, (origins[0].double()[:, :, None] - a)).unbind(-1)
    forward = -cameras.c2w[0, :3, 2].double()
    depth = torch.where((s >= 0) & (t >= 0) & (s + t <= 1), k * (direction @ forward), torch.inf)
    depth = torch.where(depth > 0.01, depth, torch.inf)
    nearest = torch.where(depth.isfinite().any(-1), depth.argmin(-1), -1)
    assert torch.equal(raster.face_ids[0].long(), nearest)


def test_no_pixel_falls_between_faces_that_share_an_edge() -> None:
    """Pixel centres exactly on shared edges and vertices: a square of 8 x 8 cells in front of 16 x 16 pixels."""
    line = torch.linspace(-1, 1, 9)
    vertices = torch.cat([torch.cartesian_prod(line, line), torch.full((81, 1), -1.0)], dim=1)
    corner = (torch.arange(8)[:, None] * 9 + torch.arange(8)).flatten()
    faces = torch.cat(
        [torch.stack([corner, corner + 9, corner + 10], 1), torch.stack([corner, corner + 10, corner + 1], 1)]
    )
    intrinsics = torch.tensor([[[8.0, 0, 8.5], [0, 8.0, 8.5], [0, 0, 1]]])
    raster = rasterize(Cameras(torch.eye(4)[None], intrinsics, 17, 17), vertices, faces)
    assert (raster.face_ids >= 0).all()
    assert torch.allclose(raster.depth, torch.ones(1, 17, 17), atol=1e-6)


@pytest.mark.parametrize("distance", [2.5, 0.3])
def test_interpolation_gradient_is_exact(distance: float) -> None:
    """Also for triangles that reach behind the camera."""
    vertices, faces = triangle_soup(6, seed=1)
    cameras = orbit([40.0], 10.0, distance, 50.0, 12)
    depth = camera_frame(cameras, vertices)[0, :, 2]
    assert (depth[faces] > 0).any(1).logical_and((depth[faces] < 0).any(1)).any() == (distance < 1)
    cameras = replace(cameras, c2w=cameras.c2w.double(), intrinsics=cameras.intrinsics.double())
    vertices = vertices.double().requires_grad_()
    attributes = torch.rand(18, 2, dtype=torch.float64, requires_grad=True)

    def render(vertices: Tensor, attributes: Tensor) -> tuple[Tensor, Tensor]:
        raster = rasterize(cameras, vertices, faces)
        return interpolate(attributes, raster, faces), raster.depth

    assert torch.autograd.gradcheck(render, (vertices, attributes))


def test_bad_meshes_are_named() -> None:
    vertices, faces = icosphere(0.5, 1)
    cameras = orbit([0.0], 0.0, 2.0, 40.0, 8)
    with pytest.raises(InputError, match="not finite"):
        rasterize(cameras, vertices * torch.nan, faces)
    with pytest.raises(InputError, match="no faces"):
        rasterize(cameras, vertices, faces[:0])

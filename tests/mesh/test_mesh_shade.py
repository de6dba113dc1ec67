"""Anti-aliased images of a mesh and the gradient of its outline."""

import math
from dataclasses import replace

import pytest
import torch
import trimesh
from torch import Tensor

from geodream_lib.cameras import Cameras, orbit
from geodream_lib.mesh import (
    DMTet,
    FlexiCubes,
    antialias,
    rasterize,
    render_normals,
    render_opacity,
    render_texture,
)


def make(name: str) -> tuple[Tensor, Tensor]:
    if name == "dmtet":  # faces smaller than pixels
        vertices, faces = DMTet.from_sdf(lambda p: p.norm(dim=-1) - 0.6 + 0.1 * (3 * p).sin().prod(-1), 32).mesh()
        return vertices.detach(), faces
    if name == "flexicubes":  # thin triangles around the middles of quadrilaterals
        vertices, faces = FlexiCubes.from_sdf(lambda p: (p[:, :2].norm(dim=-1) - 0.5).hypot(p[:, 2]) - 0.2, 24).mesh()
        return vertices.detach(), faces
    mesh = {
        "box": lambda: trimesh.creation.box((1.0, 0.7, 0.5)),
        "sphere": lambda: trimesh.creation.icosphere(3, 0.6),
        "torus": lambda: trimesh.creation.torus(0.5, 0.2, major_sections=48, minor_sections=24),
    }[name]()
    return torch.tensor(mesh.vertices, dtype=torch.float32), torch.tensor(mesh.faces)


def area(cameras: Cameras, vertices: Tensor, faces: Tensor) -> Tensor:
    return render_opacity(cameras, vertices, faces).sum()


@pytest.mark.parametrize("name", ["box", "sphere", "torus", "dmtet", "flexicubes"])
@pytest.mark.parametrize(("azimuth", "elevation"), [(30.0, 20.0), (110.0, -10.0), (77.0, 45.0)])
def test_outline_gradient_is_the_change_of_area(name: str, azimuth: float, elevation: float) -> None:
    """d(area)/d(scale) against finite differences. Counting an edge for both axes would double it."""
    vertices, faces = make(name)
    cameras = orbit([azimuth], elevation, 2.5, 40.0, 128)
    scale = torch.tensor(1.0, requires_grad=True)
    area(cameras, vertices * scale, faces).backward()
    step = 0.02
    difference = area(cameras, vertices * (1 + step), faces) - area(cameras, vertices * (1 - step), faces)
    assert scale.grad.item() == pytest.approx(difference.item() / (2 * step), rel=0.03)


@pytest.mark.parametrize("name", ["box", "torus", "dmtet"])
def test_antialiased_area_is_the_true_area(name: str) -> None:
    """A 64-pixel image with soft outlines against the covered pixels of a 1024-pixel one."""
    vertices, faces = make(name)
    cameras = orbit([25.0], 15.0, 2.5, 40.0, 64)
    fine = (rasterize(cameras.resized(1024, 1024), vertices, faces).face_ids >= 0).sum().item() / 16**2
    assert area(cameras, vertices, faces).item() == pytest.approx(fine, rel=2e-3)


def test_translation_moves_the_centre_of_the_outline() -> None:
    """The gradient of the image's first moment with respect to a shift along the image is its area times the speed."""
    vertices, faces = make("sphere")
    cameras = orbit([0.0], 0.0, 2.5, 40.0, 96)
    shift = torch.zeros(3, requires_grad=True)
    opacity = render_opacity(cameras, vertices + shift, faces)[0, :, :, 0]
    (opacity * (torch.arange(96) + 0.5)).sum().backward()
    # The outline of a sphere at distance d is the cone tangent to it: its centre moves by f d / (d^2 - r^2) pixels per
    # unit. Seen from +x the image's right is +y, and the outline's area does not change to first order.
    speed = cameras.intrinsics[0, 0, 0] * 2.5 / (2.5**2 - 0.6**2)
    assert shift.grad[1].item() == pytest.approx((opacity.sum() * speed).item(), rel=0.03)
    assert abs(shift.grad[2].item()) < 0.02 * shift.grad[1].item()


def test_half_covered_pixel() -> None:
    """A vertical edge 0.3 pixels right of a centre: the pixel left of it stays, its neighbour gets nothing; at 0.8 the
    neighbour is covered by 0.3."""
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    camera = Cameras(torch.eye(4)[None], torch.tensor([[[4.0, 0, 4], [0, 4, 4], [0, 0, 1]]]), 8, 8)
    for reach, expected in ((0.3, [0.8, 0.0]), (0.5, [1.0, 0.0]), (0.8, [1.0, 0.3])):
        right = (3.5 + reach - 4) / 4
        vertices = torch.tensor([[-3.0, -3, -1], [right, -3, -1], [right, 3, -1], [-3, 3, -1]])
        row = render_opacity(camera, vertices, faces)[0, 4, :, 0]
        assert torch.allclose(row[:3], torch.ones(3)) and torch.allclose(row[5:], torch.zeros(3))
        assert torch.allclose(row[3:5], torch.tensor(expected), atol=1e-5)


def test_occlusion_within_the_object_is_antialiased() -> None:
    """A small square before a large one: the colour's mean changes with the small one's size as its area says."""
    square = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    quad = torch.tensor([[0, 1, 2], [0, 2, 3]])
    faces = torch.cat([quad, quad + 4])
    camera = Cameras(torch.eye(4)[None], torch.tensor([[[30.0, 0, 32.2], [0, 30, 32.4], [0, 0, 1]]]), 64, 64)
    size = torch.tensor(0.31, requires_grad=True)
    near = size * square + torch.tensor([0.0, 0, -1])
    far = 2 * square + torch.tensor([0.0, 0, -2])
    vertices = torch.cat([near, far])
    raster = rasterize(camera, vertices, faces)
    image = (raster.face_ids < 2).float()[..., None] * (raster.face_ids >= 0)[..., None]
    total = antialias(image, raster, camera, vertices, faces).sum()
    total.backward()
    assert total.item() == pytest.approx((60 * 0.31) ** 2, rel=0.01)
    assert size.grad.item() == pytest.approx(2 * 60**2 * 0.31, rel=0.03)


def test_hidden_edges_change_nothing() -> None:
    """A tilted wall of many faces fills the view; a sphere stands behind it."""
    line = torch.linspace(-3, 3, 20)
    wall = torch.cartesian_prod(line, line)
    wall = torch.cat([wall, (-1.5 + 0.1 * wall[:, :1])], dim=1)
    corner = (torch.arange(19)[:, None] * 20 + torch.arange(19)).flatten()
    wall_faces = torch.cat(
        [torch.stack([corner, corner + 20, corner + 21], 1), torch.stack([corner, corner + 21, corner + 1], 1)]
    )
    vertices, faces = make("sphere")
    vertices = torch.cat([wall, vertices + torch.tensor([0.0, 0, -3])])
    camera = Cameras(torch.eye(4)[None], torch.tensor([[[30.0, 0, 20], [0, 30, 20], [0, 0, 1]]]), 40, 40)
    faces = torch.cat([wall_faces, faces + 400])
    raster = rasterize(camera, vertices, faces)
    image = torch.rand(1, 40, 40, 3, generator=torch.Generator().manual_seed(0))
    assert (raster.face_ids >= 0).all() and (raster.face_ids < 722).all()
    assert torch.equal(antialias(image, raster, camera, vertices, faces), image)


def test_outermost_of_two_edges_bounds_the_coverage() -> None:
    """Two sheets that end 0.3 and 0.8 pixels beyond the same centre cover what the longer one covers."""
    quad = torch.tensor([[0, 1, 2], [0, 2, 3]])
    camera = Cameras(torch.eye(4)[None], torch.tensor([[[4.0, 0, 4], [0, 4, 4], [0, 0, 1]]]), 8, 8)
    for reaches in ((0.3, 0.8), (0.8, 0.3)):
        sheets = []
        for reach, depth in zip(reaches, (1.0, 1.001), strict=True):
            right = (3.5 + reach - 4) / 4
            flat = torch.tensor([[-3.0, -3, -1], [right, -3, -1], [right, 3, -1], [-3, 3, -1]])
            sheets.append(depth * flat)
        row = render_opacity(camera, torch.cat(sheets), torch.cat([quad, quad + 4]))[0, 4, :, 0]
        assert torch.allclose(row[2:6], torch.tensor([1.0, 1.0, 0.3, 0.0]), atol=1e-4)


def test_antialiasing_keeps_the_range() -> None:
    """Even for faces of about a pixel, which have silhouettes on all sides."""
    generator = torch.Generator().manual_seed(0)
    vertices = torch.rand(300, 1, 3, generator=generator) - 0.5 + 0.03 * torch.randn(300, 3, 3, generator=generator)
    vertices, faces = vertices.reshape(-1, 3), torch.arange(900).reshape(-1, 3)
    cameras = orbit([0.0, 50.0], 20.0, 2.5, 40.0, 48)
    image = render_texture(cameras, vertices, faces, lambda p: torch.ones_like(p), torch.zeros(2, 3))
    assert image.min() >= -1e-6 and image.max() <= 1 + 1e-6


def test_normals_of_a_sphere_are_its_directions() -> None:
    vertices, faces = make("sphere")
    cameras = orbit([0.0, 90.0], 0.0, 2.5, 40.0, 65)
    image = render_normals(cameras, vertices, faces, torch.zeros(2, 3))
    # World frame: the centre of the view from +x shows +x, from +y shows +y.
    assert torch.allclose(image[0, 32, 32], torch.tensor([1.0, 0.5, 0.5]), atol=0.02)
    assert torch.allclose(image[1, 32, 32], torch.tensor([0.5, 1.0, 0.5]), atol=0.02)
    assert (image[:, 0, 0] == 0).all()


def test_colour_is_asked_for_on_the_surface_only() -> None:
    vertices, faces = make("sphere")
    cameras = orbit([0.0, 90.0], 30.0, 2.5, 40.0, 32)
    asked = []

    def color(points: Tensor) -> Tensor:
        asked.append(points)
        return points * 0.5 + 0.5

    background = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])
    image = render_texture(cameras, vertices, faces, color, background)
    assert len(asked) == 1 and asked[0].shape[0] == (rasterize(cameras, vertices, faces).face_ids >= 0).sum()
    assert (asked[0].norm(dim=-1) - 0.6).abs().max() < 0.01
    assert torch.allclose(image[:, 0, 0], background)
    per_pixel = background[:, None, None].expand(2, 32, 32, 3)
    assert torch.equal(image, render_texture(cameras, vertices, faces, color, per_pixel))


def test_mesh_behind_the_camera_leaves_the_background() -> None:
    vertices, faces = make("sphere")
    cameras = orbit([0.0], 0.0, 2.5, 40.0, 16)
    away = replace(cameras, c2w=cameras.c2w * torch.tensor([-1.0, 1, -1, 1]))
    vertices.requires_grad_()
    image = render_normals(away, vertices, faces, torch.full((1, 3), 0.25))
    assert (image == 0.25).all()
    image.sum().backward()
    assert vertices.grad.isfinite().all()


def test_camera_inside_the_mesh_has_finite_gradients() -> None:
    vertices, faces = make("sphere")
    vertices.requires_grad_()
    image = render_normals(orbit([0.0], 0.0, 0.2, 60.0, 24), vertices, faces, torch.zeros(1, 3))
    image.sum().backward()
    assert math.isfinite(image.sum().item()) and vertices.grad.isfinite().all()


def test_degenerate_faces_change_neither_image_nor_gradient() -> None:
    """A face with one vertex twice, three times, and one that is a line, appended to a sphere."""
    vertices, faces = make("sphere")
    line = torch.tensor([[0.2, 0.7, 0.1], [0.3, 0.7, 0.1], [0.4, 0.7, 0.1]])
    more = torch.tensor([[5, 5, 9], [7, 7, 7], [0, 1, 2]])
    more[2] += len(vertices)
    vertices = torch.cat([vertices, line])
    results = []
    for some in (faces, torch.cat([faces, more])):
        moved = vertices.clone().requires_grad_()
        image = render_texture(orbit([20.0], 15.0, 2.5, 40.0, 48), moved, some, lambda p: p, torch.ones(1, 3))
        image.square().sum().backward()
        results.append((image.detach(), moved.grad))
    for plain, degenerate in zip(*results, strict=True):
        torch.testing.assert_close(degenerate, plain)

"""What makes an asset of a surface: fewer faces that keep its shape, its colours and its relief, and its numbers."""

from pathlib import Path

import fast_simplification
import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from geodream_lib.errors import InputError
from geodream_lib.mesh import TexturedMesh, decimate, mesh_report, unwrap
from geodream_lib.mesh.bake import Texels, find_texels
from geodream_lib.mesh.decimate import _without_folds
from geodream_lib.mesh.geometry import vertex_normals
from geodream_lib.mesh.nearest import nearest_on_surface
from geodream_lib.mesh.normal_map import bake_normal_map, smooth_normals, tangent_frames

RADIUS = 0.5


@pytest.fixture(scope="module")
def ball() -> tuple[Tensor, Tensor]:
    solid = trimesh.creation.icosphere(subdivisions=4, radius=RADIUS)
    return torch.tensor(solid.vertices).float(), torch.tensor(solid.faces)


def textured(mesh: trimesh.Trimesh, size: int = 64) -> TexturedMesh:
    """With texture coordinates that mean nothing."""
    vertices = torch.tensor(mesh.vertices).float()
    return TexturedMesh(vertices, torch.tensor(mesh.faces), vertices[:, :2], torch.zeros(size, size, 3))


def test_decimation_keeps_a_closed_surface_in_its_place(ball: tuple[Tensor, Tensor]) -> None:
    vertices, faces = decimate(*ball, 600)
    assert 500 < len(faces) <= 600 and torch.equal(faces.unique(), torch.arange(len(vertices)))
    mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    assert mesh.is_watertight and mesh.euler_number == 2
    # A regular triangle of this area and its centre sink by about edge^2 / 6 radius below the sphere.
    assert mesh.volume == pytest.approx(4 / 3 * torch.pi * RADIUS**3, rel=0.02)
    assert (vertices.norm(dim=-1) - RADIUS).abs().max() < 0.005


def test_enough_faces_are_left_alone(ball: tuple[Tensor, Tensor]) -> None:
    vertices, faces = decimate(*ball, len(ball[1]))
    assert vertices is ball[0] and faces is ball[1]


def test_nothing_left_is_an_error_that_says_how_far_it_goes() -> None:
    ball = trimesh.creation.icosphere(subdivisions=1)
    pair = trimesh.util.concatenate([ball, ball.copy().apply_translation([3, 0, 0])])
    with pytest.raises(InputError, match="160 faces cannot be reduced to 1: with fewer than"):
        decimate(torch.tensor(pair.vertices).float(), torch.tensor(pair.faces), 1)


def test_a_surface_is_not_torn_where_a_few_faces_less_help(
    ball: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library leaves open edges at the number asked for, and none at the next one."""
    asked, whole = [], torch.tensor(trimesh.creation.icosphere(subdivisions=3).faces)

    def simplify(points: np.ndarray, triangles: np.ndarray, target_count: int, agg: int) -> tuple:
        asked.append(target_count)
        return points, (ball[1][2:] if len(asked) == 1 else whole).numpy()

    monkeypatch.setattr(fast_simplification, "simplify", simplify)
    _, faces = decimate(*ball, len(ball[1]) - 1)
    assert len(faces) == len(whole) and len(asked) == 2 and asked[1] < asked[0]


def test_faces_folded_onto_each_other_are_dropped() -> None:
    body = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    fold = torch.tensor([[1, 3, 4], [3, 1, 4]])
    assert torch.equal(_without_folds(torch.cat([body, fold])), body)


def test_nearest_place_on_a_ball_is_along_its_radius(ball: tuple[Tensor, Tensor]) -> None:
    directions = torch.nn.functional.normalize(torch.randn(2000, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    corners, weights = nearest_on_surface(1.05 * RADIUS * directions, directions, *ball)
    assert weights.min() >= 0 and torch.allclose(weights.sum(dim=1), torch.ones(2000))
    places = (weights[..., None] * ball[0][corners]).sum(dim=1)
    angle = torch.acos(torch.cosine_similarity(places, directions, dim=-1).clamp(max=1))
    assert torch.rad2deg(angle).max() < 1.0  # an edge is about 4 degrees long


def test_the_other_side_of_a_thin_sheet_is_not_meant() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0.01], [1, 0, 0.01], [0, 1, 0.01]])
    faces = torch.tensor([[0, 2, 1], [3, 4, 5]])  # the lower one looks down, the upper one up
    point, down = torch.tensor([[0.2, 0.2, 0.009]]), torch.tensor([[0.0, 0.0, -1.0]])
    for normal, expected in ((down, {0, 1, 2}), (-down, {3, 4, 5})):
        assert set(nearest_on_surface(point, normal, vertices, faces)[0][0].tolist()) == expected


@pytest.mark.parametrize("mirrored", [False, True])
def test_red_is_where_u_grows_and_green_where_v_grows(mirrored: bool) -> None:
    """On a square that looks up: relief tilted toward +x, and toward +y."""
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    faces, uvs = torch.tensor([[0, 1, 2], [0, 2, 3]]), vertices[:, :2]
    if mirrored:
        uvs = torch.stack([1 - uvs[:, 0], uvs[:, 1]], dim=1)
    texels = find_texels(faces, uvs, 8)
    for tilt, channel, sign in (([0.6, 0, 0.8], 0, -1 if mirrored else 1), ([0, 0.6, 0.8], 1, 1)):
        image = bake_normal_map(vertices, faces, uvs, texels, torch.tensor(tilt).float().expand(64, 3))
        expected = torch.tensor([0.5, 0.5, 0.9])
        expected[channel] += sign * 0.3
        assert torch.allclose(image, expected.expand(8, 8, 3), atol=1e-5)


def test_a_normal_map_gives_a_coarse_ball_its_roundness_back(ball: tuple[Tensor, Tensor]) -> None:
    vertices, faces = decimate(*ball, 100)
    vmap, faces, uvs = unwrap(vertices, faces, 128, 2)
    vertices, texels = vertices[vmap], find_texels(faces, uvs, 128)
    own = smooth_normals(texels, vertices, faces)
    points = texels.interpolate(vertices)
    corners, weights = nearest_on_surface(points, own, *ball)
    fine = torch.nn.functional.normalize((weights[..., None] * vertex_normals(*ball)[corners]).sum(dim=1), dim=-1)
    image = bake_normal_map(vertices, faces, uvs, texels, fine)
    seen = lit_normals(image, vertices, uvs, texels, own)
    coarse, mapped = (torch.cosine_similarity(n, points, dim=-1).clamp(max=1).acos() for n in (own, seen))
    assert mapped.mean() < 0.2 * coarse.mean() and torch.rad2deg(mapped).quantile(0.99) < 2


def lit_normals(image: Tensor, vertices: Tensor, uvs: Tensor, texels: Texels, own: Tensor) -> Tensor:
    """What a viewer makes of a normal map, at the texels."""
    local = 2 * image.reshape(-1, 3)[texels.places] - 1
    return (tangent_frames(vertices, uvs, texels, own).transpose(1, 2) @ local[..., None])[..., 0]


def test_files_keep_the_normal_map(tmp_path: Path) -> None:
    box, ramp = textured(trimesh.creation.box()), torch.linspace(0, 1, 8 * 8 * 3).reshape(8, 8, 3)
    mesh = TexturedMesh(box.vertices, box.faces, box.uvs, box.texture, ramp)
    mesh.save_glb(tmp_path / "mesh.glb")
    mesh.save_obj(tmp_path / "mesh.obj")
    loaded = TexturedMesh.load_glb(tmp_path / "mesh.glb")
    assert (loaded.normal_map - ramp).abs().max() <= 0.5 / 255 + 1e-6
    assert "norm mesh_normal.png" in (tmp_path / "mesh.mtl").read_text() and (tmp_path / "mesh_normal.png").exists()
    box.save_glb(tmp_path / "plain.glb")
    assert TexturedMesh.load_glb(tmp_path / "plain.glb").normal_map is None


@pytest.mark.parametrize(
    ("solids", "components", "genus"),
    [
        ([trimesh.creation.box()], 1, 0),
        ([trimesh.creation.torus(1.0, 0.3)], 1, 1),
        ([trimesh.creation.box(), trimesh.creation.torus(5.0, 0.3)], 2, 1),
    ],
)
def test_a_report_counts_parts_and_handles(solids: list, components: int, genus: int) -> None:
    mesh = trimesh.util.concatenate(solids)
    report = mesh_report(textured(mesh))
    assert report.watertight and report.manifold and (report.components, report.genus) == (components, genus)
    assert (report.vertices, report.faces) == (len(mesh.vertices), len(mesh.faces))
    assert report.area == pytest.approx(mesh.area, rel=1e-5)


def test_a_report_names_holes_and_pinches() -> None:
    box = trimesh.creation.box()
    box.update_faces([False, *[True] * 11])
    report = mesh_report(textured(box))
    assert (report.watertight, report.manifold, report.genus) == (False, True, None)
    # Two tetrahedra that share one corner: every edge is between two faces, the corner has two fans.
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [0, -1, 0], [0, 0, -1]])
    one = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    two = torch.tensor([0, 4, 5, 6])[one].flip(1)
    pinched = TexturedMesh(corners, torch.cat([one, two]), corners[:, :2], torch.zeros(4, 4, 3))
    report = mesh_report(pinched)
    assert (report.watertight, report.manifold, report.components, report.genus) == (True, False, 2, None)


def test_texel_density_is_texels_per_unit_length() -> None:
    """Two squares with sides of 2, one on the whole width of 64 texels, the other on half of it."""
    square = torch.tensor([[0.0, 0, 0], [2, 0, 0], [2, 2, 0], [0, 2, 0]])
    uvs = torch.cat([square[:, :2] / 2, square[:, :2] / 4])
    vertices = torch.cat([square, square + torch.tensor([0.0, 0, 1])])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    report = mesh_report(TexturedMesh(vertices, faces, uvs, torch.zeros(64, 64, 3)))
    assert report.texel_density_spread == pytest.approx((16, 32)) and report.texel_density in (16, 32)

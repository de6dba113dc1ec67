"""Texture atlas, baking and the exported files."""

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from geodream_lib.cameras import orbit
from geodream_lib.errors import InputError
from geodream_lib.mesh import (
    DMTet,
    TexturedMesh,
    bake_texture,
    render_texture,
    render_textured_mesh,
    unwrap,
)
from geodream_lib.mesh.textured_mesh import sample_texture


def color(points: Tensor) -> Tensor:
    """A colour field that tells the six directions apart."""
    return 0.5 + 0.5 * torch.sin(3 * points)


@pytest.fixture(scope="module")
def surface() -> tuple[Tensor, Tensor]:
    """A body with nothing symmetric, its nose toward +x (front), a bump to +z (up)."""

    def sdf(p: Tensor) -> Tensor:
        body = p.norm(dim=-1) - 0.4
        nose = (p - p.new_tensor([0.5, 0, 0])).norm(dim=-1) - 0.15
        bump = (p - p.new_tensor([0, 0.1, 0.35])).norm(dim=-1) - 0.2
        return torch.minimum(torch.minimum(body, nose), bump)

    vertices, faces = DMTet.from_sdf(sdf, 20).mesh()
    return vertices.detach(), faces


@pytest.fixture(scope="module")
def mesh(surface: tuple[Tensor, Tensor]) -> TexturedMesh:
    vertices, faces = surface
    vmap, new_faces, uvs = unwrap(vertices, faces, size=256)
    texture = bake_texture(vertices[vmap], new_faces, uvs, color, 256)
    return TexturedMesh(vertices[vmap], new_faces, uvs, texture)


def test_unwrapping_keeps_the_surface(surface: tuple[Tensor, Tensor]) -> None:
    vertices, faces = surface
    vmap, new_faces, uvs = unwrap(vertices, faces, size=256)
    assert torch.equal(vmap[new_faces], faces)
    assert uvs.min() >= 0 and uvs.max() <= 1
    corners = uvs[new_faces].double()
    area = torch.linalg.det(corners[:, 1:] - corners[:, :1]).abs().sum().item() / 2
    assert 0.3 < area < 1  # charts fill the square and do not cover it twice
    again = unwrap(vertices, faces, size=256)
    assert all(torch.equal(a, b) for a, b in zip((vmap, new_faces, uvs), again, strict=True))


def test_slivers_get_their_place_in_the_atlas(surface: tuple[Tensor, Tensor]) -> None:
    vertices, faces = surface
    vmap, new_faces, uvs = unwrap(0.01 * vertices, faces, size=256)
    corners = vertices.double()[faces]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
    unplaced = (uvs[new_faces] == 0).all(dim=2).all(dim=1)
    assert area[unplaced].sum() < 1e-8 * area.sum()


def test_faces_of_no_area_take_the_colour_beside_them(surface: tuple[Tensor, Tensor]) -> None:
    """A face that has become a point, as where the field is exactly zero at a grid vertex, and one that is a line."""
    vertices, faces = surface
    a, b = faces[7, :2].tolist()
    new = vertices.shape[0]
    vertices = torch.cat([vertices, vertices[a].expand(2, 3)])
    faces = torch.cat([faces, torch.tensor([[a, new, new + 1], [new, new + 1, b]])])
    vmap, new_faces, uvs = unwrap(vertices, faces, size=256)
    assert torch.equal(vmap[new_faces], faces)
    corners = uvs[new_faces[-2:]]
    assert torch.equal(corners, corners[:1, :1].expand_as(corners))
    texture = bake_texture(vertices[vmap], new_faces, uvs, color, 256)
    expected = color(vertices[[a, b]])
    assert (sample_texture(texture, corners[0]) - expected.mean(dim=0)).abs().max() < 0.1


def test_texture_returns_the_colour_of_the_surface_point(mesh: TexturedMesh) -> None:
    generator = torch.Generator().manual_seed(0)
    face = torch.randint(0, mesh.faces.shape[0], (5000,), generator=generator)
    weights = torch.rand(5000, 3, generator=generator)
    weights = (weights / weights.sum(dim=1, keepdim=True))[..., None]
    points = (weights * mesh.vertices[mesh.faces[face]]).sum(dim=1)
    uvs = (weights * mesh.uvs[mesh.faces[face]]).sum(dim=1)
    error = (sample_texture(mesh.texture, uvs) - color(points)).abs()
    # A texel is about 1/100 of the object and the colour changes by up to 1.5 per unit.
    assert error.mean() < 0.002 and error.max() < 0.05


def test_chart_smaller_than_a_texel_keeps_its_colour() -> None:
    """A large chart and one of a tenth of a texel between texel centres, which no texel would be asked for."""
    size = 32
    large = torch.tensor([[0.1, 0.1], [0.6, 0.1], [0.1, 0.6]])
    tiny = (torch.tensor([[10.0, 6.0], [10.1, 6.0], [10.0, 6.1]])) / size
    uvs = torch.cat([large, tiny + torch.tensor([0.4, 0.4])])
    vertices = torch.cat([torch.zeros(3, 3), torch.ones(3, 3)]) + 0.01 * torch.eye(3).repeat(2, 1)
    texture = bake_texture(vertices, torch.arange(6).reshape(2, 3), uvs, lambda p: p.round(), size)
    assert torch.allclose(sample_texture(texture, uvs[3:]), torch.ones(3, 3))
    assert torch.allclose(sample_texture(texture, uvs[:3]), torch.zeros(3, 3))


def test_baked_mesh_looks_like_the_field(surface: tuple[Tensor, Tensor], mesh: TexturedMesh) -> None:
    cameras = orbit([20.0, 160.0], 25.0, 2.2, 40.0, 64)
    background = torch.ones(2, 3)
    expected = render_texture(cameras, *surface, color, background)
    assert (render_textured_mesh(cameras, mesh, background) - expected).abs().mean() < 1e-3


def test_constant_colour_has_no_seams(mesh: TexturedMesh) -> None:
    texture = bake_texture(mesh.vertices, mesh.faces, mesh.uvs, lambda p: torch.full_like(p, 0.75), 256)
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(mesh.faces.shape[0], 3, generator=generator)
    uvs = ((weights / weights.sum(dim=1, keepdim=True))[..., None] * mesh.uvs[mesh.faces]).sum(dim=1)
    assert torch.allclose(sample_texture(texture, uvs), torch.full((uvs.shape[0], 3), 0.75), atol=1e-5)


def test_glb_round_trip(mesh: TexturedMesh, tmp_path: Path) -> None:
    mesh.save_glb(tmp_path / "mesh.glb")
    loaded = TexturedMesh.load_glb(tmp_path / "mesh.glb")
    assert torch.equal(loaded.vertices, mesh.vertices)
    assert torch.equal(loaded.faces, mesh.faces)
    assert torch.allclose(loaded.uvs, mesh.uvs, atol=1e-6)
    assert (loaded.texture - mesh.texture).abs().max() <= 0.5 / 255 + 1e-6


def test_glb_is_y_up_with_the_front_toward_z(mesh: TexturedMesh, tmp_path: Path) -> None:
    mesh.save_glb(tmp_path / "mesh.glb")
    (stored,) = trimesh.load(tmp_path / "mesh.glb", force="scene", process=False).geometry.values()
    low, high = mesh.vertices.min(dim=0).values.numpy(), mesh.vertices.max(dim=0).values.numpy()
    # The nose (world +x) points along file +z, the bump (world +z) along file +y; sizes are kept.
    np.testing.assert_allclose(stored.bounds, np.array([low, high])[:, [1, 2, 0]], atol=1e-6)
    assert stored.bounds[1, 2] > 0.6 and stored.bounds[1, 1] > 0.5
    assert stored.volume == pytest.approx(trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy()).volume)
    assert stored.volume > 0  # a rotation, not a reflection
    outward = (stored.vertex_normals * stored.vertices).sum(axis=1)
    assert (outward > 0).mean() > 0.9


def test_glb_colours_sit_where_the_field_has_them(mesh: TexturedMesh, tmp_path: Path) -> None:
    """Read by another program's rules: the file's own texture coordinates and image."""
    mesh.save_glb(tmp_path / "mesh.glb")
    (stored,) = trimesh.load(tmp_path / "mesh.glb", force="scene", process=False).geometry.values()
    colors = stored.visual.to_color().vertex_colors[:, :3] / 255
    world = torch.from_numpy(stored.vertices[:, [2, 0, 1]])
    assert np.abs(colors - color(world).numpy()).mean() < 0.02


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply"])
def test_equal_meshes_give_equal_files(mesh: TexturedMesh, tmp_path: Path, suffix: str) -> None:
    contents = []
    for folder in ("a", "b"):
        getattr(mesh, f"save_{suffix}")(tmp_path / folder / f"mesh.{suffix}")
        contents.append({path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()})
    assert contents[0] == contents[1]


def test_obj_names_its_texture(mesh: TexturedMesh, tmp_path: Path) -> None:
    mesh.save_obj(tmp_path / "fox.obj")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fox.mtl", "fox.obj", "fox.png"]
    loaded = trimesh.load(tmp_path / "fox.obj", process=False)
    assert loaded.visual.material.image.size == (256, 256)
    world = torch.from_numpy(np.asarray(loaded.vertices)[:, [2, 0, 1]])
    assert np.abs(loaded.visual.to_color().vertex_colors[:, :3] / 255 - color(world).numpy()).mean() < 0.02


def test_ply_is_closed_and_coloured_in_the_world_frame(mesh: TexturedMesh, tmp_path: Path) -> None:
    mesh.save_ply(tmp_path / "mesh.ply")
    loaded = trimesh.load(tmp_path / "mesh.ply", process=False)
    assert loaded.is_watertight and loaded.volume > 0
    np.testing.assert_allclose(loaded.bounds[1], mesh.vertices.max(dim=0).values, atol=1e-6)
    colors = loaded.visual.vertex_colors[:, :3] / 255
    assert np.abs(colors - color(torch.from_numpy(loaded.vertices)).numpy()).mean() < 0.02


def test_files_that_are_not_a_textured_mesh_are_named(mesh: TexturedMesh, tmp_path: Path) -> None:
    (tmp_path / "broken.glb").write_bytes(b"not a mesh")
    for name in ("broken.glb", "absent.glb"):
        with pytest.raises(InputError, match="cannot read"):
            TexturedMesh.load_glb(tmp_path / name)
    trimesh.creation.box().export(tmp_path / "plain.glb")
    with pytest.raises(InputError, match="texture"):
        TexturedMesh.load_glb(tmp_path / "plain.glb")

"""The tetrahedral grid, marching tetrahedra and DMTet."""

import math
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import trimesh
from torch import Tensor

from geodream_lib.errors import InputError
from geodream_lib.field import NeuSField
from geodream_lib.mesh import DMTet, marching_tetrahedra, tetrahedral_grid
from geodream_lib.pipeline import refine_geometry
from geodream_lib.presets import load_preset
from geodream_lib.run import Run
from geodream_lib.scenes import SURFACES


def sphere(points: Tensor) -> Tensor:
    return (points - points.new_tensor([0.1, -0.2, 0.05])).norm(dim=-1) - 0.55


def to_trimesh(vertices: Tensor, faces: Tensor) -> trimesh.Trimesh:
    return trimesh.Trimesh(vertices.detach().numpy(), faces.numpy(), process=False)


@pytest.mark.parametrize("resolution", [2, 4, 10])
def test_grid_fills_the_unit_cube_with_positive_tetrahedra(resolution: int) -> None:
    vertices, tets = tetrahedral_grid(resolution)
    corners = vertices.double()[tets]
    volumes = torch.linalg.det(corners[:, 1:] - corners[:, :1]) / 6
    assert volumes.min() > 0
    assert volumes.sum().item() == pytest.approx(1, abs=1e-6)
    assert vertices.min() == 0 and vertices.max() == 1
    layers = torch.unique((vertices * resolution).round())
    assert layers.tolist() == list(range(resolution + 1))


def test_grid_is_conforming() -> None:
    """Every triangle belongs to two tetrahedra, or to one and lies on the boundary of the cube."""
    vertices, tets = tetrahedral_grid(6)
    triangles = torch.cat([tets[:, [0, 1, 2]], tets[:, [0, 1, 3]], tets[:, [0, 2, 3]], tets[:, [1, 2, 3]]])
    unique, count = triangles.sort(dim=1).values.unique(dim=0, return_counts=True)
    assert count.max() == 2
    outer = vertices[unique[count == 1]]
    assert ((outer == 0).all(dim=1) | (outer == 1).all(dim=1)).any(dim=1).all()


@pytest.mark.parametrize("resolution", [0, 1, 7])
def test_grid_refuses_odd_resolutions(resolution: int) -> None:
    with pytest.raises(InputError, match="even"):
        tetrahedral_grid(resolution)


def test_sphere_is_closed_outward_and_of_the_right_size() -> None:
    dmtet = DMTet.from_sdf(sphere, 32)
    mesh = to_trimesh(*dmtet.mesh())
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.euler_number == 2
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.55**3, rel=0.01)  # positive: normals point outward
    assert mesh.area == pytest.approx(4 * math.pi * 0.55**2, rel=0.01)
    assert sphere(torch.from_numpy(mesh.vertices)).abs().max() < 0.003


def test_second_pass_uses_the_box_widened_by_a_tenth() -> None:
    dmtet = DMTet.from_sdf(sphere, 32)
    centre = torch.tensor([0.1, -0.2, 0.05])
    expected = torch.stack([(centre - 0.55 - 0.11).clamp(min=-1), (centre + 0.55 + 0.11).clamp(max=1)])
    assert torch.allclose(dmtet.box, expected, atol=0.01)
    assert torch.allclose(dmtet.positions().min(dim=0).values, dmtet.box[0])


def test_exact_zero_is_inside() -> None:
    grid = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    tets = torch.tensor([[0, 1, 2, 3]])
    vertices, faces = marching_tetrahedra(grid, torch.tensor([1.0, 0, 0, 0]), tets)
    assert torch.equal(vertices, grid[1:]) and faces.shape == (1, 3)
    with pytest.raises(InputError, match="full"):
        marching_tetrahedra(grid, torch.tensor([-1.0, 0, 0, 0]), tets)


def test_vertices_follow_the_sdf_as_the_linear_interpolation_says() -> None:
    grid, tets = tetrahedral_grid(4)
    generator = torch.Generator().manual_seed(0)
    sdf = torch.randn(grid.shape[0], generator=generator, dtype=torch.float64, requires_grad=True)
    grid = grid.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda g, s: marching_tetrahedra(g, s, tets)[0], (grid, sdf))


def test_deformation_is_bounded_by_one_layer() -> None:
    dmtet = DMTet(8)
    rest = dmtet.positions().detach()
    torch.nn.init.constant_(dmtet.deformation, 100.0)
    size = dmtet.box[1] - dmtet.box[0]
    assert torch.allclose((dmtet.positions() - rest) / size, torch.full_like(rest, 1 / 8))


@pytest.mark.parametrize(
    ("field", "word"), [(lambda p: p.norm(dim=-1) + 1, "empty"), (lambda p: p.norm(dim=-1) - 9, "full")]
)
def test_field_without_a_surface_is_named(field, word: str) -> None:
    with pytest.raises(InputError, match=word):
        DMTet.from_sdf(field, 8)


def test_field_that_is_not_finite_is_named() -> None:
    with pytest.raises(InputError, match="not finite"):
        DMTet.from_sdf(lambda p: p.norm(dim=-1) * torch.nan, 8)


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize(("value", "word"), [(1.0, "empty"), (-1.0, "full"), (math.nan, "not finite")])
def test_a_field_without_a_surface_costs_nothing_that_is_finished(
    tmp_path: Path, surface: str, value: float, word: str
) -> None:
    """Stage 4 stops before it writes; the field and the files of an earlier try stay as they are."""
    run = Run(tmp_path, "a house", load_preset("lab", {"mesh.surface": surface, "mesh.grid_resolution": 8}), seed=0)
    finished = [run.field, run.texture, run.log, run.geometry.with_name("geometry-checkpoint.safetensors")]
    for path in finished:
        path.parent.mkdir(exist_ok=True)
        path.write_text(path.name)
    field = Mock(spec=NeuSField, sdf=lambda points: torch.full_like(points[:, 0], value))
    with pytest.raises(InputError, match=word):
        refine_geometry(run, field)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(finished)
    assert all(path.read_text() == path.name for path in finished)


def test_state_survives_the_disk(tmp_path) -> None:
    dmtet = DMTet.from_sdf(sphere, 12)
    torch.nn.init.normal_(dmtet.deformation, generator=torch.Generator().manual_seed(1))
    dmtet.save(tmp_path / "dmtet.safetensors")
    loaded = DMTet.load(tmp_path / "dmtet.safetensors")
    for ours, theirs in zip(dmtet.mesh(), loaded.mesh(), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(InputError, match="cannot read"):
        DMTet.load(tmp_path / "absent.safetensors")

"""FlexiCubes: the table of cases, the surface, and what its weights are for."""

import math

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from geodream_lib.cameras import orbit
from geodream_lib.errors import InputError
from geodream_lib.mesh import DMTet, FlexiCubes, flexicubes
from geodream_lib.mesh.flexicubes_cases import EDGES, FACES, cases
from geodream_lib.presets import load_preset
from geodream_lib.scenes import SURFACES, GeometryScene


def grid(n: int) -> Tensor:
    """Positions [n, n, n, 3] in [-1, 1]^3."""
    axis = torch.linspace(-1, 1, n)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)


def inside_only(sdf: Tensor) -> Tensor:
    """The same with the border outside."""
    inner = torch.zeros_like(sdf, dtype=torch.bool)
    inner[1:-1, 1:-1, 1:-1] = True
    return torch.where(inner, sdf, sdf.abs() + 0.1)


def sphere(points: Tensor) -> Tensor:
    return (points - points.new_tensor([0.1, -0.2, 0.05])).norm(dim=-1) - 0.55


def to_trimesh(vertices: Tensor, faces: Tensor) -> trimesh.Trimesh:
    return trimesh.Trimesh(vertices.detach().numpy(), faces.numpy(), process=False)


def test_loops_pass_every_crossed_edge_once_and_no_other() -> None:
    table = cases()
    for outside in range(256):
        crossed = torch.tensor([(outside >> a & 1) != (outside >> b & 1) for a, b in EDGES])
        for turned in (0, 1):
            loop = table.loop[outside, turned]
            assert torch.equal(loop >= 0, crossed)
            assert set(loop[crossed].tolist()) == set(range(table.loops[outside, turned]))
            assert all((loop == i).sum() >= 3 for i in range(table.loops[outside, turned])), "a loop is a polygon"


def test_a_case_has_at_most_one_doubtful_face_and_turning_it_settles_it() -> None:
    """Then two cubes at such a face can both be split by turning it, and nothing else changes for either."""
    table = cases()
    count = 0
    for outside in range(256):
        for turned in (0, 1):
            loop = table.loop[outside, turned]
            doubtful = []
            for face, ring in enumerate(FACES):
                edges = [EDGES.index((min(a, b), max(a, b))) for a, b in zip(ring, ring[1:] + ring[:1], strict=True)]
                if (loop[edges] >= 0).all() and len(set(loop[edges].tolist())) == 1:
                    doubtful.append(face)
            if turned:
                assert not doubtful
            else:
                assert doubtful == ([] if table.doubtful_face[outside] < 0 else [table.doubtful_face[outside]])
                count += len(doubtful)
    # Nielson (2004): the complements of two corners across a face (12), and of an edge with a corner across one (24).
    assert count == 36


@pytest.mark.parametrize("four_triangles", [True, False])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_random_fields_give_closed_manifolds(share: float, four_triangles: bool) -> None:
    """Every ambiguous case, next to every other: two faces at every edge, and one fan of faces at every vertex."""
    generator = torch.Generator().manual_seed(int(10 * share))
    sdf = inside_only(torch.rand(17, 17, 17, generator=generator) - share)
    weights = torch.randn(16, 16, 16, 21, generator=generator)
    vertices, faces, _ = flexicubes(grid(17), sdf, weights, four_triangles)
    mesh = to_trimesh(vertices, faces)
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert len(faces) == (4 if four_triangles else 2) * sum(
        int(((sdf.narrow(axis, 0, 16) > 0) != (sdf.narrow(axis, 1, 16) > 0)).sum()) for axis in range(3)
    )
    # The edges opposite to a vertex form one ring: as many corners as edges, in one piece.
    starts, ends = faces[:, [1, 2, 0]].flatten(), faces[:, [2, 0, 1]].flatten()
    follows = dict(zip(zip(faces.flatten().tolist(), starts.tolist(), strict=True), ends.tolist(), strict=True))
    degree = torch.bincount(faces.flatten())
    for vertex, first in dict(zip(faces.flatten().tolist(), starts.tolist(), strict=True)).items():
        at, steps = follows[vertex, first], 1
        while at != first:
            at, steps = follows[vertex, at], steps + 1
        assert steps == degree[vertex]


def test_sphere_is_closed_outward_and_of_second_order() -> None:
    """Half the cube's size, a quarter of the distance between vertices and sphere."""
    errors = []
    for resolution in (16, 32):
        surface = FlexiCubes.from_sdf(sphere, resolution)
        for mesh in (to_trimesh(*surface.train().mesh()), to_trimesh(*surface.eval().mesh())):
            assert mesh.is_watertight and mesh.is_winding_consistent and mesh.euler_number == 2
            assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.55**3, rel=0.03)  # positive: normals point outward
        errors.append(sphere(torch.from_numpy(mesh.vertices)).square().mean().sqrt())
    assert 3 < errors[0] / errors[1] < 5


def test_plane_is_exact() -> None:
    """Any weights of edges and diagonals: a mean of points of a plane is on the plane."""
    positions = grid(9).double()
    normal = torch.nn.functional.normalize(torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64), dim=0)
    sdf = inside_only(positions @ normal - 0.1)
    weights = torch.randn(8, 8, 8, 21, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights[..., :8] = 0
    vertices, *_ = flexicubes(positions, sdf, weights, four_triangles=True)
    flat = (vertices.abs() < 0.5).all(dim=1) & (vertices @ normal > -0.2)
    assert flat.sum() > 50 and (vertices[flat] @ normal - 0.1).abs().max() < 1e-12


@pytest.mark.parametrize("four_triangles", [True, False])
def test_gradients(four_triangles: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    positions = grid(5).double() + 0.05 * torch.randn(5, 5, 5, 3, generator=generator)
    sdf = inside_only(torch.randn(5, 5, 5, generator=generator)).double()
    weights = torch.randn(4, 4, 4, 21, generator=generator, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (positions, sdf, weights)]

    def surface(positions: Tensor, sdf: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        vertices, _, deviation = flexicubes(positions, sdf, weights, four_triangles)
        return vertices, deviation

    assert torch.autograd.gradcheck(surface, inputs, fast_mode=True)


def test_exact_zero_is_inside() -> None:
    sdf = torch.ones(4, 4, 4)
    sdf[1, 2, 1] = 0
    vertices, faces, _ = flexicubes(grid(4), sdf, torch.zeros(3, 3, 3, 21), four_triangles=False)
    assert vertices.shape == (8, 3) and faces.shape == (12, 3)
    assert torch.allclose(vertices, grid(4)[1, 2, 1].expand(8, 3))


def test_greater_gamma_takes_the_diagonal_and_draws_the_middle() -> None:
    """Cubes in a checkerboard of two gammas: one choice of diagonals cuts into the sphere, the other fills it."""
    sdf = inside_only(sphere(grid(9)))
    for four_triangles in (False, True):
        volumes = []
        for sign in (-1, 1):
            checkers = torch.stack(torch.meshgrid(*[torch.arange(8)] * 3, indexing="ij")).sum(0) % 2
            weights = torch.zeros(8, 8, 8, 21)
            weights[..., 20] = 4 * sign * (2.0 * checkers - 1)
            vertices, faces, _ = flexicubes(grid(9), sdf, weights, four_triangles)
            volumes.append(to_trimesh(vertices, faces).volume)
        neutral = flexicubes(grid(9), sdf, torch.zeros(8, 8, 8, 21), four_triangles)
        assert volumes[0] != volumes[1]
        if four_triangles:
            assert min(volumes) < to_trimesh(*neutral[:2]).volume < max(volumes)


def test_deviation_is_zero_where_crossings_are_equally_far_and_grows_with_the_weights() -> None:
    """One inside corner: its cubes have three crossings each, at equal distances from their mean."""
    sdf = torch.ones(4, 4, 4)
    sdf[1, 2, 1] = -1
    *_, deviation = flexicubes(grid(4), sdf, torch.zeros(3, 3, 3, 21), four_triangles=True)
    assert deviation.item() == pytest.approx(0, abs=1e-6)
    weights = torch.zeros(3, 3, 3, 21)
    weights[..., 8:12] = 1
    *_, deviation = flexicubes(grid(4), sdf, weights, four_triangles=True)
    assert deviation > 0.01


TURN = trimesh.transformations.euler_matrix(0.4, 0.3, 0.2)


def box(points: Tensor) -> Tensor:
    """Signed distance of a turned box with half sides 0.5, 0.4, 0.45."""
    q = (points @ torch.tensor(TURN[:3, :3], dtype=points.dtype)).abs() - points.new_tensor([0.5, 0.4, 0.45])
    return q.clamp(min=0).norm(dim=-1) + q.amax(dim=-1).clamp(max=0)


def fit_to_box(surface: DMTet | FlexiCubes) -> trimesh.Trimesh:
    """Draw random points of the mesh onto the box."""
    parameters = [parameter for group in surface.parameter_groups().values() for parameter in group]
    optimizer, generator = torch.optim.Adam(parameters, lr=0.02), torch.Generator().manual_seed(0)
    for _ in range(100):
        vertices, faces, deviation = surface.mesh_with_deviation()
        corners = vertices[faces]
        shares = torch.rand(len(faces), 3, 1, generator=generator)
        points = (corners * shares / shares.sum(dim=1, keepdim=True)).sum(dim=1)
        area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
        loss = (area * box(points).abs()).sum() / area.sum() + 0.1 * deviation
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return to_trimesh(*surface.eval().mesh())


def test_fitted_to_a_box_faces_are_flatter_and_edges_sharper_than_a_dmtets() -> None:
    """Same resolution and steps: mean angle between faces and the box's, distance from the box's edges to the mesh."""
    true = trimesh.creation.box((1.0, 0.8, 0.9), TURN)
    sharp = torch.tensor(true.vertices[true.face_adjacency_edges[true.face_adjacency_angles > 1]])
    edges = torch.cat([torch.lerp(sharp[:, 0], sharp[:, 1], t) for t in torch.linspace(0.02, 0.98, 25).double()])
    angles, distances = [], []
    for kind in (DMTet, FlexiCubes):
        mesh = fit_to_box(kind.from_sdf(box, 12))
        cosines = abs(mesh.face_normals @ TURN[:3, :3]).max(axis=1).clip(max=1)
        angles.append((mesh.area_faces * np.degrees(np.arccos(cosines))).sum() / mesh.area)
        distances.append(trimesh.proximity.closest_point_naive(mesh, edges.numpy())[1].mean())
    assert angles[1] < 0.7 * angles[0] and angles[1] < 1
    assert distances[1] < 0.8 * distances[0] and distances[1] < 2e-3


@pytest.mark.parametrize(
    ("field", "word"),
    [
        (lambda p: p.norm(dim=-1) + 1, "empty"),
        (lambda p: p.norm(dim=-1) - 9, "full"),
        (lambda p: p.norm(dim=-1) * torch.nan, "not finite"),
    ],
)
def test_field_without_a_surface_is_named(field, word: str) -> None:
    with pytest.raises(InputError, match=word):
        FlexiCubes.from_sdf(field, 8)


def test_surface_that_leaves_the_grid_is_named() -> None:
    with pytest.raises(InputError, match="crosses 28 edges on the border"):
        flexicubes(grid(7), grid(7)[..., 2] - 0.1, torch.zeros(6, 6, 6, 21), four_triangles=True)


@pytest.mark.parametrize("kind", [DMTet, FlexiCubes])
def test_what_reaches_beyond_the_box_is_cut_off_flat(kind: type[DMTet] | type[FlexiCubes]) -> None:
    surface = kind.from_sdf(lambda p: p[:, :2].norm(dim=-1) - 0.5, 24)
    mesh = to_trimesh(*surface.mesh())
    assert mesh.is_watertight and mesh.volume == pytest.approx(2 * math.pi * 0.25, rel=0.03)
    assert mesh.bounds[:, 2].tolist() == pytest.approx([-1, 1], abs=0.01)


def test_deformation_is_bounded_by_half_a_cube() -> None:
    surface = FlexiCubes(8)
    rest = surface.positions().detach()
    torch.nn.init.constant_(surface.deformation, 100.0)
    size = surface.box[1] - surface.box[0]
    assert torch.allclose((surface.positions() - rest) / size, torch.full_like(rest, 1 / 16))


def test_state_survives_the_disk(tmp_path) -> None:
    surface = FlexiCubes.from_sdf(sphere, 12)
    for parameter in (surface.deformation, surface.weights):
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    surface.save(tmp_path / "surface.safetensors")
    loaded = FlexiCubes.load(tmp_path / "surface.safetensors")
    for ours, theirs in zip(surface.mesh_with_deviation(), loaded.mesh_with_deviation(), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(InputError, match="does not fit DMTet"):
        DMTet.load(tmp_path / "surface.safetensors")
    with pytest.raises(InputError, match="at least 2"):
        FlexiCubes(1)


def test_stage_4_takes_them_by_one_setting() -> None:
    preset = load_preset("lab", {"mesh.surface": "flexicubes", "mesh.geometry.weights.deviation": 5})
    assert set(preset.mesh.geometry.rates) == set(FlexiCubes(2).parameter_groups()) == set(DMTet(2).parameter_groups())
    with pytest.raises(InputError, match="mesh.surface is 'cubes'; choose one of dmtet, flexicubes"):
        load_preset("lab", {"mesh.surface": "cubes"})
    scene = GeometryScene(SURFACES[preset.mesh.surface].from_sdf(sphere, 8))
    assert {p for group in scene.parameter_groups().values() for p in group} == set(scene.parameters())
    shot = scene(orbit([20.0], 10.0, 2.75, 40.0, 32), 0, torch.Generator())
    sum(weight.value(0) * shot.terms[name] for name, weight in preset.mesh.geometry.weights.items()).backward()
    assert all(parameter.grad.isfinite().all() and parameter.grad.any() for parameter in scene.parameters())
    *_, deviation = DMTet.from_sdf(sphere, 8).mesh_with_deviation()
    assert deviation == 0

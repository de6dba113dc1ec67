"""Regularisers and the removal of floaters."""

import pytest
import torch
import trimesh
from torch import Tensor

from geodream_lib.mesh import normal_consistency, remove_floaters, uniform_laplacian


def plane(count: int = 6) -> tuple[Tensor, Tensor]:
    """A regular triangulation of a tilted parallelogram."""
    grid = torch.cartesian_prod(torch.arange(count + 1.0), torch.arange(count + 1.0))
    vertices = grid @ torch.tensor([[0.2, 0.0, 0.1], [0.05, 0.2, 0.0]])
    corner = (torch.arange(count)[:, None] * (count + 1) + torch.arange(count)).flatten()
    right, up = count + 1, 1
    faces = torch.cat(
        [
            torch.stack([corner, corner + right, corner + right + up], dim=1),
            torch.stack([corner, corner + right + up, corner + up], dim=1),
        ]
    )
    return vertices, faces


def test_plane_is_perfectly_smooth() -> None:
    vertices, faces = plane()
    assert normal_consistency(vertices, faces).item() == pytest.approx(0, abs=1e-6)


def test_laplacian_is_zero_inside_a_regular_plane() -> None:
    """Only boundary vertices differ from the mean of their neighbours, so moving the inside cannot lower it."""
    vertices, faces = plane()
    vertices.requires_grad_()
    boundary = 24  # 7 x 7 vertices, 5 x 5 inside
    total = uniform_laplacian(vertices, faces) * vertices.shape[0]
    inside = torch.zeros(7, 7, dtype=torch.bool)
    inside[1:-1, 1:-1] = True
    a, b = torch.unique(torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(1).values, dim=0).T
    matrix = torch.zeros(49, 49)
    matrix[a, b] = matrix[b, a] = -1
    rows = (matrix - torch.diag(matrix.sum(1))) @ vertices.detach()
    assert rows[inside.flatten()].norm(dim=1).max() < 1e-6
    assert int((~inside).sum()) == boundary
    assert total.item() == pytest.approx(rows.norm(dim=1).sum().item(), rel=1e-5)


def test_normal_consistency_of_a_cube() -> None:
    """Between cube corners the vertex normals differ by a known angle: two corners of an octahedron share no normal."""
    octahedron = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    faces = torch.tensor([[i, j, k] for i in (0, 1) for j in (2, 3) for k in (4, 5)])
    flip = (octahedron[faces].det() < 0).nonzero()[:, 0]
    faces[flip] = faces[flip].flip(1)
    # The normals are the coordinate axes, and every edge joins two perpendicular ones.
    assert normal_consistency(octahedron, faces).item() == pytest.approx(1.0)


def test_regularisers_pull_noise_out() -> None:
    mesh = trimesh.creation.icosphere(3, 0.5)
    faces = torch.tensor(mesh.faces)
    clean = torch.tensor(mesh.vertices, dtype=torch.float32)
    noisy = (clean + 0.01 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))).requires_grad_()
    for term in (normal_consistency, uniform_laplacian):
        loss = term(noisy, faces)
        assert loss > 1.5 * term(clean, faces)
        (gradient,) = torch.autograd.grad(loss, noisy)
        with torch.no_grad():
            assert term(noisy - 0.002 * gradient / gradient.norm(dim=1).max(), faces) < loss


def test_small_components_are_removed() -> None:
    big = trimesh.creation.icosphere(4, 0.5)  # 5120 faces, 1 % = 51.2
    kept = trimesh.creation.icosphere(1, 0.1)  # 80 faces
    small = trimesh.creation.icosphere(0, 0.1)  # 20 faces
    small.apply_translation([0.8, 0, 0])
    kept.apply_translation([0, 0.8, 0])
    together = trimesh.util.concatenate([small, big, kept])
    vertices = torch.tensor(together.vertices, dtype=torch.float32)
    faces = torch.tensor(together.faces)
    new_vertices, new_faces = remove_floaters(vertices, faces)
    assert torch.equal(new_vertices[new_faces], vertices[faces[20:]])
    assert new_vertices.shape[0] == len(big.vertices) + len(kept.vertices)
    assert remove_floaters(vertices, faces, min_fraction=0.0)[1].shape == faces.shape


def test_components_that_touch_in_a_point_are_separate() -> None:
    big = trimesh.creation.icosphere(3, 0.5)
    vertices = torch.tensor(big.vertices, dtype=torch.float32)
    top = int(vertices[:, 2].argmax())
    count = vertices.shape[0]
    tip = torch.tensor([[0.1, 0.0, 0.9], [-0.1, 0.0, 0.9]])
    faces = torch.cat([torch.tensor(big.faces), torch.tensor([[top, count, count + 1]])])
    _, kept = remove_floaters(torch.cat([vertices, tip]), faces)
    assert kept.shape[0] == len(big.faces)

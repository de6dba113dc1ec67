"""Marching tetrahedra equals the public implementation's: numbering, positions, gradients, orientation."""

from pathlib import Path

import numpy as np
import pytest
import torch

from geodream_lib.mesh import marching_tetrahedra


@pytest.fixture(scope="module")
def fixture(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "dmtet" / "marching_tets.npz") as file:
        return dict(file)


@pytest.mark.parametrize("field", ["sphere", "random"])
@pytest.mark.parametrize("suffix", ["", "_deformed"])
def test_surface_and_gradients(fixture: dict[str, np.ndarray], field: str, suffix: str) -> None:
    case = field + suffix
    grid = torch.from_numpy(fixture["vertices"] + (fixture["deformation"] if suffix else 0)).requires_grad_()
    sdf = torch.from_numpy(fixture[f"{field}_sdf"]).requires_grad_()
    vertices, faces = marching_tetrahedra(grid, sdf, torch.from_numpy(fixture["tets"]))

    np.testing.assert_array_equal(faces, fixture[f"{case}_faces"])
    np.testing.assert_allclose(vertices.detach(), fixture[f"{case}_verts"], rtol=1e-5, atol=1e-5)
    a, b, c = vertices.detach().double()[faces].unbind(1)
    volume = (a * torch.linalg.cross(b, c)).sum() / 6
    np.testing.assert_allclose(volume, fixture[f"{case}_signed_volume"], rtol=1e-4, atol=1e-5)

    (vertices * torch.from_numpy(fixture[f"{case}_weight_for_grad"])).sum().backward()
    for name, gradient in (("dsdf", sdf.grad), ("dvertices", grid.grad)):
        if f"{case}_{name}" in fixture:
            expected = fixture[f"{case}_{name}"]
            np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_faces_come_from_the_same_tetrahedra(fixture: dict[str, np.ndarray]) -> None:
    """Every face lies on edges of the tetrahedron that the fixture names for it."""
    for case in (name.removesuffix("_tet_idx") for name in fixture if name.endswith("_tet_idx")):
        grid = fixture["vertices"] + (fixture["deformation"] if case.endswith("_deformed") else 0)
        sdf = torch.from_numpy(fixture[f"{case.removesuffix('_deformed')}_sdf"])
        vertices, faces = marching_tetrahedra(torch.from_numpy(grid), sdf, torch.from_numpy(fixture["tets"]))
        corners = grid[fixture["tets"][fixture[f"{case}_tet_idx"]]]
        points = vertices[faces].numpy()
        assert (points >= corners.min(axis=1, keepdims=True) - 1e-5).all()
        assert (points <= corners.max(axis=1, keepdims=True) + 1e-5).all()

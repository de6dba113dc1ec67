"""FlexiCubes equal kaolin's in float64: vertices, faces, L_dev and all gradients, also where cubes are ambiguous."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from geodream_lib.mesh import flexicubes
from geodream_lib.mesh.flexicubes_cases import EDGES
from geodream_lib.mesh.surface_cuda import KAOLIN_EDGES

OURS = [KAOLIN_EDGES.index(edge) for edge in EDGES]  # kaolin's place of each of our edges


@pytest.fixture(scope="module")
def fixture(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "flexicubes" / "surfaces.npz") as file:
        return dict(file)


def faces_as_set(faces: np.ndarray) -> set[tuple[int, ...]]:
    """Each with its smallest vertex first, its direction kept."""
    return {tuple(np.roll(face, -face.argmin()).tolist()) for face in faces}


def weights_of(fixture: dict[str, np.ndarray], prefix: str) -> Tensor:
    alpha, beta, gamma = (fixture[f"{prefix}{name}"] for name in ("alpha", "beta", "gamma"))
    return torch.from_numpy(np.concatenate([alpha, beta[:, OURS], gamma[:, None]], axis=1)).double()


@pytest.mark.parametrize("field", ["sphere", "random"])
@pytest.mark.parametrize("training", [True, False])
def test_surface_and_gradients(fixture: dict[str, np.ndarray], field: str, training: bool) -> None:
    case = f"{field}_training" if training else field
    n, r = 7, 6
    positions = torch.from_numpy(fixture[f"{field}_positions"]).double().reshape(n, n, n, 3).requires_grad_()
    sdf = torch.from_numpy(fixture[f"{field}_sdf"]).double().reshape(n, n, n).requires_grad_()
    weights = weights_of(fixture, f"{field}_").reshape(r, r, r, 21).requires_grad_()
    vertices, faces, deviation = flexicubes(positions, sdf, weights, four_triangles=training)
    (torch.sin(3 * vertices).sum() + 10 * deviation).backward()

    expected = fixture[f"{case}_vertices"]
    distance, place = cKDTree(expected).query(vertices.detach().numpy())
    assert distance.max() < 1e-6 and sorted(place) == list(range(len(expected)))
    assert faces_as_set(place[faces.numpy()]) == faces_as_set(fixture[f"{case}_faces"])
    assert deviation.item() == pytest.approx(fixture[f"{case}_deviation"].item(), rel=1e-6)
    for ours, theirs in (
        (positions.grad.reshape(-1, 3), torch.from_numpy(fixture[f"{case}_dpositions"])),
        (sdf.grad.flatten(), torch.from_numpy(fixture[f"{case}_dsdf"])),
        (weights.grad.reshape(-1, 21), weights_of(fixture, f"{case}_d")),
    ):
        torch.testing.assert_close(ours, theirs.double(), rtol=1e-5, atol=1e-6 * theirs.abs().max().item())

"""A run's shape against the true one, where the prompt names an object whose shape is known."""

from collections.abc import Callable
from dataclasses import dataclass

import trimesh
from jaxtyping import Float
from torch import Tensor

from geodream_lib.metrics.shape import (
    RADIUS,
    TAU,
    ShapeScores,
    compare_shapes,
    fine_alignment,
    moved,
    normalized,
    rough_alignment,
)

COARSE, FINE = 48, 128  # cells a side of the true meshes: to choose among, and to measure against


@dataclass(frozen=True)
class Truth:
    """What a prompt's object truly looks like: several objects that its words are true of.

    symmetric: it looks the same after a quarter turn, so it has no front. images: of all candidates, from all around.
    mesh: candidate and cells a side -> its surface.
    """

    symmetric: bool
    images: Float[Tensor, "m h w 3"]
    candidates: int
    mesh: Callable[[int, int], trimesh.Trimesh]


@dataclass(frozen=True)
class Shape:
    """Scores against the candidate of the least Chamfer distance, and where the run's shape was put for it.

    turn: degrees, counter-clockwise seen from above; one far from 0 says that the front is not where it should be.
    scale: of the run's shape, both having the same radius at first. radius, tau: the convention, see `shape`.
    """

    scores: ShapeScores
    candidate: int
    candidates: int
    turn: float
    scale: float
    radius: float = RADIUS
    tau: float = TAU


def compare_with_truth(mesh: trimesh.Trimesh, truth: Truth) -> Shape:
    """Scores against the nearest candidate: words leave proportions open, so the one of least distance is meant.

    Raises:
        InputError: the mesh has no extent.
    """
    own = normalized(mesh)
    rough = [rough_alignment(own, normalized(truth.mesh(k, COARSE))) for k in range(truth.candidates)]
    candidate = min(range(truth.candidates), key=lambda k: rough[k][1])
    true = normalized(truth.mesh(candidate, FINE))
    alignment = fine_alignment(own, true, rough[candidate][0])
    turn = (alignment.turn + 180) % 360 - 180
    return Shape(compare_shapes(moved(own, alignment), true), candidate, truth.candidates, turn, alignment.scale)

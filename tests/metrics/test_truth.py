"""A shape against the truth behind its prompt."""

import numpy as np
import pytest
import torch
import trimesh

from geodream_lib.metrics.align import Alignment
from geodream_lib.metrics.shape import TAU, moved
from geodream_lib.metrics.truth import Truth, compare_with_truth


def table(legs: float, cells: int) -> trimesh.Trimesh:
    """A thing with a front: a board on three legs."""
    board = trimesh.creation.box((1.0, 0.7, 0.12))
    parts = [board]
    for x, y in ((0.4, 0.25), (0.4, -0.25), (-0.4, 0.0)):
        leg = trimesh.creation.box((0.12, 0.12, legs))
        leg.apply_translation([x, y, -legs / 2])
        parts.append(leg)
    return trimesh.util.concatenate([part.subdivide_to_size(3 / cells) for part in parts])


@pytest.fixture
def truth() -> Truth:
    return Truth(False, torch.ones(1, 4, 4, 3), 3, lambda k, cells: table((0.4, 0.7, 1.0)[k], cells))


@pytest.mark.parametrize("candidate", [0, 2])
def test_the_candidate_that_is_meant_is_found_and_fits(truth, candidate):
    """However it is turned, scaled and placed."""
    own = moved(truth.mesh(candidate, 21), Alignment(-70.0, 1.8, np.array([0.3, 0.0, 2.0])))
    shape = compare_with_truth(own, truth)
    assert shape.candidate == candidate and shape.candidates == 3
    assert shape.turn == pytest.approx(70, abs=1)
    assert shape.scores.chamfer < TAU / 4 and shape.scores.f_score > 0.99 and shape.scores.iou > 0.9

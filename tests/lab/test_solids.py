"""Solids without a name: what the cost volume learns on beside the lab's objects."""

import numpy as np
import pytest

from geodream_lib.lab import mesh, sdf
from geodream_lib.lab.solids import sample_solid


@pytest.mark.parametrize("seed", range(8))
def test_a_solid_is_one_piece_and_fills_the_world(seed):
    solid = sample_solid(np.random.default_rng(seed))
    surface = mesh(solid, resolution=96)
    assert surface.is_watertight
    pieces = [len(piece.vertices) for piece in surface.split(only_watertight=False)]
    assert max(pieces) > 0.99 * len(surface.vertices), "marching cubes leaves specks where a part is thin, no more"
    assert np.linalg.norm(surface.vertices, axis=1).max() == pytest.approx(0.9, abs=0.02)
    directions = np.random.default_rng(0).normal(size=(512, 3))
    beyond = 0.93 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    assert (sdf(solid, beyond.astype(np.float32))[0] > 0).all()


def test_every_solid_is_another_and_each_comes_again():
    one, again, other = (sample_solid(np.random.default_rng(seed)).primitives for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert one.shape != other.shape or not np.allclose(one, other)

"""The best place of a shape over another: a turn about the vertical, one scale, a shift."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

TURNS = 24  # directions tried first
KEPT = 3  # of them, refined


@dataclass(frozen=True)
class Alignment:
    """x -> scale * R_z(turn) x + shift; `turn` in degrees, counter-clockwise seen from above."""

    turn: float
    scale: float
    shift: Float[np.ndarray, " 3"]

    def apply(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        return self.scale * points @ turn_about_z(self.turn).T + self.shift

    def undo(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        return (points - self.shift) @ turn_about_z(self.turn) / self.scale


def turn_about_z(degrees: float) -> Float[np.ndarray, "3 3"]:
    """Rotation matrix, counter-clockwise seen from above."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def align(moved: Float[np.ndarray, "n 3"], fixed: Float[np.ndarray, "m 3"], steps: int) -> tuple[Alignment, float]:
    """Move one point set over another, and the mean distance of nearest points that remains (both ways, averaged).

    All directions are tried in steps of 15 degrees; from the best three, closest points are paired and the similarity
    that unites the pairs best is taken, `steps` times (ICP). Pairs go both ways, or a point would be the best scale.
    """
    trees = cKDTree(moved), cKDTree(fixed)
    few = moved[: len(moved) // 2], fixed[: len(fixed) // 2]
    starts = [Alignment(360.0 * k / TURNS, 1.0, np.zeros(3)) for k in range(TURNS)]
    starts.sort(key=lambda start: _distance(start, few, trees))
    found = [_refine(start, (moved, fixed), trees, steps) for start in starts[:KEPT]]
    return min(((alignment, _distance(alignment, (moved, fixed), trees)) for alignment in found), key=lambda x: x[1])


def best_similarity(moved: Float[np.ndarray, "n 3"], fixed: Float[np.ndarray, "n 3"]) -> Alignment:
    """The turn about z, scale and shift that bring paired points together in the least squares (Umeyama, 1991)."""
    center_moved, center_fixed = moved.mean(axis=0), fixed.mean(axis=0)
    p, q = moved - center_moved, fixed - center_fixed
    turn = np.degrees(np.arctan2((p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum(), (p[:, :2] * q[:, :2]).sum()))
    rotation = turn_about_z(turn)
    scale = (q * (p @ rotation.T)).sum() / (p**2).sum()
    return Alignment(float(turn), float(scale), center_fixed - scale * rotation @ center_moved)


def _refine(alignment: Alignment, sets: tuple, trees: tuple, steps: int) -> Alignment:
    (moved, fixed), (tree_moved, tree_fixed) = sets, trees
    for _ in range(steps):
        _, there = tree_fixed.query(alignment.apply(moved))
        _, back = tree_moved.query(alignment.undo(fixed))
        alignment = best_similarity(np.concatenate([moved, moved[back]]), np.concatenate([fixed[there], fixed]))
    return alignment


def _distance(alignment: Alignment, sets: tuple, trees: tuple) -> float:
    """Mean distance of nearest points, both ways, in the fixed set's units."""
    there = trees[1].query(alignment.apply(sets[0]))[0].mean()
    back = trees[0].query(alignment.undo(sets[1]))[0].mean() * alignment.scale
    return float(there + back) / 2

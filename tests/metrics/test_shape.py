"""Distances and volumes of shapes whose answer is known, and the alignment that leaves them as they are."""

import numpy as np
import pytest
import trimesh

from geodream_lib.errors import InputError
from geodream_lib.metrics.align import Alignment, best_similarity
from geodream_lib.metrics.shape import (
    RADIUS,
    TAU,
    compare_shapes,
    fine_alignment,
    moved,
    normalized,
    rough_alignment,
)
from geodream_lib.metrics.surface import Surface, inside


def ball(radius: float, shift: tuple[float, float, float] = (0, 0, 0)) -> trimesh.Trimesh:
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    return trimesh.Trimesh(mesh.vertices + np.array(shift), mesh.faces, process=False)


def box(*sides: float) -> trimesh.Trimesh:
    return trimesh.creation.box(sides)


def lopsided(cells: int) -> trimesh.Trimesh:
    """A shape without symmetry, in pieces of the size asked for: two bodies run into each other."""
    parts = box(1.0, 0.5, 0.3), box(0.25, 0.25, 0.9)
    parts[1].apply_translation([0.3, 0.1, 0.3])
    return trimesh.util.concatenate([part.subdivide_to_size(1 / cells) for part in parts])


@pytest.mark.parametrize("gap", [0.6 * TAU, 3 * TAU])
def test_a_ball_within_a_ball(gap):
    """Everywhere the gap apart, normals parallel, volumes as the cubes of the radii."""
    outer, inner = ball(RADIUS), ball(RADIUS - gap)
    scores = compare_shapes(inner, outer)
    assert scores.chamfer == pytest.approx(gap, rel=0.01)
    assert scores.f_score == (1.0 if gap < TAU else 0.0)
    assert scores.normal_consistency == pytest.approx(1, abs=1e-3)
    assert scores.iou == pytest.approx((1 - gap / RADIUS) ** 3, abs=2e-3)


def test_the_same_shape_is_perfect():
    scores = compare_shapes(lopsided(8), lopsided(12))
    assert scores.chamfer < 1e-4 and scores.f_score == 1 and scores.iou == 1 and scores.normal_consistency > 0.99


def test_a_thin_plate_a_little_above_another():
    """Large faces look at each other across the shift; half of each volume is shared."""
    one, other = box(1.2, 1.2, 0.1), box(1.2, 1.2, 0.1)
    other.apply_translation([0, 0, 0.05])
    scores = compare_shapes(one, other)
    assert scores.iou == pytest.approx(1 / 3, abs=0.05)
    # 0.05 from the large faces, less from the narrow ones (a seventh of the surface) and near the edges.
    assert 0.8 * 0.05 < scores.chamfer < 0.05 and scores.f_score < 0.2


def test_a_missing_part_costs_recall_not_precision():
    whole = lopsided(10)
    part = box(1.0, 0.5, 0.3).subdivide_to_size(0.1)
    scores = compare_shapes(part, whole)
    from_whole, _ = Surface.of(part).nearest(np.asarray(whole.vertices))
    assert np.linalg.norm(from_whole - whole.vertices, axis=1).max() > 0.3
    assert 0.5 < scores.f_score < 0.95 and 0.5 < scores.iou < 0.9


@pytest.mark.parametrize("resolution", [40, 73])
def test_the_inside_of_a_box_and_of_two_that_overlap(resolution):
    volume = 8 * inside(box(1.0, 0.5, 1.5), 1.0, resolution).mean()
    assert volume == pytest.approx(0.75, rel=0.06)
    one, other = box(1, 1, 1), box(1, 1, 1)
    other.apply_translation([0.5, 0, 0])
    assert 8 * inside(trimesh.util.concatenate([one, other]), 1.01, resolution).mean() == pytest.approx(1.5, rel=0.06)


def test_the_nearest_place_lies_within_faces_not_at_their_corners():
    cube = box(2, 2, 2)
    points = np.array([[1.5, 0.3, -0.2], [0.1, 0.2, 0.9], [2.0, 2.0, 2.0]])
    places, faces = Surface.of(cube).nearest(points)
    np.testing.assert_allclose(places, [[1, 0.3, -0.2], [0.1, 0.2, 1], [1, 1, 1]], atol=1e-9)
    assert abs(Surface.of(cube).normals[faces[0], 0]) == pytest.approx(1)


@pytest.mark.parametrize("turn", [50.0, 263.0])
@pytest.mark.parametrize(("scale", "shift"), [(1.0, (0, 0, 0)), (2.7, (3, -1, 0.4))])
def test_after_alignment_turn_size_and_place_make_no_difference(turn, scale, shift):
    """Of the same shape cut into other triangles, so that no point of one is a point of the other."""
    true = normalized(lopsided(9))
    other = normalized(moved(lopsided(14), Alignment(turn, scale, np.array(shift, float))))
    rough, distance = rough_alignment(other, true)
    assert distance < 2 * TAU
    alignment = fine_alignment(other, true, rough)
    assert (alignment.turn + turn + 180) % 360 - 180 == pytest.approx(0, abs=0.3)
    scores = compare_shapes(moved(other, alignment), true)
    assert scores.chamfer < 0.002 and scores.f_score == 1 and scores.iou > 0.97


def test_a_difference_survives_the_alignment():
    """A turn, a scale and a shift do not make a ball of a box."""
    true, other = normalized(ball(1.0)), normalized(box(1, 1, 1).subdivide_to_size(0.1))
    alignment = fine_alignment(other, true, rough_alignment(other, true)[0])
    scores = compare_shapes(moved(other, alignment), true)
    assert scores.chamfer > 2 * TAU and scores.iou < 0.95


def test_pairs_give_the_similarity_back():
    rng = np.random.default_rng(4)
    points = rng.normal(size=(50, 3))
    truth = Alignment(37.0, 0.7, np.array([0.2, -0.4, 1.1]))
    found = best_similarity(points, truth.apply(points))
    assert found.turn == pytest.approx(truth.turn) and found.scale == pytest.approx(truth.scale)
    np.testing.assert_allclose(found.shift, truth.shift, atol=1e-12)
    np.testing.assert_allclose(truth.undo(truth.apply(points)), points, atol=1e-12)


def test_a_normalized_mesh_has_the_radius_of_the_convention():
    mesh = normalized(moved(lopsided(4), Alignment(20.0, 9.0, np.ones(3))))
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(RADIUS)
    np.testing.assert_allclose(mesh.bounds.mean(axis=0), 0, atol=1e-12)
    with pytest.raises(InputError, match="no extent"):
        normalized(trimesh.Trimesh(np.zeros((3, 3)), [[0, 1, 2]], process=False))

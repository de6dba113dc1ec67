"""How near a shape is to the true one: Chamfer distance, F-score, normal consistency, intersection over union.

Convention: the true shape is moved and scaled so that its bounding box is centred at the origin and its furthest vertex
has distance 0.8; the other is laid over it by a turn about the vertical, one scale and a shift, since a prompt says
nothing about size. All lengths are in that frame.
"""

from dataclasses import dataclass

import numpy as np
import trimesh
from jaxtyping import Float

from geodream_lib.errors import InputError
from geodream_lib.metrics.align import Alignment, align, best_similarity
from geodream_lib.metrics.surface import Surface, inside, sample

RADIUS = 0.8
TAU = 0.02  # distance up to which a point counts as right, a fortieth of the radius
POINTS = 10_000
FITTED = 1500  # of each side, in the fine alignment
GRID = 96  # cells per axis of the volumes


@dataclass(frozen=True)
class ShapeScores:
    """chamfer: mean distance to the other surface, averaged over both directions (not their sum), exact point to face.
    f_score: harmonic mean of the shares of both surfaces within `TAU` of the other. normal_consistency: mean |cos| of
    the normals at nearest places, both directions averaged. iou: of the volumes. All but the first are 0..1.
    """

    chamfer: float
    f_score: float
    normal_consistency: float
    iou: float


def normalized(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh with its bounding box centred at the origin and its furthest vertex at distance 0.8.

    Raises:
        InputError: the mesh has no extent.
    """
    vertices = np.asarray(mesh.vertices, dtype=np.float64)
    vertices = vertices - (vertices.max(axis=0) + vertices.min(axis=0)) / 2
    radius = np.linalg.norm(vertices, axis=1).max()
    if not radius > 0:
        raise InputError("the mesh has no extent; expected a surface")
    return trimesh.Trimesh(vertices * (RADIUS / radius), mesh.faces, process=False)


def compare_shapes(one: trimesh.Trimesh, other: trimesh.Trimesh, tau: float = TAU) -> ShapeScores:
    """Compare two meshes where they lie; both closed, faces counter-clockwise seen from outside."""
    there, normals_there = _distances(one, Surface.of(other))
    back, normals_back = _distances(other, Surface.of(one))
    precision, recall = (there <= tau).mean(), (back <= tau).mean()
    extent = 1.02 * max(np.abs(one.vertices).max(), np.abs(other.vertices).max())
    volumes = inside(one, extent, GRID), inside(other, extent, GRID)
    return ShapeScores(
        chamfer=float(there.mean() + back.mean()) / 2,
        f_score=float(2 * precision * recall / max(precision + recall, 1e-12)),
        normal_consistency=float(normals_there.mean() + normals_back.mean()) / 2,
        iou=float((volumes[0] & volumes[1]).sum() / max((volumes[0] | volumes[1]).sum(), 1)),
    )


def _distances(mesh: trimesh.Trimesh, surface: Surface) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """From points of the mesh to the surface: distance, and |cos| of the normals."""
    points, faces = sample(mesh, POINTS)
    places, nearest = surface.nearest(points)
    cosine = (mesh.face_normals[faces] * surface.normals[nearest]).sum(axis=1)
    return np.linalg.norm(places - points, axis=1), np.abs(cosine)


def rough_alignment(mesh: trimesh.Trimesh, true: trimesh.Trimesh) -> tuple[Alignment, float]:
    """Lay one normalized mesh over another, and their Chamfer distance by points: enough to choose among candidates."""
    return align(sample(mesh, 800)[0], sample(true, 800)[0], steps=12)


def fine_alignment(mesh: trimesh.Trimesh, true: trimesh.Trimesh, start: Alignment, steps: int = 25) -> Alignment:
    """Go on from a rough alignment with nearest places on the faces, which no sampling blurs."""
    surfaces = Surface.of(mesh), Surface.of(true)
    moved, fixed = surfaces[0].points[:FITTED], surfaces[1].points[:FITTED]
    alignment = start
    for _ in range(steps):
        there, _ = surfaces[1].nearest(alignment.apply(moved))
        back, _ = surfaces[0].nearest(alignment.undo(fixed))
        alignment = best_similarity(np.concatenate([moved, back]), np.concatenate([there, fixed]))
    return alignment


def moved(mesh: trimesh.Trimesh, alignment: Alignment) -> trimesh.Trimesh:
    """The mesh under an alignment."""
    return trimesh.Trimesh(alignment.apply(np.asarray(mesh.vertices)), mesh.faces, process=False)

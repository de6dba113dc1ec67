"""Distances to a triangle mesh, and what is inside it: what the measures of shape stand on."""

from dataclasses import dataclass

import numpy as np
import trimesh
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

ANCHORS = 40_000  # samples by which the nearest face is found, and at least three for each face
CANDIDATES = 6  # faces looked at for each point
OFF_GRID = np.array([0.2717, 0.3141])  # of a cell: no column of the grid runs through a vertex or along an edge


@dataclass(frozen=True)
class Surface:
    """A triangle mesh that can be asked for the nearest place on it; points `[n, 3]` are numpy, float64."""

    triangles: Float[np.ndarray, "f 3 3"]
    normals: Float[np.ndarray, "f 3"]
    points: Float[np.ndarray, "m 3"]
    faces: Int[np.ndarray, " m"]
    tree: cKDTree

    @classmethod
    def of(cls, mesh: trimesh.Trimesh) -> "Surface":
        """Spread anchors evenly over the mesh (always the same ones) and remember their faces."""
        points, faces = sample(mesh, max(ANCHORS, 3 * len(mesh.faces)))
        triangles = np.asarray(mesh.triangles, dtype=np.float64)
        normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-30)
        return cls(triangles, normals, points, faces, cKDTree(points))

    def nearest(self, points: Float[np.ndarray, "n 3"]) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, " n"]]:
        """The nearest place on the mesh and its face: exact on the faces of the nearest anchors."""
        _, anchors = self.tree.query(points, k=CANDIDATES)
        faces = self.faces[anchors]
        places = trimesh.triangles.closest_point(
            self.triangles[faces].reshape(-1, 3, 3), np.repeat(points, CANDIDATES, axis=0)
        ).reshape(-1, CANDIDATES, 3)
        best = np.linalg.norm(places - points[:, None], axis=2).argmin(axis=1)
        row = np.arange(len(points))
        return places[row, best], faces[row, best]


def sample(mesh: trimesh.Trimesh, count: int) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, " n"]]:
    """`count` points on the surface, uniform by area and always the same, and their faces."""
    points, faces = trimesh.sample.sample_surface(mesh, count, seed=0)
    return np.asarray(points, dtype=np.float64), faces


def inside(mesh: trimesh.Trimesh, extent: float, resolution: int) -> Bool[np.ndarray, "r r r"]:
    """Which points of a grid over `[-extent, extent]^3`, one in each cell, are inside a closed mesh.

    A column of points along z is crossed with all faces; inside is where the faces below wind around the point. Parts
    that overlap count once.
    """
    step = 2 * extent / resolution
    triangles = np.asarray(mesh.triangles, dtype=np.float64)
    # In units of cells, with the first column at 0.
    xy = (triangles[..., :2] + extent) / step - OFF_GRID
    low = np.ceil(xy.min(axis=1)).clip(0, resolution).astype(int)
    high = np.floor(xy.max(axis=1)).clip(-1, resolution - 1).astype(int)
    size = (high - low + 1).clip(0)
    count = size.prod(axis=1)
    face = np.repeat(np.arange(len(triangles)), count)
    place = np.arange(len(face)) - np.repeat(count.cumsum() - count, count)
    column = low[face] + np.stack([place // size[face, 1].clip(1), place % size[face, 1].clip(1)], axis=1)

    a, b, c = (xy[face, corner] - column for corner in range(3))
    weights = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], axis=1)
    area = weights.sum(axis=1)
    crossed = (area != 0) & ((weights >= 0).all(axis=1) | (weights <= 0).all(axis=1))
    face, column, weights, area = face[crossed], column[crossed], weights[crossed], area[crossed]
    height = ((triangles[face, :, 2] * weights).sum(axis=1) / area + extent) / step
    winding = np.zeros((resolution, resolution, resolution + 1), dtype=np.int64)
    above = np.ceil(height - 0.5).clip(0, resolution).astype(int)
    # A face that looks down is where a column enters.
    np.add.at(winding, (column[:, 0], column[:, 1], above), -np.sign(area).astype(np.int64))
    return winding.cumsum(axis=2)[..., :resolution] != 0


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]

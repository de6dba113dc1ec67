"""The exact geometry of a lab object or scene: signed distance, colour at a point, and a mesh of the surface."""

import numpy as np
import trimesh
from jaxtyping import Float, Int
from skimage.measure import marching_cubes

from geodream_lib.lab.compositions import Composition
from geodream_lib.lab.objects import LabObject
from geodream_lib.lab.primitives import COLOUR, union_distance


def sdf(
    obj: LabObject | Composition, points: Float[np.ndarray, "n 3"]
) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Signed distance (negative inside) and the row of the nearest primitive at world points."""
    points = np.ascontiguousarray(points, dtype=np.float32)
    distance, part = np.empty(len(points), np.float32), np.empty(len(points), np.int64)
    union_distance(obj.primitives, points, distance, part)
    return distance, part


def normals(
    obj: LabObject | Composition, points: Float[np.ndarray, "n 3"], step: float = 1e-3
) -> Float[np.ndarray, "n 3"]:
    """Unit gradient of the signed distance at world points, by central differences."""
    points = np.asarray(points, dtype=np.float32)
    offsets = step * np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32)
    ahead, behind = sdf(obj, (points + offsets[:, None]).reshape(-1, 3))[0].reshape(2, 3, -1)
    slopes = (ahead - behind).T
    return slopes / np.linalg.norm(slopes, axis=1, keepdims=True).clip(1e-12)


def albedo(obj: LabObject | Composition, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Unshaded colour (sRGB, 0..1) of the primitive nearest to each world point."""
    return obj.primitives[sdf(obj, points)[1], COLOUR]


def mesh(obj: LabObject | Composition, resolution: int = 128) -> trimesh.Trimesh:
    """Marching cubes of the signed distance on `[-1, 1]^3` with `resolution` cells a side, coloured by `albedo`."""
    axis = np.linspace(-1, 1, resolution + 1, dtype=np.float32)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    grid = sdf(obj, points)[0].reshape(3 * (resolution + 1,))
    vertices, faces, _, _ = marching_cubes(grid, 0.0, spacing=3 * (2 / resolution,))
    vertices = vertices - 1.0
    colours = np.round(albedo(obj, vertices) * 255).astype(np.uint8)
    return trimesh.Trimesh(vertices, faces, vertex_colors=colours, process=False)

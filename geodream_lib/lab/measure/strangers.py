"""Six shapes that no lab object or solid is made like: does the cost volume build what it sees, or what it knows?"""

from collections.abc import Callable

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes
from torch import Tensor

from geodream_lib.cameras import Cameras
from geodream_lib.mesh import render_opacity, render_texture

Points = Float[np.ndarray, "n 3"]
Distances = Float[np.ndarray, " n"]
Colour = tuple[float, float, float]


def _box(p: Points, center: tuple[float, float, float], half: tuple[float, float, float]) -> Distances:
    q = np.abs(p - center) - half
    return np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(axis=1), 0)


def _tube(p: Points, line: Float[np.ndarray, "m 3"], radius: float) -> Distances:
    """Around a dense polyline; its points are enough."""
    nearest = np.full(len(p), np.inf, np.float32)
    for part in np.array_split(line.astype(np.float32), 20):
        nearest = np.minimum(nearest, ((p[:, None] - part) ** 2).sum(-1).min(1))
    return np.sqrt(nearest) - radius


def knot(p: Points) -> Distances:
    """A trefoil."""
    t = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    line = np.stack([np.sin(t) + 2 * np.sin(2 * t), np.cos(t) - 2 * np.cos(2 * t), -1.4 * np.sin(3 * t)], axis=1)
    return _tube(p, 0.24 * line, 0.13)


def spring(p: Points) -> Distances:
    """Two and a half turns of a thick wire."""
    t = np.linspace(0, 5 * np.pi, 240)
    return _tube(p, np.stack([0.5 * np.cos(t), 0.5 * np.sin(t), 0.09 * (t - t.mean())], axis=1), 0.12)


def cup(p: Points) -> Distances:
    """Open at the top, with a handle: a wall that no outline shows from inside."""
    across = np.linalg.norm(p[:, :2], axis=1)
    outside = np.maximum(across - 0.5, np.abs(p[:, 2]) - 0.55)
    inside = np.maximum(across - 0.38, -0.43 - p[:, 2])
    handle = np.hypot(np.hypot(p[:, 0] - 0.52, p[:, 2]) - 0.26, p[:, 1]) - 0.08
    return np.maximum(np.minimum(outside, handle), -inside)


def chair(p: Points) -> Distances:
    """Four legs, a seat, a back."""
    parts = [_box(p, (0, 0, -0.05), (0.42, 0.42, 0.07)), _box(p, (-0.36, 0, 0.4), (0.07, 0.42, 0.42))]
    parts += [_box(p, (x, y, -0.45), (0.07, 0.07, 0.35)) for x in (-0.34, 0.34) for y in (-0.34, 0.34)]
    return np.min(parts, axis=0)


def column(p: Points) -> Distances:
    """A square column twisted by a third of a turn; close to its surface the function is a distance."""
    angle = 1.4 * p[:, 2]
    c, s = np.cos(angle), np.sin(angle)
    turned = np.stack([c * p[:, 0] - s * p[:, 1], s * p[:, 0] + c * p[:, 1], p[:, 2]], axis=1)
    return 0.7 * _box(turned, (0, 0, 0), (0.32, 0.32, 0.75))


def molecule(p: Points) -> Distances:
    """A ball and four on sticks, at the corners of a tetrahedron."""
    corners = 0.36 * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    parts = [np.linalg.norm(p, axis=1) - 0.3]
    for corner in corners:
        along = np.clip(p @ corner / (corner @ corner), 0, 1)
        parts += [np.linalg.norm(p - along[:, None] * corner, axis=1) - 0.09]
        parts += [np.linalg.norm(p - corner, axis=1) - 0.22]
    return np.min(parts, axis=0)


STRANGERS: dict[str, tuple[Callable[[Points], Distances], Colour]] = {
    "knot": (knot, (0.85, 0.35, 0.2)),
    "spring": (spring, (0.3, 0.5, 0.85)),
    "cup": (cup, (0.95, 0.8, 0.35)),
    "chair": (chair, (0.55, 0.36, 0.22)),
    "column": (column, (0.6, 0.75, 0.6)),
    "molecule": (molecule, (0.75, 0.4, 0.7)),
}


def surface(shape: Callable[[Points], Distances], resolution: int = 128) -> trimesh.Trimesh:
    """Marching cubes of a shape on `[-1, 1]^3`."""
    axis = np.linspace(-1, 1, resolution + 1, dtype=np.float32)
    grid = np.concatenate([shape(_slab(float(x), axis)) for x in axis]).reshape(3 * (resolution + 1,))
    vertices, faces, _, _ = marching_cubes(grid, 0.0, spacing=3 * (2 / resolution,))
    return trimesh.Trimesh(vertices - 1, faces, process=False)


def _slab(x: float, axis: Float[np.ndarray, " r"]) -> Points:
    return np.stack(np.meshgrid([x], axis, axis, indexing="ij"), -1).reshape(-1, 3).astype(np.float32)


def shown(mesh: trimesh.Trimesh, colour: Colour, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Pictures `[n, h, w, 3]` on white in the light of the lab's cameras, with stripes, and opacities `[n, h, w]`."""
    vertices, faces = torch.tensor(mesh.vertices).float(), torch.tensor(mesh.faces)
    normals = torch.tensor(mesh.vertex_normals).float()
    light = torch.nn.functional.normalize(torch.tensor([0.5, 0.3, 0.8]), dim=0)
    shade = 0.55 + 0.45 * (normals @ light).clamp(min=0)
    stripes = 0.85 + 0.15 * (vertices @ torch.tensor([7.0, 5.0, 9.0])).sin()
    colours = (torch.tensor(colour) * (shade * stripes)[:, None]).clamp(0, 1)

    tree = cKDTree(mesh.vertices)

    def nearest(points: Tensor) -> Tensor:
        return colours[torch.from_numpy(tree.query(points.numpy())[1])]

    images = render_texture(cameras, vertices, faces, nearest, torch.ones(len(cameras), 3))
    return images, render_opacity(cameras, vertices, faces)[..., 0]


def visual_hull(opacity: Float[Tensor, "n h w"], cameras: Cameras, resolution: int) -> trimesh.Trimesh:
    """What the silhouettes alone leave of the cube: every point that all views see covered.

    A point's value is the least opacity there, interpolated, so that the surface falls between voxels.
    """
    axis = torch.linspace(-1, 1, resolution)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    local = torch.einsum("nij,pj->npi", cameras.w2c[:, :3, :3], points) + cameras.w2c[:, None, :3, 3]
    depth = -local[..., 2]
    k = cameras.intrinsics
    x = (k[:, 0, 0, None] * local[..., 0] / depth + k[:, 0, 2, None]) / cameras.width
    y = (k[:, 1, 2, None] - k[:, 1, 1, None] * local[..., 1] / depth) / cameras.height
    place = 2 * torch.stack([x, y], dim=-1)[:, :, None] - 1
    least = torch.nn.functional.grid_sample(opacity[:, None], place, align_corners=False)[:, 0, :, 0].amin(dim=0)
    grid = np.pad(least.reshape(3 * (resolution,)).numpy(), 1)
    vertices, faces, _, _ = marching_cubes(-grid, -0.5, spacing=3 * (2 / (resolution - 1),))
    return trimesh.Trimesh(vertices - 1 - 2 / (resolution - 1), faces, process=False)

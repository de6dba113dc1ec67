"""The native prior as a triangle mesh: what the cost volume alone says about the shape."""

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Float, Int
from skimage.measure import marching_cubes
from torch import Tensor

from geodream_lib.errors import InputError
from geodream_lib.volume.cost_volume import CostVolume
from geodream_lib.volume.decoder import GeometryDecoder, query_sdf
from geodream_lib.volume.projection import voxel_positions

_CHUNK = 1 << 17


def volume_mesh(
    cost_volume: CostVolume, decoder: GeometryDecoder, resolution: int, level: float = 0.0
) -> trimesh.Trimesh:
    """Surface s(x) = level of eq. 7 in the world frame, closed, with outward normals.

    Space that fewer than two views see is outside, and so is everything beyond the cube.

    Args:
        resolution: samples per axis of the cube.
        level: signed distance of the surface, in units of the cube.

    Raises:
        InputError: the signed distance does not cross `level`.
    """
    sdf = sdf_grid(cost_volume, decoder, resolution).cpu().numpy() - level
    if not (sdf < 0).any():
        raise InputError(
            f"the cost volume has no surface: the signed distance is {sdf.min() + level:.3g} or more everywhere, "
            f"expected values below {level:.3g}; check the views and cameras the volume was built from"
        )
    spacing = 2 / (resolution - 1)
    # One layer of outside all around closes a surface that reaches the cube's faces.
    padded = np.pad(sdf, 1, constant_values=spacing)
    vertices, faces, _, _ = marching_cubes(padded, level=0.0, gradient_direction="descent")
    vertices = (vertices - 1) * spacing - 1
    to_world = cost_volume.to_world.cpu().double().numpy()
    vertices = vertices @ to_world[:3, :3].T + to_world[:3, 3]
    return drop_small_components(trimesh.Trimesh(vertices, faces, process=True))


@torch.no_grad()
def sdf_grid(cost_volume: CostVolume, decoder: GeometryDecoder, resolution: int) -> Float[Tensor, "r r r"]:
    """s(x) on a grid whose corners are the cube's, at least one grid step (outside) where there is no data."""
    volume, mask = cost_volume.volume, cost_volume.mask
    parts = []
    for points in voxel_positions(resolution, volume.device).split(_CHUNK):
        sdf = query_sdf(volume, decoder, points)
        parts.append(torch.where(has_data(mask, points), sdf, sdf.clamp(min=2 / (resolution - 1))))
    return torch.cat(parts).unflatten(0, (resolution,) * 3)


def has_data(mask: Bool[Tensor, "x y z"], points: Float[Tensor, "n 3"]) -> Bool[Tensor, " n"]:
    """The flag of the voxel nearest to each point of the cube."""
    size = torch.tensor(mask.shape, device=points.device)
    index: Int[Tensor, "n 3"] = ((points + 1) / 2 * (size - 1)).round().long().clamp(min=0).minimum(size - 1)
    return mask[index[:, 0], index[:, 1], index[:, 2]]


def drop_small_components(mesh: trimesh.Trimesh, fraction: float = 0.01) -> trimesh.Trimesh:
    """Remove connected components with fewer faces than `fraction` of the largest one's."""
    labels = trimesh.graph.connected_component_labels(mesh.face_adjacency, node_count=len(mesh.faces))
    counts = np.bincount(labels)
    kept = mesh.copy()
    kept.update_faces((counts >= fraction * counts.max())[labels])
    kept.remove_unreferenced_vertices()
    return kept

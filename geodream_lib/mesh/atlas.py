"""Where each piece of the surface lies in the texture."""

import math

import numpy as np
import torch
import xatlas
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

# Side of the smallest copy of a texture (viewers keep copies of a half, a quarter, ... and blend them at a distance) in
# which lookups do not yet mix charts that are `seam_padding` apart.
SMALLEST_COPY = 256


def seam_padding(size: int) -> int:
    """Texels to leave around every chart of a texture of `size` texels, so that its copies have no seams either.

    A lookup at the rim of a chart reads up to 1.5 texels of a copy away, in the diagonal sqrt(2) as many.
    """
    return max(2, math.ceil(1.5 * math.sqrt(2) * size / SMALLEST_COPY))


def unwrap(
    vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], size: int = 1024, padding: int = 4
) -> tuple[Int[Tensor, " m"], Int[Tensor, "f 3"], Float[Tensor, "m 2"]]:
    """Cut the surface into charts and pack them into the unit square with xatlas.

    Args:
        size: side in texels of the texture to be baked, which the packing is made for.
        padding: texels left free around each chart; between two there is twice as much.

    Returns:
        vmap: the original vertex of each new one (vertices on seams are doubled): new positions are `vertices[vmap]`.
        faces: the same faces in the same order, with new indices.
        uvs: texture coordinates in [0, 1]^2, u to the right, v up.
    """
    positions = vertices.detach().cpu().numpy().astype(np.float32)
    # xatlas leaves out faces with an area below 1.2e-7, which slivers of a unit-sized mesh often have.
    positions = positions * (1000 / max(np.ptp(positions, axis=0).max(), 1e-12))
    atlas = xatlas.Atlas()
    atlas.add_mesh(np.ascontiguousarray(positions, dtype=np.float32), faces.cpu().numpy().astype(np.uint32))
    options = xatlas.PackOptions()
    options.resolution, options.padding = size, padding
    atlas.generate(pack_options=options)
    vmap, new_faces, uvs = atlas[0]
    _place_left_out_faces(vmap, new_faces, uvs)
    return (
        torch.from_numpy(vmap.astype(np.int64)).to(faces.device),
        torch.from_numpy(new_faces.astype(np.int64)).to(faces.device),
        torch.from_numpy(uvs.astype(np.float32)).to(vertices),
    )


def _place_left_out_faces(vmap: np.ndarray, faces: np.ndarray, uvs: np.ndarray) -> None:
    """Move faces of zero area, which xatlas leaves at (0, 0), to a point of the chart of one of their corners.

    A pixel centre can still fall on such a face; it then sees the colour next to it. Those that share a vertex go to
    the same point, else they would span the atlas.
    """
    left_out = faces[(uvs[faces] == 0).all(axis=(1, 2))].astype(np.int64)
    links = left_out[:, [0, 1, 1, 2]].reshape(-1, 2).T
    graph = coo_matrix((np.ones(links.shape[1]), tuple(links)), shape=(len(vmap), len(vmap)))
    _, group = connected_components(graph, directed=False)
    placed = np.setdiff1d(np.arange(len(vmap)), left_out)
    place_of_original = dict(zip(vmap[placed].tolist(), placed.tolist(), strict=True))
    place_of_group = {
        group[vertex]: place_of_original[vmap[vertex]]
        for vertex in np.unique(left_out)
        if vmap[vertex] in place_of_original
    }
    for vertex in np.unique(left_out):
        uvs[vertex] = uvs[place_of_group.get(group[vertex], vertex)]

"""From a colour field to an image on the surface: texture coordinates and baking."""

from collections.abc import Callable

import numpy as np
import torch
import xatlas
from jaxtyping import Float, Int
from scipy.ndimage import distance_transform_edt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from geodream_lib.cameras import Cameras
from geodream_lib.mesh.rasterize import Raster, interpolate_covered, rasterize

# Points per call of a colour function: bounds memory, does not change the result.
CHUNK = 1 << 17


def unwrap(
    vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], size: int = 1024, padding: int = 4
) -> tuple[Int[Tensor, " m"], Int[Tensor, "f 3"], Float[Tensor, "m 2"]]:
    """Cut the surface into charts and pack them into the unit square with xatlas.

    Args:
        size: side in texels of the texture to be baked, which the packing is made for.
        padding: texels left free between charts.

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


@torch.no_grad()
def bake_texture(
    vertices: Float[Tensor, "v 3"],
    faces: Int[Tensor, "f 3"],
    uvs: Float[Tensor, "v 2"],
    color_fn: Callable[[Float[Tensor, "p 3"]], Float[Tensor, "p 3"]],
    size: int,
    padding: int = 16,
) -> Float[Tensor, "size size 3"]:
    """Evaluate a colour field at the surface point of every texel.

    Args:
        vertices, faces, uvs: a mesh with one texture coordinate per vertex (`vertices[vmap]` of `unwrap`).
        color_fn: colour 0..1 at world points; called without gradient.
        size: side of the square texture in texels.
        padding: texels around each chart that repeat the nearest colour, so that a filtered lookup at a seam, also in
            the smaller copies that viewers make of a texture, does not mix in the empty space; the rest is black.

    Returns:
        The texture, row 0 at v = 1.
    """
    # The unit square lies one unit before a camera whose pixels are the texels.
    flat = torch.cat([uvs, -torch.ones_like(uvs[:, :1])], dim=1)
    intrinsics = flat.new_tensor([[size, 0, 0], [0, size, size], [0, 0, 1]])
    raster = rasterize(Cameras(torch.eye(4).to(flat)[None], intrinsics[None], size, size), flat, faces)
    small_texels, small_points = _texels_of_small_faces(raster, vertices, faces, uvs)
    texels = torch.cat([raster.covered, small_texels])
    points = torch.cat([interpolate_covered(vertices, raster, faces), small_points])
    colors = torch.cat([color_fn(part) for part in points.split(CHUNK)])
    texture = colors.new_zeros(size * size, 3).index_copy(0, texels, colors).reshape(size, size, 3)

    empty = torch.ones(size * size, dtype=torch.bool, device=texels.device).index_fill(0, texels, False)
    distance, nearest = distance_transform_edt(empty.reshape(size, size).cpu().numpy(), return_indices=True)
    row, column = torch.from_numpy(nearest.astype(np.int64)).to(texture.device)
    near = torch.from_numpy(distance <= padding).to(texture.device)
    return torch.where(near[..., None], texture[row, column], torch.zeros_like(texture))


def _texels_of_small_faces(
    raster: Raster, vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], uvs: Float[Tensor, "v 2"]
) -> tuple[Int[Tensor, " t"], Float[Tensor, "t 3"]]:
    """Uncovered texels that a lookup on a face without any texel centre reads, and the surface points for them.

    A chart of a few such faces would otherwise have no texel of its own and show the colour of its neighbour.
    """
    ids = raster.face_ids.flatten().long()
    size = raster.face_ids.shape[-1]
    seen = torch.zeros(faces.shape[0], dtype=torch.bool, device=faces.device)
    seen[ids[ids >= 0]] = True
    small = faces[~seen]
    # The corners, the middles of the edges and the centre of a face.
    lattice = uvs.new_tensor([[2, 0, 0], [0, 2, 0], [0, 0, 2], [1, 1, 0], [0, 1, 1], [1, 0, 1]]) / 2
    lattice = torch.cat([lattice, torch.full_like(lattice[:1], 1 / 3)])
    place = (lattice @ uvs[small]).flatten(0, 1)
    place = torch.stack([1 - place[:, 1], place[:, 0]], dim=1) * size - 0.5
    neighbours = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]], device=faces.device)
    row, column = (place.floor().long()[:, None] + neighbours).clamp(0, size - 1).unbind(-1)
    texels = (row * size + column).flatten()
    samples = torch.arange(place.shape[0], device=faces.device).repeat_interleave(4)
    first = torch.full_like(ids, place.shape[0]).scatter_reduce(0, texels, samples, "amin")
    chosen = ((first < place.shape[0]) & (ids < 0)).nonzero()[:, 0]
    return chosen, (lattice @ vertices[small]).flatten(0, 1)[first[chosen]]

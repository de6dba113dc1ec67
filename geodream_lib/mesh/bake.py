"""From a field to an image on the surface: which texels the surface reads, where they lie, what is known there."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from geodream_lib.cameras import Cameras
from geodream_lib.mesh.rasterize import rasterize

# Points per call of a colour function: bounds memory, does not change the result.
CHUNK = 1 << 17


@dataclass(frozen=True)
class Texels:
    """The texels of a square texture that belong to a point of the surface.

    size: side of the texture. places: row * size + column, row 0 at v = 1. corners: the three vertices of each texel's
    face. weights: where on that face it lies, sum 1.
    """

    size: int
    places: Int[Tensor, " t"]
    corners: Int[Tensor, "t 3"]
    weights: Float[Tensor, "t 3"]

    def interpolate(self, attributes: Float[Tensor, "v c"]) -> Float[Tensor, "t c"]:
        """What the vertices have, at every texel."""
        corners = attributes.index_select(0, self.corners.flatten()).reshape(-1, 3, attributes.shape[1])
        return (self.weights[..., None] * corners).sum(dim=1)


@torch.no_grad()
def bake_texture(
    vertices: Float[Tensor, "v 3"],
    faces: Int[Tensor, "f 3"],
    uvs: Float[Tensor, "v 2"],
    color_fn: Callable[[Float[Tensor, "p 3"]], Float[Tensor, "p 3"]],
    size: int,
) -> Float[Tensor, "size size 3"]:
    """Evaluate a colour field at the surface point of every texel.

    Args:
        vertices, faces, uvs: a mesh with one texture coordinate per vertex (`vertices[vmap]` of `unwrap`).
        color_fn: colour 0..1 at world points; called without gradient.
        size: side of the square texture in texels.

    Returns:
        The texture, row 0 at v = 1; see `spread` for what is between the charts.
    """
    texels = find_texels(faces, uvs, size)
    points = texels.interpolate(vertices)
    return spread(torch.cat([color_fn(part) for part in points.split(CHUNK)]), texels)


@torch.no_grad()
def find_texels(faces: Int[Tensor, "f 3"], uvs: Float[Tensor, "v 2"], size: int) -> Texels:
    """The texels whose centre lies on a face, those that faces between texel centres read, and those along the rims."""
    # The unit square lies one unit before a camera whose pixels are the texels.
    flat = torch.cat([uvs, -torch.ones_like(uvs[:, :1])], dim=1)
    intrinsics = flat.new_tensor([[size, 0, 0], [0, size, size], [0, 0, 1]])
    raster = rasterize(Cameras(torch.eye(4).to(flat)[None], intrinsics[None], size, size), flat, faces)
    ids = raster.face_ids.flatten().long()
    covered = (raster.covered, ids[raster.covered], raster.barycentrics.reshape(-1, 3)[raster.covered])
    small = _texels_of_small_faces(ids, faces, uvs, size)
    rim = _texels_of_rims(ids, small[0], faces, uvs, size)
    places, face, weights = (torch.cat(parts) for parts in zip(covered, small, rim, strict=True))
    return Texels(size, places, faces[face].long(), weights)


def spread(values: Float[Tensor, "t c"], texels: Texels) -> Float[Tensor, "size size c"]:
    """The texture with a value at each of the texels, and the nearest one's everywhere else.

    So a filtered lookup at the rim of a chart, also in the smaller copies that viewers make of a texture, mixes in what
    is beside it; how far that holds depends on the room between the charts (`seam_padding`).
    """
    size = texels.size
    texture = values.new_zeros(size * size, values.shape[1]).index_copy(0, texels.places, values)
    empty = torch.ones(size * size, dtype=torch.bool, device=values.device).index_fill(0, texels.places, False)
    _, nearest = _nearest(empty.reshape(size, size))
    return texture[nearest].reshape(size, size, -1)


def _texels_of_small_faces(
    ids: Int[Tensor, " s"], faces: Int[Tensor, "f 3"], uvs: Float[Tensor, "v 2"], size: int
) -> tuple[Int[Tensor, " t"], Int[Tensor, " t"], Float[Tensor, "t 3"]]:
    """Uncovered texels that a lookup on a face without any texel centre reads: places, faces and places on them.

    A chart of a few such faces would otherwise have no texel of its own and show the colour of its neighbour.

    Args:
        ids: the face at the centre of every texel of the texture, or -1.
    """
    seen = torch.zeros(faces.shape[0], dtype=torch.bool, device=faces.device)
    seen[ids[ids >= 0]] = True
    small = (~seen).nonzero()[:, 0]
    # The corners, the middles of the edges and the centre of a face.
    lattice = uvs.new_tensor([[2, 0, 0], [0, 2, 0], [0, 0, 2], [1, 1, 0], [0, 1, 1], [1, 0, 1]]) / 2
    lattice = torch.cat([lattice, torch.full_like(lattice[:1], 1 / 3)])
    spot = (lattice @ uvs[faces[small]]).flatten(0, 1)
    spot = torch.stack([1 - spot[:, 1], spot[:, 0]], dim=1) * size - 0.5
    neighbours = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]], device=faces.device)
    row, column = (spot.floor().long()[:, None] + neighbours).clamp(0, size - 1).unbind(-1)
    places = (row * size + column).flatten()
    samples = torch.arange(spot.shape[0], device=faces.device).repeat_interleave(4)
    first = torch.full_like(ids, spot.shape[0]).scatter_reduce(0, places, samples, "amin")
    chosen = ((first < spot.shape[0]) & (ids < 0)).nonzero()[:, 0]
    sample = first[chosen]
    return chosen, small[sample // len(lattice)], lattice[sample % len(lattice)]


def _texels_of_rims(
    ids: Int[Tensor, " s"], taken: Int[Tensor, " t"], faces: Int[Tensor, "f 3"], uvs: Float[Tensor, "v 2"], size: int
) -> tuple[Int[Tensor, " r"], Int[Tensor, " r"], Float[Tensor, "r 3"]]:
    """Uncovered texels that a lookup at the rim of a chart reads, each at the place of the nearest face nearest to it.

    The same colour on both sides of a seam, where the nearest texel's would be half a texel's step off.

    Args:
        ids: the face at the centre of every texel of the texture, or -1.
        taken: texels that are left as they are.
    """
    distance, nearest = _nearest((ids < 0).reshape(size, size))
    rim = (distance > 0) & (distance < 2)
    rim[taken] = False
    places = rim.nonzero()[:, 0]
    face = ids[nearest[places]]
    spot = torch.stack([places % size + 0.5, size - 0.5 - places // size], dim=1) / size
    corners = uvs[faces[face]] - spot[:, None]
    sides = corners.roll(-1, dims=1) - corners
    along = (-(corners * sides).sum(-1) / sides.square().sum(-1).clamp(min=1e-20)).clamp(0, 1)
    side = (corners + along[..., None] * sides).norm(dim=-1).argmin(dim=1, keepdim=True)
    along = along.gather(1, side)
    weights = torch.zeros_like(corners[..., 0]).scatter(1, side, 1 - along).scatter(1, (side + 1) % 3, along)
    return places, face, weights


def _nearest(empty: Bool[Tensor, "h w"]) -> tuple[Float[Tensor, " h*w"], Int[Tensor, " h*w"]]:
    """Of every texel the distance to the nearest that is not empty, in texels, and its flat index."""
    distance, (row, column) = distance_transform_edt(empty.cpu().numpy(), return_indices=True)
    nearest = row.astype(np.int64) * empty.shape[1] + column
    return torch.from_numpy(distance).to(empty.device).flatten(), torch.from_numpy(nearest).to(empty.device).flatten()

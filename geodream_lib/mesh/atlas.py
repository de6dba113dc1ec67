"""From a colour field to an image on the surface: texture coordinates and baking."""

from collections.abc import Callable

import numpy as np
import torch
import xatlas
from jaxtyping import Float, Int
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from geodream_lib.cameras import Cameras
from geodream_lib.mesh.rasterize import interpolate_covered, rasterize

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
    return (
        torch.from_numpy(vmap.astype(np.int64)).to(faces.device),
        torch.from_numpy(new_faces.astype(np.int64)).to(faces.device),
        torch.from_numpy(uvs.astype(np.float32)).to(vertices),
    )


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
    camera = Cameras(torch.eye(4).to(flat)[None], intrinsics[None], size, size)
    raster = rasterize(camera, flat, faces)
    points = interpolate_covered(vertices, raster, faces)
    colors = torch.cat([color_fn(part) for part in points.split(CHUNK)])
    texture = colors.new_zeros(size * size, 3).index_copy(0, raster.covered, colors).reshape(size, size, 3)

    empty = (raster.face_ids[0] < 0).cpu().numpy()
    distance, nearest = distance_transform_edt(empty, return_indices=True)
    row, column = torch.from_numpy(nearest.astype(np.int64)).to(texture.device)
    near = torch.from_numpy(distance <= padding).to(texture.device)
    return torch.where(near[..., None], texture[row, column], torch.zeros_like(texture))

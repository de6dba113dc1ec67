"""The relief of a fine surface as an image on a coarse one: normals in tangent space (glTF 2.0, section 3.9.3).

Red is the direction in which u grows, green that in which v grows (up in the image), blue the surface's own normal.
Tangents are those of each face, which viewers derive themselves where a file has none.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodream_lib.mesh.bake import Texels, spread
from geodream_lib.mesh.geometry import vertex_normals, weld


def bake_normal_map(
    vertices: Float[Tensor, "v 3"],
    faces: Int[Tensor, "f 3"],
    uvs: Float[Tensor, "v 2"],
    texels: Texels,
    normals: Float[Tensor, "t 3"],
) -> Float[Tensor, "size size 3"]:
    """Write world normals, one at every texel, in the frame of the surface that will carry them.

    Args:
        vertices, faces, uvs: the coarse mesh, with one texture coordinate per vertex.
        texels: of that mesh (`find_texels`).
        normals: unit, of the fine surface.

    Returns:
        The map, `(normal + 1) / 2`, row 0 at v = 1.
    """
    frame = tangent_frames(vertices, uvs, texels, smooth_normals(texels, vertices, faces))
    local = torch.nn.functional.normalize((frame @ normals[..., None])[..., 0], dim=-1)
    return spread((local + 1) / 2, texels)


def smooth_normals(texels: Texels, vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "t 3"]:
    """Unit normals at the texels, interpolated from the vertices and smooth across seams, as the files have them."""
    distinct, welded = weld(vertices)
    normals = vertex_normals(distinct, welded[faces])[welded]
    return torch.nn.functional.normalize(texels.interpolate(normals), dim=-1)


def tangent_frames(
    vertices: Float[Tensor, "v 3"], uvs: Float[Tensor, "v 2"], texels: Texels, normals: Float[Tensor, "t 3"]
) -> Float[Tensor, "t 3 3"]:
    """Rows: tangent, bitangent and normal at every texel, orthonormal; left-handed where a chart lies mirrored."""
    p, q, r = vertices[texels.corners].unbind(1)
    (u_q, v_q), (u_r, v_r) = ((uvs[texels.corners[:, i]] - uvs[texels.corners[:, 0]]).unbind(1) for i in (1, 2))
    turn = torch.where(u_q * v_r - u_r * v_q < 0, -1.0, 1.0)[:, None]
    along_u = turn * (v_r[:, None] * (q - p) - v_q[:, None] * (r - p))
    tangent = along_u - (along_u * normals).sum(dim=-1, keepdim=True) * normals
    tangent = torch.nn.functional.normalize(tangent, dim=-1, eps=1e-20)
    return torch.stack([tangent, turn * torch.linalg.cross(normals, tangent), normals], dim=1)

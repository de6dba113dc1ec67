"""What the shape of a mesh says: its edges, its vertex normals, which vertices coincide."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def half_edges(faces: Int[Tensor, "f 3"]) -> Int[Tensor, "3*f 2"]:
    """The three directed edges of every face: all `0 -> 1`, then all `1 -> 2`, then all `2 -> 0`."""
    return torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def unique_edges(faces: Int[Tensor, "f 3"]) -> tuple[Int[Tensor, "e 2"], Int[Tensor, " 3*f"]]:
    """Undirected edges (smaller index first, lexicographic) and the edge of every half-edge."""
    ends = half_edges(faces).long()
    low, high = ends.min(dim=1).values, ends.max(dim=1).values
    base = int(high.max()) + 1
    keys, edge_of_half_edge = torch.unique(low * base + high, return_inverse=True)
    return torch.stack([keys // base, keys % base], dim=1), edge_of_half_edge


def vertex_normals(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "v 3"]:
    """Unit vertex normals: the mean of the adjacent face normals weighted by area; +z where they cancel."""
    a, b, c = vertices.index_select(0, faces.flatten()).reshape(-1, 3, 3).unbind(1)
    face_normals = torch.linalg.cross(b - a, c - a)
    normals = torch.zeros_like(vertices).index_add(
        0, faces.flatten(), face_normals[:, None].expand(-1, 3, -1).reshape(-1, 3)
    )
    up = normals.new_tensor([0.0, 0.0, 1.0]).expand_as(normals)
    # The length of the sum is twice an area: 1e-10 squared is far below any face that can be seen.
    normals = torch.where(normals.square().sum(-1, keepdim=True) > 1e-20, normals, up)
    return torch.nn.functional.normalize(normals, dim=-1)


def weld(vertices: Float[Tensor, "v 3"]) -> tuple[Float[Tensor, "w 3"], Int[Tensor, " v"]]:
    """Unite vertices at exactly the same position: the distinct positions and the index of each vertex among them.

    Undoes the duplication of vertices along the seams of a texture atlas.
    """
    # Adding zero turns -0 into 0: they are equal, and which one were kept would be left to chance.
    return torch.unique(vertices.detach() + 0.0, dim=0, return_inverse=True)

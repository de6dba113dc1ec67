"""What keeps a mesh smooth while guidance moves it: the two terms of the released geometry stage, each times 10000."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodream_lib.mesh.geometry import unique_edges, vertex_normals


def normal_consistency(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, ""]:
    """Mean over all edges of 1 - cosine between the vertex normals at the edge's two ends (as in threestudio).

    Zero on a plane; 0..2.
    """
    edges, _ = unique_edges(faces)
    first, second = vertex_normals(vertices, faces).index_select(0, edges.flatten()).reshape(-1, 2, 3).unbind(1)
    return (1 - torch.cosine_similarity(first, second, dim=-1)).mean()


def uniform_laplacian(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, ""]:
    """Mean over all vertices of the length of `sum over neighbours (v - neighbour)` (as in threestudio).

    The matrix is degree minus adjacency, not divided by the degree. World units; zero where every vertex is the mean
    of its neighbours.
    """
    edges, _ = unique_edges(faces)
    a, b = edges.unbind(1)
    difference = vertices.index_select(0, a) - vertices.index_select(0, b)
    laplacian = torch.zeros_like(vertices).index_add(0, a, difference).index_add(0, b, -difference)
    return laplacian.norm(dim=-1).mean()

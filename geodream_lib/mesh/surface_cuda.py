"""Surfaces of signed distances on a grid by kaolin 0.18 (`kaolin.ops.conversions`), the public systems' library."""

from types import ModuleType

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodream_lib.mesh.flexicubes_cases import CORNERS, EDGES

# The edges of a cube in kaolin's order, by its corners, which it numbers as we do.
KAOLIN_EDGES = ((0, 1), (1, 5), (4, 5), (0, 4), (2, 3), (3, 7), (6, 7), (2, 6), (0, 2), (1, 3), (5, 7), (4, 6))


def marching_tetrahedra_kaolin(
    kaolin: ModuleType, vertices: Float[Tensor, "v 3"], sdf: Float[Tensor, " v"], tets: Int[Tensor, "t 4"]
) -> tuple[Float[Tensor, "m 3"], Int[Tensor, "f 3"]]:
    """`marching_tetrahedra`: vertices and faces have the same numbers. It takes batches and gives lists."""
    mesh_vertices, faces = kaolin.marching_tetrahedra(vertices[None], tets, sdf[None])
    return mesh_vertices[0], faces[0]


def flexicubes_kaolin(
    kaolin: ModuleType,
    positions: Float[Tensor, "n n n 3"],
    sdf: Float[Tensor, "n n n"],
    weights: Float[Tensor, "r r r 21"],
    four_triangles: bool,
    weight_range: float,
) -> tuple[Float[Tensor, "m 3"], Int[Tensor, "f 3"], Float[Tensor, ""]]:
    """`flexicubes` of a surface that stays inside the grid; its vertices and faces have other numbers.

    It takes flat lists of vertices and of cubes (x slowest), and the weights before tanh and sigmoid, as we do. It
    counts zero as outside, we count it as inside. Its L_dev is one number for every crossing.
    """
    r = weights.shape[0]
    index = torch.arange(sdf.numel(), device=sdf.device).reshape(sdf.shape)
    cubes = torch.stack([index[x : x + r, y : y + r, z : z + r] for x, y, z in CORNERS], dim=-1).reshape(-1, 8)
    edges = [8 + EDGES.index(edge) for edge in KAOLIN_EDGES]
    weights = weights.reshape(-1, 21)
    vertices, faces, deviation = kaolin.FlexiCubes(device=sdf.device)(
        positions.reshape(-1, 3),
        torch.where(sdf == 0, -torch.finfo(sdf.dtype).tiny, sdf).flatten(),
        cubes,
        r,
        weight_scale=weight_range,
        alpha=weights[:, :8],
        beta=weights[:, edges],
        gamma_f=weights[:, 20],
        training=four_triangles,
    )
    return vertices, faces, deviation.mean()

"""DMTet: a signed distance and a displacement at every vertex of a tetrahedral grid, and the mesh they stand for.

Stage 4 of GeoDream (section 2.2, "Mesh Fine-tuning"; Algorithm 1, line 16) turns the refined NeuS into a DMTet (Shen et
al. 2021) and then optimises its parameters through the mesh.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from geodream_lib.cuda_libraries import library
from geodream_lib.mesh.grid_surface import check_signs, closed, load_surface, sample_in_tight_box, save_surface
from geodream_lib.mesh.surface_cuda import marching_tetrahedra_kaolin
from geodream_lib.mesh.tetrahedra import tetrahedral_grid

# The six edges of a tetrahedron as pairs of its corners.
TET_EDGES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))

# Triangles (as edges of TET_EDGES) for each set of corners outside; corner i counts 2^i. Normals point outside.
TRIANGLES = (
    (),
    ((1, 0, 2),),
    ((4, 0, 3),),
    ((1, 4, 2), (1, 3, 4)),
    ((3, 1, 5),),
    ((2, 3, 0), (2, 5, 3)),
    ((1, 4, 0), (1, 5, 4)),
    ((4, 2, 5),),
    ((4, 5, 2),),
    ((4, 1, 0), (4, 5, 1)),
    ((3, 2, 0), (3, 5, 2)),
    ((1, 3, 5),),
    ((4, 1, 2), (4, 3, 1)),
    ((3, 0, 4),),
    ((2, 0, 1),),
    (),
)


def marching_tetrahedra(
    vertices: Float[Tensor, "v 3"], sdf: Float[Tensor, " v"], tets: Int[Tensor, "t 4"]
) -> tuple[Float[Tensor, "m 3"], Int[Tensor, "f 3"]]:
    """The surface where `sdf` changes sign, differentiable in `vertices` and `sdf`.

    A vertex is outside when its value is strictly positive; exactly zero is inside. Along an edge from `a` to `b` that
    crosses the surface, the mesh vertex is where the linear interpolation of the values is zero:
    `(a (-s_b) + b s_a) / (s_a - s_b)` (Shen et al. 2021, equation 2).

    Numbering, equal to the public implementation's: mesh vertices by their crossing edge (smaller grid index first,
    lexicographic); faces of all tetrahedra with one triangle in their order, then of all with two.

    Args:
        vertices: grid positions.
        sdf: signed distances, negative inside.
        tets: positively oriented tetrahedra.

    Returns:
        Mesh vertices, and faces that are counter-clockwise seen from outside.

    Raises:
        InputError: a value is not finite, or nothing is inside, or everything is.
    """
    check_signs(sdf)
    if kaolin := library("kaolin.ops.conversions", vertices, sdf, tets):
        return marching_tetrahedra_kaolin(kaolin, vertices, sdf, tets)
    outside = sdf > 0
    corner_outside = outside[tets]
    corners_outside = corner_outside.sum(dim=1)
    cut = (corners_outside > 0) & (corners_outside < 4)
    tets, corner_outside = tets[cut], corner_outside[cut]
    pairs = torch.tensor(TET_EDGES, device=tets.device)
    edges = tets[:, pairs].sort(dim=-1).values
    crossing = corner_outside[:, pairs[:, 0]] != corner_outside[:, pairs[:, 1]]
    # One integer per edge sorts lexicographically and is much faster to make unique than pairs.
    first, second = edges[crossing].unbind(1)
    keys, number = torch.unique(first * vertices.shape[0] + second, return_inverse=True)
    a, b = keys // vertices.shape[0], keys % vertices.shape[0]
    s_a, s_b = sdf[a][:, None], sdf[b][:, None]
    mesh_vertices = (vertices[a] * -s_b + vertices[b] * s_a) / (s_a - s_b)

    edge_vertex = torch.full(crossing.shape, -1, dtype=torch.long, device=tets.device)
    edge_vertex[crossing] = number
    code = (corner_outside * torch.tensor([1, 2, 4, 8], device=tets.device)).sum(dim=1)
    faces = []
    for triangles in (1, 2):
        table = torch.tensor(
            [row if len(row) == triangles else ((-1, -1, -1),) * triangles for row in TRIANGLES], device=tets.device
        )
        selected = table[code][:, 0, 0] >= 0
        faces.append(edge_vertex[selected].gather(1, table[code[selected]].flatten(1)).reshape(-1, 3))
    return mesh_vertices, torch.cat(faces)


class DMTet(nn.Module):
    """The parameters theta_4 of Algorithm 1: `sdf [v]` (negative inside) and `deformation [v, 3]`.

    A grid vertex in [0, 1]^3 moves by at most one layer of the grid per axis, `tanh(deformation) / resolution`, and the
    unit cube is then stretched over `box [2, 3]` (lowest and highest corner in the world).
    """

    def __init__(self, resolution: int):
        super().__init__()
        grid_vertices, tets = tetrahedral_grid(resolution)
        self.resolution = resolution
        self.register_buffer("grid_vertices", grid_vertices, persistent=False)
        self.register_buffer("tets", tets, persistent=False)
        border = ((grid_vertices == 0) | (grid_vertices == 1)).any(dim=1)
        self.register_buffer("border", border, persistent=False)
        self.register_buffer("box", torch.tensor([[-1.0] * 3, [1.0] * 3]))
        self.sdf = nn.Parameter(torch.ones(grid_vertices.shape[0]))
        self.deformation = nn.Parameter(torch.zeros_like(grid_vertices))

    @classmethod
    def from_sdf(
        cls,
        sdf_fn: Callable[[Float[Tensor, "m 3"]], Float[Tensor, " m"]],
        resolution: int,
        device: torch.device | str = "cpu",
    ) -> "DMTet":
        """Convert a signed distance field on [-1, 1]^3, in two passes so that no part of the grid is wasted.

        See `grid_surface.sample_in_tight_box`.

        Args:
            sdf_fn: signed distance (negative inside) at world points; called without gradient.
            resolution: of the tetrahedral grid, even.
            device: where the parameters live and `sdf_fn` is evaluated.

        Raises:
            InputError: the field is empty, full or not finite.
        """
        dmtet = cls(resolution).to(device)
        sample_in_tight_box(dmtet, sdf_fn)
        return dmtet

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """By the names that learning rates are set for."""
        return {"sdf": [self.sdf], "deformation": [self.deformation]}

    def positions(self) -> Float[Tensor, "v 3"]:
        """World positions of the displaced grid vertices."""
        unit = self.grid_vertices + torch.tanh(self.deformation) / self.resolution
        return self.box[0] + unit * (self.box[1] - self.box[0])

    def mesh(self) -> tuple[Float[Tensor, "m 3"], Int[Tensor, "f 3"]]:
        """World vertices and outward faces of the surface, differentiable in both parameters.

        What reaches beyond the box is cut off flat at its border.
        """
        return marching_tetrahedra(self.positions(), closed(self.sdf, self.border), self.tets)

    def mesh_with_deviation(self) -> tuple[Float[Tensor, "m 3"], Int[Tensor, "f 3"], Float[Tensor, ""]]:
        """`mesh`, and 0 for what FlexiCubes call L_dev: a vertex here has one crossing, from which it cannot stray."""
        return *self.mesh(), self.sdf.new_zeros(())

    def save(self, path: Path | str) -> None:
        """Write the parameters and the box as one safetensors file."""
        save_surface(self, path)

    @classmethod
    def load(cls, path: Path | str) -> "DMTet":
        """Read what `save` wrote.

        Raises:
            InputError: the file is missing, broken or not a DMTet.
        """
        return load_surface(cls, path)

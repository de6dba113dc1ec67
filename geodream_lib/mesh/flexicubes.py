"""FlexiCubes: dual marching cubes that can be bent to follow sharp features (Shen et al. 2023).

The other choice for stage 4, `mesh.surface=flexicubes`. Where a DMTet's vertices slide along the edges of its
tetrahedra, a vertex here lies anywhere between the crossings of its cube: weights of the cube's corners and edges move
it, so that it can come to lie on an edge or in a corner of the object.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from geodream_lib.cuda_libraries import library
from geodream_lib.errors import InputError
from geodream_lib.mesh.flexicubes_cases import CORNERS, EDGES, RING, cases
from geodream_lib.mesh.grid_surface import check_signs, closed, load_surface, sample_in_tight_box, save_surface
from geodream_lib.mesh.surface_cuda import flexicubes_kaolin

# How far alpha and beta may go from 1; at 1 a corner or an edge could lose all its weight, and a cube its vertex.
WEIGHT_RANGE = 0.99


def flexicubes(
    positions: Float[Tensor, "n n n 3"],
    sdf: Float[Tensor, "n n n"],
    weights: Float[Tensor, "r r r 21"],
    four_triangles: bool,
) -> tuple[Float[Tensor, "m 3"], Int[Tensor, "f 3"], Float[Tensor, ""]]:
    """The surface where `sdf` changes sign, closed and manifold, differentiable in all three tensors.

    Every loop of crossings around a cube (see `flexicubes_cases`) gives one vertex, every crossed edge of the grid one
    quadrilateral between the vertices of its four cubes.

    Args:
        positions: of the grid's vertices, `n = r + 1` along each axis.
        sdf: negative inside; a vertex is outside when its value is strictly positive.
        weights: of every cube, any number, 0 is neutral: alpha of its corners (8), beta of its edges (12), gamma.
        four_triangles: divide every quadrilateral at a point in its middle that depends on gamma, for optimisation;
            else into two triangles along the diagonal of greater gamma.

    Returns:
        Vertices; faces that are counter-clockwise seen from outside; L_dev (equation 8), the mean over all crossings of
        how far their distance to the vertex differs from the mean of that vertex, in units of the positions.

    Raises:
        InputError: a value is not finite, nothing is inside, everything is, or the surface leaves the grid.
    """
    check_signs(sdf)
    _check_border(sdf > 0)
    if kaolin := library("kaolin.ops.conversions", positions, sdf, weights):
        return flexicubes_kaolin(kaolin, positions, sdf, weights, four_triangles, WEIGHT_RANGE)
    cube, loop = _surface_cubes(sdf > 0)
    weights = weights.reshape(-1, 21).index_select(0, cube)
    vertices, deviation, vertex_of_edge = _dual_vertices(positions, sdf, weights, cube, loop)
    quads, rows = _quadrilaterals(sdf > 0, cube, vertex_of_edge)
    gamma = torch.sigmoid(weights[:, 20]) * WEIGHT_RANGE + (1 - WEIGHT_RANGE) / 2
    # A diagonal of a quadrilateral counts as much as the product of its ends' gamma (section 4.3).
    first, second = gamma[rows[:, 0::2]].prod(1), gamma[rows[:, 1::2]].prod(1)
    if four_triangles:
        vertices, faces = _divide_in_the_middle(vertices, quads, first, second)
    else:
        faces = _divide_along_a_diagonal(quads, first < second)
    return vertices, faces, deviation


def _check_border(outside: Bool[Tensor, "n n n"]) -> None:
    """A crossed edge on the border has fewer than four cubes: the surface would have a hole there."""
    count = 0
    for axis in range(3):
        for side in (0, -1):
            layer = outside.select(axis, side)
            count += int((layer[1:] != layer[:-1]).sum() + (layer[:, 1:] != layer[:, :-1]).sum())
    if count:
        raise InputError(
            f"the surface leaves the grid: it crosses {count} edges on the border; expected positive signed distances "
            "on the whole border, enlarge the box"
        )


def _surface_cubes(outside: Bool[Tensor, "n n n"]) -> tuple[Int[Tensor, " k"], Int[Tensor, "k 12"]]:
    """The cubes that the surface passes through, and the loop of each of their edges."""
    r = outside.shape[0] - 1
    table, code = cases(), torch.zeros((r, r, r), dtype=torch.long, device=outside.device)
    for i, (x, y, z) in enumerate(CORNERS):
        code += outside[x : x + r, y : y + r, z : z + r].long() << i
    doubtful = table.doubtful_face.to(code.device)[code]
    turned = torch.zeros_like(doubtful, dtype=torch.bool)
    for axis in range(3):
        below, above = doubtful.narrow(axis, 0, r - 1), doubtful.narrow(axis, 1, r - 1)
        both = (below == 2 * axis + 1) & (above == 2 * axis)
        turned.narrow(axis, 0, r - 1).logical_or_(both)
        turned.narrow(axis, 1, r - 1).logical_or_(both)
    cube = ((code > 0) & (code < 255)).flatten().nonzero()[:, 0]
    return cube, table.loop.to(code.device)[code.flatten()[cube], turned.flatten()[cube].long()]


def _dual_vertices(
    positions: Float[Tensor, "n n n 3"],
    sdf: Float[Tensor, "n n n"],
    weights: Float[Tensor, "k 21"],
    cube: Int[Tensor, " k"],
    loop: Int[Tensor, "k 12"],
) -> tuple[Float[Tensor, "v 3"], Float[Tensor, ""], Int[Tensor, "k 12"]]:
    """One vertex for every loop: the mean of its crossings weighted by beta (section 4.2).

    Returns:
        The vertices, L_dev, and the number of the vertex at every crossed edge of every cube.
    """
    n = sdf.shape[0]
    loops = loop.max(dim=1).values + 1
    first_vertex = loops.cumsum(0) - loops
    row, edge = (loop >= 0).nonzero().unbind(1)
    vertex = first_vertex[row] + loop[row, edge]

    ends = torch.tensor(EDGES, device=cube.device)[edge]
    first_corner = _flat(_unflat(cube, n - 1), n)
    corner = first_corner[row, None] + _flat(torch.tensor(CORNERS, device=cube.device), n)[ends]
    place = positions.reshape(-1, 3).index_select(0, corner.flatten()).reshape(-1, 2, 3)
    s = sdf.flatten()[corner]
    bent = 1 + WEIGHT_RANGE * torch.tanh(weights[:, :20])
    alpha, beta = bent.flatten()[row[:, None] * 20 + ends], bent.flatten()[row * 20 + 8 + edge]

    crossing = _zero(place, alpha * s)
    total = beta.new_zeros(int(loops.sum())).index_add(0, vertex, beta)
    vertices = place.new_zeros(total.numel(), 3).index_add(0, vertex, beta[:, None] * crossing) / total[:, None]

    # The crossings of L_dev are those of the field alone, without alpha.
    distance = (_zero(place, s) - vertices.index_select(0, vertex)).norm(dim=-1)
    count = torch.bincount(vertex, minlength=total.numel())
    mean = distance.new_zeros(total.numel()).index_add(0, vertex, distance) / count
    deviation = (distance - mean.index_select(0, vertex)).abs().mean()

    vertex_of_edge = torch.full_like(loop, -1)
    vertex_of_edge[row, edge] = vertex
    return vertices, deviation, vertex_of_edge


def _flat(places: Int[Tensor, "*k 3"], n: int) -> Int[Tensor, "*k"]:
    """Index of places of a grid with `n` of them along each axis, the last axis fastest."""
    x, y, z = places.unbind(-1)
    return (x * n + y) * n + z


def _unflat(index: Int[Tensor, " k"], n: int) -> Int[Tensor, "k 3"]:
    return torch.stack([index // n**2, index // n % n, index % n], dim=1)


def _zero(ends: Float[Tensor, "e 2 3"], values: Float[Tensor, "e 2"]) -> Float[Tensor, "e 3"]:
    """Where the linear interpolation of values of opposite sign is zero."""
    a, b = values.unbind(1)
    return (ends[:, 0] * -b[:, None] + ends[:, 1] * a[:, None]) / (a - b)[:, None]


def _quadrilaterals(
    outside: Bool[Tensor, "n n n"], cube: Int[Tensor, " k"], vertex_of_edge: Int[Tensor, "k 12"]
) -> tuple[Int[Tensor, "q 4"], Int[Tensor, "q 4"]]:
    """The vertices around every crossed edge of the grid and the rows of their cubes, both counter-clockwise seen from
    outside."""
    n = outside.shape[0]
    r = n - 1
    row_of_cube = torch.full((r**3,), -1, device=cube.device)
    row_of_cube[cube] = torch.arange(cube.numel(), device=cube.device)
    vertices, rows = [], []
    for axis in range(3):
        low_outside = outside.narrow(axis, 0, r)
        low = (low_outside != outside.narrow(axis, 1, r)).nonzero()
        # The cube at (0, 0) of RING begins at the edge, the one at (1, 1) ends there. In cyclic order of the axes RING
        # is counter-clockwise seen from the edge's upper end, and so is the way around through the cubes.
        second, third = (axis + 1) % 3, (axis + 2) % 3
        edge = [EDGES.index((i, i | 1 << axis)) for i in (u << second | v << third for u, v in RING)]
        around = torch.zeros(4, 3, dtype=torch.long)
        around[:, [second, third]] = torch.tensor(RING)
        row = row_of_cube[_flat(low[:, None] - around.to(cube.device), r)]
        vertex = vertex_of_edge[row, torch.tensor(edge, device=cube.device)]
        # Where the lower end is inside, the upper end is the one outside.
        flipped = low_outside[tuple(low.T)][:, None]
        vertices.append(torch.where(flipped, vertex.flip(1), vertex))
        rows.append(torch.where(flipped, row.flip(1), row))
    return torch.cat(vertices), torch.cat(rows)


def _divide_in_the_middle(
    vertices: Float[Tensor, "v 3"], quads: Int[Tensor, "q 4"], first: Float[Tensor, " q"], second: Float[Tensor, " q"]
) -> tuple[Float[Tensor, "v+q 3"], Int[Tensor, "4*q 3"]]:
    """Four triangles around the mean of the diagonals' middles, weighted by the diagonals (section 4.3)."""
    a, b, c, d = vertices.index_select(0, quads.flatten()).reshape(-1, 4, 3).unbind(1)
    share = (first / (first + second))[:, None]
    middle = torch.lerp(b + d, a + c, share) / 2
    number = vertices.shape[0] + torch.arange(quads.shape[0], device=quads.device)
    faces = torch.stack([quads, quads.roll(-1, dims=1), number[:, None].expand(-1, 4)], dim=-1)
    return torch.cat([vertices, middle]), faces.reshape(-1, 3)


def _divide_along_a_diagonal(quads: Int[Tensor, "q 4"], second: Bool[Tensor, " q"]) -> Int[Tensor, "2*q 3"]:
    """Two triangles along the diagonal from the first to the third vertex, or from the second to the fourth."""
    quads = torch.where(second[:, None], quads.roll(-1, dims=1), quads)
    return torch.stack([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]], dim=1).reshape(-1, 3)


class FlexiCubes(nn.Module):
    """The parameters theta_4 of Algorithm 1 in another form than DMTet's, with the same face.

    `sdf [v]` (negative inside), `deformation [v, 3]` and `weights [c, 21]` (see `flexicubes`) on a grid of
    `resolution` cubes along each axis of `box [2, 3]` (lowest and highest corner in the world). A grid vertex moves by
    at most half a cube, `tanh(deformation) / (2 resolution)` of the box.
    """

    def __init__(self, resolution: int):
        super().__init__()
        if resolution < 2:
            raise InputError(f"FlexiCubes resolution is {resolution}; expected at least 2, such as 48")
        n = resolution + 1
        grid_vertices = torch.cartesian_prod(*[torch.arange(float(n))] * 3) / resolution
        self.resolution = resolution
        self.register_buffer("grid_vertices", grid_vertices, persistent=False)
        border = ((grid_vertices == 0) | (grid_vertices == 1)).any(dim=1)
        self.register_buffer("border", border, persistent=False)
        self.register_buffer("box", torch.tensor([[-1.0] * 3, [1.0] * 3]))
        self.sdf = nn.Parameter(torch.ones(n**3))
        self.deformation = nn.Parameter(torch.zeros_like(grid_vertices))
        self.weights = nn.Parameter(torch.zeros(resolution**3, 21))

    @classmethod
    def from_sdf(
        cls,
        sdf_fn: Callable[[Float[Tensor, "m 3"]], Float[Tensor, " m"]],
        resolution: int,
        device: torch.device | str = "cpu",
    ) -> "FlexiCubes":
        """Convert a signed distance field on [-1, 1]^3 as `DMTet.from_sdf` does.

        Args:
            sdf_fn: signed distance (negative inside) at world points; called without gradient.
            resolution: cubes along each axis.
            device: where the parameters live and `sdf_fn` is evaluated.

        Raises:
            InputError: the field is empty, full or not finite.
        """
        surface = cls(resolution).to(device)
        sample_in_tight_box(surface, sdf_fn)
        return surface

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """`sdf`, and `deformation` with the weights, which move the surface by parts of a cube as it does."""
        return {"sdf": [self.sdf], "deformation": [self.deformation, self.weights]}

    def positions(self) -> Float[Tensor, "v 3"]:
        """World positions of the displaced grid vertices."""
        unit = self.grid_vertices + torch.tanh(self.deformation) / (2 * self.resolution)
        return self.box[0] + unit * (self.box[1] - self.box[0])

    def mesh(self) -> tuple[Float[Tensor, "m 3"], Int[Tensor, "f 3"]]:
        """World vertices and outward faces of the surface, differentiable in all parameters.

        Quadrilaterals are four triangles in training mode, two in evaluation mode (`eval()`). What reaches beyond the
        box is cut off flat at its border.
        """
        return self.mesh_with_deviation()[:2]

    def mesh_with_deviation(self) -> tuple[Float[Tensor, "m 3"], Int[Tensor, "f 3"], Float[Tensor, ""]]:
        """`mesh` and L_dev (equation 8), which keeps the crossings of a cube at one distance from its vertex."""
        n = self.resolution + 1
        return flexicubes(
            self.positions().reshape(n, n, n, 3),
            closed(self.sdf, self.border).reshape(n, n, n),
            self.weights.reshape(n - 1, n - 1, n - 1, 21),
            four_triangles=self.training,
        )

    def save(self, path: Path | str) -> None:
        """Write the parameters and the box as one safetensors file."""
        save_surface(self, path)

    @classmethod
    def load(cls, path: Path | str) -> "FlexiCubes":
        """Read what `save` wrote.

        Raises:
            InputError: the file is missing, broken or not of FlexiCubes.
        """
        return load_surface(cls, path)

"""The tetrahedral grid that carries the DMTet's signed distances (Shen et al. 2021, section 3.1)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodream_lib.errors import InputError


def tetrahedral_grid(resolution: int) -> tuple[Float[Tensor, "v 3"], Int[Tensor, "t 4"]]:
    """Fill the unit cube with a body-centred cubic lattice of tetrahedra.

    The lattice has a vertex at every corner and every centre of `(resolution / 2)^3` cubes, so layers of vertices are
    `1 / resolution` apart along each axis. Inside, four tetrahedra surround every line between two neighbouring
    centres: all congruent and nearly regular, which gives a surface without the preferred diagonal of a split cube.
    Only the cube's boundary, where a centre lacks its neighbour, has halves of them.

    Args:
        resolution: layers of vertices per axis, even and at least 2.

    Returns:
        vertices: positions in [0, 1]^3.
        tets: vertex indices; `det(v1 - v0, v2 - v0, v3 - v0) > 0` for every tetrahedron.

    Raises:
        InputError: the resolution is odd or below 2.
    """
    if resolution < 2 or resolution % 2:
        raise InputError(
            f"tetrahedral grid resolution is {resolution}; expected an even number of at least 2, such as 48"
        )
    cubes = resolution // 2
    corner_index = torch.arange((cubes + 1) ** 3).reshape(cubes + 1, cubes + 1, cubes + 1)
    centre_index = corner_index.numel() + torch.arange(cubes**3).reshape(cubes, cubes, cubes)
    corners = torch.cartesian_prod(*[torch.arange(cubes + 1.0)] * 3)
    centres = torch.cartesian_prod(*[torch.arange(cubes + 0.0)] * 3) + 0.5
    tets = torch.cat([_tets_across_faces(corner_index, centre_index, axis) for axis in range(3)])
    return torch.cat([corners, centres]) / cubes, tets


def _tets_across_faces(corners: Int[Tensor, "m m m"], centres: Int[Tensor, "n n n"], axis: int) -> Int[Tensor, "t 4"]:
    """The tetrahedra at all cube faces perpendicular to `axis`."""
    # Cyclic order of the axes keeps the handedness: (axis, next, next but one) is a rotation of (x, y, z).
    order = [axis, (axis + 1) % 3, (axis + 2) % 3]
    corners, centres = corners.permute(order), centres.permute(order)
    # The four corners of every face, counter-clockwise seen from the positive end of `axis`.
    ring = torch.stack([corners[:, :-1, :-1], corners[:, 1:, :-1], corners[:, 1:, 1:], corners[:, :-1, 1:]], dim=-1)
    below, above = centres[:-1, ..., None].expand(-1, -1, -1, 4), centres[1:, ..., None].expand(-1, -1, -1, 4)
    inner = torch.stack([below, above, ring[1:-1], ring[1:-1].roll(-1, dims=-1)], dim=-1)
    q0, q1, q2, q3 = ring[0].unbind(-1)
    first = [torch.stack([centres[0], *face], dim=-1) for face in ((q0, q2, q1), (q0, q3, q2))]
    q0, q1, q2, q3 = ring[-1].unbind(-1)
    last = [torch.stack([centres[-1], *face], dim=-1) for face in ((q0, q1, q2), (q0, q2, q3))]
    return torch.cat([part.reshape(-1, 4) for part in (*first, inner, *last)])

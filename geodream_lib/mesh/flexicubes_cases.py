"""How a surface can pass through a cube: which of the twelve edges it crosses share a vertex of the dual mesh.

Nielson (2004), "Dual marching cubes": in every face of the cube the crossings are joined in pairs, which makes closed
loops around the cube; the dual mesh has one vertex for every loop. Where the corners of a face alternate there are two
ways to pair its four crossings, and the two cubes at the face must choose the same. All tables are computed here from
the corners of the cube.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

# Corner i lies at (x, y, z) = (i & 1, i >> 1 & 1, i >> 2).
CORNERS = tuple((i & 1, i >> 1 & 1, i >> 2) for i in range(8))

# From the lower to the upper corner; the four along x, then along y, then along z.
EDGES = tuple((i, i | 1 << axis) for axis in range(3) for i in range(8) if not i >> axis & 1)

# The corners of the face on side 0 or 1 of each axis, once around: face 2 * axis + side.
RING = ((0, 0), (1, 0), (1, 1), (0, 1))
FACES = tuple(
    tuple(side << axis | second << (axis + 1) % 3 | third << (axis + 2) % 3 for second, third in RING)
    for axis in range(3)
    for side in (0, 1)
)


@dataclass(frozen=True)
class Cases:
    """Of every set of corners outside (corner i counts 2^i), with its doubtful face paired as usual (0) or not (1):

    loop: of each edge, -1 where the surface does not cross it. loops: how many. doubtful_face: the face whose four
    crossings all lie on one loop, -1 where there is none.
    """

    loop: Int[Tensor, "256 2 12"]
    loops: Int[Tensor, "256 2"]
    doubtful_face: Int[Tensor, "256"]


@functools.cache
def cases() -> Cases:
    """The table of all cases.

    Usually a face whose corners alternate is paired so that its inside corners are cut off from each other. If both
    cubes at such a face had one vertex for all four crossings, four faces of the mesh would meet in one edge. Pairing
    that face the other way splits the loop in both cubes. No case has two such faces (see the tests), so that one cube
    never has to be split twice.
    """
    loop, doubtful = [], []
    for outside in range(256):
        usual = _loops(outside, ())
        faces = [face for face in range(6) if len({usual[edge] for edge in _crossed(outside, face)}) == 1]
        faces = [face for face in faces if len(_crossed(outside, face)) == 4]
        loop.append([usual, _loops(outside, faces)])
        doubtful.append(faces[0] if faces else -1)
    table = torch.tensor(loop)
    return Cases(table, table.max(dim=-1).values + 1, torch.tensor(doubtful))


def _crossed(outside: int, face: int) -> list[int]:
    """The edges of a face that the surface crosses, in the order around it, the first one leading to an outside
    corner."""
    ring = FACES[face]
    steps = [(ring[i], ring[(i + 1) % 4]) for i in range(4)]
    crossed = [step for step in steps if (outside >> step[0] & 1) != (outside >> step[1] & 1)]
    if crossed and outside >> crossed[0][0] & 1:
        crossed = crossed[1:] + crossed[:1]
    return [EDGES.index((min(step), max(step))) for step in crossed]


def _loops(outside: int, turned: Sequence[int]) -> list[int]:
    """The loop of each edge, -1 where there is no crossing; in the faces `turned` the pairing is the unusual one."""
    loop = list(range(12))
    crossed_edges = set()
    for face in range(6):
        crossed = _crossed(outside, face)
        crossed_edges |= set(crossed)
        # The way leads outside at even places and inside at odd ones: from 1 to 2 it is inside, at one corner.
        if face not in turned:
            crossed = crossed[1:] + crossed[:1]
        for first, second in zip(crossed[::2], crossed[1::2], strict=True):
            old, new = loop[first], loop[second]
            loop = [new if label == old else label for label in loop]
    names = sorted({loop[edge] for edge in crossed_edges})
    return [names.index(loop[edge]) if edge in crossed_edges else -1 for edge in range(12)]

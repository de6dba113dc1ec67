"""Solids without a name, for the cost volume alone: with them it learns to build what it sees, not what it knows."""

import numpy as np

from geodream_lib.lab.objects import RADIUS, LabObject
from geodream_lib.lab.primitives import BOX, CAPSULE, CONE, ELLIPSOID, PRISM, TORUS, support_points
from geodream_lib.lab.shape import COLORS, Colour, Shape

PARTS = (3, 9)
SIZES = (0.08, 0.36)  # of a part's longer half, before the whole is scaled to the world


def sample_solid(rng: np.random.Generator) -> LabObject:
    """Three to nine primitives of random kind, size, direction and colour (of three), each on the surface of another.

    It has no front, no words and no seat.
    """
    names = rng.choice(list(COLORS), 3, replace=False)
    shape, place = Shape(), np.zeros(3)
    for _ in range(rng.integers(PARTS[0], PARTS[1] + 1)):
        _add_part(shape, rng, place, rng.uniform(*SIZES), COLORS[names[rng.integers(3)]])
        parent = np.array(shape.rows[rng.integers(len(shape.rows))])[None]
        direction = rng.normal(size=(1, 3))
        place = support_points(parent, direction / np.linalg.norm(direction))[0]
    primitives, _ = shape.normalized(RADIUS)
    return LabObject("solid", (str(names[0]), str(names[1])), (), primitives, symmetric=False, seat=None)


def _add_part(shape: Shape, rng: np.random.Generator, place: np.ndarray, size: float, colour: Colour) -> None:
    """One primitive with `place` inside it, about `size` long to either side and a third to all of that wide."""
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation[:, 0] *= np.linalg.det(rotation)  # no mirror
    a, b = size * rng.uniform(0.35, 1.0, 2)
    kind = rng.choice([ELLIPSOID, BOX, CAPSULE, CONE, TORUS, PRISM])
    if kind == ELLIPSOID:
        shape.ellipsoid(place, (size, a, b), colour, rotation)
    elif kind == BOX:
        shape.box(place, (size * 0.8, a * 0.8, b * 0.8), colour, rotation)
    elif kind == CAPSULE:
        axis, radius = rotation[:, 2], max(0.35 * b, 0.04)
        shape.capsule(place - axis * size, place + axis * size, radius, colour)
    elif kind == CONE:
        shape.cone(place, size * 0.8, max(a, 0.06), 0.6 * b, colour, rotation)
    elif kind == TORUS:
        ring = 0.8 * size
        shape.torus(place + rotation[:, 0] * ring, ring, max(0.3 * a, 0.04), colour, rotation)
    else:
        shape.prism(place - rotation[:, 2] * 0.3 * size, a, b, size, colour, rotation)

"""A hand to build primitive tables with: colours, solids by their natural parameters, and the toy's usual parts."""

import math

import numpy as np
from jaxtyping import Float

from geodream_lib.lab.primitives import (
    BOX,
    CAPSULE,
    CENTRE,
    CONE,
    ELLIPSOID,
    LENGTHS,
    PRISM,
    ROUNDING,
    TORUS,
    support_points,
)

Number = float | int
Colour = tuple[Number, Number, Number]
Vector = tuple[Number, Number, Number] | Float[np.ndarray, " 3"]

# sRGB; white stays below 0.9 so that a white object is darker than a white background
COLORS: dict[str, Colour] = {
    "red": (0.83, 0.12, 0.12),
    "orange": (0.95, 0.50, 0.10),
    "yellow": (0.94, 0.79, 0.12),
    "green": (0.15, 0.58, 0.22),
    "turquoise": (0.08, 0.74, 0.68),
    "blue": (0.14, 0.33, 0.84),
    "purple": (0.50, 0.20, 0.68),
    "pink": (0.95, 0.52, 0.67),
    "white": (0.88, 0.88, 0.88),
    "brown": (0.45, 0.27, 0.13),
    "grey": (0.50, 0.52, 0.56),
    "black": (0.12, 0.12, 0.14),
}
WHITE, INK, CREAM = COLORS["white"], (0.06, 0.06, 0.07), (0.88, 0.76, 0.55)
GLASS, GOLD, STEEL = (0.50, 0.76, 0.92), (0.92, 0.72, 0.16), (0.68, 0.71, 0.76)


def shade(colour: Colour, factor: Number) -> Colour:
    """Darker (factor < 1) or, towards white, lighter (factor > 1) version of a colour."""
    if factor <= 1:
        return tuple(c * factor for c in colour)
    return tuple(c + (0.88 - c) * (factor - 1) for c in colour)


def contrast(options: list[Colour], *against: Colour) -> Colour:
    """The option that differs most from every colour it will be seen next to."""
    return max(options, key=lambda option: min(math.dist(option, other) for other in against))


def turn(axis: str, degrees: Number) -> np.ndarray:
    """Rotation matrix (local -> world) about a coordinate axis."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrices = {
        "x": [[1, 0, 0], [0, c, -s], [0, s, c]],
        "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
        "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
    }
    return np.array(matrices[axis], dtype=float)


def along(direction: Float[np.ndarray, " 3"]) -> np.ndarray:
    """A rotation whose z axis is `direction`."""
    z = direction / np.linalg.norm(direction)
    x = np.cross((0.0, 1.0, 0.0), z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], 1)


ALONG_X, ALONG_Y = turn("y", 90), turn("x", -90)


class Shape:
    """Collects primitives; lengths are in the builder's own units until `normalized` fits them into the world.

    seat: the point on the surface where a rider sits or a thing is put, in the builder's units; None where nothing can.
    """

    def __init__(self):
        self.rows: list[list[float]] = []
        self.seat: Vector | None = None

    def _add(self, kind, centre, lengths, colour, rotation=None, rounding=0.0):
        rotation = np.eye(3) if rotation is None else rotation
        lengths = [*lengths, 0.0, 0.0, 0.0][:4]
        self.rows.append([kind, *centre, *rotation.T.reshape(-1), *lengths, *colour, rounding])

    def ellipsoid(self, centre: Vector, radii: Number | Vector, colour: Colour, rotation=None):
        radii = (radii,) * 3 if np.isscalar(radii) else radii
        self._add(ELLIPSOID, centre, radii, colour, rotation)

    def box(self, centre: Vector, half: Vector, colour: Colour, rotation=None, rounding=0.03):
        rounding = min(rounding, *half)
        self._add(BOX, centre, [h - rounding for h in half], colour, rotation, rounding)

    def cone(self, centre: Vector, half_height, bottom, top, colour: Colour, rotation=None, rounding=0.015):
        """Frustum along local z; `bottom` and `top` are radii."""
        inner = [half_height - rounding, max(bottom - rounding, 0.0), max(top - rounding, 0.0)]
        self._add(CONE, centre, inner, colour, rotation, rounding)

    def torus(self, centre: Vector, ring, tube, colour: Colour, rotation=None):
        """Ring in the local xy-plane."""
        self._add(TORUS, centre, (ring, tube), colour, rotation)

    def prism(self, centre: Vector, half_length, half_base, height, colour: Colour, rotation=None):
        """Triangle (base on local z = 0, apex at z = height) extruded along local x."""
        self._add(PRISM, centre, (half_length, half_base, height), colour, rotation)

    def capsule(self, start: Vector, end: Vector, radius, colour: Colour):
        start, end = np.array(start, float), np.array(end, float)
        length = np.linalg.norm(end - start)
        z = (end - start) / length
        x = np.cross((0.3, 0.9, 0.2), z)
        x /= np.linalg.norm(x)
        self._add(CAPSULE, (start + end) / 2, (length / 2, radius), colour, np.stack([x, np.cross(z, x), z], 1))

    def eyes(self, centre: Vector, radii: Number | Vector, size, yaw=28.0, pitch=12.0):
        """A pair of big eyes on the +x side of a head: the mark of a front that a back view must not show."""
        radii = np.broadcast_to(np.asarray(radii, float), 3)
        for side in (-1, 1):
            y, p = math.radians(side * yaw), math.radians(pitch)
            outward = np.array([math.cos(p) * math.cos(y), math.cos(p) * math.sin(y), math.sin(p)])
            position = np.asarray(centre) + radii * outward
            self.ellipsoid(position, size, WHITE)
            pupil = outward * 0.5 + [0.5, 0.0, 0.0]
            self.ellipsoid(position + pupil * size * 0.6, size * 0.66, INK)

    def hat(self, centre: Vector, radius, colour: Colour):
        """A top hat standing on `centre`."""
        x, y, z = centre
        self.cone((x, y, z), 0.04, radius * 1.45, radius * 1.45, colour)
        self.cone((x, y, z + radius * 0.75), radius * 0.75, radius * 0.9, radius * 0.95, colour)
        self.cone((x, y, z + 0.11), 0.05, radius * 0.98, radius * 0.98, contrast([WHITE, INK, GOLD], colour))

    def scarf(self, centre: Vector, ring, tube, colour: Colour, end: Vector):
        """A ring around the neck and one end that hangs from it down to `end`."""
        x, y, z = centre
        self.torus(centre, ring, tube, colour)
        self.capsule((x + ring * 0.85, y + ring * 0.5, z), end, tube * 1.1, colour)

    def normalized(self, radius: Number = 0.9) -> tuple[np.ndarray, tuple[float, float, float] | None]:
        """Table `[n, 21]` float32 with the bounding box centred at the origin and the furthest point at `radius`.

        The second result is the seat after the same shift and scale.
        """
        rows = np.array(self.rows, dtype=np.float64)
        axes = np.concatenate([np.eye(3), -np.eye(3)])
        extreme = support_points(rows, axes)
        middle = (extreme[:3].diagonal() + extreme[3:].diagonal()) / 2
        rows[:, CENTRE] -= middle
        # the furthest point is the largest support over directions; iterating "look along it" converges to it
        k = np.arange(256) + 0.5
        z, angle = 1 - 2 * k / 256, k * math.pi * (3 - math.sqrt(5))
        directions = np.stack([np.sqrt(1 - z * z) * np.cos(angle), np.sqrt(1 - z * z) * np.sin(angle), z], 1)
        for _ in range(8):
            points = support_points(rows, directions)
            distance = np.linalg.norm(points, axis=1)
            best = np.argsort(-distance)[:8]
            directions = points[best] / distance[best, None]
        scale = radius / distance.max()
        rows[:, CENTRE] *= scale
        rows[:, LENGTHS] *= scale
        rows[:, ROUNDING] *= scale
        seat = None if self.seat is None else tuple(float(v) for v in scale * (np.asarray(self.seat) - middle))
        return rows.astype(np.float32), seat

"""Signed distances of the solids every lab object is made of, as compiled scalar functions.

An object is a table of primitives, one row each; its surface is the boundary of their union. Row layout (21 floats):
0 type, 1:4 centre, 4:13 rotation world -> local (row-major), 13:17 lengths, 17:20 colour (sRGB, 0..1), 20 rounding.
Distance formulas are the usual exact ones (Quilez, "distance functions"); ellipsoid and prism use bounds.
"""

import math

import numpy as np
from jaxtyping import Float
from numba import njit

ELLIPSOID, BOX, CAPSULE, CONE, TORUS, PRISM = range(6)
ROW = 21
CENTRE, ROTATION, LENGTHS, COLOUR, ROUNDING = slice(1, 4), slice(4, 13), slice(13, 17), slice(17, 20), 20


@njit(fastmath=True, cache=True, inline="always")
def primitive_distance(rows, i, x, y, z):
    """Signed distance from world point (x, y, z) to primitive `i` (negative inside)."""
    dx = x - rows[i, 1]
    dy = y - rows[i, 2]
    dz = z - rows[i, 3]
    a = rows[i, 4] * dx + rows[i, 5] * dy + rows[i, 6] * dz
    b = rows[i, 7] * dx + rows[i, 8] * dy + rows[i, 9] * dz
    c = rows[i, 10] * dx + rows[i, 11] * dy + rows[i, 12] * dz
    kind = rows[i, 0]
    p = rows[i, 13]
    q = rows[i, 14]
    s = rows[i, 15]
    if kind == ELLIPSOID:  # k0 (k0 - 1) / k1: first-order bound, exact for a sphere
        u = a / p
        v = b / q
        w = c / s
        k0 = math.sqrt(u * u + v * v + w * w)
        u /= p
        v /= q
        w /= s
        k1 = math.sqrt(u * u + v * v + w * w)
        if k1 < 1e-6:
            return -min(p, min(q, s))
        return k0 * (k0 - 1.0) / k1
    if kind == BOX:
        u = abs(a) - p
        v = abs(b) - q
        w = abs(c) - s
        uu = max(u, 0.0)
        vv = max(v, 0.0)
        ww = max(w, 0.0)
        return math.sqrt(uu * uu + vv * vv + ww * ww) + min(max(u, max(v, w)), 0.0) - rows[i, 20]
    if kind == CAPSULE:  # axis z, half length p, radius q
        c -= min(max(c, -p), p)
        return math.sqrt(a * a + b * b + c * c) - q
    if kind == CONE:  # axis z, half height p, radius q at the bottom and s at the top
        radial = math.sqrt(a * a + b * b)
        slope_r = s - q
        slope_z = 2.0 * p
        cap_r = radial - min(radial, q if c < 0.0 else s)
        cap_z = abs(c) - p
        f = ((s - radial) * slope_r + (p - c) * slope_z) / (slope_r * slope_r + slope_z * slope_z)
        f = min(max(f, 0.0), 1.0)
        side_r = radial - s + slope_r * f
        side_z = c - p + slope_z * f
        sign = -1.0 if (side_r < 0.0 and cap_z < 0.0) else 1.0
        nearest = min(cap_r * cap_r + cap_z * cap_z, side_r * side_r + side_z * side_z)
        return sign * math.sqrt(nearest) - rows[i, 20]
    if kind == TORUS:  # ring of radius p in the xy-plane, tube radius q
        ring = math.sqrt(a * a + b * b) - p
        return math.sqrt(ring * ring + c * c) - q
    # PRISM, never rounded: triangle with base 2q on z = 0 and height s, extruded over |x| < p; the largest distance to
    # one of its planes is a lower bound
    length = math.sqrt(q * q + s * s)
    side = (abs(b) * s + c * q - q * s) / length
    return max(max(abs(a) - p, -c), side)


@njit(fastmath=True, cache=True, nogil=True)
def union_distance(rows, points, distance, nearest):
    """Write the distance of the union and the row number of the nearest primitive for every point."""
    for n in range(points.shape[0]):
        best = 1e9
        index = 0
        for i in range(rows.shape[0]):
            d = primitive_distance(rows, i, points[n, 0], points[n, 1], points[n, 2])
            if d < best:
                best = d
                index = i
        distance[n] = best
        nearest[n] = index


def bounding_radii(rows: Float[np.ndarray, "m 21"]) -> Float[np.ndarray, " m"]:
    """Radius of a sphere around each primitive's centre that contains it."""
    kind, (p, q, s), rounding = rows[:, 0].astype(int), rows[:, 13:16].T, rows[:, ROUNDING]
    by_kind = [
        np.maximum(np.maximum(p, q), s),
        np.sqrt(p * p + q * q + s * s),
        p + q,
        np.hypot(p, np.maximum(q, s)),
        p + q,
        np.hypot(p, np.maximum(q, s)),
    ]
    return np.choose(kind, by_kind) + rounding


def support_points(rows: Float[np.ndarray, "m 21"], directions: Float[np.ndarray, "k 3"]) -> Float[np.ndarray, "k 3"]:
    """The point of the union that lies furthest along each unit direction."""
    points = np.empty((len(directions), 3))
    _support_points(rows.astype(np.float64), np.ascontiguousarray(directions, np.float64), points)
    return points


@njit(cache=True, nogil=True)
def _support_points(rows, directions, points):
    for k in range(directions.shape[0]):
        dx, dy, dz = directions[k, 0], directions[k, 1], directions[k, 2]
        best = -1e9
        for i in range(rows.shape[0]):
            row = rows[i]
            u = row[4] * dx + row[5] * dy + row[6] * dz
            v = row[7] * dx + row[8] * dy + row[9] * dz
            w = row[10] * dx + row[11] * dy + row[12] * dz
            a, b, c = _local_support(row, u, v, w)
            x = row[1] + row[4] * a + row[7] * b + row[10] * c
            y = row[2] + row[5] * a + row[8] * b + row[11] * c
            z = row[3] + row[6] * a + row[9] * b + row[12] * c
            reach = x * dx + y * dy + z * dz
            if reach > best:
                best = reach
                points[k, 0], points[k, 1], points[k, 2] = x, y, z


@njit(cache=True, inline="always")
def _local_support(row, u, v, w):
    """The point of one primitive furthest along the unit direction (u, v, w), all in its own frame."""
    kind, p, q, s = row[0], row[13], row[14], row[15]
    up = 1.0 if w >= 0 else -1.0
    flat = max(math.sqrt(u * u + v * v), 1e-9)
    if kind == ELLIPSOID:
        length = math.sqrt((p * u) ** 2 + (q * v) ** 2 + (s * w) ** 2)
        x, y, z = p * p * u / length, q * q * v / length, s * s * w / length
    elif kind == BOX:
        x, y, z = p * np.sign(u), q * np.sign(v), s * np.sign(w)
    elif kind == CAPSULE:
        x, y, z = q * u, q * v, p * up + q * w
    elif kind == TORUS:
        x, y, z = (p / flat + q) * u, (p / flat + q) * v, q * w
    elif kind == CONE:
        # the rim of its bottom or of its top
        radius, z = (s, p) if (s - q) * flat + 2 * p * w > 0 else (q, -p)
        x, y = radius * u / flat, radius * v / flat
    else:
        # an end of its base or of its ridge
        x = p if u >= 0 else -p
        y, z = (0.0, s) if s * w - q * abs(v) > 0 else (q if v >= 0 else -q, 0.0)
    return x + row[20] * u, y + row[20] * v, z + row[20] * w

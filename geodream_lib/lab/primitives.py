"""Signed distances of the solids every lab object is made of, as compiled scalar functions.

An object is a table of primitives, one row each; its surface is the boundary of their union. Row layout (21 floats):
0 type, 1:4 centre, 4:13 rotation world -> local (row-major), 13:17 lengths, 17:20 colour (sRGB, 0..1), 20 rounding.
Distance formulas are the usual exact ones (Quilez, "distance functions"); ellipsoid and prism use bounds.
"""

import math

import numpy as np
from jaxtyping import Float, Int
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
    rotation = rows[:, ROTATION].reshape(-1, 3, 3).astype(float)
    n = directions @ rotation.transpose(0, 2, 1)
    local = np.empty_like(n)
    for kind in np.unique(rows[:, 0]):
        chosen = rows[:, 0] == kind
        local[chosen] = _local_support(int(kind), rows[chosen, LENGTHS], n[chosen])
    local += rows[:, None, ROUNDING, None] * n
    world = local @ rotation + rows[:, None, CENTRE]
    best: Int[np.ndarray, " k"] = (world * directions).sum(-1).argmax(0)
    return world[best, np.arange(len(directions))]


def _local_support(
    kind: int, lengths: Float[np.ndarray, "m 4"], n: Float[np.ndarray, "m k 3"]
) -> Float[np.ndarray, "m k 3"]:
    p, q, s = lengths[:, :3].T.astype(float)[:, :, None, None]
    across, z = np.array([1.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0])
    up = np.where(n[..., 2:] >= 0, 1.0, -1.0)
    flat = n * across
    flat = flat / np.maximum(np.linalg.norm(flat, axis=-1, keepdims=True), 1e-9)
    if kind == ELLIPSOID:
        radii = np.concatenate([p, q, s], axis=-1)
        return radii**2 * n / np.linalg.norm(radii * n, axis=-1, keepdims=True)
    if kind == BOX:
        return np.sign(n) * np.concatenate([p, q, s], axis=-1)
    if kind == CAPSULE:
        return up * p * z + q * n
    if kind == TORUS:
        return p * flat + q * n
    if kind == CONE:
        one, other = q * flat - p * z, s * flat + p * z
    else:
        side = np.where(n >= 0, 1.0, -1.0)
        one = side * np.concatenate([p, q, 0 * s], axis=-1)
        other = side * np.concatenate([p, 0 * q, 0 * s], axis=-1) + s * z
    return np.where(((other - one) * n).sum(-1, keepdims=True) > 0, other, one)

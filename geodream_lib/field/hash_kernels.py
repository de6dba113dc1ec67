"""CPU kernels of the hash encoding (numba): the same arithmetic as `encode_reference`, without its temporaries."""

import numba
import numpy as np


@numba.njit(inline="always")
def _row(x, y, z, resolution, offset, size, dense):
    """Row of the table that holds vertex (x, y, z); a hashed level has a power of two as its size."""
    if dense:
        row = x + (y + z * resolution) * resolution
        return offset + (row - size if row >= size else row)  # the vertex past the last wraps once at most
    return offset + ((x ^ (y * 2654435761) ^ (z * 805459861)) & (size - 1))


@numba.njit(parallel=True, cache=True)
def encode(points, table, scale, resolution, offset, size, dense, encoded):
    """encoded [n, levels*features] from points [n, 3] in the unit cube and table [rows, features]."""
    features = table.shape[1]
    for i in numba.prange(points.shape[0]):
        for level in range(scale.shape[0]):
            r, o, s, d = resolution[level], offset[level], size[level], dense[level]
            px = points[i, 0] * scale[level] + np.float32(0.5)
            py = points[i, 1] * scale[level] + np.float32(0.5)
            pz = points[i, 2] * scale[level] + np.float32(0.5)
            cx, cy, cz = np.floor(px), np.floor(py), np.floor(pz)
            fx, fy, fz = px - cx, py - cy, pz - cz
            ex, ey, ez = np.float32(1.0) - fx, np.float32(1.0) - fy, np.float32(1.0) - fz
            x, y, z = np.int64(cx), np.int64(cy), np.int64(cz)
            v000, v100 = table[_row(x, y, z, r, o, s, d)], table[_row(x + 1, y, z, r, o, s, d)]
            v010, v110 = table[_row(x, y + 1, z, r, o, s, d)], table[_row(x + 1, y + 1, z, r, o, s, d)]
            v001, v101 = table[_row(x, y, z + 1, r, o, s, d)], table[_row(x + 1, y, z + 1, r, o, s, d)]
            v011, v111 = table[_row(x, y + 1, z + 1, r, o, s, d)], table[_row(x + 1, y + 1, z + 1, r, o, s, d)]
            for f in range(features):
                below = ey * (ex * v000[f] + fx * v100[f]) + fy * (ex * v010[f] + fx * v110[f])
                above = ey * (ex * v001[f] + fx * v101[f]) + fy * (ex * v011[f] + fx * v111[f])
                encoded[i, level * features + f] = ez * below + fz * above


@numba.njit(parallel=True, cache=True)
def scatter(points, gradient, scale, resolution, offset, size, dense, table_gradient):
    """Add d loss / d table into table_gradient [rows, features], given gradient = d loss / d encoded.

    Levels own disjoint rows, so they run in parallel without atomics and the sum has one fixed order.
    """
    features = table_gradient.shape[1]
    for level in numba.prange(scale.shape[0]):
        r, o, s, d = resolution[level], offset[level], size[level], dense[level]
        for i in range(points.shape[0]):
            px = points[i, 0] * scale[level] + np.float32(0.5)
            py = points[i, 1] * scale[level] + np.float32(0.5)
            pz = points[i, 2] * scale[level] + np.float32(0.5)
            cx, cy, cz = np.floor(px), np.floor(py), np.floor(pz)
            fx, fy, fz = px - cx, py - cy, pz - cz
            x, y, z = np.int64(cx), np.int64(cy), np.int64(cz)
            for corner in range(8):
                dx, dy, dz = corner & 1, corner >> 1 & 1, corner >> 2 & 1
                weight = (fx if dx else np.float32(1.0) - fx) * (fy if dy else np.float32(1.0) - fy)
                weight *= fz if dz else np.float32(1.0) - fz
                row = _row(x + dx, y + dy, z + dz, r, o, s, d)
                for f in range(features):
                    table_gradient[row, f] += weight * gradient[i, level * features + f]

"""CPU kernels of the hash encoding (numba): the same arithmetic as `encode_reference`, without its temporaries."""

import numba
import numpy as np


@numba.njit(inline="always")
def _row(x, y, z, resolution, offset, size, dense):
    """Row of the table that holds vertex (x, y, z); a hashed level has a power of two as its size."""
    if dense:
        return offset + (x + (y + z * resolution) * resolution) % size
    return offset + ((x ^ (y * 2654435761) ^ (z * 805459861)) & (size - 1))


@numba.njit(parallel=True, cache=True)
def encode(points, table, scale, resolution, offset, size, dense, encoded):
    """encoded [n, levels*features] from points [n, 3] in the unit cube and table [rows, features]."""
    features = table.shape[1]
    for i in numba.prange(points.shape[0]):
        for level in range(scale.shape[0]):
            px = points[i, 0] * scale[level] + np.float32(0.5)
            py = points[i, 1] * scale[level] + np.float32(0.5)
            pz = points[i, 2] * scale[level] + np.float32(0.5)
            cx, cy, cz = np.floor(px), np.floor(py), np.floor(pz)
            fx, fy, fz = px - cx, py - cy, pz - cz
            x, y, z = np.int64(cx), np.int64(cy), np.int64(cz)
            for f in range(features):
                encoded[i, level * features + f] = 0.0
            for corner in range(8):
                dx, dy, dz = corner & 1, corner >> 1 & 1, corner >> 2 & 1
                weight = (fx if dx else np.float32(1.0) - fx) * (fy if dy else np.float32(1.0) - fy)
                weight *= fz if dz else np.float32(1.0) - fz
                row = _row(x + dx, y + dy, z + dz, resolution[level], offset[level], size[level], dense[level])
                for f in range(features):
                    encoded[i, level * features + f] += weight * table[row, f]


@numba.njit(parallel=True, cache=True)
def scatter(points, gradient, scale, resolution, offset, size, dense, table_gradient):
    """Add d loss / d table into table_gradient [rows, features], given gradient = d loss / d encoded.

    Levels own disjoint rows, so they run in parallel without atomics and the sum has one fixed order.
    """
    features = table_gradient.shape[1]
    for level in numba.prange(scale.shape[0]):
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
                row = _row(x + dx, y + dy, z + dz, resolution[level], offset[level], size[level], dense[level])
                for f in range(features):
                    table_gradient[row, f] += weight * gradient[i, level * features + f]

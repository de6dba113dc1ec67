"""CPU kernels of `sample_volume_with_jacobian` (numba): the arithmetic of sample.py without its temporaries."""

import numba
import numpy as np


@numba.njit(inline="always")
def _axis(coordinate, size):
    """The two voxels around a coordinate in [-1, 1], the weight of the upper one, and whether it is inside the grid."""
    position = (coordinate + np.float32(1)) / np.float32(2) * np.float32(size - 1)
    if not (position > 0 and position < size):
        return 0, 0, np.float32(0), False
    lower = int(position)
    return lower, min(lower + 1, size - 1), position - np.float32(lower), True


@numba.njit(inline="always")
def _half(size):
    """Voxels per unit of length, the slope of a weight."""
    return np.float32((size - 1) / 2)


@numba.njit(parallel=True, cache=True)
def gather(rows, shape, points, out):
    """out [n, 4, c]: trilinear value of rows [x*y*z, c] at points [n, 3], and its derivative along x, y, z."""
    half_x, half_y, half_z = _half(shape[0]), _half(shape[1]), _half(shape[2])
    for i in numba.prange(points.shape[0]):
        x0, x1, fx, in_x = _axis(points[i, 0], shape[0])
        y0, y1, fy, in_y = _axis(points[i, 1], shape[1])
        z0, z1, fz, in_z = _axis(points[i, 2], shape[2])
        if not (in_x and in_y and in_z):
            out[i] = np.float32(0)
            continue
        ex, ey, ez = np.float32(1) - fx, np.float32(1) - fy, np.float32(1) - fz
        v000, v001 = rows[(x0 * shape[1] + y0) * shape[2] + z0], rows[(x0 * shape[1] + y0) * shape[2] + z1]
        v010, v011 = rows[(x0 * shape[1] + y1) * shape[2] + z0], rows[(x0 * shape[1] + y1) * shape[2] + z1]
        v100, v101 = rows[(x1 * shape[1] + y0) * shape[2] + z0], rows[(x1 * shape[1] + y0) * shape[2] + z1]
        v110, v111 = rows[(x1 * shape[1] + y1) * shape[2] + z0], rows[(x1 * shape[1] + y1) * shape[2] + z1]
        value, along_x, along_y, along_z = out[i, 0], out[i, 1], out[i, 2], out[i, 3]
        for k in range(rows.shape[1]):
            # Along z, then y, then x.
            v00, v01 = ez * v000[k] + fz * v001[k], ez * v010[k] + fz * v011[k]
            v10, v11 = ez * v100[k] + fz * v101[k], ez * v110[k] + fz * v111[k]
            d00, d01, d10, d11 = v001[k] - v000[k], v011[k] - v010[k], v101[k] - v100[k], v111[k] - v110[k]
            v0, v1 = ey * v00 + fy * v01, ey * v10 + fy * v11
            value[k] = ex * v0 + fx * v1
            along_x[k] = half_x * (v1 - v0)
            along_y[k] = half_y * (ex * (v01 - v00) + fx * (v11 - v10))
            along_z[k] = half_z * (ex * (ey * d00 + fy * d01) + fx * (ey * d10 + fy * d11))


@numba.njit(parallel=True, cache=True)
def scatter(gradient, shape, points, parts, total):
    """Add d loss / d rows into total [x*y*z, c], given gradient = d loss / d out.

    `parts` groups of channels run in parallel: they own their columns, so the sum has one fixed order, without atomics.
    """
    channels = total.shape[1]
    half_x, half_y, half_z = _half(shape[0]), _half(shape[1]), _half(shape[2])
    for part in numba.prange(parts):
        first, last = part * channels // parts, (part + 1) * channels // parts
        for i in range(points.shape[0]):
            x0, x1, fx, in_x = _axis(points[i, 0], shape[0])
            y0, y1, fy, in_y = _axis(points[i, 1], shape[1])
            z0, z1, fz, in_z = _axis(points[i, 2], shape[2])
            if not (in_x and in_y and in_z):
                continue
            to_value, to_x = gradient[i, 0, first:last], gradient[i, 1, first:last]
            to_y, to_z = gradient[i, 2, first:last], gradient[i, 3, first:last]
            for corner in range(8):
                x, wx, sx = (x1, fx, half_x) if corner & 4 else (x0, np.float32(1) - fx, -half_x)
                y, wy, sy = (y1, fy, half_y) if corner & 2 else (y0, np.float32(1) - fy, -half_y)
                z, wz, sz = (z1, fz, half_z) if corner & 1 else (z0, np.float32(1) - fz, -half_z)
                row = total[(x * shape[1] + y) * shape[2] + z, first:last]
                value, along_x, along_y, along_z = wx * wy * wz, sx * wy * wz, wx * sy * wz, wx * wy * sz
                for k in range(last - first):
                    row[k] += value * to_value[k] + along_x * to_x[k] + along_y * to_y[k] + along_z * to_z[k]

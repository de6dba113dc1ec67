"""CPU kernel of sampling.py (numba): walks along each ray, instead of laying out all of its sections."""

import math

import numba
import numpy as np


@numba.njit(inline="always")
def _between(position, cells):
    """The two cell centres around a position in cells, held at the border, and the weight of the upper one."""
    position = min(max(position - np.float32(0.5), np.float32(0)), np.float32(cells - 1))
    lower = min(int(position), cells - 2)
    return lower, position - np.float32(lower)


@numba.njit(inline="always")
def _interpolate(occupancy, x, y, z):
    i, fx = _between(x, occupancy.shape[0])
    j, fy = _between(y, occupancy.shape[1])
    k, fz = _between(z, occupancy.shape[2])
    total = np.float32(0)
    for corner in range(8):
        a, b, c = corner >> 2 & 1, corner >> 1 & 1, corner & 1
        weight = (fx if a else 1 - fx) * (fy if b else 1 - fy) * (fz if c else 1 - fz)
        total += weight * occupancy[i + a, j + b, k + c]
    return total


@numba.njit(inline="always")
def _sigmoid(x):
    return 1 / (1 + math.exp(-x))


@numba.njit(parallel=True, cache=True)
def keep_visible(near, far, offset, length, start, slope, occupancy, reach, sharpness, negligible, keep):
    """Set keep [r, s] where `near_surface` and `estimate_visible` keep a section: near + (s + offset) * length.

    start, slope: each ray's origin and direction in cells of the occupancy.
    """
    cells = occupancy.shape[0]
    for ray in numba.prange(near.shape[0]):
        lowest = math.inf
        for section in range(keep.shape[1]):
            distance = near[ray] + (section + offset[ray]) * length
            if distance >= far[ray]:
                break
            x = start[ray, 0] + slope[ray, 0] * distance
            y = start[ray, 1] + slope[ray, 1] * distance
            z = start[ray, 2] + slope[ray, 2] * distance
            i, j, k = (min(max(int(x), 0), cells - 1), min(max(int(y), 0), cells - 1), min(max(int(z), 0), cells - 1))
            if occupancy[i, j, k] < reach:
                sdf = _interpolate(occupancy, x, y, z)
                entering, leaving = _sigmoid((sdf + length / 2) * sharpness), _sigmoid((sdf - length / 2) * sharpness)
                alpha = min(max((entering - leaving + 1e-5) / (entering + 1e-5), 0), 1)
                keep[ray, section] = _sigmoid(lowest * sharpness) * alpha > negligible
                lowest = min(lowest, sdf)
                if occupancy[i, j, k] < -reach:
                    break

"""Softplus and its slope on a CPU (numba), in one pass and without calls of the mathematical library."""

import numba
import numpy as np

LOG2_E, BIAS, FRACTION_BITS = np.float32(1.4426950408889634), np.int32(127), np.int32(23)
# 2^g on [0, 1) and 2 artanh(w) = log((1 + w) / (1 - w)) on [0, 1/3], to the rounding of float32.
E0, E1, E2, E3, E4, E5, E6 = (
    np.float32(c) for c in (1.0, 0.6931468248, 0.2402310967, 0.0554789193, 0.0096861785, 0.0012382440, 0.0002187130)
)
A1, A3, A5, A7, A9, A11, A13 = (np.float32(2 / odd) for odd in (1, 3, 5, 7, 9, 11, 13))
ONE, TWO, SMALLEST = np.float32(1), np.float32(2), np.float32(-126)


@numba.njit(parallel=True, cache=True, fastmath={"contract"})
def softplus_and_slope(a, beta, value, slope):
    """value = log(1 + exp(beta a)) / beta and slope = 1 / (1 + exp(-beta a)), all [n, h]; both to 1e-7.

    With e = exp(-|beta a|), which cannot overflow: log(1 + e) is 2 artanh(e / (2 + e)).
    """
    beta = np.float32(beta)
    for i in numba.prange(a.shape[0]):
        for k in range(a.shape[1]):
            z = beta * a[i, k]
            t = max(-abs(z) * LOG2_E, SMALLEST)
            whole = np.floor(t)
            g = t - whole
            power = E0 + g * (E1 + g * (E2 + g * (E3 + g * (E4 + g * (E5 + g * E6)))))
            e = power * np.int32((np.int32(whole) + BIAS) << FRACTION_BITS).view(np.float32)
            w = e / (TWO + e)
            q = w * w
            log = w * (A1 + q * (A3 + q * (A5 + q * (A7 + q * (A9 + q * (A11 + q * A13))))))
            value[i, k] = max(a[i, k], np.float32(0)) + log / beta
            share = ONE / (ONE + e)
            slope[i, k] = share if z >= 0 else ONE - share

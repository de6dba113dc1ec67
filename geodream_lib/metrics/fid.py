"""FID: how far the distribution of renders is from that of reference images, in the features of a network."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from geodream_lib.errors import InputError


@torch.no_grad()
def frechet_distance(one: Float[Tensor, "n d"], other: Float[Tensor, "m e"]) -> float:
    """Fréchet distance of the normal distributions fitted to two sets of features (Heusel et al., 2017).

    |mean_1 - mean_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)), 0 for equal sets, in squared units of the features. With
    centred features X, C = X^T X / (n - 1), and the trace of the root is the sum of the singular values of X_1 X_2^T:
    no root of a matrix is taken, which for fewer images than features would be of a singular one.

    A few hundred images give too large a distance (the bias falls with their number), so it compares only with
    distances of as many images.

    Raises:
        InputError: a set has fewer than two rows, the widths differ, or a feature is not finite.
    """
    if min(len(one), len(other)) < 2 or one.shape[1] != other.shape[1]:
        raise InputError(
            f"FID of features {tuple(one.shape)} and {tuple(other.shape)}; expected two images or more on each side, "
            "and the same network"
        )
    a, b = (features.detach().cpu().double().numpy() for features in (one, other))
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("FID of features that are not finite; check the images and the network's weights")
    shift = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
    factor_a, factor_b = _factor(a), _factor(b)
    spread = (factor_a**2).sum() + (factor_b**2).sum()
    common = np.linalg.svd(factor_a @ factor_b.T, compute_uv=False).sum()
    return max(0.0, float(shift + spread - 2 * common))


def _factor(features: np.ndarray) -> np.ndarray:
    """R of at most d rows with R^T R the covariance: the triangle of a QR decomposition."""
    return np.linalg.qr((features - features.mean(axis=0)) / np.sqrt(len(features) - 1), mode="r")

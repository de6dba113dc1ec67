"""A start without the 3D prior: a volume that says "ball" whatever the prompt, to see what the cost volume is worth.

Text-to-3D without native 3D knowledge begins so (threestudio's ProlificDreamer starts from a sphere). Decoder, renderer
and guidance stay the same, so that what differs later is due to the prior alone.
"""

import torch

from geodream_lib.volume.cost_volume import CostVolume
from geodream_lib.volume.decoder import GeometryDecoder
from geodream_lib.volume.projection import voxel_positions

RADIUS = 0.5  # in the cube; of the sphere that geometric initialisation starts from, too
NEWTON_STEPS = 8
_CHUNK = 1 << 15


def ball_volume(decoder: GeometryDecoder, resolution: int) -> CostVolume:
    """The smallest features by which the frozen f_g reads a ball of radius 0.5 about the centre of the cube.

    At every voxel Newton's method solves s(x) = |x| - 0.5 (eq. 7) for the feature, along ds/dV, from zero. Between the
    voxels the features, and with them the distances, are interpolated.

    Args:
        decoder: f_g as it was learnt with the prior.
        resolution: voxels per axis.
    """
    weight = decoder.lin2.weight
    parts = []
    for points in voxel_positions(resolution, weight.device).split(_CHUNK):
        feature = weight.new_zeros(len(points), weight.shape[1] - decoder.hidden)
        for _ in range(NEWTON_STEPS):
            feature.requires_grad_()
            error = decoder(points, feature)[0] - (points.norm(dim=-1) - RADIUS)
            (slope,) = torch.autograd.grad(error.sum(), feature)
            step = error.detach()[:, None] * slope / slope.square().sum(-1, keepdim=True).clamp(min=1e-8)
            # Far from the solution the decoder is not linear: no feature moves by more than 1 at a time.
            feature = feature.detach() - step * (1 / step.norm(dim=-1, keepdim=True).clamp(min=1))
        parts.append(feature)
    volume = torch.cat(parts).unflatten(0, (resolution,) * 3).permute(3, 0, 1, 2)
    everywhere = torch.ones((resolution,) * 3, dtype=torch.bool, device=volume.device)
    return CostVolume(volume, everywhere, torch.eye(4, device=volume.device))

"""R of eq. 4 while the priors are trained: One-2-3-45's rendering of the cost volume along rays (after SparseNeuS).

Everything happens in the cube [-1, 1]^3; depths are distances along unit rays.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from geodream_lib.neus import rendering_weights, section_alpha
from geodream_lib.volume.blending import SourceViews, blend_color, project_for_blending
from geodream_lib.volume.decoder import query_sdf, query_sdf_and_gradient
from geodream_lib.volume.networks import CostVolumeNetworks
from geodream_lib.volume.sample import sample_volume

OUTSIDE = 100.0  # signed distance given to points without data


@dataclass(frozen=True)
class PriorRendering:
    """One batch of `r` rays with `k` samples each.

    color: on white. valid: the ray has more than 8 samples that two views see. eikonal: mean of (|ds/dx| - 1)^2 over
    samples with data. depths, lengths: of the sections' midpoints.
    """

    color: Float[Tensor, "r 3"]
    opacity: Float[Tensor, " r"]
    depth: Float[Tensor, " r"]
    weights: Float[Tensor, "r k"]
    alpha: Float[Tensor, "r k"]
    sdf: Float[Tensor, "r k"]
    gradients: Float[Tensor, "r k 3"]
    inside: Bool[Tensor, "r k"]
    depths: Float[Tensor, "r k"]
    lengths: Float[Tensor, "r k"]
    valid: Bool[Tensor, " r"]
    eikonal: Float[Tensor, ""]


def render_prior(
    networks: CostVolumeNetworks,
    volume: Float[Tensor, "c x y z"],
    mask: Bool[Tensor, "x y z"],
    views: SourceViews,
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    near: float,
    far: float,
    annealing: float = 1.0,
    samples: int = 64,
    importance: int = 64,
    generator: torch.Generator | None = None,
    least_weight: float = 0.0,
) -> PriorRendering:
    """I' of eq. 4 for a batch of rays, differentiable with respect to the networks and the volume.

    Args:
        directions: unit length.
        annealing: 0 at the start of training to 1 (see `section_alpha`); the released schedule is step / 25000.
        samples: depths spread evenly from near to far; jittered when a `generator` is given.
        importance: further depths, placed near the surface in four rounds.
        least_weight: samples that contribute less than this to their ray are not coloured; 0 colours all that count.
            1e-4 makes a training step several times cheaper, for a change of colour below what an 8-bit image shows.
    """
    even = torch.linspace(0, 1, samples, device=origins.device)
    depths = (near + (far - near) * even).expand(len(origins), -1)
    if generator is not None:
        depths = jitter(depths, generator)
    depths = importance_depths(networks, volume, mask, origins, directions, depths, importance)
    last = (far - near) / samples
    return render_sections(networks, volume, mask, views, origins, directions, depths, last, annealing, least_weight)


def render_sections(
    networks: CostVolumeNetworks,
    volume: Float[Tensor, "c x y z"],
    mask: Bool[Tensor, "x y z"],
    views: SourceViews,
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    starts: Float[Tensor, "r k"],
    last: float,
    annealing: float = 1.0,
    least_weight: float = 0.0,
) -> PriorRendering:
    """R of eq. 4 for rays cut into sections at the depths `starts`; `last` is the length of the last section.

    Signed distance, gradient and colour are evaluated at the sections' midpoints.
    """
    lengths = torch.cat([starts.diff(dim=-1), torch.full_like(starts[:, :1], last)], dim=-1)
    depths = starts + lengths / 2
    r, k = depths.shape
    points = (origins[:, None] + directions[:, None] * depths[..., None]).flatten(0, 1)
    inside = nearest_mask(mask, points)
    sdf = points.new_full((r * k,), OUTSIDE)
    gradients = torch.zeros_like(points)
    values, slopes = query_sdf_and_gradient(volume, networks.decoder, points[inside])
    sdf, gradients = sdf.masked_scatter(inside, values), gradients.masked_scatter(inside[:, None], slopes)
    sdf, gradients, inside = sdf.view(r, k), gradients.view(r, k, 3), inside.view(r, k)

    cosine = (directions[:, None] * gradients).sum(dim=-1)
    alpha = section_alpha(sdf, cosine, lengths, networks.inverse_deviation, annealing) * inside
    weights = rendering_weights(alpha)
    opacity = weights.sum(dim=-1)

    has_data = sample_volume(mask[None].to(volume.dtype), points)[:, 0] > 0
    has_data = has_data & (points.abs() < 1).all(dim=-1)
    colored = (inside & (weights.detach() > least_weight)).flatten()
    latent = sample_volume(volume, points[colored])
    cameras = origins[:, None].expand(r, k, 3).flatten(0, 1)
    blended = blend_color(networks.blending, views, points[colored], cameras[colored], latent, has_data[colored])
    colors = torch.zeros_like(points).masked_scatter(colored[:, None], blended).view(r, k, 3)
    _, visible = project_for_blending(views.affine, points, *views.images.shape[-2:])
    seen = ((visible & has_data).sum(dim=0) >= 2).view(r, k)
    norm_error = (gradients.norm(dim=-1) - 1).square()
    return PriorRendering(
        color=(colors * weights[..., None]).sum(dim=1) + (1 - opacity)[:, None],
        opacity=opacity,
        depth=(weights * depths).sum(dim=-1),
        weights=weights,
        alpha=alpha,
        sdf=sdf,
        gradients=gradients,
        inside=inside,
        depths=depths,
        lengths=lengths,
        valid=seen.sum(dim=-1) > 8,
        eikonal=(norm_error * inside).sum() / (inside.sum() + 1e-5),
    )


def nearest_mask(mask: Bool[Tensor, "x y z"], points: Float[Tensor, "n 3"]) -> Bool[Tensor, " n"]:
    """Whether a point has data: the nearest voxel's flag, False outside.

    This lookup takes the cube's *faces* as the borders of the outermost voxels, unlike `sample_volume`; the released
    renderer does so.
    """
    grid = points.flip(-1)[None, None, None]
    return F.grid_sample(mask[None, None].float(), grid, mode="nearest", align_corners=False)[0, 0, 0, 0] > 0


def jitter(depths: Float[Tensor, "r k"], generator: torch.Generator) -> Float[Tensor, "r k"]:
    """Move every depth to a random place in its own interval (stratified sampling)."""
    middle = (depths[:, 1:] + depths[:, :-1]) / 2
    lower = torch.cat([depths[:, :1], middle], dim=-1)
    upper = torch.cat([middle, depths[:, -1:]], dim=-1)
    where = torch.rand(depths.shape, generator=generator, device=generator.device).to(depths)
    return lower + (upper - lower) * where


@torch.no_grad()
def importance_depths(
    networks: CostVolumeNetworks,
    volume: Float[Tensor, "c x y z"],
    mask: Bool[Tensor, "x y z"],
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    depths: Float[Tensor, "r k"],
    importance: int,
) -> Float[Tensor, "r k2"]:
    """`depths` and `importance` more where the surface is, sorted, in four rounds of growing sharpness 64, ..., 512."""

    def at(where: Tensor) -> Tensor:
        return (origins[:, None] + directions[:, None] * where[..., None]).flatten(0, 1)

    sdf = query_sdf(volume, networks.decoder, at(depths)).view_as(depths)
    for sharpness in (64.0, 128.0, 256.0, 512.0):
        inside = nearest_mask(mask, at(depths)).view_as(depths)
        inside = inside[:, :-1] & inside[:, 1:]
        length = depths.diff(dim=-1)
        # Slope of the distance along the ray, or of the section before if that is steeper, for robustness.
        slope = sdf.diff(dim=-1) / (length + 1e-5)
        slope = torch.minimum(slope, F.pad(slope[:, :-1], (1, 0))).clamp(-10, 0) * inside
        middle, half = (sdf[:, 1:] + sdf[:, :-1]) / 2, slope * length / 2
        before, after = torch.sigmoid((middle - half) * sharpness), torch.sigmoid((middle + half) * sharpness)
        weights = rendering_weights((before - after + 1e-5) / (before + 1e-5) * inside)
        new = quantiles(depths, weights, importance // 4)

        found = nearest_mask(mask, at(new))
        new_sdf = torch.full_like(found, OUTSIDE, dtype=sdf.dtype)
        new_sdf[found] = query_sdf(volume, networks.decoder, at(new)[found])
        depths, order = torch.cat([depths, new], dim=-1).sort(dim=-1)
        sdf = torch.cat([sdf, new_sdf.view_as(new)], dim=-1).gather(1, order)
    return depths


def quantiles(borders: Float[Tensor, "r k"], weights: Float[Tensor, "r j"], count: int) -> Float[Tensor, "r n"]:
    """`count` evenly spaced quantiles of the piecewise constant density `weights` between consecutive `borders`."""
    weights = weights + 1e-5
    cdf = F.pad((weights / weights.sum(dim=-1, keepdim=True)).cumsum(dim=-1), (1, 0))
    u = torch.linspace(0.5 / count, 1 - 0.5 / count, count, device=borders.device).expand(len(borders), -1).contiguous()
    above = torch.searchsorted(cdf, u, right=True).clamp(max=cdf.shape[-1] - 1)
    below = (above - 1).clamp(min=0)
    rise = cdf.gather(1, above) - cdf.gather(1, below)
    part = (u - cdf.gather(1, below)) / torch.where(rise < 1e-5, torch.ones_like(rise), rise)
    return borders.gather(1, below) + part * (borders.gather(1, above) - borders.gather(1, below))

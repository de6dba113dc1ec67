"""R of the paper: images of a signed distance field by differentiable volume rendering."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from geodream_lib.cameras import Cameras, rays
from geodream_lib.field.background import BackgroundColor
from geodream_lib.field.cube import Field
from geodream_lib.field.sampling import Samples, sample_rays, section_length
from geodream_lib.neus import packed_weights, section_alpha
from geodream_lib.processes import draw_rows

# A colour that contributes less than this is not looked up: the loss per pixel is below this times the sections kept.
VISIBLE_WEIGHT = 1e-4
# Of a section while it is laid out, and of a sample while its gradient is on its way; the latter measured with the
# widths of One-2-3-45's decoder (hidden 128, 16 channels) and 16 levels of the plain encoding, and rounded up.
SECTION_BYTES, SAMPLE_BYTES = 64, 4096
SECTIONS = 2**18  # laid out at once, where memory allows more: smaller tensors stay in the cache


@dataclass(frozen=True)
class Rendered:
    """Images of a field.

    rgb: 0..1, over the background. opacity: 0..1. depth: mean distance of what is seen along the unit ray, in world
    units. normal: unit outward normal in the world frame. depth and normal are 0 where nothing is seen.
    """

    rgb: Float[Tensor, "n h w 3"]
    opacity: Float[Tensor, "n h w"]
    depth: Float[Tensor, "n h w"]
    normal: Float[Tensor, "n h w 3"]


def render(
    field: Field,
    cameras: Cameras,
    *,
    samples_per_ray: int,
    background: BackgroundColor,
    occupancy: Float[Tensor, "g g g"] | None = None,
    generator: torch.Generator | None = None,
    cos_anneal_ratio: float = 1.0,
    memory_gib: float = 1.0,
) -> Rendered:
    """Render a field from cameras; one backward pass reaches all of its trainable parameters.

    The gradient of the SDF enters the opacity as an analytic expression (`field.sdf_and_gradient`), so no second
    differentiation is needed.

    Args:
        samples_per_ray: sections along the cube's diagonal, 64..96 in the lab, 512 in the released configuration.
        background: colours of ray directions: `field.background`, `training_background`, `solid_background`.
        occupancy: from `occupancy_grid`; None evaluates the whole cube.
        generator: a CPU generator; shifts the sections of each ray by a random part of a section (training). None puts
            them at fixed places (evaluation).
        cos_anneal_ratio: see `section_alpha`.
        memory_gib: what the samples may take. Rays are rendered in chunks where all at once would take more, and in
            the backward pass each chunk is rendered again before its gradient goes back, so that no more than one is
            in memory. Neither the picture nor the gradient depends on it. Images, parameters and their gradients come
            on top.
    """
    budget = memory_gib * 2**30
    origins, directions = (x.reshape(-1, 3) for x in rays(cameras))
    count = origins.shape[0]
    offset = torch.full((count,), 0.5)
    if generator is not None:
        offset = draw_rows(lambda rows: torch.rand(rows, generator=generator), count, generator)
    samples = sample_rays(
        field,
        origins,
        directions,
        offset.to(origins),
        samples_per_ray=samples_per_ray,
        occupancy=occupancy,
        max_samples=int(min(SECTIONS, budget // SECTION_BYTES)),
    )
    length, chunks = section_length(field, samples_per_ray), []
    for bundle, part in split_samples(samples, count, most=max(1, int(budget // SAMPLE_BYTES))):
        run = partial(render_samples, field, origins[bundle], directions[bundle], part, length, cos_anneal_ratio)
        again = torch.is_grad_enabled() and len(part.ray) < len(samples.ray)
        chunks.append(checkpoint(run, use_reentrant=False, preserve_rng_state=False) if again else run())
    color, opacity, distance, normal = (torch.cat(column) for column in zip(*chunks, strict=True))

    image = (len(cameras), cameras.height, cameras.width)
    opacity = opacity.view(image)
    behind = background(directions.view(*image, 3))
    return Rendered(
        rgb=color.view(*image, 3) + (1 - opacity)[..., None] * behind,
        opacity=opacity,
        depth=distance.view(image) / opacity.clamp(min=1e-6),
        normal=torch.nn.functional.normalize(normal.view(*image, 3), dim=-1, eps=1e-6),
    )


def split_samples(samples: Samples, rays: int, most: int) -> Iterator[tuple[slice, Samples]]:
    """Consecutive rays with their samples, about `most` samples (and those of one ray at most beyond) at a time."""
    ends = torch.bincount(samples.ray, minlength=rays).cumsum(0)
    multiples = torch.tensor(range(most, len(samples.ray), most), dtype=ends.dtype, device=ends.device)
    edges = torch.searchsorted(ends, multiples, right=True).unique().tolist()
    first_ray = first_sample = 0
    for last_ray in [edge for edge in edges if 0 < edge < rays] + [rays]:
        last_sample = int(ends[last_ray - 1])
        part = slice(first_sample, last_sample)
        yield slice(first_ray, last_ray), Samples(samples.ray[part] - first_ray, samples.distance[part])
        first_ray, first_sample = last_ray, last_sample


def render_samples(
    field: Field,
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    samples: Samples,
    length: Float[Tensor, ""],
    cos_anneal_ratio: float,
) -> tuple[Float[Tensor, "r 3"], Float[Tensor, " r"], Float[Tensor, " r"], Float[Tensor, "r 3"]]:
    """Weighted sums of colour, one, distance and normal along every ray."""
    ray, count = samples.ray, origins.shape[0]
    along = directions[ray]
    points = torch.addcmul(origins[ray], along, samples.distance[:, None])
    sdf, gradient = field.sdf_and_gradient(points)
    alpha = section_alpha(sdf, (along * gradient).sum(-1), length, field.inverse_deviation, cos_anneal_ratio)
    weight = packed_weights(alpha, ray, count)

    seen = (weight.detach() > VISIBLE_WEIGHT).nonzero()[:, 0]
    colors = field.color(points[seen])
    color = colors.new_zeros(count, 3).index_add(0, ray[seen], weight[seen, None] * colors)
    normal = weight[:, None] * torch.nn.functional.normalize(gradient, dim=-1)
    sums = torch.cat([weight[:, None], (weight * samples.distance)[:, None], normal], dim=-1)
    sums = sums.new_zeros(count, 5).index_add(0, ray, sums)
    return color, sums[:, 0], sums[:, 1], sums[:, 2:]


def normal_colors(normals: Float[Tensor, "*b h w 3"], opacity: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b h w 3"]:
    """World normals as colours ((n+1)/2) on white."""
    return (normals / 2 + 0.5) * opacity[..., None] + (1 - opacity[..., None])

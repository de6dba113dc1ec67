"""Which points of a ray are evaluated: uniform sections of the cube, reduced to those that show in the picture."""

import functools
import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geodream_lib.cpu_kernels import cpu_kernels
from geodream_lib.field.cube import Field, cube_interval, cube_points, cube_unit, cube_vectors
from geodream_lib.field.occupancy import interpolate_occupancy
from geodream_lib.neus import lay_out, section_alpha

_compiled_kernels = functools.partial(cpu_kernels, "geodream_lib.field.sampling_kernels")

# A section whose share of the pixel is certainly below this is not evaluated.
NEGLIGIBLE = 1e-3


class Samples(NamedTuple):
    """The `k` kept sections of a bundle of rays, ordered by ray and then by distance."""

    ray: Int[Tensor, " k"]  # index of the ray
    distance: Float[Tensor, " k"]  # world distance of the section's midpoint from the ray's origin


def section_length(field: Field, samples_per_ray: int) -> Float[Tensor, ""]:
    """World length of a section: `samples_per_ray` of them span the cube's diagonal, the longest way through it."""
    return 2 * math.sqrt(3) / samples_per_ray * cube_unit(field.to_world)


@torch.no_grad()
def sample_rays(
    field: Field,
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    offset: Float[Tensor, " r"],
    *,
    samples_per_ray: int,
    occupancy: Float[Tensor, "g g g"] | None,
    max_samples: int,
) -> Samples:
    """Midpoints of equal sections between a ray's entry into the cube and its exit, where something is to be seen.

    All sections have the length `section_length`, as with the fixed step of the released renderer.

    Args:
        offset: place of each ray's first midpoint in its first section, 0..1: 0.5, or uniform for stratified sampling.
        samples_per_ray: sections along the cube's diagonal; shorter chords have proportionally fewer.
        occupancy: from `occupancy_grid`; None keeps every section inside the cube.
        max_samples: sections laid out at once.
    """
    length = section_length(field, samples_per_ray)
    near, far = cube_interval(field.to_world, origins, directions)
    hit = (near < far).nonzero()[:, 0]
    walk = occupancy is not None and origins.device.type == "cpu" and origins.dtype == torch.float32
    walk = walk and _compiled_kernels() is not None
    parts = []
    for ray in hit.split(max(1, max_samples // samples_per_ray)):
        bundle = origins[ray], directions[ray], near[ray], far[ray], offset[ray]
        keep = (walk_rays if walk else lay_out_rays)(field, *bundle, length, occupancy, samples_per_ray)
        row, column = keep.nonzero(as_tuple=True)
        row = ray[row]
        parts.append(Samples(row, near[row] + (column + offset[row]) * length))
    samples = Samples(*(torch.cat(column) for column in zip(*parts, strict=True)))
    if occupancy is None or walk:
        return samples
    visible = estimate_visible(field, origins, directions, samples, length, occupancy)
    return Samples(samples.ray[visible], samples.distance[visible])


def lay_out_rays(
    field: Field,
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    near: Float[Tensor, " r"],
    far: Float[Tensor, " r"],
    offset: Float[Tensor, " r"],
    length: Float[Tensor, ""],
    occupancy: Float[Tensor, "g g g"] | None,
    samples_per_ray: int,
) -> Bool[Tensor, "r s"]:
    """Sections inside the cube that `near_surface` keeps."""
    distance = near[:, None] + (torch.arange(samples_per_ray, device=near.device) + offset[:, None]) * length
    keep = distance < far[:, None]
    if occupancy is not None:
        keep &= near_surface(field, origins, directions, distance, length, occupancy)
    return keep


def walk_rays(
    field: Field,
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    near: Float[Tensor, " r"],
    far: Float[Tensor, " r"],
    offset: Float[Tensor, " r"],
    length: Float[Tensor, ""],
    occupancy: Float[Tensor, "g g g"],
    samples_per_ray: int,
) -> Bool[Tensor, "r s"]:
    """Sections inside the cube that `near_surface` and `estimate_visible` keep, by the compiled CPU kernel."""
    start, slope = _in_cells(field, origins, directions, occupancy.shape[0])
    keep = torch.zeros(len(origins), samples_per_ray, dtype=torch.bool)
    reach = _reach(field, length, occupancy.shape[0])
    tensors = near, far, offset, length, start, slope, occupancy, reach, field.inverse_deviation
    _compiled_kernels().keep_visible(*(x.detach().numpy()[()] for x in tensors), NEGLIGIBLE, keep.numpy())
    return keep


def _reach(field: Field, length: Float[Tensor, ""], resolution: int) -> Float[Tensor, ""]:
    """Distance from the surface within which a cell may hold something of its band (see `near_surface`)."""
    half_diagonal = math.sqrt(3) / resolution * cube_unit(field.to_world)
    return -math.log(NEGLIGIBLE) / field.inverse_deviation + length / 2 + half_diagonal


def _in_cells(
    field: Field, origins: Float[Tensor, "r 3"], directions: Float[Tensor, "r 3"], resolution: int
) -> tuple[Float[Tensor, "r 3"], Float[Tensor, "r 3"]]:
    """Rays in cells of the occupancy: coordinates are linear along a ray, so no point needs a conversion of its own."""
    start = (cube_points(field.to_world, origins) + 1) * (resolution / 2)
    return start, cube_vectors(field.to_world, directions) * (resolution / 2)


def near_surface(
    field: Field,
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    distance: Float[Tensor, "r s"],
    length: Float[Tensor, ""],
    occupancy: Float[Tensor, "g g g"],
) -> Bool[Tensor, "r s"]:
    """Sections that may touch the band around the surface, up to the first one in the solid: a table look-up each.

    Beyond -ln(NEGLIGIBLE) / s from the surface the logistic distribution of NeuS has a mass below NEGLIGIBLE. The band
    is widened by half a section (its end may be in the band when its midpoint is not) and by half a cell's diagonal (a
    cell stands for all its points, |grad sdf| <= 1). The first solid section is kept, so that a surface that changes
    faster than that is still closed.
    """
    resolution = occupancy.shape[0]
    reach = _reach(field, length, resolution)
    state = (occupancy < reach).to(torch.uint8) + (occupancy < -reach).to(torch.uint8)  # 0 empty, 1 near, 2 solid
    start, slope = _in_cells(field, origins, directions, resolution)
    cell = torch.zeros_like(distance, dtype=torch.int64)
    for axis in range(3):
        index = torch.addcmul(start[:, axis, None], slope[:, axis, None], distance).long()
        cell = cell * resolution + index.clamp_(0, resolution - 1)
    at_section = state.view(-1)[cell]
    solid = at_section == 2
    first_solid = torch.where(solid.any(1), solid.to(torch.uint8).argmax(1), distance.shape[1])
    columns = torch.arange(distance.shape[1], device=distance.device)
    return (at_section > 0) & (columns <= first_solid[:, None])


def estimate_visible(
    field: Field,
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    samples: Samples,
    length: Float[Tensor, ""],
    occupancy: Float[Tensor, "g g g"],
) -> Int[Tensor, " k"]:
    """Indices of the sections whose rendering weight may exceed NEGLIGIBLE, by the grid instead of the field.

    The weight is bounded from above: NeuS lets at most sigmoid(s d) of the light pass a point of signed distance d, and
    no section is more opaque than one that the ray crosses along the gradient.
    """
    points = torch.addcmul(origins[samples.ray], directions[samples.ray], samples.distance[:, None])
    sdf = interpolate_occupancy(occupancy, field, points)
    rows, place = lay_out(sdf, samples.ray, origins.shape[0], fill=math.inf)
    lowest = rows.cummin(dim=1).values
    before = torch.cat([torch.full_like(lowest[:, :1], math.inf), lowest[:, :-1]], dim=1)
    transmittance = torch.sigmoid(before * field.inverse_deviation).view(-1).gather(0, place)
    alpha = section_alpha(sdf, -torch.ones_like(sdf), length, field.inverse_deviation)
    return (transmittance * alpha > NEGLIGIBLE).nonzero()[:, 0]

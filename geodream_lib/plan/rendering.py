"""What rendering costs, per sample of a ray and per pixel of a mesh.

How many samples a picture needs depends on the object, so it cannot be counted without one. The constants below were
measured by `trace` on real tensors: on the field of the lab's red mushroom (48^3 voxels) with the lab's cameras, 72 to
512 samples per ray, a sharpness of 86 and of 257; and on a wavy sphere as a DMTet of 32 to 128 layers, in 128 to 512
pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geodream_lib.field import HashEncoding, NeuSField
from geodream_lib.field.render import SAMPLE_BYTES
from geodream_lib.plan.networks import learnt_sharpness, make_cost_volume_networks
from geodream_lib.plan.trace import Cost, trace
from geodream_lib.presets import Preset

# Evaluated samples per pixel, for the camera that needs most: those of the cube's diagonal that lie in the band around
# the surface, which is as wide as 1 / s, and those that close it. Right within a tenth for that mushroom; objects
# differ by more. At s = 380, where this says 2.8, the refined fields of data/prompts/twelve_prompts.txt took 1.1 (a
# giraffe) to 3.6 (a house), 2.0 on average.
BAND, CLOSING = 6.0, 1.7
# What the lab rendered at when this was measured. What One-2-3-45 learnt stands in its file, and is read where that is
# there.
ASSUMED_SHARPNESS = 257.0
# Of the evaluated samples those whose colour is looked up: 60 to 72 per cent.
COLOURED = 0.7
# Kept beside the evaluation of a sample: its ray, point, weight, and the sums they enter.
BYTES_PER_SAMPLE = 250
# Kept of a picture of a mesh: per pixel, per pixel that the mesh covers, and how many it does; and of its extraction,
# per tetrahedron of the grid, or per cube of FlexiCubes (32 to 128 of them along each axis; right within a fifth).
BYTES_PER_PIXEL, BYTES_PER_COVERED, COVERED = 250, 550, 0.5
BYTES_PER_TETRAHEDRON, BYTES_PER_CUBE = 25, 165


@dataclass(frozen=True)
class FieldCost:
    """parameters: trained ones (volume, encoding, texture, background). volume, table: those of the volume, and of the
    encoding.
    sample, colour: of one evaluated sample, and of one whose colour is looked up; arithmetic of both passes, and `kept`
    the bytes that the second needs. forward: arithmetic of the first pass alone, per evaluated sample."""

    parameters: int
    volume: int
    table: int
    sample: Cost
    colour: Cost
    forward: float


def field_cost(preset: Preset) -> FieldCost:
    """Of the field that a preset refines, in plain PyTorch (with tinycudann the encoding keeps less).

    Raises:
        InputError: a local network of the preset is not there.
    """
    settings, resolution, n = preset.field, preset.volume.refined_resolution, 1024
    decoder = make_cost_volume_networks(preset.cost_volume).decoder
    channels = decoder.lin1.weight_v.shape[1] - decoder.hidden
    volume = torch.empty(channels, resolution, resolution, resolution, device="meta")
    with torch.device("meta"):
        encoding = HashEncoding(settings.levels, 2, settings.log2_table, settings.base_resolution, settings.growth)
    field = NeuSField(volume, decoder, 1.0, encoding, color_from_position=settings.color_from_position).to("meta")
    points = torch.empty(n, 3, device="meta")

    def per_point(query: Callable[[], Sequence[Tensor]]) -> tuple[Cost, float]:
        forward = trace(query)
        both = trace(lambda: sum(result.sum() for result in query()).backward())
        return Cost(both.flops / n, forward.peak / n, forward.kept / n), forward.flops / n

    sample, sample_forward = per_point(lambda: field.sdf_and_gradient(points))
    colour, colour_forward = per_point(lambda: [field.color(points)])
    return FieldCost(
        parameters=sum(p.numel() for group in field.parameter_groups().values() for p in group),
        volume=volume.numel(),
        table=encoding.table.numel(),
        sample=sample,
        colour=colour,
        forward=sample_forward + COLOURED * colour_forward,
    )


def samples_per_pixel(preset: Preset) -> float:
    """Samples that NeuS evaluates at the preset's samples per ray and sharpness."""
    return BAND * preset.field.samples_per_ray / sharpness(preset) + CLOSING


def sharpness(preset: Preset) -> float:
    """The s that NeuS renders with."""
    learnt = learnt_sharpness(preset.cost_volume)
    return ASSUMED_SHARPNESS if learnt is None else learnt * preset.field.sharpening


def neus_cost(field: FieldCost, samples: float, memory_gib: float) -> Cost:
    """Of a picture with so many evaluated samples and the way back from it; what it keeps is its peak.

    Where the samples would take more than `memory_gib`, they are evaluated twice, chunk by chunk (see `render`).
    """
    kept = samples * (field.sample.kept + COLOURED * field.colour.kept + BYTES_PER_SAMPLE)
    flops = samples * (field.sample.flops + COLOURED * field.colour.flops)
    if samples * SAMPLE_BYTES > memory_gib * 2**30:
        kept, flops = min(kept, memory_gib * 2**30), flops + samples * field.forward
    kept += _table_gradients(field)
    return Cost(flops, kept, kept)


@dataclass(frozen=True)
class GridCost:
    """Of the surface in a grid. what: its name. parameters: trained ones. held: bytes of the grid itself. extraction:
    bytes kept of a mesh."""

    what: str
    parameters: int
    held: int
    extraction: int


def grid_cost(surface: str, resolution: int) -> GridCost:
    """Of the surface that a setting `mesh.surface` names."""
    if surface == "flexicubes":
        vertices, cubes = (resolution + 1) ** 3, resolution**3
        return GridCost("FlexiCubes", 4 * vertices + 21 * cubes, vertices * (3 * 4 + 1), cubes * BYTES_PER_CUBE)
    vertices, tetrahedra = grid_size(resolution)
    held = vertices * (3 * 4 + 1) + tetrahedra * 4 * 8
    return GridCost("DMTet", 4 * vertices, held, tetrahedra * BYTES_PER_TETRAHEDRON)


def normals_cost(pixels: float, grid: GridCost) -> Cost:
    """Of a normal map of the surface in a grid, and back; none of it is a matrix product."""
    kept = grid.extraction + pixels * BYTES_PER_PIXEL
    return Cost(0, kept, kept)


def texture_cost(field: FieldCost, pixels: float) -> Cost:
    """Of a picture of a mesh coloured by the texture field, and back."""
    covered = pixels * COVERED
    kept = covered * (field.colour.kept + BYTES_PER_COVERED) + _table_gradients(field)
    return Cost(covered * field.colour.flops, kept, kept)


def grid_size(resolution: int) -> tuple[int, int]:
    """Vertices and tetrahedra of `mesh.tetrahedra.tetrahedral_grid`."""
    cubes = resolution // 2
    return (cubes + 1) ** 3 + cubes**3, 12 * cubes**3


def _table_gradients(field: FieldCost) -> float:
    """On the way back every level makes a gradient of the whole table, which is added to that of the others."""
    return 2 * 4 * field.table

"""A run as rows of a plan: its views, its volume, and the three optimisations under the 2D prior."""

import math
from collections.abc import Callable

import torch

from geodream_lib.plan.distillation import distillation_cost
from geodream_lib.plan.networks import count_parameters, make_cost_volume_networks, weight_bytes
from geodream_lib.plan.rendering import (
    field_cost,
    grid_cost,
    neus_cost,
    normals_cost,
    samples_per_pixel,
    texture_cost,
)
from geodream_lib.plan.step import Step
from geodream_lib.plan.trace import Cost, meta, trace
from geodream_lib.plan.views import view_steps
from geodream_lib.presets import Preset, Refine
from geodream_lib.views import pose_cameras
from geodream_lib.views.sources import viewpoints
from geodream_lib.volume import CostVolume, resize_volume
from geodream_lib.volume.features import fuse_pyramid
from geodream_lib.volume.mesh import sdf_grid
from geodream_lib.volume.projection import affine_matrices, aggregate_views, project_features, voxel_positions
from geodream_lib.volume.sparse_conv import to_dense

# A number that is trained is there in float32, and so are its gradient and Adam's two moments.
TRAINED_BYTES = 4 * 4


def make_plan(preset: Preset, image: bool = False) -> list[Step]:
    """Every step of a run with `preset`, from a prompt or from an image; nothing is loaded or computed.

    Raises:
        InputError: a local network of the preset is not there.
    """
    return [*view_steps(preset, image), volume_step(preset, image), *distilled_steps(preset)]


@torch.no_grad()
def volume_step(preset: Preset, image: bool) -> Step:
    """Stage 2, as if every voxel were seen; and the mesh of the volume."""
    settings, views = preset.volume, preset.views
    networks = make_cost_volume_networks(preset.cost_volume)
    poses = viewpoints(views, not image and views.reference == "mvdream", torch.Generator())
    cameras = pose_cameras(poses, 0.0, views.radius, views.fov_y, views.size)
    images = meta(len(cameras), 3, views.size, views.size).contiguous(memory_format=torch.channels_last)
    affine, resolution = affine_matrices(cameras).to("meta"), settings.resolution
    seen = torch.ones(resolution, resolution, resolution, dtype=torch.bool)
    sampled = min(settings.mesh_resolution, 50)  # the mesh takes its samples in parts of about 50^3

    def build() -> CostVolume:
        compressed = networks.compress(fuse_pyramid(*networks.feature_net(images)))
        parts = voxel_positions(resolution, "meta").split(1 << 15)
        rows = torch.cat([aggregate_views(*project_features(compressed, affine, part))[0] for part in parts])
        volume = to_dense(networks.regularizer(rows, seen), seen)[0]
        return resize_volume(CostVolume(volume, seen.to("meta"), meta(4, 4)), settings.refined_resolution)

    built = trace(build)
    channels = networks.decoder.lin1.weight_v.shape[1] - networks.decoder.hidden
    volume = CostVolume(meta(channels, *seen.shape), seen.to("meta"), meta(4, 4))
    mesh = trace(lambda: sdf_grid(volume, networks.decoder, sampled))
    flops = built.flops + mesh.flops * (settings.mesh_resolution / sampled) ** 3
    sizes = f"{len(poses)} views, {views.size} px, {resolution}^3 voxels"
    memory = weight_bytes(networks) + max(built.peak, built.kept + mesh.peak)
    return Step("volume", "cost volume", 1, sizes, count_parameters(networks), flops, flops, memory)


def distilled_steps(preset: Preset) -> list[Step]:
    """Stages 3 and 4: the field, the shape of its mesh, and the colours of that."""
    field, samples, mesh = field_cost(preset), samples_per_pixel(preset), preset.mesh
    grid = grid_cost(mesh.surface, mesh.grid_resolution)
    held = 4 * field.parameters  # the refined field is there while its mesh is
    colours = field.parameters - field.volume
    return [
        _distilled(
            preset,
            preset.refine,
            "refine",
            "NeuS",
            field.parameters,
            0,
            lambda p: neus_cost(field, p * samples, preset.field.memory_gib),
        ),
        _distilled(
            preset,
            mesh.geometry,
            "geometry",
            grid.what,
            grid.parameters,
            held + grid.held,
            lambda p: normals_cost(p, grid),
        ),
        _distilled(preset, mesh.texture, "texture", "mesh", colours, held, lambda p: texture_cost(field, p)),
    ]


def _distilled(
    preset: Preset, refine: Refine, stage: str, what: str, trained: int, fixed: int, render: Callable[[float], Cost]
) -> Step:
    """One optimisation: a picture, the answer of the 2D prior, and the way back.

    At its peak the networks, what is trained, the picture's graph and `fixed` bytes are there, and the prior is at its
    own peak. `render` gives the cost of so many pixels.
    """
    size, batch = refine.size.scaled(refine.steps), refine.batch_size
    pixels = [batch * round(size.value(step)) ** 2 for step in range(refine.steps)]
    prior, largest, mean = distillation_cost(preset, refine.guidance), render(max(pixels)), sum(pixels) / len(pixels)
    asked = batch * prior.image.flops
    memory = prior.weights + (trained + prior.trained) * TRAINED_BYTES + fixed + largest.kept + batch * prior.image.peak
    return Step(
        stage,
        f"{refine.guidance.kind.upper()} on {what}",
        refine.steps,
        f"{batch} x {round(math.sqrt(max(pixels) / batch))} px, seen at {prior.size}",
        prior.parameters + prior.trained + trained,
        asked + largest.flops,
        refine.steps * (asked + render(mean).flops),
        memory,
    )

"""Fields, meshes and cost volumes mix no devices."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from geodream_lib.cameras import Cameras, orbit, rays
from geodream_lib.field import occupancy_grid, render, solid_background, training_background
from geodream_lib.mesh import (
    DMTet,
    FlexiCubes,
    TexturedMesh,
    bake_texture,
    normal_consistency,
    remove_floaters,
    render_normals,
    render_textured_mesh,
    uniform_laplacian,
    unwrap,
)
from geodream_lib.volume import CostVolumeNetworks, build_cost_volume, resize_volume, volume_mesh
from geodream_lib.volume.blending import SourceViews
from geodream_lib.volume.cost_volume import predict_volume
from geodream_lib.volume.prior_render import render_prior
from geodream_lib.volume.projection import affine_matrices


def small_cameras() -> Cameras:
    return orbit([20.0, 200.0], [15.0, -35.0], 2.8, 40.0, 16)


def gradients(module: nn.Module, loss: Tensor) -> list[Tensor]:
    loss.backward()
    return [p.grad for p in module.parameters() if p.grad is not None]


@pytest.mark.parametrize("training", [True, False])
def test_field(both: Callable, small_field: Callable, training: bool) -> None:
    def compute(device: str) -> list:
        field, cameras = small_field().to(device), small_cameras().to(device)
        generator = torch.Generator().manual_seed(1) if training else None
        white = solid_background(torch.ones(3))
        background = training_background(field.background, 0.5, generator) if training else white
        seen = render(
            field,
            cameras,
            samples_per_ray=24,
            background=background,
            occupancy=occupancy_grid(field, resolution=12),
            generator=generator,
        )
        without = render(field, cameras, samples_per_ray=8, background=field.background)
        loss = (seen.rgb.square().mean() + seen.depth.mean() + seen.normal.sum() + without.rgb.sum()) * 0.1
        points = torch.rand(50, 3).to(device)
        return [*vars(seen).values(), field.sdf(points), field.normal(points), *gradients(field, loss)]

    both(compute)


@pytest.mark.parametrize("kind", [DMTet, FlexiCubes])
def test_mesh_from_a_field(both: Callable, small_field: Callable, kind: type[DMTet] | type[FlexiCubes]) -> None:
    def compute(device: str) -> list:
        surface = kind.from_sdf(small_field().to(device).sdf, 8, device)
        vertices, faces, deviation = surface.mesh_with_deviation()
        normals = render_normals(small_cameras().to(device), vertices, faces, vertices.new_zeros(2, 3))
        loss = normals.sum() + normal_consistency(vertices, faces) + uniform_laplacian(vertices, faces) + deviation
        clean = remove_floaters(vertices.detach(), faces)
        return [vertices, faces, normals, *clean, *gradients(surface, loss), *surface.eval().mesh()]

    both(compute, atol=1e-3)


def test_texture_of_a_mesh(both: Callable, small_field: Callable) -> None:
    def compute(device: str) -> list:
        field = small_field().to(device)
        vertices, faces = DMTet.from_sdf(field.sdf, 6, device).mesh()
        vmap, new_faces, uvs = unwrap(vertices, faces, 64, 2)
        texture = bake_texture(vertices[vmap], new_faces, uvs, field.color, 64)
        mesh = TexturedMesh(vertices[vmap].detach(), new_faces, uvs, texture)
        drawn = render_textured_mesh(small_cameras().to(device), mesh, torch.ones(2, 3, device=device))
        return [texture, drawn]

    both(compute)


def test_cost_volume(both: Callable) -> None:
    networks = CostVolumeNetworks(hidden=16).eval()
    images = torch.rand(3, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    cameras = orbit([0.0, 50.0, 100.0], [10.0, 30.0, -10.0], 2.75, 40.0, 32)

    def compute(device: str) -> list:
        on_device = copy.deepcopy(networks).to(device)
        volume = build_cost_volume(images.to(device), cameras.to(device), on_device, 8)
        volume_mesh(volume, on_device.decoder, 12)
        return [volume.volume, volume.mask, volume.to_world, resize_volume(volume, 6).volume]

    both(compute)


def test_cost_volume_learns(both: Callable) -> None:
    """The prior's own renderings, eq. 4."""
    networks = CostVolumeNetworks(hidden=16)

    def compute(device: str) -> list:
        on_device, generator = copy.deepcopy(networks).to(device).train(), torch.Generator().manual_seed(0)
        images = torch.rand(3, 3, 32, 32).to(device)
        cameras = orbit([0.0, 50.0, 100.0], [10.0, 30.0, -10.0], 2.75, 40.0, 32).to(device)
        affine = affine_matrices(cameras)
        volume, mask, features = predict_volume(on_device, images, affine, 8)
        sources = SourceViews(images, features, affine, cameras.positions)
        origins, directions = (x.reshape(-1, 3)[::40] for x in rays(cameras))
        rendered = render_prior(on_device, volume, mask, sources, origins, directions, 1.75, 3.75, 0.5, 8, 8, generator)
        loss = rendered.color.square().mean() + 0.1 * rendered.eikonal + rendered.depth.mean()
        return [rendered.color, rendered.valid, *gradients(on_device, loss)]

    both(compute, atol=1e-3)

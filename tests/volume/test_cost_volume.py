"""Eqs. 1 and 6: what the views say about a voxel, and the artifact that holds it."""

import math
from pathlib import Path

import pytest
import torch

from geodream_lib.cameras import Cameras, orbit, project, rays
from geodream_lib.errors import InputError
from geodream_lib.volume import (
    CostVolume,
    CostVolumeNetworks,
    build_cost_volume,
    load_cost_volume_networks,
    predict_volume,
    resize_volume,
    save_cost_volume_networks,
)
from geodream_lib.volume.projection import affine_matrices, aggregate_views, project_features, project_points


@pytest.fixture(scope="module")
def cameras() -> Cameras:
    return orbit([0.0, 80.0, 170.0, 260.0], [10.0, 30.0, -10.0, 20.0], 2.75, 40.0, 32)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(4, 32, 32, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def networks() -> CostVolumeNetworks:
    torch.manual_seed(0)
    return CostVolumeNetworks(hidden=32).eval()


def test_variance_does_not_depend_on_the_order_of_views() -> None:
    generator = torch.Generator().manual_seed(0)
    sampled = torch.randn(6, 50, 8, generator=generator)
    visible = torch.rand(6, 50, generator=generator) > 0.4
    order = torch.randperm(6, generator=generator)
    value, keep = aggregate_views(sampled, visible)
    permuted, same_keep = aggregate_views(sampled[order], visible[order])
    torch.testing.assert_close(permuted, value)
    assert torch.equal(same_keep, keep)


def test_variance_comes_first_and_is_zero_when_views_agree() -> None:
    feature = torch.rand(1, 20, 3)
    aggregated, _ = aggregate_views(feature.expand(5, -1, -1), torch.ones(5, 20, dtype=torch.bool))
    torch.testing.assert_close(aggregated[:, 3:], feature[0], atol=1e-5, rtol=1e-5)
    assert aggregated[:, :3].abs().max() < 1e-5


def test_a_voxel_that_one_view_sees_is_dropped() -> None:
    visible = torch.tensor([[True, True, False], [False, True, False], [False, False, False]])
    assert aggregate_views(torch.ones(3, 3, 2), visible)[1].tolist() == [False, True, False]


def test_volume_does_not_depend_on_the_order_of_views(
    networks: CostVolumeNetworks, images: torch.Tensor, cameras: Cameras
) -> None:
    order = [2, 0, 3, 1]
    volume = build_cost_volume(images, cameras, networks, 12)
    shuffled = build_cost_volume(images[order], cameras[order], networks, 12)
    torch.testing.assert_close(shuffled.volume, volume.volume, atol=1e-4, rtol=1e-4)


def test_volume_does_not_depend_on_what_was_built_before(
    networks: CostVolumeNetworks, images: torch.Tensor, cameras: Cameras
) -> None:
    first = build_cost_volume(images, cameras, networks, 12)
    build_cost_volume(1 - images, cameras, networks, 12)
    assert torch.equal(build_cost_volume(images, cameras, networks, 12).volume, first.volume)


def test_running_statistics_are_kept_in_training_only(images: torch.Tensor, cameras: Cameras) -> None:
    networks = CostVolumeNetworks(hidden=32).train()
    before = networks.feature_net.conv0[0].bn.running_mean.clone()
    arguments = (images.permute(0, 3, 1, 2), affine_matrices(cameras), 8)
    predict_volume(networks, *arguments)
    assert not torch.equal(networks.feature_net.conv0[0].bn.running_mean, before)
    with torch.no_grad():
        batch, running = (predict_volume(networks.eval(), *arguments, s)[0] for s in ("batch", "running"))
    assert not torch.allclose(batch, running)


def test_both_normalisations_can_be_chosen(
    networks: CostVolumeNetworks, images: torch.Tensor, cameras: Cameras
) -> None:
    """As released by default, with the statistics of the given views."""
    default, batch, running = (
        build_cost_volume(images, cameras, networks, 12, **chosen).volume
        for chosen in ({}, {"statistics": "batch"}, {"statistics": "running"})
    )
    assert torch.equal(default, batch)
    arguments = (images.permute(0, 3, 1, 2), affine_matrices(cameras), 12, "running")
    with torch.no_grad():
        torch.testing.assert_close(running, predict_volume(networks, *arguments)[0])
    assert not torch.allclose(running, batch, atol=1e-2)


def test_affine_matrices_agree_with_the_projection_of_cameras(cameras: Cameras) -> None:
    """Half a pixel apart: centres of pixels are at +0.5 in cameras and at integers in affine matrices."""
    points = torch.rand(40, 3) * 1.6 - 0.8
    scaled, depth = project_points(affine_matrices(cameras), points, 32, 32)
    expected, expected_depth = project(cameras, points)
    torch.testing.assert_close((scaled + 1) / 2 * 31 + 0.5, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(depth, expected_depth, atol=1e-4, rtol=1e-4)


def test_views_of_a_sphere_agree_on_its_surface() -> None:
    """Features painted from a smooth function of the surface point are the same in every view that faces it."""
    cameras = orbit([0.0, 25.0, -25.0], 0.0, 2.75, 40.0, 64)
    direction = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0, 0.1], [1.0, 0.1, -0.1], [1.0, -0.1, 0.0]]))
    points = 0.6 * direction
    features = torch.stack([paint_sphere(cameras[i], 0.6) for i in range(3)])
    sampled, visible = project_features(features, affine_matrices(cameras), points)
    assert visible.all()
    torch.testing.assert_close(sampled, points.expand(3, -1, -1), atol=5e-3, rtol=0)
    variance = aggregate_views(sampled, visible)[0][:, :3]
    off_surface = project_features(features, affine_matrices(cameras), 0.2 * direction)
    assert variance.max() < 0.01 * aggregate_views(*off_surface)[0][:, :3].max()


def paint_sphere(camera: Cameras, radius: float) -> torch.Tensor:
    """Positions of a sphere's visible surface as a [3, h, w] image, zero beside it."""
    origins, directions = rays(camera)
    along = (origins * directions).sum(dim=-1)
    inside = along.square() - origins.square().sum(dim=-1) + radius**2
    depth = -along - inside.clamp(min=0).sqrt()
    return ((origins + depth[..., None] * directions) * (inside > 0)[..., None])[0].permute(2, 0, 1)


def test_cost_volume_survives_saving(
    tmp_path: Path, networks: CostVolumeNetworks, images: torch.Tensor, cameras: Cameras
) -> None:
    to_world = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0]))
    volume = build_cost_volume(images, cameras, networks, 12, to_world)
    volume.save(tmp_path / "volume.safetensors", {"seed": "1"})
    loaded = CostVolume.load(tmp_path / "volume.safetensors")
    assert torch.equal(loaded.volume, volume.volume)
    assert torch.equal(loaded.mask, volume.mask)
    assert torch.equal(loaded.to_world, to_world)
    # Channels-last storage: samples are read without a copy.
    assert loaded.volume.permute(1, 2, 3, 0).is_contiguous()
    assert volume.volume.permute(1, 2, 3, 0).is_contiguous()


def test_resizing_keeps_the_mask_and_the_layout(
    networks: CostVolumeNetworks, images: torch.Tensor, cameras: Cameras
) -> None:
    volume = build_cost_volume(images, cameras, networks, 12)
    large = resize_volume(volume, 24)
    assert torch.equal(large.mask, volume.mask.repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert large.volume.permute(1, 2, 3, 0).is_contiguous()


def test_networks_survive_saving(tmp_path: Path, networks: CostVolumeNetworks) -> None:
    path = tmp_path / "networks.safetensors"
    save_cost_volume_networks(path, networks, {"trained": "never"})
    loaded = load_cost_volume_networks(path)
    assert loaded.decoder.hidden == networks.decoder.hidden
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in networks.state_dict().items())
    assert math.isclose(loaded.inverse_deviation.item(), math.exp(2.0), rel_tol=1e-5)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_broken_files_are_named(tmp_path: Path, networks: CostVolumeNetworks, suffix: str) -> None:
    path = tmp_path / f"networks{suffix}"
    with pytest.raises(InputError, match="missing"):
        load_cost_volume_networks(path)
    whole = tmp_path / "whole.safetensors"
    save_cost_volume_networks(whole, networks)
    if suffix == ".pth":
        torch.save({"pyramid_feature_network": networks.feature_net.state_dict()}, path)
        with pytest.raises(InputError, match="not a One-2-3-45"):
            load_cost_volume_networks(path)
        content = path.read_bytes()
    else:
        content = whole.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="truncated"):
        load_cost_volume_networks(path)
    path.write_bytes(b"hello")
    with pytest.raises(InputError, match="cannot read"):
        load_cost_volume_networks(path)


def test_a_cost_volume_is_not_a_checkpoint(tmp_path: Path, networks: CostVolumeNetworks) -> None:
    volume = CostVolume(torch.zeros(4, 3, 3, 3), torch.ones(3, 3, 3, dtype=torch.bool), torch.eye(4))
    volume.save(tmp_path / "volume.safetensors")
    save_cost_volume_networks(tmp_path / "networks.safetensors", networks)
    with pytest.raises(InputError, match="not a One-2-3-45"):
        load_cost_volume_networks(tmp_path / "volume.safetensors")
    with pytest.raises(InputError, match="not a cost volume"):
        CostVolume.load(tmp_path / "networks.safetensors")


def test_a_missing_weight_is_named(tmp_path: Path, networks: CostVolumeNetworks) -> None:
    state = {"sdf_network_lod0": {f"sdf_layer.{n}": v for n, v in networks.decoder.state_dict().items()}}
    torch.save(state, tmp_path / "partial.pth")
    with pytest.raises(InputError, match="missing"):
        load_cost_volume_networks(tmp_path / "partial.pth")


def test_views_must_fit_cameras_and_overlap(
    networks: CostVolumeNetworks, images: torch.Tensor, cameras: Cameras
) -> None:
    with pytest.raises(InputError, match="one camera per image"):
        build_cost_volume(images[:3], cameras, networks, 8)
    away = Cameras(cameras.c2w.clone(), cameras.intrinsics, 32, 32)
    away.c2w[:, :3, 3] += 100
    with pytest.raises(InputError, match="two views"):
        build_cost_volume(images, away, networks, 8)
    with pytest.raises(InputError, match="multiples of 4"):
        build_cost_volume(images[:, :30, :30], Cameras(cameras.c2w, cameras.intrinsics, 30, 30), networks, 8)

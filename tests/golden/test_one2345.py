"""Stage 2 against outputs of the released One-2-3-45 and GeoDream code on random weights and views."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from geodream_lib.cameras import Cameras, opengl_to_opencv
from geodream_lib.neus import section_alpha
from geodream_lib.volume import CostVolumeNetworks, load_cost_volume_networks, predict_volume
from geodream_lib.volume.blending import SourceViews
from geodream_lib.volume.cost_volume import CostVolume, resize_volume
from geodream_lib.volume.decoder import query_sdf_and_gradient
from geodream_lib.volume.features import fuse_pyramid
from geodream_lib.volume.normalize import normalize_cameras, ray_bounds
from geodream_lib.volume.prior_render import nearest_mask, render_prior, render_sections
from geodream_lib.volume.projection import affine_matrices, aggregate_views, project_features, voxel_positions
from geodream_lib.volume.sample import sample_volume, sample_volume_with_jacobian
from geodream_lib.volume.sparse_conv import strided_sites

MODES = {"train": "batch", "eval": "running"}


def load(path: Path) -> dict[str, Tensor]:
    with np.load(path) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files if file[name].dtype.kind != "U"}


def assert_close(value: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Largest difference relative to the largest expected magnitude (at least 1)."""
    error = (value - expected).abs().max() / expected.abs().max().clamp(min=1)
    assert value.shape == expected.shape
    assert error < tolerance, f"relative error {error:.2g}"


def number_in_name(data: dict[str, Tensor], pattern: str) -> int:
    """The number in the name of the one entry that fits."""
    (found,) = filter(None, (re.fullmatch(pattern, name) for name in data))
    return int(found[1])


@pytest.fixture(scope="module")
def folder(golden: Path) -> Path:
    return golden / "one2345"


@pytest.fixture(scope="module")
def inputs(folder: Path) -> dict[str, Tensor]:
    return load(folder / "inputs.npz")


@pytest.fixture(scope="module")
def outputs(folder: Path) -> dict[str, Tensor]:
    return load(folder / "outputs.npz")


@pytest.fixture(scope="module")
def networks(folder: Path) -> CostVolumeNetworks:
    return load_cost_volume_networks(folder / "ckpt_215000_fixture.safetensors")


@pytest.fixture(scope="module")
def images(inputs: dict[str, Tensor]) -> Tensor:
    return inputs["images_u8"].float() / 255


@pytest.fixture(scope="module")
def built(networks: CostVolumeNetworks, inputs: dict[str, Tensor], images: Tensor) -> dict[str, tuple]:
    """Volume, mask and fused features by mode, without gradients as at inference."""
    resolution = int(inputs["vol_dims"][0])
    with torch.no_grad():
        return {m: predict_volume(networks, images, inputs["affine_mats"], resolution, s) for m, s in MODES.items()}


def test_pth_and_safetensors_are_the_same_checkpoint(folder: Path, networks: CostVolumeNetworks) -> None:
    other = load_cost_volume_networks(folder / "ckpt_215000_fixture.pth").state_dict()
    assert all(torch.equal(other[name], tensor) for name, tensor in networks.state_dict().items())


def test_feature_pyramid(networks: CostVolumeNetworks, images: Tensor, outputs: dict[str, Tensor]) -> None:
    with torch.no_grad():
        pyramid = networks.feature_net(images, "running")
    for level, features in zip((2, 1, 0), pyramid, strict=True):
        assert_close(features[0], outputs[f"eval/pyramid{level}_view0"], 1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_fused_features(
    mode: str, built: dict[str, tuple], inputs: dict[str, Tensor], outputs: dict[str, Tensor]
) -> None:
    fused = built[mode][2]
    y, x = inputs["pixels_yx"].unbind(-1)
    assert_close(fused[:, :, y, x], outputs[f"{mode}/fused_at_pixels"], 1e-5)
    assert_close(fused.mean(dim=(2, 3)), outputs[f"{mode}/fused_channel_mean"], 1e-5)
    assert_close(fused.std(dim=(2, 3)), outputs[f"{mode}/fused_channel_std"])


@pytest.mark.parametrize("mode", MODES)
def test_projection_and_aggregation(
    mode: str,
    networks: CostVolumeNetworks,
    images: Tensor,
    inputs: dict[str, Tensor],
    outputs: dict[str, Tensor],
) -> None:
    with torch.no_grad():
        fused = fuse_pyramid(*networks.feature_net(images, MODES[mode]))
        compressed = networks.compress(fused, MODES[mode])
    points = voxel_positions(int(inputs["vol_dims"][0]))
    sampled, visible = project_features(compressed, inputs["affine_mats"], points)
    aggregated, keep = aggregate_views(sampled, visible)
    assert torch.equal(visible.sum(dim=0), outputs["visible_view_count"].flatten().long())
    assert torch.equal(keep, outputs["valid_mask_volume"].flatten().bool())

    rows = outputs["sel_voxel_rows"]
    assert torch.equal(keep.nonzero()[rows, 0], flat(outputs["sel_voxel_ijk"], outputs["valid_mask_volume"].shape))
    assert torch.equal(visible[:, keep][:, rows].T, outputs["backproj_mask"].bool())
    assert_close(sampled[:, keep][:, rows].transpose(0, 1), outputs[f"{mode}/backproj_feature"])
    assert_close(aggregated[keep][outputs["agg_rows"]], outputs[f"{mode}/aggregated_var_mean"])
    assert_close(aggregated[keep].mean(dim=0), outputs[f"{mode}/aggregated_channel_mean"])
    assert_close(aggregated[keep].std(dim=0), outputs[f"{mode}/aggregated_channel_std"])


def flat(ijk: Tensor, shape: torch.Size) -> Tensor:
    i, j, k = ijk.long().unbind(-1)
    return (i * shape[1] + j) * shape[2] + k


def test_sites_of_every_stage(outputs: dict[str, Tensor]) -> None:
    sites = outputs["valid_mask_volume"].bool()
    counts = {name: int(outputs[f"stage/{name}_num_active"]) for name in ("conv0", "conv1", "conv3", "conv5")}
    assert sites.sum() == counts["conv0"]
    for level, name in enumerate(("conv1", "conv3", "conv5"), start=1):
        sites = strided_sites(sites)
        assert sites.sum() == counts[name]
        assert torch.equal(sites.nonzero() * 2**level, outputs[f"stage/{name}_coords"].long())


@pytest.mark.parametrize("mode", MODES)
def test_outputs_of_every_stage(
    mode: str,
    networks: CostVolumeNetworks,
    images: Tensor,
    inputs: dict[str, Tensor],
    outputs: dict[str, Tensor],
) -> None:
    """Channel statistics after each of the ten sparse layers, and sampled rows where the fixture has them."""
    seen: dict[str, Tensor] = {}
    hooks = [
        block.register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out))
        for name, block in networks.regularizer.named_children()
    ]
    with torch.no_grad():
        predict_volume(networks, images, inputs["affine_mats"], int(inputs["vol_dims"][0]), MODES[mode])
    for hook in hooks:
        hook.remove()
    for name, rows in seen.items():
        assert len(rows) == int(outputs[f"stage/{name}_num_active"])
        if f"{mode}/stage_{name}_channel_mean" in outputs:
            assert_close(rows.mean(dim=0), outputs[f"{mode}/stage_{name}_channel_mean"])
            assert_close(rows.std(dim=0), outputs[f"{mode}/stage_{name}_channel_std"])
        if f"{mode}/stage_{name}_sample" in outputs:
            sites = outputs["valid_mask_volume"].bool()
            stride = int(outputs[f"stage/{name}_stride"][0])
            for _ in range(stride.bit_length() - 1):
                sites = strided_sites(sites)
            row_of = torch.full(sites.shape, -1).masked_scatter(sites, torch.arange(len(rows)))
            i, j, k = (outputs[f"stage/{name}_sample_coords"].long() // stride).unbind(-1)
            assert_close(rows[row_of[i, j, k]], outputs[f"{mode}/stage_{name}_sample"])


@pytest.mark.parametrize("mode", MODES)
def test_regularized_volume(mode: str, built: dict[str, tuple], outputs: dict[str, Tensor]) -> None:
    volume, mask, _ = built[mode]
    rows = volume.permute(1, 2, 3, 0)[mask]
    assert torch.equal(mask, outputs["valid_mask_volume"].bool())
    assert_close(rows, outputs[f"{mode}/dense_volume_valid_voxels"])
    assert volume.permute(1, 2, 3, 0)[~mask].abs().max() == 0


@pytest.mark.parametrize("mode", MODES)
def test_sdf_and_gradient(
    mode: str,
    built: dict[str, tuple],
    networks: CostVolumeNetworks,
    inputs: dict[str, Tensor],
    outputs: dict[str, Tensor],
) -> None:
    volume, points = built[mode][0], inputs["points"]
    with torch.no_grad():
        latent = sample_volume(volume, points)
        sdf, features = networks.decoder(points, latent)
        same_sdf, gradient = query_sdf_and_gradient(volume, networks.decoder, points)
    expected = outputs[f"{mode}/sdf_feature_first100"]
    assert_close(latent, outputs[f"{mode}/latent"])
    assert_close(sdf[:, None], outputs[f"{mode}/sdf"])
    assert_close(same_sdf, sdf, 1e-5)
    assert_close(features[: len(expected)], expected)
    assert_close(gradient, outputs[f"{mode}/sdf_gradient"])


def test_sdf_on_the_voxel_grid(
    built: dict[str, tuple], networks: CostVolumeNetworks, inputs: dict[str, Tensor], outputs: dict[str, Tensor]
) -> None:
    """The released grid query decodes each voxel's own feature, without interpolation (zero at the cube's faces)."""
    volume, mask, _ = built["eval"]
    with torch.no_grad():
        rows = volume.permute(1, 2, 3, 0).flatten(0, 2)
        sdf = networks.decoder(voxel_positions(int(inputs["vol_dims"][0])), rows)[0].view(mask.shape)
    step = number_in_name(outputs, r"eval/sdf_volume_strided(\d+)")
    expected = outputs[f"eval/sdf_volume_strided{step}"]
    assert_close(torch.where(mask, sdf, 1.0)[::step, ::step, ::step], expected)


def test_resized_volume_and_its_alpha(
    built: dict[str, tuple], networks: CostVolumeNetworks, inputs: dict[str, Tensor], outputs: dict[str, Tensor]
) -> None:
    """GeoDream's stage 1 on the resized volume: signed distance, alpha, and alpha's gradient to the volume."""
    volume, mask, _ = built["eval"]
    size = number_in_name(outputs, r"geodream/vol(\d+)_ijk")
    big = resize_volume(CostVolume(volume, mask, torch.eye(4)), size).volume
    i, j, k = outputs[f"geodream/vol{size}_ijk"].long().unbind(-1)
    assert_close(big[:, i, j, k].T, outputs[f"geodream/vol{size}_sample"])

    points, directions, lengths = inputs["points"], inputs["dirs"], inputs["dists"][:, 0]
    stored = big.detach().permute(1, 2, 3, 0).contiguous().requires_grad_()
    latent_volume = stored.permute(3, 0, 1, 2)
    sdf, gradient = query_sdf_and_gradient(latent_volume, networks.decoder, points)
    assert_close(sdf[:, None].detach(), outputs["geodream/sdf"])
    assert_close(gradient.detach(), outputs["geodream/gradient"])
    assert_close(networks.inverse_deviation.detach().view(1, 1), outputs["geodream/inv_variance"], 1e-5)
    with torch.no_grad():
        features = networks.decoder(points, sample_volume(latent_volume, points))[1]
        expected = outputs["geodream/feature_first50"]
        assert_close(features[: len(expected)], expected)

    cosine = (directions * gradient).sum(dim=-1)
    alpha = section_alpha(sdf, cosine, lengths, networks.inverse_deviation, 0.0)
    assert_close(alpha[:, None].detach(), outputs["geodream/alpha"])
    alpha.sum().backward()
    # The occupancy grid takes one render step straight into the surface: step length 2 sqrt(3) / 512 to three decimals.
    step = torch.full_like(sdf, 1.732 * 2 / 512)
    straight = -torch.ones_like(sdf)
    occupied = section_alpha(sdf, straight, step, networks.inverse_deviation, 1.0)
    assert_close(occupied.detach(), outputs["geodream/occ_alpha"])
    i, j, k = outputs["geodream/dalpha_dvolume_ijk"].long().unbind(-1)
    assert_close(stored.grad[i, j, k], outputs["geodream/dalpha_dvolume"])
    assert_close(stored.grad.abs().sum(), outputs["geodream/dalpha_dvolume_abs_sum"])


def test_trilinear_sampling(folder: Path) -> None:
    data = load(folder / "grid_sample_3d.npz")
    volume, points = data["volume_cxyz"].requires_grad_(), data["points_xyz"].requires_grad_()
    sampled = sample_volume(volume, points)
    assert_close(sampled.detach(), data["sampled"], 1e-5)
    value, jacobian = sample_volume_with_jacobian(volume, points)
    assert_close(value.detach(), data["sampled"], 1e-5)

    slope = data["grad_channel2_first60_wrt_points"]
    assert_close(jacobian[: len(slope), 2].detach(), slope, 1e-5)
    for out in (sampled, value):
        grad = torch.autograd.grad((out[:, 0] + 2 * out[:, 1]).sum(), volume)[0]
        assert_close(grad, data["grad_wrt_volume_of_c0_plus_2c1"], 1e-5)
    assert torch.equal(nearest_mask(data["mask_volume"] > 0, points.detach()), data["mask_lookup_nearest"] > 0)


def test_resizing(folder: Path) -> None:
    data = load(folder / "grid_sample_3d.npz")
    small, large = data["volume_cxyz"], data["upsampled_align_corners_false"]
    volume = CostVolume(small, torch.ones(small.shape[1:], dtype=torch.bool), torch.eye(4))
    assert_close(resize_volume(volume, large.shape[-1]).volume, large, 1e-5)


@pytest.mark.parametrize("annealing", [0, 1])
def test_rendering(
    annealing: int,
    folder: Path,
    built: dict[str, tuple],
    networks: CostVolumeNetworks,
    images: Tensor,
    inputs: dict[str, Tensor],
) -> None:
    """One-2-3-45's rendering at given depths: NeuS opacities, blended colours, white background."""
    data = load(folder / "render.npz")
    volume, mask, features = built["eval"]
    views = SourceViews(images, features, inputs["affine_mats"], inputs["c2ws"][:, :3, 3])
    with torch.no_grad():
        out = render_sections(
            networks,
            volume,
            mask,
            views,
            data["rays_o"],
            data["rays_v"],
            data["z_vals"],
            data["sample_dist"].item(),
            float(annealing),
        )
    expected = {name: data[f"alpha_inter_ratio_{annealing}/{name}"] for name in RENDERED}
    assert_close(out.depths, data["mid_z_vals"], 1e-5)
    assert_close(out.lengths, data["dists"], 1e-5)
    assert torch.equal(out.inside, data["pts_mask"].bool())
    assert_close(out.sdf[out.inside], data["sdf"][out.inside])
    assert_close(out.sdf, data["sdf"], 1e-5)
    assert_close(out.gradients[: len(data["gradients_first16rays"])], data["gradients_first16rays"])
    assert_close(out.weights, expected["weights"])
    assert_close(out.opacity[:, None], expected["weights_sum"])
    assert_close(out.depth[:, None], expected["depth"])
    assert_close(out.color, expected["color_fine"])
    assert torch.equal(out.valid[:, None], expected["color_fine_mask"])
    assert_close(out.alpha.sum(dim=-1).mean(), expected["alpha_sum"])
    assert_close(out.eikonal, expected["gradient_error_fine"])
    assert_close(1 / networks.inverse_deviation.detach(), expected["variance"], 1e-5)


def test_importance_sampling(
    folder: Path, built: dict[str, tuple], networks: CostVolumeNetworks, images: Tensor, inputs: dict[str, Tensor]
) -> None:
    """Even depths and four rounds of more, end to end.

    The last round samples with sharpness 512, where a difference of 1e-6 in the signed distance moves a depth by 1e-4.
    """
    data = load(folder / "render.npz")
    volume, mask, features = built["eval"]
    views = SourceViews(images, features, inputs["affine_mats"], inputs["c2ws"][:, :3, 3])
    near, far = data["near"].item(), data["far"].item()
    samples = round((far - near) / data["sample_dist"].item())
    importance = data["z_vals"].shape[1] - samples
    with torch.no_grad():
        arguments = (networks, volume, mask, views, data["rays_o"], data["rays_v"], near, far)
        out = render_prior(*arguments, samples=samples, importance=importance)
    starts = out.depths - out.lengths / 2
    assert ((starts - data["z_vals"]).abs() < 1e-3).float().mean() > 0.999
    assert_close(out.color, data["alpha_inter_ratio_1/color_fine"], 1e-3)
    assert out.lengths[0, -1].item() == pytest.approx(data["sample_dist"].item(), rel=1e-5)


RENDERED = (
    "weights",
    "weights_sum",
    "depth",
    "color_fine",
    "color_fine_mask",
    "alpha_sum",
    "gradient_error_fine",
    "variance",
)


def pose_sets(folder: Path) -> list[str]:
    with np.load(folder / "dataset_cameras.npz") as file:
        return sorted({name.split("/")[0] for name in file.files})


def test_normalized_cameras(folder: Path) -> None:
    """The released datasets: GeoDream's views of text and of an image, One-2-3-45's views."""
    everything = load(folder / "dataset_cameras.npz")
    for name in pose_sets(folder):
        data = {key.split("/")[1]: value for key, value in everything.items() if key.startswith(f"{name}/")}
        intrinsics, c2w = data["pose_json_intrinsics"], data["pose_json_c2ws"]
        width, height = (2 * intrinsics[:2, 2]).int().tolist()  # the released principal point is the image's centre
        every = Cameras(c2w, intrinsics.expand(len(c2w), 3, 3), height, width)
        near, far = data["pose_json_near_far"].tolist()
        sources, to_world = normalize_cameras(every[0], every[data["view_ids"]], near, far)
        query, _ = normalize_cameras(every[0], every[[0, *data["view_ids"].tolist()]], near, far)

        assert_close(opengl_to_opencv(sources.c2w).float(), data["c2ws"], 1e-5)
        assert_close(opengl_to_opencv(query.c2w)[0].float(), data["query_c2w"], 1e-5)
        assert_close(torch.linalg.inv(opengl_to_opencv(query.c2w))[0].float(), data["query_w2c"], 1e-5)
        assert_close(torch.linalg.inv(opengl_to_opencv(sources.c2w)).float(), data["w2cs"], 1e-5)
        assert_close(sources.intrinsics.float(), data["intrinsics"], 1e-5)
        assert_close(affine_matrices(sources, pixel_center=0.0).float(), data["affine_mats"], 1e-5)
        assert_close(to_world, data["trans_mat"] @ data["scale_mat"].double(), 1e-5)
        assert_close(1 / torch.linalg.det(to_world[:3, :3]) ** (1 / 3), data["scale_factor"].double(), 1e-5)
        assert_close(torch.stack(ray_bounds(query.positions), dim=-1).float(), data["near_fars"], 1e-5)
        assert_close(torch.stack(ray_bounds(query.positions[:1]), dim=-1)[0].float(), data["query_near_far"], 1e-5)
        assert_close(voxel_positions(2)[0], data["partial_vol_origin"], 1e-5)


def test_normalized_cameras_of_the_small_fixture(inputs: dict[str, Tensor]) -> None:
    """Off-centre principal point and unequal focal lengths."""
    raw, size = inputs["raw_blender_c2w"], inputs["image_size_hw"].tolist()
    every = Cameras(raw, inputs["raw_intrinsic"].expand(len(raw), 3, 3), *size)
    near, far = inputs["raw_near_far"].tolist()
    sources, to_world = normalize_cameras(every[0], every[1:], near, far)
    assert_close(affine_matrices(sources, pixel_center=0.0).float(), inputs["affine_mats"], 1e-5)
    assert_close(opengl_to_opencv(sources.c2w).float(), inputs["c2ws"], 1e-5)
    assert_close(torch.linalg.inv(opengl_to_opencv(sources.c2w)).float(), inputs["w2cs"], 1e-5)
    assert_close(to_world, inputs["ref_c2w_opencv"] @ inputs["scale_mat"].double(), 1e-5)
    assert_close(torch.stack(ray_bounds(sources.positions), dim=-1).float(), inputs["near_fars"], 1e-5)

"""Zero123's networks, pose token and sampler, against the released One-2-3-45, threestudio and Zero123 code."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from geodream_lib.views.ddim import ddim as sampler
from geodream_lib.views.ddim import ddim_timesteps
from geodream_lib.views.sampling import released_viewpoints
from geodream_lib.views.zero123.model import Zero123, pose_token
from geodream_lib.weights.convert_zero123 import convert_zero123


def arrays(path) -> dict[str, torch.Tensor]:
    with np.load(path) as stored:
        return {
            name: torch.from_numpy(np.asarray(stored[name]))
            for name in stored.files
            if stored[name].dtype.kind in "fiu"
        }


@pytest.fixture(scope="module")
def ddim(golden) -> dict[str, torch.Tensor]:
    return arrays(golden / "zero123" / "ddim.npz")


@pytest.fixture(scope="module")
def call(golden) -> dict[str, Tensor]:
    return arrays(golden / "zero123" / "unet_io.npz")


@pytest.fixture(scope="module")
def model(golden, tmp_path_factory) -> Zero123:
    """The released file, converted and loaded; it has no image tower, so any of the right width stands in."""
    folder, work = golden / "zero123", tmp_path_factory.mktemp("zero123")
    config = json.loads((folder / "config.json").read_text())
    tower = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        projection_dim=config["clip_embed_dim"],
    )
    CLIPVisionModelWithProjection(tower).save_pretrained(work / "clip")
    tensors = load_file(folder / "model.safetensors")
    convert_zero123(tensors, work / "converted", config=config, image_encoder=work / "clip")
    return Zero123.load(work / "converted")


@pytest.fixture(scope="module")
def scheduler(model) -> DDIMScheduler:
    return model.scheduler


def assert_near(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    """Within `tolerance` of the largest value (of 1, where all are smaller)."""
    torch.testing.assert_close(ours, theirs.float(), atol=tolerance * max(1.0, theirs.abs().max().item()), rtol=0)


def test_token_is_the_projected_embedding_and_pose(model, call):
    embedding = call["clip_emb"][:, 0].expand(len(call["T"]), -1)
    torch.testing.assert_close(torch.cat([embedding, call["T"]], dim=-1), call["cc_in"][:, 0])
    assert_near(model.clip_camera_projection(embedding, call["T"]), call["cc_out"], 1e-5)


@torch.no_grad()
def test_posterior_of_the_vae(model, call):
    posterior = model.vae.encode(call["image"]).latent_dist
    assert_near(posterior.mean, call["vae_mean"], 1e-5)
    assert_near(posterior.logvar, call["vae_logvar"], 1e-5)


@torch.no_grad()
def test_the_latent_beside_the_noisy_one_is_the_mode_and_not_scaled(model, call):
    latent = model.concat_latent(call["image"].permute(0, 2, 3, 1) / 2 + 0.5)
    assert_near(latent.expand_as(call["c_concat"]), call["c_concat"], 1e-5)


@torch.no_grad()
def test_unet_with_and_without_its_conditions(model, call):
    noisy, beside, t = call["x"], call["c_concat"], call["t"]
    assert_near(model.unet(torch.cat([noisy, beside], dim=1), t, call["cc_out"]).sample, call["out"], 1e-5)
    blind = torch.cat([noisy, torch.zeros_like(beside)], dim=1)
    assert_near(model.unet(blind, t, torch.zeros_like(call["cc_out"])).sample, call["out_uncond"], 1e-5)


@torch.no_grad()
def test_decoder(model, call):
    """The released decoding divides by the factor first; ours gives images 0..1."""
    assert_near(model.vae.decode(call["dec_in"] / model.vae.config.scaling_factor).sample, call["dec_out"], 1e-5)
    images = model.decode(call["dec_in"]).permute(0, 3, 1, 2)
    assert_near(images, (call["dec_out"] / 2 + 0.5).clamp(0, 1), 1e-5)


@torch.no_grad()
@pytest.mark.parametrize("eta", [0, 1])
def test_released_trajectory(model, ddim, eta):
    """From the released start and noise through every step to the images, with the released list of timesteps."""
    embedding = ddim["clip_emb"][:, 0].expand(len(ddim["T"]), -1)
    token = model.clip_camera_projection(embedding, ddim["T"])
    beside = model.concat_latent(ddim["image"].permute(0, 2, 3, 1) / 2 + 0.5).expand_as(ddim["x_T"])
    timesteps = ddim_timesteps(model.scheduler, int(ddim["steps"]), drop_noisiest=True)
    noise: Iterator[Tensor] = iter([ddim["x_T"], *ddim["step_noise"]])
    ours = list(
        sampler(
            model.scheduler,
            lambda latents, t: model.guided(latents, token, beside, t, float(ddim["scale"])),
            timesteps,
            float(eta),
            lambda: next(noise),
        )
    )
    assert_near(torch.stack(ours), ddim[f"eta{eta}_x_inter"], 1e-4)
    assert_near(ours[-1], ddim[f"eta{eta}_out"], 1e-4)
    assert_near(model.decode(ours[-1]).permute(0, 3, 1, 2), ddim[f"eta{eta}_images"], 1e-4)


def test_pose_of_one2345(golden):
    """One-2-3-45 speaks of the change of the polar angle: it grows when the camera goes down."""
    case = arrays(golden / "zero123" / "pose_one2345.npz")
    azimuth, down = case["delta_azimuth_deg"].float(), case["delta_elevation_down_deg"].float()
    token = pose_token(azimuth, -down, torch.zeros_like(down))
    torch.testing.assert_close(token, case["T"].float(), atol=1e-5, rtol=0)


def test_pose_of_threestudio(golden):
    case = arrays(golden / "zero123" / "pose_threestudio.npz")
    azimuth = case["azimuth_deg"] - case["cond_azimuth_deg"].float()
    elevation = case["elevation_deg"] - case["cond_elevation_deg"].float()
    radius = case["camera_distance"] - case["cond_camera_distance"].float()
    torch.testing.assert_close(pose_token(azimuth, elevation, radius), case["zero123_T"], atol=1e-5, rtol=0)
    polar = torch.deg2rad(90 - case["cond_elevation_deg"].float()).expand_as(azimuth)
    torch.testing.assert_close(pose_token(azimuth, elevation, polar), case["stable_zero123_T"], atol=1e-5, rtol=0)


def test_released_image_views_are_the_released_lists(golden):
    """Thirty neighbours of the eight stage-1 views of the upper ring, in the released order."""
    lists = json.loads((golden / "zero123" / "one2345_view_lists.json").read_text())
    stage1 = list(zip(lists["stage1"]["delta_azimuth_deg"], lists["stage1"]["delta_polar_deg"], strict=True))
    stage2 = list(zip(lists["stage2"]["delta_azimuth_deg"], lists["stage2"]["delta_polar_deg"], strict=True))
    expected = [(a + da, -(p + dp)) for a, p in stage1[:4] + stage1[8:] for da, dp in stage2]
    del expected[10:12]  # images 18 and 19 of the 8 + 32
    assert [(pose.azimuth, pose.elevation) for pose in released_viewpoints("image")] == expected


def test_released_schedule_drops_the_noisiest_step(ddim, scheduler):
    """The released list of timesteps is walked without its last entry; ours is in the order it is walked."""
    expected = ddim["timesteps"].tolist()[:-1][::-1]
    assert ddim_timesteps(scheduler, int(ddim["steps"]), drop_noisiest=True) == expected
    assert len(expected) == ddim["eta0_x_inter"].shape[0] - 1


def test_noise_levels_are_the_released_ones(ddim, scheduler):
    torch.testing.assert_close(scheduler.alphas_cumprod, ddim["alphas_cumprod"], atol=1e-6, rtol=0)
    steps = int(ddim["steps"])
    for t, before, sigma in zip(ddim["timesteps"].tolist(), ddim["alphas_prev"], ddim["eta1_sigmas"], strict=True):
        scheduler.set_timesteps(steps)
        previous = t - scheduler.config.num_train_timesteps // steps
        alpha = scheduler.alphas_cumprod[previous] if previous >= 0 else scheduler.final_alpha_cumprod
        assert alpha.item() == pytest.approx(before.item(), abs=1e-6)
        assert scheduler._get_variance(t, previous).sqrt().item() == pytest.approx(sigma.item(), abs=1e-5)

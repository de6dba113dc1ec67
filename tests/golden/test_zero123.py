"""Zero123's pose token and its sampler, against the released One-2-3-45, threestudio and Zero123 code."""

import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from geodream_lib.views.sampling import released_viewpoints
from geodream_lib.views.zero123 import ddim_timesteps, pose_token


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


def make_scheduler() -> DDIMScheduler:
    """The noise schedule of the released checkpoints, as their public conversions configure it."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


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


def test_released_schedule_drops_the_noisiest_step(ddim):
    """The released list of timesteps is walked without its last entry; ours is in the order it is walked."""
    expected = ddim["timesteps"].tolist()[:-1][::-1]
    assert ddim_timesteps(make_scheduler(), int(ddim["steps"]), drop_noisiest=True) == expected
    assert len(expected) == ddim["eta0_x_inter"].shape[0] - 1


def test_noise_levels_are_the_released_ones(ddim):
    scheduler = make_scheduler()
    torch.testing.assert_close(scheduler.alphas_cumprod, ddim["alphas_cumprod"], atol=1e-6, rtol=0)
    steps = int(ddim["steps"])
    for t, before, sigma in zip(ddim["timesteps"].tolist(), ddim["alphas_prev"], ddim["eta1_sigmas"], strict=True):
        scheduler.set_timesteps(steps)
        previous = t - scheduler.config.num_train_timesteps // steps
        alpha = scheduler.alphas_cumprod[previous] if previous >= 0 else scheduler.final_alpha_cumprod
        assert alpha.item() == pytest.approx(before.item(), abs=1e-6)
        assert scheduler._get_variance(t, previous).sqrt().item() == pytest.approx(sigma.item(), abs=1e-5)


def test_one_step_of_ddim_with_noise(ddim):
    """From the same start, eta 0 reveals the network's output; fed to our step with eta 1 it gives the released one."""
    scheduler = make_scheduler()
    first = ddim_timesteps(scheduler, int(ddim["steps"]), drop_noisiest=True)[0]
    at = int((ddim["timesteps"] == first).nonzero())
    start, after = ddim["eta0_x_inter"][0].double(), ddim["eta0_x_inter"][1].double()
    alpha, before = ddim["alphas"][at].double(), ddim["alphas_prev"][at].double()
    # after = sqrt(before) (start - sqrt(1 - alpha) e) / sqrt(alpha) + sqrt(1 - before) e
    ratio = (before / alpha).sqrt()
    prediction = (after - ratio * start) / ((1 - before).sqrt() - ratio * (1 - alpha).sqrt())
    noise = ddim["step_noise"][0].double()
    step = scheduler.step(prediction, first, start, eta=1.0, variance_noise=noise).prev_sample
    torch.testing.assert_close(step.float(), ddim["eta1_x_inter"][1], atol=1e-4, rtol=0)

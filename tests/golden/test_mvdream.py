"""MVDream's network, cameras and sampler, against the released code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file

from geodream_lib.cameras import azimuth_elevation, orbit
from geodream_lib.cameras_sampling import from_mvdream, mvdream_condition
from geodream_lib.views.mvdream.model import denoise_views, released_timesteps, view_cameras
from geodream_lib.views.mvdream.network import MultiViewUNet
from geodream_lib.weights.convert_mvdream import mvdream_unet
from geodream_lib.weights.ldm import SCHEDULER


def arrays(path: Path) -> dict[str, torch.Tensor]:
    with np.load(path) as stored:
        return {name: torch.from_numpy(np.asarray(stored[name])) for name in stored.files}


def assert_near(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float) -> None:
    """Within `tolerance` of the largest value (of 1, where all are smaller)."""
    torch.testing.assert_close(ours, theirs.float(), atol=tolerance * max(1.0, theirs.abs().max().item()), rtol=0)


@pytest.fixture(scope="module")
def network(golden) -> MultiViewUNet:
    folder = golden / "mvdream"
    tensors = {name: tensor.float() for name, tensor in load_file(folder / "unet.safetensors").items()}
    return mvdream_unet(json.loads((folder / "unet_config.json").read_text()), tensors, "fixture").requires_grad_(False)


@pytest.fixture(scope="module")
def call(golden) -> dict[str, torch.Tensor]:
    return arrays(golden / "mvdream" / "unet_io.npz")


@pytest.fixture(scope="module")
def ddim(golden) -> dict[str, torch.Tensor]:
    return arrays(golden / "mvdream" / "ddim.npz")


@pytest.fixture(scope="module")
def cameras(golden) -> dict[str, torch.Tensor]:
    return arrays(golden / "mvdream" / "cameras.npz")


def test_embeddings_of_timestep_and_camera(network, call):
    assert_near(network.unet.time_proj(call["t"]), call["timestep_embedding"], 1e-5)
    assert_near(network.camera_embedding(call["camera"]), call["camera_embed"], 1e-5)


def test_views_that_see_each_other(network, call):
    frames = int(call["num_frames"])
    assert_near(network(call["x"], call["t"], call["context"], call["camera"], frames), call["out"], 1e-5)


def test_views_without_camera(network, call):
    frames = int(call["num_frames"])
    assert_near(network(call["x"], call["t"], call["context"], None, frames), call["out_without_camera"], 1e-5)


def test_views_on_their_own(network, call):
    assert_near(network(call["x"], call["t"], call["context"], call["camera"], 1), call["out_num_frames_1"], 1e-5)


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(**SCHEDULER)


def test_noise_levels_of_the_sampler(ddim):
    steps, schedule = int(ddim["steps"]), scheduler()
    assert_near(schedule.alphas_cumprod, ddim["alphas_cumprod"], 1e-6)
    timesteps = released_timesteps(schedule.config.num_train_timesteps, steps)
    assert timesteps == ddim["timesteps"].tolist()[::-1]
    assert_near(schedule.alphas_cumprod[timesteps], ddim["alphas"].flip(0), 1e-6)


def test_denoising_is_the_released_trajectory(network, ddim, call):
    trajectory = denoise_views(
        network,
        scheduler(),
        ddim["x_T"],
        ddim["context"],
        ddim["uncond_context"],
        ddim["camera"],
        int(ddim["steps"]),
        float(ddim["scale"]),
        int(call["num_frames"]),
    )
    latents, clean = (torch.stack(part) for part in zip(*trajectory, strict=True))
    # The released lists start with the noise.
    assert_near(latents, ddim["x_inter"][1:], 1e-4)
    assert_near(clean, ddim["pred_x0"][1:], 1e-4)
    assert_near(latents[-1], ddim["out"], 1e-4)


def our_cameras(start: float, elevation: float, n: int, span: float) -> torch.Tensor:
    """`n` cameras of our world where MVDream's stand whose azimuths begin at `start` and share `span` degrees."""
    azimuths = [start + span * i / n - 90 for i in range(n)]
    return orbit(azimuths, elevation, 1.0, 40.0, 8).c2w


@pytest.mark.parametrize(
    ("name", "start"), [("cam_default4", 0), ("cam_elev15_az0", 0), ("cam_elev15_az90_script", 90)]
)
def test_cameras_are_ours_a_quarter_turn_on(cameras, name, start):
    """MVDream's azimuth 90 is on our +x, where the object's front is."""
    assert_near(mvdream_condition(our_cameras(start, 15, len(cameras[name]), 360)), cameras[name], 1e-6)


def test_cameras_on_a_part_of_the_circle(cameras):
    name = next(name for name in cameras if "span" in name)
    azimuth, elevation = azimuth_elevation(cameras[name].view(-1, 4, 4)[:1, :3, 3])
    ours = our_cameras(azimuth.item() + 90, elevation.item(), len(cameras[name]), float(name.split("span")[1]))
    assert_near(mvdream_condition(ours), cameras[name], 1e-6)


def test_the_text_to_image_script_starts_at_our_front(cameras):
    assert_near(view_cameras(15.0), cameras["cam_elev15_az90_script"], 1e-6)


@pytest.mark.parametrize(("name", "elevation"), [("cam_elev0_az0_opengl", 0), ("cam_elev15_az0_opengl", 15)])
def test_cameras_with_y_up(cameras, name, elevation):
    assert_near(from_mvdream(cameras[name].view(-1, 4, 4)), our_cameras(0, elevation, 4, 360), 1e-6)


def test_any_matrix_is_turned_and_normalised_as_released(cameras):
    """Also what is no rotation: normalising touches the position alone."""
    given = cameras["normalize_in"]
    assert_near(from_mvdream(given), cameras["opengl_to_blender_out"], 1e-6)
    assert_near(mvdream_condition(given), cameras["normalize_out"], 1e-6)
    assert_near(mvdream_condition(given), cameras["normalize_out_numpy64"], 1e-6)

"""Training cameras of threestudio and GeoDream: from the recorded draws, our cameras are theirs in our world."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from geodream_lib.cameras import Cameras, look_at, pinhole, rays, sphere_position
from geodream_lib.cameras_sampling import from_geodream, from_threestudio, model_view_projection

TO_OURS = {"threestudio": from_threestudio, "geodream": from_geodream}
NEAR_FAR = {"threestudio": (0.01, 100.0), "geodream": (0.1, 1000.0)}


def read(path: Path) -> dict[str, torch.Tensor]:
    with np.load(path) as file:
        return {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}


def our_angles(source: str, azimuth: torch.Tensor, elevation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return (180 - azimuth, -elevation) if source == "geodream" else (azimuth, elevation)


def check(source: str, cameras: Cameras, expected: dict[str, torch.Tensor]) -> None:
    """c2w, projection and rays of the source agree with ours once its world is turned into ours."""
    to_ours = TO_OURS[source](torch.eye(4)[None])[0]
    torch.testing.assert_close(cameras.c2w, TO_OURS[source](expected["c2w"]), atol=1e-5, rtol=0)
    torch.testing.assert_close(cameras.positions, expected["camera_positions"] @ to_ours[:3, :3].T, atol=1e-5, rtol=0)
    mvp = model_view_projection(cameras, *NEAR_FAR[source]) @ to_ours
    torch.testing.assert_close(mvp, expected["mvp_mtx"], atol=1e-5, rtol=1e-5)
    origins, directions = rays(cameras)
    torch.testing.assert_close(origins, expected["rays_o"] @ to_ours[:3, :3].T, atol=1e-5, rtol=0)
    torch.testing.assert_close(directions, expected["rays_d"] @ to_ours[:3, :3].T, atol=1e-5, rtol=0)


def cameras_of(source: str, azimuth, elevation, distance, fov_y, height: int, width: int) -> Cameras:
    position = sphere_position(*our_angles(source, azimuth, elevation), distance)
    return Cameras(look_at(position, torch.zeros_like(position)), pinhole(fov_y, height, width), height, width)


@pytest.mark.parametrize("source", ["threestudio", "geodream"])
def test_cameras_of_recorded_draws(source: str, golden: Path) -> None:
    expected = read(golden / "prompting" / f"train_cameras_{source}.npz")
    draws = (expected[name] for name in ("azimuth_deg", "elevation_deg", "camera_distance", "fovy_deg"))
    check(source, cameras_of(source, *draws, int(expected["height"]), int(expected["width"])), expected)


@pytest.mark.needs_golden("one2345")
@pytest.mark.parametrize("split", ["train", "val"])
def test_cameras_of_geodream_stage_1(split: str, golden: Path) -> None:
    recorded = read(golden / "one2345" / "train_cameras.npz")
    expected = {name.removeprefix(f"{split}/"): value for name, value in recorded.items() if name.startswith(split)}
    # The field of view was not stored: the projection's second row is a unit row divided by tan(fov / 2).
    fov_y = torch.rad2deg(2 * torch.atan(1 / expected["mvp_mtx"][:, 1, :3].norm(dim=-1)))
    draws = (expected[name] for name in ("azimuth", "elevation", "camera_distances"))
    height, width = expected["rays_o"].shape[1:3]
    check("geodream", cameras_of("geodream", *draws, fov_y, height, width), expected)


def test_front_and_up_of_both_worlds() -> None:
    """GeoDream's reference camera stands at azimuth 180 and sees the front; -15 degrees of elevation is above."""
    azimuth, elevation = math.radians(180.0), math.radians(-15.0)
    above = math.cos(elevation)
    theirs = torch.eye(4)[None].clone()
    theirs[0, :3, 3] = torch.tensor([above * math.sin(azimuth), math.sin(elevation), above * math.cos(azimuth)])
    ours = from_geodream(theirs)[0, :3, 3]
    torch.testing.assert_close(ours, torch.tensor([above, 0.0, math.sin(math.radians(15.0))]), atol=1e-6, rtol=0)

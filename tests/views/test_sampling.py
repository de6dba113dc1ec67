import json

import pytest
import torch

from geodream_lib.cameras import azimuth_elevation
from geodream_lib.errors import InputError
from geodream_lib.views.sampling import (
    RelativePose,
    pose_cameras,
    released_viewpoints,
    sample_mvdream_viewpoints,
    sample_viewpoints,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(5))
def test_views_around_one_reference_follow_appendix_f(seed):
    poses = sample_viewpoints(16, seeded(seed), reference_elevation=10.0)
    assert len(poses) == 16
    assert (poses[0].azimuth, poses[0].elevation) == (0, 0)
    assert (poses[-1].azimuth, poses[-1].elevation) == (180, 0)
    drawn = [pose for pose in poses if pose.rule == "random"]
    assert len(drawn) == 14
    assert all(abs(pose.azimuth) <= 180 and abs(pose.elevation) <= 30 for pose in drawn)
    assert all(-10 <= 10 + pose.elevation <= 60 for pose in drawn)


@pytest.mark.parametrize("seed", range(5))
def test_no_side_is_left_unseen_by_chance(seed):
    """Stratified: one view in each equal slice, so neighbours are less than two slices apart."""
    drawn = sorted(pose.azimuth for pose in sample_viewpoints(14, seeded(seed), 0.0) if pose.rule == "random")
    gaps = torch.diff(torch.tensor([*drawn, drawn[0] + 360]))
    assert gaps.max() < 2 * 360 / 12


def test_every_single_view_is_uniform():
    azimuth, elevation = torch.tensor(
        [(p.azimuth, p.elevation) for seed in range(200) for p in sample_viewpoints(7, seeded(seed), 0.0)[1:-1]]
    ).T
    assert abs(azimuth.mean()) < 10 and azimuth.std() == pytest.approx(360 / 12**0.5, rel=0.03)
    # Absolute elevation is kept above -10, so the relative one is uniform in [-10, 30].
    assert elevation.mean() == pytest.approx(10, abs=0.5) and elevation.std() == pytest.approx(40 / 12**0.5, rel=0.03)


def test_same_seed_same_views():
    assert sample_viewpoints(9, seeded(3), 5.0) == sample_viewpoints(9, seeded(3), 5.0)
    assert sample_viewpoints(9, seeded(3), 5.0) != sample_viewpoints(9, seeded(4), 5.0)


@pytest.mark.parametrize("elevation", [-60.0, 80.0])
def test_a_reference_outside_of_the_allowed_elevations_still_has_views(elevation):
    drawn = sample_viewpoints(8, seeded(0), elevation)[1:-1]
    assert all(abs(pose.elevation) <= 30 for pose in drawn)


def test_views_around_mvdream_start_from_front_and_sides_only():
    poses = sample_mvdream_viewpoints(15, seeded(0))
    assert len(poses) == 15
    drawn = [pose for pose in poses if pose.rule == "random"]
    assert {pose.reference for pose in drawn} == {0.0, 90.0, 270.0}
    assert all(abs(pose.azimuth) <= 45 and abs(pose.elevation) <= 30 for pose in drawn)
    counts = [sum(pose.reference == side for pose in drawn) for side in (0.0, 90.0, 270.0)]
    assert max(counts) - min(counts) <= 1
    back = [pose for pose in poses if pose.reference == 180.0]
    assert [(pose.azimuth, pose.elevation) for pose in back] == [(0, 0)]


def test_too_few_views_are_refused():
    with pytest.raises(InputError, match="at least 2"):
        sample_viewpoints(1, seeded(0), 0.0)
    with pytest.raises(InputError, match="at least 4"):
        sample_mvdream_viewpoints(3, seeded(0))


def test_the_released_text_list_stands_where_the_released_pose_file_says():
    poses = released_viewpoints("text")
    azimuths = [(pose.reference + pose.azimuth) % 360 for pose in poses]
    assert azimuths == [0, 90, 120, 240, 300, 0, 60, 180, 150, 270, 300, 0, 60, 240]
    assert [pose.elevation for pose in poses] == [0, 0, 30, 30, -20, 30, -20, 0, -20, 0, 30, -20, 30, -20]


def test_the_released_image_list_has_thirty_views_and_not_the_neighbours_of_the_back():
    poses = {(pose.azimuth, pose.elevation) for pose in released_viewpoints("image")}
    assert len(poses) == 30
    assert (180, 10) in poses and (180, -10) in poses
    assert (170, 0) not in poses and (190, 0) not in poses


def test_poses_are_json():
    poses = [*sample_viewpoints(6, seeded(0), 0.0), *released_viewpoints("text")]
    text = json.dumps([pose.to_json() for pose in poses])
    assert [RelativePose(**entry) for entry in json.loads(text)] == poses


def test_cameras_stand_at_the_absolute_angles():
    poses = [RelativePose(30.0, -5.0, "test"), RelativePose(-60.0, 20.0, "test", reference=90.0)]
    cameras = pose_cameras(poses, reference_elevation=15.0, radius=2.5, fov_y=40.0, size=32)
    azimuth, elevation = azimuth_elevation(cameras.positions)
    torch.testing.assert_close(azimuth, torch.tensor([30.0, 30.0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(elevation, torch.tensor([10.0, 35.0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(cameras.positions.norm(dim=-1), torch.tensor([2.5, 2.5]))

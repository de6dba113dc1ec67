"""The cube around the view frusta: another frame for the same cameras, which see the same points at the same pixels."""

import pytest
import torch

from geodream_lib.cameras import project
from geodream_lib.views import pose_cameras, released_viewpoints, sample_mvdream_viewpoints
from geodream_lib.volume import normalize_cameras


@pytest.mark.parametrize("elevation", [0.0, 15.0])
@pytest.mark.parametrize("rule", ["released", "appendix F"])
def test_a_point_of_the_cube_is_seen_where_its_world_point_is(rule, elevation):
    generator = torch.Generator().manual_seed(0)
    poses = released_viewpoints("text", elevation)
    if rule == "appendix F":
        poses = sample_mvdream_viewpoints(14, generator, elevation)
    cameras = pose_cameras(poses, elevation, 1.2, 49.13, 256)
    in_cube, to_world = normalize_cameras(cameras[0], cameras)
    points = 0.6 * torch.rand(200, 3, generator=generator) - 0.3
    world = points @ to_world[:3, :3].T + to_world[:3, 3]
    pixels, depth = project(in_cube, points)
    expected, distance = project(cameras, world)
    torch.testing.assert_close(pixels, expected, atol=2e-2, rtol=0)
    # The cube is a smaller world: depths shrink by its half width, which is the similarity's unit.
    unit = torch.linalg.det(to_world[:3, :3]) ** (1 / 3)
    torch.testing.assert_close(depth * unit, distance, atol=1e-4, rtol=0)
    # Its axes are those of the first view: right, down, away. The object's front (+x) is where that view stands.
    away = to_world[:3, 2] / unit
    assert away @ cameras.positions[0] == pytest.approx(-1.2, abs=1e-3)

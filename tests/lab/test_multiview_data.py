"""What the networks that show several views at once learn from: where the cameras stand, what is never shown."""

import numpy as np
import pytest
import torch

from geodream_lib.cameras import azimuth_elevation, orbit
from geodream_lib.lab import multiview_data
from geodream_lib.lab.datasets import TURNTABLE_FOV, TURNTABLE_RADIUS
from geodream_lib.lab.multiview_data import orbit_angles, render_orbits, render_tiles
from geodream_lib.lab.networks import (
    IMAGE_SIZE,
)
from geodream_lib.lab.objects import HELD_OUT
from geodream_lib.lab.render import render_rgba
from geodream_lib.lab.train_mvdream import orbit_conditions
from geodream_lib.presets import load_preset
from geodream_lib.views import pose_cameras, zero123plus_viewpoints
from geodream_lib.views.mvdream.model import AZIMUTHS, view_cameras
from geodream_lib.views.zero123plus.image import GREY
from geodream_lib.views.zero123plus.layout import join_tiles, split_tiles

TILE = 16


def test_orbits_are_the_four_views_that_mvdream_is_asked_for(two_objects):
    shard = render_orbits(0, "train")
    for index, obj in enumerate(two_objects):
        azimuth, elevation = (torch.from_numpy(shard[name][index]) for name in ("azimuth", "elevation"))
        turn = (azimuth - azimuth[0]) % 360
        torch.testing.assert_close(turn, torch.tensor(AZIMUTHS), atol=1e-3, rtol=0)
        assert (elevation == elevation[0]).all() and 0 <= elevation[0] <= 30
        cameras = orbit(azimuth, elevation, TURNTABLE_RADIUS, TURNTABLE_FOV, IMAGE_SIZE)
        again, _ = render_rgba([obj] * 4, cameras, np.ones((4, 3), np.float32), threads=1)
        assert (again == shard["images"][index]).all()
        condition = orbit_conditions(azimuth[None], elevation[None])[0]
        seen_from = azimuth_elevation(condition.view(-1, 4, 4)[:, :3, 3])
        torch.testing.assert_close(seen_from[0] % 360, azimuth, atol=1e-3, rtol=0)
    asked = orbit_conditions(torch.tensor([AZIMUTHS]), torch.full((1, 4), 15.0))[0]
    torch.testing.assert_close(asked, view_cameras(15.0), atol=1e-6, rtol=0)
    assert not any("view" in text for text in shard["captions"])


def test_half_of_the_orbits_begin_at_the_front():
    rng = np.random.default_rng(0)
    starts = np.array([orbit_angles(rng)[0][0] for _ in range(2000)])
    assert 0.45 < (starts == 0).mean() < 0.55
    others = starts[starts != 0]
    assert np.histogram(others, 4, (0, 360))[0].min() > 0.2 * len(others)


def test_tiles_stand_where_the_pipeline_says_they_do(two_objects, monkeypatch):
    """Tile k is what the camera of `zero123plus_viewpoints` sees: the preset's version, distance and angle."""
    angles = (("front", 0.0, 10.0), ("left", 90.0, 20.0))
    poses = iter([angle[1:] for angle in angles])
    monkeypatch.setattr(multiview_data, "reference_angles", lambda rng: next(poses))
    shard, settings = render_tiles(0, "train"), load_preset("lab").views
    assert shard["tiles"].shape[2] == settings.tile
    for index, (word, azimuth, elevation) in enumerate(angles):
        relative = zero123plus_viewpoints(settings.zero123plus_version, elevation)
        placed = [type(pose)(pose.azimuth, pose.elevation, pose.rule, azimuth) for pose in relative]
        cameras = pose_cameras(placed, elevation, settings.radius, settings.fov_y, settings.tile)
        grey = np.full((6, 3), GREY / 255, np.float32)
        again, _ = render_rgba([two_objects[index]] * 6, cameras, grey, threads=1)
        difference = np.abs(again.astype(int) - shard["tiles"][index])
        assert (difference > 2).mean() < 1e-3, "angles are rounded in single precision"
        assert ("side view" if word == "left" else "front view") in shard["captions"][index]
    assert (shard["tiles"][:, :, 0, 0] == GREY).all()


@pytest.mark.parametrize("render", [render_orbits, render_tiles])
def test_shards_differ_and_held_out_objects_are_never_trained_on(two_objects, render):
    shards = [render(0, "train"), render(1, "train"), render(0, "held_out"), render(0, "train")]
    for key in ("captions", *(key for key in shards[0] if shards[0][key].ndim > 3)):
        assert np.array_equal(shards[0][key], shards[3][key]), "the seed decides"
        assert not any(np.array_equal(shards[0][key], other[key]) for other in shards[1:3])
    held = [(obj.category, obj.colors[0]) in HELD_OUT for obj in two_objects]
    assert held == [False] * 4 + [True] * 2 + [False] * 2


def test_pictures_of_tiles_are_taken_apart_as_they_were_put_together(random_images):
    tiles = random_images(2, 6, TILE, TILE)
    pictures = join_tiles(tiles).float().permute(0, 3, 1, 2)
    assert torch.equal(torch.stack([split_tiles(picture) for picture in pictures]), tiles.float())

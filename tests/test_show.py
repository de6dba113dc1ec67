"""Pictures of shapes and bars of progress."""

import torch
import trimesh

from geodream_lib import show
from geodream_lib.cameras import orbit


def test_plain_renders_show_a_lit_shape_on_white(tmp_path):
    trimesh.creation.icosphere(subdivisions=3, radius=0.6).export(tmp_path / "ball.ply")
    cameras = orbit([0.0, 180.0], 0.0, 2.75, 40.0, 48)
    front, back = show.render_plain(cameras, tmp_path / "ball.ply")
    assert front.shape == (48, 48, 3) and torch.equal(front[..., 0], front[..., 2])
    assert front[0, 0].tolist() == [1, 1, 1] and front[24, 24].max() < 0.9
    grey = front[..., 0]
    assert grey[14, 24] > grey[24, 24] > grey[34, 24], "the light comes from above"
    assert grey[24, 24] > back[24, 24, 0], "and from the front: it stays in the world, not at the camera"


def test_a_step_bar_follows_what_it_is_told(capsys):
    with show.step_bar("dreaming", 4) as advance:
        advance(1, 8)
        advance(8, 8)
    assert "dreaming: 100%" in capsys.readouterr().err.replace("\r", "\n").splitlines()[-1]

"""Figures of the notebooks: what they draw is where it should be."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from torch import nn

from geodream_lib import show
from geodream_lib.cameras import orbit
from geodream_lib.mesh import marching_tetrahedra


def test_a_marked_point_is_on_its_pixel():
    """The centre of the first pixel is 0.5 for a camera and 0 for matplotlib."""
    figure = show.points_on_views(torch.ones(2, 8, 8, 3), torch.tensor([[[0.5, 3.5]], [[7.5, 0.5]]]), ["red"])
    marks = [axis.collections[0].get_offsets().tolist() for axis in figure.axes]
    assert marks == [[[0.0, 3.0]], [[7.0, 0.0]]]


def test_the_surface_of_a_ball_is_drawn_as_a_circle_of_its_radius():
    axis = torch.linspace(-1, 1, 65)
    ball = (axis[:, None].square() + axis.square()).sqrt() - 0.5
    figure = show.sdf_slices({"ball": ball, "empty": ball + 2}, truth=ball)
    lines = [np.concatenate(line.get_paths()[0].to_polygons()) for line in figure.axes[0].collections[1:]]
    assert len(lines) == 2, "the surface and the truth"
    for line in lines:
        assert np.hypot(*line.T) == pytest.approx(0.5, abs=0.01)
    assert len(figure.axes[1].collections) == 2, "an empty volume has no surface, only the truth is drawn"


def test_every_camera_is_drawn_once_with_a_name_for_each_kind():
    cameras = orbit([0.0, 90.0, 180.0], 0.0, 2.0, 40.0, 8)
    (axes,) = show.viewpoints_on_sphere({"three": (cameras, ["reference", "random", "random"])}).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["reference", "random"]


def test_a_tetrahedron_is_drawn_with_its_faces():
    corners = torch.cat([torch.zeros(1, 3), torch.eye(3)])
    sdf = torch.tensor([-1.0, -1.0, 1.0, 1.0])
    cut = marching_tetrahedra(corners, sdf, torch.tensor([[0, 1, 2, 3]]))
    figure = show.tetrahedra({"two outside": (corners, sdf, *cut)})
    figure.canvas.draw()
    assert len(figure.axes[0].collections) == 2, "corners and faces"


def test_a_small_gif_plays_as_long_as_the_large_one(tmp_path):
    frames = [Image.new("RGB", (40, 40), (20 * k, 0, 0)) for k in range(10)]
    frames[0].save(tmp_path / "large.gif", save_all=True, append_images=frames[1:], duration=50, loop=0)
    small = Image.open(io.BytesIO(show.small_gif(tmp_path / "large.gif", size=16, every=5)))
    durations = [frame.info["duration"] for frame in ImageSequence.Iterator(small)]
    assert small.size == (16, 16) and durations == [250, 250]


def test_a_parameter_table_adds_up():
    table = show.parameter_table({"one": nn.Linear(9, 100), "two": nn.Linear(1, 1, bias=False)})
    assert [line.split()[-2] for line in table.splitlines()] == ["1,000", "1", "1,001"]

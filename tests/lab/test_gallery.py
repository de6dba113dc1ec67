"""The picture of finished runs below each other."""

import pytest

from geodream_lib.data import data_folder
from geodream_lib.errors import InputError
from geodream_lib.lab.gallery import SIDES, row
from geodream_lib.run import create_run, open_run


def test_a_row_shows_the_reference_and_the_mesh_from_all_sides():
    run = open_run(data_folder() / "samples" / "a-red-mushroom-on-a-log")
    pictures = row(run, size=48)
    assert pictures.shape == (1 + SIDES, 48, 48, 3)
    red = ((pictures[..., 0] > 0.5) & (pictures[..., 1] < 0.3)).float().mean(dim=(1, 2))
    assert (red > 0.02).all(), "the cap is red from everywhere"
    assert (pictures[:, 0, 0] > 0.9).all(), "on white"


def test_an_unfinished_run_is_refused(tmp_path):
    with pytest.raises(InputError):
        row(create_run("a red mushroom on a log", tmp_path / "run"), size=48)

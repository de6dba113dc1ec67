"""Charts of data and trainings: what is counted and read is what was there."""

import json

import numpy as np
import pytest

from geodream_lib.errors import InputError
from geodream_lib.lab.charts import Curve, azimuth_roses, azimuth_shares, by_azimuth, read_curve, training_curves


def test_shares_are_of_sectors_around_the_front():
    shares = azimuth_shares(np.array([0.0, 7.0, -7.0, 353.0, 360.0, 8.0, 90.0, -180.0]))
    assert shares.sum() == pytest.approx(1)
    assert shares[[0, 1, 6, 12]].tolist() == [5 / 8, 1 / 8, 1 / 8, 1 / 8]


def test_the_area_of_a_petal_is_its_share():
    figure = azimuth_roses({"all around": np.arange(0.0, 360.0, 15.0), "front": np.zeros(3)})
    around, front = ([bar.get_height() ** 2 for bar in axes.patches] for axes in figure.axes)
    assert around == pytest.approx([100 / 24] * 24)
    assert front == pytest.approx([100] + [0] * 23)


def log(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_a_training_in_two_parts_is_one_curve(tmp_path):
    first = log(tmp_path / "1.jsonl", {"minutes": 1.0, "iou": 0.5}, {"minutes": 2.0}, {"minutes": 3.0, "iou": 0.6})
    second = log(tmp_path / "2.jsonl", {"minutes": 1.0, "iou": 0.7})
    curve = Curve("iou", (first, second), "IoU")
    assert read_curve(curve) == ([1.0, 3.0, 4.0], [0.5, 0.6, 0.7])
    drawn = training_curves({"volume": [curve]}).axes[0].lines[0]
    assert drawn.get_xydata().tolist() == [[1.0, 0.5], [3.0, 0.6], [4.0, 0.7]]


def test_a_number_that_was_not_logged_is_named(tmp_path):
    path = log(tmp_path / "log.jsonl", {"minutes": 1.0, "loss": 0.5})
    with pytest.raises(InputError, match="no 'psnr'.*minutes, loss"):
        read_curve(Curve("psnr", (path,), "PSNR"))
    with pytest.raises(InputError, match="no log of a training"):
        read_curve(Curve("psnr", (tmp_path / "none.jsonl",), "PSNR"))


def test_errors_are_averaged_over_objects():
    figure = by_azimuth([0.0, 180.0], {"front": np.array([[20.0, 10.0], [22.0, 14.0]])}, "PSNR, dB")
    assert figure.axes[0].lines[0].get_ydata().tolist() == [21.0, 12.0]

"""Comparisons of stage 3 under several settings: same volume, same seeds, differences of pairs."""

import shutil
from pathlib import Path

import pytest
import torch

from geodream_lib.data import data_folder
from geodream_lib.lab.compare import compare, difference, format_comparison, roughness, ways
from geodream_lib.run import create_run, slug
from geodream_lib.samples import SAMPLE

PROMPT = "a red mushroom on a log"


def test_what_all_pairs_share_does_not_blur_their_difference() -> None:
    easy_and_hard = [0.1, 0.9, 0.2, 0.8]
    one = difference([value + 0.01 for value in easy_and_hard], easy_and_hard)
    assert one.mean == pytest.approx(0.01) and one.error == pytest.approx(0, abs=1e-9) and one.above == 1


def test_roughness_is_the_angle_between_neighbours() -> None:
    up, side = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.0])
    flat = up.expand(1, 4, 4, 3).clone()
    solid = torch.ones(1, 4, 4)
    assert roughness(flat, solid) == pytest.approx(0, abs=1e-3)
    striped = flat.clone()
    striped[:, :, ::2] = side
    assert roughness(striped, solid) == pytest.approx(45)  # 90 degrees along the rows, none along the columns
    striped_outside = solid.clone()
    striped_outside[:, :, ::2] = 0.5
    assert roughness(striped, striped_outside) == pytest.approx(0, abs=1e-3)


def test_ways_of_the_schedules_move_as_much_on_average() -> None:
    schedules = ways("schedules")
    assert schedules["paper"] == {} and set(schedules["constant"].values()) == {1.0}
    assert schedules["constant average"]["refine.schedules.volume"] == pytest.approx((0.1 + 1) / 2, abs=0.01)


@pytest.mark.slow
def test_a_comparison_starts_all_ways_from_one_volume_and_is_not_repeated(tmp_path: Path) -> None:
    begun = create_run(PROMPT, tmp_path / slug(PROMPT) / "start")
    for name in ("reference.png", "volume.ply", "volume.safetensors"):
        shutil.copy(data_folder() / "samples" / SAMPLE / name, begun.folder)
    shutil.copytree(data_folder() / "samples" / SAMPLE / "views", begun.views)
    scores = compare("guidance", [PROMPT], 1, tmp_path, {"refine.steps": 2})
    assert list(scores) == ["start", "vsd", "sds"]
    (vsd,), (sds,) = scores["vsd"], scores["sds"]
    assert vsd["chamfer"] == pytest.approx(sds["chamfer"], abs=2e-3)  # two steps hardly move the shape
    assert vsd["cosine"] != sds["cosine"]
    assert "sds - vsd" in format_comparison(scores)
    written = (tmp_path / slug(PROMPT) / "sds-0" / "neus" / "field.safetensors").stat().st_mtime_ns
    assert compare("guidance", [PROMPT], 1, tmp_path, {"refine.steps": 2}) == scores
    assert (tmp_path / slug(PROMPT) / "sds-0" / "neus" / "field.safetensors").stat().st_mtime_ns == written

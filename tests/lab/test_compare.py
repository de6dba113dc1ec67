"""Comparisons of stage 3 under several settings: same volume, same seeds, differences of pairs."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from geodream_lib.data import data_folder
from geodream_lib.guidance import load_denoiser
from geodream_lib.lab.compare import TILE, branch, difference, main, roughness, rows, ways
from geodream_lib.presets import load_preset
from geodream_lib.run import Run, create_run, slug
from geodream_lib.samples import SAMPLE
from geodream_lib.storage import read_json
from geodream_lib.weights.folder import network_path

PROMPT = "a red mushroom on a log"
SHORT = {"refine.steps": "2"}


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


def test_ways_of_the_networks_are_two_sisters_and_one_in_both_roles() -> None:
    pair, copy = (load_preset("lab", way) for way in ways("networks").values())
    sisters = [load_denoiser(network_path(name)) for name in (pair.text_to_image, pair.lora)]
    assert [sister.scheduler.config.prediction_type for sister in sisters] == ["epsilon", "v_prediction"]
    assert copy.text_to_image == pair.lora and not copy.lora


def test_ways_of_the_janus_problem_are_with_and_without_prior_and_words() -> None:
    asked = {name: load_preset("lab", {k: str(v) for k, v in way.items()}) for name, way in ways("janus").items()}
    switches = {name: (preset.volume.prior, preset.refine.guidance.view_words) for name, preset in asked.items()}
    assert switches == {
        "prior": (True, True),
        "no prior": (False, True),
        "prior, no words": (True, False),
        "no prior, no words": (False, False),
    }


@pytest.fixture
def begun(tmp_path: Path) -> Run:
    """The sample's run as far as its volume."""
    run = create_run(PROMPT, tmp_path / "guidance" / slug(PROMPT) / "start", overrides=SHORT)
    sample = data_folder() / "samples" / SAMPLE
    for name in ("reference.png", "volume.ply", "volume.safetensors"):
        shutil.copy(sample / name, run.folder)
    shutil.copytree(sample / "views", run.views)
    return run


@pytest.mark.slow
def test_a_way_without_the_prior_shares_the_views_and_not_the_volume(begun: Run, tmp_path: Path) -> None:
    volumes = [
        branch(begun, tmp_path / slug(name), 0, SHORT | way).volume.read_bytes()
        for name, way in ways("janus").items()
        if "words" not in name
    ]
    assert volumes[0] == begun.volume.read_bytes() != volumes[1]
    assert (tmp_path / "no-prior" / "reference.png").read_bytes() == (begun.folder / "reference.png").read_bytes()


@pytest.mark.slow
def test_the_command_starts_all_ways_from_one_volume_and_does_not_repeat_itself(begun, tmp_path, monkeypatch, caplog):
    (tmp_path / "prompts.txt").write_text(PROMPT)
    arguments = ["compare", "guidance", "--prompts", str(tmp_path / "prompts.txt"), "--seeds", "1"]
    arguments += ["--set", "refine.steps=2", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    with caplog.at_level("INFO"):
        main()
    scores = read_json(tmp_path / "guidance" / "scores.json")
    assert list(scores) == ["start", "vsd", "sds"]
    (vsd,), (sds,) = scores["vsd"], scores["sds"]
    assert vsd["chamfer"] == pytest.approx(sds["chamfer"], abs=2e-3)  # two steps hardly move the shape
    assert vsd["cosine"] != sds["cosine"]
    assert "vsd - start: " in caplog.text and "sds - vsd: " in caplog.text and "sds - start" not in caplog.text

    field = tmp_path / "guidance" / slug(PROMPT) / "sds-0" / "neus" / "field.safetensors"
    written = field.stat().st_mtime_ns
    main()
    assert read_json(tmp_path / "guidance" / "scores.json") == scores and field.stat().st_mtime_ns == written
    with Image.open(tmp_path / "guidance" / "seen.png") as picture:
        assert 3 * TILE < picture.height < 4 * TILE, "a title, and a row for the start and for each way"


def test_a_row_is_colour_and_then_normals_from_four_sides(begun: Run, tmp_path: Path) -> None:
    for way in ("vsd-0", "sds-0"):
        shutil.copytree(begun.folder, begun.folder.with_name(way))
    pictures = rows("guidance", PROMPT, begun.folder.parents[1])
    assert list(pictures) == ["start", "vsd", "sds"] and len(pictures["vsd"]) == 8
    front, left = pictures["vsd"][[4, 5]]  # the normals of the front point along +x, which is red
    assert front[40:90, 50:78, 0].mean() > left[40:90, 50:78, 0].mean()

"""Presets: the paper's and the released numbers, both readings explained, every setting within reach of a user."""

import json
from dataclasses import replace

import numpy as np
import pytest

from geodream_lib.errors import InputError
from geodream_lib.presets import PRESETS, differences, load_preset, released
from geodream_lib.presets.fidelity import REASONS
from geodream_lib.presets.paper import CUBE
from geodream_lib.views import pose_cameras, released_viewpoints
from geodream_lib.volume import normalize_cameras
from geodream_lib.weights import network_path


@pytest.mark.parametrize("name", PRESETS)
def test_every_difference_says_what_it_does(name):
    """`differences` looks each reason up, so a change without one fails here; and `released` only changes those."""
    assert {difference.setting for difference in differences(load_preset(name))} <= REASONS.keys()
    assert released(released(load_preset(name))) == released(load_preset(name))


def test_no_reason_is_given_for_what_is_the_same():
    assert {difference.setting for difference in differences(load_preset("paper"))} == REASONS.keys()


def test_the_paper_says_volume_slow_first_and_the_release_full_rate_first():
    paper, code = load_preset("paper").refine, load_preset("paper", fidelity="released").refine
    first, last = 0, paper.steps - 1
    assert paper.schedules["volume"].value(first) < paper.schedules["volume"].value(last)
    assert paper.schedules["texture"].value(first) > paper.schedules["texture"].value(last)
    assert code.schedules["volume"].value(first) == 1.0 > code.schedules["volume"].value(3500)


def test_released_rates_are_the_released_curves(golden):
    """The released scheduler's own output, batch by batch: rates of the volume and of encoding and decoder."""
    curves = json.loads((golden / "vsd" / "lr_schedule_stage1.json").read_text())
    refine = load_preset("paper", fidelity="released").refine
    for group, names in {"geometry": ["volume"], "texture": ["encoding", "texture"]}.items():
        for step, *rates in curves[group]["rows"]:
            ours = [refine.rates[name] * refine.schedules[name].value(step) for name in names]
            assert sorted(ours) == pytest.approx(sorted(rates[: len(ours)]), rel=1e-6), (group, step)


def test_distances_of_refinement_are_those_of_the_released_cube():
    """1.0 to 1.5 half cubes, in a world where the source views' cameras are 1.2 away."""
    settings = load_preset("paper", fidelity="released").views
    cameras = pose_cameras(released_viewpoints("text"), 0.0, settings.radius, settings.fov_y, settings.size)
    _, to_world = normalize_cameras(cameras[0], cameras)
    assert np.cbrt(np.linalg.det(to_world[:3, :3].numpy())) == pytest.approx(CUBE, abs=1e-3)


def test_a_smaller_gpu_gets_the_same_method():
    """`colab` differs from `paper` in sizes and lengths, and has one Stable Diffusion in both roles of VSD."""
    paper, colab = load_preset("paper"), load_preset("colab")
    assert colab.lora == "" and colab.views == paper.views and colab.volume == paper.volume
    assert colab.refine.rates == paper.refine.rates
    assert colab.refine.steps < paper.refine.steps and colab.mesh.grid_resolution < paper.mesh.grid_resolution


def test_a_number_for_a_schedule_is_the_ablation_of_it():
    refine = load_preset("lab", {"refine.schedules.volume": "1"}).refine
    assert {refine.schedules["volume"].value(step) for step in range(0, refine.steps, 7)} == {1.0}


def test_a_schedule_of_ones_own_is_typed_by_its_corners():
    refine = load_preset("lab", {"refine.schedules.volume": "0:0.1 0.5:1 1:0.3"}).refine
    volume = refine.schedules["volume"].scaled(refine.steps)
    assert [volume.value(part * refine.steps) for part in (0, 0.5, 1)] == [0.1, 1.0, 0.3]
    with pytest.raises(InputError, match="not a schedule"):
        load_preset("lab", {"refine.schedules.volume": "0:0.1 2:1"})


def test_what_is_off_by_default_can_be_switched_on_and_off():
    assert load_preset("lab", {"refine.guidance.lora_warmup": 64}).refine.guidance.lora_warmup == 64
    assert load_preset("lab", {"refine.guidance.lora_warmup": 0}).refine.guidance.lora_warmup == 0


@pytest.mark.parametrize(
    ("setting", "value", "wrong"),
    [
        ("views.drop_noisiest", "maybe", "expected true or false"),
        ("views.predictor", "dalle", "choose one of zero123, zero123plus"),
        ("volume.statistics", "mean", "choose one of batch, running"),
        ("precision", "half", "choose one of float32, float16, bfloat16"),
        ("device", "gpu", "expected cpu, cuda or cuda:N"),
        ("refine.size", "large", "expected float"),
    ],
)
def test_a_wrong_value_names_the_choices(setting, value, wrong):
    with pytest.raises(InputError, match=wrong):
        load_preset("paper", {setting: value})


@pytest.mark.parametrize("fidelity", ["paper", "released"])
@pytest.mark.parametrize("image", [False, True])
def test_the_lab_ships_every_network_that_either_reading_loads(fidelity: str, image: bool):
    for name in load_preset("lab", fidelity=fidelity).networks(image):
        assert network_path(name).exists(), name


def test_unknown_fidelity_names_the_two():
    with pytest.raises(InputError, match="choose one of paper, released"):
        load_preset("paper", fidelity="code")


def test_only_the_paper_s_batches_are_replaced():
    """The lab's batches are its own: in the released reading they stay."""
    lab = load_preset("lab")
    assert released(lab).mesh.geometry.batch_size == lab.mesh.geometry.batch_size
    assert released(replace(lab, name="paper")).mesh.geometry.batch_size == 8

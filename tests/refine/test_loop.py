"""One loop for stages 3 and 4: it follows guidance, schedules and terms, and looking on changes nothing."""

import json
from pathlib import Path

import pytest
import torch

from geodream_lib.cameras import orbit
from geodream_lib.errors import InputError
from geodream_lib.presets import PRESETS, load_preset
from geodream_lib.refine import Refinement
from geodream_lib.scenes import Particles
from geodream_lib.schedules import constant


@pytest.mark.needs_golden("vsd")
def test_a_preview_needs_no_step_and_changes_nothing(make):
    refinement, cameras = make(), orbit([0.0], [15.0], 2.8, 40.0, 16)
    before = refinement.preview(cameras)
    assert not refinement.scene.occupancy.any() and refinement.step_number == 0
    refinement.scene.measure_occupancy()
    for kind, images in refinement.preview(cameras).items():
        torch.testing.assert_close(images, before[kind], rtol=0, atol=0)


@pytest.mark.needs_golden("vsd")
def test_the_second_network_follows_renders_of_before(make):
    """It takes `lora_steps` steps for one of the field, and warms up on renders of the start before the first."""
    refinement = make()
    steps = []
    refinement.second.optimizer.register_step_post_hook(lambda *_: steps.append(len(refinement.second.renders)))
    refinement.step()
    warm_up = 16  # renders of the start
    assert steps == [warm_up, warm_up, warm_up + 1], "one of the warm-up, the step's own, one more from what is kept"
    refinement.step()
    assert len(steps) == 5 and len(refinement.second.renders) == warm_up + 2
    assert "lora_gain" in refinement.history[0] and "lora_gain" not in refinement.history[1]


@pytest.mark.needs_golden("vsd")
def test_of_several_particles_one_moves_at_a_time_and_all_in_the_end(make, settings):
    scenes = [make().scene for _ in range(3)]
    refinement = make()
    refinement = Refinement(Particles(scenes), refinement.guidance, settings, torch.Generator().manual_seed(3))

    def tables() -> list[torch.Tensor]:
        return [scene.field.encoding.table.detach().clone() for scene in scenes]

    start, moved = tables(), set()
    for _ in range(settings.steps):
        before = tables()
        refinement.step()
        moving = [i for i, after in enumerate(tables()) if not torch.equal(after, before[i])]
        assert len(moving) == 1
        moved |= set(moving)
    assert moved == {0, 1, 2}, "with this seed all are drawn within six steps"
    assert all(not torch.equal(now, then) for now, then in zip(tables(), start, strict=True))
    assert len(refinement.preview(orbit([0.0], 15.0, 2.75, 40.0, 8))) == 3 * 2


@pytest.mark.needs_golden("vsd")
def test_looking_at_a_run_does_not_change_it(make):
    watched, alone = make(), make()
    cameras = orbit([0.0, 90.0], 15.0, 2.75, 40.0, 8)

    def look(refinement: Refinement) -> None:
        pictures = refinement.preview(cameras)
        assert {name: tuple(picture.shape) for name, picture in pictures.items()} == {
            "colour": (2, 8, 8, 3),
            "normals": (2, 8, 8, 3),
        }

    watched.run(callback=look)
    alone.run()
    assert watched.history == alone.history


@pytest.mark.needs_golden("vsd")
def test_rates_follow_the_schedules_stretched_to_the_run(make, settings):
    refinement = make()
    for step in range(3):
        record = refinement.step()
        expected = {
            "volume": 1e-2 * (0.1 + 0.9 * step / settings.steps),
            "encoding": 1e-2 * (1 - 0.95 * step / settings.steps),
            "texture": 1e-2,
            "background": 1e-3,
        }
        assert {group["name"]: group["lr"] for group in refinement.optimizer.param_groups} == pytest.approx(expected)
        (second,) = refinement.second.optimizer.param_groups
        assert second["lr"] == pytest.approx(settings.guidance.lora_rate * (1 - step / settings.steps))
        assert {name: record[f"rate.{name}"] for name in expected} == pytest.approx(expected)


def test_the_loop_goes_where_the_guidance_points(dot, towards, tmp_path: Path):
    refinement = dot(towards(0.0))
    refinement.run_saved(tmp_path / "checkpoint.safetensors", tmp_path / "log.jsonl", "dot")
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(losses) == 8 and losses[:5] == sorted(losses[:5], reverse=True) and losses[-1] < losses[0] / 10


def test_terms_of_the_scene_enter_the_loss_by_their_weight(dot, towards):
    plain, weighted = dot(towards(0.5)), dot(towards(0.5), weights={"darkness": constant(2.0)})
    assert weighted.step()["loss"] == pytest.approx(plain.step()["loss"] + 2 * 0.5)
    assert plain.scene.color.tolist() == [0.5] * 3 and weighted.scene.color.min() > 0.5


def test_the_coupled_prior_pulls_by_its_weight_and_the_method_has_none(dot, towards):
    """Magic123's design beside the paper's: a second loss on the same renders."""

    def brighter(images, azimuth, elevation, t_range, generator) -> torch.Tensor:
        return (images - 2).square().mean()

    alone, coupled = dot(towards(0.5)), dot(towards(0.5), prior_weight=constant(0.1))
    coupled.prior = brighter
    assert coupled.step()["loss"] == pytest.approx(alone.step()["loss"] + 0.1 * 1.5**2)
    assert coupled.scene.color.min() > 0.5 and alone.scene.color.tolist() == [0.5] * 3
    for name in PRESETS:
        preset = load_preset(name)
        for stage in (preset.refine, preset.mesh.geometry, preset.mesh.texture):
            assert stage.prior_weight == constant(0.0)


def test_a_rate_or_schedule_for_nothing_is_refused(dot):
    with pytest.raises(InputError, match=r"no parameter group \['shape'\]; this stage has color"):
        dot(rates={"color": 0.1, "shape": 0.1})
    with pytest.raises(InputError, match=r"no parameter group \['shape'\]"):
        dot(schedules={"shape": constant()})

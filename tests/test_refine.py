"""The loop of Algorithm 1: killed and resumed it gives the same bits, and it never steps off the finite."""

import errno
import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from geodream_lib import storage
from geodream_lib.cameras import Cameras, orbit
from geodream_lib.errors import InputError
from geodream_lib.field import HashEncoding, NeuSField
from geodream_lib.guidance import (
    Guided,
    LatentDiffusion,
    SDSGuidance,
    ViewPrompts,
    VSDGuidance,
    add_camera_lora,
    encode_prompts,
    load_diffusion,
    lora_state,
)
from geodream_lib.presets import PRESETS, Field, Guidance, Refine, load_preset
from geodream_lib.refine import Refinement
from geodream_lib.scenes import FieldScene, Particles, Shot
from geodream_lib.schedules import annealed, constant, paper_texture, paper_volume
from geodream_lib.storage import load_tensors, save_tensors
from geodream_lib.volume import GeometryDecoder

STEPS, HALF = 6, 3
SETTINGS = Refine(
    steps=STEPS,
    batch_size=1,
    size=annealed(2, 8, 12, 2, STEPS),
    rates={"volume": 1e-2, "encoding": 1e-2, "texture": 1e-2, "background": 1e-3},
    schedules={"volume": paper_volume(320), "encoding": paper_texture(320), "lora": annealed(0, 1, 0, 10, 10)},
    t_max=annealed(2, 0.98, 0.5, 2, STEPS),
    weights={"sparsity": constant(0.1)},
    guidance=Guidance(lora_rank=2, lora_steps=2, lora_warmup=1),
    checkpoint_steps=HALF,
)
# Half of the steps is no multiple of the occupancy's interval: what was measured at step 2 is used at step 3.
FIELD = Field(
    levels=2, log2_table=8, samples_per_ray=12, occupancy_resolution=8, occupancy_steps=2, random_background=0.5
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def diffusion(golden: Path) -> LatentDiffusion:
    diffusion = load_diffusion(golden / "vsd" / "sd_base")
    diffusion.denoiser.unet.register_to_config(sample_size=8)  # convolutions fit any size, and this one is fast
    return diffusion


@pytest.fixture
def make(diffusion: LatentDiffusion):
    """A new refinement of a small field under VSD, always the same."""

    def fresh() -> Refinement:
        torch.manual_seed(0)
        volume = 0.1 * torch.randn(4, 6, 6, 6)
        encoding = HashEncoding(FIELD.levels, 2, FIELD.log2_table)
        decoder = GeometryDecoder(hidden=8, latent=4)
        for parameter in decoder.parameters():  # a new decoder is a sphere that ignores the volume
            parameter.data += 0.02 * torch.randn_like(parameter)
        field = NeuSField(volume, decoder, 20.0, encoding, texture_hidden=8)
        generator = seeded(7)
        lora = add_camera_lora(diffusion.denoiser, generator, SETTINGS.guidance.lora_rank)
        prompts = encode_prompts(diffusion, ViewPrompts("a red mushroom"))
        return Refinement(FieldScene(field, FIELD), VSDGuidance(diffusion, lora, prompts), SETTINGS, generator)

    return fresh


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own answer to Ctrl-C, also where the tests run in the background, whose processes ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Killed(Exception):
    """The process ended here."""


class Dot(nn.Module):
    """The smallest scene: one colour on every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.color = nn.Parameter(torch.full((3,), 0.5))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"color": [self.color]}

    def forward(self, cameras: Cameras, step: int, generator: torch.Generator) -> Shot:
        images = self.color.expand(len(cameras), cameras.height, cameras.width, 3)
        return Shot(images, {"darkness": (1 - images).mean()})

    def preview(self, cameras: Cameras) -> dict[str, torch.Tensor]:
        return {"colour": self.color.expand(len(cameras), cameras.height, cameras.width, 3)}


class Towards:
    """A guidance that only wants images of one value; from a given call on its loss or its gradient is broken."""

    def __init__(self, value: float = 1.0, broken: str = "", after: int = 0) -> None:
        self.value, self.broken, self.left = value, broken, after

    def __call__(self, images, cameras_c2w, azimuth, elevation, t_range, generator) -> Guided:
        loss = (images - self.value).square().mean()
        if self.left == 0 and self.broken == "loss":
            loss = loss * float("nan")
        if self.left == 0 and self.broken == "gradient":
            loss = loss + (images * 0).sum().sqrt()  # value 0, slope infinite times zero
        self.left -= 1
        return Guided(loss, torch.tensor(1.0), torch.zeros(len(images), dtype=torch.long), torch.zeros(1, 1, 1, 1))


def dot(guidance: Towards | None = None, **changes: object) -> Refinement:
    settings = {"steps": 8, "batch_size": 1, "size": constant(2), "rates": {"color": 0.1}, "checkpoint_steps": 2}
    return Refinement(Dot(), guidance or Towards(), Refine(**settings | changes), seeded())


def test_a_preview_needs_no_step_and_changes_nothing(make):
    refinement, cameras = make(), orbit([0.0], [15.0], 2.8, 40.0, 16)
    before = refinement.preview(cameras)
    assert not refinement.scene.occupancy.any() and refinement.step_number == 0
    refinement.scene.measure_occupancy()
    for kind, images in refinement.preview(cameras).items():
        torch.testing.assert_close(images, before[kind], rtol=0, atol=0)


@pytest.mark.needs_golden("vsd")
def test_killed_and_resumed_gives_the_same_bits_as_never_stopped(make, tmp_path: Path):
    """All of it: parameters, second network, both optimisers, generator, log."""

    def killed(refinement: Refinement) -> None:
        if refinement.step_number == STEPS - 1:
            raise Killed

    whole = make()
    whole.run_saved(tmp_path / "whole.safetensors", tmp_path / "whole.jsonl", "refine")
    checkpoint, log = tmp_path / "checkpoint.safetensors", tmp_path / "log.jsonl"
    with pytest.raises(Killed):
        make().run_saved(checkpoint, log, "refine", killed)
    assert load_tensors(checkpoint)[1]["step"] == str(HALF)
    with log.open("a") as file:
        file.write('{"stage": "refine", "st')  # the line that was being written
    resumed = make()
    seen: list[int] = []
    resumed.run_saved(checkpoint, log, "refine", lambda refinement: seen.append(refinement.step_number))
    assert seen == list(range(HALF + 1, STEPS + 1))

    whole.save(tmp_path / "a.safetensors")
    resumed.save(tmp_path / "b.safetensors")
    (a, _), (b, _) = load_tensors(tmp_path / "a.safetensors"), load_tensors(tmp_path / "b.safetensors")
    prefixes = {name.split(".")[0] for name in a}
    assert prefixes == {"scene", "optimizer", "lora", "lora_optimizer", "renders", "generator"} and a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
    assert log.read_text() == (tmp_path / "whole.jsonl").read_text()

    start = make()
    for name, group in start.scene.parameter_groups().items():
        after = whole.scene.parameter_groups()[name]
        moved = any(not torch.equal(p, q) for p, q in zip(group, after, strict=True))
        assert moved, f"nothing was tested: {name} did not move"


@pytest.mark.parametrize("interrupts", [1, 2])
def test_an_interrupt_waits_for_the_end_of_a_step_and_a_second_one_does_not(interrupts: int, ctrl_c):
    refinement, ended = dot(), []

    def pressed(refinement: Refinement) -> None:
        for _ in range(interrupts if refinement.step_number == 3 else 0):
            signal.raise_signal(signal.SIGINT)
        ended.append(refinement.step_number)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        refinement.run(callback=pressed)
    assert ended == [1, 2, 3][: 4 - interrupts] and signal.getsignal(signal.SIGINT) is before
    refinement.run()
    whole = dot()
    whole.run()
    assert torch.equal(refinement.scene.color, whole.scene.color) and refinement.history == whole.history


@pytest.mark.needs_golden("vsd")
def test_an_interrupted_run_leaves_what_it_needs_to_go_on_from_its_last_step(make, tmp_path: Path, ctrl_c):
    checkpoint, log = tmp_path / "checkpoint.safetensors", tmp_path / "log.jsonl"

    def pressed(refinement: Refinement) -> None:
        if refinement.step_number == HALF - 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        make().run_saved(checkpoint, log, "refine", pressed)
    assert load_tensors(checkpoint)[1]["step"] == str(HALF - 1)
    resumed, whole = make(), make()
    resumed.run_saved(checkpoint, log, "refine")
    whole.run()
    assert len(log.read_text().splitlines()) == STEPS
    assert resumed.history == whole.history[HALF - 1 :]
    for parameter, expected in zip(resumed.scene.parameters(), whole.scene.parameters(), strict=True):
        assert torch.equal(parameter, expected)


@pytest.mark.needs_golden("vsd")
def test_a_fork_without_changes_has_the_same_future_and_neither_sees_the_other(make):
    whole, parent = make(), make()
    whole.run()
    parent.run(HALF)
    fork = parent.fork()
    fork.run()
    assert parent.step_number == HALF and fork.history == whole.history
    parent.run()
    for refinement in (parent, fork):
        for name, tensor in refinement.scene.state_dict().items():
            assert torch.equal(tensor, whole.scene.state_dict()[name]), name
        for name, tensor in lora_state(refinement.guidance.lora).items():
            assert torch.equal(tensor, lora_state(whole.guidance.lora)[name]), name
    shared, own = fork.guidance.lora.unet.conv_in.weight, parent.guidance.lora.unet.conv_in.weight
    assert shared is own, "frozen weights are not copied"


@pytest.mark.needs_golden("vsd")
def test_a_fork_goes_its_own_way_from_the_step_of_the_change(make):
    parent = make()
    parent.run(HALF)
    schedules = parent.settings.schedules | {"volume": constant(0.0)}
    still = parent.fork(schedules=schedules)
    start = still.scene.field.volume.detach().clone()
    still.run()
    parent.run()
    # AdamW moves by its rate alone: at zero nothing moves, whatever the gradient.
    assert torch.equal(still.scene.field.volume, start) and not torch.equal(parent.scene.field.volume, start)
    assert still.history[:HALF] == parent.history[:HALF]
    assert still.history[HALF]["loss"] == parent.history[HALF]["loss"], "the same cameras and the same noise"


@pytest.mark.needs_golden("vsd")
def test_a_fork_may_change_its_guidance_in_both_directions(make):
    parent = make()
    parent.run(1)
    guidance = parent.guidance
    plain = parent.fork(guidance=SDSGuidance(guidance.diffusion, guidance.prompts, scale=7.5))
    plain.run(1)
    assert "lora" in parent.history[-1] and "lora" not in plain.history[-1]
    back = plain.fork(guidance=guidance)
    back.run(1)
    assert "lora" in back.history[-1] and len(back.history) == 3
    stronger = parent.fork(guidance=replace(guidance, scale=50.0))
    stronger.run(1)
    parent.run(1)
    assert stronger.history[-1]["guidance"] > parent.history[-1]["guidance"]


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
def test_of_several_particles_one_moves_at_a_time_and_all_in_the_end(make):
    scenes = [make().scene for _ in range(3)]
    refinement = make()
    refinement = Refinement(Particles(scenes), refinement.guidance, SETTINGS, seeded(3))

    def tables() -> list[torch.Tensor]:
        return [scene.field.encoding.table.detach().clone() for scene in scenes]

    start, moved = tables(), set()
    for _ in range(STEPS):
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


def test_a_checkpoint_goes_on_under_other_settings_and_says_which(tmp_path: Path, caplog):
    refinement = dot()
    refinement.run(2)
    refinement.save(tmp_path / "checkpoint.safetensors")
    other = dot(rates={"color": 0.05})
    with caplog.at_level("INFO"):
        other.load(tmp_path / "checkpoint.safetensors")
    assert "from step 2 on with other settings: rates.color" in caplog.text
    other.run()
    assert other.history[0]["rate.color"] == 0.05


@pytest.mark.needs_golden("vsd")
def test_rates_follow_the_schedules_stretched_to_the_run(make):
    refinement = make()
    for step in range(3):
        record = refinement.step()
        expected = {
            "volume": 1e-2 * (0.1 + 0.9 * step / STEPS),
            "encoding": 1e-2 * (1 - 0.95 * step / STEPS),
            "texture": 1e-2,
            "background": 1e-3,
        }
        assert {group["name"]: group["lr"] for group in refinement.optimizer.param_groups} == pytest.approx(expected)
        (second,) = refinement.second.optimizer.param_groups
        assert second["lr"] == pytest.approx(SETTINGS.guidance.lora_rate * (1 - step / STEPS))
        assert {name: record[f"rate.{name}"] for name in expected} == pytest.approx(expected)


def test_the_loop_goes_where_the_guidance_points(tmp_path: Path):
    refinement = dot(Towards(0.0))
    refinement.run_saved(tmp_path / "checkpoint.safetensors", tmp_path / "log.jsonl", "dot")
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(losses) == 8 and losses[:5] == sorted(losses[:5], reverse=True) and losses[-1] < losses[0] / 10


def test_terms_of_the_scene_enter_the_loss_by_their_weight():
    plain, weighted = dot(Towards(0.5)), dot(Towards(0.5), weights={"darkness": constant(2.0)})
    assert weighted.step()["loss"] == pytest.approx(plain.step()["loss"] + 2 * 0.5)
    assert plain.scene.color.tolist() == [0.5] * 3 and weighted.scene.color.min() > 0.5


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_what_is_not_finite_stops_the_run_before_the_parameters_move(broken: str, tmp_path: Path):
    checkpoint, log = tmp_path / "checkpoint.safetensors", tmp_path / "log.jsonl"
    refinement = dot(Towards(broken=broken, after=5))
    before: list[torch.Tensor] = []
    with pytest.raises(FloatingPointError, match=f"step 5: .*{broken}.* not finite; lower the rates"):
        refinement.run_saved(checkpoint, log, "dot", lambda r: before.append(r.scene.color.detach().clone()))
    assert torch.equal(refinement.scene.color, before[-1]) and refinement.step_number == 5
    assert load_tensors(checkpoint)[1]["step"] == "4" and len(log.read_text().splitlines()) == 5
    # With the cause mended, the same run goes on from the checkpoint.
    mended = dot(Towards())
    mended.run_saved(checkpoint, log, "dot")
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(8)) and torch.isfinite(mended.scene.color).all()


def test_resuming_keeps_the_log_of_other_stages(tmp_path: Path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"stage": "other", "step": 7}\n{"stage": "dot", "step": 0}\n')
    dot().run_saved(tmp_path / "checkpoint.safetensors", log, "dot")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in lines] == [("other", 7)] + [("dot", step) for step in range(8)]


@pytest.mark.parametrize("failing", ["save_file", "replace"])
def test_a_full_disk_leaves_the_earlier_checkpoint_as_it_was(failing: str, tmp_path: Path, monkeypatch):
    checkpoint = tmp_path / "checkpoint.safetensors"
    refinement = dot()
    refinement.step()
    refinement.save(checkpoint)
    before = checkpoint.read_bytes()

    def full(*arguments: object, **options: object) -> None:
        if failing == "save_file":
            Path(arguments[1]).write_bytes(b"the beginning of")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*{"save_file": (storage, "save_file"), "replace": (Path, "replace")}[failing], full)
    refinement.step()
    with pytest.raises(InputError, match="cannot write .*No space left.*free some space .*untouched"):
        refinement.save(checkpoint)
    assert checkpoint.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name]


def test_a_checkpoint_that_is_damaged_or_foreign_is_refused(tmp_path: Path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    refinement = dot()
    refinement.step()
    refinement.save(checkpoint)
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[:-4])
    with pytest.raises(InputError, match="truncated.* delete it to have it made again"):
        dot().load(checkpoint)
    save_tensors(checkpoint, {"scene.color": torch.zeros(3)})
    with pytest.raises(InputError, match="is not a checkpoint of a refinement; delete it"):
        dot().load(checkpoint)
    tensors = {"scene.shape": torch.zeros(3), "generator": seeded().get_state()}
    save_tensors(checkpoint, tensors, {"step": "1"})
    with pytest.raises(InputError, match="does not fit Dot: missing color; unknown shape"):
        dot().load(checkpoint)


def test_the_coupled_prior_pulls_by_its_weight_and_the_method_has_none():
    """Magic123's design beside the paper's: a second loss on the same renders."""

    def brighter(images, azimuth, elevation, t_range, generator) -> torch.Tensor:
        return (images - 2).square().mean()

    alone, coupled = dot(Towards(0.5)), dot(Towards(0.5), prior_weight=constant(0.1))
    coupled.prior = brighter
    assert coupled.step()["loss"] == pytest.approx(alone.step()["loss"] + 0.1 * 1.5**2)
    assert coupled.scene.color.min() > 0.5 and alone.scene.color.tolist() == [0.5] * 3
    for name in PRESETS:
        preset = load_preset(name)
        for stage in (preset.refine, preset.mesh.geometry, preset.mesh.texture):
            assert stage.prior_weight == constant(0.0)


def test_a_rate_or_schedule_for_nothing_is_refused():
    with pytest.raises(InputError, match=r"no parameter group \['shape'\]; this stage has color"):
        dot(rates={"color": 0.1, "shape": 0.1})
    with pytest.raises(InputError, match=r"no parameter group \['shape'\]"):
        dot(schedules={"shape": constant()})

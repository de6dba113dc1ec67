"""Killed and resumed a refinement gives the same bits, and it never steps off the finite."""

import errno
import json
import signal
from pathlib import Path

import pytest
import torch

from geodream_lib import storage
from geodream_lib.errors import InputError
from geodream_lib.refine import Refinement
from geodream_lib.storage import load_tensors, save_tensors


class Killed(Exception):
    """The process ended here."""


@pytest.mark.needs_golden("vsd")
def test_killed_and_resumed_gives_the_same_bits_as_never_stopped(make, settings, tmp_path: Path):
    """All of it: parameters, second network, both optimisers, generator, log."""

    def killed(refinement: Refinement) -> None:
        if refinement.step_number == settings.steps - 1:
            raise Killed

    whole = make()
    whole.run_saved(tmp_path / "whole.safetensors", tmp_path / "whole.jsonl", "refine")
    checkpoint, log = tmp_path / "checkpoint.safetensors", tmp_path / "log.jsonl"
    with pytest.raises(Killed):
        make().run_saved(checkpoint, log, "refine", killed)
    assert load_tensors(checkpoint)[1]["step"] == str(settings.checkpoint_steps)
    with log.open("a") as file:
        file.write('{"stage": "refine", "st')  # the line that was being written
    resumed = make()
    seen: list[int] = []
    resumed.run_saved(checkpoint, log, "refine", lambda refinement: seen.append(refinement.step_number))
    assert seen == list(range(settings.checkpoint_steps + 1, settings.steps + 1))

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
def test_an_interrupt_waits_for_the_end_of_a_step_and_a_second_one_does_not(dot, interrupts: int, ctrl_c):
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
def test_an_interrupted_run_leaves_what_it_needs_to_go_on_from_its_last_step(make, settings, tmp_path: Path, ctrl_c):
    checkpoint, log = tmp_path / "checkpoint.safetensors", tmp_path / "log.jsonl"

    def pressed(refinement: Refinement) -> None:
        if refinement.step_number == settings.checkpoint_steps - 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        make().run_saved(checkpoint, log, "refine", pressed)
    assert load_tensors(checkpoint)[1]["step"] == str(settings.checkpoint_steps - 1)
    resumed, whole = make(), make()
    resumed.run_saved(checkpoint, log, "refine")
    whole.run()
    assert len(log.read_text().splitlines()) == settings.steps
    assert resumed.history == whole.history[settings.checkpoint_steps - 1 :]
    for parameter, expected in zip(resumed.scene.parameters(), whole.scene.parameters(), strict=True):
        assert torch.equal(parameter, expected)


def test_a_checkpoint_goes_on_under_other_settings_and_says_which(dot, tmp_path: Path, caplog):
    refinement = dot()
    refinement.run(2)
    refinement.save(tmp_path / "checkpoint.safetensors")
    other = dot(rates={"color": 0.05})
    with caplog.at_level("INFO"):
        other.load(tmp_path / "checkpoint.safetensors")
    assert "from step 2 on with other settings: rates.color" in caplog.text
    other.run()
    assert other.history[0]["rate.color"] == 0.05


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_what_is_not_finite_stops_the_run_before_the_parameters_move(dot, towards, broken: str, tmp_path: Path):
    checkpoint, log = tmp_path / "checkpoint.safetensors", tmp_path / "log.jsonl"
    refinement = dot(towards(broken=broken, after=5))
    before: list[torch.Tensor] = []
    with pytest.raises(FloatingPointError, match=f"step 5: .*{broken}.* not finite; lower the rates"):
        refinement.run_saved(checkpoint, log, "dot", lambda r: before.append(r.scene.color.detach().clone()))
    assert torch.equal(refinement.scene.color, before[-1]) and refinement.step_number == 5
    assert load_tensors(checkpoint)[1]["step"] == "4" and len(log.read_text().splitlines()) == 5
    # With the cause mended, the same run goes on from the checkpoint.
    mended = dot(towards())
    mended.run_saved(checkpoint, log, "dot")
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(8)) and torch.isfinite(mended.scene.color).all()


def test_resuming_keeps_the_log_of_other_stages(dot, tmp_path: Path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"stage": "other", "step": 7}\n{"stage": "dot", "step": 0}\n')
    dot().run_saved(tmp_path / "checkpoint.safetensors", log, "dot")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in lines] == [("other", 7)] + [("dot", step) for step in range(8)]


@pytest.mark.parametrize("failing", ["save_file", "replace"])
def test_a_full_disk_leaves_the_earlier_checkpoint_as_it_was(dot, failing: str, tmp_path: Path, monkeypatch):
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


def test_a_checkpoint_that_is_damaged_or_foreign_is_refused(dot, tmp_path: Path):
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
    tensors = {"scene.shape": torch.zeros(3), "generator": torch.Generator().get_state()}
    save_tensors(checkpoint, tensors, {"step": "1"})
    with pytest.raises(InputError, match="does not fit Dot: missing color; unknown shape"):
        dot().load(checkpoint)

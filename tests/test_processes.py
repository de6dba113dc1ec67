"""Several processes take the steps of one: two real ones, with gloo on the CPU."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from geodream_lib.errors import InputError
from geodream_lib.processes import Processes, draw_rows
from geodream_lib.storage import load_tensors

SCRIPT = Path(__file__).with_name("two_processes.py")
STEPS = 4


def launch(*arguments: object) -> subprocess.CompletedProcess:
    """The script in two processes; `accelerate launch` starts several on GPUs alone, torchrun does on the CPU."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=540
    )


def test_every_row_is_drawn_once_and_by_the_process_it_belongs_to():
    whole = torch.rand(6, 3, generator=torch.Generator().manual_seed(0))
    parts = []
    for rank in range(3):
        generator = Processes(rank, 3).generator(torch.Generator().manual_seed(0))
        parts.append(draw_rows(lambda rows, g=generator: torch.rand(rows, 3, generator=g), 2, generator))
    assert torch.equal(torch.cat(parts), whole)
    alone = torch.Generator().manual_seed(0)
    assert torch.equal(draw_rows(lambda rows: torch.rand(rows, 3, generator=alone), 6, alone), whole)


def test_a_batch_that_cannot_be_split_is_refused_with_one_that_can():
    assert Processes(1, 2).share(4) == slice(2, 4)
    with pytest.raises(InputError, match="3 cannot be split evenly over 2 processes.*refine.batch_size=4"):
        Processes(0, 2).share(3)


@pytest.mark.slow
@pytest.mark.needs_golden("vsd")
def test_two_processes_take_the_steps_of_one(golden: Path, tmp_path: Path):
    """Same losses, same parameters, same second network, up to the order of sums; the main process alone writes.

    The first step is one process's, and two go on from its checkpoint.
    """
    specification = importlib.util.spec_from_file_location("two_processes", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    alone = module.make(golden, STEPS)
    alone.run(1)
    alone.save(tmp_path / "checkpoint.safetensors")
    alone.run()
    result = launch(golden, tmp_path, STEPS)
    assert result.returncode == 0, result.stderr

    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == list(range(1, STEPS))
    for line, expected in zip(log, alone.history[1:], strict=True):
        for name, value in expected.items():
            assert line[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
    first, second = (load_tensors(tmp_path / f"rank_{rank}.safetensors")[0] for rank in (0, 1))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    other_way = module.make(golden, STEPS)
    other_way.load(tmp_path / "rank_0.safetensors")
    assert other_way.step_number == STEPS
    for name, parameter in alone.scene.named_parameters():
        torch.testing.assert_close(first[f"scene.{name}"], parameter.detach(), atol=2e-3, rtol=1e-3, msg=name)


@pytest.mark.slow
@pytest.mark.needs_golden("vsd")
def test_a_killed_process_ends_the_others_and_the_same_command_goes_on(golden: Path, tmp_path: Path):
    result = launch(golden, tmp_path, STEPS, 1)
    assert result.returncode != 0
    assert load_tensors(tmp_path / "checkpoint.safetensors")[1]["step"] == "2"
    result = launch(golden, tmp_path, STEPS)
    assert result.returncode == 0, result.stderr
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == list(range(STEPS))

"""Checkpoints of training runs are read for their weights alone."""

import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from geodream_lib.checkpoints import read_weights
from geodream_lib.errors import InputError
from geodream_lib.storage import save_tensors
from geodream_lib.weights import network_path

WEIGHTS = {"model.in.weight": torch.randn(3, 4), "model.in.bias": torch.randn(3).half(), "step": torch.tensor(7)}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> type:
    """A class whose objects a checkpoint names as the trainer's own; it is gone when the checkpoint is read."""
    path = "pytorch_lightning.callbacks.model_checkpoint"
    for name in ("pytorch_lightning", "pytorch_lightning.callbacks", path):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    kind = type("ModelCheckpoint", (), {"__module__": path})
    sys.modules[path].ModelCheckpoint = kind
    return kind


@pytest.mark.parametrize("zipped", [True, False])
def test_the_state_dict_of_a_training_checkpoint(tmp_path, trainer, monkeypatch, zipped):
    """The trainer's objects and numbers of numpy are named in it; neither is needed, imported or made."""
    record = trainer()
    record.best = np.float64(0.25)
    content = {
        "epoch": 3,
        "callbacks": {trainer: {"best_model_score": np.float32(0.5), "record": record}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.randn(3, 4)}}, "param_groups": [{"lr": 1e-4}]}],
        "state_dict": WEIGHTS,
    }
    torch.save(content, tmp_path / "model.ckpt", _use_new_zipfile_serialization=zipped)
    for name in list(sys.modules):
        if name.startswith("pytorch_lightning"):
            monkeypatch.delitem(sys.modules, name)
    assert same(read_weights(tmp_path / "model.ckpt"), WEIGHTS)
    assert not any(name.startswith("pytorch_lightning") for name in sys.modules)


def test_a_dict_of_state_dicts_and_safetensors(tmp_path):
    torch.save({"iter_step": 5, "unet": WEIGHTS, "optimizer": {"state": {}, "param_groups": []}}, tmp_path / "a.pth")
    assert same(read_weights(tmp_path / "a.pth"), {f"unet.{name}": tensor for name, tensor in WEIGHTS.items()})
    torch.save(
        {name: torch.nn.Parameter(t, requires_grad=t.is_floating_point()) for name, t in WEIGHTS.items()},
        tmp_path / "b.pt",
    )
    assert same(read_weights(tmp_path / "b.pt"), WEIGHTS)
    assert not any(tensor.requires_grad for tensor in read_weights(tmp_path / "b.pt").values())
    save_tensors(tmp_path / "c.safetensors", WEIGHTS)
    assert same(read_weights(tmp_path / "c.safetensors"), WEIGHTS)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the process's memory from /proc")
def test_a_large_checkpoint_is_mapped_not_copied(tmp_path):
    """The optimiser's state, most of a checkpoint, is never brought to memory."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": WEIGHTS, "optimizer_states": [torch.zeros(25_000_000)]}, path)
    before = resident()
    weights = read_weights(path)
    assert resident() - before < path.stat().st_size / 4
    assert same(weights, WEIGHTS)


def test_files_of_other_kinds_are_named(tmp_path):
    for name, content, message in [
        ("model.bin", {}, "expected a file .safetensors or .ckpt, .pt, .pth"),
        ("list.pt", [torch.zeros(3)], "holds a list; expected tensors by name"),
        ("empty.pt", {"epoch": 3}, "holds no tensors by name"),
        ("sparse.pt", {"w": torch.eye(3).to_sparse()}, "w is of type float32 on cpu, sparse_coo"),
        ("meta.pt", {"w": torch.zeros(3, device="meta")}, "w is of type float32 on meta"),
    ]:
        torch.save(content, tmp_path / name)
        with pytest.raises(InputError, match=message):
            read_weights(tmp_path / name)


def test_where_a_network_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("GEODREAM_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("GEODREAM_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert network_path("lab/zero123") == tmp_path / "lab" / "zero123"
    with pytest.raises(InputError, match="run: geodream weights fetch zero123-xl .*weights convert zero123-xl FILE"):
        network_path("zero123-xl")
    with pytest.raises(InputError, match="run: geodream weights fetch sd21 .*fetch sd21 --from FOLDER"):
        network_path("sd21")
    with pytest.raises(InputError, match="no network at mine"):
        network_path("mine")
    (tmp_path / "mine").mkdir()
    assert network_path("mine") == Path("mine")
    (tmp_path / "weights" / "one2345").mkdir(parents=True)
    (tmp_path / "weights" / "one2345" / "model.safetensors").touch()
    assert network_path("one2345") == tmp_path / "weights" / "one2345" / "model.safetensors"

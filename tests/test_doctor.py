import subprocess
import sys
from pathlib import Path

import pytest
import torch

from geodream_lib import cuda_libraries, doctor
from geodream_lib.data import data_folder
from geodream_lib.errors import InputError
from geodream_lib.storage import save_tensors


@pytest.fixture
def lab(tmp_path, monkeypatch) -> Path:
    """A data folder with whole weights for every lab model."""
    monkeypatch.setenv("GEODREAM_DATA", str(tmp_path))
    for name in doctor.LAB_MODELS:
        save_tensors(tmp_path / "lab" / name / "model.safetensors", {"weight": torch.zeros(10)})
    return tmp_path / "lab"


def by_name() -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.report()}


def test_whole_weights_are_fine(lab):
    assert all(by_name()[f"lab {name}"].status == "ok" for name in doctor.LAB_MODELS)


def test_missing_and_truncated_weights_are_told_apart(lab):
    weights = lab / "zero123" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    check = by_name()["lab zero123"]
    assert check.status == "problem" and "not whole" in check.detail and str(weights) in check.detail
    weights.unlink()
    check = by_name()["lab zero123"]
    assert check.status == "problem" and "no weights" in check.detail and "lab.train zero123" in check.advice


def test_a_full_disk_is_a_problem(lab, monkeypatch):
    monkeypatch.setattr(doctor, "DISK_GB", 1e9)
    assert by_name()["free disk"].status == "problem"


def test_an_untested_version_is_a_problem(lab, monkeypatch):
    monkeypatch.setattr(
        doctor.metadata, "requires", lambda name: ["torch<0.1", "no-such-package>=1", 'ruff; extra == "x"']
    )
    checks = by_name()
    assert "was not tested, expected <0.1" in checks["torch"].detail and checks["torch"].status == "problem"
    assert checks["no-such-package"].detail == "not installed"
    assert "ruff" not in checks, "extras are not required"


def test_the_placeholder_of_kaolin_is_not_taken_for_kaolin(lab, monkeypatch):
    monkeypatch.setattr(cuda_libraries, "find_spec", lambda name: object() if name == "kaolin" else None)
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "0.1")
    assert "placeholder" in by_name()["kaolin"].detail


def test_the_text_has_a_line_for_every_check(lab):
    checks = doctor.report()
    text = doctor.format_report(checks)
    assert all(check.name in text and check.detail in text for check in checks)


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a device they are loaded, to see whether they work")
def test_without_a_device_no_cuda_library_is_imported():
    code = "import sys; from geodream_lib import doctor; doctor.report(); print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not set(cuda_libraries.LIBRARIES) & set(output)


def test_a_missing_data_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("GEODREAM_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="nowhere .GEODREAM_DATA names it"):
        data_folder()
    assert by_name()["lab weights"].status == "problem"

"""Where commands run in tests: away from the user's files and without weights."""

import os
import shutil
import warnings
from pathlib import Path

import pytest
import transformers

from geodream_lib.data import data_folder


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A data folder without weights, an empty working folder; what `main` sets for its process is put back."""
    (tmp_path / "data" / "prompts").mkdir(parents=True)
    shutil.copy(data_folder() / "prompts" / "lexicon.json", tmp_path / "data" / "prompts")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setenv("GEODREAM_DATA", str(tmp_path / "data"))
    transformers.utils.logging.disable_progress_bar()  # `main` does it before the import, too late here
    with warnings.catch_warnings():
        yield


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"

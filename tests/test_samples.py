"""The run that the notebooks look at: their own when there is a finished one, else a copy of the sample."""

import json

import pytest

from geodream_lib.errors import InputError
from geodream_lib.samples import SAMPLE, open_quickstart, quickstart_folder

CONFIG = {"prompt": "a red mushroom on a log", "preset": "lab", "overrides": {}, "seed": 0, "image": None}


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty working directory, and a data folder with a sample run."""
    sample = tmp_path / "data" / "samples" / SAMPLE
    (sample / "views").mkdir(parents=True)
    (sample / "config.json").write_text(json.dumps(CONFIG))
    (sample / "views" / "transforms.json").write_text("{}")
    monkeypatch.setenv("GEODREAM_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("GEODREAM_FAST", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_sample_is_copied_once_and_never_worked_on(workplace):
    run = open_quickstart()
    assert run.is_done("views") and run.prompt == CONFIG["prompt"]
    (run.views / "transforms.json").unlink()
    assert not open_quickstart().is_done("views"), "the copy is kept as the reader left it"
    assert (workplace / "data" / "samples" / SAMPLE / "views" / "transforms.json").exists()
    assert [path.name for path in (workplace / "runs").iterdir()] == ["sample"]


def test_a_finished_run_of_the_first_notebook_comes_first(workplace):
    folder = quickstart_folder()
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | {"seed": 7}))
    assert open_quickstart().seed == 0, "it is not finished"
    (folder / "mesh.glb").touch()
    assert open_quickstart().seed == 7


def test_a_shortened_run_has_a_folder_of_its_own(workplace, monkeypatch):
    usual = quickstart_folder()
    monkeypatch.setenv("GEODREAM_FAST", "1")
    assert quickstart_folder() != usual


def test_a_missing_sample_is_said(workplace):
    (workplace / "data" / "samples" / SAMPLE / "config.json").unlink()
    with pytest.raises(InputError, match="no sample run"):
        open_quickstart()

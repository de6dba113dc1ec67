"""Many prompts: what is finished stays, what failed is named and tried again, here and on a real Ray cluster."""

import pytest
import torch

from geodream_lib import cli, sweep
from geodream_lib.errors import InputError
from geodream_lib.mesh import TexturedMesh
from geodream_lib.run import STAGES, Run, create_run
from geodream_lib.sweep import Recipe, run_folders

FINISHED, UNKNOWN, BROKEN = "a red car", "qwertz", "a blue robot"


def finish(run: Run) -> None:
    """Leave what a finished run leaves, as far as it is looked at."""
    for stage in STAGES:
        product = run.products(stage)[-1]
        product.parent.mkdir(parents=True, exist_ok=True)
        product.touch()
    for picture in run.pictures:
        picture.touch()
    vertices, faces = torch.rand(4, 3), torch.tensor([[0, 1, 2], [0, 2, 3]])
    TexturedMesh(vertices, faces, torch.zeros(4, 2), torch.ones(4, 4, 3)).save_glb(run.mesh)


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands for the pipeline; robots fail."""
    asked: list[str] = []

    def generate(run: Run) -> None:
        asked.append(run.prompt)
        if "robot" in run.prompt:
            raise FloatingPointError("step 3: loss is not finite")

    monkeypatch.setattr(sweep, "generate", generate)
    return asked


def test_what_fails_costs_the_others_nothing_and_is_tried_again(generated, tmp_path, capsys):
    file = tmp_path / "prompts.txt"
    file.write_text(f"# three\n{BROKEN}\n\n{UNKNOWN}\n  {FINISHED}\n")
    for _ in range(2):
        assert cli.main(["sweep", str(file), "--out", str(tmp_path / "out"), "--seed", "5"]) == 1
        output = capsys.readouterr()
        assert output.out.split() == [str(tmp_path / "out" / "a-red-car")]
        assert f"{BROKEN}: step 3: loss is not finite" in output.err and f"{UNKNOWN}: " in output.err
        assert "2 failed; the same command tries them again" in output.err
    assert generated == [BROKEN, FINISHED] * 2, "a prompt without a known word is refused before anything is made"
    assert '"seed": 5' in (tmp_path / "out" / "a-red-car" / "config.json").read_text()


def test_every_prompt_has_a_folder_of_its_own(tmp_path):
    long = "a red car with " + "very " * 20
    folders = run_folders(["a car", long + "large wheels", long + "small wheels"], tmp_path)
    assert folders["a car"] == tmp_path / "a-car" and len(set(folders.values())) == 3
    assert run_folders(list(reversed(folders)), tmp_path) == folders, "in any order"
    with pytest.raises(InputError, match="'a car' is there more than once"):
        run_folders(["a car", "a car"], tmp_path)


@pytest.mark.slow
def test_a_real_ray_cluster_makes_the_runs_and_says_which_failed(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    finish(create_run(FINISHED, tmp_path / "a-red-car"))
    swept = sweep.sweep([FINISHED, UNKNOWN], tmp_path, Recipe(), ray_address="local")
    assert swept.folders == [tmp_path / "a-red-car"] and list(swept.failed) == [UNKNOWN]
    assert "they know: acorn" in swept.failed[UNKNOWN]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "here:there"])
def test_a_cluster_that_is_not_there(address, tmp_path):
    with pytest.raises(InputError, match=f"no Ray cluster at '{address}'.*ray start --head"):
        sweep.sweep([FINISHED], tmp_path, Recipe(), ray_address=address)

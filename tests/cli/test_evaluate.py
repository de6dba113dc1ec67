"""`geodream evaluate`, `geodream lab report`: what can be measured is, what cannot is named, nothing else suffers."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from geodream_lib import cli, lab, metrics, sweep
from geodream_lib.lab import survey, truth
from geodream_lib.lab.evaluator_networks import make_clip, make_uni3d, make_viewpoint_network
from geodream_lib.lab.networks import make_tokenizer
from geodream_lib.mesh import TexturedMesh
from geodream_lib.metrics.point_text import save_uni3d
from geodream_lib.run import Run, create_run

PROMPT = "a red car with a white roof"
SCORES = {
    "format",
    "run",
    "prompt",
    "preset",
    "seed",
    "views",
    "prompts",
    "clip_r_score",
    "uni3d_score",
    "fid",
    "reference_images",
    "symmetric",
    "janus",
    "saturation",
    "half_transparent",
    "shape",
    "missing",
}


@pytest.fixture(autouse=True)
def few_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ring of 24 views and three coarse candidates say the same as 120 and 24, sooner."""
    monkeypatch.setattr(metrics.evaluate, "VIEWS", 24)
    monkeypatch.setattr(truth, "CANDIDATES", 3)
    monkeypatch.setattr(metrics.truth, "FINE", 48)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained evaluators of the lab's sizes, as a data folder's `lab/`."""
    folder = tmp_path_factory.mktemp("evaluators")
    torch.manual_seed(0)
    make_clip(make_tokenizer(lab.LEXICON, folder / "tokenizer")).eval().save(folder / "image_text")
    save_uni3d(folder / "point_text", make_uni3d(), "../image_text")
    make_viewpoint_network().save(folder / "viewpoint")
    return folder


@pytest.fixture
def evaluators(networks: Path, data: Path) -> Path:
    shutil.copytree(networks, data / "lab")
    (data / "prompts" / "lab_prompts.json").write_text('[{"prompt": "a pink owl"}, {"prompt": "a blue car"}]')
    return data / "lab"


def leave_mesh(run: Run) -> None:
    """A finished run: the mesh of an object that its prompt is true of, red all over."""
    true = lab.mesh(lab.sample_object(np.random.default_rng(0), "car"), 24)
    vertices, faces = torch.tensor(true.vertices).float(), torch.tensor(true.faces.astype(np.int64))
    texture = torch.tensor([0.8, 0.1, 0.1]).expand(4, 4, 3)
    TexturedMesh(vertices, faces, torch.zeros(len(vertices), 2), texture).save_glb(run.mesh)


@pytest.fixture
def finished(tmp_path: Path) -> Run:
    run = create_run(PROMPT, tmp_path / "finished")
    leave_mesh(run)
    return run


def geodream(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_all_scores_of_a_run(evaluators, finished, tmp_path, capsys):
    assert geodream("evaluate", finished.folder, "--out", tmp_path / "all.json") == 0
    written = json.loads((finished.folder / "evaluation.json").read_text())
    assert set(written) == SCORES
    assert set(written["missing"]) == {"half_transparent"}, "this run has no field"
    assert written["views"] == written["reference_images"] == 24
    assert 0 <= written["clip_r_score"] <= 1 and written["uni3d_score"] in (0.0, 1.0) and written["fid"] > 0
    assert len(written["janus"]["frontness"]) == 24 and written["symmetric"] is False
    assert written["saturation"]["mean"] == pytest.approx(7 / 8, abs=0.01)
    assert written["shape"]["scores"]["chamfer"] < 0.1 and abs(written["shape"]["turn"]) < 20
    summary = json.loads((tmp_path / "all.json").read_text())
    assert set(summary) == {"format", "preset", "means", "runs", "skipped", "missing"}
    assert summary["runs"] == [{key: value for key, value in written.items() if key != "format"}]
    assert summary["means"]["Chamfer"] == written["shape"]["scores"]["chamfer"]
    assert summary["means"]["fid_of_all"] == pytest.approx(written["fid"])
    head, line = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["run", "FID", "CLIP-R"] and line.split()[0] == "finished"
    first = (finished.folder / "evaluation.json").read_bytes()
    geodream("evaluate", finished.folder)
    assert (finished.folder / "evaluation.json").read_bytes() == first, "the same run measures the same"


def test_without_evaluators_the_rest_is_measured_and_each_is_named_in_one_line(finished, capsys):
    assert geodream("evaluate", finished.folder) == 0
    written = json.loads((finished.folder / "evaluation.json").read_text())
    assert set(written) == SCORES
    assert all(written[name] is None for name in ("clip_r_score", "uni3d_score", "fid", "janus"))
    assert {"clip_r_score", "uni3d_score", "fid", "janus"} <= set(written["missing"])
    assert written["shape"] is not None and written["saturation"] is not None
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("not measured")]
    assert [line.split()[3] for line in lines] == ["image_text:", "point_text:", "viewpoint:"]


def test_another_preset_s_evaluators_are_named_when_they_are_not_there(finished, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("GEODREAM_WEIGHTS", str(tmp_path / "weights"))
    assert geodream("evaluate", finished.folder, "--preset", "paper") == 0
    out = capsys.readouterr().out
    assert "not measured by image_text" in out and "viewpoint: preset paper has none" in out


@pytest.mark.parametrize("prompt", ["a brown cake with pink icing", "a car with a blorb"])
def test_what_has_no_front_and_what_has_no_truth(prompt, evaluators, tmp_path):
    run = create_run(prompt, tmp_path / "run")
    leave_mesh(run)
    assert geodream("evaluate", run.folder) == 0
    written = json.loads((run.folder / "evaluation.json").read_text())
    if "cake" in prompt:
        assert written["symmetric"] is True and written["janus"] is None and "janus" not in written["missing"]
    else:
        assert written["symmetric"] is None and written["janus"] is not None
        assert written["shape"] is None and written["fid"] is None and {"shape", "fid"} <= set(written["missing"])


def test_runs_that_cannot_be_measured_cost_the_others_nothing(finished, tmp_path, capsys):
    started, damaged = create_run(PROMPT, tmp_path / "started"), create_run(PROMPT, tmp_path / "damaged")
    damaged.mesh.write_bytes(finished.mesh.read_bytes()[:200])
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("important")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"prompt": 3}')
    folders = [tmp_path / name for name in ("nowhere", "started", "foreign", "finished", "damaged", "other")]
    assert geodream("evaluate", *folders, "--out", tmp_path / "all.json") == 2
    output = capsys.readouterr()
    errors = [line for line in output.err.splitlines() if line.startswith("geodream: error: ")]
    assert len(errors) == 5 and "Traceback" not in output.err
    assert f"{started.folder} has no mesh yet; go on with: geodream mesh {started.folder}" in output.err
    assert f"{tmp_path / 'foreign'} is not a run" in output.err and f"cannot read {damaged.mesh}" in output.err
    summary = json.loads((tmp_path / "all.json").read_text())
    assert [run["run"] for run in summary["runs"]] == [str(finished.folder)]
    assert set(summary["skipped"]) == {str(folder) for folder in folders} - {str(finished.folder)}
    assert not (started.folder / "evaluation.json").exists()
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["thesis.tex"]


def test_pictures_of_one_s_own_for_the_fid(evaluators, finished, tmp_path, capsys):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    assert geodream("evaluate", finished.folder, "--reference", pictures) == 2
    assert "holds 0 pictures; expected two or more" in capsys.readouterr().err
    for k in range(5):
        colors = np.random.default_rng(k).integers(0, 255, (40, 30 + k, 4)).astype(np.uint8)
        Image.fromarray(colors).save(pictures / f"{k}.png")
    (pictures / "notes.txt").write_text("not a picture")
    assert geodream("evaluate", finished.folder, "--reference", pictures) == 0
    assert json.loads((finished.folder / "evaluation.json").read_text())["reference_images"] == 5
    (pictures / "6.png").write_bytes(b"not a picture")
    assert geodream("evaluate", finished.folder, "--reference", pictures) == 2
    assert "6.png" in capsys.readouterr().err


# --- the report


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands for the pipeline: leaves a mesh, and fails on robots."""
    made: list[str] = []

    def generate(run: Run) -> None:
        if "robot" in run.prompt:
            raise FloatingPointError("step 3: loss is not finite")
        if not run.mesh.exists():
            made.append(run.prompt)
            leave_mesh(run)

    monkeypatch.setattr(sweep, "generate", generate)
    return made


def prompts(path: Path, rows: object) -> Path:
    path.write_text(json.dumps(rows))
    return path


def test_the_report_is_one_page_with_everything_in_it(evaluators, generated, tmp_path, capsys):
    rows = [PROMPT, {"prompt": "a <blue> car & a robot"}, {"prompt": "a blue car", "category": "car"}]
    arguments = ("lab", "report", "--out", tmp_path / "out", "--prompts", prompts(tmp_path / "prompts.json", rows))
    assert geodream(*arguments) == 2
    output = capsys.readouterr()
    assert "error: a <blue> car & a robot: step 3: loss is not finite" in output.err
    summary = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [run["prompt"] for run in summary["runs"]] == [PROMPT, "a blue car"]
    assert list(summary["skipped"]) == ["a <blue> car & a robot"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<section>") == 2 and "a &lt;blue&gt; car &amp; a robot" in page
    for column in ("FID", "CLIP R", "Uni3D score", "Cons. rate", "Chamfer"):
        assert column in page
    assert "http" not in page and set(re.findall(r'src="(\w+):', page)) == {"data"}


def test_runs_that_are_there_are_reused_and_short_ones_are_kept_apart(evaluators, generated, tmp_path):
    for _ in range(2):
        measured = survey.report([PROMPT, "a robot"], tmp_path / "out")
        assert len(measured.evaluations) == 1 and list(measured.skipped) == ["a robot"] and generated == [PROMPT]
    survey.report([PROMPT], tmp_path / "out", short=True)
    assert generated == [PROMPT, PROMPT]
    configs = [json.loads(path.read_text()) for path in sorted(tmp_path.rglob("config.json")) if "car" in str(path)]
    assert len(configs) == 2 and configs[0]["overrides"] == {} and int(configs[1]["overrides"]["refine.steps"]) < 50


@pytest.mark.parametrize("content", ["[]", "{}", "[1]", '[{"words": "a car"}]', "a car", None])
def test_a_file_without_prompts(content, tmp_path, capsys):
    path = tmp_path / "prompts.json"
    if content is not None:
        path.write_text(content)
    assert geodream("lab", "report", "--out", tmp_path / "out", "--prompts", path) == 2
    assert f"no prompts in {path}" in capsys.readouterr().err and not (tmp_path / "out").exists()

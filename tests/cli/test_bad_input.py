"""Bad input is one line and exit code 2, and nothing that was there is touched."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from geodream_lib import cli, pipeline
from geodream_lib.cameras import orbit
from geodream_lib.run import STAGES, create_run
from geodream_lib.storage import save_tensors
from geodream_lib.views import PosedViews
from geodream_lib.volume import CostVolumeNetworks, save_cost_volume_networks

PROMPT = "a red mushroom on a log"


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Run a command that must fail: returns its one line, after checking that no file was changed, made or removed."""

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def check(*arguments: object) -> str:
        before = files()
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as exit:  # argparse
            code = exit.code
        output = capsys.readouterr()
        lines = [line for line in output.err.splitlines() if line]
        assert code == 2 and output.out == "" and "Traceback" not in output.err
        assert len(lines) == 1 and lines[0].startswith("geodream: error: "), output.err
        assert files() == before
        return lines[0]

    return check


def posed_views(folder: Path, n: int = 3, size: int = 16) -> Path:
    images = torch.rand(n, size, size, 3, generator=torch.Generator().manual_seed(0))
    cameras = orbit([40.0 * k for k in range(n)], 15.0, 2.75, 40.0, size)
    PosedViews(images, None, cameras, tuple(f"view_{k}" for k in range(n))).save(folder)
    return folder


def picture(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


# --- asking for something that cannot be


@pytest.mark.parametrize("prompt", ["", "  "])
def test_an_empty_prompt(refused, prompt):
    assert "the prompt is empty; describe one object" in refused("generate", prompt)


def test_a_prompt_with_no_known_word(refused):
    assert "for 'mushrom' perhaps mushroom; they know:" in refused("generate", "a mushrom")


def test_a_partly_known_prompt_is_warned_about_and_goes_on(capsys, monkeypatch):
    monkeypatch.setattr(pipeline, "predict_views", lambda run: None)
    assert cli.main(["generate", "a red blorb", "--until", "views"]) == 0
    assert "words they do not know: blorb" in capsys.readouterr().err


def test_an_unknown_preset(refused):
    assert "unknown preset 'huge'; choose one of lab" in refused("generate", PROMPT, "--preset", "huge")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("refine.stepz=5", "unknown setting 'refine.stepz'"),
        ("refine.steps=many", "expected int"),
        ("refine.steps=-3", "expected a positive number"),
        ("views.guidance=inf", "expected a finite number"),
        ("refine=3", "name one of its parts"),
        ("refine.steps", "is not KEY=VALUE"),
        ("=3", "is not KEY=VALUE"),
    ],
)
def test_a_wrong_setting(refused, setting, message):
    assert message in refused("generate", PROMPT, "--set", setting)


@pytest.mark.parametrize(
    "arguments",
    [[], ["paint"], ["generate"], ["generate", PROMPT, "--until", "lunch"], ["generate", PROMPT, "--seed", "x"]],
)
def test_a_wrong_command_points_to_the_help(refused, arguments):
    assert "--help" in refused(*arguments)


# --- the reference picture


def test_an_image_that_is_not_there(refused, tmp_path):
    assert "no image at nowhere.png; check the path" in refused("generate", PROMPT, "--image", "nowhere.png")


def test_an_image_that_cannot_be_read(refused, tmp_path):
    (tmp_path / "image.png").write_bytes(b"not a picture")
    assert "cannot read the image" in refused("generate", PROMPT, "--image", tmp_path / "image.png")
    truncate(picture(tmp_path / "image.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3))))
    assert "expected a whole PNG" in refused("generate", PROMPT, "--image", tmp_path / "image.png")


def test_an_image_without_an_object(refused, tmp_path):
    path = picture(tmp_path / "image.png", np.full((64, 64, 3), 255))
    line = refused("generate", PROMPT, "--image", path)
    assert str(path) in line and "no object found" in line and "expected one object" in line


def test_an_image_of_one_pixel(refused, tmp_path):
    path = picture(tmp_path / "image.png", np.zeros((1, 1, 3)))
    line = refused("generate", PROMPT, "--image", path)
    assert f"{path}: the image is 1x1; expected at least 16x16 pixels" in line


# --- the run's folder


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        (["generate", "a blue car"], "prompt"),
        (["generate", PROMPT, "--seed", "1"], "seed 0, not 1"),
        (["generate", PROMPT, "--set", "refine.steps=7"], "overrides"),
    ],
)
def test_the_folder_of_another_run(refused, tmp_path, change, differs):
    run = create_run(PROMPT, tmp_path / "run")
    line = refused(*change, "--out", run.folder)
    assert f"holds a run with {differs}" in line and "choose another folder with --out" in line


def test_the_folder_of_another_preset(refused, tmp_path):
    config = create_run(PROMPT, tmp_path / "run").folder / "config.json"
    config.write_text(config.read_text().replace('"lab"', '"paper"'))
    assert "holds a run with preset 'paper', not 'lab'" in refused("generate", PROMPT, "--out", tmp_path / "run")


def test_a_folder_with_other_files(refused, tmp_path):
    (tmp_path / "work" / "thesis.tex").write_text("important")
    assert "is not a run" in refused("generate", PROMPT, "--out", tmp_path / "work")
    assert "start one with: geodream generate PROMPT" in refused("mesh", tmp_path / "work")


@pytest.mark.parametrize("stage", STAGES[1:])
def test_a_stage_before_its_turn(refused, tmp_path, stage):
    run = create_run(PROMPT, tmp_path / "run")
    assert f"has no views yet; run: geodream views {run.folder}" in refused(stage, run.folder)


# --- posed views from elsewhere


def edit(folder: Path, change) -> Path:
    path = folder / "transforms.json"
    transforms = json.loads(path.read_text())
    change(transforms["frames"])
    path.write_text(json.dumps(transforms))
    return folder


def set_entry(frames: list[dict], value: float) -> None:
    frames[1]["transform_matrix"][0][0] = value


DAMAGES = {
    "an image is gone": (lambda frames: frames[1].update(file_path="./gone"), "gone named in .* is missing"),
    "no matrix": (lambda frames: frames[1].pop("transform_matrix"), "has no 4x4 transform_matrix"),
    "not rigid": (lambda frames: set_entry(frames, 5.0), "camera of view_1 is not rigid"),
    "not a number": (lambda frames: set_entry(frames, float("nan")), "camera of view_1 has a value that is not finite"),
    "one view": (lambda frames: frames.__delitem__(slice(1, None)), "has 1 frames; expected at least 2 views"),
    "no view": (lambda frames: frames.clear(), "has 0 frames; expected at least 2 views"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("command", ["volume", "reconstruct"])
def test_posed_views_that_cannot_be_used(refused, tmp_path, damage, command):
    change, message = DAMAGES[damage]
    if command == "volume":
        run = create_run(PROMPT, tmp_path / "run")
        edit(posed_views(run.views), change)
        line = refused("volume", run.folder)
    else:
        pytest.importorskip("geodream_lib.reconstruct")
        line = refused("reconstruct", edit(posed_views(tmp_path / "views"), change), "--out", tmp_path / "out")
    assert re.search(message, line), line


# --- weights


def test_weights_of_the_cost_volume_that_cannot_be_used(refused, tmp_path, data):
    run = create_run(PROMPT, tmp_path / "run")
    posed_views(run.views)
    weights = data / "lab" / "cost_volume" / "model.safetensors"
    assert f"cannot read weights from {weights}" in refused("volume", run.folder)
    save_tensors(weights, {"conv.weight": torch.zeros(3, 3)})
    assert "is not a One-2-3-45 reconstruction checkpoint" in refused("volume", run.folder)
    save_cost_volume_networks(weights, CostVolumeNetworks(hidden=16))
    truncate(weights)
    line = refused("volume", run.folder)
    assert f"cannot read weights from {weights}" in line and "truncated" in line and "fetch it anew" in line


@pytest.mark.needs_golden("vsd")
def test_weights_of_text_to_image_that_cannot_be_used(refused, tmp_path, data, golden):
    folder, front = data / "lab" / "text_to_image", {"views.reference": "text_to_image"}
    arguments = ("views", create_run(PROMPT, tmp_path / "run", overrides=front).folder)
    assert f"no diffusion model at {folder}" in refused(*arguments)
    shutil.copytree(golden / "vsd" / "sd_base", folder)
    unet, vae = folder / "unet" / "diffusion_pytorch_model.safetensors", folder / "vae"
    whole = unet.read_bytes()
    truncate(unet)
    assert f"cannot load unet/ of {folder}" in refused(*arguments)
    shutil.copy(vae / unet.name, unet)
    line = refused(*arguments)
    assert f"{folder}/unet does not fit UNet2DConditionModel: missing" in line and "belongs to another network" in line
    unet.write_bytes(whole)
    shutil.copy(folder / "text_encoder" / "config.json", folder / "unet" / "config.json")
    assert "expected a UNet2DConditionModel" in refused(*arguments)


def test_weights_of_zero123_that_are_not_there(refused, tmp_path, data):
    pixels = np.full((64, 64, 3), 255)
    pixels[20:44, 20:44] = (200, 30, 30)
    run = create_run(PROMPT, tmp_path / "run", image=picture(tmp_path / "image.png", pixels))
    line = refused("views", run.folder)
    assert f"{data / 'lab' / 'zero123'} is not a Zero123 folder" in line


@pytest.mark.parametrize(
    ("stage", "artifact", "message"),
    [("refine", "volume.safetensors", "cost volume"), ("mesh", "neus/field.safetensors", "NeuS field")],
)
def test_artifacts_that_are_damaged_or_foreign(refused, tmp_path, stage, artifact, message):
    run = create_run(PROMPT, tmp_path / "run")
    for earlier in STAGES[: STAGES.index(stage)]:
        path = run.products(earlier)[-1]
        path.parent.mkdir(exist_ok=True)
        save_tensors(path, {"weight": torch.zeros(100)})
    assert f"{run.folder / artifact} is not a {message}" in refused(stage, run.folder)
    truncate(run.folder / artifact)
    assert "delete it to have it made again" in refused(stage, run.folder)


def test_no_data_folder(refused, monkeypatch):
    monkeypatch.setenv("GEODREAM_DATA", "nowhere")
    assert "no data folder at nowhere (GEODREAM_DATA names it)" in refused("generate", PROMPT)

"""A run is a folder: what is finished stays, what is deleted is made again with everything that was made from it."""

import json
from pathlib import Path

import pytest
import torch

from geodream_lib import pipeline
from geodream_lib import run as run_module
from geodream_lib.errors import InputError
from geodream_lib.mesh import TexturedMesh
from geodream_lib.run import STAGES, Run, create_run, open_run
from geodream_lib.storage import read_json, write_json

PROMPT = "a red mushroom on a log"
FUNCTIONS = {
    "views": "predict_views",
    "volume": "reconstruct_volume",
    "refine": "refine_field",
    "mesh": "fine_tune_mesh",
    "pictures": "draw_pictures",
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create_run(PROMPT, tmp_path / "run")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stages that only leave their products; the list says which were called."""
    called: list[str] = []

    def stub(stage: str):
        def make(run: Run, *_: object) -> None:
            called.append(stage)
            for path in run.pictures if stage == "pictures" else run.products(stage):
                path.mkdir(exist_ok=True) if path.suffix == "" else path.write_text(stage)

        return make

    for stage, name in FUNCTIONS.items():
        monkeypatch.setattr(pipeline, name, stub(stage))
    empty = TexturedMesh(
        torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long), torch.zeros(0, 2), torch.zeros(1, 1, 3)
    )
    monkeypatch.setattr(TexturedMesh, "load_glb", lambda path: empty)
    return called


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_stages_are_made_in_order_and_nothing_finished_is_made_again(run, calls):
    pipeline.generate(run)
    assert calls == [*STAGES, "pictures"]
    before = files(run.folder)
    pipeline.generate(run)
    assert calls == [*STAGES, "pictures"] and files(run.folder) == before


@pytest.mark.parametrize("stage", STAGES)
def test_a_deleted_artifact_is_made_again_with_what_follows(run, calls, stage):
    pipeline.generate(run)
    run.products(stage)[-1].unlink()
    calls.clear()
    pipeline.generate(run)
    assert calls == [*STAGES[STAGES.index(stage) :], "pictures"]


def test_deleted_pictures_are_drawn_again_alone(run, calls):
    pipeline.generate(run)
    run.pictures[1].unlink()
    calls.clear()
    pipeline.generate(run)
    assert calls == ["pictures"]


def test_an_interrupted_stage_is_not_done_and_what_is_finished_stays(run, calls, monkeypatch):
    def killed(run: Run, progress: object = None) -> None:
        run.field.parent.mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "refine_field", killed)
        with pytest.raises(KeyboardInterrupt):
            pipeline.generate(run)
    calls.clear()
    pipeline.generate(run)
    assert calls == ["refine", "mesh", "pictures"]


def test_a_stage_without_the_one_before_says_how_to_make_it(run, calls):
    with pytest.raises(InputError, match=f"has no views yet; run: geodream views {run.folder}"):
        pipeline.run_stage(run, "volume")
    assert calls == []


@pytest.mark.parametrize("stage", STAGES)
def test_forget_after_removes_only_later_products_and_pictures(run, calls, stage):
    pipeline.generate(run)
    run.log.write_text("a line\n")
    kept = [path for name in STAGES[: STAGES.index(stage) + 1] for path in run.products(name)]
    gone = [path for name in STAGES[STAGES.index(stage) + 1 :] for path in run.products(name)] + run.pictures
    run.forget_after(stage)
    assert all(path.exists() for path in [*kept, run.log, run.folder / "config.json"])
    assert not any(path.exists() for path in gone)


def test_the_texture_of_another_shape_is_not_kept(run, monkeypatch):
    """A new geometry is coloured anew, even where an earlier texture lies beside it."""
    run.texture.parent.mkdir()
    run.texture.write_text("of the earlier shape")
    monkeypatch.setattr(pipeline.NeuSField, "load", lambda path: torch.nn.Identity())

    def stop(run: Run, *_: object) -> None:
        assert not run.texture.exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "refine_geometry", stop)
    with pytest.raises(KeyboardInterrupt):
        pipeline.fine_tune_mesh(run)


def test_randomness_of_a_stage_depends_on_seed_and_stage_alone(run, tmp_path):
    def numbers(run: Run, stage: str) -> list[float]:
        return torch.rand(4, generator=run.generator(stage)).tolist()

    assert numbers(run, "refine") == numbers(run, "refine")
    assert numbers(run, "refine") == numbers(create_run("a blue car", tmp_path / "other"), "refine")
    assert len({tuple(numbers(run, stage)) for stage in (*STAGES, "field", "geometry", "texture")}) == 7
    assert numbers(run, "refine") != numbers(create_run(PROMPT, tmp_path / "seed", seed=1), "refine")
    # A number that was drawn once is drawn for ever: runs of earlier versions can be repeated.
    assert run.generator("views").initial_seed() == 38086967921724371


def test_the_same_arguments_find_the_same_run(run):
    before = files(run.folder)
    assert create_run(PROMPT, run.folder) == run == open_run(run.folder)
    assert files(run.folder) == before


def test_overrides_are_part_of_the_run_whoever_gives_them(tmp_path):
    by_library = create_run(PROMPT, tmp_path, overrides={"refine.steps": 7, "refine.rates.volume": 0.5})
    assert by_library.preset.refine.steps == 7 and by_library.preset.refine.rates["volume"] == 0.5
    by_command = create_run(PROMPT, tmp_path, overrides={"refine.rates.volume": "0.5", "refine.steps": "7"})
    assert by_library == by_command == open_run(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "differs"),
    [
        ({"seed": 1}, "seed 0, not 1"),
        ({"overrides": {"refine.steps": "7"}}, "overrides"),
        ({"prompt": "a blue car"}, "prompt 'a red mushroom on a log', not 'a blue car'"),
    ],
)
def test_a_folder_of_another_run_is_left_alone(run, arguments, differs):
    before = files(run.folder)
    with pytest.raises(InputError, match=f"holds a run with {differs}.*choose another folder"):
        create_run(**{"prompt": PROMPT, "folder": run.folder} | arguments)
    assert files(run.folder) == before


def test_a_folder_with_other_files_is_not_taken(tmp_path):
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(InputError, match="is not a run .no config.json.; choose another"):
        create_run(PROMPT, tmp_path)
    assert files(tmp_path) == {tmp_path / "thesis.tex": b"important"}
    with pytest.raises(InputError, match="is not a run .no config.json.; start one with: geodream generate"):
        open_run(tmp_path)


def test_a_folder_below_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write .*choose another folder"):
        create_run(PROMPT, tmp_path / "file" / "run")


@pytest.mark.parametrize("damage", [{"overrides": 3}, {"preset": "large"}, {"overrides": {"no.such": "1"}}])
def test_a_damaged_config_is_named(run, damage):
    config = run.folder / "config.json"
    write_json(config, read_json(config) | damage)
    with pytest.raises(InputError):
        open_run(run.folder)
    config.write_text(json.dumps({"prompt": PROMPT}))
    with pytest.raises(InputError, match="config.json is not a run's"):
        open_run(run.folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("refine.stepz", "5", "unknown setting 'refine.stepz': 'stepz' is not one of steps,"),
        ("refine.rates.colour", "5", "'colour' is not one of volume, encoding"),
        ("refine.steps.more", "5", "has no parts"),
        ("refine", "5", "is not a number or a word"),
        ("refine.steps", "many", "setting refine.steps is 'many'; expected int"),
        ("refine.steps", "2.5", "expected int"),
        ("refine.steps", "0", "expected a positive number"),
        ("views.guidance", "nan", "expected a finite number"),
    ],
)
def test_a_wrong_setting_is_named_before_a_folder_is_made(tmp_path, key, value, message):
    with pytest.raises(InputError, match=message):
        create_run(PROMPT, tmp_path / "run", overrides={key: value})
    assert not (tmp_path / "run").exists()


def test_a_gpu_that_is_too_small_is_told_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(run_module, "device_memory", lambda preset: 2**30)
    with pytest.raises(InputError, match=r"needs about \d+\.\d GB and the GPU has 1.0 GB"):
        create_run(PROMPT, tmp_path / "run", overrides={"device": "cuda"})
    assert not (tmp_path / "run").exists()


def test_the_two_readings_are_two_runs(tmp_path):
    """What a folder was made for includes the fidelity; folders from before there were two are of the paper's."""
    create_run(PROMPT, tmp_path / "run")
    config = read_json(tmp_path / "run" / "config.json")
    write_json(tmp_path / "run" / "config.json", {key: value for key, value in config.items() if key != "fidelity"})
    assert create_run(PROMPT, tmp_path / "run").fidelity == open_run(tmp_path / "run").fidelity == "paper"
    with pytest.raises(InputError, match="fidelity 'paper', not 'released'"):
        create_run(PROMPT, tmp_path / "run", fidelity="released")
    released = create_run(PROMPT, tmp_path / "released", fidelity="released")
    assert open_run(released.folder).preset == released.preset != create_run(PROMPT, tmp_path / "run").preset

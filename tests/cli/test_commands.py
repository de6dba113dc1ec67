"""What the command line promises of good input and of accidents on the way."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from geodream_lib import cli, doctor, pipeline
from geodream_lib.run import STAGES

PROMPT = "a red mushroom on a log"


# --- accidents on the way


@pytest.mark.parametrize(
    ("accident", "code", "line"),
    [
        (FloatingPointError("step 3: loss is not finite; lower the rates"), 2, "geodream: error: step 3: loss is not"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left on device; free some space"),
        (KeyboardInterrupt(), 130, "geodream: interrupted; the same command goes on"),
    ],
)
def test_an_accident_is_one_line(capsys, monkeypatch, accident, code, line):
    def happen(run: object) -> None:
        raise accident

    monkeypatch.setattr(pipeline, "predict_views", happen)
    assert cli.main(["generate", PROMPT]) == code
    output = capsys.readouterr().err
    assert line in output and len(output.splitlines()) == 1


def test_a_bug_is_not_hidden(monkeypatch):
    def happen(run: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "who called this?")

    monkeypatch.setattr(pipeline, "predict_views", happen)
    with pytest.raises(FileNotFoundError):
        cli.main(["generate", PROMPT])


# --- what good input gives


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stages that only leave their last product."""
    called: list[str] = []

    def leave(name: str, products):
        def make(run, *_: object) -> None:
            called.append(name)
            for path in products(run):
                path.parent.mkdir(exist_ok=True)
                path.write_text(name)

        return make

    functions = zip(STAGES, ("predict_views", "reconstruct_volume", "refine_field", "fine_tune_mesh"), strict=True)
    for stage, function in functions:
        monkeypatch.setattr(pipeline, function, leave(stage, lambda run, stage=stage: run.products(stage)[-1:]))
    monkeypatch.setattr(pipeline, "draw_pictures", leave("pictures", lambda run: run.pictures))
    return called


def test_generate_says_where_everything_is_and_how_long_it_took(stubs, capsys):
    assert cli.main(["generate", PROMPT]) == 0
    folder = Path("runs") / "a-red-mushroom-on-a-log"
    lines = capsys.readouterr().out.splitlines()
    names = ("mesh.glb", "contact_sheet.png", "turntable.gif", "turntable.mp4")
    assert lines[:-1] == [str(folder / name) for name in names] and all(Path(line).is_file() for line in lines[:-1])
    assert lines[-1] == "views 0 s, volume 0 s, refine 0 s, mesh 0 s, pictures 0 s"
    assert cli.main(["generate", PROMPT]) == 0
    assert stubs == [*STAGES, "pictures"] and "was there already" in capsys.readouterr().out


def test_every_stage_can_be_started_alone(stubs, capsys):
    assert cli.main(["generate", PROMPT, "--until", "views", "--out", "run", "--seed", "3"]) == 0
    assert stubs == ["views"] and json.loads(Path("run/config.json").read_text())["seed"] == 3
    for done, stage in enumerate(STAGES[1:], 2):
        assert cli.main([stage, "run"]) == 0 and stubs == list(STAGES[:done])
    capsys.readouterr()
    assert cli.main(["mesh", "run"]) == 0 and len(stubs) == 4
    assert "run/mesh.glb is there already; delete it" in capsys.readouterr().out


def test_the_command_line_knows_the_stages():
    assert tuple(cli.STAGES) == STAGES


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("optional", 0), ("problem", 1)])
def test_doctor_reports_and_tells_scripts_by_its_code(monkeypatch, capsys, status, code):
    monkeypatch.setattr(doctor, "report", lambda: [doctor.Check("thing", status, "detail")])
    assert cli.main(["doctor"]) == code
    assert "thing" in capsys.readouterr().out


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """In a process of its own, in the clone, where it finds the package installed or not."""
    clone, environment = Path(cli.__file__).parents[2], os.environ | environment
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=clone, env=environment)


def test_help_imports_nothing_heavy():
    code = "import sys; from geodream_lib import cli\ntry: cli.main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    finished = python("-c", code)
    assert "generate" in finished.stdout and finished.returncode == 0
    assert not {"torch", "numpy", "diffusers", "transformers", "tqdm"} & set(finished.stdout.split())


def test_the_process_is_started_again_once_with_the_allocator_set(monkeypatch):
    """And not where the user has said how memory is to be kept."""
    started = []
    monkeypatch.setattr(os, "execve", lambda *arguments: started.append(arguments))
    monkeypatch.setattr(cli.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "geodream_lib", "generate", "a car"])
    for name in cli.ALLOCATOR:
        monkeypatch.delenv(name, raising=False)
    cli._keep_freed_memory()
    ((program, arguments, environment),) = started
    assert program == sys.executable and arguments == [sys.executable, "-m", "geodream_lib", "generate", "a car"]
    assert cli.ALLOCATOR.items() <= environment.items() and os.environ.items() <= environment.items()
    monkeypatch.setenv("MALLOC_TOP_PAD_", "1")
    cli._keep_freed_memory()
    assert len(started) == 1


@pytest.mark.needs_golden("vsd")
def test_the_program_as_users_start_it(tmp_path, data, golden, monkeypatch):
    """Started again where that helps, with its arguments intact; no chatter of the libraries around the one line."""
    folder = data / "lab" / "text_to_image"
    shutil.copytree(golden / "vsd" / "sd_base", folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"  # read after the text encoder and the autoencoder
    weights.write_bytes(weights.read_bytes()[:-100])
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS", *cli.ALLOCATOR):
        monkeypatch.delenv(name, raising=False)
    prompt = "a 'red'  car $HOME"
    arguments = ["--set", "views.reference=text_to_image", "--out", str(tmp_path / "run"), "--until", "views"]
    finished = python("-m", "geodream_lib", "generate", prompt, *arguments)
    warning, error = finished.stderr.splitlines()
    assert finished.returncode == 2 and finished.stdout == ""
    assert "words they do not know: home" in warning and error.startswith("geodream: error: cannot load unet/ of")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["prompt"] == prompt

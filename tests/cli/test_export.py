"""`geodream export`: files that stand alone, and one line where there cannot be any."""

import json
import shutil
from pathlib import Path

import fast_simplification
import numpy as np
import pytest
import trimesh

from geodream_lib import cli, export
from geodream_lib.mesh import TexturedMesh

SAMPLE = Path(cli.__file__).parents[2] / "data" / "samples" / "a-red-mushroom-on-a-log"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run."""
    shutil.copytree(SAMPLE, tmp_path / "run")
    return tmp_path / "run"


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_asset_in_every_format_with_its_report(run, tmp_path, capsys):
    before = contents(run)
    arguments = ["--faces", "300", "--texture", "64", "--normal-map", "--format", "glb,obj,ply"]
    assert cli.main(["export", str(run), *arguments, "--out", str(tmp_path / "asset")]) == 0
    output = capsys.readouterr().out
    assert contents(run) == before
    names = ["asset.glb", "asset.mtl", "asset.obj", "asset.ply", "asset.png", "asset_normal.png", "report.json"]
    assert sorted(path.name for path in (tmp_path / "asset").iterdir()) == names
    report = json.loads((tmp_path / "asset" / "report.json").read_text())
    assert report["watertight"] and report["manifold"] and report["components"] == 1 and report["genus"] == 0
    assert "faces         300\n" in output and "asset/asset.glb\n" in output
    asset, own = TexturedMesh.load_glb(tmp_path / "asset" / "asset.glb"), TexturedMesh.load_glb(run / "mesh.glb")
    assert report["faces"] == len(asset.faces) == 300 and asset.texture.shape == (64, 64, 3)
    assert (asset.vertices.amax(dim=0) - own.vertices.amax(dim=0)).abs().max() < 0.02
    assert trimesh.load(tmp_path / "asset" / "asset.ply").is_watertight


def test_by_default_an_export_lies_in_the_run(run, monkeypatch):
    small = TexturedMesh.load_glb(run / "mesh.glb")
    monkeypatch.setattr(export, "make_asset", lambda *arguments: small)
    assert cli.main(["export", str(run)]) == 0
    assert (run / "mesh" / "asset.glb").exists() and (run / "mesh" / "report.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--faces", "0"], "0 faces enclose nothing; expected at least 4"),
        (["--texture", "1"], "a texture of 1 texels; expected 64 to 8192"),
        (["--format", "glb,fbx"], "unknown format 'fbx'; expected one or more of glb,obj,ply"),
        (["--normal-map"], "say how many remain with --faces"),
    ],
)
def test_what_cannot_be_made_is_one_line_and_costs_nothing(run, capsys, arguments, message):
    (run / "mesh" / "asset.glb").write_bytes(b"of an earlier export")
    before = contents(run)
    assert cli.main(["export", str(run), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert contents(run) == before


def test_no_face_left_after_decimation(run, capsys, monkeypatch):
    nothing = np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64)
    monkeypatch.setattr(fast_simplification, "simplify", lambda *_, **__: nothing)
    before = contents(run)
    assert cli.main(["export", str(run), "--faces", "100"]) == 2
    error = capsys.readouterr().err
    assert "cannot be reduced to 100: with fewer than" in error and len(error.splitlines()) == 1
    assert contents(run) == before


def test_a_run_without_a_mesh_says_which_command_makes_one(run, capsys):
    (run / "mesh.glb").unlink()
    assert cli.main(["export", str(run)]) == 2
    assert f"has no mesh yet; run: geodream mesh {run}" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(run, tmp_path, capsys, monkeypatch):
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(export.tempfile, "TemporaryFile", refuse)  # chmod does not stop the administrator
    monkeypatch.setattr(export, "make_asset", lambda *arguments: pytest.fail("work for nothing"))
    before = contents(run)
    assert cli.main(["export", str(run)]) == 2
    error = capsys.readouterr().err
    assert "cannot write into" in error and "--out" in error and len(error.splitlines()) == 1
    assert contents(run) == before

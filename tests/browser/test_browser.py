"""What a browser shows of the exported file: three.js in a headless Chromium, beside our own render.

Skipped without Node, Chromium and the two packages of `package.json`. To run it:

    apt-get install chromium nodejs npm      (or set CHROMIUM to the path of any Chromium or Chrome)
    npm install --prefix tests/browser
    pytest tests/browser
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from torch import Tensor

from geodream_lib.cameras import Cameras, orbit
from geodream_lib.mesh import TexturedMesh, decimate, interpolate, rasterize, render_textured_mesh, unwrap
from geodream_lib.mesh.bake import find_texels
from geodream_lib.mesh.geometry import vertex_normals
from geodream_lib.mesh.nearest import nearest_on_surface
from geodream_lib.mesh.normal_map import bake_normal_map, smooth_normals
from geodream_lib.mesh.textured_mesh import TO_Y_UP
from geodream_lib.viewer import view_mesh

HERE = Path(__file__).parent
SAMPLE = HERE.parents[1] / "data" / "samples" / "a-red-mushroom-on-a-log" / "mesh.glb"
SIZE, FOV_Y = 256, 40.0


def missing() -> str:
    """What is not there, in words; empty if nothing."""
    if shutil.which("node") is None:
        return "Node is not installed: apt-get install nodejs npm"
    if chromium() is None:
        return "no Chromium found: apt-get install chromium, or set CHROMIUM to its path"
    if not all((HERE / "node_modules" / name).is_dir() for name in ("three", "puppeteer-core")):
        return "the npm packages are not installed: npm install --prefix tests/browser"
    return ""


def chromium() -> str | None:
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if name and (found := shutil.which(name))), None)


pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


def photograph(file: Path, out: Path, **options: object) -> Tensor:
    """Draw a GLB, or photograph a page, in the browser."""
    command = ["node", str(HERE / "render_glb.mjs"), chromium(), str(file), str(out), json.dumps(options)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert finished.returncode == 0 and not finished.stderr, finished.stderr
    return torch.from_numpy(np.asarray(Image.open(out).convert("RGB"), dtype=np.float32) / 255)


def in_file_frame(camera: Cameras) -> list[float]:
    """The camera's matrix as three.js takes it: in the frame of the file (y up), column by column."""
    matrix = camera.c2w[0].clone()
    matrix[:3] = camera.c2w[0, TO_Y_UP]
    return matrix.T.flatten().tolist()


def test_the_sample_in_the_browser_is_the_sample_in_our_render(tmp_path: Path) -> None:
    """Orientation, scale and colours, from a side and a height that nothing is symmetric to."""
    camera = orbit([35.0], 25.0, 2.75, FOV_Y, SIZE)
    ours = render_textured_mesh(camera, TexturedMesh.load_glb(SAMPLE), torch.ones(1, 3))[0]
    options = {"size": SIZE, "matrix": in_file_frame(camera), "fovY": FOV_Y, "show": "colour"}
    theirs = photograph(SAMPLE, tmp_path / "browser.png", **options)
    covered, seen = ((image < 0.99).any(dim=-1) for image in (ours, theirs))
    assert (covered & seen).sum() / (covered | seen).sum() > 0.98
    difference = (ours - theirs).abs().mean(dim=-1)
    assert difference.mean() < 0.005 and difference[covered & seen].mean() < 0.02
    # The same bound would catch a mirrored, turned or scaled object.
    for wrong in (ours.flip(1), ours.roll(8, dims=0), ours.flip(-1)):
        assert (wrong - theirs).abs().mean() > 5 * difference.mean()


def test_the_browser_lights_a_coarse_mesh_as_the_fine_one_by_its_normal_map(tmp_path: Path) -> None:
    """No channel swapped, no sign turned: a ball with ripples, reduced to a fiftieth of its faces."""
    ball = trimesh.creation.icosphere(subdivisions=5, radius=0.5)
    fine = torch.tensor(ball.vertices).float(), torch.tensor(ball.faces)
    ripples = 1 + 0.02 * torch.sin(25 * fine[0][:, :1]) + 0.02 * torch.sin(25 * fine[0][:, 2:])
    fine = fine[0] * ripples, fine[1]
    vertices, faces = decimate(*fine, 400)
    vmap, faces, uvs = unwrap(vertices, faces, 512, 8)
    vertices, texels = vertices[vmap], find_texels(faces, uvs, 512)
    own = smooth_normals(texels, vertices, faces)
    corners, weights = nearest_on_surface(texels.interpolate(vertices), own, *fine)
    normals = torch.nn.functional.normalize((weights[..., None] * vertex_normals(*fine)[corners]).sum(dim=1), dim=-1)
    relief = bake_normal_map(vertices, faces, uvs, texels, normals)
    camera = orbit([35.0], 25.0, 1.6, FOV_Y, SIZE)
    rotation = camera.c2w[0, :3, :3]
    raster = rasterize(camera, *fine)
    wanted = torch.nn.functional.normalize(interpolate(vertex_normals(*fine) @ rotation, raster, fine[1])[0], dim=-1)
    errors = []
    for name, normal_map in (("plain", None), ("mapped", relief)):
        mesh = TexturedMesh(vertices, faces, uvs, torch.ones(8, 8, 3), normal_map)
        mesh.save_glb(tmp_path / f"{name}.glb")
        options = {"size": SIZE, "matrix": in_file_frame(camera), "fovY": FOV_Y, "show": "normals"}
        seen = 2 * photograph(tmp_path / f"{name}.glb", tmp_path / f"{name}.png", **options) - 1
        inside = wanted[..., 2] > 0.3
        angle = torch.cosine_similarity(seen[inside], wanted[inside], dim=-1).clamp(max=1).acos()
        errors.append(torch.rad2deg(angle).mean())
    assert errors[1] < 2 < 5 < errors[0], errors


def test_the_notebook_viewer_shows_the_mesh(tmp_path: Path) -> None:
    """The page of `view_mesh` in its frame, as JupyterLab and Colab put it into theirs."""
    page = tmp_path / "page.html"
    viewer = view_mesh(SAMPLE, height=300, tile=64)
    page.write_text(f"<!doctype html><meta charset=utf-8>{viewer._repr_html_()}")
    picture = photograph(page, tmp_path / "page.png", size=SIZE, wait=20_000)
    red, green, blue = picture.unbind(dim=-1)
    cap, log = (red > green + 0.2) & (red > blue + 0.2), (green > red + 0.2) & (green > blue + 0.2)
    assert cap.float().mean() > 0.01 and log.float().mean() > 0.01
    heights = torch.arange(SIZE).float()[:, None].expand(SIZE, SIZE)
    assert heights[cap].mean() < heights[log].mean()  # upright: the red cap is above the green log

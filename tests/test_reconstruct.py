"""Posed images of any world become a mesh in that world: what comes out of `geodream reconstruct`."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import cKDTree

from geodream_lib import lab
from geodream_lib.cameras import Cameras, orbit, rays
from geodream_lib.data import data_folder
from geodream_lib.errors import InputError
from geodream_lib.lab.render import render_rgba
from geodream_lib.mesh import rasterize
from geodream_lib.mesh.textured_mesh import TO_Y_UP
from geodream_lib.presets import Preset, load_preset
from geodream_lib.reconstruct import _write, choose_views, outlines, reconstruct, vertex_colors
from geodream_lib.views import PosedViews
from geodream_lib.volume import CostVolume

SCALE = 3.0


@pytest.fixture
def preset() -> Preset:
    return load_preset("lab", {"volume.mesh_resolution": 64})


def lab_views(obj: lab.LabObject, to_world: torch.Tensor, count: int = 12) -> PosedViews:
    """Pictures as of nerf-synthetic: the object at 3.3 times its radius, in the world of `to_world`."""
    rng = np.random.default_rng(1)
    azimuth = 360 * (np.arange(count) + rng.random(count)) / count
    cameras = orbit(azimuth.tolist(), rng.uniform(-10, 55, count).tolist(), 3.0, 39.6, 128)
    rgb, alpha = render_rgba([obj] * count, cameras, np.ones((count, 3), np.float32))
    c2w = to_world @ cameras.c2w
    c2w[:, :3, :3] /= torch.linalg.det(to_world) ** (1 / 3)
    names = tuple(f"r_{index}" for index in range(count))
    images = torch.from_numpy(rgb).float() / 255
    return PosedViews(images, torch.from_numpy(alpha).float() / 255, replace(cameras, c2w=c2w), names)


def unusual_world() -> torch.Tensor:
    """Three times as large, turned by 40 degrees about the vertical, far from the origin."""
    a = math.radians(40)
    rotation = torch.tensor([[math.cos(a), -math.sin(a), 0.0], [math.sin(a), math.cos(a), 0.0], [0.0, 0.0, 1.0]])
    result = torch.eye(4)
    result[:3, :3], result[:3, 3] = SCALE * rotation, torch.tensor([10.0, -4.0, 2.0])
    return result


def distances(a: trimesh.Trimesh, b: trimesh.Trimesh) -> np.ndarray:
    """From samples of each surface to the nearest sample of the other."""
    a, b = (trimesh.sample.sample_surface(mesh, 8000, seed=0)[0] for mesh in (a, b))
    return np.concatenate([cKDTree(b).query(a)[0], cKDTree(a).query(b)[0]])


def iou(a: trimesh.Trimesh, b: trimesh.Trimesh) -> float:
    """Of the inside of two closed meshes, both within [-1, 1]^3."""
    inside = [mesh.voxelized(0.04).fill() for mesh in (a, b)]
    points = np.random.default_rng(0).uniform(-1, 1, (40000, 3))
    x, y = (grid.is_filled(points) for grid in inside)
    return (x & y).sum() / (x | y).sum()


@pytest.mark.slow
def test_held_out_object_comes_back_in_its_world(tmp_path: Path, preset: Preset) -> None:
    if not (data_folder() / preset.cost_volume).is_file():
        pytest.skip(f"no weights at {preset.cost_volume} in the data folder; train them with the lab's trainer")
    obj = lab.sample_object(np.random.default_rng(3), category="dinosaur", split="held_out")
    truth = lab.mesh(obj, 64)
    meshes = []
    for name, to_world in (("lab", torch.eye(4)), ("elsewhere", unusual_world())):
        lab_views(obj, to_world).save(tmp_path / name)
        mesh = reconstruct(tmp_path / name, tmp_path / f"{name}_out", preset)
        written = trimesh.load(tmp_path / f"{name}_out" / "mesh.ply", process=False)
        np.testing.assert_allclose(written.vertices, mesh.vertices, atol=1e-5)
        assert CostVolume.load(tmp_path / f"{name}_out" / "volume.safetensors").volume.shape[1:] == (48, 48, 48)
        meshes.append(mesh.apply_transform(np.linalg.inv(to_world.double().numpy())))
    for mesh in meshes:
        distance = distances(mesh, truth) / 0.9
        # Measured: mean distance 0.027 of the radius, 88 % within 0.05 of it, IoU 0.84; and 0.96 between the two.
        assert distance.mean() < 0.04
        assert (distance < 0.05).mean() > 0.8
        assert iou(mesh, truth) > 0.75
    assert iou(*meshes) > 0.9


def small_volume() -> CostVolume:
    return CostVolume(torch.zeros(2, 4, 4, 4), torch.ones(4, 4, 4, dtype=torch.bool), torch.eye(4))


def colored_ball() -> trimesh.Trimesh:
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=0.5)
    mesh.visual.vertex_colors = ((mesh.vertices + 0.5) * 255).round().astype(np.uint8)
    return mesh


def test_glb_is_y_up_with_linear_colours_and_no_metal(tmp_path: Path) -> None:
    mesh = colored_ball()
    _write(tmp_path, mesh, small_volume())
    (glb,) = trimesh.load(tmp_path / "mesh.glb", force="scene", process=False).geometry.values()
    np.testing.assert_allclose(glb.vertices, mesh.vertices[:, TO_Y_UP], atol=1e-6)
    assert glb.visual.material.metallicFactor == 0
    linear = glb.visual.vertex_attributes["color"][:, :3] / 255
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    # 8 bits of linear light are coarse in the dark.
    np.testing.assert_allclose(srgb, mesh.visual.vertex_colors[:, :3] / 255, atol=0.03)
    ply = trimesh.load(tmp_path / "mesh.ply", process=False)
    np.testing.assert_allclose(ply.vertices, mesh.vertices, atol=1e-6)
    np.testing.assert_array_equal(ply.visual.vertex_colors, mesh.visual.vertex_colors)


def test_nothing_is_replaced_when_one_product_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path, colored_ball(), small_volume())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(self: CostVolume, path: Path) -> None:
        raise InputError("no space left on device")

    monkeypatch.setattr(CostVolume, "save", full)
    with pytest.raises(InputError, match="no space"):
        _write(tmp_path, trimesh.creation.box(), small_volume())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_folders_with_other_files_are_refused(tmp_path: Path, preset: Preset) -> None:
    views, out = tmp_path / "views", tmp_path / "out"
    lab_views(lab.sample_object(np.random.default_rng(0)), torch.eye(4), 2).save(views)
    out.mkdir()
    (out / "mesh.ply").write_text("earlier")
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="thesis.tex"):
        reconstruct(views, out, preset)
    with pytest.raises(InputError, match="other files"):
        reconstruct(views, views, preset)
    with pytest.raises(InputError, match="cannot use the folder"):
        reconstruct(views, out / "thesis.tex" / "below", preset)
    with pytest.raises(InputError, match="no folder"):
        reconstruct(tmp_path / "nothing", tmp_path / "new", preset)
    assert not (tmp_path / "new").exists()
    assert (out / "mesh.ply").read_text() == "earlier"


def test_outlines_come_from_alpha_or_from_the_background() -> None:
    views = lab_views(lab.sample_object(np.random.default_rng(0), category="car"), torch.eye(4), 2)
    torch.testing.assert_close(outlines(views), views.alpha)
    keyed = outlines(replace(views, alpha=None)) > 0.5
    assert (keyed == (views.alpha > 0.5)).float().mean() > 0.99
    # An alpha that is opaque everywhere says nothing.
    assert torch.equal(outlines(replace(views, alpha=torch.ones_like(views.alpha))) > 0.5, keyed)
    alpha = views.alpha.clone()
    alpha[1] = 0
    with pytest.raises(InputError, match="r_1 is transparent"):
        outlines(replace(views, alpha=alpha))
    noise = torch.rand(views.images.shape, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="view r_0: the background is not plain"):
        outlines(replace(views, images=noise, alpha=None))


def test_views_of_the_whole_object_are_preferred() -> None:
    cameras = orbit([45.0 * k for k in range(8)], 0.0, 3.0, 40.0, 16)
    alpha = torch.zeros(8, 16, 16)
    alpha[:, 4:12, 4:12] = 1
    alpha[[0, 3], :, 4:12] = 1
    assert choose_views(alpha, cameras, torch.zeros(3), 6) == [1, 2, 4, 5, 6, 7]
    alpha[:, :, 4:12] = 1
    assert len(choose_views(alpha, cameras, torch.zeros(3), 6)) == 6


def ball_pictures(cameras: Cameras) -> tuple[torch.Tensor, torch.Tensor]:
    """Exact images and alpha of a ball of radius 0.5 whose colour is its position, on white."""
    origins, directions = rays(cameras)
    along = -(origins * directions).sum(dim=-1, keepdim=True)
    inside = 0.25 - origins.square().sum(dim=-1, keepdim=True) + along.square()
    hit = origins + (along - inside.clamp(min=0).sqrt()) * directions
    return torch.where(inside > 0, hit + 0.5, 1.0), (inside > 0).float()


def test_vertices_take_the_colour_of_the_views_that_see_them() -> None:
    """The white background does not bleed in, and what a view sees in front of a vertex does not count."""
    ball = trimesh.creation.icosphere(subdivisions=3, radius=0.5)
    cameras = orbit([0.0, 90.0, 180.0, 270.0, 0.0, 0.0], [10.0, 10.0, 10.0, 10.0, 85.0, -85.0], 2.75, 40.0, 128)
    images, alpha = ball_pictures(cameras)
    colors = vertex_colors(ball, images, alpha, cameras) / 255
    assert np.abs(colors - (ball.vertices + 0.5)).max() < 0.03
    # A black plate before the camera at +x hides the middle of the ball from it.
    plate = trimesh.creation.box((0.02, 0.6, 0.6), transform=trimesh.transformations.translation_matrix((0.8, 0, 0)))
    both = trimesh.util.concatenate([ball, plate])
    seen = rasterize(cameras, torch.from_numpy(both.vertices).float(), torch.from_numpy(both.faces)).face_ids
    images[seen >= len(ball.faces)] = 0
    colors = vertex_colors(both, images, alpha, cameras)[: len(ball.vertices)] / 255
    assert np.abs(colors - (ball.vertices + 0.5))[ball.vertices[:, 0] < 0.45].max() < 0.05

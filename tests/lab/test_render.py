"""The exact renderer against the signed distance, the mesh, the camera model and the symmetry flag."""

from functools import cache

import numpy as np
import pytest
import torch

from geodream_lib import cameras as cam
from geodream_lib import lab
from geodream_lib.errors import InputError

SIZE = 64


@cache
def example(category: str) -> lab.LabObject:
    return lab.sample_object(np.random.default_rng(3), category)


def views(category: str, azimuths: list[float], size: int = SIZE) -> tuple[lab.LabRender, cam.Cameras]:
    cameras = cam.orbit(azimuths, 15.0, 2.75, 40.0, size)
    return lab.render([example(category)] * len(azimuths), cameras, np.ones((len(azimuths), 3))), cameras


@pytest.mark.parametrize("category", lab.CATEGORIES)
def test_surface_touches_the_sphere_of_radius_0_9(category):
    surface = lab.mesh(example(category), 96)
    assert surface.volume > 0, "faces must point outward"
    assert np.linalg.norm(surface.vertices, axis=1).max() == pytest.approx(0.9, abs=0.012)
    np.testing.assert_allclose(surface.bounds.mean(0), 0, atol=0.02)


@pytest.mark.parametrize("category", lab.CATEGORIES)
def test_depth_and_normal_agree_with_the_signed_distance(category):
    image, cameras = views(category, [20.0, 200.0])
    origins, directions = (rays.numpy() for rays in cam.rays(cameras))
    hit = image.part >= 0
    assert 0.04 < hit.mean() < 0.6
    points = (origins + image.depth[..., None] * directions)[hit]
    assert np.abs(lab.sdf(example(category), points)[0]).max() < 0.011  # grazing rays may stop a little outside
    assert np.quantile(np.abs(lab.sdf(example(category), points)[0]), 0.98) < 0.0012
    normal = image.normal[hit]
    np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-3)
    assert (np.einsum("nk,nk->n", normal, directions[hit]) < 0.1).mean() > 0.99
    assert np.median(lab.sdf(example(category), points + 0.01 * normal)[0]) == pytest.approx(0.01, abs=0.003)
    assert (lab.sdf(example(category), points - 0.01 * normal)[0] < 0).mean() > 0.99


@pytest.mark.parametrize("category", lab.CATEGORIES)
def test_normals_lead_away_from_the_surface(category):
    points = lab.mesh(example(category), 32).vertices
    normals = lab.normals(example(category), points)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    before, after = (lab.sdf(example(category), points + step * normals)[0] for step in (-0.005, 0.005))
    # Less where another part of the object becomes the nearest on the way.
    assert np.median(after - before) == pytest.approx(0.01, abs=5e-4) and (after > before).mean() > 0.99


@pytest.mark.parametrize("category", lab.CATEGORIES)
def test_the_distance_never_jumps_over_the_surface(category):
    """A step of the reported distance from outside, in any direction, must stay outside."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (20000, 3)).astype(np.float32)
    distance, _ = lab.sdf(example(category), points)
    step = rng.normal(size=points.shape)
    step /= np.linalg.norm(step, axis=1, keepdims=True)
    after, _ = lab.sdf(example(category), points + 0.9 * distance[:, None] * step)
    assert (after[distance > 0] > -0.01).all()


@pytest.mark.parametrize("category", lab.CATEGORIES)
def test_the_symmetry_flag_is_true(category):
    image, _ = views(category, [0.0, 90.0, 180.0])
    front, quarter, back = image.rgb.astype(float)
    seen = (image.alpha.max(0) > 0)[..., None]

    def unlike(one, two):  # light is fixed in the world, so only differences beyond shading count
        return (np.abs(one - two).max(-1, keepdims=True) > 60)[seen].mean()

    if lab.is_symmetric(category):
        assert max(unlike(front, quarter), unlike(front, back)) < 0.06
        assert (image.alpha[0] != image.alpha[1])[seen[..., 0]].mean() < 0.06
    else:
        assert min(unlike(front, back), unlike(front, back[:, ::-1])) > 0.06


def test_albedo_is_the_colour_of_the_visible_part():
    image, cameras = views("car", [30.0])
    origins, directions = (rays.numpy() for rays in cam.rays(cameras))
    hit = image.part >= 0
    colours = lab.albedo(example("car"), (origins + image.depth[..., None] * directions)[hit])
    expected = example("car").primitives[image.part[hit], 17:20]
    assert (np.abs(colours - expected).max(1) < 1e-6).mean() > 0.98


def test_the_light_is_mild_and_never_brighter_than_the_albedo():
    image, _ = views("mushroom", [0.0, 90.0, 180.0, 270.0])
    inside = image.alpha == 255
    albedo = example("mushroom").primitives[np.maximum(image.part, 0), 17:20]
    interior = inside & (image.part >= 0) & (albedo.max(-1) > 0.5)
    light = image.rgb.max(-1)[interior] / 255 / albedo.max(-1)[interior]
    assert np.quantile(light, 0.05) > 0.5 and np.quantile(light, 0.95) < 1.02


def test_background_is_blended_by_alpha_and_may_be_a_gradient():
    cameras = cam.orbit([10.0, 10.0], 15.0, 2.75, 40.0, SIZE)
    obj = example("kitten")
    black, white = lab.render([obj, obj], cameras, np.array([[0.0, 0, 0], [1, 1, 1]])).rgb.astype(float)
    alpha = lab.render([obj], cameras[0], np.zeros((1, 3))).alpha[0]
    np.testing.assert_allclose(white - black, np.broadcast_to((255.0 - alpha)[..., None], white.shape), atol=1.5)
    assert 0 < ((alpha > 0) & (alpha < 255)).mean() < 0.1
    ramp = lab.render([obj], cameras[0], np.array([[[0.0] * 3, [1.0] * 3]])).rgb[0, :, 0, 0].astype(float)
    np.testing.assert_allclose(ramp, (np.arange(SIZE) + 0.5) / SIZE * 255, atol=1)


def test_intrinsics_and_pose_are_honoured():
    """A cropped pinhole (moved centre, fx unlike fy) sees the same surface where `cameras.project` says it is."""
    base = cam.orbit([40.0], 25.0, 2.75, 40.0, SIZE)
    intrinsics = base.intrinsics.clone()
    intrinsics[:, 0, 0] *= 1.3
    intrinsics[:, 0, 2] += 7.5
    intrinsics[:, 1, 2] -= 4.0
    moved = cam.Cameras(base.c2w, intrinsics, SIZE, SIZE + 16)
    image = lab.render([example("robot")], moved, np.ones((1, 3)))
    origins, directions = cam.rays(moved)
    points = (origins + torch.from_numpy(image.depth)[..., None] * directions)[torch.from_numpy(image.part >= 0)]
    assert np.abs(lab.sdf(example("robot"), points.numpy())[0]).max() < 0.011
    u, v = cam.project(moved, points)[0][0].T.numpy()
    rows, columns = np.nonzero(image.part[0] >= 0)
    np.testing.assert_allclose(np.stack([u, v]), np.stack([columns, rows]) + 0.5, atol=1e-2)


def test_render_rgba_is_render_and_threads_change_nothing():
    image, cameras = views("owl", [0.0, 100.0])
    rgb, alpha = lab.render_rgba([example("owl")] * 2, cameras, np.ones((2, 3)), threads=2)
    np.testing.assert_array_equal(rgb, image.rgb)
    np.testing.assert_array_equal(alpha, image.alpha)


def test_counts_must_agree():
    with pytest.raises(InputError, match="2 cameras"):
        lab.render([example("owl")], cam.orbit([0.0, 1.0], 0.0, 2.75, 40.0, 8), np.ones((1, 3)))


def test_mesh_carries_the_colours_of_the_object():
    surface = lab.mesh(example("vase"), 48)
    colours = surface.visual.vertex_colors[:, :3] / 255
    palette = example("vase").primitives[:, 17:20]
    assert np.abs(colours[:, None] - palette[None]).max(-1).min(1).max() < 0.01

"""Any cameras to the cube: the object is found from its outlines, and crops and similarities move no point."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from geodream_lib.cameras import Cameras, look_at, orbit, pinhole, project, rays
from geodream_lib.errors import InputError
from geodream_lib.lab import sample_object
from geodream_lib.lab.render import render_rgba
from geodream_lib.volume import OBJECT_RADIUS, crop_to_sphere, find_object, move_to_cube, sphere_fill, spread_views

CENTER, SCALE = torch.tensor([10.0, -4.0, 2.0]), 3.0
BLENDER = {"radius": 3.0, "fov_y": 39.6}  # as nerf-synthetic: the object at 3.3 times its radius


def ring(count: int, elevation: tuple[float, float], size: int = 64, seed: int = 0) -> Cameras:
    """Cameras all around the unit world, at random elevations."""
    rng = np.random.default_rng(seed)
    azimuth = 360 * (np.arange(count) + rng.random(count)) / count
    return orbit(azimuth.tolist(), rng.uniform(*elevation, count).tolist(), **BLENDER, size=size)


def elsewhere(cameras: Cameras) -> Cameras:
    """The same pictures in a world three times as large and moved."""
    c2w = cameras.c2w.clone()
    c2w[:, :3, 3] = c2w[:, :3, 3] * SCALE + CENTER
    return replace(cameras, c2w=c2w)


def lab_alpha(category: str, cameras: Cameras, seed: int = 0) -> Tensor:
    obj = sample_object(np.random.default_rng(seed), category=category, split="held_out")
    _, alpha = render_rgba([obj] * len(cameras), cameras, np.ones((len(cameras), 3), np.float32))
    return torch.from_numpy(alpha).float() / 255


def ball_alpha(cameras: Cameras, center: list[float], radius: float) -> Tensor:
    """Exact outline of a ball: a ray hits it where it passes the centre within the radius, in front of the camera."""
    origins, directions = rays(cameras)
    to_center = torch.tensor(center) - origins
    along = (to_center * directions).sum(dim=-1)
    return ((to_center.square().sum(dim=-1) - along.square() < radius**2) & (along > 0)).float()


def check(alpha: Tensor, cameras: Cameras, center: float = 0.05, radius: float = 0.1) -> None:
    found, size = find_object(alpha, elsewhere(cameras))
    truth = SCALE * OBJECT_RADIUS
    assert (found - CENTER).norm() < center * truth
    assert size == pytest.approx(truth, rel=radius)


@pytest.mark.parametrize("category", ["giraffe", "dinosaur", "axe", "cake"])
def test_object_is_found_in_any_world(category: str) -> None:
    cameras = ring(16, (-20, 50))
    check(lab_alpha(category, cameras), cameras)


def test_phantoms_of_few_views_do_not_count() -> None:
    """Eight views from one height see parts of a hull beside this squirrel, as far from it as its own size."""
    cameras = ring(8, (15, 15), size=96)
    check(lab_alpha("squirrel", cameras), cameras)


def test_all_of_several_parts_count() -> None:
    cameras = ring(12, (-20, 50))
    parts = [([0.6, 0.0, 0.0], 0.3), ([-0.7, 0.1, 0.2], 0.2), ([0.0, -0.4, -0.4], 0.15)]
    alpha = torch.stack([ball_alpha(cameras, *part) for part in parts]).amax(dim=0)
    center, radius = find_object(alpha, cameras)
    torch.testing.assert_close(center, torch.tensor([0.0, -0.125, -0.075]), atol=0.05, rtol=0)
    assert radius == pytest.approx(0.97, rel=0.07)


def test_views_of_a_part_do_not_cut_the_object() -> None:
    """Every third camera sees only what is left and above of the middle of its image."""
    cameras = ring(24, (-20, 50))
    alpha = lab_alpha("dinosaur", cameras)
    intrinsics = cameras.intrinsics.clone()
    intrinsics[::3, :2, 2] += 32
    shifted = torch.zeros_like(alpha)
    shifted[:, 32:, 32:] = alpha[:, :32, :32]
    alpha[::3] = shifted[::3]
    check(alpha, replace(cameras, intrinsics=intrinsics))


def test_one_wrong_mask_does_not_remove_what_the_others_see() -> None:
    cameras = ring(24, (-20, 50))
    alpha = lab_alpha("dinosaur", cameras)
    alpha[5, :, 32:] = 0
    check(alpha, cameras)


def test_views_that_do_not_fit_each_other_are_an_error() -> None:
    cameras = elsewhere(ring(8, (-20, 50)))
    alpha = lab_alpha("dinosaur", ring(8, (-20, 50)))
    backward = cameras.c2w @ torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0]))
    with pytest.raises(InputError, match="look at a common point"):
        find_object(alpha, replace(cameras, c2w=backward))
    # Matrices taken for their inverses: rigid, but of nothing.
    with pytest.raises(InputError, match="common point|do not show one object|same direction"):
        find_object(alpha, replace(cameras, c2w=cameras.w2c))
    same = cameras[[0] * 8]
    with pytest.raises(InputError, match="several sides"):
        find_object(alpha[[0] * 8], same)
    with pytest.raises(InputError, match="shows nothing"):
        find_object(torch.zeros_like(alpha), cameras)


def test_crop_shows_every_point_where_its_camera_projects_it() -> None:
    """Each pixel of a view holds its own coordinates; read in the crop, they are the old projection of the point."""
    position = torch.tensor([[0.0, -3.0, 1.0], [2.5, 1.0, 0.3]])
    cameras = Cameras(
        look_at(position, torch.tensor([[0.4, 0, 0], [0, 0.5, 0]])), pinhole(torch.full((2,), 70.0), 90, 120), 90, 120
    )
    v, u = torch.meshgrid(torch.arange(90) + 0.5, torch.arange(120) + 0.5, indexing="ij")
    images = torch.stack([u, v], dim=-1).expand(2, -1, -1, -1)
    center = torch.tensor([0.1, 0.2, -0.1])
    for size in (32, 128):
        crops, cropped = crop_to_sphere(images, cameras, center, 0.5, size, 0.9, background=0.0)
        points = center + 0.3 * torch.nn.functional.normalize(
            torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), dim=-1
        )
        old, new = project(cameras, points)[0], project(cropped, points)[0]
        seen = torch.nn.functional.grid_sample(
            crops.permute(0, 3, 1, 2), (2 * new / size - 1)[:, None], align_corners=False
        )
        torch.testing.assert_close(seen[:, :, 0].transpose(1, 2), old, atol=0.01, rtol=0)
        torch.testing.assert_close(cropped.c2w, cameras.c2w)


def test_sphere_takes_its_share_of_the_crop() -> None:
    """A ball near the border of a wide view; the rest of the crop was not in the image."""
    cameras = orbit([0.0], 0.0, 4.0, 60.0, 256)
    center = [0.0, 1.7, 0.0]
    alpha = ball_alpha(cameras, center, 0.5)
    crop, cropped = crop_to_sphere(alpha[..., None], cameras, torch.tensor(center), 0.5, 100, 0.8, background=0.0)
    rows, columns = ((crop[0, ..., 0] > 0.5).any(dim=axis).nonzero()[:, 0] for axis in (1, 0))
    # Off the axis the outline is an ellipse: the longer axis takes 80 of 100 pixels.
    assert columns[-1] - columns[0] + 1 == pytest.approx(80, abs=2)
    assert columns[0] + columns[-1] == pytest.approx(99, abs=3) and rows[0] + rows[-1] == pytest.approx(99, abs=3)
    white, _ = crop_to_sphere(torch.zeros(1, 256, 256, 3), cameras, torch.tensor(center), 0.5, 100, 0.8, background=1.0)
    assert cropped.width == cropped.height == 100
    assert white[0, 50, -1].min() == 1 and white[0, 50, 50].max() == 0


def test_turntable_view_is_its_own_crop() -> None:
    cameras = orbit([30.0], 20.0, 2.75, 40.0, 128)
    images = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(0))
    fill = sphere_fill(OBJECT_RADIUS, 2.75, 40.0)
    crops, cropped = crop_to_sphere(images, cameras, torch.zeros(3), OBJECT_RADIUS, 128, fill, background=1.0)
    torch.testing.assert_close(crops, images)
    torch.testing.assert_close(cropped.intrinsics, cameras.intrinsics)


def test_camera_inside_the_object_is_an_error() -> None:
    cameras = orbit([0.0, 90.0], 0.0, 0.8, 60.0, 32)
    with pytest.raises(InputError, match="inside the object"):
        crop_to_sphere(torch.zeros(2, 32, 32, 1), cameras, torch.zeros(3), 0.9, 32, 0.9, background=0.0)


def test_cube_and_world_show_the_same_picture() -> None:
    cameras = elsewhere(ring(3, (0, 40)))
    moved, to_world = move_to_cube(cameras, CENTER, 2.0)
    points = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    in_world = points @ to_world[:3, :3].T + to_world[:3, 3]
    torch.testing.assert_close(project(moved, points)[0], project(cameras, in_world)[0], atol=1e-3, rtol=1e-4)
    surface = to_world @ torch.tensor([0.0, 0.0, OBJECT_RADIUS, 1.0])
    torch.testing.assert_close(surface[:3], CENTER + torch.tensor([0.0, 0.0, 2.0]))


def test_chosen_views_are_spread() -> None:
    angles = torch.tensor([0.0, 1.0, 2.0, 90.0, 91.0, 180.0, 270.0, 271.0])
    position = torch.stack(
        [torch.cos(angles * math.pi / 180), torch.sin(angles * math.pi / 180), torch.zeros(8)], dim=-1
    )
    chosen = spread_views(5 * position + CENTER, CENTER, 4)
    assert chosen[0] == 0 and 5 in chosen
    assert len({round(angles[index].item() / 90) for index in chosen}) == 4
    assert spread_views(position, torch.zeros(3), 20) == list(range(8))

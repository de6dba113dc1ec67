"""Rendering: an analytic sphere has its silhouette, depth and normals; shortcuts do not change the picture."""

import math

import pytest
import torch

from geodream_lib.cameras import orbit, rays
from geodream_lib.field import occupancy_grid, render, sampling, solid_background
from geodream_lib.field.sampling import sample_rays

WHITE = solid_background(torch.ones(3))
VOXEL = 2 / 63


class Sphere:
    """A sphere around `center`, coloured by position."""

    def __init__(self, radius: float = 0.6, inverse_deviation: float = 200.0, to_world: torch.Tensor | None = None):
        self.radius = torch.tensor(radius, requires_grad=True)
        self.inverse_deviation = torch.tensor(inverse_deviation)
        self.to_world = torch.eye(4) if to_world is None else to_world
        self.center = self.to_world[:3, 3]
        self.evaluated = 0

    def sdf(self, points: torch.Tensor) -> torch.Tensor:
        return (points - self.center).norm(dim=-1) - self.radius

    def sdf_and_gradient(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.evaluated += len(points)
        return self.sdf(points), torch.nn.functional.normalize(points - self.center, dim=-1)

    def color(self, points: torch.Tensor) -> torch.Tensor:
        return ((points + 1) / 2).clamp(0, 1)


def some_cameras(size: int = 64):
    return orbit([20.0, 200.0], [15.0, -35.0], 2.8, 40.0, size)


def analytic_sphere(cameras, sphere: Sphere) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which pixel centres see the sphere, at which distance, and the normal there."""
    origins, directions = rays(cameras)
    to_center = sphere.center - origins
    along = (to_center * directions).sum(-1)
    missed = to_center.square().sum(-1) - along.square()
    hit = missed < sphere.radius.detach() ** 2
    distance = along - (sphere.radius.detach() ** 2 - missed).clamp(min=0).sqrt()
    normal = torch.nn.functional.normalize(origins + directions * distance[..., None] - sphere.center, dim=-1)
    return hit, distance, normal


def test_a_sphere_has_its_silhouette_depth_and_normals() -> None:
    sphere, cameras = Sphere(), some_cameras()
    rendered = render(sphere, cameras, samples_per_ray=96, background=WHITE, occupancy=occupancy_grid(sphere))
    hit, distance, normal = analytic_sphere(cameras, sphere)
    # A sphere of radius r at distance d covers a disc of tangent r / sqrt(d^2 - r^2) about the image's centre.
    tangent = 0.6 / math.sqrt(2.8**2 - 0.6**2) / math.tan(math.radians(20))
    disc = math.pi * tangent**2 / 4
    areas = rendered.opacity.mean((1, 2))
    assert ((areas / disc - 1).abs() < 0.02).all(), (areas / disc).tolist()
    # At the very edge a pixel sees the surface at a grazing angle, where distance changes within a pixel.
    facing = hit & ((rays(cameras)[1] * normal).sum(-1) < -0.3)
    assert ((rendered.depth - distance)[facing].abs() < VOXEL).all()
    assert ((rendered.normal * normal).sum(-1)[facing] > 0.995).all()
    assert rendered.opacity[facing].min() > 0.99 and rendered.opacity.max() < 1 + 1e-5
    far_away = rendered.opacity < 1e-3
    assert far_away.float().mean() > 0.5 and (rendered.rgb[far_away] > 0.99).all()


def test_the_softer_slope_of_early_training_widens_the_silhouette() -> None:
    sphere, cameras = Sphere(), some_cameras()
    exact, soft = (
        render(sphere, cameras, samples_per_ray=64, background=WHITE, cos_anneal_ratio=ratio).opacity.mean().item()
        for ratio in (1.0, 0.0)
    )
    assert 1.03 < soft / exact < 1.15


def test_bounds_on_memory_do_not_change_the_picture() -> None:
    sphere, cameras = Sphere(), some_cameras(24)
    once, parts = (
        render(sphere, cameras, samples_per_ray=32, background=WHITE, memory_gib=bound) for bound in (1.0, 1e-3)
    )
    for name in ("rgb", "opacity", "depth", "normal"):
        torch.testing.assert_close(getattr(parts, name), getattr(once, name), atol=1e-5, rtol=0)


def test_jitter_depends_on_the_generator_alone() -> None:
    sphere, cameras = Sphere(), some_cameras(16)
    first, second, third = (
        render(
            sphere,
            cameras,
            samples_per_ray=32,
            background=WHITE,
            generator=torch.Generator().manual_seed(seed),
            memory_gib=bound,
        ).rgb
        for seed, bound in ((0, 1.0), (0, 1e-3), (1, 1.0))
    )
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0)
    assert (first - third).abs().max() > 1e-3


@pytest.mark.parametrize("ratio", [0.0, 1.0])
@pytest.mark.parametrize("inverse_deviation", [40.0, 200.0])
def test_occupancy_saves_most_of_the_work_and_changes_no_pixel_by_a_grey_level(
    inverse_deviation: float, ratio: float
) -> None:
    sphere, cameras = Sphere(inverse_deviation=inverse_deviation), some_cameras(48)
    arguments = {"samples_per_ray": 64, "background": WHITE, "cos_anneal_ratio": ratio}
    with torch.no_grad():
        full = render(sphere, cameras, **arguments)
        everything, sphere.evaluated = sphere.evaluated, 0
        fast = render(sphere, cameras, occupancy=occupancy_grid(sphere, resolution=32), **arguments)
    assert sphere.evaluated < everything * (0.25 if inverse_deviation == 40 else 0.1)
    assert (full.rgb - fast.rgb).abs().max() < 1 / 255


def test_gradient_with_respect_to_the_radius_is_that_of_the_picture() -> None:
    cameras = some_cameras(24)

    def area(radius: float, occupancy: torch.Tensor) -> tuple[torch.Tensor, Sphere]:
        sphere = Sphere(radius, inverse_deviation=60.0)
        return render(sphere, cameras, samples_per_ray=64, background=WHITE, occupancy=occupancy).opacity.mean(), sphere

    occupancy = occupancy_grid(Sphere(0.6, inverse_deviation=60.0))
    value, sphere = area(0.6, occupancy)
    value.backward()
    step = 0.005
    numeric = (area(0.6 + step, occupancy)[0] - area(0.6 - step, occupancy)[0]) / (2 * step)
    assert abs(sphere.radius.grad / numeric.detach() - 1) < 0.03


def test_a_field_may_lie_anywhere_at_any_scale() -> None:
    """Moving cameras and field by one similarity changes distances by its scale, and nothing else."""
    angle, scale = math.radians(40), 1.7
    turn = torch.eye(4)
    turn[:2, :2] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    similarity = turn.clone()
    similarity[:3, :3] *= scale
    similarity[:3, 3] = torch.tensor([0.4, -3.0, 1.0])

    cameras = some_cameras(24)
    c2w = turn @ cameras.c2w
    c2w[:, :3, 3] = cameras.positions @ similarity[:3, :3].T + similarity[:3, 3]
    moved_cameras = type(cameras)(c2w, cameras.intrinsics, 24, 24)
    here, moved = Sphere(0.6, 100.0), Sphere(0.6 * scale, 100.0 / scale, similarity)

    a = render(here, cameras, samples_per_ray=48, background=WHITE, occupancy=occupancy_grid(here))
    b = render(moved, moved_cameras, samples_per_ray=48, background=WHITE, occupancy=occupancy_grid(moved))
    torch.testing.assert_close(b.opacity, a.opacity, atol=2e-3, rtol=0)
    seen = a.opacity > 0.9
    torch.testing.assert_close(b.depth[seen], a.depth[seen] * scale, atol=2e-2, rtol=0)
    torch.testing.assert_close(b.normal[seen], a.normal[seen] @ turn[:3, :3].T, atol=2e-3, rtol=0)


def test_rays_that_miss_the_cube_show_the_background_and_keep_the_graph() -> None:
    sphere = Sphere()
    away = orbit([0.0], 0.0, 2.8, 40.0, 8)
    away = type(away)(away.c2w @ torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0])), away.intrinsics, 8, 8)
    rendered = render(sphere, away, samples_per_ray=16, background=WHITE, occupancy=occupancy_grid(sphere))
    assert (rendered.opacity == 0).all() and (rendered.rgb == 1).all() and (rendered.depth == 0).all()
    rendered.opacity.sum().backward()
    assert sphere.radius.grad == 0


@pytest.mark.parametrize("inverse_deviation", [40.0, 200.0])
def test_walking_along_rays_keeps_the_sections_that_laying_them_out_keeps(
    inverse_deviation: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    sphere = Sphere(inverse_deviation=inverse_deviation)
    origins, directions = (x.reshape(-1, 3) for x in rays(some_cameras(24)))
    offset = torch.rand(len(origins), generator=torch.Generator().manual_seed(0))

    def kept() -> set[tuple[int, float]]:
        occupancy = occupancy_grid(sphere, resolution=32)
        arguments = {"samples_per_ray": 64, "occupancy": occupancy, "max_samples": 2**14}
        samples = sample_rays(sphere, origins, directions, offset, **arguments)
        return set(zip(samples.ray.tolist(), (samples.distance * 1e4).round().tolist(), strict=True))

    walked = kept()
    monkeypatch.setattr(sampling, "_compiled_kernels", lambda: None)
    assert len(walked) > 1000 and len(walked ^ kept()) < 0.002 * len(walked)  # but for rounding, at the threshold


def test_sections_are_equal_and_stay_in_the_cube() -> None:
    sphere = Sphere()
    origins, directions = (x.reshape(-1, 3) for x in rays(some_cameras(12)))
    offset = torch.rand(len(origins), generator=torch.Generator().manual_seed(0))
    samples = sample_rays(sphere, origins, directions, offset, samples_per_ray=50, occupancy=None, max_samples=2**20)
    points = origins[samples.ray] + directions[samples.ray] * samples.distance[:, None]
    assert points.abs().max() < 1 + 1e-5
    same_ray = samples.ray.diff() == 0
    expected = torch.full_like(samples.distance[1:][same_ray], 2 * math.sqrt(3) / 50)
    torch.testing.assert_close(samples.distance.diff()[same_ray], expected, atol=1e-5, rtol=0)

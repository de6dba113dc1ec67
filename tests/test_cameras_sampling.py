"""Cameras: the distribution of those that train, and of whose pixels each is one of another's."""

import torch

from geodream_lib.cameras import azimuth_elevation, field_of_view, orbit, rays
from geodream_lib.cameras_sampling import model_view_projection, sample_training_cameras

RANGES = {"distance": (2.5, 3.0), "fov_y": (40.0, 60.0), "elevation": (-10.0, 60.0), "size": 8}


def draw(n: int, seed: int):
    return sample_training_cameras(n, **RANGES, generator=torch.Generator().manual_seed(seed))


def test_cameras_stand_where_they_say_and_look_at_the_object() -> None:
    cameras, azimuth, elevation, distance = draw(16, seed=0)
    seen_azimuth, seen_elevation = azimuth_elevation(cameras.positions)
    torch.testing.assert_close(seen_azimuth, azimuth, atol=1e-3, rtol=0)
    torch.testing.assert_close(seen_elevation, elevation, atol=1e-3, rtol=0)
    torch.testing.assert_close(cameras.positions.norm(dim=-1), distance)
    forward = -cameras.c2w[:, :3, 2]
    torch.testing.assert_close(forward, -cameras.positions / distance[:, None], atol=1e-6, rtol=0)
    for value, (low, high) in (
        (distance, RANGES["distance"]),
        (field_of_view(cameras), RANGES["fov_y"]),
        (elevation, RANGES["elevation"]),
    ):
        assert low - 1e-3 <= value.min() and value.max() <= high + 1e-3


def test_azimuths_cover_the_circle_in_every_batch() -> None:
    for seed in range(5):
        azimuth = draw(8, seed)[1]
        assert ((azimuth + 180) // 45).tolist() == list(range(8))


def test_elevations_are_half_uniform_in_degrees_and_half_on_the_sphere() -> None:
    """Mean of the mixture: (lo + hi) / 2 in degrees, and the analytic mean of a uniform sine."""
    batches = torch.stack([draw(32, seed)[2] for seed in range(200)])
    low, high = torch.deg2rad(torch.tensor(RANGES["elevation"]))
    # The mean of e with density cos(e) between low and high.
    sphere = (high * high.sin() + high.cos() - low * low.sin() - low.cos()) / (high.sin() - low.sin())
    expected = (torch.rad2deg(sphere) + sum(RANGES["elevation"]) / 2) / 2
    assert abs(batches.mean() - expected) < 0.5


def test_same_generator_state_same_cameras() -> None:
    assert torch.equal(draw(4, seed=7)[0].c2w, draw(4, seed=7)[0].c2w)
    assert not torch.equal(draw(4, seed=7)[0].c2w, draw(4, seed=8)[0].c2w)


def test_projection_puts_the_object_in_the_middle_and_up_is_up() -> None:
    cameras = draw(3, seed=1)[0]
    points = torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.1, 1.0]])
    clip = torch.einsum("nij,mj->nmi", model_view_projection(cameras, 0.1, 100.0), points)
    ndc = clip[..., :3] / clip[..., 3:]
    assert ndc[:, 0, :2].abs().max() < 1e-5
    # y points down in these clip coordinates, so that what is higher up has the smaller row.
    assert (ndc[:, 1, 1] < 0).all() and (ndc[..., 2].abs() < 1).all()


def test_every_third_pixel_looks_where_it_looked() -> None:
    cameras = orbit([10.0, 200.0], [0.0, 30.0], 2.75, 40.0, 16)
    few = cameras.every(3, column=1, row=2)
    for thinned, whole in zip(rays(few), rays(cameras), strict=True):
        torch.testing.assert_close(thinned, whole[:, 2::3, 1::3])

"""The prior as a mesh: the surface of a known field, in the world frame."""

import pytest
import torch

from geodream_lib.errors import InputError
from geodream_lib.volume import CostVolume, GeometryDecoder
from geodream_lib.volume.mesh import volume_mesh


class Ball(GeometryDecoder):
    """A decoder whose signed distance is that of a ball, plus the volume's feature."""

    def sdf(self, points: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        return (points - points.new_tensor([0.1, 0.2, -0.1])).norm(dim=-1) - 0.5 + latent[:, 0]


def cost_volume(mask: torch.Tensor, value: float = 0.0, to_world: torch.Tensor | None = None) -> CostVolume:
    volume = torch.full((1, *mask.shape), value)
    return CostVolume(volume, mask, torch.eye(4) if to_world is None else to_world)


def test_a_ball_comes_back_where_it_is_with_outward_faces() -> None:
    """Rotated, scaled by two and moved: radius and centre follow, and the volume is positive."""
    to_world = torch.tensor([[0.0, -2.0, 0.0, 1.0], [2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 2.0, 3.0], [0.0, 0.0, 0.0, 1.0]])
    mesh = volume_mesh(cost_volume(torch.ones(8, 8, 8, dtype=torch.bool), 0.0, to_world), Ball(), 48)
    center = torch.tensor([1 - 0.4, 0.2, 3 - 0.2]).double()
    radius = (torch.from_numpy(mesh.vertices.copy()) - center).norm(dim=-1)
    torch.testing.assert_close(radius, torch.ones_like(radius), atol=0.01, rtol=0)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * torch.pi, rel=0.02)


def test_unseen_space_is_outside_and_the_surface_stays_closed() -> None:
    mask = torch.ones(16, 16, 16, dtype=torch.bool)
    mask[:8] = False
    mesh = volume_mesh(cost_volume(mask), Ball(), 48)
    assert mesh.is_watertight
    assert mesh.vertices[:, 0].min() > -0.1
    # Inside everywhere: the cube's faces close the surface.
    full = volume_mesh(cost_volume(torch.ones(8, 8, 8, dtype=torch.bool), -9.0), Ball(), 16)
    assert full.is_watertight and full.volume > 7


def test_no_surface_is_an_error() -> None:
    with pytest.raises(InputError, match="no surface"):
        volume_mesh(cost_volume(torch.ones(8, 8, 8, dtype=torch.bool), 9.0), Ball(), 16)
    with pytest.raises(InputError, match="no surface"):
        volume_mesh(cost_volume(torch.zeros(8, 8, 8, dtype=torch.bool)), Ball(), 16)

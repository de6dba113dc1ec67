"""Without the prior: a ball that the frozen decoder reads from a volume, and a run that starts from it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from geodream_lib.data import data_folder
from geodream_lib.pipeline import reconstruct_volume
from geodream_lib.run import create_run
from geodream_lib.samples import SAMPLE
from geodream_lib.volume import CostVolumeNetworks, ball_volume, load_cost_volume_networks, query_sdf_and_gradient
from geodream_lib.volume.mesh import volume_mesh


@pytest.fixture(scope="module")
def networks() -> CostVolumeNetworks:
    return load_cost_volume_networks(data_folder() / "lab/cost_volume/model.safetensors")


def test_the_frozen_decoder_reads_a_ball_between_the_voxels_too(networks: CostVolumeNetworks) -> None:
    """Distances within 0.02 everywhere, gradients of length one, and a closed surface of radius 0.5."""
    volume = ball_volume(networks.decoder, 24)
    points = 2 * torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)) - 1
    with torch.no_grad():
        sdf, gradient = query_sdf_and_gradient(volume.volume, networks.decoder, points)
    torch.testing.assert_close(sdf, points.norm(dim=-1) - 0.5, atol=0.02, rtol=0)
    assert gradient.norm(dim=-1).mean().item() == pytest.approx(1, abs=0.02)
    mesh = volume_mesh(volume, networks.decoder, 48)
    assert mesh.is_watertight and mesh.body_count == 1
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices, axis=1), 0.5, atol=0.01)


def test_its_features_are_of_the_size_that_views_give(networks: CostVolumeNetworks) -> None:
    """What refinement does to the ball's features it could do to a cost volume's: neither are they far away, nor 0."""
    volume = ball_volume(networks.decoder, 16)
    assert volume.mask.all()
    assert 0.05 < volume.volume.square().mean().sqrt() < 1


def test_a_run_without_the_prior_starts_from_the_ball(tmp_path: Path) -> None:
    sizes = {"volume.resolution": 16, "volume.refined_resolution": 16, "volume.mesh_resolution": 32}
    run = create_run("a red mushroom", tmp_path / "run", overrides=sizes | {"volume.prior": "false"})
    shutil.copytree(data_folder() / "samples" / SAMPLE / "views", run.views)
    reconstruct_volume(run)
    vertices = trimesh.load_mesh(run.folder / "volume.ply").vertices
    np.testing.assert_allclose(np.linalg.norm(vertices, axis=1), 0.5, atol=0.03)
    assert run.is_done("volume")

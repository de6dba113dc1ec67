"""Uni3D's point encoder in each of its three kinds of trunk, against the released code on small random networks."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from geodream_lib.metrics.point_cloud import farthest_points, take
from geodream_lib.metrics.point_encoder import Uni3D
from geodream_lib.metrics.point_text import load_uni3d
from geodream_lib.weights.convert_uni3d import convert_uni3d


@pytest.fixture(scope="module")
def io(golden) -> dict[str, Tensor]:
    with np.load(golden / "uni3d" / "io.npz") as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}


@pytest.fixture(params=["plain", "gated", "gated_norm"])
def kind(request) -> str:
    return request.param


@pytest.fixture
def uni3d(golden, kind, tmp_path) -> Uni3D:
    """The released file, converted and loaded; all three share the small network that reads a patch."""
    folder = golden / "uni3d"
    tensors = load_file(folder / f"{kind}.safetensors") | load_file(folder / "encoder.safetensors")
    convert_uni3d(tensors, tmp_path / "uni3d", config=json.loads((folder / "config.json").read_text())[kind])
    network = load_uni3d(tmp_path / "uni3d")
    assert network.point_encoder.config.mlp == kind
    return network


def test_patches_lie_where_the_released_code_puts_them(io, uni3d):
    """The furthest point comes first in the stored clouds, so that either way of beginning is the same."""
    chosen = farthest_points(io["xyz"], uni3d.point_encoder.config.groups)
    assert torch.equal(take(io["xyz"], chosen), io["centres"])


@torch.no_grad()
def test_clouds_are_embedded_as_by_the_released_code(io, uni3d, kind):
    """Clouds of the fixture are in Uni3D's frame already."""
    embedded = uni3d.point_encoder(io["xyz"], io["rgb"])
    torch.testing.assert_close(embedded, io[kind], atol=1e-5, rtol=1e-4)

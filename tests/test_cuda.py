"""CUDA gives the CPU's values and gradients, operation by operation; run on machines that have it."""

from collections.abc import Callable

import pytest
import torch
import trimesh
from torch import Tensor

from geodream_lib.cameras import orbit
from geodream_lib.field import HashEncoding
from geodream_lib.mesh import DMTet, render_normals
from geodream_lib.volume.sparse_conv import submanifold_conv

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def assert_same_on_cuda(operation: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Value, and gradient of a fixed projection of it with respect to the first input."""
    results = []
    for device in ("cpu", "cuda"):
        first, *rest = (x.detach().to(device) for x in inputs)
        value = operation(first.requires_grad_(), *rest)
        (value * torch.linspace(-1, 1, value.numel(), device=device).view_as(value)).sum().backward()
        results.append((value.detach().cpu(), first.grad.cpu()))
    (value, gradient), (cuda_value, cuda_gradient) = results
    torch.testing.assert_close(cuda_value, value, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(cuda_gradient, gradient, atol=1e-3 * gradient.abs().max().item(), rtol=1e-3)


def test_hash_encoding() -> None:
    points = torch.rand(500, 3, generator=torch.Generator().manual_seed(0))
    encoding = HashEncoding(4, 2, 12, 8, 1.5)

    def encode(table: Tensor, points: Tensor) -> Tensor:
        return torch.func.functional_call(encoding, {"table": table}, (points,))

    assert_same_on_cuda(encode, encoding.table, points)


def test_submanifold_convolution() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(9, 9, 9, generator=generator) < 0.3
    rows = torch.randn(int(mask.sum()), 4, generator=generator)
    kernel = torch.randn(27, 4, 6, generator=generator)
    assert_same_on_cuda(lambda rows, kernel, mask: submanifold_conv(rows, mask, kernel), rows, kernel, mask)


def test_normal_maps_of_a_mesh() -> None:
    sphere = trimesh.creation.icosphere(2, 0.6)
    vertices, faces = torch.tensor(sphere.vertices, dtype=torch.float32), torch.tensor(sphere.faces)
    cameras = orbit([20.0, 200.0], [15.0, -35.0], 2.8, 40.0, 48)

    def draw(vertices: Tensor, faces: Tensor) -> Tensor:
        return render_normals(cameras.to(vertices.device), vertices, faces, vertices.new_zeros(2, 3))

    assert_same_on_cuda(draw, vertices, faces)


def test_marching_tetrahedra() -> None:
    vertices, faces = DMTet.from_sdf(lambda x: x.norm(dim=-1) - 0.5, 16).mesh()
    moved = DMTet.from_sdf(lambda x: x.norm(dim=-1) - 0.5, 16).to("cuda").mesh()
    assert torch.equal(moved[1].cpu(), faces)
    torch.testing.assert_close(moved[0].cpu(), vertices, atol=1e-5, rtol=0)

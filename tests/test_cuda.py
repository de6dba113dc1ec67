"""CUDA gives the CPU's values and gradients, operation by operation: plain bodies, and the libraries that are there.

Run on machines with a device: `pytest -m gpu tests`. A library that is not installed, or not active, is skipped.
"""

from collections.abc import Callable

import pytest
import torch
import trimesh
from torch import Tensor

from geodream_lib.cameras import Cameras, orbit
from geodream_lib.cuda_libraries import library, state
from geodream_lib.field import HashEncoding
from geodream_lib.field.hash_encoding import encode_reference, tinycudann_grid
from geodream_lib.mesh import DMTet, FlexiCubes, render_normals
from geodream_lib.mesh.rasterize import rasterize
from geodream_lib.mesh.visibility import visible_faces, visible_faces_torch
from geodream_lib.mesh.visibility_cuda import (
    _context,
    visible_faces_by_library,
    visible_faces_kaolin,
    visible_faces_nvdiffrast,
)
from geodream_lib.neus import lay_out, packed_weights, rendering_weights
from geodream_lib.volume.sparse_conv import submanifold_conv

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def needs(name: str) -> None:
    """Skip where a library does not stand behind its operation."""
    found, fault = state(name)
    if found != "active":
        pytest.skip(f"{name} is {found} {fault}")


def assert_same_on_cuda(
    operation: Callable[..., Tensor], *inputs: Tensor, on_cuda: Callable[..., Tensor] | None = None, rtol: float = 1e-3
) -> None:
    """Value, and gradient of a fixed projection of it with respect to the first input."""
    results = []
    for device, function in (("cpu", operation), ("cuda", on_cuda or operation)):
        first, *rest = (x.detach().to(device) for x in inputs)
        value = function(first.requires_grad_(), *rest)
        (value * torch.linspace(-1, 1, value.numel(), device=device).view_as(value)).sum().backward()
        results.append((value.detach().cpu(), first.grad.cpu()))
    for expected, given in zip(*results, strict=True):
        torch.testing.assert_close(given, expected, atol=rtol * expected.abs().max().item(), rtol=rtol)


def hash_encoding() -> tuple[HashEncoding, Tensor, Tensor]:
    """An encoding with dense and hashed levels, a table of numbers around one, and points."""
    generator = torch.Generator().manual_seed(0)
    encoding = HashEncoding(levels=8, log2_table=13)
    assert {level.dense for level in encoding.levels} == {True, False}
    return encoding, torch.randn(encoding.table.shape, generator=generator), torch.rand(5000, 3, generator=generator)


def test_hash_encoding() -> None:
    encoding, table, points = hash_encoding()
    assert_same_on_cuda(lambda table, points: encode_reference(points, table, encoding.levels), table, points)


def test_hash_encoding_by_tiny_cuda_nn() -> None:
    """To one percent: its scales are rounded to float32, which moves a point by thousandths of the finest cell."""
    needs("tinycudann")
    encoding, table, points = hash_encoding()
    tinycudann = library("tinycudann", table.cuda())
    assert tinycudann_grid(tinycudann, torch.device("cuda", 0), **encoding.config) is not None

    def encode(table: Tensor, points: Tensor) -> Tensor:
        return torch.func.functional_call(encoding, {"table": table}, (points,))

    assert_same_on_cuda(encode, table, points, rtol=1e-2)
    assert encode(table.cuda(), points[:0].cuda()).shape == (0, encoding.dimension)


def packed_sections() -> tuple[Tensor, Tensor]:
    """Opacities of the kept sections of 400 rays, among them wholly opaque ones, and their rays; some keep none."""
    generator = torch.Generator().manual_seed(0)
    alpha = torch.rand(400, 60, generator=generator).pow(3)
    alpha[::7, 20] = 1
    kept = torch.rand(400, 60, generator=generator) < torch.rand(400, 1, generator=generator) - 0.1
    return alpha[kept], kept.nonzero()[:, 0]


def test_packed_weights() -> None:
    def weights(alpha: Tensor, ray: Tensor) -> Tensor:
        rows, place = lay_out(alpha, ray, 400, fill=0.0)
        return rendering_weights(rows).view(-1).gather(0, place)

    assert_same_on_cuda(weights, *packed_sections())


def test_packed_weights_by_nerfacc() -> None:
    needs("nerfacc")
    assert_same_on_cuda(lambda alpha, ray: packed_weights(alpha, ray, 400), *packed_sections())


def test_submanifold_convolution() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(9, 9, 9, generator=generator) < 0.3
    rows = torch.randn(int(mask.sum()), 4, generator=generator)
    kernel = torch.randn(27, 4, 6, generator=generator)
    assert_same_on_cuda(lambda rows, kernel, mask: submanifold_conv(rows, mask, kernel), rows, kernel, mask)


def ball() -> tuple[Tensor, Tensor, Cameras]:
    """A ball of 1280 faces, drawn without symmetry."""
    sphere = trimesh.creation.icosphere(3, 0.6)
    sphere.apply_transform(trimesh.transformations.random_rotation_matrix([0.3, 0.6, 0.1]))
    vertices, faces = torch.tensor(sphere.vertices, dtype=torch.float32), torch.tensor(sphere.faces)
    return vertices, faces, orbit([20.0, 200.0], [15.0, -35.0], 2.8, 40.0, 200)


def local_vertices(cameras: Cameras, vertices: Tensor) -> Tensor:
    w2c = cameras.w2c
    return torch.einsum("nij,vj->nvi", w2c[:, :3, :3], vertices) + w2c[:, None, :3, 3]


def test_visible_faces() -> None:
    vertices, faces, cameras = ball()
    local = local_vertices(cameras, vertices).double()
    ids = visible_faces(local, cameras.intrinsics, faces, 200, 200)
    on_cuda = visible_faces_torch(local.cuda(), cameras.intrinsics.double().cuda(), faces.cuda(), 200, 200)
    assert torch.equal(on_cuda.cpu(), ids)


@pytest.mark.parametrize(("name", "differing"), [("nvdiffrast", 0.02), ("kaolin", 1e-3)])
def test_visible_faces_by_a_library(name: str, differing: float) -> None:
    """The faces but for centres on a rim; there, the face beside it. nvdiffrast snaps corners to 1/16 pixel."""
    if state(name)[0] != "yields":
        needs(name)
    vertices, faces, cameras = ball()
    local, intrinsics = local_vertices(cameras, vertices).cuda(), cameras.intrinsics.cuda()
    scene = (local, intrinsics, faces.cuda(), 200, 200)
    if name == "nvdiffrast":
        nvdiffrast = library(name, local)
        ids = visible_faces_nvdiffrast(nvdiffrast, _context(nvdiffrast, local.device), *scene)
    else:
        ids = visible_faces_kaolin(pytest.importorskip("kaolin.render.mesh"), *scene)
    expected = visible_faces(local.cpu(), cameras.intrinsics, faces, 200, 200)
    assert (expected >= 0).float().mean() > 0.1
    assert (ids.cpu() != expected).float().mean() < differing


@pytest.mark.parametrize("name", ["nvdiffrast", "kaolin"])
def test_barycentrics_and_depth_by_a_library(name: str) -> None:
    """Value and gradient with respect to the vertices, at the pixels where both see the same face."""
    needs(name)
    vertices, faces, cameras = ball()
    scene = (local_vertices(cameras, vertices), cameras.intrinsics, faces)
    ids = visible_faces_by_library(*(x.cuda() for x in scene), 200, 200).cpu()
    same = (ids == visible_faces(*scene, 200, 200)) & (ids >= 0)

    def places(vertices: Tensor, faces: Tensor, same: Tensor) -> Tensor:
        raster = rasterize(cameras.to(vertices.device), vertices, faces)
        return torch.cat([raster.barycentrics, raster.depth[..., None]], dim=-1)[same]

    assert_same_on_cuda(places, vertices, faces, same)


def test_normal_maps_of_a_mesh() -> None:
    """To a pixel of a hundred: a library may show the face beside a rim, where normals differ little."""
    vertices, faces, cameras = ball()
    images = [
        render_normals(cameras.to(device), vertices.to(device), faces.to(device), torch.zeros(2, 3, device=device))
        for device in ("cpu", "cuda")
    ]
    difference = (images[0] - images[1].cpu()).abs().amax(-1)
    assert (difference > 0.02).float().mean() < 0.01


def test_gradient_of_normal_maps() -> None:
    """Through PyTorch alone, exactly; a library's pixels beside a rim have other gradients."""
    if any(state(name)[0] == "active" for name in ("nvdiffrast", "kaolin")):
        pytest.skip("a library draws; its places and their gradients are compared above")
    vertices, faces, cameras = ball()

    def draw(vertices: Tensor, faces: Tensor) -> Tensor:
        return render_normals(cameras.to(vertices.device), vertices, faces, vertices.new_zeros(2, 3))

    assert_same_on_cuda(draw, vertices, faces)


def test_marching_tetrahedra() -> None:
    vertices, faces = DMTet.from_sdf(lambda x: x.norm(dim=-1) - 0.5, 16).mesh()
    moved = DMTet.from_sdf(lambda x: x.norm(dim=-1) - 0.5, 16).to("cuda").mesh()
    assert torch.equal(moved[1].cpu(), faces)
    torch.testing.assert_close(moved[0].cpu(), vertices, atol=1e-5, rtol=0)


def test_flexicubes() -> None:
    """The same surface; kaolin gives its vertices other numbers."""
    surface = FlexiCubes.from_sdf(lambda x: x.norm(dim=-1) - 0.5, 16)
    torch.nn.init.normal_(surface.weights, generator=torch.Generator().manual_seed(0))
    meshes = []
    for device in ("cpu", "cuda"):
        vertices, faces, deviation = surface.to(device).mesh_with_deviation()
        meshes.append(trimesh.Trimesh(vertices.detach().cpu().numpy(), faces.cpu().numpy(), process=False))
        meshes[-1].metadata["deviation"] = deviation.item()
    ours, theirs = meshes
    assert theirs.is_watertight and theirs.faces.shape == ours.faces.shape
    assert theirs.volume == pytest.approx(ours.volume, rel=1e-4) and theirs.area == pytest.approx(ours.area, rel=1e-4)
    assert theirs.metadata["deviation"] == pytest.approx(ours.metadata["deviation"], rel=1e-3)

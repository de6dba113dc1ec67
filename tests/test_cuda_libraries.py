"""What is handed to a CUDA library and read from it, against stand-ins that keep the libraries' documented contracts.

The libraries themselves are compared with the plain bodies in test_cuda.py, on machines that have them.
"""

import functools
import sys
from types import ModuleType

import pytest
import torch
import trimesh
from torch import Tensor, nn

from geodream_lib import cuda_libraries
from geodream_lib.cameras import Cameras, orbit
from geodream_lib.cuda_libraries import LIBRARIES, library, state
from geodream_lib.errors import InputError
from geodream_lib.field.hash_encoding import (
    HashEncoding,
    encode_reference,
    encode_with_grid,
    grid_levels,
    tinycudann_grid,
)
from geodream_lib.mesh import DMTet, FlexiCubes, flexicubes
from geodream_lib.mesh.flexicubes_cases import EDGES
from geodream_lib.mesh.rasterize import rasterize
from geodream_lib.mesh.surface_cuda import flexicubes_kaolin
from geodream_lib.mesh.visibility import visible_faces
from geodream_lib.mesh.visibility_cuda import visible_faces_kaolin, visible_faces_nvdiffrast
from geodream_lib.neus import packed_weights, packed_weights_nerfacc, rendering_weights


class OnCuda(Tensor):
    """A tensor that says it is on a device."""

    is_cuda = True


def stand_in(name: str, **functions: object) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(functions)
    return module


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch):
    """A machine with a device on which the named modules can be imported and no other library is there."""

    def install(*modules: ModuleType) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(
            cuda_libraries,
            "find_spec",
            lambda name: next((m for m in modules if m.__name__.partition(".")[0] == name), None),
        )
        for module in modules:
            library = LIBRARIES[module.__name__]
            for part in {module.__name__, library.module, library.kernels.partition(":")[0]}:
                monkeypatch.setitem(sys.modules, part, module)

    cuda_libraries._fault.cache_clear()
    yield install
    cuda_libraries._fault.cache_clear()


def test_a_library_that_loads_is_active_and_given_for_cuda_tensors_only(installed) -> None:
    tinycudann, on_cuda = stand_in("tinycudann", Encoding=nn.Module), torch.zeros(1).as_subclass(OnCuda)
    installed(tinycudann)
    assert state("tinycudann") == ("active", "") and state("kaolin") == ("missing", "")
    assert library("tinycudann", on_cuda) is tinycudann
    assert library("tinycudann", on_cuda, torch.zeros(1)) is None and library("kaolin", on_cuda) is None


def test_a_library_without_its_kernels_is_not_used_and_says_so_once(
    installed, caplog: pytest.LogCaptureFixture
) -> None:
    installed(stand_in("nerfacc", _C=None))
    for _ in range(3):
        assert library("nerfacc", torch.zeros(1).as_subclass(OnCuda)) is None
    assert state("nerfacc") == ("broken", "its CUDA kernels are not compiled")
    assert len(caplog.records) == 1 and "nerfacc is installed but not used" in caplog.text


def test_a_library_that_raises_while_it_loads_is_broken_with_its_reason(installed) -> None:
    class NoDevice(ModuleType):
        @property
        def Encoding(self) -> object:
            raise OSError("no binary\nfor this device")

    installed(NoDevice("tinycudann"))
    assert state("tinycudann") == ("broken", "OSError: no binary for this device")


def test_nvdiffrast_waits_for_the_users_consent_to_its_licence(installed, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(stand_in("nvdiffrast", RasterizeCudaContext=object), stand_in("kaolin", _C=object()))
    assert state("nvdiffrast")[0] == "switched off" and state("kaolin")[0] == "active"
    monkeypatch.setenv("GEODREAM_NVDIFFRAST", "1")
    assert state("nvdiffrast")[0] == "active" and state("kaolin")[0] == "yields"


def test_without_a_device_nothing_is_loaded(installed, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(stand_in("nerfacc"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert state("nerfacc") == ("no device", "")


def packed_sections() -> tuple[Tensor, Tensor, Tensor]:
    """Opacities [7, 9], which of them are kept, and the ray of each kept one; one ray keeps none, one is opaque."""
    generator = torch.Generator().manual_seed(0)
    alpha, kept = torch.rand(7, 9, generator=generator), torch.rand(7, 9, generator=generator) < 0.5
    kept[3] = False
    alpha[5, 2], kept[5, 2] = 1, True
    return alpha, kept, kept.nonzero()[:, 0]


def test_nerfacc_is_asked_for_the_transmittance_of_packed_sections() -> None:
    alpha, kept, ray = packed_sections()

    def transmittance(alphas: Tensor, ray_indices: Tensor, n_rays: int) -> Tensor:
        assert alphas.dtype == torch.float32 and ray_indices.dtype == torch.int64
        passed = torch.cat([torch.cumprod(1 - alphas[ray_indices == r], 0) for r in range(n_rays)])
        first = torch.cat([torch.ones(1, dtype=torch.bool), ray_indices[1:] != ray_indices[:-1]])
        return torch.where(first, 1.0, passed.roll(1))

    nerfacc = stand_in("nerfacc", render_transmittance_from_alpha=transmittance)
    results = []
    for weights in (packed_weights, functools.partial(packed_weights_nerfacc, nerfacc)):
        packed = alpha[kept].requires_grad_()
        weight = weights(packed, ray, 7)
        (weight * torch.linspace(-1, 1, weight.numel())).sum().backward()
        results.append((weight.detach(), packed.grad))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(theirs, mine, atol=1e-5, rtol=1e-5)


def test_weights_are_those_of_nerfacc() -> None:
    """Its batched functions need no device."""
    nerfacc = pytest.importorskip("nerfacc")
    alpha, kept, ray = packed_sections()
    results = []
    for weights in (rendering_weights, lambda rows: nerfacc.render_weight_from_alpha(rows)[0]):
        rows = (alpha * kept).requires_grad_()
        weight = weights(rows)
        (weight * torch.linspace(-1, 1, weight.numel()).view_as(weight)).sum().backward()
        results.append((weight.detach(), rows.grad))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(packed_weights(alpha[kept], ray, 7), results[1][0][kept], atol=1e-5, rtol=1e-5)


class Grid(nn.Module):
    """tiny-cuda-nn's `Encoding`: flat float32 parameters, read at every call."""

    def __init__(self, n_input_dims: int, encoding_config: dict, dtype: torch.dtype):
        super().__init__()
        assert n_input_dims == 3 and encoding_config["otype"] == "HashGrid" and dtype == torch.float32
        c = encoding_config
        self.features = c["n_features_per_level"]
        self.levels = grid_levels(c["n_levels"], c["log2_hashmap_size"], c["base_resolution"], c["per_level_scale"])
        self.params = nn.Parameter(torch.zeros((self.levels[-1].offset + self.levels[-1].size) * self.features))

    def forward(self, points: Tensor) -> Tensor:
        assert not points.requires_grad
        return encode_reference(points, self.params.view(-1, self.features), self.levels)


def test_tiny_cuda_nn_reads_our_table_and_sends_it_the_gradient() -> None:
    encoding = HashEncoding(4, 2, 10, 8, 1.5)
    grid = tinycudann_grid(stand_in("tinycudann", Encoding=Grid), torch.device("cpu"), **encoding.config)
    assert grid.params.numel() == 0, "no second table is kept"
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    results = []
    for encode in (encoding, lambda x: encode_with_grid(grid, x, encoding.table)):
        encoding.table.grad = None
        encoded = encode(points)
        encoded.square().sum().backward()
        results.append((encoded.detach(), encoding.table.grad))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(theirs, mine)


def test_a_grid_of_another_layout_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    class OtherGrid(Grid):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.params = nn.Parameter(torch.zeros(self.params.numel() + 8))

    config = HashEncoding(4, 2, 10, 8, 1.5).config
    assert tinycudann_grid(stand_in("tinycudann", Encoding=OtherGrid), torch.device("cpu"), **config) is None
    assert "differently" in caplog.text


def barycentrics_on_screen(corners: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """[f, h, w, 3] of pixel centres x [h, w], y [h, w] in triangles [f, 3, 2]."""
    a, b, c = (corners[:, i, None, None] - torch.stack([x, y], dim=-1) for i in range(3))
    areas = torch.stack([p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0] for p, q in ((b, c), (c, a), (a, b))], dim=-1)
    return areas / areas.sum(-1, keepdim=True)


def centers(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Pixel centres from -1 to 1 along columns and rows."""
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (2 * column + 1) / width - 1, (2 * row + 1) / height - 1


def nvdiffrast_rasterize(
    context: object, pos: Tensor, tri: Tensor, resolution: tuple[int, int], grad_db: bool
) -> tuple[Tensor, None]:
    """OpenGL's homogeneous clip space, first row of pixels at y = -w; (u, v, z/w, number of the face + 1)."""
    assert context == "context" and pos.dtype == torch.float32 and tri.dtype == torch.int32
    assert pos.is_contiguous() and tri.is_contiguous()
    x, y = centers(*resolution)
    images = []
    for clip in pos.double():
        corners = clip[tri.long()]  # [f, 3, 4]
        # A pixel sees the place of the face where x = w * x_ndc and y = w * y_ndc: three equations for three weights.
        planes = corners[:, None, None, :, :2] - torch.stack([x, y], -1)[:, :, None] * corners[:, None, None, :, 3:]
        a, b, c = planes.unbind(3)
        weights = torch.stack(
            [p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0] for p, q in ((b, c), (c, a), (a, b))], dim=-1
        )
        weights = weights / weights.sum(-1, keepdim=True)
        z, w = ((weights * corners[:, None, None, :, i]).sum(-1) for i in (2, 3))
        hit = (weights >= 0).all(-1) & (w > 0) & (z.abs() <= w)
        z = torch.where(hit, z / w, torch.inf)
        nearest, face = z.min(0)
        image = torch.zeros(*resolution, 4)
        image[..., 3] = torch.where(nearest < torch.inf, face + 1, 0)
        images.append(image)
    return torch.stack(images), None


def kaolin_rasterize(
    height: int, width: int, face_vertices_z: Tensor, face_vertices_image: Tensor, face_features: Tensor, valid_faces
) -> tuple[Tensor, Tensor]:
    """Corners on a screen with y up; z interpolated linearly on it, the largest is shown; face index, -1 for none."""
    x, down = centers(height, width)
    ids = []
    for z, corners, valid in zip(face_vertices_z, face_vertices_image, valid_faces, strict=True):
        weights = barycentrics_on_screen(corners, x, -down)
        hit = (weights >= 0).all(-1) & valid[:, None, None]
        nearest, face = torch.where(hit, (weights * z[:, None, None]).sum(-1), -torch.inf).max(0)
        ids.append(torch.where(nearest > -torch.inf, face, -1))
    return face_features.new_zeros(len(ids), height, width, face_features.shape[-1]), torch.stack(ids)


def two_balls() -> tuple[Tensor, Tensor]:
    """A ball and a smaller one that hides part of it from some sides; faces smaller and larger than pixels."""
    big, small = trimesh.creation.icosphere(1, 0.6), trimesh.creation.icosphere(2, 0.25)
    small.apply_translation([0.5, 0.2, 0.3])
    both = trimesh.util.concatenate([big, small])
    return torch.tensor(both.vertices, dtype=torch.float32), torch.tensor(both.faces)


def oblong(distance: float, fov: float) -> Cameras:
    """Cameras around with an image that is not square and a principal point beside the middle."""
    cameras = orbit([20.0, 140.0, 275.0], [15.0, -35.0, 70.0], distance, fov, 24)
    intrinsics = cameras.intrinsics.clone()
    intrinsics[:, 0, 2] += 3.7
    intrinsics[:, 1, 2] -= 1.4
    return Cameras(cameras.c2w, intrinsics, 24, 30)


def local_vertices(cameras: Cameras, vertices: Tensor) -> Tensor:
    w2c = cameras.w2c
    return torch.einsum("nij,vj->nvi", w2c[:, :3, :3], vertices) + w2c[:, None, :3, 3]


DRAW = {
    "nvdiffrast": lambda *scene: visible_faces_nvdiffrast(
        stand_in("nvdiffrast", rasterize=nvdiffrast_rasterize), "context", *scene
    ),
    "kaolin": lambda *scene: visible_faces_kaolin(stand_in("kaolin", rasterize=kaolin_rasterize), *scene),
}


@pytest.mark.parametrize("name", DRAW)
def test_rasterisers_are_given_our_cameras(name: str) -> None:
    """Every face where ours is: columns, rows, up and down, in front and behind, numbers of faces."""
    vertices, faces = two_balls()
    cameras = oblong(2.5, 45.0)
    scene = (local_vertices(cameras, vertices), cameras.intrinsics, faces, cameras.height, cameras.width)
    expected, drawn = visible_faces(*scene), DRAW[name](*scene)
    assert (expected >= 0).float().mean() > 0.1 and expected.unique().numel() > 100
    assert drawn.dtype == torch.int32 and (drawn != expected).float().mean() < 2e-3, "but for centres on a rim"


@pytest.mark.parametrize("name", DRAW)
def test_what_hides_what_is_decided_in_perspective(name: str) -> None:
    """A wall turned away, from depth 1 to 9, before a card at depth 4: half way over the image the wall's depth is 1.8,
    and the mean of its ends' depths, 5, would put the card in front."""
    local = [[-0.2, -1, -1], [-0.2, 1, -1], [1.8, 0, -9], [-0.2, -0.2, -4], [0.2, -0.2, -4], [0, 0.2, -4]]
    faces, intrinsics = torch.tensor([[0, 1, 2], [3, 4, 5]]), torch.tensor([[[20.0, 0, 8], [0, 20, 8], [0, 0, 1]]])
    scene = (torch.tensor([local]), intrinsics, faces, 16, 16)
    expected = visible_faces(*scene)
    assert expected[0, 8, 8] == 0
    assert torch.equal(DRAW[name](*scene), expected)


def test_faces_that_reach_behind_the_camera() -> None:
    """nvdiffrast clips them; kaolin does not, so that it is not asked."""
    vertices, faces = two_balls()
    cameras = oblong(0.62, 70.0)
    scene = (local_vertices(cameras, vertices), cameras.intrinsics, faces, cameras.height, cameras.width)
    behind = scene[0][..., 2] > 0
    assert (behind[:, faces].any(-1) & ~behind[:, faces].all(-1)).any()
    assert (DRAW["nvdiffrast"](*scene) != visible_faces(*scene)).float().mean() < 2e-3
    assert DRAW["kaolin"](*scene) is None


def test_a_mesh_behind_the_camera_is_not_seen() -> None:
    vertices, faces = two_balls()
    cameras = oblong(2.5, 45.0)
    local = local_vertices(cameras, vertices) + torch.tensor([0, 0, 10.0])
    for draw in DRAW.values():
        assert draw(local, cameras.intrinsics, faces, cameras.height, cameras.width).max() == -1


def test_a_face_shown_beside_its_rim_is_seen_at_its_rim(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rasteriser that moves corners by a fraction of a pixel leaves weights in 0..1 and depths on the surface."""
    vertices, faces = two_balls()
    cameras = oblong(2.5, 45.0)
    expected = rasterize(cameras, vertices, faces)

    def moved(local: Tensor, *rest) -> Tensor:
        return visible_faces(local + torch.tensor([0.003, -0.002, 0.0]), *rest)

    monkeypatch.setattr(sys.modules["geodream_lib.mesh.rasterize"], "visible_faces_by_library", moved)
    vertices.requires_grad_()
    raster = rasterize(cameras, vertices, faces)
    seen = raster.face_ids >= 0
    assert (raster.face_ids != expected.face_ids).any()
    assert raster.barycentrics.min() >= 0
    torch.testing.assert_close(raster.barycentrics.sum(-1), seen.float(), atol=1e-5, rtol=0)
    both = seen & (expected.face_ids >= 0)
    assert (raster.depth - expected.depth)[both].abs().median() < 1e-6
    assert raster.depth[seen].min() > 1 and raster.depth[seen].max() < 4
    raster.depth.sum().backward()
    assert torch.isfinite(vertices.grad).all()


class KaolinFlexiCubes:
    """kaolin's `FlexiCubes`: flat lists, cubes with x slowest, corners with x fastest, edges in an order of its own."""

    EDGES = ((0, 1), (1, 5), (4, 5), (0, 4), (2, 3), (3, 7), (6, 7), (2, 6), (2, 0), (3, 1), (7, 5), (6, 4))

    def __init__(self, device: torch.device):
        self.device = device

    def __call__(
        self, voxelgrid_vertices, scalar_field, cube_idx, resolution, weight_scale, beta, alpha, gamma_f, training
    ) -> tuple[Tensor, Tensor, Tensor]:
        n, r = resolution + 1, resolution
        assert cube_idx.shape == (r**3, 8) and weight_scale == 0.99 and (scalar_field != 0).all()
        low, high = cube_idx[:, 0], cube_idx[:, 7]
        assert torch.equal(high - low, torch.full_like(low, n * n + n + 1)) and (low[1:] > low[:-1]).all()
        assert torch.equal(cube_idx[:, 1] - low, torch.full_like(low, n * n)), "x is slowest in the grid"
        order = [next(i for i, edge in enumerate(self.EDGES) if set(edge) == set(ours)) for ours in EDGES]
        weights = torch.cat([alpha, beta[:, order], gamma_f[:, None]], dim=1)
        vertices, faces, deviation = flexicubes(
            voxelgrid_vertices.reshape(n, n, n, 3),
            scalar_field.reshape(n, n, n),
            weights.reshape(r, r, r, 21),
            four_triangles=training,
        )
        return vertices, faces, torch.stack([deviation - 1, deviation + 1])


def test_kaolin_is_given_our_cubes_and_weights() -> None:
    surface, kaolin = FlexiCubes(6), stand_in("kaolin.ops.conversions", FlexiCubes=KaolinFlexiCubes)
    generator = torch.Generator().manual_seed(0)
    n, r = 7, 6
    positions = surface.positions().detach().reshape(n, n, n, 3)
    sdf = positions.norm(dim=-1) - 0.6
    sdf[3, 3, 5] = 0
    weights = torch.randn(r, r, r, 21, generator=generator)
    ours = flexicubes(positions, sdf, weights, four_triangles=True)
    for mine, theirs in zip(ours, flexicubes_kaolin(kaolin, positions, sdf, weights, True, 0.99), strict=True):
        torch.testing.assert_close(theirs, mine)


def test_kaolin_marches_through_tetrahedra_in_batches(installed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function calls it for tensors on a device, takes the one mesh of its lists, and still names bad fields."""
    dmtet = DMTet.from_sdf(lambda points: points.norm(dim=-1) - 0.5, 8)
    vertices, faces = dmtet.mesh()

    def marching_tetrahedra(grid: Tensor, tets: Tensor, sdf: Tensor) -> tuple[tuple[Tensor], tuple[Tensor]]:
        assert grid.shape == (1, len(dmtet.sdf), 3) and sdf.shape == (1, len(dmtet.sdf)) and tets is dmtet.tets
        return (vertices,), (faces,)

    kaolin = stand_in("kaolin.ops.conversions", _C=object(), marching_tetrahedra=marching_tetrahedra)
    installed(kaolin)
    monkeypatch.setitem(sys.modules, "kaolin", kaolin)
    assert state("kaolin.ops.conversions") == ("active", "")
    monkeypatch.setattr("geodream_lib.mesh.dmtet.library", lambda name, *tensors: sys.modules[name])
    assert dmtet.mesh()[0] is vertices and dmtet.mesh()[1] is faces
    torch.nn.init.ones_(dmtet.sdf)
    with pytest.raises(InputError, match="empty"):
        dmtet.mesh()

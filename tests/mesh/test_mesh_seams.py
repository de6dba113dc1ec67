"""Where two charts of the atlas meet on the surface nothing is to be seen, near or far: at 2048 texels and below."""

import math

import pytest
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from geodream_lib.mesh import DMTet, bake_texture, unwrap
from geodream_lib.mesh.atlas import SMALLEST_COPY, seam_padding
from geodream_lib.mesh.bake import find_texels, spread
from geodream_lib.mesh.geometry import half_edges, unique_edges
from geodream_lib.mesh.textured_mesh import sample_texture

SIZE = 2048
LEVELS = range(int(math.log2(SIZE / SMALLEST_COPY)) + 1)

Atlas = tuple[Tensor, Tensor, Tensor, Tensor]


def color(points: Tensor) -> Tensor:
    """Smooth: it changes by at most 1.5 per unit."""
    return 0.5 + 0.5 * torch.sin(3 * points)


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    """A block with two posts, unwrapped: the faces before, then vertices, faces and texture coordinates after."""

    def box(p: Tensor, center: list[float], half: list[float]) -> Tensor:
        return ((p - p.new_tensor(center)).abs() - p.new_tensor(half)).amax(dim=-1)

    def sdf(p: Tensor) -> Tensor:
        p = p @ torch.linalg.matrix_exp(torch.tensor([[0, 0.3, 0.2], [-0.3, 0, 0.1], [-0.2, -0.1, 0]]))  # off the grid
        posts = torch.minimum(box(p, [0.3, 0, 0.2], [0.12, 0.12, 0.3]), box(p, [-0.3, 0.1, 0.3], [0.1, 0.15, 0.2]))
        return torch.minimum(box(p, [0, 0, 0], [0.5, 0.3, 0.1]), posts)

    vertices, faces = (x.detach() for x in DMTet.from_sdf(sdf, 16).mesh())
    vmap, atlas_faces, uvs = unwrap(vertices, faces, SIZE, seam_padding(SIZE))
    return faces, vertices[vmap], atlas_faces, uvs


def copy(texture: Tensor, level: int) -> Tensor:
    """The copy of a viewer: every texel the mean of 2^level x 2^level."""
    return torch.nn.functional.avg_pool2d(texture.permute(2, 0, 1), 2**level).permute(1, 2, 0)


def test_a_lookup_reads_its_own_chart_only(atlas: Atlas) -> None:
    """Every chart in a colour of its own: at no point of the surface is another's mixed in, down to 256 texels."""
    _, vertices, faces, uvs = atlas
    links = half_edges(faces).T.numpy()
    graph = coo_matrix(([1] * links.shape[1], links), shape=(len(uvs), len(uvs)))
    charts, chart = connected_components(graph, directed=False)
    assert charts > 3
    colors = torch.rand(charts, 3, generator=torch.Generator().manual_seed(0))[torch.from_numpy(chart).long()]
    texels = find_texels(faces, uvs, SIZE)
    texture = spread(texels.interpolate(colors), texels)
    ends = uvs[half_edges(faces)]
    places = torch.cat([uvs, ends.mean(dim=1), uvs[faces].mean(dim=1)])
    own = torch.cat([colors, colors[half_edges(faces)[:, 0]], colors[faces[:, 0]]])
    for level in LEVELS:
        assert (sample_texture(copy(texture, level), places) - own).abs().max() < 1e-5, level


def test_colour_jumps_no_further_across_a_seam_than_inside_a_chart(atlas: Atlas) -> None:
    """From one texel before an edge to one texel behind it, in each copy."""
    original, vertices, faces, uvs = atlas
    texture = bake_texture(vertices, faces, uvs, color, SIZE)
    corners = uvs[faces].double()
    texel = (torch.linalg.det(corners[:, 1:] - corners[:, :1]).abs().sum() / 2).sqrt() * SIZE
    area = torch.linalg.cross(*(vertices[faces[:, i]] - vertices[faces[:, 0]] for i in (1, 2))).norm(dim=-1).sum() / 2
    texel = (area.sqrt() / texel).float()  # world length

    edges, edge = unique_edges(original)
    order = edge.argsort(stable=True).reshape(-1, 2)  # of each edge, the two half-edges: the surface is closed
    ends, opposite = half_edges(faces), faces.roll(-2, dims=1).T.flatten()
    middle = (uvs[ends].mean(dim=1), vertices[ends].mean(dim=1))
    height = (vertices[opposite] - middle[1]).norm(dim=-1, keepdim=True)
    first, second = ends[order[:, 0]], ends[order[:, 1]].flip(1)
    seam = (uvs[first] != uvs[second]).any(dim=-1).any(dim=-1)
    assert 100 < seam.sum() < 0.2 * len(edges)
    for level in LEVELS:
        step = (2**level * texel / height).clamp(max=0.5)
        seen = sample_texture(copy(texture, level), middle[0] + step * (uvs[opposite] - middle[0]))[order]
        jump = (seen[:, 0] - seen[:, 1]).abs().amax(dim=-1)
        # The steepest edge of all can lie on a seam: where charts are cut differs between processors.
        assert jump[seam].max() <= 1.1 * jump[~seam].max(), (level, jump[seam].max(), jump[~seam].max())

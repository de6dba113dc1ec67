"""What can be said of a finished mesh in numbers: is it closed, in one piece, how many holes, how fine its texture."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from geodream_lib.mesh.geometry import unique_edges, weld
from geodream_lib.mesh.textured_mesh import TexturedMesh


@dataclass(frozen=True)
class MeshReport:
    """Numbers of one mesh; vertices on the seams of its atlas count once.

    watertight: every edge is between two faces. manifold: no edge is in more than two, and the faces around every
    vertex are one fan. components: parts that share no edge. genus: number of handles, over all components; None if the
    mesh is not closed and manifold. texel_density: texels per world unit, the median over the surface, and
    texel_density_spread the two between which nine tenths of the surface are.
    """

    vertices: int
    faces: int
    watertight: bool
    manifold: bool
    components: int
    genus: int | None
    area: float
    texel_density: float
    texel_density_spread: tuple[float, float]


def mesh_report(mesh: TexturedMesh) -> MeshReport:
    """Measure a mesh."""
    vertices, welded = weld(mesh.vertices.detach().cpu())
    faces = welded[mesh.faces.cpu()]
    # A face whose corners coincide has become an edge or a point.
    whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    faces = faces[whole]
    edges, edge = unique_edges(faces)
    faces_of_edge = torch.bincount(edge)
    used, components = len(faces.unique()), _components(edge, len(faces), len(edges))
    watertight = bool((faces_of_edge == 2).all())
    manifold = bool((faces_of_edge <= 2).all()) and _fans(faces, edge, len(edges)) == used
    euler = used - len(edges) + len(faces)
    area = _areas(vertices[faces])
    low, median, high = _texel_density(mesh, whole, area)
    return MeshReport(
        vertices=used,
        faces=len(faces),
        watertight=watertight,
        manifold=manifold,
        components=components,
        genus=components - euler // 2 if watertight and manifold else None,
        area=area.sum().item(),
        texel_density=median,
        texel_density_spread=(low, high),
    )


def format_mesh_report(report: MeshReport) -> str:
    """The report as text, one line a property."""
    low, high = report.texel_density_spread
    lines = {
        "faces": f"{report.faces:,}",
        "vertices": f"{report.vertices:,}",
        "watertight": "yes" if report.watertight else "no",
        "manifold": "yes" if report.manifold else "no",
        "components": str(report.components),
        "genus": "not defined" if report.genus is None else str(report.genus),
        "texel density": f"{report.texel_density:.0f} per unit length (nine tenths between {low:.0f} and {high:.0f})",
    }
    return "\n".join(f"{name:14}{value}" for name, value in lines.items())


def _components(edge: Int[Tensor, " h"], faces: int, edges: int) -> int:
    """Parts of the surface: faces that share an edge belong together."""
    face = np.tile(np.arange(faces), 3)
    node = faces + edge.numpy()
    graph = coo_matrix((np.ones(face.size, dtype=np.int8), (face, node)), shape=(faces + edges,) * 2)
    return connected_components(graph, directed=False)[0]


def _fans(faces: Int[Tensor, "f 3"], edge: Int[Tensor, " h"], edges: int) -> int:
    """Fans of faces around vertices; on a manifold, as many as vertices.

    Corners at the same end of a common edge belong to the same fan.
    """
    count = 3 * len(faces)
    corner = torch.arange(count).reshape(3, -1)  # numbered as half-edges: by the one that starts there
    start, end = corner.flatten(), corner.roll(-1, dims=0).flatten()
    vertex = faces.T.flatten()
    first = torch.stack([start, end], dim=1)
    low_first = (vertex[first[:, 0]] < vertex[first[:, 1]]).long()
    # Each edge has two ends, the lower and the higher vertex: one node for each.
    node = count + 2 * edge[:, None] + torch.stack([1 - low_first, low_first], dim=1)
    links = (np.ones(2 * count, dtype=np.int8), (first.flatten().numpy(), node.flatten().numpy()))
    graph = coo_matrix(links, shape=(count + 2 * edges,) * 2)
    return connected_components(graph, directed=False)[0]


def _texel_density(mesh: TexturedMesh, whole: Tensor, area: Float[Tensor, " f"]) -> tuple[float, float, float]:
    """Texels per world unit: the 5th, 50th and 95th hundredth of the surface."""
    height, width = mesh.texture.shape[:2]
    u, v = (mesh.uvs[mesh.faces] * mesh.uvs.new_tensor([width, height])).detach().cpu()[whole].unbind(-1)
    texels = _areas(torch.stack([u, v, torch.zeros_like(u)], dim=-1))
    density, order = (texels / area.clamp(min=1e-20)).sqrt().sort()
    share = area[order].cumsum(0) / area.sum()
    places = torch.searchsorted(share, share.new_tensor([0.05, 0.5, 0.95])).clamp(max=len(density) - 1)
    return tuple(density[places].tolist())


def _areas(triangles: Float[Tensor, "f 3 3"]) -> Float[Tensor, " f"]:
    a, b, c = triangles.unbind(1)
    return torch.linalg.cross(b - a, c - a).norm(dim=-1) / 2

"""The nearest place of another surface: how a reduced mesh keeps the colours and the relief of the one it came from."""

import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

# Faces with the nearest centres among which the nearest is looked for, and points per step (bounds memory).
CANDIDATES = 16
CHUNK = 1 << 16


def nearest_on_surface(
    points: Float[Tensor, "p 3"],
    normals: Float[Tensor, "p 3"],
    vertices: Float[Tensor, "v 3"],
    faces: Int[Tensor, "f 3"],
) -> tuple[Int[Tensor, "p 3"], Float[Tensor, "p 3"]]:
    """For points close to a surface, the place of it that is nearest and looks the same way.

    Args:
        normals: unit, of the surface that the points are on; a thin sheet's other side is not meant.

    Returns:
        The three vertices of the face, and the weights of the place on it.
    """
    corners = vertices[faces]
    outward = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    tree, count = cKDTree(corners.mean(dim=1).cpu().numpy()), min(CANDIDATES, len(faces))
    found, weights = [], []
    for part, normal in zip(points.split(CHUNK), normals.split(CHUNK), strict=True):
        _, candidates = tree.query(part.cpu().numpy(), k=[*range(1, count + 1)])
        candidates = torch.from_numpy(candidates).to(faces.device)
        place = _weights_of_nearest(part[:, None], corners[candidates])
        distance = ((place[..., None] * corners[candidates]).sum(dim=-2) - part[:, None]).norm(dim=-1)
        behind = (outward[candidates] * normal[:, None]).sum(dim=-1) <= 0
        best = torch.where(behind, distance + 1e3, distance).argmin(dim=1)
        rows = torch.arange(len(best), device=best.device)
        found.append(faces[candidates[rows, best]])
        weights.append(place[rows, best])
    return torch.cat(found), torch.cat(weights)


def _weights_of_nearest(points: Float[Tensor, "*p 1 3"], corners: Float[Tensor, "*p k 3 3"]) -> Float[Tensor, "*p k 3"]:
    """Barycentric weights of the place of a triangle below a point; if there is none, of the nearest on its sides."""
    a, b, c = corners.unbind(-2)
    u, v, w = b - a, c - a, points - a
    uu, uv, vv, wu, wv = ((x * y).sum(-1) for x, y in ((u, u), (u, v), (v, v), (w, u), (w, v)))
    area = (uu * vv - uv * uv).clamp(min=1e-20)
    second, third = (vv * wu - uv * wv) / area, (uu * wv - uv * wu) / area
    inside = torch.stack([1 - second - third, second, third], dim=-1)
    sides, to_point = corners.roll(-1, dims=-2) - corners, points[..., None, :] - corners
    along = ((to_point * sides).sum(-1) / sides.square().sum(-1).clamp(min=1e-20)).clamp(0, 1)
    side = (to_point - along[..., None] * sides).norm(dim=-1).argmin(dim=-1, keepdim=True)
    along = along.gather(-1, side)
    on_side = torch.zeros_like(inside).scatter(-1, side, 1 - along).scatter(-1, (side + 1) % 3, along)
    return torch.where((inside >= 0).all(dim=-1, keepdim=True), inside, on_side)

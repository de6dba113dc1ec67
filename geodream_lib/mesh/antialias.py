"""Anti-aliasing of silhouettes: the only way the outline of a mesh gets a gradient.

The idea of Laine et al. (2020), section 3.6: where two neighbouring pixels lie on different sides of a silhouette edge,
blend them by how far the edge is from the middle between their centres. The coverage then moves continuously with the
edge's vertices. Laine et al. look for the edge among those of the face that one of the two pixels sees, which misses it
where faces are smaller than pixels, as they are in a DMTet drawn at low resolution; here every silhouette edge is
walked along instead, so the size of faces does not matter.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from geodream_lib.cameras import Cameras, project
from geodream_lib.mesh.geometry import half_edges, unique_edges
from geodream_lib.mesh.rasterize import Raster
from geodream_lib.mesh.visibility import NEAR


@dataclass(frozen=True)
class _Edges:
    """`k` edges in the images of cameras.

    side: +1 where the surface is on the side of `cross(end - start, .) > 0` in pixel coordinates (v down), else -1.
    """

    camera: Int[Tensor, " k"]
    start: Float[Tensor, "k 2"]
    end: Float[Tensor, "k 2"]
    inverse_depths: Float[Tensor, "k 2"]
    side: Float[Tensor, " k"]


def antialias(
    image: Float[Tensor, "n h w c"],
    raster: Raster,
    cameras: Cameras,
    vertices: Float[Tensor, "v 3"],
    faces: Int[Tensor, "f 3"],
) -> Float[Tensor, "n h w c"]:
    """Blend the pixels along silhouettes; differentiable in `image` and in `vertices`.

    Every result is a convex combination of a pixel and its four neighbours, so the range of values is kept. A feature
    that covers no pixel centre stays invisible, and an edge that reaches behind the camera is not blended.
    """
    edges = _silhouette_edges(cameras, vertices, faces)
    pairs = [_crossed_pixel_pairs(edges, raster, axis) for axis in (0, 1)]
    front, back, distance = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    # The surface reaches `distance` (0 to 1 pixel) from the front pixel's centre towards the back pixel's. Beyond the
    # middle it enters the back pixel, before it the front pixel shows some of what is behind.
    enters = distance > 0.5
    receiver, source = torch.where(enters, back, front), torch.where(enters, front, back)
    weight = (distance - 0.5).abs()
    total = weight.new_zeros(raster.face_ids.numel()).index_add(0, receiver, weight)
    weight = weight / total[receiver].clamp(min=1)
    flat = image.flatten(0, 2)
    change = weight[:, None] * (flat.index_select(0, source) - flat.index_select(0, receiver))
    return flat.index_add(0, receiver, change).reshape(image.shape)


def _silhouette_edges(cameras: Cameras, vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> _Edges:
    """Edges whose faces all lie on one side of them in the image: folds of the surface and open boundaries."""
    pixels, depth = project(cameras, vertices)
    edges, edge_of_half_edge = unique_edges(faces)
    with torch.no_grad():
        a, b, c = pixels[:, faces].unbind(2)
        ab, ac = b - a, c - a
        facing = torch.sign(ab[..., 0] * ac[..., 1] - ab[..., 1] * ac[..., 0]) * (depth[:, faces] > NEAR).all(dim=-1)
        ends = half_edges(faces)
        direction = torch.where(ends[:, 0] < ends[:, 1], 1.0, -1.0).to(pixels.dtype)
        sides = pixels.new_zeros(pixels.shape[0], edges.shape[0]).index_add(
            1, edge_of_half_edge, facing.repeat(1, 3) * direction
        )
        count = torch.bincount(edge_of_half_edge, minlength=edges.shape[0])
        camera, edge = (sides.abs() == count).nonzero().unbind(1)
    start, end = edges[edge].unbind(1)
    inverse_depths = 1 / torch.stack([depth[camera, start], depth[camera, end]], dim=1)
    return _Edges(camera, pixels[camera, start], pixels[camera, end], inverse_depths, sides[camera, edge].sign())


def _crossed_pixel_pairs(
    edges: _Edges, raster: Raster, axis: int
) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"], Float[Tensor, " p"]]:
    """Where silhouette edges pass between neighbouring pixel centres, horizontal (`axis` 0) or vertical (1) neighbours.

    An edge steeper than 45 degrees separates horizontal neighbours and is followed row by row, any other edge separates
    vertical neighbours and is followed column by column: so each piece of outline counts once.

    Returns:
        Flat index of the pixel that sees the surface which the edge bounds; of the other pixel; distance in pixels from
        the centre of the first to the edge, differentiable in the edges' ends.
    """
    _, height, width = raster.face_ids.shape
    lines, line_length = (height, width) if axis == 0 else (width, height)
    line_stride, pair_stride = (width, 1) if axis == 0 else (1, width)
    extent = (edges.end - edges.start).detach()
    across, along = extent[:, axis].abs(), extent[:, 1 - axis].abs()
    followed = (along >= across) if axis == 0 else (along > across)
    low = torch.minimum(edges.start, edges.end).detach()[:, 1 - axis]
    high = torch.maximum(edges.start, edges.end).detach()[:, 1 - axis]
    # Half-open, so that a line through a shared vertex meets only one of its two edges.
    first = (low - 0.5).ceil().clamp(0, lines).long()
    count = torch.where(followed, (high - 0.5).ceil().clamp(0, lines).long() - first, 0)
    edge = torch.arange(count.numel(), device=count.device).repeat_interleave(count)
    line = first[edge] + torch.arange(edge.numel(), device=count.device) - (count.cumsum(0) - count)[edge]

    start, end = edges.start[edge], edges.end[edge]
    t = (line + 0.5 - start[:, 1 - axis]) / (end - start)[:, 1 - axis]
    place = start[:, axis] + t * (end - start)[:, axis] - 0.5  # 0 at the centre of the line's first pixel
    with torch.no_grad():
        lower = place.floor().clamp(0, line_length - 2).long()
        within = (place >= 0) & (place < line_length - 1)
        before = edges.camera[edge] * height * width + line * line_stride + lower * pair_stride
        after = before + pair_stride
        turn = -1 if axis == 0 else 1
        surface_after = turn * edges.side[edge] * extent[edge, 1 - axis] > 0
        front, back = torch.where(surface_after, after, before), torch.where(surface_after, before, after)
        inverse_depth = torch.lerp(edges.inverse_depths[edge, 0], edges.inverse_depths[edge, 1], t)
        candidates = (within & _bounds_front_surface(raster, front, back, 1 / inverse_depth)).nonzero()[:, 0]
    distance = torch.where(surface_after, lower + 1 - place, place - lower)
    chosen = candidates[_largest_of_each(before[candidates], distance[candidates])]
    return front[chosen], back[chosen], distance[chosen]


def _bounds_front_surface(
    raster: Raster, front: Int[Tensor, " k"], back: Int[Tensor, " k"], depth: Float[Tensor, " k"]
) -> Bool[Tensor, " k"]:
    """Whether the front pixel sees a nearer surface than the back pixel and an edge at `depth` belongs to it."""
    ids, seen = raster.face_ids.flatten(), raster.depth.flatten()
    back_depth = torch.where(ids[back] < 0, torch.inf, seen[back])
    # The edge may lie on the surface behind, which does not bound anything here: then it is nearer to that depth.
    return (ids[front] >= 0) & (seen[front] < back_depth) & (2 * depth < seen[front] + back_depth)


def _largest_of_each(group: Int[Tensor, " k"], value: Float[Tensor, " k"]) -> Int[Tensor, " m"]:
    """Index of each group's largest value: of several edges between two pixels the outermost bounds what is seen."""
    order = value.detach().argsort(stable=True)
    order = order[group[order].argsort(stable=True)]
    last = torch.ones_like(order, dtype=torch.bool)
    last[:-1] = group[order][1:] != group[order][:-1]
    return order[last]

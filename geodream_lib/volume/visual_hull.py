"""Where the object is, from its outlines alone: its visual hull.

Laurentini (1994), "The visual hull concept for silhouette-based image understanding". The hull contains the object; how
tightly depends on the views: what none of them cuts off (below a broad object that is seen from above only) stays.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from geodream_lib.cameras import Cameras, project
from geodream_lib.errors import InputError

VOXELS = 48  # per axis: 2 per cent of the object's size
OUTLINE_SIZE = 256  # pixels of an outline that are enough for that
AGREEMENT = 0.95  # share of the views that see a point which must find it inside the outline
SMALLEST_PART = 8  # voxels
EXPLAINED = 0.75  # share of a part's projections on larger parts above which no view calls for it


def find_object(alpha: Float[Tensor, "n h w"], cameras: Cameras) -> tuple[Float[Tensor, " 3"], float]:
    """Centre of the box around the object, and radius of the sphere around that centre, in the cameras' world.

    Views may show the object in part: what lies outside an image is judged by the other views.

    Args:
        alpha: coverage of the object in 0..1, above one half somewhere in every view.
        cameras: of the masks, in any world.

    Raises:
        InputError: the views do not show one object from several sides.
    """
    outlines, cameras = _small_outlines(alpha, cameras)
    center, radius = triangulate(outlines, cameras)
    # Pixels from each pixel to the outline, 0 inside.
    distances = torch.stack([_distance(outline) for outline in outlines])
    low, high = center - 1.5 * radius, center + 1.5 * radius
    for _ in range(2):
        # First to find the object, then, in a box that fits it, to measure it.
        hull, spacing = carve_hull(distances, cameras, low, high)
        hull = hull[without_phantoms(hull, spacing, outlines.shape[1:], cameras)]
        low, high = hull.amin(dim=0) - spacing, hull.amax(dim=0) + spacing
    center = (low + high) / 2
    return center, (hull - center).norm(dim=-1).max().item()


def triangulate(outlines: Bool[Tensor, "n h w"], cameras: Cameras) -> tuple[Float[Tensor, " 3"], float]:
    """The point nearest to the rays through the middles of the outlines, and the largest outline's radius there.

    Raises:
        InputError: the rays are parallel, or meet behind cameras.
    """
    k = cameras.intrinsics
    boxes = torch.tensor([_box(outline) for outline in outlines], dtype=k.dtype)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    local = torch.stack([(middle[:, 0] - k[:, 0, 2]) / k[:, 0, 0], (k[:, 1, 2] - middle[:, 1]) / k[:, 1, 1]], dim=-1)
    local = F.normalize(F.pad(local, (0, 1), value=-1.0), dim=-1)
    directions = torch.einsum("nij,nj->ni", cameras.c2w[:, :3, :3], local).double()
    # Least squares: what the matrices take of a vector is its part across the rays.
    across = torch.eye(3, dtype=torch.float64) - directions[:, :, None] * directions[:, None]
    normal, right = across.sum(dim=0), (across @ cameras.positions.double()[..., None]).sum(dim=0)[:, 0]
    if torch.linalg.eigvalsh(normal)[0] < 1e-3 * len(cameras):
        raise InputError(
            "all views look in the same direction, which says nothing about depth; expected views of the object from "
            "several sides"
        )
    center = torch.linalg.solve(normal, right).to(k.dtype)
    depth = project(cameras, center[None])[1][:, 0]
    if (depth > 0).float().mean() < AGREEMENT:
        raise InputError(
            "the cameras do not look at a common point, what they show lies behind some of them; expected "
            "camera-to-world matrices with OpenGL axes (the camera looks along -z)"
        )
    size = (boxes[:, 2:] - boxes[:, :2]) / torch.stack([k[:, 0, 0], k[:, 1, 1]], dim=-1) * depth[:, None]
    return center, size.norm(dim=-1).max().item() / 2


def carve_hull(
    distances: Float[Tensor, "n h w"], cameras: Cameras, low: Float[Tensor, " 3"], high: Float[Tensor, " 3"]
) -> tuple[Float[Tensor, "p 3"], Float[Tensor, " 3"]]:
    """Points of a grid from `low` to `high` that are inside the outlines, and the grid's spacing.

    A point stays if at least half of the views have it in their image and nearly all of those find the object there,
    within half a grid step. Nearly, because one bad mask must not remove what all others see.

    Args:
        distances: pixels from each pixel to the outline, 0 inside.

    Raises:
        InputError: no point stays.
    """
    axes = [torch.linspace(a, b, VOXELS) for a, b in zip(low.tolist(), high.tolist(), strict=True)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
    spacing = (high - low) / (VOXELS - 1)
    seen, missed = torch.zeros(len(points)), torch.zeros(len(points))
    for index, distance in enumerate(distances):
        row, column, reach, in_image = _pixels(cameras[index], points, spacing)
        seen += in_image
        missed += in_image & (distance[row, column] > reach)
        # What cannot stay any more is not looked up in the remaining views.
        possible = missed <= (1 - AGREEMENT) * len(distances)
        points, seen, missed = points[possible], seen[possible], missed[possible]
    hull = points[(seen >= max(2.0, 0.5 * len(distances))) & (missed <= (1 - AGREEMENT) * seen)]
    if len(hull) == 0:
        raise InputError(
            "the views do not show one object: no point of space lies inside its outline in all of them; expected "
            "camera-to-world matrices with OpenGL axes, and alpha or a plain background around the whole object"
        )
    return hull, spacing


def without_phantoms(
    hull: Float[Tensor, "p 3"], spacing: Float[Tensor, " 3"], shape: torch.Size, cameras: Cameras
) -> Bool[Tensor, " p"]:
    """The points of those parts of a hull that the outlines call for.

    Where the outlines of few views happen to cross beside the object, the hull has parts that every view sees in front
    of the object or behind it. The largest part is taken to be real; another one, if it covers something of the
    outlines that larger ones do not.

    Args:
        shape: height and width of the views.
    """
    part = _connected_parts(((hull - hull.amin(dim=0)) / spacing).round().long())
    size = torch.bincount(part)
    order = [number for number in size.argsort(descending=True, stable=True).tolist() if size[number] >= SMALLEST_PART]
    kept = part == size.argmax()
    for number in order[1:]:
        if _covered(hull[part == number], hull[kept], spacing, shape, cameras) < EXPLAINED:
            kept |= part == number
    return kept


def _connected_parts(cells: Int[Tensor, "p 3"]) -> Int[Tensor, " p"]:
    """Number, from 0, of the part that every cell of a grid belongs to; cells that share a corner belong together."""
    grid = np.zeros((VOXELS,) * 3, dtype=bool)
    index = tuple(cells.T.numpy())
    grid[index] = True
    labels, _ = ndimage.label(grid, np.ones((3, 3, 3)))
    return torch.from_numpy(labels[index].astype(np.int64) - 1)


def _covered(
    points: Float[Tensor, "p 3"],
    others: Float[Tensor, "q 3"],
    spacing: Float[Tensor, " 3"],
    shape: torch.Size,
    cameras: Cameras,
) -> float:
    """Share of the projections of `points` that lie within a grid step of those of `others`, over all views."""
    hits, total = 0, 0
    for index in range(len(cameras)):
        row, column, _, in_image = _pixels(cameras[index], others, spacing)
        outline = torch.zeros(shape, dtype=torch.bool)
        outline[row[in_image], column[in_image]] = True
        distance = _distance(outline)
        row, column, reach, in_image = _pixels(cameras[index], points, spacing)
        hits += int((in_image & (distance[row, column] <= 2 * reach)).sum())
        total += int(in_image.sum())
    return hits / max(1, total)


def _pixels(
    camera: Cameras, points: Float[Tensor, "p 3"], spacing: Float[Tensor, " 3"]
) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"], Float[Tensor, " p"], Bool[Tensor, " p"]]:
    """Row and column where one camera sees the points, half a grid step in pixels there, and whether it does see them.

    Row and column are 0 for points it does not see.
    """
    pixels, depth = project(camera, points)
    u, v, depth = pixels[0, :, 0], pixels[0, :, 1], depth[0]
    in_image = (depth > 0) & (u >= 0) & (v >= 0) & (u < camera.width) & (v < camera.height)
    row, column = (torch.where(in_image, x, 0.0).long() for x in (v, u))
    return row, column, 0.5 * spacing.max() * camera.intrinsics[0, 0, 0] / depth, in_image


def _distance(outline: Bool[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """Pixels from each pixel to the nearest true one; everywhere far where none is."""
    if not outline.any():
        return torch.full(outline.shape, float("inf"))
    return torch.from_numpy(ndimage.distance_transform_edt(~outline.numpy())).float()


def _small_outlines(alpha: Float[Tensor, "n h w"], cameras: Cameras) -> tuple[Bool[Tensor, "n h2 w2"], Cameras]:
    """Outlines of at most `OUTLINE_SIZE` pixels a side, and the cameras that see them."""
    scale = min(1.0, OUTLINE_SIZE / max(alpha.shape[1:]))
    height, width = (max(1, round(side * scale)) for side in alpha.shape[1:])
    small = F.interpolate(alpha[:, None], (height, width), mode="area")[:, 0]
    return small > 0.5, cameras.resized(height, width)


def _box(outline: Bool[Tensor, "h w"]) -> list[int]:
    """Left, top, right and bottom border of what is true, in pixels."""
    rows, columns = torch.nonzero(outline, as_tuple=True)
    if len(rows) == 0:
        raise InputError("a view shows nothing of the object; remove it from the transforms file")
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]

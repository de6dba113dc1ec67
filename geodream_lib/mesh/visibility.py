"""Which face every pixel sees: a numba z-buffer for the CPU, and the same rules in torch for any device.

Both follow Olano and Greer (1997), "Triangle scan conversion using 2D homogeneous coordinates". With the camera at the
origin and the ray of a pixel `d = (x, y, -1)`, the face `A, B, C` is hit where the three numbers `d . (B x C)`,
`d . (C x A)`, `d . (A x B)` share a sign, and `A . (B x C)` divided by their sum is the depth. No division by the depth
of a vertex takes part, so a face that reaches behind the camera needs no clipping.

Rules: both sides of a face are seen. A pixel is covered when its centre is inside or on the edge. The nearest face
wins, at equal depth the one with the lowest index. Two faces that share an edge evaluate exactly opposite numbers on it
(all in float64), so no pixel falls between them. Faces seen exactly edge-on or of zero area cover nothing.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from numba import njit, prange
from torch import Tensor

# Surfaces nearer to the camera than this (world units) are not seen.
NEAR = 0.01

# Candidate pixels per batch of faces in the torch version: bounds memory, does not change the result.
CANDIDATES = 1 << 22


def visible_faces(
    local: Float[Tensor, "n v 3"],
    intrinsics: Float[Tensor, "n 3 3"],
    faces: Int[Tensor, "f 3"],
    height: int,
    width: int,
) -> Int[Tensor, "n h w"]:
    """Index of the face seen by each pixel, -1 where there is none; int32, not differentiable.

    Args:
        local: vertices in the OpenGL frame of each camera.
        intrinsics: in pixels, `[[fx, 0, cx], [0, fy, cy], [0, 0, 1]]`.
    """
    local, intrinsics = local.detach().double(), intrinsics.double()
    if local.device.type != "cpu":
        return visible_faces_torch(local, intrinsics, faces, height, width)
    face_ids = np.full((local.shape[0], height, width), -1, dtype=np.int32)
    _fill_z_buffer(local.contiguous().numpy(), faces.contiguous().numpy(), intrinsics.contiguous().numpy(), face_ids)
    return torch.from_numpy(face_ids)


@njit(cache=True, parallel=True, error_model="numpy")
def _fill_z_buffer(local, faces, intrinsics, face_ids):
    cameras, height, width = face_ids.shape
    for n in prange(cameras):
        fx, fy, cx, cy = intrinsics[n, 0, 0], intrinsics[n, 1, 1], intrinsics[n, 0, 2], intrinsics[n, 1, 2]
        nearest = np.zeros((height, width))  # inverse depth; 0 is infinitely far
        for f in range(faces.shape[0]):
            i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
            ax, ay, az = local[n, i, 0], local[n, i, 1], local[n, i, 2]
            bx, by, bz = local[n, j, 0], local[n, j, 1], local[n, j, 2]
            cx_, cy_, cz = local[n, k, 0], local[n, k, 1], local[n, k, 2]
            farthest, closest = -min(az, bz, cz), -max(az, bz, cz)
            if farthest <= NEAR:
                continue
            left, right, top, bottom = 0, width - 1, 0, height - 1
            if closest > NEAR:
                ua, ub, uc = -fx * ax / az, -fx * bx / bz, -fx * cx_ / cz
                va, vb, vc = fy * ay / az, fy * by / bz, fy * cy_ / cz
                # A hair wider than the face, so that the exact test below decides about every centre on its rim.
                left = np.int64(max(0.0, np.ceil(min(ua, ub, uc) + cx - 0.5 - 1e-6)))
                right = np.int64(min(width - 1.0, np.floor(max(ua, ub, uc) + cx - 0.5 + 1e-6)))
                top = np.int64(max(0.0, np.ceil(min(va, vb, vc) + cy - 0.5 - 1e-6)))
                bottom = np.int64(min(height - 1.0, np.floor(max(va, vb, vc) + cy - 0.5 + 1e-6)))
                if left > right or top > bottom:
                    continue
            nax, nay, naz = by * cz - bz * cy_, bz * cx_ - bx * cz, bx * cy_ - by * cx_
            nbx, nby, nbz = cy_ * az - cz * ay, cz * ax - cx_ * az, cx_ * ay - cy_ * ax
            ncx, ncy, ncz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
            volume = ax * nax + ay * nay + az * naz
            if volume == 0.0:
                continue
            sign = 1.0 if volume > 0 else -1.0
            scale = 1.0 / abs(volume)
            for row in range(top, bottom + 1):
                y = (cy - (row + 0.5)) / fy
                ra, rb, rc = sign * (nay * y - naz), sign * (nby * y - nbz), sign * (ncy * y - ncz)
                for column in range(left, right + 1):
                    x = sign * ((column + 0.5 - cx) / fx)
                    wa, wb, wc = nax * x + ra, nbx * x + rb, ncx * x + rc
                    if wa >= 0 and wb >= 0 and wc >= 0:
                        inverse_depth = (wa + wb + wc) * scale
                        if nearest[row, column] < inverse_depth < 1.0 / NEAR:
                            nearest[row, column] = inverse_depth
                            face_ids[n, row, column] = f


def visible_faces_torch(
    local: Float[Tensor, "n v 3"],
    intrinsics: Float[Tensor, "n 3 3"],
    faces: Int[Tensor, "f 3"],
    height: int,
    width: int,
) -> Int[Tensor, "n h w"]:
    """`visible_faces` in torch (float64 input): the meaning of the z-buffer, and its path on CUDA."""
    return torch.stack(
        [_visible_from_one_camera(v[faces], k, height, width) for v, k in zip(local, intrinsics, strict=True)]
    )


def _visible_from_one_camera(
    corners: Float[Tensor, "f 3 3"], k: Float[Tensor, "3 3"], height: int, width: int
) -> Int[Tensor, "h w"]:
    left, right, top, bottom = _bounding_rectangles(corners, k, height, width)
    a, b, c = corners.unbind(1)
    normals = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], dim=1)
    volume = (a * normals[:, 0]).sum(-1)
    seen = (volume != 0) & (corners[..., 2].min(dim=1).values < -NEAR)
    columns = (right - left + 1).clamp(min=0)
    pixels = torch.where(seen, columns * (bottom - top + 1).clamp(min=0), 0)

    nearest = corners.new_zeros(height * width)
    face_ids = torch.full((height * width,), -1, dtype=torch.int32, device=corners.device)
    last = pixels.cumsum(0)
    for batch in range(int(last[-1]) // CANDIDATES + 1):
        member = ((last // CANDIDATES == batch) & (pixels > 0)).nonzero()[:, 0]
        face = member.repeat_interleave(pixels[member])
        offset = torch.arange(face.numel(), device=face.device)
        offset -= (pixels[member].cumsum(0) - pixels[member]).repeat_interleave(pixels[member])
        row, column = top[face] + offset // columns[face], left[face] + offset % columns[face]
        sign = volume[face].sign()[:, None]
        x, y = (column.double() + 0.5 - k[0, 2]) / k[0, 0], (k[1, 2] - (row.double() + 0.5)) / k[1, 1]
        n = normals[face]
        weights = n[..., 0] * (sign * x[:, None]) + sign * (n[..., 1] * y[:, None] - n[..., 2])
        inverse_depth = (weights[:, 0] + weights[:, 1] + weights[:, 2]) * (1.0 / volume[face].abs())
        inside = (weights >= 0).all(-1) & (inverse_depth > 0) & (inverse_depth < 1 / NEAR)
        pixel, face, inverse_depth = (row * width + column)[inside], face[inside], inverse_depth[inside]

        updated = nearest.scatter_reduce(0, pixel, inverse_depth, "amax")
        best = inverse_depth == updated[pixel]
        first = torch.full_like(face_ids, torch.iinfo(torch.int32).max)
        first = first.scatter_reduce(0, pixel[best], face[best].int(), "amin")
        face_ids = torch.where(updated > nearest, first, face_ids)
        nearest = updated
    return face_ids.reshape(height, width)


def _bounding_rectangles(
    corners: Float[Tensor, "f 3 3"], k: Float[Tensor, "3 3"], height: int, width: int
) -> tuple[Int[Tensor, " f"], Int[Tensor, " f"], Int[Tensor, " f"], Int[Tensor, " f"]]:
    """First and last column, first and last row of each face; the whole image where a face reaches the camera."""
    depth = -corners[..., 2]
    front = (depth > NEAR).all(dim=1)
    safe = torch.where(front[:, None], depth, torch.ones_like(depth))
    u = k[0, 0] * corners[..., 0] / safe + k[0, 2]
    v = -k[1, 1] * corners[..., 1] / safe + k[1, 2]
    rectangle = []
    for coordinate, size in ((u, width), (v, height)):
        low = (coordinate.min(dim=1).values - 0.5 - 1e-6).ceil().clamp(0, size).long()
        high = (coordinate.max(dim=1).values - 0.5 + 1e-6).floor().clamp(-1, size - 1).long()
        rectangle += [torch.where(front, low, 0), torch.where(front, high, size - 1)]
    return tuple(rectangle)

"""Which face every pixel sees, by the CUDA rasterisers of the public systems: nvdiffrast or kaolin.

Only the face is taken from them; places, depths and gradients follow from it in `rasterize`, the same on every path.
Both agree with `visibility` but for pixels whose centre lies on the rim of a face (nvdiffrast: within 1/32 pixel of it,
because it snaps projected vertices to sixteenths of a pixel), and in which of two faces at equal depth wins.
"""

import functools
from types import ModuleType

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodream_lib.cuda_libraries import library
from geodream_lib.mesh.visibility import NEAR


def visible_faces_by_library(
    local: Float[Tensor, "n v 3"],
    intrinsics: Float[Tensor, "n 3 3"],
    faces: Int[Tensor, "f 3"],
    height: int,
    width: int,
) -> Int[Tensor, "n h w"] | None:
    """`visible_faces` by the library that is active; None where there is none or it cannot draw this scene."""
    local, intrinsics = local.detach(), intrinsics.to(local.dtype)
    if nvdiffrast := library("nvdiffrast", local, faces):
        context = _context(nvdiffrast, local.device)
        return visible_faces_nvdiffrast(nvdiffrast, context, local, intrinsics, faces, height, width)
    if kaolin := library("kaolin", local, faces):
        return visible_faces_kaolin(kaolin, local, intrinsics, faces, height, width)
    return None


@functools.cache
def _context(nvdiffrast: ModuleType, device: torch.device) -> object:
    """The rasteriser's buffers on a device, which it reuses from call to call."""
    return nvdiffrast.RasterizeCudaContext(device=device)


def visible_faces_nvdiffrast(
    nvdiffrast: ModuleType,
    context: object,
    local: Float[Tensor, "n v 3"],
    intrinsics: Float[Tensor, "n 3 3"],
    faces: Int[Tensor, "f 3"],
    height: int,
    width: int,
) -> Int[Tensor, "n h w"]:
    """`visible_faces` by nvdiffrast 0.4; it clips faces that reach behind the camera and culls none.

    It takes clip coordinates (x, y, z, w) and puts x/w = -1, y/w = -1 at the outer corner of the image's first pixel:
    its rows go up the screen as OpenGL's do. With y counted down from the first row, as in our pixel coordinates, row i
    of its image is our row i, and the centre of pixel (i, j) is x/w = (2 j + 1) / width - 1, y/w = (2 i + 1) / height
    - 1. z/w runs from -1 at the near plane to 1 at the far one, which enclose the vertices tightly, because the depth
    buffer has the resolution of float32. Its last channel is the face's number plus one, 0 where there is none.
    """
    x, y, z = local.double().unbind(-1)
    depth, k = -z, intrinsics.double()[:, None]
    u = k[..., 0, 0] * x + k[..., 0, 2] * depth  # column times depth
    v = k[..., 1, 2] * depth - k[..., 1, 1] * y  # row times depth
    near = (0.99 * depth.amin(1, keepdim=True)).clamp(min=NEAR)
    far = torch.maximum(1.01 * depth.amax(1, keepdim=True), 2 * near)
    clip_z = ((far + near) * depth - 2 * far * near) / (far - near)
    clip = torch.stack([2 * u / width - depth, 2 * v / height - depth, clip_z, depth], dim=-1)
    image, _ = nvdiffrast.rasterize(
        context, clip.float().contiguous(), faces.int().contiguous(), (height, width), grad_db=False
    )
    return image[..., 3].int() - 1


def visible_faces_kaolin(
    kaolin: ModuleType,
    local: Float[Tensor, "n v 3"],
    intrinsics: Float[Tensor, "n 3 3"],
    faces: Int[Tensor, "f 3"],
    height: int,
    width: int,
) -> Int[Tensor, "n h w"] | None:
    """`visible_faces` by kaolin 0.18 (`kaolin.render.mesh`); None where a face reaches behind the camera.

    It takes the corners of every face on the screen, x to the right and y up, both from -1 to 1, with the first row at
    the top: the centre of pixel (i, j) is x = (2 j + 1) / width - 1, y = 1 - (2 i + 1) / height. It interpolates the
    corners' "z" linearly on the screen and shows the largest. We hand it the inverse depth, which is linear there, so
    that the order is exact also in perspective. It does not clip, and its numbers are our face indices, -1 for none.
    """
    depth = -local[..., 2].double()
    front = (depth > NEAR)[:, faces]  # [n, f, 3]
    valid = front.all(-1)
    if bool((front.any(-1) & ~valid).any()):
        return None
    if not bool(valid.any()):
        return torch.full((local.shape[0], height, width), -1, dtype=torch.int32, device=local.device)
    k = intrinsics.double()[:, None]
    safe = torch.where(depth > NEAR, depth, torch.ones_like(depth))
    u = k[..., 0, 0] * local[..., 0] / safe + k[..., 0, 2]
    v = k[..., 1, 2] - k[..., 1, 1] * local[..., 1] / safe
    screen = torch.stack([2 * u / width - 1, 1 - 2 * v / height], dim=-1)[:, faces]  # [n, f, 3, 2]
    nearness = (1 / safe)[:, faces]
    _, face_ids = kaolin.rasterize(height, width, nearness, screen, nearness[..., None], valid_faces=valid)
    return face_ids.int()

"""From a mesh and cameras to what each pixel sees: face, place on the face, depth.

`rasterize` is the one place where a mesh meets pixels. Visibility is found without gradient; the barycentric
coordinates are computed from the visible face afterwards and carry the gradient to the vertices, as in Laine et al.
(2020), "Modular primitives for high-performance differentiable rendering", section 3. The gradient of the outline is in
`antialias`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodream_lib.cameras import Cameras
from geodream_lib.errors import InputError
from geodream_lib.mesh.visibility import visible_faces
from geodream_lib.mesh.visibility_cuda import visible_faces_by_library


@dataclass(frozen=True)
class Raster:
    """What `n` cameras see of one mesh.

    face_ids: int32, -1 where no face is seen. barycentrics: perspective-correct weights of the face's three vertices,
    sum 1, zero where no face is seen; differentiable. depth: along the optical axis in world units, zero where no face
    is seen; differentiable.
    """

    face_ids: Int[Tensor, "n h w"]
    barycentrics: Float[Tensor, "n h w 3"]
    depth: Float[Tensor, "n h w"]

    @property
    def covered(self) -> Int[Tensor, " p"]:
        """Flat indices (camera, row, column) of the pixels that see a face."""
        return (self.face_ids.flatten() >= 0).nonzero()[:, 0]


def rasterize(cameras: Cameras, vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Raster:
    """Rasterise a mesh at every pixel centre. Both sides of a face are seen; faces behind the camera are not.

    Raises:
        InputError: a vertex is not finite, or there are no faces.
    """
    if not torch.isfinite(vertices).all():
        raise InputError(
            "mesh has vertices that are not finite; expected numbers, lower the learning rate of the geometry"
        )
    if faces.shape[0] == 0:
        raise InputError("mesh has no faces; expected at least one, was the surface extracted at the right level?")
    height, width = cameras.height, cameras.width
    w2c = cameras.w2c.to(vertices.dtype)
    local = torch.einsum("nij,vj->nvi", w2c[:, :3, :3], vertices) + w2c[:, None, :3, 3]
    face_ids = visible_faces_by_library(local, cameras.intrinsics, faces, height, width)
    if face_ids is None:
        face_ids = visible_faces(local, cameras.intrinsics, faces, height, width)

    covered = (face_ids.flatten() >= 0).nonzero()[:, 0]
    camera, row, column = covered // (height * width), covered // width % height, covered % width
    k = cameras.intrinsics.to(vertices.dtype)[camera]
    ray = torch.stack([(column + 0.5 - k[:, 0, 2]) / k[:, 0, 0], (k[:, 1, 2] - row - 0.5) / k[:, 1, 1]], dim=-1)
    corner_ids = faces[face_ids.flatten()[covered].long()] + camera[:, None] * vertices.shape[0]
    corners = local.flatten(0, 1).index_select(0, corner_ids.flatten()).reshape(-1, 3, 3)
    # The scalar triple products d . (B x C) of visibility.py, with d = (ray, -1) sheared away from every corner first:
    # what remains is a 2D cross product of small numbers, which float32 resolves.
    a, b, c = (corners[..., :2] + corners[..., 2:] * ray[:, None]).unbind(1)
    weights = torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], dim=-1)
    total = weights.sum(-1, keepdim=True)
    # A CUDA rasteriser may show a face at a centre that lies a hair outside of it: the nearest place on it is meant.
    barycentrics = (weights / torch.where(total == 0, torch.ones_like(total), total)).clamp(min=0)
    barycentrics = barycentrics / barycentrics.sum(-1, keepdim=True).clamp(min=1)
    depth = -(barycentrics * corners[..., 2]).sum(-1)

    shape = (len(cameras), height, width)
    return Raster(
        face_ids=face_ids,
        barycentrics=barycentrics.new_zeros(face_ids.numel(), 3)
        .index_copy(0, covered, barycentrics)
        .reshape(*shape, 3),
        depth=depth.new_zeros(face_ids.numel()).index_copy(0, covered, depth).reshape(shape),
    )


def interpolate_covered(
    attributes: Float[Tensor, "v c"], raster: Raster, faces: Int[Tensor, "f 3"]
) -> Float[Tensor, "p c"]:
    """Vertex attributes at the `p` covered pixels only, in the order of `raster.covered`."""
    covered = raster.covered
    corner_ids = faces[raster.face_ids.flatten()[covered].long()]
    corners = attributes.index_select(0, corner_ids.flatten()).reshape(-1, 3, attributes.shape[1])
    weights = raster.barycentrics.reshape(-1, 3).index_select(0, covered)
    return (weights[..., None] * corners).sum(1)


def interpolate(
    attributes: Float[Tensor, "v c"], raster: Raster, faces: Int[Tensor, "f 3"]
) -> Float[Tensor, "n h w c"]:
    """Vertex attributes at every pixel, perspective-correct; zero where no face is seen."""
    values = interpolate_covered(attributes, raster, faces)
    image = values.new_zeros(raster.face_ids.numel(), attributes.shape[1]).index_copy(0, raster.covered, values)
    return image.reshape(*raster.face_ids.shape, -1)


def _cross(a: Float[Tensor, "p 2"], b: Float[Tensor, "p 2"]) -> Float[Tensor, " p"]:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]

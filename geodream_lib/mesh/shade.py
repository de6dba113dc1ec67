"""Images of a mesh: world normals (geometry stage), a colour field on its surface (texture stage), a baked texture."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodream_lib.cameras import Cameras
from geodream_lib.mesh.antialias import antialias
from geodream_lib.mesh.geometry import vertex_normals, weld
from geodream_lib.mesh.rasterize import Raster, interpolate_covered, rasterize
from geodream_lib.mesh.textured_mesh import TexturedMesh, sample_texture

Background = Float[Tensor, "n 3"] | Float[Tensor, "n h w 3"]


def render_normals(
    cameras: Cameras, vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], background: Background
) -> Float[Tensor, "n h w 3"]:
    """Smooth unit normals in the WORLD frame as colours `(normal + 1) / 2`, with anti-aliased silhouettes.

    What stage 4 shows the diffusion model while it refines the geometry, before any texture (section 2.2, "Mesh
    Fine-tuning", after ProlificDreamer; the released code uses world normals on a black background).

    Args:
        background: one colour per camera, or an image per camera, 0..1.
    """
    raster = rasterize(cameras, vertices, faces)
    normals = interpolate_covered(vertex_normals(vertices, faces), raster, faces)
    colors = (torch.nn.functional.normalize(normals, dim=-1) + 1) / 2
    return antialias(_over(colors, raster, background), raster, cameras, vertices, faces)


def render_texture(
    cameras: Cameras,
    vertices: Float[Tensor, "v 3"],
    faces: Int[Tensor, "f 3"],
    color_fn: Callable[[Float[Tensor, "p 3"]], Float[Tensor, "p 3"]],
    background: Background,
) -> Float[Tensor, "n h w 3"]:
    """The colour field at the visible surface point of every pixel, with anti-aliased silhouettes.

    Args:
        color_fn: colour 0..1 at world points; called once, with the covered pixels' points only.
        background: one colour per camera, or an image per camera, 0..1.
    """
    raster = rasterize(cameras, vertices, faces)
    colors = color_fn(interpolate_covered(vertices, raster, faces))
    return antialias(_over(colors, raster, background), raster, cameras, vertices, faces)


def render_opacity(
    cameras: Cameras, vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]
) -> Float[Tensor, "n h w 1"]:
    """The part of every pixel that the mesh covers, 0..1; its gradient is that of the outline."""
    raster = rasterize(cameras, vertices, faces)
    covered = (raster.face_ids >= 0).to(vertices.dtype)[..., None]
    return antialias(covered, raster, cameras, vertices, faces)


def render_textured_mesh(cameras: Cameras, mesh: TexturedMesh, background: Background) -> Float[Tensor, "n h w 3"]:
    """The finished mesh with its baked texture, unlit: what a viewer shows of the exported file."""
    raster = rasterize(cameras, mesh.vertices, mesh.faces)
    colors = sample_texture(mesh.texture, interpolate_covered(mesh.uvs, raster, mesh.faces))
    # Along the seams of the atlas vertices are doubled, which would look like an open boundary.
    vertices, welded = weld(mesh.vertices)
    return antialias(_over(colors, raster, background), raster, cameras, vertices, welded[mesh.faces])


def _over(colors: Float[Tensor, "p c"], raster: Raster, background: Background) -> Float[Tensor, "n h w c"]:
    """Place the covered pixels' colours on the background."""
    n, height, width = raster.face_ids.shape
    image = background[:, None, None] if background.ndim == 2 else background
    image = image.to(colors).expand(n, height, width, -1).reshape(n * height * width, -1)
    return image.index_copy(0, raster.covered, colors).reshape(n, height, width, -1)

"""A mesh to turn in a notebook: JupyterLab, Colab, an exported page; and a picture of it where no script may run."""

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path

import torch
import trimesh
from PIL import Image
from trimesh.viewer.notebook import scene_to_html

from geodream_lib.cameras import orbit
from geodream_lib.mesh import TexturedMesh, render_textured_mesh
from geodream_lib.show import grid

SIDES = [20.0, 110.0, 200.0, 290.0]  # azimuths of the poster's pictures


@dataclass(frozen=True)
class MeshViewer:
    """What a notebook shows when it is the last value of a cell.

    poster: JPEG, for pages without scripts such as a notebook on GitHub. page: a whole HTML page with the mesh and the
    viewer (three.js, about 0.6 MB) in it, which needs no network. height: of the viewer in pixels.
    """

    poster: bytes = field(repr=False)
    page: str = field(repr=False)
    height: int

    def _repr_html_(self) -> str:
        """The page in a frame, over the poster: whoever removes the frame, because of its scripts, sees the picture."""
        picture = base64.b64encode(self.poster).decode()
        page = self.page.replace("&", "&amp;").replace('"', "&quot;")
        return (
            f'<div style="position:relative;height:{self.height}px">'
            f'<img alt="the mesh from four sides" style="max-width:100%" src="data:image/jpeg;base64,{picture}">'
            f'<iframe srcdoc="{page}" title="the mesh, to be turned" '
            'style="position:absolute;inset:0;width:100%;height:100%;border:0"></iframe></div>'
        )

    def _repr_jpeg_(self) -> bytes:
        return self.poster


def view_mesh(path: Path | str, height: int = 420, tile: int = 192) -> MeshViewer:
    """Turn a GLB: drag to rotate, scroll to zoom.

    Args:
        path: a file with one textured mesh, such as a run's `mesh.glb`.
        height: of the viewer in pixels.
        tile: size in pixels of the poster's four pictures.

    Raises:
        InputError: the file is missing or holds no single textured mesh.
    """
    mesh = TexturedMesh.load_glb(path)
    page = scene_to_html(trimesh.load(Path(path), force="scene"))
    return MeshViewer(_poster(mesh, tile), page, height)


def _poster(mesh: TexturedMesh, tile: int) -> bytes:
    """The mesh from four sides, filling each picture."""
    radius = float(mesh.vertices.norm(dim=-1).max())
    cameras = orbit(SIDES, 15.0, 3.1 * radius, 40.0, tile)
    white = torch.ones(len(SIDES), 3)
    return _jpeg(grid(render_textured_mesh(cameras, mesh, white), columns=len(SIDES)))


def _jpeg(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "jpeg", quality=90)
    return stream.getvalue()

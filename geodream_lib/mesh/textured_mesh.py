"""The product: a mesh with a baked texture, as files that other programs open.

Frames: in the library z is up and the object's front looks toward +x. GLB and OBJ are written y up with the front
toward +z, as the glTF 2.0 specification (section 3.4) demands, so world (x, y, z) becomes file (y, z, x): a rotation,
no scale. PLY, which has no convention, keeps the world frame.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from trimesh.visual.material import PBRMaterial, SimpleMaterial

from geodream_lib.errors import InputError
from geodream_lib.mesh.geometry import vertex_normals, weld
from geodream_lib.storage import atomic_write

# File axes as columns of the world frame: file x is world y, file y is world z, file z is world x.
TO_Y_UP = [1, 2, 0]
TO_WORLD = [2, 0, 1]


@dataclass(frozen=True)
class TexturedMesh:
    """A triangle mesh with one texture coordinate per vertex and a square or oblong texture.

    vertices: world frame. faces: counter-clockwise seen from outside. uvs: u right, v up, in [0, 1]^2. texture: sRGB,
    0..1, row 0 at v = 1. normal_map: in the tangent space of the texture coordinates, see `normal_map.py`.
    """

    vertices: Float[Tensor, "v 3"]
    faces: Int[Tensor, "f 3"]
    uvs: Float[Tensor, "v 2"]
    texture: Float[Tensor, "h w 3"]
    normal_map: Float[Tensor, "i j 3"] | None = None

    def save_glb(self, path: Path | str) -> None:
        """Write one binary glTF file with its textures inside; equal meshes give equal bytes.

        Raises:
            InputError: the file cannot be written.
        """
        material = PBRMaterial(
            name="texture",
            baseColorTexture=_to_image(self.texture),
            normalTexture=None if self.normal_map is None else _to_image(self.normal_map),
            metallicFactor=0.0,
            roughnessFactor=1.0,
        )
        _write(path, self._y_up(material).export(file_type="glb", include_normals=True))

    def save_obj(self, path: Path | str) -> None:
        """Write an OBJ and beside it, with the same stem, its MTL and the textures as PNG.

        Raises:
            InputError: a file cannot be written.
        """
        path = Path(path)
        images = {path.with_suffix(".png"): self.texture}
        material = f"newmtl texture\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {path.stem}.png\n"
        if self.normal_map is not None:
            images[path.with_name(f"{path.stem}_normal.png")] = self.normal_map
            material += f"norm {path.stem}_normal.png\n"
        text = self._y_up(SimpleMaterial(name="texture")).export(
            file_type="obj", include_normals=True, mtl_name=f"{path.stem}.mtl", header=None, write_texture=False
        )
        # The OBJ last: once it is there, what it names is there too.
        for image_path, image in images.items():
            png = io.BytesIO()
            _to_image(image).save(png, format="png")
            _write(image_path, png.getvalue())
        _write(path.with_suffix(".mtl"), material.encode())
        _write(path, text.encode())

    def save_ply(self, path: Path | str) -> None:
        """Write a binary PLY in the world frame with the texture's colour at each vertex, without seams.

        Raises:
            InputError: the file cannot be written.
        """
        vertices, welded = weld(self.vertices.cpu())
        # Where a seam gives one position several texture coordinates, their colours are averaged.
        colors = sample_texture(self.texture.cpu(), self.uvs.cpu())
        colors = torch.zeros_like(vertices).index_add(0, welded, colors) / torch.bincount(welded)[:, None]
        faces = welded[self.faces.cpu()]
        # A face whose corners coincide has become an edge; its neighbours on both sides now share that edge.
        a, b, c = faces.unbind(1)
        faces = faces[(a != b) & (b != c) & (c != a)]
        mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), vertex_colors=_to_bytes(colors), process=False)
        _write(path, mesh.export(file_type="ply"))

    @classmethod
    def load_glb(cls, path: Path | str) -> "TexturedMesh":
        """Read a GLB with one textured mesh back into the world frame.

        Raises:
            InputError: the file is missing, is no GLB, or holds no single mesh with a base colour texture.
        """
        try:
            scene = trimesh.load(Path(path), file_type="glb", force="scene", process=False)
        except Exception as error:  # trimesh raises what its parser happens to meet
            raise InputError(f"cannot read {path}: {error}; expected a GLB file, such as a run's mesh.glb") from error
        meshes = list(scene.geometry.values())
        material = getattr(meshes[0].visual, "material", None) if meshes else None
        image, normal_map = (getattr(material, name, None) for name in ("baseColorTexture", "normalTexture"))
        if len(meshes) != 1 or image is None or meshes[0].visual.uv is None:
            raise InputError(
                f"{path} holds {len(meshes)} meshes; expected one with a base colour texture, join the parts and bake "
                "their colours into one texture first"
            )
        mesh = meshes[0]
        placement, _ = scene.graph[scene.graph.nodes_geometry[0]]
        vertices = trimesh.transform_points(mesh.vertices, placement)[:, TO_WORLD]
        return cls(
            vertices=torch.from_numpy(vertices.astype(np.float32)),
            faces=torch.from_numpy(mesh.faces.astype(np.int64)),
            uvs=torch.from_numpy(mesh.visual.uv.astype(np.float32)),
            texture=_from_image(image),
            normal_map=None if normal_map is None else _from_image(normal_map),
        )

    def _y_up(self, material: PBRMaterial | SimpleMaterial) -> trimesh.Trimesh:
        """The mesh in the file's frame, with normals that are smooth across the seams of the atlas."""
        # On the CPU, where sums are made in a fixed order: equal meshes give equal files.
        vertices, faces = self.vertices.detach().cpu(), self.faces.cpu()
        distinct, welded = weld(vertices)
        normals = vertex_normals(distinct, welded[faces])[welded]
        return trimesh.Trimesh(
            vertices.numpy()[:, TO_Y_UP],
            faces.numpy(),
            vertex_normals=normals.numpy()[:, TO_Y_UP],
            visual=trimesh.visual.TextureVisuals(self.uvs.detach().cpu().numpy(), material=material),
            process=False,
        )


def sample_texture(texture: Float[Tensor, "h w 3"], uvs: Float[Tensor, "p 2"]) -> Float[Tensor, "p 3"]:
    """Bilinear lookup at texture coordinates (u right, v up); clamped at the border."""
    grid = uvs * uvs.new_tensor([2.0, -2.0]) + uvs.new_tensor([-1.0, 1.0])
    looked_up = torch.nn.functional.grid_sample(
        texture.permute(2, 0, 1)[None], grid[None, :, None], align_corners=False, padding_mode="border"
    )
    return looked_up[0, :, :, 0].T


def _to_bytes(colors: Float[Tensor, "... 3"]) -> np.ndarray:
    return (colors.detach().clamp(0, 1) * 255).round().byte().cpu().numpy()


def _to_image(texture: Float[Tensor, "h w 3"]) -> Image.Image:
    return Image.fromarray(_to_bytes(texture))


def _from_image(image: Image.Image) -> Float[Tensor, "h w 3"]:
    return torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32) / 255)


def _write(path: Path | str, content: bytes) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)

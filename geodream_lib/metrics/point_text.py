"""Point-text evaluator: Uni3D, by which whole shapes and prompts are compared (Uni3D_score, section 3.1).

One class reads the real one and the lab's. A folder has config.json, model.safetensors and, by the name that the
configuration gives, the text tower whose space the points were brought to: EVA02-E-14-plus for the released Uni3D, the
image-text evaluator for the lab's.
"""

from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPModel, CLIPTextModelWithProjection, CLIPTokenizer

from geodream_lib.checkpoints import read_weights
from geodream_lib.errors import InputError
from geodream_lib.metrics.clip_texts import embed_texts, read_clip
from geodream_lib.metrics.point_cloud import to_uni3d
from geodream_lib.metrics.point_encoder import PointEncoderConfig, Uni3D
from geodream_lib.storage import load_into, read_json, save_tensors, write_json

WEIGHTS = "model.safetensors"
NO_COLOUR = 0.4  # what Uni3D was given for points without one
BATCH = 4  # clouds at once: 10k points of each are compared with every centre


class PointText(nn.Module):
    """A point encoder and the text tower it was aligned with."""

    def __init__(self, uni3d: Uni3D, tower: CLIPModel | CLIPTextModelWithProjection, tokenizer: CLIPTokenizer):
        super().__init__()
        self.uni3d = uni3d
        self.tower = tower
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, source: Path | str, device: torch.device | str = "cpu") -> "PointText":
        """Read the folder `source` and the text tower that it names.

        Raises:
            InputError: one of the two is missing, incomplete or damaged, or they do not share a space.
        """
        folder = Path(source)
        uni3d = load_uni3d(folder)
        text = text_folder(folder)
        if not text.is_dir():
            raise InputError(
                f"{folder} compares with the texts of {text.name}, which is not there ({text}); a lab network needs "
                f"image_text beside it, for a released one run: geodream weights fetch {text.name}"
            )
        tower, tokenizer = read_clip(text)
        width, expected = tower.config.projection_dim, uni3d.point_encoder.config.embed_dim
        if width != expected:
            raise InputError(
                f"{folder} embeds points in {expected} numbers and {text} texts in {width}; the two were not trained "
                "together, fetch both anew"
            )
        return cls(uni3d, tower, tokenizer).to(device)

    @torch.no_grad()
    def embed_points(self, xyz: Float[Tensor, "n p 3"], rgb: Float[Tensor, "n p 3"]) -> Float[Tensor, "n d"]:
        """Unit rows, one for each cloud; their order of points does not matter.

        Args:
            xyz: points of the surface in the world frame (z up), of any size and place; the paper draws 10k.
            rgb: their colours, sRGB in 0..1.

        Raises:
            InputError: there is no cloud, or a cloud has fewer points than the network has groups.
        """
        if not len(xyz):
            raise InputError("no point cloud to embed; expected one at least")
        device = self.uni3d.logit_scale.device
        clouds = zip(xyz.to(device).split(BATCH), rgb.to(device).split(BATCH), strict=True)
        parts = [self.uni3d.point_encoder(to_uni3d(points), colours) for points, colours in clouds]
        return functional.normalize(torch.cat(parts), dim=-1)

    def embed_texts(self, texts: list[str]) -> Float[Tensor, "n d"]:
        """Unit rows, one for each text."""
        return embed_texts(self.tower, self.tokenizer, texts)


def load_uni3d(folder: Path) -> Uni3D:
    """The point encoder of a folder, every parameter named and of the shape that config.json says.

    Raises:
        InputError: the folder is missing or damaged, or its weights are those of another network.
    """
    if not (folder / "config.json").is_file():
        raise InputError(
            f"no point-text evaluator at {folder} (no config.json); expected a folder made by geodream weights convert"
        )
    config = read_json(folder / "config.json").get("point_encoder")
    uni3d = Uni3D(PointEncoderConfig.from_json(config, str(folder / "config.json")))
    load_into(uni3d, read_weights(folder / WEIGHTS), str(folder))
    return uni3d.eval().requires_grad_(False)


def text_folder(folder: Path) -> Path:
    """Where the text tower lies that the evaluator in `folder` names, relative to it.

    Raises:
        InputError: it names none.
    """
    name = read_json(folder / "config.json").get("text")
    if not isinstance(name, str) or not name:
        raise InputError(f"{folder}/config.json names no text tower; expected text: a folder, fetch the network anew")
    return (folder / name).resolve()


def save_uni3d(folder: Path, uni3d: Uni3D, text: str) -> None:
    """Write the folder that `PointText.load` reads; `text` is the path of the text tower, relative to the folder.

    Raises:
        InputError: the folder cannot be written.
    """
    save_tensors(folder / WEIGHTS, uni3d.state_dict())
    write_json(folder / "config.json", {"point_encoder": uni3d.point_encoder.config.to_json(), "text": text})


def sample_surface(
    mesh: trimesh.Trimesh, count: int, generator: torch.Generator
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """`count` points of the surface, uniform by area, in the mesh's frame, and their colours (sRGB, 0..1).

    Section 3.1 draws 10k points for the 3D metric. Colours are those of the texture, of the vertices (between them
    interpolated) or of the faces; a mesh without any is grey, as Uni3D was trained.

    Raises:
        InputError: the mesh has no face with an area.
    """
    triangles = torch.tensor(np.asarray(mesh.triangles), dtype=torch.float64)
    edges = triangles[:, 1:] - triangles[:, :1]
    areas = torch.linalg.cross(edges[:, 0], edges[:, 1]).norm(dim=-1).cumsum(0) if len(triangles) else torch.zeros(1)
    if not areas[-1] > 0:
        raise InputError("a mesh without a face that has an area; expected a surface to draw points from")
    drawn = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    face = torch.searchsorted(areas, drawn[:, 0] * areas[-1], right=True).clamp(max=len(areas) - 1)
    # The root spreads points evenly over a triangle instead of crowding them at a corner.
    root = drawn[:, 1].sqrt()
    weights = torch.stack([1 - root, root * (1 - drawn[:, 2]), root * drawn[:, 2]], dim=-1)
    points = (triangles[face] * weights[..., None]).sum(1)
    return points.float(), _colours(mesh, face.numpy(), weights.numpy())


def _colours(mesh: trimesh.Trimesh, face: np.ndarray, weights: np.ndarray) -> Float[Tensor, "n 3"]:
    """Colour at the place `weights [n, 3]` (shares of the corners) of each face in `face [n]`."""
    corners = np.asarray(mesh.faces)[face]
    if mesh.visual.kind == "texture" and mesh.visual.uv is not None:
        uv = (np.asarray(mesh.visual.uv)[corners] * weights[..., None]).sum(1)
        colours = np.asarray(mesh.visual.material.to_color(uv))
    elif mesh.visual.kind == "vertex":
        colours = (np.asarray(mesh.visual.vertex_colors, dtype=np.float64)[corners] * weights[..., None]).sum(1)
    elif mesh.visual.kind == "face":
        colours = np.asarray(mesh.visual.face_colors)[face]
    else:
        return torch.full((len(face), 3), NO_COLOUR)
    return torch.from_numpy(colours[:, :3] / 255.0).float()

"""The asset a user keeps: a run's final mesh with the faces, texels and formats that other programs want."""

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodream_lib.errors import InputError
from geodream_lib.field import NeuSField
from geodream_lib.mesh import MeshReport, TexturedMesh, decimate, mesh_report, seam_padding, unwrap
from geodream_lib.mesh.bake import CHUNK, find_texels, spread
from geodream_lib.mesh.geometry import vertex_normals
from geodream_lib.mesh.nearest import nearest_on_surface
from geodream_lib.mesh.normal_map import bake_normal_map, smooth_normals
from geodream_lib.pipeline import final_surface, texture_scene
from geodream_lib.run import Run
from geodream_lib.scenes import TextureScene
from geodream_lib.storage import load_into, load_tensors, write_json

FORMATS = ("glb", "obj", "ply")
TEXTURE_SIZES = (64, 8192)


@dataclass(frozen=True)
class Exported:
    """The files that were written, the report last, and what the report says."""

    files: list[Path]
    report: MeshReport


def export_asset(
    run: Run,
    out: Path | None = None,
    *,
    faces: int | None = None,
    texture: int = 2048,
    normal_map: bool = False,
    formats: str = "glb",
) -> Exported:
    """Write `asset.glb`, `.obj` (with `.mtl` and `.png`) or `.ply`, and `report.json`; nothing of the run is changed.

    Args:
        run: with stage 4 done.
        out: a folder; by default the run's `mesh/`.
        faces: most faces; the whole mesh by default.
        texture: side of the square texture in texels.
        normal_map: bake the relief of the whole mesh for the reduced one (in GLB and OBJ).
        formats: names of `FORMATS` with commas between.

    Raises:
        InputError: an argument cannot be used, the run has no mesh, the mesh cannot be reduced that far, or the folder
            cannot be written. Files of an earlier export are whole then.
    """
    chosen = _check(run, faces, texture, normal_map, formats)
    out = run.folder / "mesh" if out is None else out
    _check_writable(out)
    scene = final_scene(run)
    mesh = make_asset(scene, faces, texture, normal_map)
    report = mesh_report(mesh)
    files = []
    for name in chosen:
        getattr(mesh, f"save_{name}")(out / f"asset.{name}")
        files.append(out / f"asset.{name}")
    write_json(out / "report.json", asdict(report))
    return Exported([*files, out / "report.json"], report)


def final_scene(run: Run) -> TextureScene:
    """The final surface of a run with its colour field.

    Raises:
        InputError: an artifact of the run is missing or broken.
    """
    scene = texture_scene(run, NeuSField.load(run.field).to(run.device), *final_surface(run))
    load_into(scene, load_tensors(run.texture)[0], str(run.texture))
    return scene


@torch.no_grad()
def make_asset(scene: TextureScene, faces: int | None, size: int, normal_map: bool = False) -> TexturedMesh:
    """Decimate, unwrap and bake.

    The colours (and the normals) of a reduced mesh are those of the nearest place of the whole one: the colour field
    has learnt nothing of the space beside it.

    Raises:
        InputError: the mesh cannot be reduced to so few faces.
    """
    whole = scene.vertices, scene.faces
    vertices, triangles = whole if faces is None else decimate(*whole, faces)
    vmap, triangles, uvs = unwrap(vertices, triangles, size, seam_padding(size))
    vertices = vertices[vmap]
    texels = find_texels(triangles, uvs, size)
    points = texels.interpolate(vertices)
    relief = None
    if triangles.shape[0] < whole[1].shape[0]:
        corners, weights = nearest_on_surface(points, smooth_normals(texels, vertices, triangles), *whole)
        points = _interpolate(whole[0], corners, weights)
        if normal_map:
            normals = torch.nn.functional.normalize(_interpolate(vertex_normals(*whole), corners, weights), dim=-1)
            relief = bake_normal_map(vertices, triangles, uvs, texels, normals)
    colors = torch.cat([scene.color(part) for part in points.split(CHUNK)])
    return TexturedMesh(vertices, triangles, uvs, spread(colors, texels), relief)


def _interpolate(
    attributes: Float[Tensor, "v c"], corners: Int[Tensor, "t 3"], weights: Float[Tensor, "t 3"]
) -> Float[Tensor, "t c"]:
    return (weights[..., None] * attributes[corners]).sum(dim=1)


def _check(run: Run, faces: int | None, texture: int, normal_map: bool, formats: str) -> list[str]:
    """The formats, after everything that was asked for has been looked at."""
    chosen = formats.split(",")
    unknown = [name for name in chosen if name not in FORMATS]
    if unknown:
        raise InputError(f"unknown format {unknown[0]!r}; expected one or more of {','.join(FORMATS)}")
    if faces is not None and faces < 4:
        raise InputError(f"{faces} faces enclose nothing; expected at least 4, such as --faces 4000")
    if not TEXTURE_SIZES[0] <= texture <= TEXTURE_SIZES[1]:
        low, high = TEXTURE_SIZES
        raise InputError(f"a texture of {texture} texels; expected {low} to {high}, such as --texture 2048")
    if normal_map and faces is None:
        raise InputError("a normal map keeps the relief of faces that are removed; say how many remain with --faces")
    if not run.is_done("mesh"):
        raise InputError(f"{run.folder} has no mesh yet; run: geodream mesh {run.folder}")
    return chosen


def _check_writable(out: Path) -> None:
    """Before minutes are spent on what cannot be kept."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise InputError(f"cannot write into {out}: {error}; choose another folder with --out") from error

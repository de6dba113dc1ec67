"""Stage 4: from the refined field to a textured mesh (section 2.2, "Mesh Fine-tuning")."""

from geodream_lib.mesh.antialias import antialias
from geodream_lib.mesh.atlas import seam_padding, unwrap
from geodream_lib.mesh.bake import bake_texture
from geodream_lib.mesh.clean import remove_floaters
from geodream_lib.mesh.decimate import decimate
from geodream_lib.mesh.dmtet import DMTet, marching_tetrahedra
from geodream_lib.mesh.flexicubes import FlexiCubes, flexicubes
from geodream_lib.mesh.rasterize import Raster, interpolate, rasterize
from geodream_lib.mesh.regularize import normal_consistency, uniform_laplacian
from geodream_lib.mesh.report import MeshReport, format_mesh_report, mesh_report
from geodream_lib.mesh.shade import render_normals, render_opacity, render_texture, render_textured_mesh
from geodream_lib.mesh.tetrahedra import tetrahedral_grid
from geodream_lib.mesh.textured_mesh import TexturedMesh

__all__ = [
    "DMTet",
    "FlexiCubes",
    "MeshReport",
    "Raster",
    "TexturedMesh",
    "antialias",
    "bake_texture",
    "decimate",
    "flexicubes",
    "format_mesh_report",
    "interpolate",
    "marching_tetrahedra",
    "mesh_report",
    "normal_consistency",
    "rasterize",
    "remove_floaters",
    "render_normals",
    "render_opacity",
    "render_texture",
    "render_textured_mesh",
    "seam_padding",
    "tetrahedral_grid",
    "uniform_laplacian",
    "unwrap",
]

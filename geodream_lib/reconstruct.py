"""Stage 2 alone, for any posed images: outlines, object, crops like those of the training, cost volume, fit, mesh."""

import logging
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from trimesh.visual.material import PBRMaterial

from geodream_lib.cameras import Cameras, project
from geodream_lib.data import data_folder
from geodream_lib.errors import InputError
from geodream_lib.fit import STEPS, fit_volume
from geodream_lib.mesh import rasterize
from geodream_lib.mesh.textured_mesh import TO_Y_UP
from geodream_lib.presets import Preset
from geodream_lib.storage import atomic_write
from geodream_lib.views import PosedViews, remove_background
from geodream_lib.volume import (
    OBJECT_RADIUS,
    CostVolume,
    build_cost_volume,
    crop_to_sphere,
    find_object,
    load_cost_volume_networks,
    move_to_cube,
    sphere_fill,
    spread_views,
    volume_mesh,
)

logger = logging.getLogger(__name__)

PRODUCTS = ("mesh.ply", "mesh.glb", "volume.safetensors")
FEWEST = 5  # views that the lab's networks have been trained with
IN_FRONT = 0.05  # of the cube: what is nearer than the mesh by this and less is the mesh


def reconstruct(folder: Path, out: Path, preset: Preset, fit_steps: int = STEPS) -> trimesh.Trimesh:
    """A mesh of the object in posed images, in the world of their cameras, with vertex colours.

    It is the cost volume's, after the volume was fit to the images (see `fit`).

    Writes `mesh.ply` (in that world), `mesh.glb` (y up) and `volume.safetensors` below `out`, all or none.

    Args:
        folder: images in the NeRF (Blender) layout, with alpha or on a plain background; any scale and place, z up.
        out: a new folder, an empty one, or one with an earlier reconstruction, which is replaced.
        fit_steps: 0 leaves the volume as the networks predict it: better for views that do not agree.

    Raises:
        InputError: the views cannot be read or do not show one object from several sides, or `out` holds other files.
    """
    views = PosedViews.load(folder)
    _prepare(out)
    if len(views) < FEWEST:
        logger.warning("only %d views: the networks know %d and more, expect a rough shape", len(views), FEWEST)
    alpha = outlines(views)
    center, radius = find_object(alpha, views.cameras)
    # Outlines seen from above leave open where a broad object ends below; the first mesh knows, and centres the second.
    mesh, _ = reconstruct_object(views, alpha, center, radius, preset)
    center = torch.from_numpy(mesh.bounds.mean(axis=0)).float()
    radius = float(np.linalg.norm(mesh.vertices - mesh.bounds.mean(axis=0), axis=1).max())
    mesh, volume = reconstruct_object(views, alpha, center, radius, preset, fit_steps)
    _write(out, mesh, volume)
    return mesh


def outlines(views: PosedViews) -> Float[Tensor, "n h w"]:
    """Alpha of every view, by its plain background where the images have none.

    Raises:
        InputError: a view shows nothing, or its background is not plain; the message names the view.
    """
    if views.alpha is not None and (views.alpha < 0.5).any():
        for name, view in zip(views.names, views.alpha, strict=True):
            if (view <= 0.5).all():
                raise InputError(f"view {name} is transparent everywhere; remove it from the transforms file")
        return views.alpha
    alpha = []
    for name, image in zip(views.names, views.images, strict=True):
        try:
            alpha.append(remove_background(image))
        except InputError as error:
            raise InputError(f"view {name}: {error}") from error
    return torch.stack(alpha)


def reconstruct_object(
    views: PosedViews,
    alpha: Float[Tensor, "n h w"],
    center: Float[Tensor, " 3"],
    radius: float,
    preset: Preset,
    fit_steps: int = 0,
) -> tuple[trimesh.Trimesh, CostVolume]:
    """Mesh and cost volume of what is within `radius` of `center`, from well spread views cut to it.

    Raises:
        InputError: a camera is inside the object, the networks' file cannot be read, or they find no surface.
    """
    logger.info("object of radius %.3g at (%.3g, %.3g, %.3g)", radius, *center.tolist())
    chosen = choose_views(alpha, views.cameras, center, preset.views.count)
    logger.info("views: %s", ", ".join(views.names[index] for index in chosen))
    alpha, cameras = alpha[chosen, ..., None], views.cameras[chosen]
    images = torch.where(alpha > 0, views.images[chosen], 1.0)
    fill = sphere_fill(OBJECT_RADIUS, preset.views.radius, preset.views.fov_y)
    sphere = {"center": center, "radius": radius, "size": preset.views.size, "fill": fill}
    alpha, _ = crop_to_sphere(alpha, cameras, **sphere, background=0.0)
    images, cameras = crop_to_sphere(images, cameras, **sphere, background=1.0)
    networks = load_cost_volume_networks(data_folder() / preset.cost_volume)
    in_cube, to_world = move_to_cube(cameras, center, radius)
    volume = build_cost_volume(images, in_cube, networks, preset.volume.resolution, to_world)
    if fit_steps > 0:
        volume = fit_volume(volume, networks, images, alpha, in_cube, preset.field, fit_steps)
    mesh = volume_mesh(volume, networks.decoder, preset.volume.mesh_resolution)
    mesh_in_cube = mesh.copy().apply_transform(np.linalg.inv(to_world.double().numpy()))
    mesh.visual.vertex_colors = vertex_colors(mesh_in_cube, images, alpha, in_cube)
    return mesh, volume


def choose_views(alpha: Float[Tensor, "n h w"], cameras: Cameras, center: Float[Tensor, " 3"], count: int) -> list[int]:
    """At most `count` well spread views, of those that show the whole object where there are enough."""
    border = torch.cat([alpha[:, [0, -1]].flatten(1), alpha[:, :, [0, -1]].flatten(1)], dim=1)
    whole = (border.amax(dim=1) < 0.5).nonzero()[:, 0].tolist()
    candidates = whole if len(whole) >= FEWEST else list(range(len(cameras)))
    return [candidates[index] for index in spread_views(cameras.positions[candidates], center, count)]


def vertex_colors(
    mesh: trimesh.Trimesh, images: Float[Tensor, "n h w 3"], alpha: Float[Tensor, "n h w 1"], cameras: Cameras
) -> np.ndarray:
    """Colour of every vertex, 8 bits: the mean over the views that see it, mostly of those it faces.

    A vertex that none sees takes the mean of those it faces, or else of all.

    Args:
        mesh: in the frame of the cube, as the cameras.
    """
    vertices, normals, faces = (
        torch.from_numpy(np.array(values)) for values in (mesh.vertices, mesh.vertex_normals, mesh.faces)
    )
    vertices, normals = vertices.float(), normals.float()
    pixels, depth = project(cameras, vertices)
    nearest = rasterize(cameras, vertices, faces).depth[..., None]
    layers = torch.cat([images, alpha, nearest], dim=-1).permute(0, 3, 1, 2)
    grid = 2 * pixels / pixels.new_tensor([cameras.width, cameras.height]) - 1
    looked_up = F.grid_sample(layers, grid[:, None], padding_mode="border", align_corners=False)
    color, coverage, nearest = looked_up[:, :, 0].transpose(1, 2).split([3, 1, 1], dim=-1)
    facing = (F.normalize(cameras.positions[:, None] - vertices, dim=-1) * normals).sum(dim=-1).clamp(min=0)
    in_front = (depth < nearest[..., 0] + IN_FRONT).float()
    # Views that do not see the vertex count where no view sees it, those it does not face where it faces none.
    weight = (facing * coverage[..., 0]).square() * (in_front + 1e-3) + 1e-8
    weight = weight[..., None]
    return ((weight * color).sum(dim=0) / weight.sum(dim=0) * 255).round().byte().numpy()


def _prepare(out: Path) -> None:
    """Make the folder; it may hold an earlier reconstruction, and names with a dot (what a killed run leaves)."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        others = sorted(path.name for path in out.iterdir() if path.name not in PRODUCTS and path.name[0] != ".")
    except OSError as error:
        raise InputError(f"cannot use the folder {out}: {error}; choose another") from error
    if others:
        raise InputError(f"{out} holds other files ({others[0]}); choose a new folder, an empty one, or delete it")


def _write(out: Path, mesh: trimesh.Trimesh, volume: CostVolume) -> None:
    """All products, each under its name only when all are whole."""
    with (
        atomic_write(out / PRODUCTS[0]) as ply,
        atomic_write(out / PRODUCTS[1]) as glb,
        atomic_write(out / PRODUCTS[2]) as cost_volume,
    ):
        ply.write_bytes(mesh.export(file_type="ply"))
        glb.write_bytes(_for_viewers(mesh).export(file_type="glb", include_normals=True))
        volume.save(cost_volume)


def _for_viewers(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh y up, with what the glTF 2.0 specification (sections 3.4, 3.7.2, 3.9) says of colours and materials.

    Colours of vertices are linear, not sRGB; and without a material that says otherwise, a surface is metal.
    """
    colors = mesh.visual.vertex_colors[:, :3] / 255
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    opaque = np.ones((len(linear), 1))
    visual = trimesh.visual.TextureVisuals(material=PBRMaterial(metallicFactor=0.0, roughnessFactor=1.0))
    visual.vertex_attributes["color"] = np.round(np.concatenate([linear, opaque], axis=1) * 255).astype(np.uint8)
    return trimesh.Trimesh(
        mesh.vertices[:, TO_Y_UP],
        mesh.faces,
        vertex_normals=mesh.vertex_normals[:, TO_Y_UP],
        visual=visual,
        process=False,
    )

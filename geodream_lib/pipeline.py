"""Algorithm 1 of the paper, stage by stage; every arrow between stages is a file of the run folder."""

import logging
import re
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodream_lib import show
from geodream_lib.cameras import orbit
from geodream_lib.errors import InputError
from geodream_lib.field import (
    HashEncoding,
    NeuSField,
    TextureDecoder,
    normal_colors,
    occupancy_grid,
    render,
    solid_background,
)
from geodream_lib.guidance import (
    SDSGuidance,
    ViewPrompts,
    VSDGuidance,
    add_camera_lora,
    encode_prompts,
    load_denoiser,
    load_diffusion,
)
from geodream_lib.imagine import front_view, imagine_sides, predict_sources
from geodream_lib.mesh import (
    TexturedMesh,
    bake_texture,
    remove_floaters,
    render_textured_mesh,
    seam_padding,
    unwrap,
)
from geodream_lib.presets import Guidance, Refine, Volume
from geodream_lib.processes import current_processes
from geodream_lib.refine import Refinement
from geodream_lib.run import STAGES, Run
from geodream_lib.scenes import SURFACES, FieldScene, GeometryScene, Particles, TextureScene
from geodream_lib.storage import atomic_write, load_into, load_tensors, save_tensors
from geodream_lib.views import (
    CoupledPrior,
    PosedViews,
    RelativePose,
    Zero123,
    couple_prior,
    pose_cameras,
    read_image,
    write_image,
)
from geodream_lib.views.sources import viewpoints
from geodream_lib.volume import (
    CostVolume,
    CostVolumeNetworks,
    ball_volume,
    build_cost_volume,
    load_cost_volume_networks,
    normalize_cameras,
    resize_volume,
    volume_mesh,
)
from geodream_lib.weights.folder import network_path

logger = logging.getLogger(__name__)

Progress = Callable[[Refinement], None]


def generate(run: Run, progress: Progress | None = None) -> TexturedMesh:
    """A prompt goes in, a textured mesh comes out: all stages that are not done yet, then the pictures."""
    for stage in STAGES:
        run_stage(run, stage, progress)
    processes = current_processes()
    if processes.is_main and not all(picture.exists() for picture in run.pictures):
        draw_pictures(run)
    processes.wait()
    return TexturedMesh.load_glb(run.mesh)


def run_stage(run: Run, stage: str, progress: Progress | None = None) -> bool:
    """One stage, if it is not done; what later stages made from an earlier version of it is removed.

    Returns whether there was something to do.

    Of several processes (see `processes`) all optimise, and the main one alone does the rest and writes.

    Raises:
        InputError: an earlier stage is not done.
    """
    processes = current_processes()
    if not processes.any(not run.is_done(stage)):
        logger.info("%s is done", stage)
        return False
    missing = [s for s in STAGES[: STAGES.index(stage)] if not run.is_done(s)]
    if missing:
        raise InputError(f"{run.folder} has no {missing[0]} yet; run: geodream {missing[0]} {run.folder}")
    run.check_ready()
    processes.wait()  # all have looked before the main one writes
    if processes.is_main:
        run.forget_after(stage)
    processes.wait()
    if stage == "views" and processes.is_main:
        predict_views(run)
    elif stage == "volume" and processes.is_main:
        reconstruct_volume(run)
    elif stage == "refine":
        refine_field(run, progress)
    elif stage == "mesh":
        fine_tune_mesh(run, progress)
    processes.wait()
    return True


def predict_views(run: Run) -> PosedViews:
    """Algorithm 1, line 3 without f_2D: I_p = f_mv(c, R_i, T_i), the reference views and the source views around them.

    A prompt's references are one front view by text-to-image or four sides by MVDream, as the preset says; a given
    image is one by itself.
    """
    settings, generator = run.preset.views, run.generator("views")
    sides = run.image is None and settings.reference == "mvdream"
    references = imagine_sides(run, generator) if sides else {0.0: front_view(run, generator)}
    elevation = settings.declared_elevation if sides else settings.reference_elevation
    poses = viewpoints(settings, sides, generator)
    views = PosedViews(
        images=predict_sources(run, references, poses, elevation, generator),
        alpha=None,
        cameras=pose_cameras(poses, elevation, settings.radius, settings.fov_y, settings.size),
        names=tuple(view_name(index, pose) for index, pose in enumerate(poses)),
    )
    write_image(run.folder / "reference.png", torch.cat(list(references.values()), dim=1))
    views.save(run.views)
    return views


def view_name(index: int, pose: RelativePose) -> str:
    """File name of a source view: its number and the sentence of appendix F that put it there."""
    words = pose.rule.replace("++", "plus")
    return f"{index:02d}_{re.sub(r'[^A-Za-z0-9.]+', '_', words)}"


def reconstruct_volume(run: Run) -> CostVolume:
    """Algorithm 1, lines 3 and 4: V_p = f_3D(Var{P(f_2D(I_p), h)}), the native 3D prior, and its mesh.

    For comparison the preset can ask for a ball instead, which knows nothing of the views.
    """
    views, settings = PosedViews.load(run.views), run.preset.volume
    networks = load_cost_volume_networks(network_path(run.preset.cost_volume)).to(run.device)
    if settings.prior:
        volume = volume_of_views(views, networks, settings)
    else:
        volume = ball_volume(networks.decoder, settings.resolution)
    mesh = volume_mesh(volume, networks.decoder, settings.mesh_resolution)
    with atomic_write(run.folder / "volume.ply") as temporary:
        mesh.export(temporary)
    if settings.refined_resolution != settings.resolution:
        volume = resize_volume(volume, settings.refined_resolution)
    volume.save(run.volume)
    return volume


def volume_of_views(views: PosedViews, networks: CostVolumeNetworks, settings: Volume) -> CostVolume:
    """V_p of eq. 6 in the frame that the settings say, on the device of the networks."""
    device, cameras, to_world = networks.inverse_deviation.device, views.cameras, torch.eye(4)
    if settings.frame == "frusta":
        cameras, to_world = normalize_cameras(cameras[0], cameras, settings.near, settings.far)
    return build_cost_volume(
        views.images.to(device),
        cameras.to(device),
        networks,
        settings.resolution,
        to_world,
        settings.pixel_center,
        settings.statistics,
    )


def start_field(run: Run, volume: CostVolume, particle: int = 0) -> NeuSField:
    """theta_1 from the cost volume, fresh theta_2 and theta_3 (Algorithm 1, lines 1 and 5); new ones per particle."""
    networks, settings = load_cost_volume_networks(network_path(run.preset.cost_volume)), run.preset.field
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.generator("field").initial_seed() + particle)
        encoding = HashEncoding(settings.levels, 2, settings.log2_table, settings.base_resolution, settings.growth)
        field = NeuSField(
            volume.volume,
            networks.decoder,
            networks.inverse_deviation.item() * settings.sharpening,
            encoding,
            color_from_position=settings.color_from_position,
            to_world=volume.to_world,
        )
    return field.to(run.device)


def make_guidance(run: Run, settings: Guidance, generator: torch.Generator) -> SDSGuidance | VSDGuidance:
    """The frozen 2D prior with view-dependent prompts and, for VSD, a second network to follow the renders.

    The second starts as a copy of the prior, or, as in the paper (appendix K), of a network that predicts velocity.
    """
    diffusion = load_diffusion(network_path(run.preset.text_to_image), run.device, run.dtype)
    angles = {"front": settings.front, "back": settings.back, "overhead": settings.overhead}
    words = ViewPrompts(run.prompt, **angles, view_words=settings.view_words)
    prompts = encode_prompts(diffusion, words)
    if settings.kind == "sds":
        return SDSGuidance(diffusion, prompts, scale=settings.scale, perp_neg=settings.perp_neg)
    base = diffusion.denoiser
    if run.preset.lora:
        base = load_denoiser(network_path(run.preset.lora), run.device, run.dtype)
    lora = add_camera_lora(base, generator, settings.lora_rank, settings.silent_camera)
    return VSDGuidance(
        diffusion,
        lora,
        prompts,
        scale=settings.scale,
        lora_timesteps=settings.lora_timesteps,
        base=base,
        perp_neg=settings.perp_neg,
    )


def couple(run: Run, settings: Refine) -> CoupledPrior | None:
    """The 3D prior as a loss, where the settings ask for it (the paper's method does not)."""
    if not any(value for _, value in settings.prior_weight.knots):
        return None
    reference = read_image(run.folder / "reference.png")
    front = reference[:, : len(reference)]  # MVDream's four sides lie side by side
    zero123 = Zero123.load(network_path(run.preset.zero123), run.device, run.dtype)
    return couple_prior(zero123, front, run.preset.views.reference_elevation)


def refine_field(run: Run, progress: Progress | None = None) -> NeuSField:
    """Algorithm 1, lines 6 to 15: V, h_Omega and f'_t under the 2D prior, until fields are written to `neus/`."""
    volume, settings, generator = CostVolume.load(run.volume), run.preset.refine, run.generator("refine")
    fields = [start_field(run, volume, particle) for particle in range(run.preset.field.particles)]
    scenes = [FieldScene(field, run.preset.field) for field in fields]
    scene = scenes[0] if len(scenes) == 1 else Particles(scenes)
    guidance = make_guidance(run, settings.guidance, generator)
    processes = current_processes()
    refinement = Refinement(scene, guidance, settings, generator, couple(run, settings), processes)
    checkpoint = run.field.with_name("checkpoint.safetensors")
    refinement.run_saved(checkpoint, run.log, "refine", progress)
    if processes.is_main:
        for particle, field in enumerate(fields[1:], start=1):
            field.save(run.field.with_name(f"particle_{particle}.safetensors"))
        fields[0].save(run.field)
        checkpoint.unlink(missing_ok=True)
    return fields[0]


def fine_tune_mesh(run: Run, progress: Progress | None = None) -> TexturedMesh | None:
    """Algorithm 1, lines 16 to 20: the field as a DMTet (or FlexiCubes), refined on its normals, then its texture.

    Of several processes the main one alone has the mesh in the end.
    """
    processes = current_processes()
    field = NeuSField.load(run.field).to(run.device)
    if not run.geometry.exists():
        if processes.is_main:
            run.texture.unlink(missing_ok=True)  # of another shape
        refine_geometry(run, field, progress)
    vertices, faces = final_surface(run)
    scene = texture_scene(run, field, vertices, faces)
    if run.texture.exists():
        load_into(scene, load_tensors(run.texture)[0], str(run.texture))
    else:
        settings, generator = run.preset.mesh.texture, run.generator("texture")
        guidance = make_guidance(run, settings.guidance, generator)
        refinement = Refinement(scene, guidance, settings, generator, processes=processes)
        checkpoint = run.texture.with_name("texture-checkpoint.safetensors")
        refinement.run_saved(checkpoint, run.log, "texture", progress)
        if processes.is_main:
            save_tensors(run.texture, scene.state_dict())
            checkpoint.unlink(missing_ok=True)
        processes.wait()
    if not processes.is_main:
        return None
    mesh = bake(scene, run.preset.mesh.atlas_size)
    mesh.save_obj(run.folder / "mesh" / "mesh.obj")
    mesh.save_glb(run.mesh)
    return mesh


def refine_geometry(run: Run, field: NeuSField, progress: Progress | None = None) -> None:
    """theta_4: signed distances and displacements of a grid, from the refined field."""
    processes = current_processes()
    surface = SURFACES[run.preset.mesh.surface].from_sdf(field.sdf, run.preset.mesh.grid_resolution, run.device)
    settings, generator = run.preset.mesh.geometry, run.generator("geometry")
    guidance = make_guidance(run, settings.guidance, generator)
    refinement = Refinement(GeometryScene(surface), guidance, settings, generator, processes=processes)
    checkpoint = run.geometry.with_name("geometry-checkpoint.safetensors")
    refinement.run_saved(checkpoint, run.log, "geometry", progress)
    if processes.is_main:
        surface.save(run.geometry)
        checkpoint.unlink(missing_ok=True)
    processes.wait()


def final_surface(run: Run) -> tuple[Float[Tensor, "v 3"], Int[Tensor, "f 3"]]:
    """The refined geometry of a run without its floaters: the shape that is coloured."""
    surface = SURFACES[run.preset.mesh.surface].load(run.geometry).to(run.device).eval()
    return remove_floaters(*(x.detach() for x in surface.mesh()))


def texture_scene(run: Run, field: NeuSField, vertices: Float[Tensor, "v 3"], faces: Tensor) -> TextureScene:
    """The final mesh with a texture field: the field's own (the paper extracts a *textured* mesh), or a new one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.generator("texture field").initial_seed())
        encoding, texture = HashEncoding(**field.encoding.config), TextureDecoder(**field.texture.config)
    if run.preset.mesh.inherit_texture:
        encoding.load_state_dict(field.encoding.state_dict())
        texture.load_state_dict(field.texture.state_dict())
    scene = TextureScene(vertices, faces, encoding, texture, field.to_world, run.preset.field.darkest)
    return scene.to(vertices.device)


def bake(scene: TextureScene, size: int) -> TexturedMesh:
    """UV atlas and texture of the final mesh; `size`: side of the square texture in texels."""
    vmap, faces, uvs = unwrap(scene.vertices, scene.faces, size, seam_padding(size))
    texture = bake_texture(scene.vertices[vmap], faces, uvs, scene.color, size)
    return TexturedMesh(scene.vertices[vmap], faces, uvs, texture)


@torch.no_grad()
def draw_pictures(run: Run) -> None:
    """`contact_sheet.png` (reference, source views, volume, field and mesh from eight sides) and the turntables."""
    settings = run.preset.views
    around = [45.0 * k for k in range(8)]
    cameras = orbit(around, 15.0, settings.radius, settings.fov_y, 192)
    mesh, field = TexturedMesh.load_glb(run.mesh), NeuSField.load(run.field).to(run.device)
    white = torch.ones(len(cameras), 3)
    seen = render(
        field,
        cameras.to(run.device),
        samples_per_ray=160,
        background=solid_background(white),
        occupancy=occupancy_grid(field),
    )
    views = PosedViews.load(run.views)
    rows = {
        "reference and source views": views.images[:8],
        "volume": show.render_plain(cameras, run.folder / "volume.ply"),
        "field": seen.rgb.cpu(),
        "field normals": normal_colors(seen.normal, seen.opacity).cpu(),
        "mesh": render_textured_mesh(cameras, mesh, white),
    }
    show.save_image(run.folder / "contact_sheet.png", show.contact_sheet(rows, run.prompt))
    circle = orbit([3.0 * k for k in range(120)], 15.0, settings.radius, settings.fov_y, 192)
    show.save_turntable(run.folder, render_textured_mesh(circle, mesh, torch.ones(120, 3)))

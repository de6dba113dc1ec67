"""One run measured: its mesh from all around, every score that can be had, and why the others cannot."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import trimesh
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from trimesh.visual import TextureVisuals
from trimesh.visual.material import SimpleMaterial

from geodream_lib.cameras import Cameras, orbit
from geodream_lib.errors import InputError
from geodream_lib.field import NeuSField, occupancy_grid, render, solid_background
from geodream_lib.mesh import TexturedMesh, render_opacity, render_textured_mesh
from geodream_lib.mesh.geometry import weld
from geodream_lib.metrics.evaluators import Evaluators
from geodream_lib.metrics.fid import frechet_distance
from geodream_lib.metrics.janus import Janus, janus
from geodream_lib.metrics.point_text import sample_surface
from geodream_lib.metrics.retrieval import r_score
from geodream_lib.metrics.saturation import half_transparent, saturation
from geodream_lib.metrics.scores import Scores
from geodream_lib.metrics.truth import Truth, compare_with_truth
from geodream_lib.run import Run

# Section 3.1: "circling around the object at a default elevation and camera distance", those of threestudio's tests,
# "resulting in 120 images". The distance is the preset's own, since its world has a scale of its own.
VIEWS = 120
ELEVATION = 15.0
CLOUD = 10_000  # points of Uni3D_score
SHOWN = 8  # of the views, those that a page shows and the field is rendered from


@dataclass(frozen=True)
class Evaluation:
    """Scores, and what a page and the FID over several runs need: some views, features of renders and of references."""

    scores: Scores
    shown: Float[Tensor, "s h w 3"]
    features: Float[Tensor, "n d"] | None
    reference: Float[Tensor, "m d"] | None


def ring(run: Run, size: int) -> Cameras:
    """The cameras of an evaluation: a closed circle that begins at the front."""
    azimuth = [360 / VIEWS * k for k in range(VIEWS)]
    return orbit(azimuth, ELEVATION, run.preset.views.radius, run.preset.views.fov_y, size)


def evaluate_run(
    run: Run,
    size: int,
    evaluators: Evaluators,
    truth: Truth | None = None,
    reference: Float[Tensor, "m d"] | None = None,
) -> Evaluation:
    """Measure a finished run.

    Args:
        size: of the renders, pixels.
        evaluators: their prompts hold the run's own.
        truth: None if the prompt's object is not known.
        reference: features of pictures for the FID; those of the truth's if not given.

    Raises:
        InputError: the run has no mesh yet, or one that cannot be read.
    """
    if not run.mesh.exists():
        raise InputError(f"{run.folder} has no mesh yet; go on with: geodream mesh {run.folder}")
    mesh, cameras = TexturedMesh.load_glb(run.mesh), ring(run, size)
    images, mask = render_ring(mesh, cameras)
    missing: dict[str, str] = {}

    def attempt(name: str, measure: Callable, network: str = "") -> object:
        """What `measure` returns, or None and a line in `missing`; `network`: the evaluator that it needs."""
        try:
            if network in evaluators.missing:
                raise InputError(evaluators.missing[network])
            return measure()
        except InputError as error:
            missing[name] = str(error)
            return None

    own = evaluators.prompts.index(run.prompt)
    features, fid = attempt("fid", lambda: evaluators.image_text.features(images).cpu(), "image_text"), None
    if features is not None and reference is None:
        reference = attempt("fid", lambda: evaluators.image_text.features(_known(truth).images).cpu())
    if features is not None and reference is not None:
        fid = attempt("fid", lambda: frechet_distance(features, reference))
    shown = slice(0, VIEWS, VIEWS // SHOWN)
    symmetric = None if truth is None else truth.symmetric
    scores = Scores(
        run=str(run.folder),
        prompt=run.prompt,
        preset=run.preset.name,
        seed=run.seed,
        views=len(images),
        prompts=len(evaluators.prompts),
        clip_r_score=attempt(
            "clip_r_score", lambda: r_score(normalize(features, dim=-1), evaluators.image_texts, own), "image_text"
        ),
        uni3d_score=attempt("uni3d_score", lambda: _uni3d_score(evaluators, mesh, own), "point_text"),
        fid=fid,
        reference_images=0 if fid is None else len(reference),
        symmetric=symmetric,
        janus=None if symmetric else attempt("janus", lambda: _janus(evaluators, images), "viewpoint"),
        saturation=attempt("saturation", lambda: saturation(images, mask)),
        half_transparent=attempt("half_transparent", lambda: _half_transparent(run, cameras[shown])),
        shape=attempt("shape", lambda: compare_with_truth(as_trimesh(mesh), _known(truth))),
        missing=missing,
    )
    return Evaluation(scores, images[shown], features, reference)


@torch.no_grad()
def render_ring(mesh: TexturedMesh, cameras: Cameras) -> tuple[Float[Tensor, "n h w 3"], Bool[Tensor, "n h w"]]:
    """The mesh on white, and the pixels that it fills."""
    images = render_textured_mesh(cameras, mesh, torch.ones(len(cameras), 3))
    vertices, welded = weld(mesh.vertices)
    return images, render_opacity(cameras, vertices, welded[mesh.faces])[..., 0] > 0.999


def as_trimesh(mesh: TexturedMesh) -> trimesh.Trimesh:
    """The mesh in the world frame, with its texture."""
    material = SimpleMaterial(image=Image.fromarray((mesh.texture * 255).round().byte().numpy()))
    visual = TextureVisuals(mesh.uvs.numpy(), material=material)
    return trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), visual=visual, process=False)


def _known(truth: Truth | None) -> Truth:
    if truth is None:
        raise InputError("the prompt names no object of the lab, so what it truly looks like is not known")
    return truth


def _uni3d_score(evaluators: Evaluators, mesh: TexturedMesh, own: int) -> float:
    xyz, rgb = sample_surface(as_trimesh(mesh), CLOUD, torch.Generator().manual_seed(0))
    return r_score(evaluators.point_text.embed_points(xyz[None], rgb[None]).cpu(), evaluators.point_texts, own)


def _janus(evaluators: Evaluators, images: Float[Tensor, "n h w 3"]) -> Janus:
    azimuth = torch.arange(len(images)) * (360 / len(images))
    return janus(evaluators.viewpoint.frontness(images).cpu(), azimuth)


@torch.no_grad()
def _half_transparent(run: Run, cameras: Cameras) -> float:
    """How much of the refined field is neither empty nor solid.

    Raises:
        InputError: the run has no field, or one that cannot be read.
    """
    if not run.field.exists():
        raise InputError(f"{run.folder} has no refined field any more ({run.field.name})")
    field, settings = NeuSField.load(run.field), run.preset.field
    rendered = render(
        field,
        cameras,
        samples_per_ray=settings.samples_per_ray,
        background=solid_background(torch.ones(len(cameras), 3)),
        occupancy=occupancy_grid(field),
        cos_anneal_ratio=settings.cos_anneal_ratio,
    )
    return half_transparent(rendered.opacity)

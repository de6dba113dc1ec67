"""`python -m geodream_lib.lab.compare guidance|networks|schedules|janus`: stage 3 with other settings, same views.

What the paper says of VSD against SDS (section 2.2), of its schedules against constant rates (section 3.2, figure 6)
and of its prior against the Janus problem (section 1) is said of pictures, and of a LoRA on a network that predicts
velocity (appendix K) nothing but that it is one. Here it is measured: every way refines the same volume of a prompt (or
a ball in its place) with the same seeds, so a difference between two ways is a difference between pairs. Scores and a
picture of all ways are left behind; called again, the command goes on where it stopped.
"""

import argparse
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from geodream_lib import show
from geodream_lib.cameras import Cameras, orbit
from geodream_lib.field import NeuSField, Rendered, occupancy_grid, render, solid_background
from geodream_lib.lab.truth import truth_of
from geodream_lib.metrics.evaluators import Evaluators, load_evaluators
from geodream_lib.metrics.janus import janus
from geodream_lib.metrics.retrieval import r_score
from geodream_lib.metrics.saturation import half_transparent, saturation
from geodream_lib.metrics.truth import Truth, compare_with_truth
from geodream_lib.pipeline import run_stage, start_field
from geodream_lib.presets import load_preset
from geodream_lib.run import Run, create_run, open_run, slug
from geodream_lib.scenes import FieldScene
from geodream_lib.storage import read_json, write_json
from geodream_lib.volume import CostVolume, volume_mesh
from geodream_lib.yardstick import known_prompts, read_prompts

logger = logging.getLogger(__name__)

PROMPTS = (
    "a red mushroom on a log",
    "a brown corgi with a blue collar",
    "a red rocket with blue fins",
    "a blue robot with yellow hands",
    "a blue teapot with a yellow lid",
    "a white house with a red roof",
)
FACES = (
    "a brown owl with a white belly",
    "a black penguin with a white belly",
    "a brown corgi with a blue collar",
    "a blue robot with yellow hands",
)
VIEWS, ELEVATION = 24, 15.0
SIDES, TILE = 4, 96  # of the picture
START = "start"
Scores = dict[str, float]
Settings = dict[str, str | float | bool]
# A ball in place of the cost volume, at a rate with which it could still become something.
WITHOUT_PRIOR: Settings = {"volume.prior": False, "refine.rates.volume": 1e-3}
WITHOUT_WORDS: Settings = {"refine.guidance.view_words": False}


def ways(question: str) -> dict[str, Settings]:
    """The ways to refine that a question compares, by their overrides of the preset; the first is the paper's."""
    if question == "guidance":
        # SDS counts its scale from the conditional prediction: one less than VSD for the same direction.
        scale = load_preset("lab").refine.guidance.scale - 1
        return {"vsd": {}, "sds": {"refine.guidance.kind": "sds", "refine.guidance.scale": scale}}
    if question == "networks":
        # What is frozen predicts noise, and its sister under the LoRA velocity; or one network plays both roles.
        return {"pair": {"text_to_image": "lab/text_to_image_base", "lora": "lab/text_to_image"}, "copy": {}}
    if question == "janus":
        return {
            "prior": {},
            "no prior": WITHOUT_PRIOR,
            "prior, no words": WITHOUT_WORDS,
            "no prior, no words": WITHOUT_PRIOR | WITHOUT_WORDS,
        }
    schedules = load_preset("lab").refine.schedules
    names = [f"refine.schedules.{name}" for name in schedules]
    average = [schedule.values(range(schedule.total_steps)).mean() for schedule in schedules.values()]
    return {
        "paper": {},
        "constant": dict.fromkeys(names, 1.0),
        "constant average": {name: round(float(mean), 3) for name, mean in zip(names, average, strict=True)},
    }


def start(prompt: str, folder: Path, overrides: Settings) -> Run:
    """A run with its views and its volume, which all ways begin with."""
    run = create_run(prompt, folder, overrides=overrides)
    for stage in ("views", "volume"):
        run_stage(run, stage)
    return run


def branch(begun: Run, folder: Path, seed: int, changes: Settings) -> Run:
    """A run of its own that goes on from another one's volume, or from its views where it wants a volume of its own."""
    run = create_run(begun.prompt, folder, seed=seed, overrides=changes)
    shared = ("views", "volume") if run.preset.volume == begun.preset.volume else ("views",)
    for product in (product for stage in shared for product in begun.products(stage)):
        copy = run.folder / product.relative_to(begun.folder)
        if product.is_dir():
            shutil.copytree(product, copy, dirs_exist_ok=True)
        elif not copy.exists():
            shutil.copy(product, copy)
    for stage in ("volume", "refine"):
        run_stage(run, stage)
    return run


def ring(run: Run, count: int = VIEWS) -> Cameras:
    """Cameras all around, from the front on."""
    azimuth, views = [360 / count * k for k in range(count)], run.preset.views
    return orbit(azimuth, ELEVATION, views.radius, views.fov_y, views.size)


def field_of(run: Run) -> NeuSField:
    """What a run has refined, or what it would start with."""
    return NeuSField.load(run.field) if run.field.exists() else start_field(run, CostVolume.load(run.volume))


@torch.no_grad()
def seen(run: Run, field: NeuSField) -> Rendered:
    """A field on white from all around."""
    settings = run.preset.field
    return render(
        field,
        ring(run),
        samples_per_ray=settings.samples_per_ray,
        background=solid_background(torch.ones(3)),
        occupancy=occupancy_grid(field, resolution=settings.occupancy_resolution),
        cos_anneal_ratio=settings.cos_anneal_ratio,
    )


def roughness(normal: Float[Tensor, "n h w 3"], opacity: Float[Tensor, "n h w"]) -> float:
    """Mean angle in degrees between the normals of neighbouring pixels, both of them solid."""
    solid, angles = opacity > 0.9, []
    for dim in (1, 2):
        length = normal.shape[dim] - 1
        a, b = normal.narrow(dim, 0, length), normal.narrow(dim, 1, length)
        both = solid.narrow(dim, 0, length) & solid.narrow(dim, 1, length)
        angles.append(torch.rad2deg((a * b).sum(-1).clamp(-1, 1).acos())[both])
    return torch.cat(angles).mean().item()


def score(run: Run, field: NeuSField, evaluators: Evaluators, truth: Truth | None) -> Scores:
    """A field by the yardstick and, where the prompt's object is known, by the truth.

    retrieval: share of the views taken for their own prompt; cosine: of views and prompt. saturation: mean of the
    object's pixels; fog: share of half transparent ones. back_fronts: share of back views that look like a front.
    roughness: see there. chamfer, f_score, normal_consistency, iou: of the surface.
    """
    picture, own = seen(run, field), evaluators.prompts.index(run.prompt)
    embedded = torch.nn.functional.normalize(evaluators.image_text.features(picture.rgb), dim=-1)
    azimuth = torch.arange(VIEWS) * (360 / VIEWS)
    scores = {
        "retrieval": r_score(embedded, evaluators.image_texts, own),
        "cosine": (embedded @ evaluators.image_texts[own]).mean().item(),
        "saturation": saturation(picture.rgb, picture.opacity > 0.9).mean,
        "fog": half_transparent(picture.opacity),
        "back_fronts": janus(evaluators.viewpoint.frontness(picture.rgb), azimuth).back_fronts,
        "roughness": roughness(picture.normal, picture.opacity),
    }
    if truth is not None:
        mask = CostVolume.load(run.volume).mask
        volume = CostVolume(field.volume.detach(), mask, field.to_world)
        shape = compare_with_truth(volume_mesh(volume, field.decoder, run.preset.volume.mesh_resolution), truth).scores
        scores |= {key: getattr(shape, key) for key in ("chamfer", "f_score", "normal_consistency", "iou")}
    return scores


def scored(run: Run, evaluators: Evaluators, truth: Truth | None) -> Scores:
    """`score` of a run's field, or of what it would start with where it has none yet; measured once."""
    path = run.folder / "compared.json"
    if not path.exists():
        write_json(path, score(run, field_of(run), evaluators, truth))
    return read_json(path)


@dataclass(frozen=True)
class Difference:
    """A way against another one, over all pairs of prompt and seed: mean, its standard error, share that is above."""

    mean: float
    error: float
    above: float


def difference(values: list[float], others: list[float]) -> Difference:
    """Of pairs; the standard error is that of their mean, as if all pairs were independent."""
    pairs = np.array(values) - np.array(others)
    error = pairs.std(ddof=1) / np.sqrt(len(pairs)) if len(pairs) > 1 else float("nan")
    return Difference(float(pairs.mean()), float(error), float((pairs > 0).mean()))


def format_comparison(scores: dict[str, list[Scores]]) -> str:
    """A line for every measure: the start's mean and every way's; then how the first differs from the start, and every
    other one from the first.

    Args:
        scores: by way, the start among them, in the same order of prompts and seeds.
    """
    names, lines = [name for name in scores if name != START], []
    known = [key for key in scores[START][0] if all(key in row for rows in scores.values() for row in rows)]
    for key in known:
        column = {name: [row[key] for row in rows] for name, rows in scores.items()}
        means = "  ".join(f"{name} {np.mean(column[name]):.4f}" for name in (START, *names))
        lines.append(f"{key:20s} {means}")
        for name, other in zip(names, (START, *len(names[1:]) * names[:1]), strict=True):
            one = difference(column[name], column[other])
            lines.append(
                f"{'':20s}   {name} - {other}: {one.mean:+.4f} +- {one.error:.4f}, above in {one.above:.0%} of pairs"
            )
    return "\n".join(lines)


def compare(
    question: str, prompts: list[str], seeds: int, out: Path, overrides: Settings | None = None
) -> dict[str, list[Scores]]:
    """Refine and score every way, prompt and seed below `out`; scores by way, with those of the start."""
    preset, overrides = load_preset("lab"), overrides or {}
    evaluators = load_evaluators(preset, known_prompts() + prompts, torch.device("cpu"))
    scores: dict[str, list[Scores]] = {START: []} | {name: [] for name in ways(question)}
    for prompt in prompts:
        folder = out / slug(prompt)
        begun = start(prompt, folder / START, overrides)
        truth = truth_of(prompt, ring(begun))

        for seed in range(seeds):
            scores[START].append(scored(begun, evaluators, truth))
            for name, changes in ways(question).items():
                run = branch(begun, folder / f"{slug(name)}-{seed}", seed, overrides | changes)
                scores[name].append(scored(run, evaluators, truth))
                logger.info("%s, %s, seed %d: %s", prompt, name, seed, scores[name][-1])
    return scores


@torch.no_grad()
def rows(question: str, prompt: str, out: Path) -> dict[str, Float[Tensor, "n h w 3"]]:
    """From four sides, the front first: what a prompt starts with and what every way's first seed made of it, in colour
    and then as normals."""
    pictures = {}
    for way, name in {START: START, **{way: f"{slug(way)}-0" for way in ways(question)}}.items():
        run = open_run(out / slug(prompt) / name)
        preview = FieldScene(field_of(run), run.preset.field).preview(ring(run, SIDES))
        pictures[way] = torch.cat(list(preview.values()))
    return pictures


def draw(question: str, prompts: list[str], out: Path) -> Image.Image:
    """The rows of all prompts, one prompt below the other."""
    sheets = [show.contact_sheet(rows(question, prompt, out), prompt, TILE) for prompt in prompts]
    picture = Image.new("RGB", (sheets[0].width, sum(sheet.height for sheet in sheets)))
    for i, sheet in enumerate(sheets):
        picture.paste(sheet, (0, sum(above.height for above in sheets[:i])))
    return picture


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m geodream_lib.lab.compare", description=__doc__)
    parser.add_argument("question", choices=("guidance", "networks", "schedules", "janus"))
    parser.add_argument(
        "--prompts", type=Path, metavar="FILE", help="one a line, or JSON (default: six, or four with a face)"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/compare"))
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="of all ways")
    arguments = parser.parse_args()
    show.quiet_libraries()
    default = FACES if arguments.question == "janus" else PROMPTS
    prompts = read_prompts(arguments.prompts) if arguments.prompts else list(default)
    overrides = dict(text.split("=", 1) for text in arguments.overrides)
    out = arguments.out / arguments.question
    scores = compare(arguments.question, prompts, arguments.seeds, out, overrides)
    write_json(out / "scores.json", scores)
    logger.info("%s", format_comparison(scores))
    show.save_image(out / "seen.png", draw(arguments.question, prompts, out))


if __name__ == "__main__":
    main()

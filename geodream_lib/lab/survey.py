"""The lab's main job on a list of prompts: every one from words to a mesh, measured, and all of them on one page."""

import logging
from dataclasses import fields, replace
from pathlib import Path

from geodream_lib.errors import InputError
from geodream_lib.metrics.report import write_page
from geodream_lib.pipeline import generate
from geodream_lib.presets import load_preset
from geodream_lib.run import create_run, slug
from geodream_lib.storage import write_json
from geodream_lib.yardstick import Measured, measure_runs

logger = logging.getLogger(__name__)

SHORT = 20  # a short survey takes this part of all steps


def report(prompts: list[str], out: Path, short: bool = False) -> Measured:
    """Run the lab's preset on every prompt, measure what was made, write `report.json` and `report.html` into `out`.

    The prompts that failed are among the skipped.
    """
    folders, failed = survey(prompts, out, short)
    measured = measure_runs(folders, load_preset("lab"))
    measured = replace(measured, skipped=failed | measured.skipped)
    write_json(out / "report.json", measured.as_json())
    write_page(
        out / "report.html",
        "GeoDream Lab report",
        measured.evaluations,
        measured.fid,
        measured.missing,
        measured.skipped,
    )
    return measured


def survey(prompts: list[str], out: Path, short: bool = False) -> tuple[list[Path], dict[str, str]]:
    """Run the lab's preset on every prompt; folders of the finished runs, and why the others are not, by prompt.

    Runs that are there are resumed or reused. A prompt that fails costs the others nothing.

    Args:
        out: `runs/` below it holds the runs, `runs_short/` the short ones.
        short: a twentieth of all optimisation and diffusion steps, which finishes nothing: to try the survey itself.
    """
    folders, failed = [], {}
    for number, prompt in enumerate(prompts, start=1):
        logger.info("prompt %d of %d: %s", number, len(prompts), prompt)
        folder = out / ("runs_short" if short else "runs") / slug(prompt)
        try:
            generate(create_run(prompt, folder, "lab", overrides=short_steps() if short else {}))
            folders.append(folder)
        except (InputError, FloatingPointError) as error:
            failed[prompt] = str(error)
            logger.warning("%s: %s", prompt, error)
    return folders, failed


def short_steps() -> dict[str, int]:
    """Overrides of the lab's preset by which every number of steps is a twentieth, at least 2."""
    preset = load_preset("lab")
    parts = {
        "views": preset.views,
        "refine": preset.refine,
        "mesh.geometry": preset.mesh.geometry,
        "mesh.texture": preset.mesh.texture,
    }
    names = ("steps", "reference_steps", "neighbour_steps", "mvdream_steps")
    return {
        f"{part}.{field.name}": max(2, getattr(settings, field.name) // SHORT)
        for part, settings in parts.items()
        for field in fields(settings)
        if field.name in names
    }

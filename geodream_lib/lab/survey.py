"""The lab's main job on a list of prompts: every one from words to a mesh, measured, and all of them on one page."""

from dataclasses import fields, replace
from pathlib import Path

from geodream_lib.metrics.report import write_page
from geodream_lib.presets import load_preset
from geodream_lib.storage import write_json
from geodream_lib.sweep import Recipe, sweep
from geodream_lib.yardstick import Measured, measure_runs

SHORT = 20  # a short report takes this part of all steps


def report(prompts: list[str], out: Path, short: bool = False) -> Measured:
    """Run the lab's preset on every prompt, measure what was made, write `report.json` and `report.html` into `out`.

    The prompts that failed are among the skipped; the next call tries them again.

    Args:
        out: `runs/` below it holds the runs, `runs_short/` the short ones.
        short: a twentieth of all optimisation and diffusion steps, which finishes nothing: to try the report itself.
    """
    recipe = Recipe(overrides=short_steps() if short else {})
    swept = sweep(prompts, out / ("runs_short" if short else "runs"), recipe)
    measured = measure_runs(swept.folders, load_preset("lab"))
    measured = replace(measured, skipped=swept.failed | measured.skipped)
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

"""Finished runs held against the yardstick: every run by itself, then all together as in the paper's table 2."""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from geodream_lib.data import data_folder
from geodream_lib.errors import InputError
from geodream_lib.lab.truth import truth_of
from geodream_lib.metrics.evaluate import Evaluation, evaluate_run, ring
from geodream_lib.metrics.evaluators import Evaluators, load_evaluators
from geodream_lib.metrics.fid import frechet_distance
from geodream_lib.metrics.table import means
from geodream_lib.presets import Preset
from geodream_lib.run import Run, open_run
from geodream_lib.storage import write_json

logger = logging.getLogger(__name__)

FORMAT = "geodream evaluation 1"
PROMPT_LISTS = ("lab_prompts.json", "composition_prompts.json")
PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Measured:
    """Evaluations in the order of the runs; skipped: the runs that could not be measured, and why.

    fid: of all renders together against all references together, as the paper's (one distance, not a mean of many).
    missing: evaluators that are not there, and why.
    """

    preset: str
    evaluations: list[Evaluation]
    skipped: dict[str, str]
    fid: float | None
    missing: dict[str, str]

    def as_json(self) -> dict:
        """What `geodream evaluate --out` writes."""
        scores = [evaluation.scores for evaluation in self.evaluations]
        return {
            "format": FORMAT,
            "preset": self.preset,
            "means": means(scores) | {"fid_of_all": self.fid},
            "runs": [asdict(score) for score in scores],
            "skipped": self.skipped,
            "missing": self.missing,
        }


def measure_runs(folders: list[Path], preset: Preset, reference: Path | None = None) -> Measured:
    """Evaluate runs with the evaluators of a preset; each run's scores go into its `evaluation.json`.

    A run that cannot be measured is skipped with one line and costs the others nothing.

    Args:
        preset: names the evaluators and the size of the renders; the runs may be of another.
        reference: folder of pictures for the FID, instead of exact renders of the lab.

    Raises:
        InputError: the reference folder holds no pictures.
    """
    pictures = None if reference is None else read_pictures(reference, preset.views.size)
    runs, skipped = _open(folders)
    device = torch.device(preset.device if torch.cuda.is_available() else "cpu")
    evaluators = load_evaluators(preset, known_prompts() + [run.prompt for run in runs], device) if runs else None
    features = None
    if pictures is not None and evaluators is not None and evaluators.image_text is not None:
        features = evaluators.image_text.features(pictures).cpu()
    evaluations = []
    for run in runs:
        try:
            evaluation = _measure(run, preset, evaluators, features)
            write_json(run.folder / "evaluation.json", {"format": FORMAT} | asdict(evaluation.scores))
            evaluations.append(evaluation)
            logger.info("measured %s", run.folder)
        except InputError as error:
            skipped[str(run.folder)] = str(error)
    missing = evaluators.missing if evaluators else {}
    return Measured(preset.name, evaluations, skipped, _fid_of_all(evaluations, reference), missing)


def known_prompts() -> list[str]:
    """The prompts that come with the repository, among which every run's own has to be found."""
    paths = [data_folder() / "prompts" / name for name in PROMPT_LISTS]
    return [prompt for path in paths if path.is_file() for prompt in read_prompts(path)]


def read_prompts(path: Path) -> list[str]:
    """A text file with one prompt a line (empty lines and those that begin with # do not count), or a JSON list of
    prompts or of objects with a `prompt`.

    Raises:
        InputError: the file cannot be read or holds something else.
    """
    try:
        text = path.read_text()
        lines = [line.strip() for line in text.splitlines()]
        rows = json.loads(text) if path.suffix == ".json" else [line for line in lines if line and line[0] != "#"]
        prompts = [row["prompt"] if isinstance(row, dict) else row for row in rows]
        if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
            raise TypeError("no list of prompts")
        return prompts
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f'no prompts in {path} ({error!r}); expected one a line, or JSON such as ["a car"]') from error


def read_pictures(folder: Path, size: int) -> Float[Tensor, "n size size 3"]:
    """All pictures of a folder on white, the middle square of each.

    Raises:
        InputError: there are fewer than two, or one cannot be read.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in PICTURES)
    if len(paths) < 2:
        raise InputError(f"{folder} holds {len(paths)} pictures; expected two or more ({', '.join(PICTURES)})")
    pictures = []
    for path in paths:
        try:
            with Image.open(path) as file:
                picture = file.convert("RGBA")
        except OSError as error:
            raise InputError(f"cannot read {path}: {error}; expected a picture, remove or replace it") from error
        white = Image.new("RGBA", picture.size, "white")
        picture = ImageOps.fit(Image.alpha_composite(white, picture).convert("RGB"), (size, size))
        pictures.append(torch.from_numpy(np.array(picture)).float() / 255)
    return torch.stack(pictures)


def _open(folders: list[Path]) -> tuple[list[Run], dict[str, str]]:
    runs, skipped = [], {}
    for folder in folders:
        try:
            runs.append(open_run(folder))
        except InputError as error:
            skipped[str(folder)] = str(error)
    return runs, skipped


def _measure(run: Run, preset: Preset, evaluators: Evaluators, reference: Tensor | None) -> Evaluation:
    size = preset.views.size
    # Only where the run's networks learned the lab's world are its objects what the prompt means.
    truth = truth_of(run.prompt, ring(run, size)) if run.preset.lexicon and run.mesh.exists() else None
    return evaluate_run(run, size, evaluators, truth, reference)


def _fid_of_all(evaluations: list[Evaluation], reference: Path | None) -> float | None:
    measured = [evaluation for evaluation in evaluations if evaluation.reference is not None]
    if not measured:
        return None
    # A folder of references is the same for every run.
    expected = measured[:1] if reference is not None else measured
    return frechet_distance(
        torch.cat([evaluation.features for evaluation in measured]),
        torch.cat([evaluation.reference for evaluation in expected]),
    )

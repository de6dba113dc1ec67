"""Many prompts: a run for each, one after the other here, or side by side on a Ray cluster."""

import hashlib
import importlib.util
import logging
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from geodream_lib.errors import InputError
from geodream_lib.pipeline import generate
from geodream_lib.presets import load_preset
from geodream_lib.run import create_run, slug

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """What the runs of a sweep have in common; arguments of `create_run`."""

    preset: str = "lab"
    seed: int = 0
    overrides: dict[str, str | int | float] = field(default_factory=dict)
    fidelity: str = "paper"


@dataclass(frozen=True)
class Swept:
    """Folders of the runs that are finished, and why the others are not, by prompt."""

    folders: list[Path]
    failed: dict[str, str]


def sweep(prompts: Sequence[str], out: Path, recipe: Recipe, ray_address: str | None = None) -> Swept:
    """Make a mesh of every prompt, each in its own folder below `out`.

    Runs that are finished are not made again, others are resumed, and a prompt that failed is tried again by the next
    call. It costs the others nothing.

    Args:
        ray_address: of a Ray cluster that sees the same files ("auto", "host:port", "ray://host:port", or "local" to
            start one on this machine): every run takes a CPU of it, and a GPU where the preset computes on one. None
            makes the runs one after the other, in this process.

    Raises:
        InputError: a prompt is given twice, Ray is not installed, or it cannot be reached.
    """
    folders = run_folders(prompts, out)
    todo = list(folders.items())
    outcomes = _on_ray(todo, recipe, ray_address) if ray_address else _here(todo, recipe)
    failed = {}
    for prompt, error in tqdm(outcomes, total=len(todo), desc="prompts", unit="prompt", dynamic_ncols=True):
        if error:
            failed[prompt] = error
            logger.warning("%s: %s", prompt, error)
    return Swept([folder for prompt, folder in folders.items() if prompt not in failed], failed)


def run_folders(prompts: Sequence[str], out: Path) -> dict[str, Path]:
    """A folder for each prompt; those whose names would be the same get a digest of their prompts behind it."""
    twice = [prompt for prompt, count in Counter(prompts).items() if count > 1]
    if twice:
        raise InputError(f"the prompt {twice[0]!r} is there more than once; every run has its own folder, keep one")
    names = Counter(slug(prompt) for prompt in prompts)
    digests = {prompt: hashlib.sha256(prompt.encode()).hexdigest()[:8] for prompt in prompts}
    return {
        prompt: out.resolve() / (slug(prompt) if names[slug(prompt)] == 1 else f"{slug(prompt)}-{digests[prompt]}")
        for prompt in prompts
    }


def make_run(prompt: str, folder: Path, recipe: Recipe) -> str:
    """All stages of one run; returns what went wrong, or nothing."""
    try:
        generate(create_run(prompt, folder, recipe.preset, recipe.seed, None, recipe.overrides, recipe.fidelity))
    except (InputError, FloatingPointError) as error:
        return str(error)
    return ""


def _here(todo: list[tuple[str, Path]], recipe: Recipe) -> Iterator[tuple[str, str]]:
    for prompt, folder in todo:
        logger.info("%s: %s", folder, prompt)
        yield prompt, make_run(prompt, folder, recipe)


def _on_ray(todo: list[tuple[str, Path]], recipe: Recipe, address: str) -> Iterator[tuple[str, str]]:
    """`make_run` as tasks of a cluster, in the order in which they end."""
    if importlib.util.find_spec("ray") is None:
        raise InputError('Ray is not installed; install it with: pip install "geodream-lab[ray]", or leave out --ray')
    import ray

    with _connection(address):
        gpus = int(load_preset(recipe.preset, recipe.overrides, recipe.fidelity).device.startswith("cuda"))
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=1)(make_run)
        waiting = {task.remote(prompt, folder, recipe): prompt for prompt, folder in todo}
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            prompt = waiting.pop(done)
            try:
                yield prompt, ray.get(done)
            except ray.exceptions.RayError as error:  # the run's worker died, or failed in a way nobody foresaw
                yield prompt, str(error).strip().splitlines()[-1]


@contextmanager
def _connection(address: str) -> Iterator[None]:
    import ray

    try:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if host:
            # Ray itself tries for minutes.
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"no Ray cluster at {address!r} ({error}); start one with: ray start --head, or give --ray local"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()

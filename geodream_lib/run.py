"""A run is a folder: what was asked for, and one artifact per finished stage. The artifacts are the state."""

import hashlib
import re
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from geodream_lib.data import data_folder
from geodream_lib.errors import InputError
from geodream_lib.lexicon import check_prompt
from geodream_lib.plan import check_fits, device_memory
from geodream_lib.presets import Preset, load_preset
from geodream_lib.storage import read_json, write_json
from geodream_lib.views import load_reference
from geodream_lib.weights.folder import network_path, ready_path
from geodream_lib.weights.table import NETWORKS

STAGES = ("views", "volume", "refine", "mesh")


@dataclass(frozen=True)
class Run:
    """A run folder and what it was made for.

    folder: holds `config.json`, `views/`, `volume.safetensors`, `neus/`, `mesh/`, `mesh.glb`, `log.jsonl`, pictures.
    image: reference picture given instead of one predicted from the prompt.
    fidelity: which reading of the method the preset follows, "paper" or "released".
    """

    folder: Path
    prompt: str
    preset: Preset
    seed: int
    image: Path | None = None
    fidelity: str = "paper"

    @property
    def device(self) -> torch.device:
        """Where the run computes."""
        return torch.device(self.preset.device)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the diffusion models' frozen weights."""
        return getattr(torch, self.preset.precision)

    def generator(self, stage: str) -> torch.Generator:
        """The stage's own source of randomness: the same whether the stages before it ran now or last week."""
        digest = hashlib.sha256(f"{self.seed}:{stage}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

    @property
    def views(self) -> Path:
        return self.folder / "views"

    @property
    def volume(self) -> Path:
        return self.folder / "volume.safetensors"

    @property
    def field(self) -> Path:
        return self.folder / "neus" / "field.safetensors"

    @property
    def geometry(self) -> Path:
        return self.folder / "mesh" / "geometry.safetensors"

    @property
    def texture(self) -> Path:
        return self.folder / "mesh" / "texture.safetensors"

    @property
    def mesh(self) -> Path:
        return self.folder / "mesh.glb"

    @property
    def log(self) -> Path:
        return self.folder / "log.jsonl"

    @property
    def pictures(self) -> list[Path]:
        return [self.folder / name for name in ("contact_sheet.png", "turntable.gif", "turntable.mp4")]

    def check_ready(self) -> None:
        """Refuse what cannot be computed here, before anything is.

        Raises:
            InputError: a network is not there, or the preset's device is not; the message says how to get it.
        """
        wanted = self.preset.networks(self.image is not None)
        missing = [name for name in wanted if name in NETWORKS and not ready_path(name).exists()]
        if missing:
            raise InputError(
                f"preset {self.preset.name} needs networks that are not there yet: {', '.join(missing)}; get each "
                "with: geodream weights fetch NAME (--from FOLDER takes files you have)"
            )
        for name in wanted:
            network_path(name)
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise InputError(
                f"preset {self.preset.name} computes on a CUDA device and torch sees none; use --preset lab, or accept "
                "days on the CPU with --set device=cpu --set precision=float32"
            )

    def products(self, stage: str) -> list[Path]:
        """What a stage leaves behind; the stage is done when the last of them exists."""
        return {
            "views": [self.folder / "reference.png", self.views, self.views / "transforms.json"],
            "volume": [self.folder / "volume.ply", self.volume],
            "refine": [self.folder / "neus", self.field],
            "mesh": [self.folder / "mesh", self.mesh],
        }[stage]

    def is_done(self, stage: str) -> bool:
        return self.products(stage)[-1].exists()

    def forget_after(self, stage: str) -> None:
        """Remove what later stages made, and the pictures: they were made from another artifact of this stage."""
        later = [path for name in STAGES[STAGES.index(stage) + 1 :] for path in self.products(name)]
        # From the end: what is left after an interruption never stands on something that is gone.
        for path in [*self.pictures, *reversed(later)]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def slug(prompt: str) -> str:
    """The prompt as a folder name."""
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60] or "run"


def create_run(
    prompt: str,
    folder: Path | None = None,
    preset: str = "lab",
    seed: int = 0,
    image: Path | None = None,
    overrides: dict[str, str | int | float] | None = None,
    fidelity: str = "paper",
) -> Run:
    """Start a run, or find the one that was started with the same arguments.

    Raises:
        InputError: the prompt, the image or a setting cannot be used, or the folder holds another run (the message says
            what differs) or other files; nothing was written.
    """
    folder = Path(folder) if folder is not None else Path("runs") / slug(prompt)
    image = Path(image) if image is not None else None
    overrides = {key: str(value) for key, value in (overrides or {}).items()}
    run = Run(folder, prompt, load_preset(preset, overrides, fidelity), seed, image, fidelity)
    asked = {
        "prompt": prompt,
        "preset": preset,
        "fidelity": fidelity,
        "overrides": overrides,
        "seed": seed,
        "image": str(image.resolve()) if image else None,
    }
    path = folder / "config.json"
    if path.exists():
        found = {"fidelity": "paper"} | read_json(path)  # absent in runs from before there were two
        for key, value in asked.items():
            if found.get(key) != value:
                raise InputError(
                    f"{folder} holds a run with {key} {found.get(key)!r}, not {value!r}; choose another folder with "
                    "--out, or delete it"
                )
        return run
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not a run (no config.json); choose another folder with --out")
    check_prompt(prompt, data_folder() / run.preset.lexicon if run.preset.lexicon else None)
    run.check_ready()
    memory = device_memory(run.preset)
    if run.device.type == "cuda" and memory is not None:
        check_fits(run.preset, memory, image=image is not None)
    if image is not None:
        load_reference(image, run.preset.views.size, run.preset.views.fill)
    write_json(path, asked | {"versions": _versions()})
    return run


def open_run(folder: Path) -> Run:
    """A run that was started before.

    Raises:
        InputError: the folder is not a run.
    """
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} is not a run (no config.json); start one with: geodream generate PROMPT")
    config = read_json(folder / "config.json")
    try:
        image = Path(config["image"]) if config["image"] else None
        fidelity = config.get("fidelity", "paper")
        preset = load_preset(config["preset"], config["overrides"], fidelity)
        return Run(folder, config["prompt"], preset, config["seed"], image, fidelity)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{folder}/config.json is not a run's ({error!r}); start a new run in another folder"
        ) from error


def _versions() -> dict[str, str]:
    found = {}
    for name in ("geodream-lab", "torch", "diffusers", "transformers", "peft"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found

"""What is installed and active on this machine, and how to get what is not: `geodream doctor`.

Without a CUDA device no CUDA library is imported; with one they are, because only that shows whether they work.
"""

import os
import platform
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import torch
from packaging.requirements import Requirement
from safetensors import SafetensorError, safe_open

from geodream_lib import cuda_libraries
from geodream_lib.data import data_folder
from geodream_lib.errors import InputError
from geodream_lib.precision import has_fast_bfloat16
from geodream_lib.presets import load_preset
from geodream_lib.weights.folder import ready_path
from geodream_lib.weights.table import NETWORKS

Status = Literal["ok", "optional", "problem"]

LAB_MODELS = ("text_to_image", "mvdream", "zero123", "cost_volume")
DISK_GB = 2.0  # a run of the lab preset with its previews, and room to spare


@dataclass(frozen=True)
class Check:
    """One line of the report: `problem` needs mending, `optional` is something that could be added."""

    name: str
    status: Status
    detail: str
    advice: str = ""


def report() -> list[Check]:
    """Everything that is worth knowing before a run, in the order of importance."""
    return [
        *_packages(),
        _device(),
        _precision(),
        _threads(),
        *_lab_weights(),
        _public_networks(),
        _disk(Path.cwd()),
        *(_cuda_library(name) for name in cuda_libraries.LIBRARIES),
    ]


def format_report(checks: list[Check]) -> str:
    """The report as text, one check a line, with what to do below it."""
    mark = {"ok": "ok", "optional": "--", "problem": "!!"}
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{mark[check.status]}  {check.name:<{width}}  {check.detail}")
        if check.advice:
            lines.append(f"{'':{width + 4}}  -> {check.advice}")
    return "\n".join(lines)


def _packages() -> list[Check]:
    """Python and the required packages against the versions that were tested."""
    checks = [Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    try:
        lines = metadata.requires("geodream-lab") or []
    except metadata.PackageNotFoundError:
        return [
            *checks,
            Check("geodream-lab", "problem", "not installed", "pip install -e . in the clone of the repository"),
        ]
    required = [Requirement(line) for line in lines]
    for requirement in required:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            checks.append(Check(requirement.name, "problem", "not installed", f'pip install "{requirement}"'))
            continue
        if requirement.specifier.contains(version, prereleases=True):
            checks.append(Check(requirement.name, "ok", version))
        else:
            detail = f"{version} was not tested, expected {requirement.specifier}"
            checks.append(Check(requirement.name, "problem", detail, f'pip install "{requirement}"'))
    return checks


def _device() -> Check:
    if not torch.cuda.is_available():
        detail = "no CUDA device, everything runs on the CPU"
        return Check("device", "ok", detail, "use the lab preset; the colab and paper presets need a GPU")
    properties = torch.cuda.get_device_properties(0)
    memory = properties.total_memory / 2**30
    return Check("device", "ok", f"{properties.name}, {memory:.0f} GB, CUDA {torch.version.cuda}")


def _precision() -> Check:
    if has_fast_bfloat16(torch.device("cuda" if torch.cuda.is_available() else "cpu")):
        return Check("bfloat16", "ok", "in hardware, autocast gains speed")
    return Check("bfloat16", "optional", "not in hardware, autocast to it would be slower: float32 (float16 on a GPU)")


def _threads() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    detail = f"torch {torch.get_num_threads()}, numba {os.environ.get('NUMBA_NUM_THREADS', cores)}, cores {cores}"
    if torch.get_num_threads() > cores:
        return Check("threads", "problem", detail, f"set OMP_NUM_THREADS={cores}: more threads than cores are slow")
    return Check("threads", "ok", detail)


def _lab_weights() -> list[Check]:
    """The lab's networks: there, and every weight file as long as its header says."""
    try:
        folder = data_folder() / "lab"
    except InputError as error:
        return [Check("lab weights", "problem", str(error))]
    return [_weights(name, folder / name) for name in LAB_MODELS]


def _weights(name: str, folder: Path) -> Check:
    label = f"lab {name}"
    files = sorted(folder.rglob("*.safetensors"))
    if not files:
        train = f"restore it from the repository, or train it: python -m geodream_lib.lab.train {name}"
        return Check(label, "problem", f"no weights in {folder}", train)
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                opened.keys()
        except (OSError, SafetensorError) as error:
            return Check(label, "problem", f"{file} is not whole: {error}", "restore it from the repository")
    return Check(label, "ok", f"{sum(file.stat().st_size for file in files) / 2**20:.0f} MB in {len(files)} files")


def _public_networks() -> Check:
    """Which of the networks that the colab and paper presets use are there."""
    ready = [name for name in NETWORKS if ready_path(name).exists()]
    missing = [name for name in load_preset("paper").networks(image=False) if name not in ready]
    if missing:
        detail = f"{', '.join(ready) or 'none'} (optional; the paper preset lacks {', '.join(missing)})"
        return Check("public networks", "optional", detail, "geodream weights list")
    return Check("public networks", "ok", ", ".join(ready))


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free / 2**30
    if free < DISK_GB:
        return Check(
            "free disk", "problem", f"{free:.1f} GB", f"free at least {DISK_GB:g} GB, or run in another folder"
        )
    return Check("free disk", "ok", f"{free:.0f} GB")


def _cuda_library(name: str) -> Check:
    """`active` is what the library's operation really goes through on this machine."""
    library, package = cuda_libraries.LIBRARIES[name], cuda_libraries.distribution(name)
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:
        version = "of unknown version"
    if (package, version) == ("kaolin", "0.1"):
        return Check(name, "problem", "0.1 is an empty placeholder", f"pip uninstall kaolin, then {library.how}")
    state, fault = cuda_libraries.state(name)
    if state == "missing":
        advice = library.how if torch.cuda.is_available() else ""
        return Check(name, "optional", f"not installed ({library.operation}, optional)", advice)
    if state == "broken":
        detail = f"{version} does not load, {library.operation} goes through PyTorch: {fault}"
        return Check(name, "optional", detail, f"install it anew, or pip uninstall {package}: {library.how}")
    use = {
        "active": "active",
        "no device": "idle without a CUDA device",
        "switched off": f"not used; if its licence allows your use, set {library.switch}=1",
        "yields": f"idle, {library.yields_to} goes first",
    }[state]
    return Check(name, "ok", f"{version} ({library.operation}, {use})")

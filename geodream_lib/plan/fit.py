"""Whether a plan fits a device, and if not, what would."""

import operator
import os
from dataclasses import replace

import torch

from geodream_lib.errors import InputError
from geodream_lib.plan.stages import distilled_steps, make_plan
from geodream_lib.plan.step import Step
from geodream_lib.presets import Preset, load_preset

GB = 2**30
# What is there beside the tensors. A tenth for what the allocator cannot use again; with 0.6 GB for Python and the
# kernels' own buffers, the full-size steps of tests/test_full_size.py took what `trace` counts within 7 per cent.
UNUSABLE = 1.1
# On the CPU: the 1.6 GB that a run of the lab was measured to take, less its tensors (libraries, compiled kernels,
# pictures). On CUDA: the context and the buffers of cuDNN and cuBLAS, not measured here.
BESIDE_CPU, BESIDE_CUDA = 1.3 * GB, 1.5 * GB

# Smaller numbers that take less memory, for each stage in the order in which they cost least.
LIGHTER = {
    "refine": [("field.memory_gib", 0.5), ("refine.batch_size", 1)]
    + [("field.samples_per_ray", n) for n in (256, 128, 64)],
    "geometry": [("mesh.geometry.batch_size", n) for n in (4, 2, 1)] + [("mesh.grid_resolution", 128)],
    "texture": [("mesh.texture.batch_size", 1)],
}


def needed_bytes(preset: Preset, step: Step) -> float:
    """Memory that the device must have for a step."""
    return step.memory * UNUSABLE + (BESIDE_CUDA if on_gpu(preset) else BESIDE_CPU)


def on_gpu(preset: Preset) -> bool:
    """Whether the preset computes on a CUDA device."""
    return torch.device(preset.device).type == "cuda"


def device_memory(preset: Preset) -> int | None:
    """Bytes of memory of the device that a preset computes on; None where it is not here."""
    if on_gpu(preset):
        return torch.cuda.get_device_properties(preset.device).total_memory if torch.cuda.is_available() else None
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # a system that does not tell
        return None


def check_fits(preset: Preset, memory: int, image: bool = False) -> None:
    """Refuse a run that its device is too small for, before anything is loaded.

    Args:
        memory: of the device, bytes.
        image: the run starts from an image instead of a prompt.

    Raises:
        InputError: names the stage that needs most, what it needs, and what would fit.
    """
    check_plan(preset, make_plan(preset, image), memory)


def check_plan(preset: Preset, plan: list[Step], memory: int) -> None:
    """`check_fits` with the plan at hand."""
    if _fits(preset, plan, memory):
        return
    largest = max(plan, key=lambda step: step.memory)
    device, anyway = ("the GPU", ["--preset lab"]) if on_gpu(preset) else ("this machine", [])
    fitting = _what_fits(preset, plan, memory) or ["a device with more memory", *anyway]
    raise InputError(
        f"{largest.stage} ({largest.what}) needs about {needed_bytes(preset, largest) / GB:.1f} GB and {device} has "
        f"{memory / GB:.1f} GB; use {' or '.join(fitting)}"
    )


def _fits(preset: Preset, plan: list[Step], memory: int) -> bool:
    return all(needed_bytes(preset, step) <= memory for step in plan)


def _what_fits(preset: Preset, plan: list[Step], memory: int) -> list[str]:
    """What to say on the command line instead: another preset, settings of this one, or both, or nothing that helps."""
    fixed = [step for step in plan if step.stage not in LIGHTER]
    if not _fits(preset, fixed, memory):
        return []
    options = []
    if preset.name == "paper" and preset.device == load_preset("colab").device:
        # Its views and volume are the paper's.
        options += ["--preset colab"] if _fits(preset, distilled_steps(load_preset("colab")), memory) else []
    changes = {}
    for stage, setting, value in [(stage, *numbers) for stage, smaller in LIGHTER.items() for numbers in smaller]:
        step = next(step for step in plan if step.stage == stage)
        if needed_bytes(preset, step) > memory and operator.attrgetter(setting)(preset) > value:
            preset, changes[setting] = _with(preset, setting, value), value
            plan = distilled_steps(preset)
    if _fits(preset, plan, memory):
        options.append(" ".join(f"--set {setting}={value}" for setting, value in changes.items()))
    return options


def _with(settings: object, path: str, value: float) -> object:
    """The settings with one number changed."""
    name, _, rest = path.partition(".")
    return replace(settings, **{name: _with(getattr(settings, name), rest, value) if rest else value})

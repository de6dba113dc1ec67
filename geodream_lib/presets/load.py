"""A preset by its name, with changes by their path."""

import dataclasses
import math
import os
from dataclasses import replace

from geodream_lib.errors import InputError
from geodream_lib.presets.fidelity import released
from geodream_lib.presets.lab import lab_preset
from geodream_lib.presets.paper import colab_preset, paper_preset
from geodream_lib.presets.settings import Preset, Refine
from geodream_lib.schedules import Schedule, constant, parse_schedule

FAST_VARIABLE = "GEODREAM_FAST"
FAST_FACTOR = 20
PRESETS = {"lab": lab_preset, "colab": colab_preset, "paper": paper_preset}
FIDELITIES = ("paper", "released")


def load_preset(
    name: str, overrides: dict[str, str | int | float] | None = None, fidelity: str = FIDELITIES[0]
) -> Preset:
    """The named preset with `overrides` such as `{"refine.steps": 500}` applied last.

    A number in place of a schedule, `{"refine.schedules.volume": 1}`, holds for the whole run; a curve is written as
    its corners, `"0:0.1 0.5:1 1:0.3"` (see `schedules.parse_schedule`).

    fidelity: "paper", or "released" for what the released code does where the two disagree (see `fidelity`).

    With the environment variable `GEODREAM_FAST=1` every number of optimisation and diffusion steps is a twentieth:
    for tests, which skip nothing but finish nothing either.

    Raises:
        InputError: unknown preset, fidelity or setting, or a value of the wrong type.
    """
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r}; choose one of {', '.join(PRESETS)}")
    if fidelity not in FIDELITIES:
        raise InputError(f"unknown fidelity {fidelity!r}; choose one of {', '.join(FIDELITIES)}")
    preset = PRESETS[name]()
    if fidelity == "released":
        preset = released(preset)
    if os.environ.get(FAST_VARIABLE) == "1":
        preset = _shortened(preset)
    for path, value in (overrides or {}).items():
        preset = _override(preset, path, path.split("."), value)
    return preset


def _override(settings: object, path: str, keys: list[str], value: str | int | float) -> object:
    """`settings` with the entry at `keys` replaced; dictionaries (rates) are entered by their keys."""
    is_dict = isinstance(settings, dict)
    known = list(settings) if is_dict else [f.name for f in dataclasses.fields(settings)]
    if keys[0] not in known:
        raise InputError(f"unknown setting {path!r}: {keys[0]!r} is not one of {', '.join(known)}")
    old = settings[keys[0]] if is_dict else getattr(settings, keys[0])
    if len(keys) > 1:
        if not (dataclasses.is_dataclass(old) or isinstance(old, dict)) or isinstance(old, Schedule):
            raise InputError(f"unknown setting {path!r}: {keys[0]!r} has no parts")
        new = _override(old, path, keys[1:], value)
    else:
        new = _converted(path, old, value)
    return {**settings, keys[0]: new} if is_dict else replace(settings, **{keys[0]: new})


def _converted(path: str, old: object, value: str | int | float) -> object:
    """`value` in the type of the setting it replaces; a schedule is a number for the whole run, or its corners."""
    if isinstance(old, Schedule) and ":" in str(value):
        return parse_schedule(str(value))
    kind = float if isinstance(old, Schedule) else type(old)
    if kind is bool:
        if str(value).lower() not in ("true", "false"):
            raise InputError(f"setting {path} is {value!r}; expected true or false")
        return str(value).lower() == "true"
    if kind not in (int, float, str):
        raise InputError(f"setting {path!r} is not a number or a word; name one of its parts or use the library")
    try:
        new = kind(value)
    except ValueError as error:
        raise InputError(f"setting {path} is {value!r}; expected {kind.__name__}") from error
    if (kind is int and new < min(1, old)) or (kind is float and not math.isfinite(new)):
        raise InputError(f"setting {path} is {value!r}; expected a {'positive' if kind is int else 'finite'} number")
    return constant(new) if isinstance(old, Schedule) else new


def _shortened(preset: Preset) -> Preset:
    def few(steps: int) -> int:
        return max(2, steps // FAST_FACTOR)

    def shorter(refine: Refine) -> Refine:
        return replace(refine, steps=few(refine.steps))

    views = replace(preset.views, reference_steps=4, mvdream_steps=4, steps=4, neighbour_steps=4)
    mesh = replace(preset.mesh, geometry=shorter(preset.mesh.geometry), texture=shorter(preset.mesh.texture))
    return replace(preset, views=views, refine=shorter(preset.refine), mesh=replace(mesh, atlas_size=256))

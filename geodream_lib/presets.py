"""Every number of a run in one place. A preset is a frozen dataclass; nothing else in the library holds a setting.

`lab` is the method on two CPU cores in minutes, with the small networks of `data/lab/`. Its sizes differ from the
paper's; the steps, equations and schedules do not.
"""

import dataclasses
import math
import os
from dataclasses import dataclass, field, replace

from geodream_lib.errors import InputError
from geodream_lib.schedules import Schedule, annealed, constant, paper_texture, paper_volume

FAST_VARIABLE = "GEODREAM_FAST"
FAST_FACTOR = 20


@dataclass(frozen=True)
class Views:
    """Stage 1: the reference view and the source views predicted from it.

    reference_suffix: added to the prompt for the reference view. reference_elevation: degrees, where such a view is
    assumed to be taken from. fill: share of the picture that the object's longer side takes, as in the turntables
    Zero123 learned from (0.56 to 0.92, mean 0.825 of the held-out ones). count: source views, with the reference and
    the back view. radius, fov_y: of the cameras.
    """

    reference_suffix: str = ", front view, on a white background"
    reference_elevation: float = 14.0
    reference_steps: int = 30
    reference_guidance: float = 5.0
    fill: float = 0.82
    count: int = 12
    steps: int = 25
    guidance: float = 2.0
    eta: float = 0.0
    radius: float = 2.75
    fov_y: float = 40.0
    size: int = 128


@dataclass(frozen=True)
class Volume:
    """Stage 2: voxels per axis of the cost volume, and cells per axis of its mesh."""

    resolution: int = 48
    mesh_resolution: int = 96


@dataclass(frozen=True)
class Cameras:
    """Where refinement looks from: ranges of distance, vertical field of view (degrees) and elevation (degrees)."""

    distance: tuple[float, float] = (2.6, 3.0)
    fov_y: tuple[float, float] = (38.0, 43.0)
    elevation: tuple[float, float] = (-10.0, 45.0)


@dataclass(frozen=True)
class Guidance:
    """Score distillation by the 2D prior (eq. 9).

    kind: "vsd" or "sds". scale: classifier-free guidance of the frozen network (7.5 as released, which makes the lab's
    colours glare). front, back, overhead: thresholds of the view-dependent prompts, degrees. lora_rank, lora_rate,
    lora_timesteps: of the network that follows the renders.
    """

    kind: str = "vsd"
    scale: float = 4.0
    front: float = 30.0
    back: float = 40.0
    overhead: float = 60.0
    lora_rank: int = 4
    lora_rate: float = 2e-3
    lora_timesteps: int = 1


@dataclass(frozen=True)
class Refine:
    """One optimisation: its length, what it sees, how fast each parameter group moves, and what else is asked of it.

    size: height and width of the renders by step. rates: base learning rate of each parameter group; schedules: its
    factor by step (1 where none is given). t_min, t_max: range of timesteps as fractions. weights: of the terms beside
    the guidance, by step. Schedules are written for any length and stretched to `steps`.
    """

    steps: int
    batch_size: int
    size: Schedule
    rates: dict[str, float]
    schedules: dict[str, Schedule] = field(default_factory=dict)
    t_min: Schedule = constant(0.02)
    t_max: Schedule = constant(0.75)
    weights: dict[str, Schedule] = field(default_factory=dict)
    guidance: Guidance = Guidance()
    cameras: Cameras = Cameras()
    weight_decay: float = 0.0
    checkpoint_steps: int = 32


@dataclass(frozen=True)
class Field:
    """Stage 3's representation and renderer. The hash encoding's sizes are those of Instant-NGP's names.

    sharpening: factor on the sharpness s that was learnt with the geometry decoder. As released it is 1, after 215000
    steps of training; what the lab's learnt in 2600 (s = 86) would spread an outline over three pixels.
    darkest: the darkest random background (the 2D prior has seen objects on light backgrounds only).
    """

    levels: int = 8
    log2_table: int = 15
    base_resolution: int = 16
    growth: float = 1.447269237440378
    sharpening: float = 3.0
    samples_per_ray: int = 72
    cos_anneal_ratio: float = 1.0
    occupancy_resolution: int = 48
    occupancy_steps: int = 16
    random_background: float = 1.0
    darkest: float = 0.6


@dataclass(frozen=True)
class Mesh:
    """Stage 4: tetrahedral grid, UV atlas and the two fine-tunings, first geometry on normals, then texture."""

    grid_resolution: int
    geometry: Refine
    texture: Refine
    atlas_size: int = 1024
    atlas_padding: int = 8


@dataclass(frozen=True)
class Preset:
    """All settings of a run. Networks are diffusers folders or files below the data folder."""

    name: str
    text_to_image: str
    zero123: str
    cost_volume: str
    lexicon: str
    views: Views
    volume: Volume
    field: Field
    refine: Refine
    mesh: Mesh


def lab_preset() -> Preset:
    """The lab: 128-pixel images, 16x16 latents, a 48^3 volume, minutes on two cores."""
    return Preset(
        name="lab",
        text_to_image="lab/text_to_image",
        zero123="lab/zero123",
        cost_volume="lab/cost_volume/model.safetensors",
        lexicon="prompts/lexicon.json",
        views=Views(),
        volume=Volume(),
        field=Field(),
        refine=Refine(
            steps=320,
            batch_size=2,
            size=annealed(200, 64, 96, 200, total_steps=320),
            # A volume rate of 1e-3 makes the surface ripple from voxel to voxel within 240 steps.
            rates={"volume": 1e-4, "encoding": 1.2e-2, "texture": 3e-3, "background": 1e-3},
            schedules={"volume": paper_volume(320), "encoding": paper_texture(320), "texture": paper_texture(320)},
            t_max=annealed(0, 0.75, 0.25, 320, total_steps=320),
            weights={"sparsity": constant(0.0)},
        ),
        mesh=Mesh(
            grid_resolution=48,
            geometry=Refine(
                steps=60,
                batch_size=2,
                size=constant(96),
                rates={"sdf": 5e-4, "deformation": 5e-4},
                weights={"normal_consistency": constant(300.0), "laplacian": constant(300.0)},
            ),
            texture=Refine(
                steps=240,
                batch_size=2,
                size=constant(128),
                rates={"encoding": 6e-3, "texture": 1.5e-3},
                schedules={"encoding": paper_texture(240), "texture": paper_texture(240)},
                t_max=annealed(0, 0.6, 0.2, 240, total_steps=240),
            ),
        ),
    )


def load_preset(name: str, overrides: dict[str, str | int | float] | None = None) -> Preset:
    """The named preset with `overrides` such as `{"refine.steps": 500}` applied.

    With the environment variable `GEODREAM_FAST=1` every number of optimisation and diffusion steps is a twentieth:
    for tests, which skip nothing but finish nothing either.

    Raises:
        InputError: unknown preset or setting, or a value of the wrong type.
    """
    presets = {"lab": lab_preset}
    if name not in presets:
        raise InputError(f"unknown preset {name!r}; choose one of {', '.join(presets)}")
    preset = presets[name]()
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
    elif type(old) in (int, float, str):
        try:
            new = type(old)(value)
        except ValueError as error:
            raise InputError(f"setting {path} is {value!r}; expected {type(old).__name__}") from error
        if (isinstance(new, int) and new < 1) or (isinstance(new, float) and not math.isfinite(new)):
            raise InputError(
                f"setting {path} is {value!r}; expected a {'positive' if isinstance(new, int) else 'finite'} number"
            )
    else:
        raise InputError(f"setting {path!r} is not a number or a word; name one of its parts or use the library")
    return {**settings, keys[0]: new} if is_dict else replace(settings, **{keys[0]: new})


def _shortened(preset: Preset) -> Preset:
    def few(steps: int) -> int:
        return max(2, steps // FAST_FACTOR)

    def shorter(refine: Refine) -> Refine:
        return replace(refine, steps=few(refine.steps))

    views = replace(preset.views, reference_steps=4, steps=4)
    mesh = replace(preset.mesh, geometry=shorter(preset.mesh.geometry), texture=shorter(preset.mesh.texture))
    return replace(preset, views=views, refine=shorter(preset.refine), mesh=replace(mesh, atlas_size=256))

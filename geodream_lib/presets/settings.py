"""What can be set in a run: frozen dataclasses, one per stage. Their values are in `lab` and `paper`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from geodream_lib.errors import InputError
from geodream_lib.schedules import Schedule, constant


def _one_of(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InputError(f"setting {name} is {value!r}; choose one of {', '.join(choices)}")


@dataclass(frozen=True)
class Views:
    """Stage 1: the reference views and the source views predicted from them (appendix F).

    reference: where the views of a prompt come from, "text_to_image" (one front view; appendix F, i) or "mvdream" (four
    sides; ii). predictor: the network that looks around them, "zero123" or "zero123plus" (of zero123plus_version).
    sampling: which viewpoints, "appendix_f" (drawn at random) or "released" (the fixed lists of the released code).
    reference_suffix: added to the prompt for a front view. reference_elevation: degrees, where a front view or a given
    image is assumed to be taken from. mvdream_elevation: degrees that MVDream is asked for; declared_elevation: degrees
    that the volume is told. fill: share of the picture that the object's longer side takes. count: source views in all.
    steps, guidance, eta: of the predictor. tile: pixels a side of one of Zero123++'s views. drop_noisiest: the released
    sampler of Zero123 starts one step late. neighbour_steps: of the second round of the released list, which looks
    around predicted views. radius, fov_y, size: of the source views' cameras; degrees and pixels.
    """

    reference: str = "text_to_image"
    predictor: str = "zero123"
    zero123plus_version: str = "1.1"
    sampling: str = "appendix_f"
    reference_suffix: str = ", front view, on a white background"
    reference_elevation: float = 14.0
    reference_steps: int = 30
    reference_guidance: float = 5.0
    mvdream_elevation: float = 15.0
    declared_elevation: float = 15.0
    mvdream_steps: int = 50
    mvdream_guidance: float = 10.0
    fill: float = 0.82
    count: int = 12
    steps: int = 25
    guidance: float = 2.0
    eta: float = 0.0
    tile: int = 320
    drop_noisiest: bool = False
    neighbour_steps: int = 25
    radius: float = 2.75
    fov_y: float = 40.0
    size: int = 128

    def __post_init__(self) -> None:
        _one_of("views.reference", self.reference, ("text_to_image", "mvdream"))
        _one_of("views.predictor", self.predictor, ("zero123", "zero123plus"))
        _one_of("views.sampling", self.sampling, ("appendix_f", "released"))


@dataclass(frozen=True)
class Volume:
    """Stage 2: the cost volume and its frame.

    resolution: voxels per axis that the networks predict. refined_resolution: voxels per axis that are refined, by
    trilinear enlargement. mesh_resolution: cells per axis of the volume's own mesh.
    frame: of the cube, "world", or "frusta": the axes of the first view's camera and the box around all view frusta
    between `near` and `far`, as One-2-3-45 was trained. pixel_center: coordinate of the first pixel's centre in the
    projection, 0.5, or 0 where the networks were trained so. statistics: of the normalisations, "batch" or "running".
    prior: false starts from a ball instead of the cost volume, as text-to-3D without a 3D prior does; for comparison.
    Its volume has to go far, so raise `refine.rates.volume` with it.
    """

    resolution: int = 48
    refined_resolution: int = 48
    mesh_resolution: int = 96
    frame: str = "world"
    near: float = 0.5
    far: float = 1.8
    pixel_center: float = 0.5
    statistics: str = "batch"
    prior: bool = True

    def __post_init__(self) -> None:
        _one_of("volume.frame", self.frame, ("world", "frusta"))
        _one_of("volume.statistics", self.statistics, ("batch", "running"))


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
    colours glare). front, back, overhead: thresholds of the view-dependent prompts, degrees; view_words: whether the
    prompt says the view at all (off to see the Janus problem that the words are against); perp_neg: blend the words of
    neighbouring views and move away from the wrong ones, instead of one word each. lora_rank, lora_rate,
    lora_timesteps: of the network that follows the renders. lora_steps: steps it takes for one of the scene, all but
    one on renders of before. lora_warmup: steps on renders of the start before the scene moves. silent_camera: its
    camera embedding starts at zero, so that it starts as the network it is a copy of; else at random, as released.
    """

    kind: str = "vsd"
    scale: float = 4.0
    front: float = 30.0
    back: float = 40.0
    overhead: float = 60.0
    view_words: bool = True
    perp_neg: bool = False
    lora_rank: int = 4
    lora_rate: float = 2e-3
    lora_timesteps: int = 1
    lora_steps: int = 1
    lora_warmup: int = 0
    silent_camera: bool = True

    def __post_init__(self) -> None:
        _one_of("guidance.kind", self.kind, ("vsd", "sds"))
        if self.perp_neg and not self.view_words:
            raise InputError("guidance.perp_neg moves away from view words; leave guidance.view_words on with it")


@dataclass(frozen=True)
class Refine:
    """One optimisation: its length, what it sees, how fast each parameter group moves, and what else is asked of it.

    size: height and width of the renders by step. rates: base learning rate of each parameter group; schedules: its
    factor by step (1 where none is given), and that of the second network by the name "lora". t_min, t_max: range of
    timesteps as fractions. weights: of the terms beside the guidance, by step. prior_weight: of the 3D prior as a loss,
    the coupled design that the paper argues against (see `views.coupled`). Schedules are written for any length and
    stretched to `steps`.
    """

    steps: int
    batch_size: int
    size: Schedule
    rates: dict[str, float]
    schedules: dict[str, Schedule] = field(default_factory=dict)
    t_min: Schedule = constant(0.02)
    t_max: Schedule = constant(0.75)
    weights: dict[str, Schedule] = field(default_factory=dict)
    prior_weight: Schedule = constant(0.0)
    guidance: Guidance = Guidance()
    cameras: Cameras = Cameras()
    weight_decay: float = 0.0
    checkpoint_steps: int = 32


@dataclass(frozen=True)
class Field:
    """Stage 3's representation and renderer. The hash encoding's sizes are those of Instant-NGP's names.

    sharpening: factor on the sharpness s that was learnt with the geometry decoder. As released it is 1, after 215000
    steps of training; what the lab's learnt in 2600 (s = 86) would spread an outline over three pixels.
    cos_anneal_ratio: see `neus.section_alpha`; cos_anneal_steps: first steps over which it grows from 0 to that, as in
    NeuS' own training, which starts without a shape; 0 has it from the start, since refinement starts with one.
    color_from_position: the texture decoder sees the position beside its encoding, as eq. (8) says.
    random_background: probability of one random colour instead of the learnt background; darkest: the darkest of them
    (the lab's 2D prior has seen objects on light backgrounds only). particles: fields that are refined side by side,
    all followed by VSD's one second network; the first one becomes the mesh. memory_gib: what the samples of a picture
    may take; larger pictures are rendered in chunks, twice where they are trained on (see `field.render`).
    """

    levels: int = 8
    log2_table: int = 15
    base_resolution: int = 16
    growth: float = 1.447269237440378
    sharpening: float = 3.0
    samples_per_ray: int = 72
    cos_anneal_ratio: float = 1.0
    cos_anneal_steps: int = 0
    color_from_position: bool = True
    occupancy_resolution: int = 48
    occupancy_steps: int = 16
    random_background: float = 1.0
    darkest: float = 0.6
    particles: int = 1
    memory_gib: float = 1.0

    def __post_init__(self) -> None:
        if self.memory_gib < 0.001:
            raise InputError(f"setting field.memory_gib is {self.memory_gib}; expected at least 0.001 GiB")


@dataclass(frozen=True)
class Mesh:
    """Stage 4: grid, UV atlas and the two fine-tunings, first geometry on normals, then texture.

    grid_resolution: layers of vertices per axis. surface: what the grid carries, "dmtet" or "flexicubes".
    inherit_texture: colours start as those of the field, since what is extracted is a textured mesh; else fresh.
    """

    grid_resolution: int
    geometry: Refine
    texture: Refine
    surface: str = "dmtet"
    inherit_texture: bool = True
    atlas_size: int = 1024

    def __post_init__(self) -> None:
        _one_of("mesh.surface", self.surface, ("dmtet", "flexicubes"))


@dataclass(frozen=True)
class Preset:
    """All settings of a run.

    device, precision: where everything is computed, and the type of the diffusion models' frozen weights.
    Networks are names that `geodream weights list` shows, or paths below the data folder. lora: the network under the
    second network of VSD, or "" for a copy of `text_to_image`. image_text, point_text, viewpoint: the networks that
    `geodream evaluate` judges by, or "" for none. lexicon: the words the networks know, or "" for all.
    """

    name: str
    device: str
    precision: str
    text_to_image: str
    lora: str
    mvdream: str
    zero123: str
    zero123plus: str
    cost_volume: str
    image_text: str
    point_text: str
    viewpoint: str
    lexicon: str
    views: Views
    volume: Volume
    field: Field
    refine: Refine
    mesh: Mesh

    def __post_init__(self) -> None:
        _one_of("precision", self.precision, ("float32", "float16", "bfloat16"))
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise InputError(f"setting device is {self.device!r}; expected cpu, cuda or cuda:N")

    def networks(self, image: bool) -> list[str]:
        """Names or paths of the networks that a run loads, in the order of the stages; `image`: it starts from one."""
        sides = not image and self.views.reference == "mvdream"
        predictor = self.zero123plus if sides and self.views.predictor == "zero123plus" else self.zero123
        first = self.mvdream if sides else ""
        return [name for name in (first, predictor, self.cost_volume, self.text_to_image, self.lora) if name]


def flat_settings(settings: object, prefix: str = "") -> dict[str, object]:
    """Every setting by its dotted path, as overrides name them; schedules are one setting each."""
    entries = {}
    items = (
        settings.items()
        if isinstance(settings, dict)
        else [(f.name, getattr(settings, f.name)) for f in fields(settings)]
    )
    for name, value in items:
        if isinstance(value, dict) or type(value).__module__ == __name__:
            entries |= flat_settings(value, f"{prefix}{name}.")
        else:
            entries[prefix + name] = value
    return entries

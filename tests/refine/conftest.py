"""Small refinements that the tests of the loop share: a field under VSD, and a dot that only wants to be white."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from geodream_lib.cameras import Cameras
from geodream_lib.field import HashEncoding, NeuSField
from geodream_lib.guidance import (
    Guided,
    LatentDiffusion,
    ViewPrompts,
    VSDGuidance,
    add_camera_lora,
    encode_prompts,
    load_diffusion,
)
from geodream_lib.presets import Field, Guidance, Refine
from geodream_lib.refine import Refinement
from geodream_lib.scenes import FieldScene, Shot
from geodream_lib.schedules import annealed, constant, paper_texture, paper_volume
from geodream_lib.volume import GeometryDecoder

STEPS, HALF = 6, 3
SETTINGS = Refine(
    steps=STEPS,
    batch_size=1,
    size=annealed(2, 8, 12, 2, STEPS),
    rates={"volume": 1e-2, "encoding": 1e-2, "texture": 1e-2, "background": 1e-3},
    schedules={"volume": paper_volume(320), "encoding": paper_texture(320), "lora": annealed(0, 1, 0, 10, 10)},
    t_max=annealed(2, 0.98, 0.5, 2, STEPS),
    weights={"sparsity": constant(0.1)},
    guidance=Guidance(lora_rank=2, lora_steps=2, lora_warmup=1),
    checkpoint_steps=HALF,
)
# Half of the steps is no multiple of the occupancy's interval: what was measured at step 2 is used at step 3.
FIELD = Field(
    levels=2, log2_table=8, samples_per_ray=12, occupancy_resolution=8, occupancy_steps=2, random_background=0.5
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def diffusion(golden: Path) -> LatentDiffusion:
    diffusion = load_diffusion(golden / "vsd" / "sd_base")
    diffusion.denoiser.unet.register_to_config(sample_size=8)  # convolutions fit any size, and this one is fast
    return diffusion


@pytest.fixture
def make(diffusion: LatentDiffusion):
    """A new refinement of a small field under VSD, always the same."""

    def fresh() -> Refinement:
        torch.manual_seed(0)
        volume = 0.1 * torch.randn(4, 6, 6, 6)
        encoding = HashEncoding(FIELD.levels, 2, FIELD.log2_table)
        decoder = GeometryDecoder(hidden=8, latent=4)
        for parameter in decoder.parameters():  # a new decoder is a sphere that ignores the volume
            parameter.data += 0.02 * torch.randn_like(parameter)
        field = NeuSField(volume, decoder, 20.0, encoding, texture_hidden=8)
        generator = seeded(7)
        lora = add_camera_lora(diffusion.denoiser, generator, SETTINGS.guidance.lora_rank)
        prompts = encode_prompts(diffusion, ViewPrompts("a red mushroom"))
        return Refinement(FieldScene(field, FIELD), VSDGuidance(diffusion, lora, prompts), SETTINGS, generator)

    return fresh


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own answer to Ctrl-C, also where the tests run in the background, whose processes ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Dot(nn.Module):
    """The smallest scene: one colour on every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.color = nn.Parameter(torch.full((3,), 0.5))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"color": [self.color]}

    def forward(self, cameras: Cameras, step: int, generator: torch.Generator) -> Shot:
        images = self.color.expand(len(cameras), cameras.height, cameras.width, 3)
        return Shot(images, {"darkness": (1 - images).mean()})

    def preview(self, cameras: Cameras) -> dict[str, torch.Tensor]:
        return {"colour": self.color.expand(len(cameras), cameras.height, cameras.width, 3)}


class Towards:
    """A guidance that only wants images of one value; from a given call on its loss or its gradient is broken."""

    def __init__(self, value: float = 1.0, broken: str = "", after: int = 0) -> None:
        self.value, self.broken, self.left = value, broken, after

    def __call__(self, images, cameras_c2w, azimuth, elevation, t_range, generator) -> Guided:
        loss = (images - self.value).square().mean()
        if self.left == 0 and self.broken == "loss":
            loss = loss * float("nan")
        if self.left == 0 and self.broken == "gradient":
            loss = loss + (images * 0).sum().sqrt()  # value 0, slope infinite times zero
        self.left -= 1
        return Guided(loss, torch.tensor(1.0), torch.zeros(len(images), dtype=torch.long), torch.zeros(1, 1, 1, 1))


@pytest.fixture
def towards() -> type[Towards]:
    return Towards


@pytest.fixture
def settings() -> Refine:
    """Of what `make` makes."""
    return SETTINGS


@pytest.fixture
def dot() -> Callable[..., Refinement]:
    """A new refinement of one colour, by any guidance and settings."""

    def fresh(guidance: Towards | None = None, **changes: object) -> Refinement:
        given = {"steps": 8, "batch_size": 1, "size": constant(2), "rates": {"color": 0.1}, "checkpoint_steps": 2}
        return Refinement(Dot(), guidance or Towards(), Refine(**given | changes), seeded())

    return fresh

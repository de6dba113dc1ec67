"""The loop of Algorithm 1: killed and resumed it gives the same bits, and it never steps off the finite."""

import errno
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from geodream_lib import storage
from geodream_lib.cameras import Cameras
from geodream_lib.errors import InputError
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
from geodream_lib.storage import load_tensors, save_tensors
from geodream_lib.volume import GeometryDecoder

STEPS, HALF = 6, 3
SETTINGS = Refine(
    steps=STEPS,
    batch_size=1,
    size=annealed(2, 8, 12, 2, STEPS),
    rates={"volume": 1e-2, "encoding": 1e-2, "texture": 1e-2, "background": 1e-3},
    schedules={"volume": paper_volume(320), "encoding": paper_texture(320)},
    t_max=annealed(2, 0.98, 0.5, 2, STEPS),
    weights={"sparsity": constant(0.1)},
    guidance=Guidance(lora_rank=2),
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


def dot(guidance: Towards | None = None, **changes: object) -> Refinement:
    settings = {"steps": 8, "batch_size": 1, "size": constant(2), "rates": {"color": 0.1}, "checkpoint_steps": 2}
    return Refinement(Dot(), guidance or Towards(), Refine(**settings | changes), seeded())


@pytest.mark.needs_golden("vsd")
def test_killed_and_resumed_gives_the_same_bits_as_never_stopped(make, tmp_path: Path):
    """All of it: parameters, second network, both optimisers, generator, log."""

    def killed(refinement: Refinement) -> None:
        if refinement.step_number == STEPS - 1:
            raise KeyboardInterrupt

    whole = make()
    whole.run(tmp_path / "whole.safetensors", tmp_path / "whole.jsonl", "refine")
    checkpoint, log = tmp_path / "checkpoint.safetensors", tmp_path / "log.jsonl"
    with pytest.raises(KeyboardInterrupt):
        make().run(checkpoint, log, "refine", killed)
    assert load_tensors(checkpoint)[1]["step"] == str(HALF)
    with log.open("a") as file:
        file.write('{"stage": "refine", "st')  # the line that was being written
    resumed = make()
    seen: list[int] = []
    resumed.run(checkpoint, log, "refine", lambda refinement: seen.append(refinement.step_number))
    assert seen == list(range(HALF + 1, STEPS + 1))

    whole.save(tmp_path / "a.safetensors")
    resumed.save(tmp_path / "b.safetensors")
    (a, _), (b, _) = load_tensors(tmp_path / "a.safetensors"), load_tensors(tmp_path / "b.safetensors")
    prefixes = {name.split(".")[0] for name in a}
    assert prefixes == {"scene", "optimizer", "lora", "lora_optimizer", "generator"} and a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
    assert log.read_text() == (tmp_path / "whole.jsonl").read_text()

    start = make()
    for name, group in start.scene.parameter_groups().items():
        after = whole.scene.parameter_groups()[name]
        moved = any(not torch.equal(p, q) for p, q in zip(group, after, strict=True))
        assert moved, f"nothing was tested: {name} did not move"


@pytest.mark.needs_golden("vsd")
def test_rates_follow_the_schedules_stretched_to_the_run(make):
    refinement = make()
    for step in range(3):
        record = refinement.step()
        expected = {
            "volume": 1e-2 * (0.1 + 0.9 * step / STEPS),
            "encoding": 1e-2 * (1 - 0.95 * step / STEPS),
            "texture": 1e-2,
            "background": 1e-3,
        }
        assert {group["name"]: group["lr"] for group in refinement.optimizer.param_groups} == pytest.approx(expected)
        assert {name: record[f"rate.{name}"] for name in expected} == pytest.approx(expected)
    assert {group["lr"] for group in refinement.lora_optimizer.param_groups} == {SETTINGS.guidance.lora_rate}


def test_the_loop_goes_where_the_guidance_points(tmp_path: Path):
    refinement = dot(Towards(0.0))
    refinement.run(tmp_path / "checkpoint.safetensors", tmp_path / "log.jsonl", "dot")
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(losses) == 8 and losses[:5] == sorted(losses[:5], reverse=True) and losses[-1] < losses[0] / 10


def test_terms_of_the_scene_enter_the_loss_by_their_weight():
    plain, weighted = dot(Towards(0.5)), dot(Towards(0.5), weights={"darkness": constant(2.0)})
    assert weighted.step()["loss"] == pytest.approx(plain.step()["loss"] + 2 * 0.5)
    assert plain.scene.color.tolist() == [0.5] * 3 and weighted.scene.color.min() > 0.5


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_what_is_not_finite_stops_the_run_before_the_parameters_move(broken: str, tmp_path: Path):
    checkpoint, log = tmp_path / "checkpoint.safetensors", tmp_path / "log.jsonl"
    refinement = dot(Towards(broken=broken, after=5))
    before: list[torch.Tensor] = []
    with pytest.raises(FloatingPointError, match=f"step 5: .*{broken}.* not finite; lower the rates"):
        refinement.run(checkpoint, log, "dot", lambda r: before.append(r.scene.color.detach().clone()))
    assert torch.equal(refinement.scene.color, before[-1]) and refinement.step_number == 5
    assert load_tensors(checkpoint)[1]["step"] == "4" and len(log.read_text().splitlines()) == 5
    # With the cause mended, the same run goes on from the checkpoint.
    mended = dot(Towards())
    mended.run(checkpoint, log, "dot")
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(8)) and torch.isfinite(mended.scene.color).all()


def test_resuming_keeps_the_log_of_other_stages(tmp_path: Path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"stage": "other", "step": 7}\n{"stage": "dot", "step": 0}\n')
    dot().run(tmp_path / "checkpoint.safetensors", log, "dot")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in lines] == [("other", 7)] + [("dot", step) for step in range(8)]


@pytest.mark.parametrize("failing", ["save_file", "replace"])
def test_a_full_disk_leaves_the_earlier_checkpoint_as_it_was(failing: str, tmp_path: Path, monkeypatch):
    checkpoint = tmp_path / "checkpoint.safetensors"
    refinement = dot()
    refinement.step()
    refinement.save(checkpoint)
    before = checkpoint.read_bytes()

    def full(*arguments: object, **options: object) -> None:
        if failing == "save_file":
            Path(arguments[1]).write_bytes(b"the beginning of")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*{"save_file": (storage, "save_file"), "replace": (Path, "replace")}[failing], full)
    refinement.step()
    with pytest.raises(InputError, match="cannot write .*No space left.*free some space .*untouched"):
        refinement.save(checkpoint)
    assert checkpoint.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name]


def test_a_checkpoint_that_is_damaged_or_foreign_is_refused(tmp_path: Path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    refinement = dot()
    refinement.step()
    refinement.save(checkpoint)
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[:-4])
    with pytest.raises(InputError, match="truncated.* delete it to have it made again"):
        dot().load(checkpoint)
    save_tensors(checkpoint, {"scene.color": torch.zeros(3)})
    with pytest.raises(InputError, match="is not a checkpoint of a refinement; delete it"):
        dot().load(checkpoint)
    tensors = {"scene.shape": torch.zeros(3), "generator": seeded().get_state()}
    save_tensors(checkpoint, tensors, {"step": "1"})
    with pytest.raises(InputError, match="does not fit Dot: missing color; unknown shape"):
        dot().load(checkpoint)


def test_a_rate_or_schedule_for_nothing_is_refused():
    with pytest.raises(InputError, match=r"no parameter group \['shape'\]; this stage has color"):
        dot(rates={"color": 0.1, "shape": 0.1})
    with pytest.raises(InputError, match=r"no parameter group \['shape'\]"):
        dot(schedules={"shape": constant()})

"""The optimisation loops, and a whole run, mix no devices."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from geodream_lib.field import NeuSField
from geodream_lib.guidance import (
    LatentDiffusion,
    SDSGuidance,
    ViewPrompts,
    VSDGuidance,
    add_camera_lora,
    encode_prompts,
    load_diffusion,
)
from geodream_lib.mesh import DMTet
from geodream_lib.pipeline import draw_pictures, run_stage
from geodream_lib.presets import Field, Guidance, Refine
from geodream_lib.refine import Refinement
from geodream_lib.run import STAGES, Run, create_run
from geodream_lib.scenes import FieldScene, GeometryScene, TextureScene
from geodream_lib.schedules import constant, paper_volume

FIELD = Field(levels=2, log2_table=8, samples_per_ray=12, occupancy_resolution=8, random_background=0.5)
SETTINGS = Refine(
    steps=4,
    batch_size=2,
    size=constant(12),
    rates={"volume": 1e-2, "encoding": 1e-2, "texture": 1e-2, "background": 1e-3},
    schedules={"volume": paper_volume(320)},
    weights={"sparsity": constant(0.1), "opaque": constant(0.1)},
    guidance=Guidance(lora_rank=2),
)


def guidance(diffusion: LatentDiffusion, kind: str, generator: torch.Generator) -> SDSGuidance | VSDGuidance:
    prompts = encode_prompts(diffusion, ViewPrompts("a red mushroom"))
    if kind == "sds":
        return SDSGuidance(diffusion, prompts, perp_neg=True)
    lora = add_camera_lora(diffusion.denoiser, generator, 2)
    return VSDGuidance(diffusion, lora, prompts, lora_timesteps=2, lora_scale=1.5, perp_neg=True)


def scene(kind: str, field: NeuSField, device: str) -> tuple[nn.Module, Refine]:
    """One of the three things that are refined, made on the device as the pipeline makes it."""
    if kind == "field":
        return FieldScene(field, FIELD), SETTINGS
    dmtet = DMTet.from_sdf(field.sdf, 8, device)
    if kind == "geometry":
        weights = {"normal_consistency": constant(0.1), "laplacian": constant(0.1)}
        return GeometryScene(dmtet), replace(
            SETTINGS, rates={"sdf": 1e-4, "deformation": 1e-4}, schedules={}, weights=weights
        )
    vertices, faces = (x.detach() for x in dmtet.mesh())
    made = TextureScene(vertices, faces, field.encoding, field.texture, field.to_world, 0.1)
    return made, replace(SETTINGS, rates={"encoding": 1e-2, "texture": 1e-2}, schedules={}, weights={})


@pytest.mark.needs_golden("vsd")
@pytest.mark.parametrize(
    ("kind", "distillation", "dtype"),
    [("field", "vsd", torch.float32), ("geometry", "sds", torch.float32), ("texture", "vsd", torch.bfloat16)],
)
def test_refinement(
    both: Callable,
    small_field: Callable,
    golden: Path,
    tmp_path: Path,
    kind: str,
    distillation: str,
    dtype: torch.dtype,
) -> None:
    """A step, a checkpoint, and a step by a refinement that read it; the logged numbers are the CPU's.

    Once with the frozen weights in half precision, as the presets for GPUs have them.
    """

    def compute(device: str) -> list:
        on_device = load_diffusion(golden / "vsd" / "sd_base", device, dtype)
        on_device.denoiser.unet.register_to_config(sample_size=8)

        def fresh() -> Refinement:
            generator = torch.Generator().manual_seed(7)
            thing, settings = scene(kind, small_field().to(device), device)
            return Refinement(thing, guidance(on_device, distillation, generator), settings, generator)

        first, second = fresh(), fresh()
        record = first.step()
        first.save(tmp_path / f"{device}.safetensors")
        second.load(tmp_path / f"{device}.safetensors")
        logged.append([record, second.step()])
        return [p.detach() for p in second.scene.parameters()]

    logged: list[list[dict[str, float]]] = []
    both(compute, atol=0.1)  # Adam's first steps are signs, which tiny gradients lose: the records are compared
    for mine, theirs in zip(*logged, strict=True):
        assert theirs == pytest.approx(mine, rel=2e-2, abs=1e-3)


@pytest.mark.slow
def test_a_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretended_cuda) -> None:
    """All stages with the lab's networks and device=cuda, every loop two steps long; no network runs on the CPU."""
    monkeypatch.setattr(Run, "check_ready", lambda self: None)  # it would say that torch sees no device
    few = {"device": "cuda", "views.reference_steps": 2, "views.steps": 2, "volume.resolution": 24}
    few |= {"field.samples_per_ray": 24, "field.occupancy_resolution": 16, "mesh.grid_resolution": 16}
    few |= {"volume.mesh_resolution": 24, "mesh.atlas_size": 128}
    few |= {f"{loop}.steps": 2 for loop in ("refine", "mesh.geometry", "mesh.texture")}
    run = create_run("a red mushroom on a log", tmp_path / "run", overrides=few)
    for stage in STAGES:
        run_stage(run, stage)
    draw_pictures(run)
    assert all(run.is_done(stage) for stage in STAGES) and all(picture.exists() for picture in run.pictures)
    aten = torch.ops.aten
    assert not any(pretended_cuda.on_cpu[op.default] for op in (aten.convolution, aten.addmm, aten.grid_sampler_3d))

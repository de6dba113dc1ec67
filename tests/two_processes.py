"""Started twice by torchrun (see test_processes.py): a small VSD refinement whose batch is split.

Usage: two_processes.py GOLDEN FOLDER STEPS [KILL_RANK]; with a rank, that process ends without a word after two steps.
"""

import os
import sys
from pathlib import Path

import torch

from geodream_lib.field import HashEncoding, NeuSField
from geodream_lib.guidance import ViewPrompts, VSDGuidance, add_camera_lora, encode_prompts, load_diffusion
from geodream_lib.presets import Field, Guidance, Refine
from geodream_lib.processes import current_processes
from geodream_lib.refine import Refinement
from geodream_lib.scenes import FieldScene
from geodream_lib.schedules import constant, paper_volume
from geodream_lib.volume import GeometryDecoder

FIELD = Field(levels=2, log2_table=8, samples_per_ray=12, occupancy_resolution=8, random_background=0.5)


def make(golden: Path, steps: int) -> Refinement:
    """The same on every process: weights and generators are seeded."""
    settings = Refine(
        steps=steps,
        batch_size=2,
        size=constant(8),
        rates={"volume": 1e-2, "encoding": 1e-2, "texture": 1e-2, "background": 1e-3},
        schedules={"volume": paper_volume(steps)},
        weights={"sparsity": constant(0.1)},
        guidance=Guidance(lora_rank=2, lora_steps=2, lora_warmup=1),
        checkpoint_steps=2,
    )
    torch.manual_seed(0)
    diffusion = load_diffusion(golden / "vsd" / "sd_base")
    diffusion.denoiser.unet.register_to_config(sample_size=8)
    field = NeuSField(
        0.1 * torch.randn(4, 6, 6, 6),
        GeometryDecoder(hidden=8, latent=4),
        20.0,
        HashEncoding(FIELD.levels, 2, FIELD.log2_table),
        texture_hidden=8,
    )
    generator = torch.Generator().manual_seed(7)
    lora = add_camera_lora(diffusion.denoiser, generator, rank=2)
    guidance = VSDGuidance(diffusion, lora, encode_prompts(diffusion, ViewPrompts("a red mushroom")))
    return Refinement(FieldScene(field, FIELD), guidance, settings, generator, processes=current_processes())


def main(golden: Path, folder: Path, steps: int, killed: int | None) -> None:
    refinement = make(golden, steps)

    def after_step(refinement: Refinement) -> None:
        if refinement.processes.rank == killed and refinement.step_number == 3:
            os._exit(1)

    refinement.run_saved(folder / "checkpoint.safetensors", folder / "log.jsonl", "refine", after_step)
    refinement.save(folder / f"rank_{refinement.processes.rank}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else None)

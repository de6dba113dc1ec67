"""A plan as text."""

from geodream_lib.plan.fit import BESIDE_CPU, BESIDE_CUDA, GB, UNUSABLE, needed_bytes, on_gpu
from geodream_lib.plan.networks import learnt_sharpness
from geodream_lib.plan.rendering import samples_per_pixel, sharpness
from geodream_lib.plan.step import Step
from geodream_lib.presets import Preset

COLUMNS = "{:<9}{:<14}{:>6}  {:<32}{:>8}{:>11}{:>10}{:>6}"


def format_plan(preset: Preset, plan: list[Step]) -> str:
    """A row per step, the sum, and how it was counted; no line is longer than 100 characters."""
    beside = BESIDE_CUDA if on_gpu(preset) else BESIDE_CPU
    assumed = "" if learnt_sharpness(preset.cost_volume) else " (assumed until the cost volume's networks are there)"
    lines = [
        f"preset {preset.name}, networks in {preset.precision}, on {preset.device}",
        "",
        COLUMNS.format("stage", "what", "steps", "sizes", "params", "TFLOP/step", "TFLOP", "GB"),
        *(
            COLUMNS.format(
                step.stage,
                step.what,
                step.steps,
                step.sizes,
                f"{step.parameters / 1e6:.1f} M",
                f"{step.step_flops / 1e12:.3f}",
                f"{step.flops / 1e12:.1f}",
                f"{needed_bytes(preset, step) / GB:.1f}",
            )
            for step in plan
        ),
        COLUMNS.format(
            "all",
            "",
            "",
            "",
            "",
            "",
            f"{sum(step.flops for step in plan) / 1e12:.1f}",
            f"{max(needed_bytes(preset, step) for step in plan) / GB:.1f}",
        ),
        "",
        "TFLOP: matrix products, convolutions, attention, there and back; a multiply-add is two.",
        "GB: peak of weights, of what is trained with gradient and Adam's moments, of what the way back",
        f"needs; {UNUSABLE - 1:.0%} more for the allocator, and {beside / GB:.1f} GB for all but tensors.",
        f"NeuS: {samples_per_pixel(preset):.1f} samples a pixel, at sharpness {sharpness(preset):.0f}{assumed}.",
    ]
    return "\n".join(line.rstrip() for line in lines)

"""How the field step (render, back, optimiser) grows with what it is asked for: `bench_refine.py --cost-law`.

One quantity is varied at a time around the lab's 64 x 64 rays, two views, 72 sections and 48^3 voxels. CPU seconds are
told, the fastest of a few steps: unlike the wall's they do not depend on what else the machine does.
"""

import math
import time
from dataclasses import replace
from pathlib import Path

import torch
from refine_steps import sample_run
from torch.nn.functional import interpolate

from geodream_lib.cameras_sampling import sample_training_cameras
from geodream_lib.field import NeuSField
from geodream_lib.run import Run
from geodream_lib.scenes import FieldScene

LAB = {"side": 64, "views": 2, "samples": 72, "voxels": 48}
VARIED = {
    "side": (32, 48, 64, 96, 128, 192),
    "views": (1, 2, 4, 8),
    "samples": (36, 72, 144, 288, 512),
    "voxels": (32, 48, 64, 96, 128, 150),
}
# What an exponent is meant of: rays of a view, not pixels of its side; voxels, not those of an axis.
POWER = {"side": 2, "views": 1, "samples": 1, "voxels": 3}
NAMES = {"side": "rays of a view", "views": "views of a batch", "samples": "sections per ray", "voxels": "voxels"}
REPEATS = 4
Law = dict[str, list[tuple[int, float]]]


def measure_law() -> Law:
    """CPU seconds of a step, by the quantity that is varied and its values."""
    run = sample_run()
    return {
        what: [(value, step_seconds(run, **LAB | {what: value})) for value in values] for what, values in VARIED.items()
    }


def step_seconds(run: Run, side: int, views: int, samples: int, voxels: int) -> float:
    """CPU seconds of the fastest of a few steps."""
    field = NeuSField.load(run.field)
    volume = interpolate(field.volume.detach()[None], size=(voxels,) * 3, mode="trilinear", align_corners=True)[0]
    field = NeuSField(volume, field.decoder, field.cube_inverse_deviation, field.encoding)
    scene = FieldScene(field, replace(run.preset.field, samples_per_ray=samples))
    scene.measure_occupancy()
    optimizer = torch.optim.AdamW(scene.parameters(), lr=0.0, foreach=True)
    generator, ranges, seconds = torch.Generator().manual_seed(0), vars(run.preset.refine.cameras), []
    for _ in range(1 + REPEATS):
        cameras = sample_training_cameras(views, **ranges, size=side, generator=generator)[0]
        start = time.process_time()
        optimizer.zero_grad()
        scene.shoot(cameras, 0, generator).images.square().sum().backward()
        optimizer.step()
        seconds.append(time.process_time() - start)
    return min(seconds[1:])


def exponent(what: str, points: list[tuple[int, float]]) -> float:
    """Slope of a straight line through the logarithms."""
    x = torch.tensor([POWER[what] * math.log(value) for value, _ in points])
    y = torch.tensor([math.log(seconds) for _, seconds in points])
    x, y = x - x.mean(), y - y.mean()
    return ((x * y).sum() / (x * x).sum()).item()


def format_law(law: Law) -> str:
    """A line for each quantity: seconds at its values, the exponent over all of them and over the last two."""
    lines = []
    for what, points in law.items():
        values = "  ".join(f"{value}: {seconds:.3f} s" for value, seconds in points)
        lines.append(f"{NAMES[what]} ({what})\n  {values}")
        lines.append(f"  exponent {exponent(what, points):.2f}, of the last two {exponent(what, points[-2:]):.2f}")
    return "\n".join(lines)


def plot_law(law: Law, file: Path) -> None:
    """Seconds against each quantity on logarithmic axes, with the fitted powers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.2), layout="constrained")
    panels = figure.subplots(1, len(law), sharey=True)
    for panel, (what, points) in zip(panels, law.items(), strict=True):
        values, seconds = zip(*points, strict=True)
        x, power = [float(value) ** POWER[what] for value in values], exponent(what, points)
        middle_x, middle_y = (math.exp(sum(map(math.log, column)) / len(column)) for column in (x, seconds))
        label = f"power {power:.2f}; of the last two {exponent(what, points[-2:]):.2f}"
        panel.loglog(x, [middle_y * (at / middle_x) ** power for at in x], color="0.7")
        panel.loglog(x, seconds, "o", color="C0")
        sign = {1: "", 2: "²", 3: "³"}[POWER[what]]
        panel.set_xticks(x, [f"{value}{sign}" for value in values])
        panel.set_yticks([0.05, 0.1, 0.2, 0.5, 1.0], ["0.05", "0.1", "0.2", "0.5", "1"])
        panel.minorticks_off()
        panel.tick_params(labelsize=8)
        panel.set_title(label, fontsize=9)
        panel.set_xlabel(NAMES[what])
    panels[-1].get_xticklabels()[-2].set_visible(False)  # 128³, too close to 150³
    panels[0].set_ylabel("CPU seconds of a field step")
    figure.savefig(file, dpi=120)

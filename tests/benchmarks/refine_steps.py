"""The steps that bench_refine.py measures: the lab's red mushroom, two views of 64 pixels, as the preset refines it."""

import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from plain_field import plain_render
from torch import Tensor

from geodream_lib.cameras import Cameras
from geodream_lib.cameras_sampling import sample_training_cameras
from geodream_lib.data import data_folder
from geodream_lib.field import NeuSField, occupancy_grid, render, solid_background
from geodream_lib.pipeline import make_guidance
from geodream_lib.presets import load_preset
from geodream_lib.refine import Refinement
from geodream_lib.run import Run
from geodream_lib.scenes import FieldScene
from geodream_lib.schedules import constant

SIZE, BATCH = 64, 2
WHITE = solid_background(torch.ones(3))
Seconds = dict[str, float]


def sample_run() -> Run:
    preset = load_preset("lab")
    refine = replace(preset.refine, size=constant(SIZE), batch_size=BATCH)
    folder = data_folder() / "samples" / "a-red-mushroom-on-a-log"
    return Run(folder, "a red mushroom on a log", replace(preset, refine=refine), seed=0)


def training_cameras(run: Run, generator: torch.Generator) -> Cameras:
    ranges = vars(run.preset.refine.cameras)
    return sample_training_cameras(run.preset.refine.batch_size, **ranges, size=SIZE, generator=generator)[0]


def field_steps() -> Callable[[], Seconds]:
    """The library's field step, as a mean over those between two measurements of the occupancy, one included."""
    run = sample_run()
    scene, steps = FieldScene(NeuSField.load(run.field), run.preset.field), run.preset.field.occupancy_steps
    generator = torch.Generator().manual_seed(0)

    def interval() -> Seconds:
        start = time.perf_counter()
        for step in range(steps):
            scene.zero_grad()
            scene(training_cameras(run, generator), step, generator).images.square().sum().backward()
        return {"step": (time.perf_counter() - start) / steps}

    return interval


def plain_steps() -> Callable[[], Seconds]:
    """The plain field step."""
    run = sample_run()
    field, samples = NeuSField.load(run.field), run.preset.field.samples_per_ray
    generator = torch.Generator().manual_seed(0)

    def step() -> Seconds:
        start = time.perf_counter()
        field.zero_grad()
        offset = torch.rand(BATCH * SIZE**2, generator=generator)
        plain_render(field, training_cameras(run, generator), samples, WHITE, offset).square().sum().backward()
        return {"step": time.perf_counter() - start}

    return step


def guided_steps(kind: str) -> Callable[[], Seconds]:
    """Whole steps of the loop under "vsd" or "sds", and what of each goes where."""
    run = sample_run()
    settings = replace(run.preset.refine, guidance=replace(run.preset.refine.guidance, kind=kind))
    generator = run.generator("refine")
    guidance = make_guidance(run, settings.guidance, generator)
    refinement = Refinement(FieldScene(NeuSField.load(run.field), run.preset.field), guidance, settings, generator)
    clock = Clock(refinement)

    def step() -> Seconds:
        clock.start()
        refinement.step()
        clock.mark("rest")
        return clock.seconds

    return step


class Clock:
    """Seconds of a step of the loop, by what took them: marks are set where one part ends and the next begins."""

    def __init__(self, refinement: Refinement) -> None:
        scene, guidance = refinement.scene, refinement.guidance
        optimizer = refinement.optimizer
        scene.register_forward_pre_hook(lambda *_: self.mark("rest"))
        scene.register_forward_hook(lambda *_: self.mark("render"))
        frozen = guidance.diffusion.denoiser.unet
        frozen.register_forward_pre_hook(lambda *_: self.mark("VAE encode"))
        frozen.register_forward_hook(lambda *_: self.mark("frozen UNet"))
        self._before(optimizer, "zero_grad", "rest")
        last = "backward: VAE, render"
        if refinement.second is not None:
            guidance.lora.unet.register_forward_pre_hook(lambda *_: self.mark("rest"))
            guidance.lora.unet.register_forward_hook(
                lambda *_: self.mark("LoRA, to be trained" if torch.is_grad_enabled() else "LoRA, asked")
            )
            self._before(refinement.second.optimizer, "zero_grad", last)
            last = "backward: LoRA"
            refinement.second.optimizer.register_step_post_hook(lambda *_: self.mark("optimisers"))
        optimizer.register_step_pre_hook(lambda *_: self.mark(last))
        optimizer.register_step_post_hook(lambda *_: self.mark("optimisers"))

    def start(self) -> None:
        self.seconds: Seconds = {}
        self._last = time.perf_counter()

    def mark(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    def _before(self, owner: object, method: str, name: str) -> None:
        """A mark before every call of a method."""
        original = getattr(owner, method)

        def marked(*args, **kwargs) -> object:
            self.mark(name)
            return original(*args, **kwargs)

        setattr(owner, method, marked)


STEPS = {
    "plain": plain_steps,
    "field": field_steps,
    "VSD": lambda: guided_steps("vsd"),
    "SDS": lambda: guided_steps("sds"),
}


@torch.no_grad()
def picture_errors() -> tuple[float, float]:
    """PSNR in dB of the library's picture and of the plain one to one with eight times as many sections per ray."""
    run = sample_run()
    field, samples = NeuSField.load(run.field), run.preset.field.samples_per_ray
    cameras = training_cameras(run, torch.Generator().manual_seed(0))
    with torch.enable_grad():  # the plain gradient of the SDF is automatic
        plain = plain_render(field, cameras, samples, WHITE, torch.full((BATCH * SIZE**2,), 0.5)).detach()
    occupancy = occupancy_grid(field, resolution=run.preset.field.occupancy_resolution)
    ours = render(field, cameras, samples_per_ray=samples, background=WHITE, occupancy=occupancy).rgb
    fine = render(field, cameras, samples_per_ray=8 * samples, background=WHITE).rgb

    def psnr(images: Tensor) -> float:
        return -10 * math.log10((images - fine).square().mean().item())

    return psnr(ours), psnr(plain)

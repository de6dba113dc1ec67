"""The loop of Algorithm 1 that stages 3 and 4 share: sample a camera, render, ask the guidance, step.

State is everything the next step depends on: parameters, optimisers, the second network, the generator, the step. It is
saved whole every few steps, so that a run that was killed goes on as if it had not been.
"""

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from geodream_lib.cameras import Cameras
from geodream_lib.cameras_sampling import sample_training_cameras
from geodream_lib.errors import InputError
from geodream_lib.guidance import Guided, VSDGuidance, load_lora_state, lora_parameters, lora_state
from geodream_lib.presets import Refine
from geodream_lib.scenes import Shot
from geodream_lib.storage import atomic_write, load_into, load_tensors, save_tensors

logger = logging.getLogger(__name__)


@runtime_checkable
class Scene(Protocol):
    """What is optimised: an `nn.Module` that renders itself (see `scenes`)."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]: ...

    def __call__(self, cameras: Cameras, step: int, generator: torch.Generator) -> Shot: ...


@runtime_checkable
class GuidanceModel(Protocol):
    """SDS or VSD (see `guidance`)."""

    def __call__(
        self,
        images: Float[Tensor, "b h w 3"],
        cameras_c2w: Float[Tensor, "b 4 4"],
        azimuth: Float[Tensor, " b"],
        elevation: Float[Tensor, " b"],
        t_range: tuple[float, float],
        generator: torch.Generator,
    ) -> Guided: ...


class Refinement:
    """One optimisation of a scene under a guidance.

    Args:
        scene: see `scenes`.
        guidance: `SDSGuidance` or `VSDGuidance`; the latter's second network is trained along (Algorithm 1, line 15).
        settings: lengths, rates, schedules and weights.
        generator: CPU generator of the stage; all randomness of the loop comes from it.
    """

    def __init__(self, scene: Scene, guidance: GuidanceModel, settings: Refine, generator: torch.Generator):
        self.scene, self.guidance, self.settings, self.generator = scene, guidance, settings, generator
        self.device = next(scene.parameters()).device
        self.step_number = 0
        groups = scene.parameter_groups()
        unknown = set(settings.schedules) - set(settings.rates) | set(settings.rates) - set(groups)
        if unknown:
            raise InputError(f"no parameter group {sorted(unknown)}; this stage has {', '.join(groups)}")
        # betas and eps as released
        self.optimizer = torch.optim.AdamW(
            [{"params": groups[name], "name": name} for name in settings.rates],
            betas=(0.9, 0.99),
            eps=1e-15,
            weight_decay=settings.weight_decay,
        )
        self.lora_optimizer = None
        if isinstance(guidance, VSDGuidance):
            self.lora_optimizer = torch.optim.AdamW(
                lora_parameters(guidance.lora),
                settings.guidance.lora_rate,
                betas=(0.9, 0.99),
                eps=1e-15,
                weight_decay=0,
            )

    def rates(self, step: int) -> dict[str, float]:
        """Learning rate of every parameter group at a step: base rate times schedule."""
        settings = self.settings
        return {
            name: base
            * (settings.schedules[name].scaled(settings.steps).value(step) if name in settings.schedules else 1)
            for name, base in settings.rates.items()
        }

    def step(self) -> dict[str, float]:
        """One iteration of Algorithm 1's loop; returns what is logged of it.

        Raises:
            FloatingPointError: a loss or a gradient is not finite; the parameters are still those before the step.
        """
        settings, step = self.settings, self.step_number

        def at(schedule: object) -> float:
            return schedule.scaled(settings.steps).value(step)

        cameras, azimuth, elevation, _ = sample_training_cameras(
            settings.batch_size,
            distance=settings.cameras.distance,
            fov_y=settings.cameras.fov_y,
            elevation=settings.cameras.elevation,
            size=round(at(settings.size)),
            generator=self.generator,
        )
        cameras = cameras.to(self.device)
        shot = self.scene(cameras, step, self.generator)
        guided = self.guidance(
            shot.images, cameras.c2w, azimuth, elevation, (at(settings.t_min), at(settings.t_max)), self.generator
        )
        loss = guided.loss
        for name, weight in settings.weights.items():
            loss = loss + at(weight) * shot.terms[name]
        record = {"step": step, "loss": loss.item(), "guidance": guided.grad_norm.item()}
        record |= {name: term.item() for name, term in shot.terms.items()}
        if guided.lora_loss is not None:
            record["lora"] = guided.lora_loss.item()
        self._check_finite({name: math.isfinite(value) for name, value in record.items()})

        rates = self.rates(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rates[group["name"]]
        losses = {self.optimizer: loss}
        if self.lora_optimizer is not None:
            losses[self.lora_optimizer] = guided.lora_loss
        for optimizer, its_loss in losses.items():
            optimizer.zero_grad(set_to_none=True)
            its_loss.backward()
        self._check_finite(
            {f"gradient of {group.get('name', 'lora')}": _finite(group) for o in losses for group in o.param_groups}
        )
        for optimizer in losses:
            optimizer.step()
        self.step_number += 1
        return record | {f"rate.{name}": rate for name, rate in rates.items()}

    def _check_finite(self, finite: dict[str, bool]) -> None:
        wrong = [name for name, is_finite in finite.items() if not is_finite]
        if wrong:
            raise FloatingPointError(
                f"step {self.step_number}: {', '.join(wrong)} is not finite; lower the rates or the guidance scale "
                '("overrides" in the run\'s config.json) and run again: it goes on from the last checkpoint'
            )

    def run(
        self, checkpoint: Path, log: Path, name: str, callback: Callable[["Refinement"], None] | None = None
    ) -> None:
        """Step to the end, from `checkpoint` if there is one; lines of `log` (JSON) hold every step's numbers.

        `callback` is called after every step. A progress bar shows the remaining time.
        """
        if checkpoint.exists():
            self.load(checkpoint)
            logger.info("%s goes on at step %d", name, self.step_number)
        _forget_later_lines(log, name, self.step_number)
        steps = self.settings.steps
        with (
            log.open("a") as file,
            tqdm(total=steps, initial=self.step_number, desc=name, unit="step", dynamic_ncols=True) as bar,
        ):
            while self.step_number < steps:
                record = self.step()
                file.write(json.dumps({"stage": name} | record) + "\n")
                bar.update()
                if callback is not None:
                    callback(self)
                if self.step_number % self.settings.checkpoint_steps == 0 and self.step_number < steps:
                    file.flush()
                    self.save(checkpoint)

    def save(self, path: Path) -> None:
        """Write the whole state, atomically."""
        tensors = {f"scene.{key}": value for key, value in self.scene.state_dict().items()}
        tensors |= {f"optimizer.{key}": value for key, value in _optimizer_tensors(self.optimizer).items()}
        if self.lora_optimizer is not None:
            tensors |= {f"lora.{key}": value for key, value in lora_state(self.guidance.lora).items()}
            tensors |= {
                f"lora_optimizer.{key}": value for key, value in _optimizer_tensors(self.lora_optimizer).items()
            }
        tensors["generator"] = self.generator.get_state()
        save_tensors(path, tensors, {"step": str(self.step_number)})

    def load(self, path: Path) -> None:
        """Read what `save` wrote.

        Raises:
            InputError: the file is truncated or belongs to another scene or guidance.
        """
        tensors, metadata = load_tensors(path)

        def part(prefix: str) -> dict[str, Tensor]:
            return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

        if "generator" not in tensors or not metadata.get("step", "").isdecimal():
            raise InputError(f"{path} is not a checkpoint of a refinement; delete it to start this stage again")
        load_into(self.scene, part("scene."), str(path))
        _load_optimizer(self.optimizer, part("optimizer."))
        if self.lora_optimizer is not None:
            load_lora_state(self.guidance.lora, part("lora."), str(path))
            _load_optimizer(self.lora_optimizer, part("lora_optimizer."))
        self.generator.set_state(tensors["generator"])
        self.step_number = int(metadata["step"])


def _finite(group: dict) -> bool:
    return all(bool(torch.isfinite(p.grad).all()) for p in group["params"] if p.grad is not None)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{index}.{key}": value for index, entry in state.items() for key, value in entry.items()}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state = optimizer.state_dict()
    state["state"] = {}
    for name, value in tensors.items():
        index, key = name.split(".")
        state["state"].setdefault(int(index), {})[key] = value
    optimizer.load_state_dict(state)


def _forget_later_lines(log: Path, name: str, step: int) -> None:
    """Drop the lines of steps that will be taken again, and a last line that was cut short."""
    if not log.exists():
        return
    kept = []
    for line in log.read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record.get("stage") != name or record["step"] < step:
            kept.append(line + "\n")
    with atomic_write(log) as temporary:
        temporary.write_text("".join(kept))

"""The loop of Algorithm 1 that stages 3 and 4 share: sample a camera, render, ask the guidance, step.

State is everything the next step depends on: parameters, optimisers, the second network, the generator, the step. It is
saved whole every few steps, so that a run that was killed goes on as if it had not been.
"""

import copy
import json
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from geodream_lib.cameras import Cameras
from geodream_lib.cameras_sampling import sample_training_cameras
from geodream_lib.errors import InputError
from geodream_lib.guidance import Guided, VSDGuidance, copy_lora
from geodream_lib.interrupt import interrupt_later
from geodream_lib.optimizers import adamw, load_optimizer_state, optimizer_state
from geodream_lib.presets import Refine, flat_settings
from geodream_lib.processes import Processes
from geodream_lib.scenes import Shot
from geodream_lib.schedules import Schedule
from geodream_lib.second_network import LORA, SecondNetwork
from geodream_lib.storage import atomic_write, load_into, load_tensors, save_tensors, without_prefix
from geodream_lib.views import CoupledPrior

logger = logging.getLogger(__name__)

GAIN_STEPS = 16  # between two measurements of how well the second network knows the renders
WARM_UP_BATCHES = 16  # of renders of the start, for the second network's first steps


@runtime_checkable
class Scene(Protocol):
    """What is optimised: an `nn.Module` that renders itself (see `scenes`)."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]: ...

    def __call__(self, cameras: Cameras, step: int, generator: torch.Generator) -> Shot: ...

    def preview(self, cameras: Cameras) -> dict[str, Float[Tensor, "n h w 3"]]: ...


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
        generator: CPU generator of the stage; all randomness of the loop comes from a copy of it.
        prior: the 3D prior as a loss, by `settings.prior_weight`; for comparison, the method itself has none.
        processes: those that split every batch with this one (see `processes`); alone by default. All must be given the
            same everything else.

    `history` has one record for every step taken by this object: losses, the size of the gradient, learning rates.
    """

    def __init__(
        self,
        scene: Scene,
        guidance: GuidanceModel,
        settings: Refine,
        generator: torch.Generator,
        prior: CoupledPrior | None = None,
        processes: Processes | None = None,
    ):
        self.scene, self.guidance, self.settings, self.prior = scene, guidance, settings, prior
        self.processes = processes or Processes()
        self.processes.share(settings.batch_size)
        self.generator = self.processes.generator(generator)
        self.device = next(scene.parameters()).device
        self.step_number, self.history = 0, []
        groups = scene.parameter_groups()
        unknown = set(settings.schedules) - set(settings.rates) - {LORA} | set(settings.rates) - set(groups)
        if unknown:
            raise InputError(f"no parameter group {sorted(unknown)}; this stage has {', '.join(groups)}")
        trained = [{"params": groups[name], "name": name} for name in settings.rates]
        self.optimizer = adamw(trained, settings.weight_decay)
        self.second = None
        if isinstance(guidance, VSDGuidance):
            self.second = SecondNetwork(guidance, settings.guidance.lora_rate, self.processes)

    def rates(self, step: int) -> dict[str, float]:
        """Learning rate of every parameter group, and of the second network, at a step: base rate times schedule."""
        settings, bases = self.settings, dict(self.settings.rates)
        if self.second is not None:
            bases[LORA] = settings.guidance.lora_rate
        return {
            name: base
            * (settings.schedules[name].scaled(settings.steps).value(step) if name in settings.schedules else 1)
            for name, base in bases.items()
        }

    def step(self) -> dict[str, float]:
        """One iteration of Algorithm 1's loop; returns what is logged of it.

        Raises:
            FloatingPointError: a loss or a gradient is not finite; the parameters it belongs to have not moved.
        """
        settings, step = self.settings, self.step_number
        if step == 0 and self.second is not None:
            self._warm_up(self.second)
        cameras, azimuth, elevation = self._cameras()
        shot = self.scene(cameras, step, self.generator)
        t_range = (self._at(settings.t_min), self._at(settings.t_max))
        guided = self.guidance(shot.images, cameras.c2w, azimuth, elevation, t_range, self.generator)
        loss = guided.loss
        for name, weight in settings.weights.items():
            loss = loss + self._at(weight) * shot.terms[name]
        if self.prior is not None:
            pull = self.prior(shot.images, azimuth, elevation, t_range, self.generator)
            loss = loss + self._at(settings.prior_weight) * pull
        record = {"step": step} | self._numbers(loss, guided, shot)
        self._check_finite({name: math.isfinite(value) for name, value in record.items()})

        rates = self.rates(step)
        losses = {self.optimizer: loss}
        if self.second is not None:
            losses[self.second.optimizer] = guided.lora_loss
        for group in [group for optimizer in losses for group in optimizer.param_groups]:
            group["lr"] = rates[group["name"]]
        self._descend(losses)
        if self.second is not None:
            self.second.keep(guided.latents, cameras.c2w)
            self._follow(self.second, settings.guidance.lora_steps - 1)
            if step % GAIN_STEPS == 0:
                record["lora_gain"] = self.second.gain(4 * settings.batch_size, seed=step)
        self.step_number += 1
        self.history.append(record | {f"rate.{name}": rate for name, rate in rates.items()})
        return self.history[-1]

    def _numbers(self, loss: Float[Tensor, ""], guided: Guided, shot: Shot) -> dict[str, float]:
        """What is logged of a step: averages over all processes, and the norm of the whole batch's gradient."""
        numbers = {"loss": loss, "guidance": guided.grad_norm.square()} | shot.terms
        if guided.lora_loss is not None:
            numbers[LORA] = guided.lora_loss
        means = self.processes.mean(torch.stack([value.detach().float() for value in numbers.values()])).tolist()
        record = dict(zip(numbers, means, strict=True))
        return record | {"guidance": math.sqrt(record["guidance"] * self.processes.count)}

    def _at(self, schedule: Schedule) -> float:
        return schedule.scaled(self.settings.steps).value(self.step_number)

    def _cameras(self) -> tuple[Cameras, Float[Tensor, " b"], Float[Tensor, " b"]]:
        """Algorithm 1, line 7: this process's part of a batch of random cameras, with their azimuths and elevations."""
        settings = self.settings
        cameras, azimuth, elevation, _ = sample_training_cameras(
            settings.batch_size,
            distance=settings.cameras.distance,
            fov_y=settings.cameras.fov_y,
            elevation=settings.cameras.elevation,
            size=round(self._at(settings.size)),
            generator=self.generator,
        )
        mine = self.processes.share(settings.batch_size)
        return cameras[mine].to(self.device), azimuth[mine], elevation[mine]

    def _descend(self, losses: dict[torch.optim.Optimizer, Float[Tensor, ""]]) -> None:
        """One step of every optimiser down its own loss, or none of them where a gradient is not finite."""
        for optimizer, loss in losses.items():
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.processes.average_gradients([p for group in optimizer.param_groups for p in group["params"]])
        self._check_finite({f"gradient of {group['name']}": _finite(group) for o in losses for group in o.param_groups})
        for optimizer in losses:
            optimizer.step()

    def _warm_up(self, second: SecondNetwork) -> None:
        """The second network learns the renders of the start before its difference to the first one moves anything."""
        if self.settings.guidance.lora_warmup:
            with torch.no_grad():
                for _ in range(WARM_UP_BATCHES):
                    cameras, _, _ = self._cameras()
                    images = self.scene(cameras, 0, self.generator).images
                    latents = self.guidance.diffusion.encode_images(images, self.generator)
                    second.keep(latents, cameras.c2w)
            self._follow(second, self.settings.guidance.lora_warmup)

    def _follow(self, second: SecondNetwork, steps: int) -> None:
        """Algorithm 1, line 15, on renders of the steps before."""
        mine = self.settings.batch_size // self.processes.count
        for _ in range(steps):
            self._descend({second.optimizer: second.loss(mine, self.generator)})

    def _check_finite(self, finite: dict[str, bool]) -> None:
        wrong = [name for name, is_finite in finite.items() if not is_finite]
        if wrong:
            raise FloatingPointError(
                f"step {self.step_number}: {', '.join(wrong)} is not finite; lower the rates or the guidance scale "
                '("overrides" in the run\'s config.json) and run again: it goes on from the last checkpoint'
            )

    def run(
        self, steps: int | None = None, callback: Callable[["Refinement"], None] | None = None, title: str = "refine"
    ) -> None:
        """Take `steps` steps, or all that are left, with a progress bar that shows the remaining time.

        `callback` is called after every step; `history` has its numbers. Ctrl-C (or a kernel's interrupt) stops between
        two steps, by KeyboardInterrupt: `run` again goes on as if it had not.
        """
        end = self.settings.steps if steps is None else min(self.settings.steps, self.step_number + steps)
        with (
            tqdm(
                total=end,
                initial=self.step_number,
                desc=title,
                unit="step",
                dynamic_ncols=True,
                disable=not self.processes.is_main,
            ) as bar,
            interrupt_later() as interrupted,
        ):
            while self.step_number < end:
                self.step()
                bar.update()
                if callback is not None:
                    callback(self)
                if self.processes.any(interrupted()):
                    raise KeyboardInterrupt

    def run_saved(
        self, checkpoint: Path, log: Path, name: str, callback: Callable[["Refinement"], None] | None = None
    ) -> None:
        """Run to the end, from `checkpoint` if there is one; lines of `log` (JSON) hold every step's numbers.

        The checkpoint is renewed every few steps, and when an interrupt stops the run. Of several processes the main
        one alone writes.
        """
        if checkpoint.exists():
            self.load(checkpoint)
            logger.info("%s goes on at step %d", name, self.step_number)
        self.processes.wait()
        if not self.processes.is_main:
            self.run(callback=callback, title=name)
            return
        _forget_later_lines(log, name, self.step_number)
        with log.open("a") as file:

            def after_step(refinement: Refinement) -> None:
                file.write(json.dumps({"stage": name} | self.history[-1]) + "\n")
                if callback is not None:
                    callback(refinement)
                if self.step_number % self.settings.checkpoint_steps == 0 and self.step_number < self.settings.steps:
                    file.flush()
                    self.save(checkpoint)

            try:
                self.run(callback=after_step, title=name)
            except KeyboardInterrupt:
                file.flush()
                self.save(checkpoint)
                raise

    def preview(self, cameras: Cameras) -> dict[str, Float[Tensor, "n h w 3"]]:
        """Pictures of the scene as it is now, by what they show; nothing of the run changes."""
        with torch.no_grad():
            return self.scene.preview(cameras.to(self.device))

    def fork(self, guidance: GuidanceModel | None = None, **changes: object) -> "Refinement":
        """A second refinement that goes on from this step by itself, with other settings.

        Both have the same past and the same random numbers to come, so that what differs later is due to the changes.

        Args:
            guidance: another one, such as SDS instead of VSD; by default the same. The second network is a copy.
            changes: fields of `Refine`: `schedules=…`, `rates=…`, `weights=…`, `t_max=…`, ….
        """
        guidance = guidance or self.guidance
        if isinstance(guidance, VSDGuidance):
            guidance = replace(guidance, lora=copy_lora(guidance.lora))
        generator = torch.Generator(self.generator.device)
        scene, settings = copy.deepcopy(self.scene), replace(self.settings, **changes)
        other = Refinement(scene, guidance, settings, generator, self.prior, self.processes)
        tensors, metadata = self._state()
        if isinstance(guidance, VSDGuidance) and not isinstance(self.guidance, VSDGuidance):
            tensors |= other.second.state()
        other._set_state({name: tensor.detach().clone() for name, tensor in tensors.items()}, metadata, "the fork")
        other.history = list(self.history)
        return other

    def save(self, path: Path) -> None:
        """Write the whole state, atomically."""
        save_tensors(path, *self._state())

    def load(self, path: Path) -> None:
        """Read what `save` wrote. Settings may have changed since then: they are named in the log, and hold from here.

        Raises:
            InputError: the file is truncated or belongs to another scene or guidance.
        """
        self._set_state(*load_tensors(path), str(path))

    def _state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        tensors = {f"scene.{key}": value for key, value in self.scene.state_dict().items()}
        tensors |= {f"optimizer.{key}": value for key, value in optimizer_state(self.optimizer).items()}
        tensors |= {"generator": self.generator.get_state()}
        if self.second is not None:
            tensors |= self.second.state()
        return tensors, {"step": str(self.step_number), "settings": json.dumps(self._settings())}

    def _settings(self) -> dict[str, str]:
        return {path: repr(value) for path, value in flat_settings(self.settings).items()}

    def _set_state(self, tensors: dict[str, Tensor], metadata: dict[str, str], source: str) -> None:
        if "generator" not in tensors or not metadata.get("step", "").isdecimal():
            raise InputError(f"{source} is not a checkpoint of a refinement; delete it to start this stage again")
        load_into(self.scene, without_prefix(tensors, "scene."), source)
        load_optimizer_state(self.optimizer, without_prefix(tensors, "optimizer."))
        if self.second is not None:
            self.second.set_state(tensors, source, self.device)
        self.generator.set_state(tensors["generator"])
        self.step_number = int(metadata["step"])
        before, now = json.loads(metadata.get("settings", "{}")), self._settings()
        changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        if before and changed:
            logger.info("from step %d on with other settings: %s", self.step_number, ", ".join(changed))


def _finite(group: dict) -> bool:
    """Whether all gradients of a group are: one number that is not makes their sum so."""
    sums = [p.grad.sum() for p in group["params"] if p.grad is not None]
    return not sums or bool(torch.isfinite(torch.stack(sums)).all())


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

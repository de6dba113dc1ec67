"""The training loop all lab networks share: resumable, seeded, logged, within a budget of minutes."""

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from geodream_lib.storage import atomic_write

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Budget:
    """How long and how fast to train.

    minutes: training time; the learning rate follows its share, so a resumed training ends as an unbroken one would.
    """

    minutes: float
    batch_size: int
    learning_rate: float
    ema_decay: float = 0.999
    warmup_steps: int = 200
    checkpoint_seconds: float = 60.0


def coarse_then_fine(budget: Budget, share: float) -> tuple[Budget, Budget]:
    """A training in two parts: a share of the time at half the resolution, with twice as many pictures a step (see
    `latents.add_noise`), the rest at the whole one; Stable Diffusion learned so at 256 before 512 pixels."""
    coarse = replace(budget, minutes=share * budget.minutes, batch_size=2 * budget.batch_size)
    return coarse, replace(budget, minutes=budget.minutes - coarse.minutes)


def learning_rate(budget: Budget, step: int, progress: float) -> float:
    """Linear warm-up, constant for the first half, then a cosine to 2 %; `progress` is the share of time used."""
    fall = min(max(2 * progress - 1, 0.0), 1.0)
    cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * fall))
    return budget.learning_rate * min(1.0, (step + 1) / budget.warmup_steps) * cosine


def train(
    name: str,
    model: nn.ModuleDict,
    loss: Callable[[nn.ModuleDict, torch.Generator], tuple[Tensor, dict[str, float]]],
    *,
    budget: Budget,
    folder: Path,
    device: torch.device,
    seed: int = 0,
    validate: Callable[[nn.ModuleDict], dict[str, float]] | None = None,
) -> nn.ModuleDict:
    """Minimise `loss(model, generator)` for the budget; return the exponential moving average of the weights.

    State (weights, average, optimiser, generator, step, seconds) goes to `folder/state.pt` every `checkpoint_seconds`
    and is picked up by the next call; `folder/log.jsonl` gets a line at each checkpoint.

    Raises:
        FloatingPointError: a loss or a gradient is not finite; the step is not taken, the last good state is on disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.to(device).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    average = {key: value.detach().clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(parameters, budget.learning_rate, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    generator = torch.Generator(device).manual_seed(seed)
    step, seconds = 0, 0.0
    state_path = folder / "state.pt"
    if state_path.exists():
        state = torch.load(state_path, weights_only=True, map_location="cpu")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average = {key: value.to(device) for key, value in state["average"].items()}
        generator.set_state(state["generator"])
        step, seconds = state["step"], state["seconds"]
        logger.info("%s resumes at step %d, %.1f of %.1f minutes", name, step, seconds / 60, budget.minutes)

    def record(parts: dict[str, float]) -> dict:
        done = {"step": step, "minutes": round(seconds / 60, 2), "samples": step * budget.batch_size}
        return done | {"loss": torch.stack(window).mean().item()} | parts

    def save(record: dict) -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average}
        state |= {"generator": generator.get_state(), "step": step, "seconds": seconds}
        with atomic_write(state_path) as temporary:
            torch.save(state, temporary)
        with (folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
        logger.info("%s %s", name, record)

    def measure(record: dict) -> dict:
        """The record with the averaged weights' held-out numbers."""
        if validate is None:
            return record
        trained = {key: value.clone() for key, value in model.state_dict().items()}
        model.load_state_dict(average)
        model.eval()
        record = record | validate(model)
        model.load_state_dict(trained)
        model.train()
        return record

    bar = tqdm(total=round(60 * budget.minutes), initial=round(seconds), desc=name, unit="s")
    last_save, window = seconds, []
    measure_after = seconds  # held-out numbers take at most about a tenth of the time
    while seconds < 60 * budget.minutes:
        start = time.perf_counter()
        rate = learning_rate(budget, step, seconds / (60 * budget.minutes))
        for group in optimizer.param_groups:
            group["lr"] = rate
        value, parts = loss(model, generator)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        gradient_norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        if not (value.isfinite() and gradient_norm.isfinite()):
            raise FloatingPointError(
                f"{name}: the loss or a gradient is not finite at step {step}; {state_path} holds the last good state"
            )
        optimizer.step()
        _follow(average, model.state_dict(), min(budget.ema_decay, (1 + step) / (10 + step)))
        window.append(value.detach())
        step += 1
        if step % 20 == 0:
            bar.set_postfix(step=step, loss=f"{torch.stack(window[-100:]).mean().item():.4f}", refresh=False)
        seconds += time.perf_counter() - start
        bar.update(round(seconds) - bar.n)
        if seconds - last_save > budget.checkpoint_seconds:
            last_save, entry = seconds, record(parts)
            if seconds >= measure_after:
                start = time.perf_counter()
                entry = measure(entry)
                measure_after = seconds + 10 * (time.perf_counter() - start)
            save(entry)
            window = window[-100:]
    bar.close()
    if last_save < seconds:
        save(measure(record({})))
    model.load_state_dict(average)
    return model.eval()


@torch.no_grad()
def _follow(average: dict[str, Tensor], current: dict[str, Tensor], decay: float) -> None:
    """average <- decay * average + (1 - decay) * current, in one fused call for the floating tensors."""
    names = [key for key, value in current.items() if value.is_floating_point()]
    torch._foreach_lerp_([average[key] for key in names], [current[key] for key in names], 1 - decay)
    for key, value in current.items():
        if not value.is_floating_point():
            average[key].copy_(value)

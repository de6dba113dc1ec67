"""One optimisation over several processes, one GPU each: every batch of cameras is split, gradients are averaged.

`accelerate launch -m geodream_lib refine RUN` (on CPUs, torchrun) starts them. All hold the same scene, the same
networks and a generator in the same state. Each draws the random numbers of the whole batch and keeps its own rows, so
that the processes together take the very steps that one process would take with that batch.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate import PartialState
from accelerate.utils import gather, reduce
from jaxtyping import Float, Shaped
from torch import Tensor

from geodream_lib.errors import InputError


@dataclass(frozen=True)
class Processes:
    """How many work together, and which this one is; alone by default."""

    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this one writes files and shows progress."""
        return self.rank == 0

    def share(self, total: int) -> slice:
        """This process's rows of a batch.

        Raises:
            InputError: the batch cannot be split evenly.
        """
        if total % self.count:
            raise InputError(
                f"a batch of {total} cannot be split evenly over {self.count} processes; set batch_size to a multiple "
                f"of {self.count}, such as --set refine.batch_size={self.count * -(-total // self.count)}"
            )
        rows = total // self.count
        return slice(self.rank * rows, (self.rank + 1) * rows)

    def mean(self, values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The average over all processes."""
        return values if self.count == 1 else reduce(values, "mean")

    def gather(self, rows: Shaped[Tensor, " b *d"]) -> Shaped[Tensor, " n *d"]:
        """The rows of all processes, in order."""
        return rows if self.count == 1 else gather(rows)

    def any(self, flag: bool) -> bool:
        """Whether it is true in any of them."""
        return bool(self.mean(torch.tensor([float(flag)], device=self._device())).item())

    def average_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Replace gradients by their average over the processes; what none of them reached stays without one."""
        if self.count == 1:
            return
        parts = [torch.zeros_like(p).view(-1) if p.grad is None else p.grad.reshape(-1).float() for p in parameters]
        reached = torch.tensor([float(p.grad is not None) for p in parameters], device=parts[0].device)
        *parts, reached = self.mean(torch.cat([*parts, reached])).split([len(part) for part in [*parts, reached]])
        for parameter, part, is_reached in zip(parameters, parts, reached.tolist(), strict=True):
            if is_reached:
                parameter.grad = part.view_as(parameter).to(parameter.dtype).clone()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process goes through the block before the others do."""
        if self.count == 1:
            yield
            return
        with PartialState().main_process_first():
            yield

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            PartialState().wait_for_everyone()

    def generator(self, like: torch.Generator) -> torch.Generator:
        """A generator in the state of `like` that gives this process its rows of what is drawn (see `draw_rows`)."""
        split = SplitGenerator(like.device)
        split.set_state(like.get_state())
        split.processes = self
        return split

    def _device(self) -> torch.device:
        return torch.device("cpu") if self.count == 1 else PartialState().device


class SplitGenerator(torch.Generator):
    """A generator that all processes hold in the same state; `draw_rows` knows which rows are whose."""

    processes = Processes()


def draw_rows(draw: Callable[[int], Tensor], rows: int, generator: torch.Generator) -> Shaped[Tensor, " {rows} *d"]:
    """`draw(rows)`; of a `SplitGenerator`, this process's part of what `draw` gives for the batch of all processes."""
    processes = generator.processes if isinstance(generator, SplitGenerator) else Processes()
    total = rows * processes.count
    return draw(total)[processes.share(total)]


def current_processes() -> Processes:
    """Those that `accelerate launch` (or torchrun) started this one with; alone where nobody did."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes()
    state = PartialState(cpu=not torch.cuda.is_available())
    return Processes(state.process_index, state.num_processes)

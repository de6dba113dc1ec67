"""Schedules as data: what changes over a run is a curve that can be read, plotted, stretched and compared.

A learning-rate schedule holds factors: a group's rate at a step is its base rate times `schedule.value(step)`. The
schedules of timesteps and loss weights hold the values themselves.
"""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Real

from geodream_lib.errors import InputError


@dataclass(frozen=True)
class Schedule:
    """A piecewise curve over the optimisation steps of one stage, flat before its first and after its last knot.

    knots: `(step, value)` in order of step. Two knots at one step are a jump, and the step itself has the later value.
    total_steps: the length of the run the knots were written for; `scaled` stretches the curve to another length.
    exponent: shape of every piece, `value = v0 + (v1 - v0) * u**exponent` for u from 0 to 1 (1 is a straight line).
    """

    knots: tuple[tuple[float, float], ...]
    total_steps: int
    exponent: float = 1.0

    def __post_init__(self) -> None:
        steps = [step for step, _ in self.knots]
        numbers = [number for knot in self.knots for number in knot]
        if not steps or steps != sorted(steps) or not all(math.isfinite(number) for number in numbers):
            raise InputError(f"schedule knots {self.knots} must be finite (step, value) pairs in order of their step")
        if self.total_steps < 1 or self.exponent <= 0:
            raise InputError(
                f"a schedule needs total_steps >= 1 and exponent > 0, not {self.total_steps} and {self.exponent}"
            )

    def value(self, step: float) -> float:
        """The curve at an optimisation step, counted from 0."""
        after = bisect.bisect_right(self.knots, step, key=lambda knot: knot[0])
        if after == 0:
            return self.knots[0][1]
        if after == len(self.knots):
            return self.knots[-1][1]
        (start, v0), (end, v1) = self.knots[after - 1 : after + 1]
        return v0 + (v1 - v0) * ((step - start) / (end - start)) ** self.exponent

    def values(self, steps: Sequence[float] | Real[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """The curve at many steps, for a plot."""
        return np.array([self.value(step) for step in np.asarray(steps).tolist()])

    def scaled(self, total_steps: int) -> "Schedule":
        """The same curve stretched to a run of `total_steps` steps."""
        factor = total_steps / self.total_steps
        return replace(self, knots=tuple((step * factor, value) for step, value in self.knots), total_steps=total_steps)


def constant(value: float = 1.0) -> Schedule:
    """No schedule. As the volume's rate it is the paper's ablation, Fig. 4 (c): the geometry collapses."""
    return Schedule(((0, value),), total_steps=1)


def parse_schedule(text: str) -> Schedule:
    """A curve by its corners, `PART:VALUE` with the part of the run from 0 to 1, as a person types it.

    `"0:0.1 0.5:1 1:0.3"` grows to the full rate until half of the run and falls from there.

    Raises:
        InputError: not such corners, or not in order.
    """
    try:
        knots = tuple(tuple(float(number) for number in corner.split(":")) for corner in text.split())
        if not knots or any(len(knot) != 2 or not 0 <= knot[0] <= 1 for knot in knots):
            raise ValueError
    except ValueError as error:
        raise InputError(
            f"{text!r} is not a schedule; expected corners PART:VALUE with the part of the run from 0 to 1, such as "
            "'0:0.1 0.5:1 1:0.3'"
        ) from error
    return Schedule(knots, total_steps=1)


def annealed(start: float, v0: float, v1: float, end: float, total_steps: int) -> Schedule:
    """`v0` until step `start`, then linearly to `v1` at step `end`: `[start, v0, v1, end]` in threestudio's configs.

    The released GeoDream configs use it with `end = start + 1`, a hard switch: the largest timestep drops from 98 % to
    50 % (40 % in the texture stage) after a tenth to a third of the run. In its field stage the released
    code counts every batch three times, once per optimiser, so its step 15000 of 60000 is batch 5000 of 20000.
    """
    return Schedule(((start, v0), (end, v1)), total_steps)


def square_root(v0: float, v1: float, total_steps: int) -> Schedule:
    """From `v0` to `v1` with the square root of the step: fast first, then slow (timestep annealing of HiFA)."""
    return Schedule(((0, v0), (total_steps, v1)), total_steps, exponent=0.5)


# The paper's rule, section 3.2: the volume's rate is small at first, so that the prior's shape survives while the views
# still disagree, and grows for detail; the texture's rate goes the other way, so that the content does not drift late.
# The text gives no numbers; the ends of both curves are those of the released config below.


def paper_volume(total_steps: int) -> Schedule:
    """Learning-rate factor of the cost volume in the paper's form: from a tenth to the full rate over the whole run."""
    return Schedule(((0, 0.1), (total_steps, 1.0)), total_steps)


def paper_texture(total_steps: int) -> Schedule:
    """Learning-rate factor of hash encoding and texture decoder in the paper's form: from full rate to a twentieth."""
    return Schedule(((0, 1.0), (total_steps, 0.05)), total_steps)


# The released config. Steps are batches: 20000 of them end the run, so neither ramp is walked to its end.


def released_volume() -> Schedule:
    """Learning-rate factor of the cost volume as released (base 1e-3).

    Full rate for 3500 steps, then a drop to a tenth and a ramp back to the full rate at step 23500. Unlike the paper's
    rule the prior is first optimised at full rate.
    """
    return Schedule(((0, 1.0), (3500, 1.0), (3500, 0.1), (23500, 1.0)), total_steps=20000)


def released_texture() -> Schedule:
    """Learning-rate factor of the texture as released (base 5e-3 for the hash encoding, 5e-4 for the decoder).

    Full rate for 3500 steps, then a ramp down to a twentieth at step 23500.
    """
    return Schedule(((3500, 1.0), (23500, 0.05)), total_steps=20000)

"""Schedules: values at their corners, stretching, and the released curves."""

from pathlib import Path

import numpy as np
import pytest

from geodream_lib.errors import InputError
from geodream_lib.schedules import (
    Schedule,
    annealed,
    constant,
    paper_texture,
    paper_volume,
    parse_schedule,
    released_texture,
    released_volume,
    square_root,
)


def test_flat_outside_and_straight_between_the_knots() -> None:
    schedule = Schedule(((10, 1.0), (20, 3.0)), total_steps=30)
    assert [schedule.value(step) for step in (0, 10, 15, 20, 30)] == [1.0, 1.0, 2.0, 3.0, 3.0]
    np.testing.assert_array_equal(schedule.values(range(10, 21, 5)), [1.0, 2.0, 3.0])


def test_a_jump_takes_effect_at_its_own_step() -> None:
    schedule = Schedule(((0, 1.0), (5, 1.0), (5, 0.1), (10, 1.0)), total_steps=10)
    assert schedule.value(4) == schedule.value(4.999) == 1.0
    assert schedule.value(5) == 0.1


def test_a_one_step_anneal_is_a_switch() -> None:
    schedule = annealed(15000, 0.98, 0.5, 15001, total_steps=60000)
    assert [schedule.value(step) for step in (0, 15000, 15001, 60000)] == [0.98, 0.98, 0.5, 0.5]


def test_square_root_falls_fast_first() -> None:
    schedule = square_root(1.0, 0.0, total_steps=100)
    assert schedule.value(25) == pytest.approx(0.5)
    assert schedule.value(100) == 0.0


def test_the_paper_grows_the_volume_and_fades_the_texture() -> None:
    """Section 3.2: small then growing for the cost volume, and vice versa for the texture."""
    volume, texture = paper_volume(1000).values(range(1001)), paper_texture(1000).values(range(1001))
    assert (np.diff(volume) > 0).all() and (np.diff(texture) < 0).all()
    assert volume[-1] == texture[0] == 1.0


def test_the_release_starts_the_volume_at_full_rate_and_then_cuts_it() -> None:
    volume, texture = released_volume(), released_texture()
    corners = (0, 3499, 3500, 13500, 23500, 30000)
    np.testing.assert_allclose(volume.values(corners), [1, 1, 0.1, 0.55, 1, 1])
    np.testing.assert_allclose(texture.values(corners), [1, 1, 1, 0.525, 0.05, 0.05])


@pytest.mark.parametrize("schedule", [released_volume(), released_texture(), paper_volume(77), square_root(1, 0, 9)])
def test_scaling_keeps_the_shape(schedule: Schedule) -> None:
    scaled = schedule.scaled(500)
    assert scaled.total_steps == 500
    for fraction in (0.0, 0.1, 0.3, 0.5, 0.9, 1.0):
        value = schedule.value(fraction * schedule.total_steps)
        assert scaled.value(fraction * 500) == pytest.approx(value)


def test_constant_stays_constant_at_every_length() -> None:
    assert set(constant(0.3).scaled(500).values(range(501))) == {0.3}


@pytest.mark.parametrize(
    ("knots", "total_steps"), [((), 10), (((5, 1.0), (3, 1.0)), 10), (((0, float("nan")),), 10), (((0, 1.0),), 0)]
)
def test_bad_knots_are_refused(knots: tuple, total_steps: int) -> None:
    with pytest.raises(InputError):
        Schedule(knots, total_steps)


def test_a_curve_can_be_typed_by_its_corners() -> None:
    schedule = parse_schedule("0:0.1 0.5:1 1:0.3").scaled(200)
    assert [schedule.value(step) for step in (0, 50, 100, 150, 200)] == pytest.approx([0.1, 0.55, 1.0, 0.65, 0.3])


@pytest.mark.parametrize("text", ["", "0:0.1 0.5", "0:a", "0:1:2", "-1:1 1:1", "0:1 2:1", "1:0 0:1", "0:nan"])
def test_corners_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="schedule"):
        parse_schedule(text)


@pytest.mark.needs_golden("one2345")
def test_released_curves_step_by_step(golden: Path) -> None:
    """Rates and annealed values as the released code computed them, at steps around every corner."""
    with np.load(golden / "one2345" / "geodream_schedules.npz") as file:
        expected = {name: file[name] for name in file.files}
    curves = {
        "lr/geometry.encoding": released_texture(),
        "lr/geometry.feature_network": released_texture(),
        "lr/geometry.volume": released_volume(),
    }
    for name, schedule in curves.items():
        rates = expected[name]
        np.testing.assert_allclose(rates[0] * schedule.values(expected["iteration"]), rates, rtol=1e-9, err_msg=name)

    steps = expected["anneal_step"]
    opaque = annealed(10000, 0.0, 1000.0, 10001, total_steps=60000)
    largest_timestep = annealed(15000, 0.98, 0.5, 15001, total_steps=60000)
    np.testing.assert_allclose(opaque.values(steps), expected["lambda_opaque"])
    np.testing.assert_allclose(largest_timestep.values(steps), expected["max_step_percent"])

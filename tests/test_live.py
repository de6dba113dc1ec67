"""The notebooks' instruments without a browser: what the sliders say, and a panel that only looks on.

tests/browser_explorer has the browser.
"""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from geodream_lib.cameras import Cameras, orbit
from geodream_lib.errors import InputError
from geodream_lib.guidance import Guided
from geodream_lib.live import LivePanel, ScheduleExplorer
from geodream_lib.live import picture as live_picture
from geodream_lib.live.drawing import TILE, PanelDrawing
from geodream_lib.live.explorer import four_corners
from geodream_lib.live.picture import Pace
from geodream_lib.presets import Guidance, Refine, load_preset
from geodream_lib.refine import Refinement
from geodream_lib.scenes import Shot
from geodream_lib.schedules import (
    Schedule,
    annealed,
    constant,
    paper_texture,
    paper_volume,
    released_texture,
    released_volume,
    square_root,
)

STEPS = 12
SIDES = orbit([0.0, 180.0], 15.0, 2.75, 40.0, 8)


class Dot(nn.Module):
    """The smallest scene: one colour on every pixel, and a little noise from the run's generator."""

    def __init__(self) -> None:
        super().__init__()
        self.color = nn.Parameter(torch.full((3,), 0.5))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"color": [self.color]}

    def forward(self, cameras: Cameras, step: int, generator: torch.Generator) -> Shot:
        images = self.color.expand(len(cameras), cameras.height, cameras.width, 3)
        return Shot(images + 0.1 * torch.rand(3, generator=generator), {})

    def preview(self, cameras: Cameras) -> dict[str, torch.Tensor]:
        return {"colour": self.color.expand(len(cameras), cameras.height, cameras.width, 3)}


class White:
    """A guidance that wants white; from a given call on it gives no number."""

    def __init__(self, calls: int = 10**6) -> None:
        self.left = calls

    def __call__(self, images, cameras_c2w, azimuth, elevation, t_range, generator) -> Guided:
        self.left -= 1
        loss = (images - 1).square().mean() * (1 if self.left >= 0 else float("nan"))
        return Guided(loss, torch.tensor(1.0), torch.zeros(len(images), dtype=torch.long), torch.zeros(1, 1, 1, 1))


def dot(wish: White | None = None, **changes: object) -> Refinement:
    settings = {"steps": STEPS, "batch_size": 1, "size": constant(2), "rates": {"color": 0.1}}
    return Refinement(Dot(), wish or White(), Refine(**settings | changes), torch.Generator().manual_seed(3))


@pytest.fixture
def explorer() -> ScheduleExplorer:
    return ScheduleExplorer(load_preset("lab").refine)


def same(one: Schedule, other: Schedule) -> bool:
    steps = np.linspace(0, 999, 800)
    return np.allclose(one.scaled(1000).values(steps), other.scaled(1000).values(steps), atol=1e-9)


@pytest.mark.parametrize(
    "preset, volume, texture",
    [
        ("this run", paper_volume(1), paper_texture(1)),
        ("paper", paper_volume(1), paper_texture(1)),
        ("released", released_volume(), released_texture()),
        ("constant", constant(), constant()),
    ],
)
def test_a_preset_of_the_explorer_is_the_librarys_curve(explorer, preset, volume, texture):
    explorer.preset.value = preset
    schedules = explorer.schedules()["schedules"]
    assert same(schedules["volume"], volume)
    assert same(schedules["encoding"], texture) and same(schedules["texture"], texture)
    assert same(schedules["lora"], constant())


def test_the_explorer_starts_with_the_timesteps_of_the_run(explorer):
    said = explorer.schedules()
    assert same(said["t_max"], annealed(0, 0.75, 0.25, 1, 1)) and said["t_min"] == constant(0.02)
    explorer.preset.value = "released"
    assert explorer.schedules()["t_max"].value(0.24) == 0.98 and explorer.schedules()["t_max"].value(0.26) == 0.5


def test_a_dragged_slider_makes_the_curves_ones_own_and_is_seen(explorer):
    before = explorer.picture.png
    explorer.curves["volume"].values[0].value = 0.7
    assert explorer.preset.value == "own"
    assert explorer.schedules()["schedules"]["volume"].value(0) == 0.7
    assert explorer.picture.png.startswith(b"\x89PNG") and explorer.picture.png != before
    explorer.preset.value = "paper"
    assert same(explorer.schedules()["schedules"]["volume"], paper_volume(1))


def test_a_fork_goes_on_with_what_the_explorer_says():
    settings = replace(load_preset("lab").refine, guidance=Guidance(kind="sds"))
    explorer = ScheduleExplorer(settings)
    assert list(explorer.curves) == ["volume", "texture", "largest timestep"], "without VSD there is no LoRA"
    mesh = ScheduleExplorer(dot(guidance=Guidance(kind="sds")).settings)
    assert list(mesh.curves) == ["largest timestep"], "a scene with other parameters still has timesteps"
    fork = dot(t_max=annealed(0, 0.9, 0.3, 10, 10)).fork(**mesh.schedules())
    assert fork.settings.t_max.value(0.5) == mesh.schedules()["t_max"].value(0.5)


def test_the_range_of_timesteps_is_never_empty(explorer):
    explorer.t_min.value = 0.5
    said = explorer.schedules()
    assert said["t_min"].value(0) == min(said["t_max"].values([0, 0.5, 1]))


@pytest.mark.parametrize(
    "schedule, places, values",
    [
        (constant(0.4), (1 / 3, 2 / 3), (0.4, 0.4, 0.4, 0.4)),
        (annealed(5, 0.9, 0.5, 5, 20), (0.25, 0.25), (0.9, 0.9, 0.5, 0.5)),
        (Schedule(((0, 0), (3, 1), (10, 0)), 10), (0.3, 0.3), (0, 1, 1, 0)),
    ],
)
def test_four_corners_say_the_same_curve(schedule, places, values):
    assert four_corners(schedule) == (pytest.approx(places), pytest.approx(values))


@pytest.mark.parametrize("schedule", [square_root(0, 1, 10), Schedule(((1, 0), (2, 1), (3, 0)), 10)])
def test_a_curve_that_four_corners_cannot_say_is_refused(schedule):
    with pytest.raises(InputError, match="two inner corners"):
        four_corners(schedule)


def test_looking_on_changes_nothing():
    alone, watched = dot(), dot()
    for _ in range(STEPS):
        alone.step()
    LivePanel({"watched": watched}, SIDES).finish()
    assert torch.equal(alone.scene.color, watched.scene.color)


def test_a_panel_leaves_the_kernel_usable_and_can_be_paused_between_two_steps():
    run = dot(steps=10**6)

    async def someone_at_the_notebook() -> int:
        panel = LivePanel({"run": run}, SIDES)
        panel.start()
        while run.step_number < 3:  # a cell that is run meanwhile
            await asyncio.sleep(0.001)
        panel.pause()
        paused = run.step_number
        await asyncio.sleep(0.1)
        assert run.step_number == paused
        panel.start()
        while run.step_number < paused + 2:
            await asyncio.sleep(0.001)
        panel.pause()
        return len(panel.picture.png)

    assert asyncio.run(someone_at_the_notebook()) > 0


def test_forks_stay_at_the_same_step_and_differ_by_their_changes_alone(monkeypatch):
    step, taken = Refinement.step, []
    monkeypatch.setattr(Refinement, "step", lambda run: (taken.append(run.step_number), step(run))[1])
    run = dot()
    run.run(4)
    panel = LivePanel({"run": run}, SIDES)
    same, slower = panel.fork("run"), panel.fork("run", rates={"color": 0.01})
    assert list(panel.runs) == ["run", "fork 1", "fork 2"] == list(panel.chosen.options)
    panel.finish()
    assert taken[4:] == [number for number in range(4, STEPS) for _ in panel.runs]
    assert torch.equal(run.scene.color, same.scene.color)
    assert (run.scene.color > slower.scene.color).all()


def test_the_button_forks_with_the_changes_of_the_moment():
    async def press() -> LivePanel:
        panel = LivePanel({"run": dot()}, SIDES, changes=lambda: {"rates": {"color": 0.02}})
        panel._ipython_display_()
        fork = next(button for button in panel.box.children[0].children if button.description == "fork")
        fork.click()
        await asyncio.sleep(0.01)
        return panel

    panel = asyncio.run(press())
    assert panel.runs["fork 1"].settings.rates == {"color": 0.02}


def test_a_run_that_leaves_the_finite_pauses_with_its_reason():
    async def watch() -> LivePanel:
        panel = LivePanel({"run": dot(White(calls=2))}, SIDES)
        panel.start()
        while panel.running:
            await asyncio.sleep(0.001)
        return panel

    panel = asyncio.run(watch())
    assert panel.status.value.startswith("paused: FloatingPointError step 2: loss is not finite")
    with pytest.raises(FloatingPointError, match="step 2"):
        panel.finish()


def test_drawing_takes_its_share_and_no_more(monkeypatch):
    now, done = [100.0], []
    monkeypatch.setattr(live_picture.time, "monotonic", lambda: now[0])
    pace = Pace(seconds=0.5, share=0.1)

    def draw(seconds: float) -> None:
        done.append(now[0])
        now[0] += seconds

    for _ in range(300):
        pace.do(lambda: draw(0.2))
        now[0] += 0.01
    assert np.diff(done) == pytest.approx(2.0, abs=0.02)
    done.clear()
    now[0] += 2
    for _ in range(100):
        pace.do(lambda: draw(0.001))
        now[0] += 0.01
    assert np.diff(done) == pytest.approx(0.5, abs=0.02), "nobody sees more than two pictures a second"


def test_every_learning_rate_has_a_line_style_of_its_own():
    rates = {f"rate.{name}": 1e-3 for name in ("volume", "encoding", "texture", "background", "lora")}
    histories = {"VSD": [{"step": 0, "guidance": 1.0, "lora": 0.2} | rates], "SDS": [{"step": 0, "guidance": 2.0}]}
    drawing = PanelDrawing()
    views = {name: {"colour": torch.rand(2, 8, 8, 3), "normals": torch.rand(2, 8, 8, 3)} for name in histories}
    picture = drawing.of(histories, views)
    assert len({str(drawing.lines["VSD", name]._dash_pattern) for name in rates}) == len(rates)
    assert ("SDS", "lora") not in drawing.lines, "SDS has no second network"
    assert picture.height - drawing.of(dict(list(histories.items())[:1]), dict(list(views.items())[:1])).height == TILE


def test_only_a_kernel_can_start_a_panel():
    with pytest.raises(InputError, match="finish"):
        LivePanel({"run": dot()}, SIDES).start()
    with pytest.raises(InputError, match="at least one"):
        LivePanel({}, SIDES)

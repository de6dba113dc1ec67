"""The schedule explorer: the curves of section 3.2 and figure 6 under the hand, as `Refinement.fork` takes them."""

from collections.abc import Callable

import ipywidgets as widgets
from IPython.display import display
from matplotlib.figure import Figure

from geodream_lib.errors import InputError
from geodream_lib.live.picture import LivePicture
from geodream_lib.presets import Refine, load_preset
from geodream_lib.schedules import (
    Schedule,
    constant,
    paper_texture,
    paper_volume,
    released_texture,
    released_volume,
)
from geodream_lib.second_network import LORA
from geodream_lib.show import DPI

# One curve for each rate of the paper: eta_1; eta_2 and eta_3 together; eta_4.
CURVES = {"volume": ("volume",), "texture": ("encoding", "texture"), "LoRA": (LORA,)}
TIMESTEP = "largest timestep"
OWN = "own"


def four_corners(schedule: Schedule) -> tuple[tuple[float, float], tuple[float, float, float, float]]:
    """A curve over a run as two inner places (parts of the run, 0..1) and four values: start, both places, end.

    Two inner corners at one place are a jump. A curve with fewer corners is cut where it is straight.

    Raises:
        InputError: the curve has more inner corners, or is bent between them.
    """
    curve = schedule.scaled(1)
    inner = [knot for knot in curve.knots if 0 < knot[0] < 1]
    if len(inner) > 2 or curve.exponent != 1:
        raise InputError(
            f"the sliders have straight pieces between two inner corners, not {len(inner)} corners with exponent "
            f"{curve.exponent:g}; give the explorer a simpler schedule"
        )
    if not inner:
        inner = [(place, curve.value(place)) for place in (1 / 3, 2 / 3)]
    (first, second), (low, high) = zip(inner[0], inner[-1], strict=True)
    return (first, second), (curve.value(0), low, high, curve.value(1))


class CurveSliders:
    """Sliders for the four corners of one curve with values from 0 to 1."""

    def __init__(self, redraw: Callable[[dict], None]) -> None:
        def slider(name: str) -> widgets.FloatSlider:
            return widgets.FloatSlider(min=0, max=1, step=0.01, description=name)

        self.values = [slider(name) for name in ("start", "1st corner", "2nd corner", "end")]
        self.places = widgets.FloatRangeSlider(min=0, max=1, step=0.01, description="corners at")
        self.box = widgets.VBox([widgets.HBox(self.values[:2]), widgets.HBox(self.values[2:]), self.places])
        for control in (self.places, *self.values):
            control.observe(redraw, "value")

    def put(self, schedule: Schedule) -> None:
        """Move the sliders to a curve; errors as `four_corners`."""
        self.places.value, values = four_corners(schedule)
        for control, value in zip(self.values, values, strict=True):
            control.value = value

    def schedule(self) -> Schedule:
        places = (0.0, *self.places.value, 1.0)
        return Schedule(tuple((place, control.value) for place, control in zip(places, self.values, strict=True)), 1)


class ScheduleExplorer:
    """Schedules of a refinement to be dragged: learning rates as factors of their base, timesteps as fractions.

    Show it as the last line of a cell; `refinement.fork(**explorer.schedules())` goes on with what the sliders say.

    Args:
        settings: of the refinement; its own schedules are the start. Rates it does not have get no sliders.

    Raises:
        InputError: one of its schedules has more than four corners (see `four_corners`).
    """

    def __init__(self, settings: Refine) -> None:
        self.settings = settings
        known = {**settings.rates, **({LORA: 0.0} if settings.guidance.kind == "vsd" else {})}
        self.groups = {title: names for title, names in CURVES.items() if known.keys() >= set(names)}
        self.preset = widgets.Dropdown(options=["this run", "paper", "released", "constant", OWN], description="curves")
        self.curves = {title: CurveSliders(self._moved) for title in [*self.groups, TIMESTEP]}
        self.t_min = widgets.FloatSlider(
            min=0, max=0.5, step=0.01, value=settings.t_min.value(0), description="smallest"
        )
        tabs = [curve.box for curve in self.curves.values()]
        tabs[-1].children = [*tabs[-1].children, self.t_min]
        self.box = widgets.VBox([self.preset, widgets.Tab(tabs, titles=list(self.curves))])
        self.picture = LivePicture()
        self._drawing = _Drawing(settings, self.groups)
        self._putting = False
        self.preset.observe(self._chosen, "value")
        self.t_min.observe(self._moved, "value")
        self._chosen({"new": self.preset.value})

    def schedules(self) -> dict[str, object]:
        """What the sliders say, as keywords of `Refinement.fork`: `schedules`, `t_min`, `t_max`."""
        schedules = dict(self.settings.schedules)
        for title, names in self.groups.items():
            schedules |= dict.fromkeys(names, self.curves[title].schedule())
        t_max = self.curves[TIMESTEP].schedule()
        t_min = min(self.t_min.value, *(value for _, value in t_max.knots))  # the range may not be empty
        return {"schedules": schedules, "t_min": constant(t_min), "t_max": t_max}

    def _preset(self, name: str) -> dict[str, Schedule]:
        """The curves of a preset; the paper says nothing of timesteps, so its preset leaves the run's own."""
        own = self.settings.t_max
        if name == "this run":
            first = {title: self.settings.schedules.get(names[0], constant()) for title, names in self.groups.items()}
            return first | {TIMESTEP: own}
        volume, texture, t_max = {
            "paper": (paper_volume(1), paper_texture(1), own),
            "released": (released_volume(), released_texture(), load_preset("paper").refine.t_max),
            "constant": (constant(), constant(), constant(own.value(0))),
        }[name]
        rates = {"volume": volume, "texture": texture, "LoRA": constant()}
        return {title: rates[title] for title in self.groups} | {TIMESTEP: t_max}

    def _chosen(self, change: dict) -> None:
        """A preset moves all sliders; "own" leaves them where they are."""
        if change["new"] != OWN:
            self._putting = True  # one picture for all of them
            for title, schedule in self._preset(change["new"]).items():
                self.curves[title].put(schedule)
            self._putting = False
        self._redraw()

    def _moved(self, _: dict) -> None:
        if self._putting:
            return
        if self.preset.value == OWN:
            self._redraw()
        else:
            self.preset.value = OWN

    def _redraw(self) -> None:
        self.picture.replace(self._drawing.of(self.schedules()))

    def _ipython_display_(self) -> None:
        display(self.box)
        self.picture.show()


class _Drawing:
    """The picture of an explorer; its lines are moved, not drawn anew, so that it follows a dragging hand."""

    def __init__(self, settings: Refine, groups: dict[str, tuple[str, ...]]) -> None:
        self.figure = Figure(figsize=(8.5, 2.6), dpi=DPI)
        rates, times = self.figure.subplots(1, 2)
        self.figure.subplots_adjust(left=0.06, right=0.99, bottom=0.19, top=0.88, wspace=0.15)
        bases = {**settings.rates, LORA: settings.guidance.lora_rate}
        self.lines = {}
        for title, names in groups.items():
            label = f"{title}: x {', '.join(f'{bases[name]:g}' for name in names)}"
            (self.lines[names[0]],) = rates.plot([], [], "o-", markersize=3, label=label)
        (self.band,) = times.fill([0, 1], [0, 0], alpha=0.4)
        rates.set(title="learning rates, as factors", xlabel="part of the run", xlim=(0, 1), ylim=(0, 1.05))
        times.set(title="timesteps that are drawn", xlabel="part of the run", xlim=(0, 1), ylim=(0, 1.05))
        if groups:
            rates.legend(fontsize=8)

    def of(self, changes: dict[str, object]) -> Figure:
        for name, line in self.lines.items():
            line.set_data(*zip(*changes["schedules"][name].knots, strict=True))
        low = changes["t_min"].value(0)
        self.band.set_xy([*changes["t_max"].knots, (1, low), (0, low)])
        return self.figure

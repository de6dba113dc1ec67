"""The live panel: refinements that run side by side while one looks on, pauses, and forks."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import ipywidgets as widgets
from IPython.display import display
from jaxtyping import Float
from torch import Tensor

from geodream_lib.cameras import Cameras
from geodream_lib.errors import InputError
from geodream_lib.interrupt import interrupt_later
from geodream_lib.live.drawing import PanelDrawing
from geodream_lib.live.picture import LivePicture, Pace
from geodream_lib.refine import Refinement

PAUSE = 0.01  # seconds between two steps in which the kernel does what else it was asked for


class LivePanel:
    """Refinements that take their steps in turn, with their numbers and pictures drawn as they go.

    Show it as the last line of a cell, then press the buttons, or call `start`, `pause`, `fork` and `finish`. It runs
    in short slices between the kernel's other work, not in a thread of its own: cells can be run meanwhile, and
    whatever is done is done between two steps. Drawing takes at most a tenth of the time,
    and happens at most twice a second.

    Args:
        runs: by the name they are shown under; who is behind takes the next step, so all stay at the same step.
        cameras: where the pictures are taken from; few and small, because they are rendered again and again.
        changes: what the button "fork" changes, as keywords of `Refinement.fork`, such as `explorer.schedules`.

    Raises:
        InputError: no runs.
    """

    def __init__(
        self,
        runs: Mapping[str, Refinement],
        cameras: Cameras,
        changes: Callable[[], Mapping[str, object]] = dict,
    ) -> None:
        if not runs:
            raise InputError("a panel needs at least one refinement, such as {'paper': refinement}")
        self.runs, self.cameras, self.changes = dict(runs), cameras, changes
        self.running = False
        self.picture, self._drawing = LivePicture(), PanelDrawing()
        self._views: dict[str, tuple[int, dict[str, Float[Tensor, "n h w 3"]]]] = {}
        self._drawing_pace, self._views_pace = Pace(0.5, 0.06), Pace(0.5, 0.04)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task | None = None

        buttons = {name: widgets.Button(description=name) for name in ("continue", "pause", "fork")}
        self.chosen = widgets.Dropdown(options=list(self.runs), layout=widgets.Layout(width="12em"))
        self.status = widgets.Label()
        self.box = widgets.VBox([widgets.HBox([*buttons.values(), self.chosen]), self.status])
        # A front end may press buttons from another thread: what touches a run waits for the end of its step.
        buttons["continue"].on_click(lambda _: self._soon(self.start))
        buttons["pause"].on_click(lambda _: self.pause())
        buttons["fork"].on_click(lambda _: self._soon(lambda: self.fork(self.chosen.value, **self.changes())))
        self._redraw()

    def start(self) -> None:
        """Go on, and return at once.

        Raises:
            InputError: there is no notebook kernel to run in; `finish` needs none.
        """
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError as error:
            raise InputError("only a notebook can start a panel; elsewhere call finish()") from error
        self.running = True
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._slices())

    def pause(self) -> None:
        """Stop after the step that is being taken; `start` and `finish` go on."""
        self.running = False

    def finish(self) -> None:
        """Take all steps that are left, here and now. Pausing, or the kernel's interrupt, stops between two of them.

        Raises:
            FloatingPointError: see `Refinement.step`.
            KeyboardInterrupt: the kernel was interrupted.
        """
        self.running = True
        try:
            while self._advance():
                pass
        finally:
            self.running = False
            self._redraw()

    def fork(self, name: str, **changes: object) -> Refinement:
        """Put a fork of a run beside it, from its present step (see `Refinement.fork`): "fork 1", "fork 2", …."""
        fork = self.runs[name].fork(**changes)
        number = 1 + sum(other.startswith("fork ") for other in self.runs)
        self.runs[f"fork {number}"] = fork
        self.chosen.options = list(self.runs)
        self._redraw()
        return fork

    async def _slices(self) -> None:
        try:
            while self._advance():
                await asyncio.sleep(PAUSE)
            self._redraw()
        except (Exception, KeyboardInterrupt) as error:  # there is no cell to say it in
            self.running = False
            self.status.value = f"paused: {type(error).__name__} {error}"

    def _advance(self) -> bool:
        """One step of the run that is behind, and a drawing if it is time; False when there is nothing to do."""
        left = [run for run in self.runs.values() if run.step_number < run.settings.steps]
        if not left or not self.running:
            self.running = False
            return False
        with interrupt_later() as interrupted:
            min(left, key=lambda run: run.step_number).step()
            self._views_pace.do(lambda: self._look(self._behind()[:1]))
            self._drawing_pace.do(self._draw)
        if interrupted():
            raise KeyboardInterrupt
        return True

    def _redraw(self) -> None:
        """All of it, whatever it takes."""
        self._look(self._behind())
        self._draw()

    def _behind(self) -> list[str]:
        """Runs that have moved since their last pictures, the oldest pictures first."""
        taken = {name: self._views.get(name, (-1, {}))[0] for name in self.runs}
        return sorted((name for name, run in self.runs.items() if run.step_number != taken[name]), key=taken.get)

    def _look(self, names: Sequence[str]) -> None:
        for name in names:
            run = self.runs[name]
            seen = {kind: images.cpu().clone() for kind, images in run.preview(self.cameras).items()}
            self._views[name] = (run.step_number, seen)

    def _draw(self) -> None:
        views = {f"{name}, step {step}": seen for name, (step, seen) in self._views.items()}
        self.picture.replace(self._drawing.of({name: run.history for name, run in self.runs.items()}, views))
        steps = (f"{name} {run.step_number}/{run.settings.steps}" for name, run in self.runs.items())
        self.status.value = ("runs: " if self.running else "paused: ") + ", ".join(steps)

    def _soon(self, action: Callable[[], object]) -> None:
        """Do it between two steps, in the kernel's own thread; what goes wrong is said beside the buttons."""

        def act() -> None:
            try:
                action()
            except InputError as error:
                self.status.value = str(error)

        self._loop.call_soon_threadsafe(act)

    def _ipython_display_(self) -> None:
        with suppress(RuntimeError):  # without a kernel nobody can press a button
            self._loop = asyncio.get_running_loop()
        display(self.box)
        self.picture.show()

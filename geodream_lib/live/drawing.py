"""What a live panel shows: the numbers of several refinements over their steps, and the pictures of their scenes."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator
from PIL import Image
from torch import Tensor

from geodream_lib.second_network import LORA
from geodream_lib.show import DPI, contact_sheet

TILE = 96  # pixels of a picture
STYLES = ("-", "--", ":", "-.", (0, (8, 3)))  # of the rates' groups, in their order
RATE = "rate."  # what a record's learning rates are called, before the group's name
TITLES = {
    "guidance": "length of the gradient on the latents, by step",
    LORA: "loss of the second network",
    RATE: "learning rates",
}


class PanelDrawing:
    """Three diagrams, a colour for each run, above a row of pictures for each run.

    The diagrams are made once and only their lines are moved: most of the time of a drawing goes into letters.
    """

    def __init__(self) -> None:
        self.figure = Figure(figsize=(12, 2.2), dpi=DPI)
        self.canvas = FigureCanvasAgg(self.figure)
        self.figure.subplots_adjust(left=0.05, right=0.995, bottom=0.12, top=0.88, wspace=0.17)
        self.axes = dict(zip(TITLES, self.figure.subplots(1, len(TITLES)), strict=True))
        self.lines: dict[tuple[str, str], Line2D] = {}
        for axes, title in zip(self.axes.values(), TITLES.values(), strict=True):
            axes.set_title(title, fontsize=9)
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.tick_params(labelsize=8)
        self.axes[RATE].set_yscale("log")
        self.axes[RATE].yaxis.set(major_formatter="{x:g}", minor_locator=NullLocator())

    def of(
        self,
        histories: Mapping[str, Sequence[Mapping[str, float]]],
        views: Mapping[str, Mapping[str, Float[Tensor, "n h w 3"]]],
    ) -> Image.Image:
        """
        Args:
            histories: `Refinement.history` by run.
            views: `Refinement.preview` by the label of its row.
        """
        for number, (run, history) in enumerate(histories.items()):
            self._move(run, history, f"C{number}")
        self.canvas.draw()
        above = Image.fromarray(np.asarray(self.canvas.buffer_rgba())).convert("RGB")
        rows = {label: torch.cat(list(kinds.values())) for label, kinds in views.items()}
        below = contact_sheet(rows, tile=TILE)
        panel = Image.new("RGB", (max(above.width, below.width), above.height + below.height), "white")
        panel.paste(above, (0, 0))
        panel.paste(below, (0, above.height))
        return panel

    def _move(self, run: str, history: Sequence[Mapping[str, float]], color: str) -> None:
        """The lines of a run; one that has no number of a kind (SDS has no second network) gets no line there."""
        keys = [key for key in (history[-1] if history else {}) if key in self.axes or key.startswith(RATE)]
        rates = [key for key in keys if key.startswith(RATE)]
        for key in keys:
            axes = self.axes[RATE if key in rates else key]
            if (run, key) not in self.lines:
                style = STYLES[rates.index(key) % len(STYLES)] if key in rates else "-"
                label = key.removeprefix(RATE) if key in rates else run
                self.lines[run, key] = axes.plot([], [], linestyle=style, color=color, linewidth=1, label=label)[0]
                if key not in rates or len({name for name, _ in self.lines}) == 1:
                    axes.legend(fontsize=7)  # the rates' styles are the same for all runs
            points = [(record["step"], record[key]) for record in history if key in record]
            self.lines[run, key].set_data(*zip(*points, strict=True))
            axes.relim()
            axes.autoscale_view()

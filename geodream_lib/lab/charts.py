"""Charts of what the lab's networks learn from and how: where cameras stand, how trainings went, errors by azimuth."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from geodream_lib.errors import InputError
from geodream_lib.show import DPI

SECTOR = 15  # degrees
COLUMNS = 3  # of training curves


@dataclass(frozen=True)
class Curve:
    """One number of a training: its name in the log, the files of the log's parts in their order, how to call it."""

    key: str
    files: Sequence[Path]
    label: str


def azimuth_shares(azimuth: Float[np.ndarray, " n"]) -> Float[np.ndarray, " sectors"]:
    """Share of the views in each sector of 15 degrees, the first one centred on the front; they sum to 1."""
    sectors = np.round(np.asarray(azimuth) % 360 / SECTOR).astype(int) % (360 // SECTOR)
    return np.bincount(sectors, minlength=360 // SECTOR) / len(azimuth)


def azimuth_roses(sets: Mapping[str, Float[np.ndarray, " n"]]) -> Figure:
    """From where objects are seen, as one looks down on them: a petal for each sector, the front to the right.

    The area of a petal is its share. The dotted circle is what every sector would have if all directions were alike.
    Azimuths in degrees.
    """
    figure = Figure(figsize=(2.7 * len(sets), 2.9), dpi=DPI, layout="constrained")
    panels = figure.subplots(1, len(sets), squeeze=False, subplot_kw={"projection": "polar"})[0]
    sectors, ticks = np.arange(0, 360, SECTOR), np.array([1, 5, 10, 20, 40])
    for axes, (title, azimuth) in zip(panels, sets.items(), strict=True):
        shares = 100 * azimuth_shares(azimuth)
        axes.bar(np.radians(sectors), np.sqrt(shares), width=np.radians(SECTOR), edgecolor="white")
        fair = np.sqrt(100 * SECTOR / 360)
        axes.plot(np.radians(np.arange(361)), np.full(361, fair), ":", color="black", linewidth=1)
        axes.set_title(title, fontsize=9)
        axes.set_xticks(np.radians([0, 90, 180, 270]), ["front", "90°", "back", "270°"], fontsize=8)
        shown = ticks[ticks <= 1.3 * max(shares)]
        axes.set_yticks(np.sqrt(shown), [f"{tick} %" for tick in shown], fontsize=7)
        axes.set_rlabel_position(135)
    return figure


def read_curve(curve: Curve) -> tuple[list[float], list[float]]:
    """Minutes of training and the values there; a later file goes on where the one before it ended.

    Raises:
        InputError: a file is missing or damaged, or none of its lines has the number.
    """
    minutes, values, before = [], [], 0.0
    for path in curve.files:
        try:
            records = [json.loads(line) for line in Path(path).read_text().splitlines()]
            measured = [(before + record["minutes"], record[curve.key]) for record in records if curve.key in record]
            before += records[-1]["minutes"]
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise InputError(f"{path} is no log of a training ({error!r}); restore it") from error
        if not measured:
            raise InputError(f"{path} has no {curve.key!r}; its last line has {', '.join(records[-1])}")
        minutes += [minute for minute, _ in measured]
        values += [value for _, value in measured]
    return minutes, values


def training_curves(panels: Mapping[str, Sequence[Curve]]) -> Figure:
    """Held-out numbers against the minutes of training, a panel for each entry."""
    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(3.4 * COLUMNS, 2.5 * rows), dpi=DPI, layout="constrained")
    grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes, (title, curves) in zip(grid, panels.items(), strict=False):
        for curve in curves:
            axes.plot(*read_curve(curve), label=curve.label)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("minutes", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    return figure


def by_azimuth(azimuth: Sequence[float], curves: Mapping[str, Float[np.ndarray, "objects n"]], ylabel: str) -> Figure:
    """Means over objects against the azimuth of the view in degrees, with a band of one standard deviation."""
    figure = Figure(figsize=(7, 2.8), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for label, values in curves.items():
        mean, deviation = values.mean(axis=0), values.std(axis=0)
        (line,) = axes.plot(azimuth, mean, marker="o", markersize=3, label=label)
        axes.fill_between(azimuth, mean - deviation, mean + deviation, color=line.get_color(), alpha=0.15)
    axes.set(xlabel="azimuth of the predicted view, degrees", ylabel=ylabel, xticks=list(azimuth))
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return figure

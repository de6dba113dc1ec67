"""The scores as a table: which columns, in which order, how many digits, and what is better."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from geodream_lib.metrics.scores import Scores

Value = float | int | bool | None


@dataclass(frozen=True)
class Column:
    """One score. better: "higher" or "lower", or "" where it depends. paper: it is a column of the paper's table 2."""

    name: str
    short: str
    value: Callable[[Scores], Value]
    digits: int
    better: str
    paper: bool = False


COLUMNS = (
    Column("FID", "FID", lambda s: s.fid, 2, "lower", paper=True),
    Column("CLIP R-score", "CLIP-R", lambda s: s.clip_r_score, 3, "higher", paper=True),
    Column("Uni3D score", "Uni3D", lambda s: s.uni3d_score, 3, "higher", paper=True),
    Column("Cons. rate", "cons.", lambda s: s.consistent, 2, "higher", paper=True),
    Column("fronts at the back", "back", lambda s: s.janus and s.janus.back_fronts, 2, "lower"),
    Column("fronts", "fronts", lambda s: s.janus and s.janus.fronts, 1, ""),
    Column("saturation", "satur.", lambda s: s.saturation and s.saturation.mean, 2, ""),
    Column("clipped pixels", "clip", lambda s: s.saturation and s.saturation.clipped, 2, "lower"),
    Column("half transparent", "fog", lambda s: s.half_transparent, 2, "lower"),
    Column("Chamfer", "Chamfer", lambda s: s.shape and s.shape.scores.chamfer, 4, "lower"),
    Column("F-score", "F", lambda s: s.shape and s.shape.scores.f_score, 2, "higher"),
    Column("normal consistency", "NC", lambda s: s.shape and s.shape.scores.normal_consistency, 2, "higher"),
    Column("IoU", "IoU", lambda s: s.shape and s.shape.scores.iou, 2, "higher"),
)


def means(scores: Sequence[Scores]) -> dict[str, float | None]:
    """The mean of every column over the runs that have it, None where none has."""
    result = {}
    for column in COLUMNS:
        values = [float(value) for value in map(column.value, scores) if value is not None]
        result[column.name] = sum(values) / len(values) if values else None
    return result


def cell(column: Column, value: Value) -> str:
    """A value with the column's digits, "-" where there is none."""
    return "-" if value is None else f"{float(value):.{column.digits}f}"


def format_table(scores: Sequence[Scores]) -> str:
    """Names of the columns, one line for each run, and one with the means where there are several."""
    rows = [[Path(score.run).name[:32], *(cell(column, column.value(score)) for column in COLUMNS)] for score in scores]
    if len(scores) > 1:
        mean = means(scores)
        rows.append(["mean", *(cell(column, mean[column.name]) for column in COLUMNS)])
    rows = [["run", *(column.short for column in COLUMNS)], *rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(text.rjust(width) if place else text.ljust(width) for place, (text, width) in enumerate(line))
        for line in (list(zip(row, widths, strict=True)) for row in rows)
    )

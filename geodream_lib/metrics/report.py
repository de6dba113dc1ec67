"""A page with pictures: one row for each run, the means, and what could not be measured. One file, nothing fetched."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from geodream_lib import show
from geodream_lib.metrics.evaluate import SHOWN, Evaluation
from geodream_lib.metrics.janus import FRONT, Janus
from geodream_lib.metrics.scores import Scores
from geodream_lib.metrics.table import COLUMNS, cell, means
from geodream_lib.storage import atomic_write

SHEET_WIDTH = 900  # pixels of a run's contact sheet
BETTER = {"higher": "&nbsp;&uarr;", "lower": "&nbsp;&darr;", "": ""}
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1060px; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: .4rem 0 }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums }
th { font-weight: 600; border-bottom-color: #888 }
td:first-child, th:first-child { text-align: left }
section { margin: 2.2rem 0 } h2 { font-size: 1.1rem; margin: 0 0 .3rem }
img, svg { display: block; width: 100%; height: auto }
details { margin: .3rem 0 } .note { color: #666; font-size: .9rem }
"""


def write_page(
    path: Path,
    title: str,
    evaluations: Sequence[Evaluation],
    fid: float | None,
    missing: dict[str, str],
    skipped: dict[str, str],
) -> None:
    """Write the page, atomically.

    Args:
        fid: of all renders together.
        missing: evaluators that are not there, and why. skipped: runs that were not measured, and why.
    """
    scores = [evaluation.scores for evaluation in evaluations]
    parts = [f"<h1>{html.escape(title)}</h1>", _means(scores, fid), _notes(missing, skipped)]
    parts += [_section(evaluation) for evaluation in evaluations]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    with atomic_write(path) as temporary:
        temporary.write_text(f'<!doctype html><html lang="en">{head}<body>{"".join(parts)}</body></html>\n')


def frontness_strip(janus: Janus) -> str:
    """The circle rolled out below the pictures, as SVG: how much each view looks like a front, and the threshold."""
    count = len(janus.frontness)
    # The first picture shows the front, and its middle is half a picture from the edge.
    first = count // (2 * SHOWN)
    around = janus.frontness[-first:] + janus.frontness[:-first]
    bars = "".join(
        f'<rect x="{k}" y="{1 - value:.3f}" width="1" height="{value:.3f}"/>' for k, value in enumerate(around)
    )
    return (
        f'<svg viewBox="0 0 {count} 1" preserveAspectRatio="none" style="height:36px" fill="#c8502d">'
        f'<rect width="{count}" height="1" fill="#f3f3f3"/>{bars}'
        f'<rect y="{1 - FRONT - 0.015}" width="{count}" height=".03" fill="#222"/></svg>'
    )


def _means(scores: Sequence[Scores], fid: float | None) -> str:
    """Table 2 of the paper by its columns, then the lab's own measures."""
    mean = means(scores)
    ours, more = ([c for c in COLUMNS if c.paper == paper] for paper in (True, False))
    lines = [f"<p>Runs measured: {len(scores)}</p>"]
    for title, columns in (("As in table 2 of the paper", ours), ("And beyond", more)):
        heads = "".join(f"<th>{column.name}{BETTER[column.better]}</th>" for column in columns)
        cells = "".join(f"<td>{cell(column, mean[column.name])}</td>" for column in columns)
        heads = heads.replace("-", "&#8209;")  # hyphens at which no line is broken
        lines.append(f"<table><tr><th>{title}</th>{heads}</tr><tr><td>mean</td>{cells}</tr></table>")
    if fid is not None:
        lines.append(f'<p class="note">FID of all renders against all references together: {fid:.2f}.</p>')
    lines.append(
        '<p class="note">Measured by this preset&rsquo;s own evaluators, so the values do not compare with the '
        "paper&rsquo;s. FID of few images is too large. Cons. rate: one front around, none at the back; an "
        "object without a front passes. Lengths where the true shape has radius 0.8.</p>"
    )
    return "".join(lines)


def _notes(missing: dict[str, str], skipped: dict[str, str]) -> str:
    lines = [f"{name} is not measured by: {reason}" for name, reason in missing.items()]
    lines += [f"{name} is not measured: {reason}" for name, reason in skipped.items()]
    return "".join(f'<p class="note">{html.escape(line)}</p>' for line in lines)


def _section(evaluation: Evaluation) -> str:
    scores = evaluation.scores
    strip = frontness_strip(scores.janus) if scores.janus else ""
    heads = "".join(f"<th>{column.short}</th>" for column in COLUMNS)
    cells = "".join(f"<td>{cell(column, column.value(scores))}</td>" for column in COLUMNS)
    notes = _notes({}, {name: reason for name, reason in scores.missing.items() if name != "janus" or not strip})
    return (
        f"<section><h2>{html.escape(scores.prompt)}</h2>"
        f"{_picture(show.grid(evaluation.shown, len(evaluation.shown)))}{strip}"
        f"<table><tr>{heads}</tr><tr>{cells}</tr></table>"
        f"<details><summary>seed {scores.seed}, preset {html.escape(scores.preset)}, all stages</summary>"
        f"{_contact_sheet(Path(scores.run))}{notes}</details></section>"
    )


def _contact_sheet(folder: Path) -> str:
    """The run's own picture of its stages, if it was drawn."""
    path = folder / "contact_sheet.png"
    if not path.is_file():
        return '<p class="note">no contact sheet was drawn</p>'
    with Image.open(path) as file:
        sheet = file.convert("RGB")
    sheet.thumbnail((SHEET_WIDTH, sheet.height))
    return _picture(sheet)


def _picture(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=88)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}">'

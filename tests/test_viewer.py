"""A viewer in a notebook is one output with a page for those who run scripts and a picture for those who do not."""

import base64
import html
import io
import re
from pathlib import Path

import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from geodream_lib.data import data_folder
from geodream_lib.errors import InputError
from geodream_lib.viewer import MeshViewer, view_mesh

SAMPLE = data_folder() / "samples" / "a-red-mushroom-on-a-log" / "mesh.glb"


@pytest.fixture(scope="module")
def viewer() -> MeshViewer:
    return view_mesh(SAMPLE, height=300, tile=64)


def test_a_notebook_gets_page_and_picture_in_one_output(viewer: MeshViewer) -> None:
    bundle, _ = DisplayFormatter().format(viewer)
    assert bundle.keys() == {"text/plain", "text/html", "image/jpeg"}
    assert len(bundle["text/plain"]) < 80


def test_the_poster_shows_the_mesh_from_four_sides(viewer: MeshViewer) -> None:
    poster = np.asarray(Image.open(io.BytesIO(viewer.poster)))
    assert poster.shape == (64, 4 * 64, 3)
    for side in np.split(poster, 4, axis=1):
        covered = (side < 240).any(axis=-1)
        assert 0.1 < covered.mean() < 0.6 and not covered[[0, -1]].any() and not covered[:, [0, -1]].any()


def test_the_frame_holds_the_page_whole_and_lies_over_the_poster(viewer: MeshViewer) -> None:
    output = viewer._repr_html_()
    (page,) = re.findall(r'srcdoc="([^"]*)"', output)
    assert html.unescape(page) == viewer.page
    assert output.index("<img") < output.index("<iframe")
    without_frame = re.sub(r"<iframe.*</iframe>", "", output, flags=re.DOTALL)
    assert base64.b64encode(viewer.poster).decode() in without_frame and "script" not in without_frame


def test_the_page_asks_no_server(viewer: MeshViewer) -> None:
    assert not re.search(r'(?:src|href)\s*=\s*["\']?https?:', viewer.page)


def test_a_file_that_is_no_mesh_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        view_mesh(tmp_path / "absent.glb")

"""The instruments in a real browser: headless Chromium, JupyterLab, a mouse.

`pip install -e ".[test,browser]"` and a Chromium (`apt-get install chromium`, or `playwright install chromium`), then
`pytest tests/browser_explorer`; with `--basetemp DIR` the screenshots are found in DIR.
"""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("jupyterlab", reason='JupyterLab is not installed: pip install -e ".[browser]"')
playwright = pytest.importorskip(
    "playwright.sync_api", reason='playwright is not installed: pip install -e ".[browser]"'
)
pytestmark = pytest.mark.slow

TOKEN = "explorer"
EXPLORER = """
from geodream_lib.live import LivePanel, ScheduleExplorer
from geodream_lib.presets import load_preset

explorer = ScheduleExplorer(load_preset("lab").refine)
explorer
"""
PANEL = """
import time

import torch
from geodream_lib.cameras import orbit
from geodream_lib.guidance import Guided
from geodream_lib.presets import Refine
from geodream_lib.refine import Refinement
from geodream_lib.scenes import Shot
from geodream_lib.schedules import constant


class Wall(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.color = torch.nn.Parameter(torch.tensor([0.1, 0.4, 0.8]))

    def parameter_groups(self):
        return {"color": [self.color]}

    def forward(self, cameras, step, generator):
        return Shot(self.preview(cameras)["colour"], {})

    def preview(self, cameras):
        return {"colour": self.color.expand(len(cameras), cameras.height, cameras.width, 3)}


def whiten(images, c2w, azimuth, elevation, t_range, generator):
    time.sleep(0.05)
    loss = (images - 1).square().mean()
    return Guided(loss, loss.detach(), torch.zeros(len(images), dtype=torch.long), torch.zeros(1, 1, 1, 1))


settings = Refine(steps=100000, batch_size=1, size=constant(2), rates={"color": 1e-3})
run = Refinement(Wall(), whiten, settings, torch.Generator().manual_seed(0))
panel = LivePanel({"run": run}, orbit([0.0, 180.0], 15.0, 2.75, 40.0, 16), lambda: {"rates": {"color": 0.02}})
panel
"""


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Playwright's own Chromium or the system's."""
    system = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with playwright.sync_playwright() as driver:
        own = Path(driver.chromium.executable_path)
        if not own.exists() and system is None:
            pytest.skip("there is no Chromium: playwright install chromium, or apt-get install chromium")
        chromium = driver.chromium.launch(
            executable_path=str(own) if own.exists() else system, args=["--no-sandbox"], timeout=120_000
        )
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, tmp_path: Path) -> Iterator:
    """A notebook with explorer and panel, open in JupyterLab, all of its cells run."""
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        cells=[nbformat.v4.new_code_cell(source.strip()) for source in (EXPLORER, PANEL)],
    )
    nbformat.write(notebook, tmp_path / "explorer.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": str(tmp_path),
        "ServerApp.open_browser": False,
        "ServerApp.allow_root": True,
        "IdentityProvider.token": TOKEN,
        "LabApp.expose_app_in_browser": True,
    }
    command = [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in options.items())]
    with (tmp_path / "jupyterlab.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(f"{address}/api?token={TOKEN}")
        page = browser.new_page(viewport={"width": 1300, "height": 1500})
        page.set_default_timeout(120_000)
        page.goto(f"{address}/doc/tree/explorer.ipynb?token={TOKEN}&reset")
        page.get_by_text("Python 3").first.wait_for()
        page.wait_for_function("window.jupyterapp && window.jupyterapp.shell.currentWidget")
        page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.ready }")
        page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
        yield page
    finally:
        server.terminate()
        server.wait(60)


def _wait_for(address: str) -> None:
    for _ in range(240):
        try:
            urllib.request.urlopen(address)
            return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(f"JupyterLab does not answer at {address}")


def pictures(page) -> list[str]:
    """The pictures in the outputs, in order: the explorer's, the panel's."""
    return page.eval_on_selector_all(".jp-OutputArea-output img", "images => images.map(image => image.src)")


def wait_for_change(page, number: int, before: str) -> str:
    changed = "([n, before]) => document.querySelectorAll('.jp-OutputArea-output img')[n].src != before"
    page.wait_for_function(changed, arg=[number, before])
    return pictures(page)[number]


def height(page, number: int) -> int:
    return page.evaluate(f"document.querySelectorAll('.jp-OutputArea-output img')[{number}].naturalHeight")


def test_a_dragged_slider_moves_the_curve_and_the_button_forks(page, tmp_path: Path):
    page.locator(".jp-OutputArea-output img").nth(1).wait_for()
    page.screenshot(path=tmp_path / "1_start.png")

    curve = pictures(page)[0]
    handle = page.locator(".widget-hslider .noUi-handle").first
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 30, y, steps=4)
    dragging = wait_for_change(page, 0, curve)  # the hand still holds the slider
    page.mouse.move(x + 70, y, steps=4)
    wait_for_change(page, 0, dragging)
    page.mouse.up()
    assert page.locator(".widget-dropdown select").first.evaluate("list => list.selectedOptions[0].text") == "own"
    page.screenshot(path=tmp_path / "2_dragged.png")

    def press(name: str) -> None:
        page.get_by_role("button", name=name, exact=True).click()

    panel = pictures(page)[1]
    press("continue")
    panel = wait_for_change(page, 1, wait_for_change(page, 1, panel))
    one = height(page, 1)
    press("fork")
    page.wait_for_function(
        f"document.querySelectorAll('.jp-OutputArea-output img')[1].naturalHeight > {one}"
    )  # a row of pictures more
    wait_for_change(page, 1, pictures(page)[1])
    press("pause")
    page.get_by_text("paused: run").wait_for()
    assert "fork 1" in page.get_by_text("paused: run").inner_text()
    page.screenshot(path=tmp_path / "3_forked.png")
    page.locator(".jp-OutputArea-output img").nth(1).screenshot(path=tmp_path / "4_two_rows.png")

    page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    shown = pictures(page)
    for _ in range(100):
        saved = nbformat.read(tmp_path / "explorer.ipynb", as_version=4)
        kept = [
            output.data["image/png"] for cell in saved.cells for output in cell.outputs if "image/png" in output.data
        ]
        if ["data:image/png;base64," + "".join(png.split()) for png in kept] == ["".join(src.split()) for src in shown]:
            return
        time.sleep(0.1)
    raise AssertionError("the saved page has other pictures than were seen last")

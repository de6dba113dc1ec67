"""What a notebook promises before it is run: a header, exercises with solutions, links, and a file fit for GitHub.

Executing the notebooks is another test (`pytest notebooks`, through nbmake).
"""

import ast
import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LARGEST = 1_200_000  # bytes; GitHub shows larger ones slowly or not at all
ABSOLUTE = re.compile(r"(?<![\w.:/~])/(?:home|root|Users|tmp|work|opt|content|mnt)/|[A-Z]:\\\\")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return request.param, json.loads(request.param.read_text())


def source(cell) -> str:
    return "".join(cell["source"])


def markdown(content) -> str:
    return "\n".join(source(cell) for cell in content["cells"] if cell["cell_type"] == "markdown")


def test_a_notebook_says_what_it_is_for_and_what_it_takes(notebook):
    _, content = notebook
    first = source(content["cells"][0])
    assert first.startswith("# ")
    for word in ("**Goal.**", "**You will**", "**Prerequisites.**", "**Time.**"):
        assert word in first, word


def test_exercises_come_last_with_solutions_that_parse(notebook):
    _, content = notebook
    last = source(content["cells"][-1])
    assert last.startswith("## Exercises")
    assert 1 <= last.count("<summary>Solution</summary>") == last.count("</details>")
    for code in re.findall(r"```python\n(.*?)```", last, flags=re.DOTALL):
        ast.parse(code)


def test_links_lead_somewhere(notebook):
    path, content = notebook
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", markdown(content)):
        assert (path.parent / target).exists(), target


def test_metadata_is_a_kernel_and_nothing_else(notebook):
    """Saved widget state makes GitHub refuse a notebook; execution times make every diff long."""
    _, content = notebook
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    assert content["metadata"].keys() <= {"kernelspec", "language_info"}
    assert all(cell["metadata"].keys() <= {"tags"} for cell in content["cells"])


def test_stored_outputs_are_small_whole_and_of_no_machine(notebook):
    path, content = notebook
    assert path.stat().st_size < LARGEST
    assert not ABSOLUTE.search("\n".join(map(source, content["cells"])))
    for cell in content["cells"]:
        outputs = cell.get("outputs", [])
        assert not (outputs and "no-stored-output" in cell["metadata"].get("tags", [])), "too large to be kept"
        for output in outputs:
            assert output["output_type"] != "error"
            data = output.get("data", {})
            assert not any("widget" in kind for kind in data), "a widget is dead without its kernel"
            assert "<iframe" not in "".join(data.get("text/html", "")), "a viewer is a megabyte; its picture stays"
            assert not ABSOLUTE.search("".join(output.get("text", []) + data.get("text/plain", [])))

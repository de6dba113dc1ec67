"""What every test shares: the golden outputs of the public systems, and shape checks of every annotated function."""

from pathlib import Path

import pytest
from jaxtyping import install_import_hook

ROOT = Path(__file__).resolve().parents[1]


def _checkable_modules() -> list[str]:
    """Modules whose jaxtyping shapes are checked at run time: all but those with numba kernels.

    The check wraps each function before its other decorators, and numba cannot compile a wrapped function. Packages
    (`__init__`) are left out because naming one would name every module below it.
    """
    files = [path for path in (ROOT / "geodream_lib").rglob("*.py") if path.name != "__init__.py"]
    plain = [path for path in files if "numba" not in path.read_text()]
    return [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in plain]


# The tower lets an int stand where a float is asked for, as the language does.
install_import_hook(_checkable_modules(), "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        metavar="DIR",
        type=Path,
        default=None,
        help="root of the golden outputs, one folder per fixture (default: tests/golden/data)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than about ten seconds on one core")
    config.addinivalue_line("markers", "needs_golden(*folders): golden folders that a test reads beside its own")
    given = config.getoption("golden")
    if given is not None and not given.is_dir():
        raise pytest.UsageError(f"--golden {given}: no such folder")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip a golden test when the --golden folder given lacks what it reads; the default folder has everything.

    tests/golden/test_<folder>.py and test_<folder>_<part>.py read <folder>; more are named by
    `@pytest.mark.needs_golden("vsd")`.
    """
    given = config.getoption("golden")
    if given is None:
        return
    default = ROOT / "tests" / "golden" / "data"
    for item in items:
        needed = {folder for mark in item.iter_markers("needs_golden") for folder in mark.args}
        if item.path.parent == ROOT / "tests" / "golden":
            stem = item.path.stem.removeprefix("test_")
            needed |= {folder.name for folder in default.iterdir() if f"{stem}_".startswith(f"{folder.name}_")}
        missing = sorted(folder for folder in needed if not (given / folder).is_dir())
        if missing:
            item.add_marker(pytest.mark.skip(reason=f"--golden {given} has no folder {', '.join(missing)}"))


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Path:
    """Root of the golden outputs: `golden / "vsd" / "parts.npz"`."""
    given = request.config.getoption("golden")
    return (given or ROOT / "tests" / "golden" / "data").resolve()

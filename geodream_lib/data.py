"""Where the repository's data lives: lab weights, sample artifacts and prompts."""

import os
from pathlib import Path

from geodream_lib.errors import InputError


def data_folder() -> Path:
    """The folder `GEODREAM_DATA`, else `data/` of the clone this package is installed from (`pip install -e .`).

    Raises:
        InputError: there is no such folder.
    """
    given = os.environ.get("GEODREAM_DATA")
    folder = Path(given).expanduser() if given else Path(__file__).resolve().parents[1] / "data"
    if not folder.is_dir():
        cause = "GEODREAM_DATA names it" if given else "the package is not installed from a clone"
        raise InputError(
            f"no data folder at {folder} ({cause}); install with pip install -e . from a clone of the repository, or "
            "set GEODREAM_DATA to its data/ folder"
        )
    return folder

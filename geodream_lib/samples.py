"""What the notebooks look at: the run that the first of them makes, or the one that comes with the repository."""

import os
import shutil
import tempfile
from pathlib import Path

from geodream_lib.data import data_folder
from geodream_lib.errors import InputError
from geodream_lib.presets import FAST_VARIABLE
from geodream_lib.run import Run, open_run

SAMPLE = "a-red-mushroom-on-a-log"


def quickstart_folder() -> Path:
    """Where notebook 00 makes its run: `runs/quickstart`.

    A shortened run (`GEODREAM_FAST=1`) finishes nothing worth looking at and has a folder of its own.
    """
    return Path("runs") / ("quickstart-fast" if os.environ.get(FAST_VARIABLE) == "1" else "quickstart")


def open_quickstart() -> Run:
    """The run of notebook 00 if it is finished, else a copy of the sample run in `data/samples/`.

    The copy is made once, in `runs/`, so that nothing a notebook does can change the sample.

    Raises:
        InputError: there is no sample run in the data folder.
    """
    made = Path("runs") / "quickstart"
    if (made / "mesh.glb").exists():
        return open_run(made)
    sample, copy = data_folder() / "samples" / SAMPLE, Path("runs") / "sample"
    if not (sample / "config.json").is_file():
        raise InputError(f"no sample run at {sample}; restore the data folder, or finish notebook 00 first")
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=copy.parent) as temporary:
            # Moved into place when it is whole: an interrupted copy is not taken for a run.
            shutil.copytree(sample, Path(temporary) / "run").rename(copy)
    return open_run(copy)

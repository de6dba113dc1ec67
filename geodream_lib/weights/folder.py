"""Where networks lie once they are ready to load."""

import os
from pathlib import Path

from geodream_lib.data import data_folder
from geodream_lib.errors import InputError
from geodream_lib.weights.entries import Network
from geodream_lib.weights.table import NETWORKS

ONE2345_FILE = "model.safetensors"


def weights_folder() -> Path:
    """The folder `GEODREAM_WEIGHTS`, else `~/.cache/geodream`; each public network is a folder of its name there."""
    return Path(os.environ.get("GEODREAM_WEIGHTS") or "~/.cache/geodream").expanduser()


def named_network(name: str) -> Network:
    """The entry of the table.

    Raises:
        InputError: there is none of this name.
    """
    if name not in NETWORKS:
        raise InputError(f"no public network {name!r}; choose one of {', '.join(NETWORKS)}")
    return NETWORKS[name]


def network_path(source: str) -> Path:
    """What to load for a network that a preset or a user names: a diffusers folder, or a file for "one2345".

    Args:
        source: a name of the table, a path below the data folder ("lab/zero123"), or any path.

    Raises:
        InputError: it is not there; the message has the command that gets it.
    """
    if source in NETWORKS:
        path = ready_path(source)
        if not path.exists():
            own = "fetch {0} --from FOLDER" if NETWORKS[source].kind == "diffusers" else "convert {0} FILE"
            raise InputError(
                f"{source} is not there yet ({path}); run: geodream weights fetch {source} "
                f"(or, with files you have: geodream weights {own.format(source)})"
            )
        return path
    # Lab networks come with the clone; the loader says what one lacks.
    if Path(source).parts[:1] == ("lab",):
        return data_folder() / source
    path = Path(source).expanduser()
    if not path.exists():
        raise InputError(f"no network at {source}: expected a path that exists, or a name: {', '.join(NETWORKS)}")
    return path


def ready_path(name: str) -> Path:
    """Where the network of the table lies when it is ready, whether it is or not."""
    folder = weights_folder() / name
    return folder / ONE2345_FILE if NETWORKS[name].kind == "one2345" else folder

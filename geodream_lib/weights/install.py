"""Make a public network ready to load: build its folder, check all of it, record where it came from."""

from collections.abc import Callable, Mapping
from pathlib import Path

from geodream_lib.storage import atomic_folder
from geodream_lib.weights.entries import Network
from geodream_lib.weights.folder import weights_folder
from geodream_lib.weights.record import write_record
from geodream_lib.weights.verify import check_network


def install(
    network: Network,
    build: Callable[[Path], None],
    sources: Mapping[str, Path],
    origin: str,
    out: Path | None = None,
) -> Path:
    """Have `build` fill an empty folder, check it and put it in its place: the place.

    Args:
        sources: the files it is made from, by their name in the table.
        origin: where these came from.
        out: its place, `<weights folder>/<name>` by default.

    Raises:
        InputError: what was built is not a whole network of this kind, or the folder cannot be written; nothing new is
            left behind, and what was there before is untouched.
    """
    out = out or weights_folder() / network.name
    with atomic_folder(out) as temporary:
        build(temporary)
        check_network(network, temporary)
        write_record(temporary, network, origin, sources)
    return out

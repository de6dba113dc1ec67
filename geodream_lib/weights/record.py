"""What lies beside ready weights: where they came from, and the size and sha256 of every file."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from geodream_lib.errors import InputError
from geodream_lib.storage import MARKER, read_json, write_json
from geodream_lib.weights.entries import Network

RECORD = "weights.json"
BLOCK = 1 << 22
SLOW = 1 << 28  # bytes from which a progress bar is worth showing


def describe(path: Path) -> dict[str, int | str]:
    """`{"bytes": ..., "sha256": ...}` of a file."""
    size, digest = path.stat().st_size, hashlib.sha256()
    bar = tqdm(total=size, desc=f"sha256 of {path.name}", unit="B", unit_scale=True, leave=False, disable=size < SLOW)
    with path.open("rb") as file, bar:
        while block := file.read(BLOCK):
            digest.update(block)
            bar.update(len(block))
    return {"bytes": size, "sha256": digest.hexdigest()}


def write_record(folder: Path, network: Network, origin: str, sources: Mapping[str, Path]) -> None:
    """Write the record of `folder`.

    Args:
        origin: repository and commit, or folder, that the files came from.
        sources: the files it was made from, by their name in the table.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MARKER]
    record = {
        "network": network.name,
        "licence": f"{network.licence.name}, {network.licence.url}",
        "origin": origin,
        "sources": {name: describe(path) for name, path in sources.items()},
        "files": {path.relative_to(folder).as_posix(): describe(path) for path in files},
    }
    write_json(folder / RECORD, record)


def check_record(folder: Path) -> dict[str, dict] | None:
    """Compare every file with the record: the record's `sources`, or None where there is no record.

    Raises:
        InputError: a file is gone or changed since it was installed.
    """
    if not (folder / RECORD).is_file():
        return None
    record = read_json(folder / RECORD)
    files, sources = record.get("files"), record.get("sources")
    if not isinstance(files, dict) or not isinstance(sources, dict):
        raise InputError(f"{folder / RECORD} is damaged; expected the files of this folder, fetch it anew")
    for name, known in files.items():
        path = folder / name
        if not path.is_file() or describe(path) != known:
            change = "changed since it was" if path.is_file() else "is gone since it was"
            raise InputError(f"{path} {change} installed; fetch or convert the network anew")
    return sources

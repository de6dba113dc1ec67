"""The one place that touches the network: named files of one repository, resumed, compared with the hub's own sums."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from geodream_lib.errors import InputError
from geodream_lib.weights.entries import File, Network, Repository
from geodream_lib.weights.record import describe

GIGABYTE = 1e9


class GoneError(Exception):
    """The repository, its pinned state or one of its files is no longer on the hub."""


def download(network: Network, repository: Repository, folder: Path) -> str:
    """Bring the files of `network` from `repository` to `folder`: the commit they are of.

    Files that are there are kept, one that is there in part is completed. Of a file in two precisions the one that the
    table names is preferred. Only files of the table are asked for, never code.

    Raises:
        GoneError: it is not on the hub (any more).
        InputError: no connection, no permission, no space, or a file is not what the hub or the table says it is.
    """
    try:
        info = HfApi().model_info(repository.id, revision=repository.revision, files_metadata=True)
        listed = {sibling.rfilename: sibling for sibling in info.siblings or ()}
        chosen = _choose(network, repository, listed)
        missing = [name for name in chosen if not (folder / name).is_file()]
        _check_space(network, folder, sum((listed[name].size or 0) - _have(folder / name) for name in missing))
        for name, file in chosen.items():
            path = folder / name
            if name in missing:
                _get(hf_hub_url(repository.id, name, revision=info.sha), path, listed[name].size)
            known = File(name, listed[name].size, listed[name].lfs.sha256 if listed[name].lfs else None)
            _check_file(path, [known, file] if repository in network.repositories else [known])
    except GatedRepoError as error:
        raise InputError(
            f"{repository.url} wants its terms accepted: log in there and accept them, then run `hf auth login` and "
            "this command again (or download the files by hand and use --from FOLDER)"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError, DisabledRepoError) as error:
        raise GoneError(f"{repository.id} is gone from the hub or was never there") from error
    except HFValidationError as error:
        raise InputError(f"{repository.id!r} is not the name of a repository; expected OWNER/NAME") from error
    except (InputError, GoneError):
        raise
    except Exception as error:  # the HTTP library under the hub's changed, and with it the errors of a connection
        raise _interrupted(repository, error) from error
    return f"{repository.id}@{info.sha}"


def _get(url: str, path: Path, size: int | None) -> None:
    """Download one file, from where an earlier run stopped; the library's own download begins anew in every run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    if size is not None and _have(path) > size:
        part.unlink()
    with part.open("ab") as file:
        http_get(
            url,
            file,
            resume_size=_have(path),
            headers=build_hf_headers(),
            expected_size=size,
            displayed_filename=path.name,
        )
    part.replace(path)


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _have(path: Path) -> int:
    """Bytes of a file that is not whole yet."""
    return _part(path).stat().st_size if _part(path).is_file() else 0


def _interrupted(repository: Repository, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return InputError(
        f"cannot download from {repository.url}: {reason}; the same command goes on where it stopped, or download the "
        "files by hand and use --from FOLDER"
    )


def _choose(network: Network, repository: Repository, listed: Mapping) -> dict[str, File]:
    """Name in the repository of every file of the table, and the table's entry."""
    chosen = {}
    for file in network.files:
        name = next((name for name in file.spellings if name in listed), None)
        if name is None:
            raise GoneError(f"{repository.id} has no {file.path}")
        # Sizes and sums of the table are of the precision it names.
        chosen[name] = file if name == file.path else File(name)
    return chosen


def _check_space(network: Network, folder: Path, missing: int) -> None:
    converted = 0 if network.kind == "diffusers" else network.ready * GIGABYTE
    free = shutil.disk_usage(folder).free
    if missing + converted > free:
        raise InputError(
            f"{network.name} needs {(missing + converted) / GIGABYTE:.1f} GB and {folder} has {free / GIGABYTE:.1f} GB "
            "left; free some space, or set GEODREAM_WEIGHTS to a folder on another disk"
        )


def _check_file(path: Path, known: list[File]) -> None:
    """Compare a downloaded file with what is known of it; one that differs is removed, so that it is fetched anew."""
    found = describe(path)
    for file in known:
        for what, expected in (("bytes", file.bytes), ("sha256", file.sha256)):
            if expected is not None and found[what] != expected:
                path.unlink()
                raise InputError(
                    f"{path.name} has {what} {found[what]}, published are {expected}; it was damaged on the way or "
                    "replaced since, it was removed: run the command again, or choose another source with --repo"
                )

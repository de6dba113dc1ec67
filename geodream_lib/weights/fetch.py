"""Get a public network: from the hub, or from a folder of files that were downloaded by hand; then make it ready."""

import logging
import os
import re
import shutil
from pathlib import Path

from geodream_lib.errors import InputError
from geodream_lib.weights.convert import convert_into, installed_tokenizer
from geodream_lib.weights.entries import Network, Repository
from geodream_lib.weights.folder import named_network, ready_path, weights_folder
from geodream_lib.weights.hub import GoneError, download
from geodream_lib.weights.install import install

logger = logging.getLogger(__name__)


def fetch(name: str, folder: Path | None = None, repo: str | None = None, offline: bool = False) -> Path:
    """Make the network `name` of the table ready: the folder it lies in, `<weights folder>/<name>`.

    A download goes to `<weights folder>/downloads/`; it can be interrupted and goes on, and it is removed when the
    network is ready. What is ready already is fetched again only from a `folder` or `repo` that is named.

    Args:
        folder: with the needed files, in the layout of the repository or, where their names differ, side by side.
        repo: `owner/name` on the hub instead of the table's repositories.
        offline: do without the network.

    Raises:
        InputError: the files cannot be had, or they are not those of this network; nothing is left behind but the
            finished part of the download.
    """
    network = named_network(name)
    if folder is None and repo is None and ready_path(name).exists():
        return weights_folder() / name
    tokenizer = installed_tokenizer(network) if network.kind == "mvdream" else None
    downloads, origin = None, str(folder)
    if folder is None:
        downloads, origin = _from_hub(network, repo, offline)
    sources = find_files(network, folder or downloads)
    missing = [file.path for file in network.files if file.installed not in sources]
    if missing:
        raise InputError(
            f"{folder or downloads} lacks {len(missing)} of the {len(network.files)} files of {name}: "
            f"{', '.join(missing)}; they are at {network.repositories[0].url}"
        )

    def build(place: Path) -> None:
        if network.kind == "diffusers":
            _copy(sources, place, may_link=folder is None)
        else:
            # CLIP's vocabulary comes with its weights.
            weights, *vocabulary = sources.values()
            words = vocabulary[0].parent if vocabulary else tokenizer
            convert_into(place, network.kind, weights, tokenizer=words)

    ready = install(network, build, sources, origin)
    if downloads is not None:
        shutil.rmtree(downloads, ignore_errors=True)
    return ready


def _from_hub(network: Network, repo: str | None, offline: bool) -> tuple[Path, str]:
    """Download what is not there yet: the folder of the files, and where they are from."""
    if repo is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise InputError(f"{repo!r} is not the name of a repository; expected OWNER/NAME")
    repositories = network.repositories if repo is None else (Repository(repo),)
    place = network.name if repo is None else f"{network.name} of {repo.replace('/', ' ')}"
    downloads = weights_folder() / "downloads" / place
    have = find_files(network, downloads) if downloads.is_dir() else {}
    if offline or is_offline():
        if len(have) < len(network.files):
            raise InputError(by_hand(network, repositories[0]))
        return downloads, repositories[0].id
    try:
        downloads.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {downloads}: {error}; set GEODREAM_WEIGHTS to another folder") from error
    gone = []
    for repository in repositories:
        try:
            return downloads, download(network, repository, downloads)
        except GoneError as error:
            gone.append(str(error))
            logger.warning("%s", error)
    raise InputError(
        f"no source of {network.name} is left: {'; '.join(gone)}; name another repository with --repo OWNER/NAME, or a "
        "folder with the files with --from FOLDER"
    )


def is_offline() -> bool:
    """Whether the environment forbids the network (`HF_HUB_OFFLINE`, as for every program that uses the hub)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def by_hand(network: Network, repository: Repository) -> str:
    """One line for those who cannot or will not have the network touched: which files, from where, and then what."""
    names = ", ".join(file.path for file in network.files)
    return (
        f"offline, and {network.name} is not there: download {names} from {repository.url}/tree/"
        f"{repository.revision or 'main'} on a machine that may, keep the folders, and run: geodream weights fetch "
        f"{network.name} --from FOLDER"
    )


def find_files(network: Network, folder: Path) -> dict[str, Path]:
    """The network's files in `folder`, by their installed name: in the repository's layout, or flat.

    Raises:
        InputError: there is no such folder, or a file in it is a link that leads out of it.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}; expected one with the files of {network.name}")
    names = [Path(file.installed).name for file in network.files]
    found = {}
    for file in network.files:
        places = [folder / name for name in file.spellings]
        if names.count(Path(file.installed).name) == 1:
            places += [folder / Path(name).name for name in file.spellings]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            continue
        if not path.resolve().is_relative_to(folder.resolve()):
            raise InputError(
                f"{path} is a link to {path.resolve()}, out of the folder; expected the files themselves "
                "(cp -rL copies what links lead to)"
            )
        found[file.installed] = path
    return found


def _copy(sources: dict[str, Path], place: Path, may_link: bool) -> None:
    """Bring files to their installed names; a download needs no second copy on the same disk."""
    for name, source in sources.items():
        target = place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not (may_link and _link(source, target)):
            shutil.copyfile(source, target)


def _link(source: Path, target: Path) -> bool:
    """Whether a second name for the file could be made; not every file system has them."""
    try:
        os.link(source, target)
    except OSError:
        return False
    return True

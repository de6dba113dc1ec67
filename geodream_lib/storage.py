"""Files that are either whole or absent: every artifact of a run is written beside its place and then moved there."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from geodream_lib.errors import InputError

# In every folder of `atomic_folder`: it says that the folder may be replaced by a newer one.
MARKER = ".geodream"


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it into place when the block ends without an error.

    A full disk, a crash or `kill -9` inside the block leaves the earlier file as it was.

    Raises:
        InputError: the file cannot be written (disk full, folder not writable).
    """
    path, temporary = Path(path), None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        # mkstemp makes private files; an artifact is as readable as any file the user creates.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"cannot write {path}: {error}; free some space or choose another folder "
            "(the earlier version of this file, if there was one, is untouched)"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def fingerprint(path: Path) -> str:
    """Eight hexadecimal digits that change with a file's content: in the name of what was made from it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; it becomes `path` when the block ends without an error.

    An error inside the block removes the temporary folder and leaves what was at `path` as it was. A folder that this
    function wrote earlier is replaced; any other that holds something is the user's own and is refused at once.

    Raises:
        InputError: `path` is a file or somebody else's folder, or it cannot be written (disk full, not writable).
    """
    path, room = Path(path), None
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise InputError(f"{path} is not a folder; expected a new or an empty folder, choose another place")
    if path.is_dir() and any(path.iterdir()) and not (path / MARKER).is_file():
        raise InputError(f"{path} holds files of yours; expected a new or an empty folder, choose or empty one")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        room = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        temporary, earlier = room / "new", room / "earlier"
        temporary.mkdir()
        yield temporary
        (temporary / MARKER).touch()
        if path.is_dir():
            path.rename(earlier)
        try:
            temporary.rename(path)
        except OSError:
            if earlier.is_dir():
                earlier.rename(path)
            raise
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"cannot write {path}: {error}; free some space or choose another folder "
            "(the earlier version of this folder, if there was one, is untouched)"
        ) from error
    finally:
        if room is not None:
            shutil.rmtree(room, ignore_errors=True)


def write_json(path: Path | str, value: object) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def read_json(path: Path | str) -> dict:
    """Read a JSON object.

    Raises:
        InputError: the file is missing or is not a JSON object.
    """
    try:
        value = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}; expected a JSON file") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a {type(value).__name__}; expected a JSON object")
    return value


def save_tensors(path: Path | str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write named tensors (and string metadata) as one safetensors file, atomically."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as temporary:
        save_file(whole, temporary, metadata=dict(metadata or {}))


def load_tensors(path: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: `(tensors, metadata)`.

    Raises:
        InputError: the file is missing, truncated or not in the safetensors format.
    """
    try:
        with safe_open(Path(path), framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"cannot read weights from {path}: {error}; the file is missing, truncated or not a safetensors file, "
            "delete it to have it made again or fetch it anew"
        ) from error


def without_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, without the beginning."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def load_into(module: torch.nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy `tensors` into `module`; every name must exist on both sides with equal shape.

    Raises:
        InputError: a key is missing, unknown or has another shape; the message names the first few.
    """
    own = module.state_dict()
    problems = [f"missing {name}" for name in own if name not in tensors]
    problems += [f"unknown {name}" for name in tensors if name not in own]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        raise InputError(
            f"{source} does not fit {type(module).__name__}: {shown}; is it the weights of another network?"
        )
    module.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in tensors.items()})

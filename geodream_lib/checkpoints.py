"""Weights from elsewhere, read without trusting them: no code of the file runs, no number is used unseen.

A checkpoint of torch (`.ckpt`, `.pt`, `.pth`) is a pickle, and a pickle can call any function by its name. torch's
`weights_only` reader rebuilds tensors and plain values and calls nothing else.
"""

import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor
from torch.serialization import safe_globals

from geodream_lib.errors import InputError
from geodream_lib.storage import load_tensors

CHECKPOINTS = (".ckpt", ".pt", ".pth")
# What the checkpoints of Stable Diffusion and Zero123 name beside tensors: the trainer's record of its best epoch, and
# numbers of numpy. The names are known to be harmless and what they stand for is not needed.
INERT = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
)
REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
WHOLE = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class _Inert:
    """Stands in the place of every name in `INERT`; it takes anything and does nothing."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """All tensors of a `.safetensors`, `.ckpt`, `.pt` or `.pth` file by name, checked by `check_tensors`.

    Of a training checkpoint only its `state_dict` is taken. A dict of state dicts (One-2-3-45) gives
    `<network>.<parameter>`. Tensors are mapped from the file where its format allows it, so a checkpoint of 15 GB
    takes little memory.

    Raises:
        InputError: the file is missing, truncated, asks to run code, holds no tensors, or one that cannot be used.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        tensors, _ = load_tensors(path)
    elif path.suffix in CHECKPOINTS:
        tensors = _flatten(_load_checkpoint(path))
    else:
        raise InputError(f"cannot read weights from {path}: expected a file .safetensors or {', '.join(CHECKPOINTS)}")
    if not tensors:
        raise InputError(f"{path} holds no tensors by name; expected the weights of a network, fetch it anew")
    check_tensors(tensors.items(), str(path))
    return tensors


def check_tensors(tensors: Iterable[tuple[str, Tensor]], source: str) -> None:
    """Every tensor must be plain numbers in memory, as many as its shape says, and all of them finite.

    Raises:
        InputError: names the first that is not.
    """
    for name, tensor in tensors:
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.dtype not in REAL + WHOLE:
            kind = f"{tensor.dtype} on {tensor.device.type}, {tensor.layout}".replace("torch.", "")
            raise InputError(f"{source}: {name} is of type {kind}; expected dense 16- to 64-bit numbers, fetch it anew")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise InputError(
                f"{source}: {name} claims the shape {tuple(tensor.shape)} and stores fewer numbers; "
                "the file is damaged or made to fill the memory, fetch it anew"
            )
        # The extremes are NaN where any number is, and this takes one pass where isfinite takes several.
        if tensor.dtype in REAL and tensor.numel() and not all(torch.isfinite(x) for x in torch.aminmax(tensor)):
            raise InputError(f"{source}: {name} has values that are not finite; the file is damaged, fetch it anew")


def _load_checkpoint(path: Path) -> Mapping:
    """What was given to torch.save, with tensors mapped from the file (those of the oldest format are copied)."""
    try:
        is_archive = _check_archive(path)
        with safe_globals([(_Inert, name) for name in INERT]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except InputError:
        raise
    except Exception as error:  # a damaged pickle fails in any of its instructions, each with its own error
        named = re.search(r"GLOBAL (\S+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and named:
            raise InputError(
                f"{path} asks to load {named[1]}, which is code and no number; nothing of it was run. Expected tensors "
                "only: fetch the file from where it was published, or as .safetensors"
            ) from error
        reason = re.split(r"[\n.]", str(error).strip())[0] or type(error).__name__
        raise InputError(
            f"cannot read weights from {path}: {reason}; the file is missing, truncated or not a checkpoint of "
            "tensors, fetch it anew"
        ) from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}; expected tensors by name, or a dict of such dicts")
    return content


def _check_archive(path: Path) -> bool:
    """Whether the checkpoint is a zip archive (all since torch 1.6), after a look at its table of contents.

    torch writes plain, uncompressed entries below one folder; anything else was not written by it.
    """
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    for entry in entries:
        parts = PurePosixPath(entry.orig_filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or re.match(r"[A-Za-z]:", entry.orig_filename):
            raise InputError(f"{path} has an entry that leads out of it, {entry.orig_filename!r}; do not use this file")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise InputError(f"{path} has a compressed entry, {entry.filename!r}; torch writes none, fetch it anew")
    if len({entry.filename for entry in entries}) < len(entries):
        raise InputError(f"{path} has two entries of one name; torch writes none, fetch it anew")
    return True


def _flatten(content: Mapping) -> dict[str, Tensor]:
    content = content.get("state_dict", content)
    flat = {}
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(value, Tensor):
            flat[str(name)] = value.detach()
        elif isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": t.detach() for inner, t in value.items() if isinstance(t, Tensor)}
    return flat

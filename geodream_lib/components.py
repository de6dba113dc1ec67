"""One part of a network's folder, read by a class that is named here: whole, as safetensors, without foreign code.

Networks that work in the same latents or with the same words need not store the autoencoder or the text encoder once
more: `model_index.json` says which folder beside their own has it, `{"_shared": {"vae": "../text_to_image"}}`. The
libraries pass over a key that begins with an underscore.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from diffusers import ConfigMixin
from torch import nn
from transformers import PreTrainedModel

from geodream_lib.errors import InputError
from geodream_lib.storage import read_json

INDEX = "model_index.json"
SHARED = "_shared"


def part_home(source: Path | str, part: str) -> Path | str:
    """The folder in which `part`/ of a network lies: `source` itself, or the one its index says it is shared with.

    Raises:
        InputError: the index is damaged, or the folder it names has no such part or does not lie beside `source`.
    """
    index = Path(source) / INDEX
    if not index.is_file():
        return source
    shared = read_json(index).get(SHARED, {})
    if not isinstance(shared, dict):
        raise InputError(f"{index}: {SHARED} is a {type(shared).__name__}; expected part: folder, fetch it anew")
    return _beside(Path(source), part, shared[part]) if part in shared else source


def check_shared(folder: Path, shared: Mapping[str, str], parts: Collection[str]) -> None:
    """That the network of `folder`, before it is saved without its `shared` parts, will find them.

    Args:
        shared: for each of these parts the folder that has it, relative to `folder`.
        parts: those that can be shared.

    Raises:
        InputError: there is no such part, or it is not where `shared` says.
    """
    for part, target in shared.items():
        if part not in parts:
            raise InputError(f"{part} of {folder} cannot be shared; expected one of {', '.join(parts)}")
        _beside(folder, part, target)


def _beside(folder: Path, part: str, target: object) -> Path:
    """The folder `target`, relative to `folder`: inside the folder around it, wherever links lead, and with `part`."""
    room = folder.resolve().parent
    try:
        home = (folder.resolve() / str(target)).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{folder} shares {part} with {target!r}, which is no path: {error}; fetch it anew") from error
    if not isinstance(target, str) or Path(target).is_absolute() or room not in home.parents:
        raise InputError(
            f"{folder} shares {part} with {target!r}; expected a relative path to a folder inside {room}, "
            "fetch the network anew"
        )
    if not (home / part).is_dir():
        raise InputError(
            f"{folder} shares {part} with {home}, which has no {part}/; get that network too and keep both side by side"
        )
    return home


def read_component(kind: type, source: Path | str, part: str, **options: object) -> object:
    """`part` of a diffusers folder, or of a hub id; a local folder never reaches for the network.

    Raises:
        InputError: it is not there, is damaged, or is of another kind.
    """
    source = part_home(source, part)
    try:
        return kind.from_pretrained(str(source), subfolder=part, local_files_only=Path(source).is_dir(), **options)
    except Exception as error:  # each library has its own errors for a damaged file, down to a bare Exception
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        weights = " and its weights as safetensors (convert .bin files first)" if issubclass(kind, nn.Module) else ""
        raise InputError(
            f"cannot load {part}/ of {source}: {reason}; expected the config of a {kind.__name__}{weights}, local or "
            "under a hub id that can be reached; fetch it anew"
        ) from error


def read_network(kind: type[nn.Module], source: Path | str, part: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A network with all of its weights, none left over; the libraries only warn, and leave what is absent random.

    Raises:
        InputError: it cannot be read, or the weights are those of another network.
    """
    # The libraries name the argument differently.
    type_name = "dtype" if issubclass(kind, PreTrainedModel) else "torch_dtype"
    options = {"use_safetensors": True, "output_loading_info": True, type_name: dtype}
    network, info = read_component(kind, source, part, **options)
    problems = [f"{what} {key}" for what in ("missing", "unexpected", "mismatched") for key in info[f"{what}_keys"]]
    if problems:
        raise InputError(
            f"{source}/{part} does not fit {kind.__name__}: {problems[0]}, {len(problems)} such weights; the file "
            "belongs to another network or is incomplete, fetch it anew"
        )
    if isinstance(network, ConfigMixin):  # or the folder it is saved to would say where this one lies
        network.register_to_config(_name_or_path="")
    return network

"""One part of a network's folder, read by a class that is named here: whole, as safetensors, without foreign code."""

from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from geodream_lib.errors import InputError


def read_component(kind: type, source: Path | str, part: str, **options: object) -> object:
    """`part` of a diffusers folder, or of a hub id; a local folder never reaches for the network.

    Raises:
        InputError: it is not there, is damaged, or is of another kind.
    """
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
    return network

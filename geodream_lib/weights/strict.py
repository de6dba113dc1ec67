"""Nothing of a checkpoint is lost on the way: every key goes to one place, or is left out by a written rule."""

import re
from collections.abc import Iterable, Mapping, Sequence

from accelerate import init_empty_weights
from torch import Tensor, nn

from geodream_lib.errors import InputError
from geodream_lib.storage import load_into


def split(
    tensors: Mapping[str, Tensor], prefixes: Sequence[str], unused: Iterable[str], source: str
) -> dict[str, dict[str, Tensor]]:
    """The networks of a checkpoint by prefix, their names without it.

    Args:
        prefixes: of the networks, as "first_stage_model."; one that occurs nowhere gives an empty dict.
        unused: regular expressions of whole keys that are left out on purpose.

    Raises:
        InputError: a key is neither of a network nor left out on purpose.
    """
    parts, unknown = {prefix: {} for prefix in prefixes}, []
    for name, tensor in tensors.items():
        if any(re.fullmatch(pattern, name) for pattern in unused):
            continue
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        if prefix is None:
            unknown.append(name)
        else:
            parts[prefix][name.removeprefix(prefix)] = tensor
    if unknown:
        raise InputError(
            f"{source} has keys of no known network: {_listed('unknown', unknown)}; expected {', '.join(prefixes)}"
        )
    return parts


def rename(tensors: Mapping[str, Tensor], names: Mapping[str, str], source: str) -> dict[str, Tensor]:
    """The same tensors under their new names: every key of `tensors` is used once, every name is filled once.

    Args:
        source: what the tensors are, for the error ("the UNet of model.ckpt").

    Raises:
        InputError: a key is missing or unknown; the message counts them and lists the first few.
    """
    problems = [
        _listed("missing", [name for name in names if name not in tensors]),
        _listed("unknown", [name for name in tensors if name not in names]),
    ]
    if any(problems):
        raise InputError(
            f"{source} has other parameters than its configuration: {'; '.join(filter(None, problems))}; "
            "is it another network, or is the configuration that of another one?"
        )
    return {own: tensors[official] for official, own in names.items()}


def network(kind: type[nn.Module], config: Mapping, tensors: Mapping[str, Tensor], source: str) -> nn.Module:
    """`kind(**config)` that holds `tensors` themselves, in eval mode; nothing is copied or drawn at random.

    Raises:
        InputError: a name or a shape does not fit, or there is no such network.
    """
    # Parameters without memory, but real buffers: those that no checkpoint holds must be computed.
    try:
        with init_empty_weights():
            built = kind(**config)
    except (ValueError, TypeError) as error:
        raise InputError(f"{source}: no {kind.__name__} of this configuration: {error}") from error
    load_into(built, {name: tensor.to("meta") for name, tensor in tensors.items()}, source)
    built.load_state_dict(tensors, assign=True)
    return built.eval()


def _listed(word: str, names: Sequence[str]) -> str:
    """`3 missing (a, b, c)`, or nothing."""
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} {word} ({shown})" if names else ""

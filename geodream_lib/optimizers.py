"""The optimiser of the method, and its state as tensors with names, which safetensors can hold."""

import torch
from torch import Tensor


def adamw(groups: list[dict], weight_decay: float = 0.0) -> torch.optim.AdamW:
    """AdamW with the betas and the eps of the released code.

    Args:
        groups: `{"params": [...], "name": ...}`, with "lr" or without where it is set before every step.
    """
    # foreach is twice as fast as one parameter after the other.
    return torch.optim.AdamW(groups, betas=(0.9, 0.99), eps=1e-15, weight_decay=weight_decay, foreach=True)


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All moments and counts, by the number of their parameter: `0.exp_avg`, `0.exp_avg_sq`, `0.step`, …."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{key}": value for index, entry in state.items() for key, value in entry.items()}


def load_optimizer_state(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Read what `optimizer_state` gave, of an optimiser of the same parameters."""
    state = optimizer.state_dict()
    state["state"] = {}
    for name, value in tensors.items():
        index, key = name.split(".")
        state["state"].setdefault(int(index), {})[key] = value
    optimizer.load_state_dict(state)

"""What every training of a lab network is given: where its data and state lie, how long it may take, what it writes."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from geodream_lib.lab.training import Budget


@dataclass(frozen=True)
class Bench:
    """The surroundings of one training.

    work: folder of rendered data and training states, which git ignores. out: folder of the networks (`data/lab`).
    warm_start: begin with the network that `out` holds. photographs, turntables: shards of training data, as
    `lab.datasets` counts them.
    """

    work: Path
    out: Path
    device: torch.device
    budget: Budget
    warm_start: bool
    photographs: int
    turntables: int

    @property
    def data(self) -> Path:
        """Folder of the rendered shards, shared by all trainings."""
        return self.work / "data"

    def folder(self, name: str) -> Path:
        """Folder of the state and the log of the training `name`."""
        return self.work / name

    def keep_curve(self, name: str, network: Path, curve: str = "training.jsonl") -> None:
        """Put the log of the training `name` beside the network it made."""
        shutil.copy(self.folder(name) / "log.jsonl", network / curve)

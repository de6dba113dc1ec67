"""A row of a plan."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """What runs how often, and what it takes.

    stage: "views", "volume", "refine", "geometry" or "texture". parameters: of all networks that are loaded, and of
    what is trained. step_flops: of one step, of the largest where they differ. flops: of all. memory: peak of all
    tensors, bytes.
    """

    stage: str
    what: str
    steps: int
    sizes: str
    parameters: int
    step_flops: float
    flops: float
    memory: float

"""VSD's second network while it follows the renders (Algorithm 1, line 15): its optimiser, what it saw, its gain."""

import torch
from jaxtyping import Float
from torch import Tensor

from geodream_lib.guidance import Renders, VSDGuidance, load_lora_state, lora_parameters, lora_state
from geodream_lib.optimizers import adamw, load_optimizer_state, optimizer_state
from geodream_lib.processes import Processes
from geodream_lib.storage import without_prefix

LORA = "lora"  # its name among rates and schedules


class SecondNetwork:
    """epsilon_l of a guidance, and what it takes to train it on renders of now and of the last steps.

    Of several processes each asks for its own rows of a batch; all remember the renders of all.
    """

    def __init__(self, guidance: VSDGuidance, rate: float, processes: Processes):
        self.guidance, self.processes = guidance, processes
        self.optimizer = adamw([{"params": lora_parameters(guidance.lora), "name": LORA, "lr": rate}])
        self.renders = Renders()

    def keep(self, latents: Float[Tensor, "b c h w"], cameras_c2w: Float[Tensor, "b 4 4"]) -> None:
        """Remember renders for `loss` and `gain`."""
        self.renders.add(self.processes.gather(latents), self.processes.gather(cameras_c2w.to(latents.device)))

    def loss(self, rows: int, generator: torch.Generator) -> Float[Tensor, ""]:
        """The diffusion loss of so many remembered renders."""
        return self.guidance.lora_step(*self.renders.draw(rows, generator), generator)

    def gain(self, rows: int, seed: int) -> float:
        """How much better it knows remembered renders than the frozen network (see `lora_gain`).

        Its random numbers come from `seed`, so that a run does not notice being measured.
        """
        generator = torch.Generator().manual_seed(seed)
        return self.guidance.gain(*self.renders.draw(rows, generator), generator)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to keep of it."""
        return (
            {f"lora.{key}": value for key, value in lora_state(self.guidance.lora).items()}
            | {f"lora_optimizer.{key}": value for key, value in optimizer_state(self.optimizer).items()}
            | {f"renders.{key}": value for key, value in self.renders.state().items()}
        )

    def set_state(self, tensors: dict[str, Tensor], source: str, device: torch.device) -> None:
        """Read what `state` gave; other tensors are passed over.

        Raises:
            InputError: the low-rank weights in `source` are of another network.
        """
        load_lora_state(self.guidance.lora, without_prefix(tensors, "lora."), source)
        load_optimizer_state(self.optimizer, without_prefix(tensors, "lora_optimizer."))
        self.renders.set_state(without_prefix(tensors, "renders."), device)

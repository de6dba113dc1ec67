"""The latest renders as VSD's second network sees them: latents with their cameras, to be learnt from again."""

import torch
from jaxtyping import Float
from torch import Tensor

from geodream_lib.processes import draw_rows


class Renders:
    """A ring of the latest `capacity` latents and the cameras they were seen from.

    One render of every step is too little for the second network to follow a field that moves: a few steps on renders
    of the last minute cost no rendering and tell it what it will be asked about next.
    """

    def __init__(self, capacity: int = 64) -> None:
        self.capacity = capacity
        self.latents: Float[Tensor, "n c h w"] | None = None
        self.cameras: Float[Tensor, "n 4 4"] | None = None

    def __len__(self) -> int:
        return 0 if self.latents is None else len(self.latents)

    def add(self, latents: Float[Tensor, "b c h w"], cameras_c2w: Float[Tensor, "b 4 4"]) -> None:
        """Keep these, and forget the oldest beyond the capacity."""
        cameras_c2w = cameras_c2w.to(latents.device)
        if self.latents is not None:
            latents = torch.cat([self.latents, latents])
            cameras_c2w = torch.cat([self.cameras, cameras_c2w])
        self.latents, self.cameras = latents[-self.capacity :], cameras_c2w[-self.capacity :]

    def draw(self, count: int, generator: torch.Generator) -> tuple[Float[Tensor, "k c h w"], Float[Tensor, "k 4 4"]]:
        """`count` of them with their cameras, each at random."""

        def draw(rows: int) -> Tensor:
            return torch.randint(len(self), (rows,), generator=generator, device=generator.device)

        index = draw_rows(draw, count, generator).to(self.latents.device)
        return self.latents[index], self.cameras[index]

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to keep."""
        return {} if self.latents is None else {"latents": self.latents, "cameras": self.cameras}

    def set_state(self, state: dict[str, Tensor], device: torch.device) -> None:
        """The state of `state()`, on `device`."""
        self.latents, self.cameras = (
            state[name].to(device) if name in state else None for name in ("latents", "cameras")
        )

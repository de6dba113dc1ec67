"""What a ray sees that hits nothing: a learnt environment, or one random colour per image while training.

The random colours keep the optimisation from painting the object into the background, or the background onto the object
(the released configuration uses them with probability 0.5).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodream_lib.processes import draw_rows

# Colours [n, h, w, 3] in 0..1 for unit ray directions [n, h, w, 3].
BackgroundColor = Callable[[Tensor], Tensor]


def spherical_harmonics(directions: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 9"]:
    """Real spherical harmonics of unit directions, bands 0 to 2 ("degree 3"), order and signs of tiny-cuda-nn."""
    x, y, z = directions.unbind(-1)
    return torch.stack(
        [
            torch.full_like(x, 0.28209479177387814),
            -0.48860251190291987 * y,
            0.48860251190291987 * z,
            -0.48860251190291987 * x,
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.94617469575755997 * z * z - 0.31539156525251999,
            -1.0925484305920792 * x * z,
            0.54627421529603959 * (x * x - y * y),
        ],
        dim=-1,
    )


class Background(nn.Module):
    """Environment map as a small MLP on the ray direction: two hidden layers of 16, ReLU, no biases, sigmoid."""

    def __init__(self, hidden: int = 16):
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(9, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, 3, bias=False),
        )

    def forward(self, directions: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """Colours in 0..1 of unit directions in the world frame."""
        return torch.sigmoid(self.network(spherical_harmonics(directions)))


def solid_background(color: Float[Tensor, "*n 3"]) -> BackgroundColor:
    """One colour for all images (`color` [3]) or one per image (`color` [n, 3])."""

    def colors(directions: Tensor) -> Tensor:
        per_image = color.to(directions).expand(directions.shape[0], 3)
        return per_image[:, None, None].expand_as(directions)

    return colors


def training_background(
    environment: BackgroundColor, probability: float, generator: torch.Generator, *, darkest: float = 0.0
) -> BackgroundColor:
    """`environment`, replaced in each image by one random colour with the given probability.

    Every call draws anew from `generator` (a CPU generator); the channels of a colour are uniform in [darkest, 1].
    """

    def colors(directions: Tensor) -> Tensor:
        n = directions.shape[0]
        replaced = draw_rows(lambda rows: torch.rand(rows, generator=generator), n, generator) < probability
        colors = draw_rows(lambda rows: torch.rand(rows, 3, generator=generator), n, generator)
        random = solid_background(darkest + (1 - darkest) * colors)(directions)
        return torch.where(replaced.to(directions.device)[:, None, None, None], random, environment(directions))

    return colors

"""The Janus problem measured: does the back look like a front, and how many fronts stand around the object?"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

BACK = 135.0  # degrees: a camera further from the front than this sees the back
FRONT = 0.5  # frontness from which a picture looks like a front
DIP = 0.25  # by how much frontness falls between two fronts
MOST_BACKS = 0.1  # share of back views that may look like a front in a consistent object


@dataclass(frozen=True)
class Janus:
    """Appendix E in numbers.

    back_fronts: share of back views that look like a front, 0..1. fronts: how many there are around the circle.
    consistent: whether the object would pass for consistent: exactly one front, and none at the back. frontness: of
    every view, in the order of the ring.
    """

    back_fronts: float
    fronts: int
    consistent: bool
    frontness: tuple[float, ...]


def janus(frontness: Float[Tensor, " n"], azimuth: Float[Tensor, " n"]) -> Janus:
    """Count the faces of an object in views from a closed, evenly spaced ring.

    What is back is known from the cameras (the front of the world is +x), not from the pictures.

    Args:
        frontness: probability that a view shows the front, 0..1, by the viewpoint network.
        azimuth: degrees of the views' cameras, any range.
    """
    back = ((azimuth + 180) % 360 - 180).abs() > BACK
    back_fronts = (frontness[back] > FRONT).float().mean().item()
    fronts = count_fronts(frontness)
    ring = tuple(round(value, 3) for value in frontness.tolist())
    return Janus(back_fronts, fronts, fronts == 1 and back_fronts <= MOST_BACKS, ring)


def count_fronts(frontness: Float[Tensor, " n"]) -> int:
    """Maxima of at least `FRONT` around the circle, before and after each of which frontness falls by `DIP` or more.

    A circle that looks like a front everywhere has one by this count; its back views tell.
    """
    ring = frontness.tolist()
    lowest = ring.index(min(ring))
    fronts, rising, extreme = 0, False, ring[lowest]
    # Cut open where it is least: no maximum is cut in two, and both sides of each are seen.
    for value in [*ring[lowest:], *ring[: lowest + 1]]:
        extreme = max(extreme, value) if rising else min(extreme, value)
        if rising and value <= extreme - DIP:
            fronts += extreme >= FRONT
            rising, extreme = False, value
        elif not rising and value >= extreme + DIP:
            rising, extreme = True, value
    return max(fronts, int(max(ring) >= FRONT))

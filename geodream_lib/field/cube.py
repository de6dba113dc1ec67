"""The cube a field lives in, and what the renderer asks of a field.

A cost volume fills the cube [-1, 1]^3 of its own frame (for a released One-2-3-45 volume: the normalised frame of the
reference camera). A similarity `to_world` (rotation, scale, translation; the identity in the lab) carries the cube into
the world. Everything outside this module speaks world coordinates and world distances.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from geodream_lib.errors import InputError


@runtime_checkable
class Field(Protocol):
    """A surface with colour: all the renderer needs to know (`NeuSField`, or any object with these names).

    `inverse_deviation` is the sharpness s of NeuS in 1 / world unit; `sdf` is negative inside; `color` is in 0..1.
    """

    to_world: Float[Tensor, "4 4"]
    inverse_deviation: Float[Tensor, ""]

    def sdf(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]: ...

    def sdf_and_gradient(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]: ...

    def color(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]: ...


def check_similarity(to_world: Float[Tensor, "4 4"]) -> None:
    """Raise `InputError` unless the matrix is a rotation, one positive scale and a translation."""
    linear = to_world[:3, :3].double().cpu()
    scale = linear[:, 0].norm()
    if not (
        torch.isfinite(to_world).all()
        and scale > 0
        and torch.allclose(linear.T @ linear / scale**2, torch.eye(3, dtype=torch.float64), atol=1e-4)
        and torch.linalg.det(linear) > 0
        and to_world[3].tolist() == [0, 0, 0, 1]
    ):
        raise InputError(
            "to_world is not a similarity; expected a rotation times one positive scale and a translation, because "
            "signed distances survive nothing else"
        )


def cube_unit(to_world: Float[Tensor, "4 4"]) -> Float[Tensor, ""]:
    """World length of one cube unit."""
    return to_world[:3, 0].norm()


def world_points(to_world: Float[Tensor, "4 4"], points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
    """Cube points in world coordinates."""
    return points @ to_world[:3, :3].T + to_world[:3, 3]


def cube_points(to_world: Float[Tensor, "4 4"], points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
    """World points in cube coordinates."""
    return cube_vectors(to_world, points - to_world[:3, 3])


def cube_vectors(to_world: Float[Tensor, "4 4"], vectors: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
    """World vectors in cube coordinates: a unit vector becomes as long as one world unit is in the cube."""
    return vectors @ (to_world[:3, :3] / cube_unit(to_world) ** 2)


def cube_interval(
    to_world: Float[Tensor, "4 4"], origins: Float[Tensor, "r 3"], directions: Float[Tensor, "r 3"]
) -> tuple[Float[Tensor, " r"], Float[Tensor, " r"]]:
    """World distances at which rays enter and leave the cube (slab test); near >= far where a ray misses it.

    A ray that starts inside enters at 0.
    """
    origins, directions = cube_points(to_world, origins), cube_vectors(to_world, directions)
    # A ray parallel to a slab crosses it "at infinity": a tiny slope keeps the division finite and the answer right.
    slope = torch.where(directions.abs() < 1e-12, torch.full_like(directions, 1e-12), directions)
    first, second = (-1 - origins) / slope, (1 - origins) / slope
    near = torch.minimum(first, second).amax(-1).clamp(min=0)
    far = torch.maximum(first, second).amin(-1)
    return near, far

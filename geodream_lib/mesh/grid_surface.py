"""What the surfaces that live on a grid of signed distances share: the signs they need and the box they fit into."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from geodream_lib.errors import InputError
from geodream_lib.storage import load_into, load_tensors, save_tensors

Surface = TypeVar("Surface", bound=nn.Module)

# Points per call of a signed distance function: bounds memory, does not change the result.
CHUNK = 1 << 17

# Least distance from the surface, in world units, that a vertex on the grid's border is given.
OUTSIDE = 1e-4


@runtime_checkable
class GridSurface(Protocol):
    """A DMTet or FlexiCubes: `sdf [v]` at `positions()` in `box [2, 3]`, and the mesh they stand for."""

    sdf: Tensor
    box: Tensor

    def positions(self) -> Float[Tensor, "v 3"]: ...

    def mesh(self) -> tuple[Float[Tensor, "m 3"], Int[Tensor, "f 3"]]: ...


def check_signs(sdf: Float[Tensor, "..."]) -> None:
    """Refuse signed distances that have no surface; outside is strictly positive, exactly zero is inside.

    Raises:
        InputError: a value is not finite, or nothing is inside, or everything is.
    """
    if not torch.isfinite(sdf).all():
        count = int((~torch.isfinite(sdf)).sum())
        raise InputError(
            f"{count} of {sdf.numel()} signed distances are not finite; expected numbers, lower the learning rate or "
            "start again from the last checkpoint"
        )
    outside = sdf > 0
    if outside.all() or not outside.any():
        state = "empty" if outside.all() else "full"
        raise InputError(
            f"the signed distance field is {state}: its values, {sdf.min():.3g} to {sdf.max():.3g}, nowhere change "
            "sign inside the grid; expected negative inside the object and positive around it, refine the field longer "
            "or with a lower learning rate"
        )


def closed(sdf: Float[Tensor, " v"], border: Bool[Tensor, " v"]) -> Float[Tensor, " v"]:
    """The same distances with the grid's border outside: what reaches beyond the box is cut off flat, without a hole.

    Raises:
        InputError: as `check_signs`; a field that is inside everywhere is not a box.
    """
    check_signs(sdf)
    return torch.where(border, sdf.clamp(min=OUTSIDE), sdf)


@torch.no_grad()
def sample_in_tight_box(surface: GridSurface, sdf_fn: Callable[[Float[Tensor, "m 3"]], Float[Tensor, " m"]]) -> None:
    """Convert a signed distance field on [-1, 1]^3, in two passes so that no part of the grid is wasted.

    The first pass finds the object's bounding box, which is widened by 10 % of its size on each side and clamped to
    [-1, 1]^3; the second samples the field on the grid stretched over that box. As in the released code.

    Args:
        surface: at rest on [-1, 1]^3; its `box` and `sdf` are set.
        sdf_fn: signed distance (negative inside) at world points; called without gradient.

    Raises:
        InputError: the field is empty, full or not finite.
    """
    _sample(surface, sdf_fn)
    vertices, _ = surface.mesh()
    low, high = vertices.min(dim=0).values, vertices.max(dim=0).values
    margin = 0.1 * (high - low)
    surface.box.copy_(torch.stack([(low - margin).clamp(min=-1), (high + margin).clamp(max=1)]))
    _sample(surface, sdf_fn)
    surface.mesh()


def _sample(surface: GridSurface, sdf_fn: Callable[[Tensor], Tensor]) -> None:
    surface.sdf.copy_(torch.cat([sdf_fn(points) for points in surface.positions().split(CHUNK)]))


def save_surface(surface: nn.Module, path: Path | str) -> None:
    """Write the parameters and the box of a `GridSurface`, and its `resolution`, as one safetensors file."""
    save_tensors(path, surface.state_dict(), {"resolution": str(surface.resolution)})


def load_surface(kind: type[Surface], path: Path | str) -> Surface:
    """Read what `save_surface` wrote of a surface of this kind.

    Raises:
        InputError: the file is missing, broken or of another kind.
    """
    tensors, metadata = load_tensors(path)
    if not metadata.get("resolution", "").isdecimal():
        raise InputError(f"{path} does not name its grid resolution; expected a file written by {kind.__name__}.save")
    surface = kind(int(metadata["resolution"]))
    load_into(surface, tensors, str(path))
    return surface

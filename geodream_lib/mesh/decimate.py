"""Fewer faces: what a game engine or a web page can afford."""

import itertools

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodream_lib.errors import InputError
from geodream_lib.mesh.geometry import unique_edges

# How fast the library lets its bound on the error of a collapse grow: gentle keeps the shape, but stops early.
GROWTH = (3, 5, 7, 10)
# Of the faces asked for: a collapse can pinch the surface, and a few faces more or less decide about that.
SHARES = (1.0, 0.99, 0.98, 0.96, 0.94)


def decimate(
    vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], count: int
) -> tuple[Float[Tensor, "m 3"], Int[Tensor, "g 3"]]:
    """Collapse edges, those first that change the surface least (quadric error metric, Garland and Heckbert 1997).

    Takes the gentlest setting of fast-simplification that reaches the number and leaves the surface as closed as it
    was; if none does, the one that pinches it in the fewest places, as `mesh_report` then says. A mesh that has no more
    faces than asked for is returned as it is.

    Args:
        count: most faces of the result.

    Raises:
        InputError: no setting gets there, or nothing is left.
    """
    if faces.shape[0] <= count:
        return vertices, faces
    from fast_simplification import simplify

    points, triangles = vertices.detach().double().cpu().numpy(), faces.cpu().numpy().astype(np.int32)
    fewest, allowed, best = faces.shape[0], _open_edges(faces), None
    for growth, share in itertools.product(GROWTH, SHARES):
        reduced = simplify(points, triangles, target_count=max(1, int(share * count)), agg=growth)
        fewer = _without_folds(torch.from_numpy(reduced[1].astype(np.int64)))
        if len(fewer) == 0:
            continue
        fewest, open_edges = min(fewest, len(fewer)), _open_edges(fewer)
        if len(fewer) <= count and (best is None or open_edges < best[0]):
            best = open_edges, torch.from_numpy(reduced[0]), fewer
            if open_edges <= allowed:
                break
    if best is None:
        raise InputError(
            f"the mesh of {faces.shape[0]} faces cannot be reduced to {count}: with fewer than {fewest} nothing is "
            "left of it; ask for more"
        )
    used, fewer = torch.unique(best[2], return_inverse=True)
    return best[1][used].to(vertices), fewer.to(faces.device)


def _without_folds(faces: Int[Tensor, "f 3"]) -> Int[Tensor, "g 3"]:
    """Without pairs of faces on the same three vertices: a collapse has folded them onto each other."""
    _, group, sizes = torch.unique(faces.sort(dim=1).values, dim=0, return_inverse=True, return_counts=True)
    return faces[sizes[group] == 1]


def _open_edges(faces: Int[Tensor, "f 3"]) -> int:
    """Edges that do not lie between exactly two faces."""
    _, edge_of_half_edge = unique_edges(faces)
    return int((torch.bincount(edge_of_half_edge) != 2).sum())

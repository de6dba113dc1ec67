"""Removing what guidance left floating beside the object."""

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from geodream_lib.mesh.geometry import unique_edges


def remove_floaters(
    vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], min_fraction: float = 0.01
) -> tuple[Float[Tensor, "m 3"], Int[Tensor, "g 3"]]:
    """Drop every component with fewer faces than `min_fraction` of the largest one's.

    The released texture stage starts with this, at 1 %. Faces that share an edge belong together. The order of what
    remains is kept; vertices without a face are dropped.
    """
    edges, edge_of_half_edge = unique_edges(faces)
    count = faces.shape[0]
    face = np.tile(np.arange(count), 3)
    node = count + edge_of_half_edge.cpu().numpy()
    size = count + edges.shape[0]
    graph = coo_matrix((np.ones(face.size, dtype=np.int8), (face, node)), shape=(size, size))
    _, component = connected_components(graph, directed=False)
    component = torch.from_numpy(component[:count].astype(np.int64)).to(faces.device)
    faces_of_component = torch.bincount(component)
    keep = faces_of_component[component] >= min_fraction * faces_of_component.max()
    used, renumbered = torch.unique(faces[keep], return_inverse=True)
    return vertices[used], renumbered

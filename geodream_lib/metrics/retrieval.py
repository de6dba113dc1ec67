"""R-score: does a picture, or a shape, find its own prompt among others? (section 3.1, after DreamFusion)."""

import torch
from jaxtyping import Float
from torch import Tensor

from geodream_lib.errors import InputError


@torch.no_grad()
def r_score(items: Float[Tensor, "n d"], texts: Float[Tensor, "m d"], own: int) -> float:
    """R-score of one object: the share of its renders that retrieve the prompt it was made from; a guess reaches 1/m.

    CLIP R-score with the 120 renders as items. Uni3D_score with the one point cloud of 10k points, so that it is 0 or 1
    for one object (the paper's values are multiples of 1/35, the number of its prompts).

    Args:
        items: unit rows, embeddings of the renders or of the point cloud.
        texts: unit rows, embeddings of distinct prompts.
        own: row of the prompt that the object was made from. It is retrieved where it is more similar than every other;
            a tie counts as a miss, so that a network that tells nothing apart does not score.

    Raises:
        InputError: there are fewer than two prompts, or `own` is none of them.
    """
    if len(texts) < 2 or not 0 <= own < len(texts):
        raise InputError(f"prompt {own} of {len(texts)} cannot be retrieved; expected one of at least two prompts")
    similarity = items @ texts.T
    others = torch.cat([similarity[:, :own], similarity[:, own + 1 :]], dim=1)
    return (similarity[:, own] > others.amax(dim=1)).float().mean().item()

"""R-score: the share of renders that find their own prompt."""

import pytest
import torch

from geodream_lib.errors import InputError
from geodream_lib.metrics.retrieval import r_score


def test_the_share_of_renders_nearest_to_their_own_prompt():
    texts = torch.eye(3)
    looks_like = [1, 1, 0, 2]
    items = torch.nn.functional.normalize(texts[looks_like] + 0.1, dim=-1)
    for own in range(3):
        assert r_score(items, texts, own) == pytest.approx(looks_like.count(own) / len(looks_like))


def test_a_network_that_tells_nothing_apart_does_not_score():
    assert r_score(torch.ones(5, 4) / 2, torch.ones(7, 4) / 2, 0) == 0


@pytest.mark.parametrize(("count", "own"), [(1, 0), (4, 4), (4, -1)])
def test_among_one_prompt_nothing_is_retrieved(count, own):
    with pytest.raises(InputError, match="at least two prompts"):
        r_score(torch.rand(3, 2), torch.rand(count, 2), own)

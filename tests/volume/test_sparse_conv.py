"""The rules of sparse convolution, against a transcription of their definition site by site."""

import itertools

import torch
from torch import Tensor

from geodream_lib.volume.regularizer import CostRegularizer
from geodream_lib.volume.sparse_conv import strided_conv, strided_sites, submanifold_conv, transposed_conv

OFFSETS = [(x, y, z) for z, y, x in itertools.product((-1, 0, 1), repeat=3)]  # x is the fastest


def some_sites() -> Tensor:
    mask = torch.rand(6, 7, 8, generator=torch.Generator().manual_seed(0)) > 0.7
    mask[:1], mask[:, :3] = False, False  # the smallest coordinates are 1 and 3, odd, so the lower bound matters
    mask[5, 6, 7] = True
    return mask


def sites(mask: Tensor) -> list[tuple[int, ...]]:
    return [tuple(site) for site in mask.nonzero().tolist()]


def moved(site: tuple[int, ...], offset: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(site, offset, strict=True))


def test_submanifold_convolution() -> None:
    mask, kernel = some_sites(), torch.randn(27, 4, 5)
    rows = torch.randn(int(mask.sum()), 4)
    at = dict(zip(sites(mask), rows, strict=True))
    expected = [sum(at[moved(s, o)] @ kernel[k] for k, o in enumerate(OFFSETS) if moved(s, o) in at) for s in at]
    torch.testing.assert_close(submanifold_conv(rows, mask, kernel), torch.stack(expected), atol=1e-4, rtol=1e-4)


def test_strided_sites_have_a_lower_and_no_upper_bound() -> None:
    mask = some_sites()
    fine = sites(mask)
    smallest = mask.nonzero().amin(dim=0).tolist()
    reached = {moved(s, o) for s in fine for o in OFFSETS}
    even = {q for q in reached if all(c % 2 == 0 for c in q)}
    expected = {q for q in even if all(c >= low for c, low in zip(q, smallest, strict=True))}
    assert {tuple(2 * c for c in q) for q in sites(strided_sites(mask))} == expected
    assert expected != even
    assert any(q[2] == mask.shape[2] for q in expected)


def test_strided_and_transposed_convolution_share_their_pairs() -> None:
    fine, down, up = some_sites(), torch.randn(27, 4, 5), torch.randn(27, 5, 3)
    coarse = strided_sites(fine)
    rows = torch.randn(int(fine.sum()), 4)
    at = dict(zip(sites(fine), rows, strict=True))
    twice = [tuple(2 * c for c in q) for q in sites(coarse)]
    expected = [sum(at[moved(q, o)] @ down[k] for k, o in enumerate(OFFSETS) if moved(q, o) in at) for q in twice]
    result = strided_conv(rows, fine, coarse, down)
    torch.testing.assert_close(result, torch.stack(expected), atol=1e-4, rtol=1e-4)

    back = {site: torch.zeros(3) for site in at}
    for q, row in zip(twice, result, strict=True):
        for k, offset in enumerate(OFFSETS):
            if moved(q, offset) in back:
                back[moved(q, offset)] += row @ up[k]
    expected = torch.stack(list(back.values()))
    torch.testing.assert_close(transposed_conv(result, coarse, fine, up), expected, atol=1e-4, rtol=1e-4)


def test_regularizer_in_half_precision_stays_close() -> None:
    torch.manual_seed(0)
    mask, network = torch.rand(12, 12, 12) > 0.2, CostRegularizer().eval()
    rows = torch.randn(int(mask.sum()), 32)
    with torch.no_grad():
        exact = network(rows, mask)
        with torch.autocast("cpu", torch.bfloat16):
            fast = network(rows, mask)
    assert fast.dtype == torch.float32
    assert (fast - exact).norm() < 0.05 * exact.norm()

"""Sparse convolution by torchsparse is our own: its pairs and contract against a stand-in, the library on a device."""

import itertools
import sys
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor

from geodream_lib.cuda_libraries import state
from geodream_lib.volume import sparse_conv
from geodream_lib.volume.sparse_conv import strided_conv, strided_sites, submanifold_conv, transposed_conv
from geodream_lib.volume.sparse_torchsparse import site_pairs

OFFSETS = [(x, y, z) for z, y, x in itertools.product((-1, 0, 1), repeat=3)]  # x is the fastest


class GatherScatter:
    """What torchsparse 2.1 says it does with a kernel map, with its shortcut for as many rows out as in."""

    @staticmethod
    def apply(rows: Tensor, kernel: Tensor, kernel_map: dict, config: dict, transposed: bool) -> Tensor:
        assert {"nbmaps", "nbsizes", "sizes", "input_mask", "output_mask"} <= set(kernel_map)
        assert {"epsilon", "mm_thresh"} <= set(config)
        assert rows.dtype == kernel.dtype == torch.float32
        pairs, sizes = kernel_map["nbmaps"].long(), kernel_map["sizes"]
        output = rows.new_zeros(sizes[0] if transposed else sizes[1], kernel.shape[2])
        shortcut = len(rows) == len(output)
        if shortcut:
            output = rows @ kernel[13]
        for k, of_offset in enumerate(pairs.split(kernel_map["nbsizes"].tolist())):
            if not (shortcut and k == 13):
                source, target = of_offset.flip(1).T if transposed else of_offset.T
                output = output.index_add(0, target, rows[source] @ kernel[k])
        return output


class OlderGatherScatter:
    """The same of torchsparse 1.4: what it needs of the map comes one by one."""

    @staticmethod
    def apply(rows: Tensor, kernel: Tensor, pairs: Tensor, counts: Tensor, sizes: tuple, transposed: bool) -> Tensor:
        kernel_map = {"nbmaps": pairs, "nbsizes": counts, "sizes": sizes, "input_mask": None, "output_mask": None}
        return GatherScatter.apply(rows, kernel, kernel_map, {"epsilon": 0.0, "mm_thresh": 0}, transposed)


@pytest.fixture(params=["1.4", "2.1"])
def stand_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A torchsparse whose convolution can be imported, where each version has it."""
    convolutions = ModuleType("torchsparse.nn.functional.conv")
    functions = ModuleType("torchsparse.nn.functional.conv.func")
    if request.param == "1.4":
        convolutions.ConvolutionFunction = OlderGatherScatter
    else:
        functions.GatherScatterConvolutionFuntion = GatherScatter
    for module in (convolutions, functions):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return ModuleType("torchsparse")


def some_sites(share: float, *shape: int) -> Tensor:
    """Sites whose smallest coordinates are 1 and 3, odd, so that the lower bound of strided sites matters."""
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < share
    mask[:1], mask[:, :3] = False, False
    mask[-1, -1, -1] = True
    return mask


def as_many_coarse_sites_as_fine() -> Tensor:
    """Fine x = 2, 4, 5 reach coarse 2 x = 2, 4, 6, and the third fine site is not the third coarse one."""
    mask = torch.zeros(8, 8, 8, dtype=torch.bool)
    mask[[2, 4, 5], 2, 2] = True
    assert strided_sites(mask).sum() == mask.sum()
    return mask


def operations(fine: Tensor) -> dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]]:
    """The three operations as functions of rows and kernel, and how many rows each starts from."""
    coarse = strided_sites(fine)
    return {
        "submanifold": (lambda rows, kernel: submanifold_conv(rows, fine, kernel), int(fine.sum())),
        "strided": (lambda rows, kernel: strided_conv(rows, fine, coarse, kernel), int(fine.sum())),
        "transposed": (lambda rows, kernel: transposed_conv(rows, coarse, fine, kernel), int(coarse.sum())),
    }


def value_and_gradients(operation: Callable[[Tensor, Tensor], Tensor], rows: Tensor, kernel: Tensor) -> list[Tensor]:
    """Gradients are of a fixed projection of the value."""
    rows, kernel = rows.clone().requires_grad_(), kernel.clone().requires_grad_()
    value = operation(rows, kernel)
    projection = torch.linspace(-1, 1, value.numel(), device=value.device).view_as(value)
    return [value.detach(), *torch.autograd.grad((value * projection).sum(), (rows, kernel))]


def assert_torchsparse_agrees(
    monkeypatch: pytest.MonkeyPatch, torchsparse: ModuleType, fine: Tensor, channels: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(1)
    for name, (operation, count) in operations(fine).items():
        rows = torch.randn(count, channels[0], generator=generator).to(fine.device)
        kernel = torch.randn(27, *channels, generator=generator).to(fine.device)
        results = []
        for module in (None, torchsparse):
            monkeypatch.setattr(sparse_conv, "library", lambda *_, module=module: module)
            results.append(value_and_gradients(operation, rows, kernel))
        for dense, sparse in zip(*results, strict=True):
            scale = dense.abs().max().item()
            torch.testing.assert_close(sparse, dense, atol=1e-4 * scale, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


SITES = {
    "few": some_sites(0.1, 6, 7, 8),
    "many": some_sites(0.9, 9, 8, 7),
    "as many coarse as fine": as_many_coarse_sites_as_fine(),
}


@pytest.mark.parametrize("fine", SITES.values(), ids=list(SITES))
@pytest.mark.parametrize("stride", [1, 2])
def test_pairs_are_those_of_the_definition(fine: Tensor, stride: int) -> None:
    coarse = fine if stride == 1 else strided_sites(fine)
    row = {tuple(site): i for i, site in enumerate(fine.nonzero().tolist())}
    expected = []
    for offset in OFFSETS:
        sources = [tuple(stride * c + o for c, o in zip(q, offset, strict=True)) for q in coarse.nonzero().tolist()]
        expected.append([[row[source], q] for q, source in enumerate(sources) if source in row])
    pairs, counts = site_pairs(fine, coarse, stride)
    assert counts.tolist() == [len(of_offset) for of_offset in expected]
    assert pairs.tolist() == [pair for of_offset in expected for pair in of_offset]


@pytest.mark.parametrize("fine", SITES.values(), ids=list(SITES))
def test_torchsparse_is_given_our_rules(fine: Tensor, stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_torchsparse_agrees(monkeypatch, stand_in, fine, (4, 5))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("fine", [*SITES.values(), some_sites(0.86, 24, 24, 24)], ids=[*SITES, "a volume"])
def test_torchsparse_on_a_device(fine: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    found, fault = state("torchsparse")
    if found != "active":
        pytest.skip(f"torchsparse is {found} {fault}")
    import torchsparse

    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert_torchsparse_agrees(monkeypatch, torchsparse, fine.cuda(), (32, 16))

"""The pretended device knows an error from what PyTorch allows, and changes no number."""

from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.mark.parametrize(
    "mix",
    [
        lambda here, there: here + there,
        lambda here, there: there.index_select(0, torch.tensor([1])),
        lambda here, there: here[torch.tensor([1]).to("cuda")],
        lambda here, there: torch.cat([here, there]),
        lambda here, there: here.sum().add_(there.sum()),
        lambda here, there: torch.nn.functional.linear(there, here),
        lambda here, there: torch.where(there > 0, there, here),
        lambda here, there: torch.randn(3, device="cuda", generator=torch.Generator()),
        lambda here, there: there.normal_(generator=torch.Generator()),
        lambda here, there: there.numpy(),
        lambda here, there: there.detach().sum(0).numpy(),
        lambda here, there: torch.tensor([0.0, 1.0, 2.0], device=there.device) + here[0],
        lambda here, there: there.index_put((torch.tensor([0]),), here[:1]),
        lambda here, there: nn.Linear(3, 3)(there),
        lambda here, there: (there.requires_grad_() * 2 + here.to("cuda").requires_grad_()).sum() + here,
    ],
)
def test_devices_do_not_mix(pretended_cuda: None, mix: Callable) -> None:
    here = torch.rand(3, 3)
    with pytest.raises((RuntimeError, TypeError), match="same device|'cuda' device type|to numpy"):
        mix(here, here.to("cuda"))


def test_cuda_has_no_matrix_products_of_integers(pretended_cuda: None) -> None:
    there = torch.ones(3, 3, dtype=torch.long).to("cuda")
    for multiply in (lambda: there @ there, lambda: there @ there[0], lambda: there[0] @ there[0]):
        with pytest.raises(RuntimeError, match="not implemented for torch.int64"):
            multiply()


def test_what_may_mix_gives_the_values_of_the_cpu(pretended_cuda: None) -> None:
    here = torch.rand(3, 3)
    there = here.to("cuda")
    assert there.device == torch.device("cuda:0") and there.is_cuda and there.cpu().is_cpu
    for value in (
        there * torch.tensor(2.0),
        torch.where(there > 0.5, there, torch.tensor(1.0)),
        there[torch.tensor([2, 0])],
        torch.zeros(3, 3, device=there.device).copy_(here),
        there + torch.ones(3, device="cuda"),
        there @ there.new_tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]),
    ):
        assert value.device.type == "cuda"
    assert torch.equal((there @ there).cpu(), here @ here) and torch.equal((there + 1)[1:].cpu(), (here + 1)[1:])
    there[1:, 0] = 7
    assert there.cpu()[:, 0].tolist() == [here[0, 0].item(), 7, 7] and here[1, 0] != 7


def test_a_module_moves_and_learns(pretended_cuda: None) -> None:
    torch.manual_seed(0)
    networks = [nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1)) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    networks[1].to("cuda")
    assert all(p.is_cuda for p in networks[1].parameters())
    x = torch.rand(5, 3)
    for network, data in zip(networks, (x, x.to("cuda")), strict=True):
        optimizer = torch.optim.AdamW(network.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            network(data).square().mean().backward()
            optimizer.step()
    for mine, theirs in zip(*(network.state_dict().values() for network in networks), strict=True):
        torch.testing.assert_close(theirs.cpu(), mine)

"""What a computation costs, without doing it: it runs on tensors of the meta device, which have shapes but no numbers.

Two things are counted. Arithmetic: the operations that `torch.utils.flop_counter` knows (matrix products, convolutions
and attention; a multiply-add is two). Memory: every tensor that is alive, as autograd and Python keep and drop them. So
the peak of a training step is what the backward pass needs, and what is alive for a moment beside it.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten


@dataclass(frozen=True)
class Cost:
    """flops: arithmetic of the whole computation. peak: bytes alive at once, beside what was there before. kept: bytes
    alive at the end, which the result holds, its graph for the backward pass included."""

    flops: float
    peak: float
    kept: float


def trace(computation: Callable[[], object]) -> Cost:
    """Run `computation` on meta tensors and count.

    It must not depend on numbers. On real tensors the counts are those of what really happens.
    """
    counter = _Counter()
    with _FusedAttention(), counter:
        result = computation()
        kept = counter.alive
    del result
    return Cost(counter.flops, counter.peak, kept)


def meta(*shape: int) -> Tensor:
    """A float32 tensor without numbers."""
    return torch.empty(shape, device="meta")


class _FusedAttention(TorchFunctionMode):
    """The meta device writes out the matrix of all pairs of tokens; CPUs and GPUs have kernels that do not."""

    def __torch_function__(self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None) -> object:
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention and args[0].is_meta:
            query, key, value = args[:3]
            return aten._scaled_dot_product_efficient_attention(query, key, value, None, query.requires_grad)[0]
        return func(*args, **kwargs)


class _Counter(TorchDispatchMode):
    """Sees every operation, those of the backward pass too, and every storage that one makes until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.alive = self.peak = 0
        self.known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None) -> object:
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        self._remember(given, are_made=False)
        if len({tensor.device for tensor in given if tensor.ndim > 0}) > 1:
            # A mask with numbers, which decides on sizes, among tensors without.
            args = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), args)
        result = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        self._remember([leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)], are_made=True)
        return result

    def _remember(self, tensors: list[Tensor], are_made: bool) -> None:
        """Count the memory of storages that were not seen before, unless they were there when the counting began."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata not in self.known:
                size = storage.nbytes() if are_made else 0
                self.known[storage._cdata] = weakref.ref(storage, partial(self._forget, storage._cdata, size))
                self.alive += size
                self.peak = max(self.peak, self.alive)

    def _forget(self, key: int, size: int, _: weakref.ref) -> None:
        del self.known[key]
        self.alive -= size

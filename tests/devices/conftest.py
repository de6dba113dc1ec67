"""A CUDA device without one: tensors that claim to be there, and PyTorch's rules on what may meet what.

`Remote` is a tensor whose numbers lie on the CPU and which says `cuda:0`. Under `pretended_cuda`, `.to("cuda")` and
`device="cuda"` make such tensors, and every operation is held to the rules: all tensors on one device, but for scalars
of the CPU in elementwise operations, index tensors of the CPU, and copies; no numpy view of a CUDA tensor; no random
numbers on CUDA from a generator of the CPU; no matrix product of integers on CUDA. What passes computes what the CPU
does, on the CPU.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from diffusers import ModelMixin
from torch import Tensor
from torch.overrides import TorchFunctionMode, _pop_mode_temporarily
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map
from transformers import PreTrainedModel

from geodream_lib.field import HashEncoding, NeuSField
from geodream_lib.guidance import LatentDiffusion, load_diffusion
from geodream_lib.volume import GeometryDecoder

CUDA, META = torch.device("cuda", 0), torch.device("meta")
aten = torch.ops.aten
PRODUCTS = {aten.mm.default, aten.mv.default, aten.bmm.default, aten.addmm.default, aten.dot.default}


class Remote(Tensor):
    """A tensor that claims CUDA. To PyTorch's core, which was built without CUDA, its device is "meta"."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Remote":
        remote = Tensor._make_wrapper_subclass(
            cls, inner.shape, inner.stride(), inner.storage_offset(), dtype=inner.dtype, device=META
        )
        remote.inner = inner
        return remote

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)

    def __repr__(self, **options: object) -> str:
        return f"Remote({self.inner})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.dim() == 0 else repr(self)

    def tolist(self) -> list:
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, function: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None):
        return run(function, args, kwargs or {})


def run(function: Callable, args: tuple, kwargs: dict):
    """One operation of PyTorch's core by its rules on devices, computed on the CPU."""
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    remote = [x for x in tensors if isinstance(x, Remote)]
    local = [x for x in tensors if not isinstance(x, Remote)]
    if any(x.is_meta for x in local):
        raise RuntimeError(f"{function}: a tensor without numbers")
    target = kwargs.get("device")
    if target is not None and target.type == "meta":
        kwargs, target = kwargs | {"device": torch.device("cpu")}, CUDA
    if remote and local and not may_mix(function, args, local):
        shapes = [f"{x.device} {tuple(x.shape)}" for x in tensors]
        raise RuntimeError(f"Expected all tensors to be on the same device, {function} got {', '.join(shapes)}")
    on_cuda = target == CUDA or target is None and bool(remote)
    if function == aten.copy_.default:
        on_cuda = isinstance(args[0], Remote)
    if remote and function in PRODUCTS and not remote[0].is_floating_point():
        raise RuntimeError(f"{function} on CUDA is not implemented for {remote[0].dtype}")
    if on_cuda and kwargs.get("generator") is not None:
        raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu': {function}")
    result = function(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    if not on_cuda:
        return result
    known = {id(x.inner): x for x in remote}  # an operation in place returns what it was given
    return tree_map(lambda x: _outer(x, known) if isinstance(x, Tensor) else x, result)


def _outer(x: Tensor, known: dict[int, Remote]) -> Remote:
    return known[id(x)] if id(x) in known else Remote(x)


def _inner(x: object) -> object:
    if not isinstance(x, Remote):
        return x
    assert (x.inner.shape, x.inner.dtype) == (x.shape, x.dtype), "changed behind the back of its wrapper"
    return x.inner


def may_mix(function: Callable, args: tuple, local: list[Tensor]) -> bool:
    """Whether PyTorch's CUDA kernels take these tensors of the CPU beside tensors on CUDA."""
    if function in (aten.copy_.default, aten._to_copy.default):
        return True
    if not isinstance(args[0], Remote) and (function._schema.is_mutable or function == aten.index.Tensor):
        return False
    scalars = all(x.dim() == 0 for x in local)
    if function == aten.index.Tensor:
        return True
    if function in (aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default):
        return not isinstance(args[2], Tensor) or isinstance(args[2], Remote) or args[2].dim() == 0
    return scalars and torch.Tag.pointwise in function.tags


class Operations(TorchDispatchMode):
    """Holds all operations to the rules; `on_cpu` counts those that no CUDA tensor took part in."""

    def __init__(self) -> None:
        super().__init__()
        self.on_cpu: Counter = Counter()

    def __torch_dispatch__(self, function: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None):
        result = run(function, args, kwargs or {})
        if not any(isinstance(x, Remote) for x in tree_leaves((args, kwargs, result))):
            self.on_cpu[function] += 1
        return result


class Names(TorchFunctionMode):
    """Translates "cuda" into the device under which the core knows it, before it asks for a driver."""

    def __torch_function__(self, function: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None):
        kwargs = kwargs or {}
        if function in (torch.tensor, torch.as_tensor):
            device = kwargs.pop("device", None)
            made = function(*args, **kwargs)
            return made if device is None else made.to(_core(device))
        if function is Tensor.new_tensor and isinstance(args[0], Remote):
            return Remote(args[0].inner.new_tensor(*args[1:], **kwargs))
        if function in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], Remote):
            places = args[1] if isinstance(args[1], tuple) else (args[1],)
            args = (args[0], tuple(torch.tensor(x) if isinstance(x, list) else x for x in places), *args[2:])
        if function == Tensor.data.__set__ and isinstance(args[0], Remote):
            args[0].inner = args[1].inner
        if function is Tensor.cuda:
            return args[0].to(META)
        if function is Tensor.numpy and isinstance(args[0], Remote):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        names = function in (Tensor.to, torch.empty) or "device" in kwargs
        return function(*(_core(x) if names else x for x in args), **{k: _core(v) for k, v in kwargs.items()})


def _core(x: object) -> object:
    on_cuda = isinstance(x, torch.device) and x.type == "cuda" or isinstance(x, str) and x.split(":")[0] == "cuda"
    return META if on_cuda else x


@pytest.fixture
def pretended_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Operations]:
    """Everything in the test runs under the rules, but for loaders of weights, which use "meta" for their own ends."""
    for base in (ModelMixin, PreTrainedModel):
        monkeypatch.setattr(base, "from_pretrained", classmethod(_undisturbed(base.from_pretrained.__func__)))
    with Names(), Operations() as operations:
        yield operations


def _undisturbed(function: Callable) -> Callable:
    @functools.wraps(function)
    def call(*args: object, **kwargs: object) -> object:
        with _pop_mode_temporarily(), _disable_current_modes():
            return function(*args, **kwargs)

    return call


@pytest.fixture
def both(pretended_cuda: Operations) -> Callable[..., None]:
    """`both(compute)` runs `compute(device)` on the CPU and on the pretended device, and compares the tensors given."""

    def compare(compute: Callable[[str], object], atol: float = 1e-4) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            expected = tree_leaves(compute("cpu"))
            torch.manual_seed(0)
            given = tree_leaves(compute("cuda"))
        assert len(expected) == len(given) > 0
        for mine, theirs in zip(expected, given, strict=True):
            assert isinstance(theirs, Remote), f"{tuple(theirs.shape)} stayed on the CPU"
            torch.testing.assert_close(theirs.inner, mine, atol=atol, rtol=1e-3)

    return compare


@pytest.fixture
def small_field() -> Callable[[], NeuSField]:
    """Makes a field whose surface depends on every parameter, in a frame of its own; always the same."""

    def make() -> NeuSField:
        torch.manual_seed(0)
        decoder = GeometryDecoder(hidden=8, latent=4)
        for parameter in decoder.parameters():  # a new decoder is a sphere that ignores the volume
            parameter.data += 0.02 * torch.randn_like(parameter)
        to_world = torch.tensor([[0.0, -0.8, 0, 0.1], [0.8, 0, 0, 0], [0, 0, 0.8, -0.1], [0, 0, 0, 1]])
        encoding = HashEncoding(2, 2, 8)
        return NeuSField(0.1 * torch.randn(4, 6, 6, 6), decoder, 20.0, encoding, texture_hidden=8, to_world=to_world)

    return make


@pytest.fixture(scope="session")
def diffusion(golden: Path) -> LatentDiffusion:
    diffusion = load_diffusion(golden / "vsd" / "sd_base")
    diffusion.denoiser.unet.register_to_config(sample_size=8)
    return diffusion

"""Which CUDA library stands behind an operation: decided here, nowhere else, and told by `geodream doctor`.

Every heavy operation has one function whose plain PyTorch body says what it means and runs on every device. Where its
tensors are on CUDA and a library for it is installed and loads, `library` gives that library's module and the function
calls it instead. Nothing here is imported before that.
"""

import functools
import importlib
import logging
import os
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Library:
    """A CUDA library that can replace the plain body of an operation.

    module, kernels: what its function calls, and the compiled part (a module, module:name, or module:one|other) without
    which it does not work. switch: environment variable that the user sets to 1 to allow it. yields_to: library that
    goes first.
    """

    operation: str
    how: str  # how to get it; conditions are in environment.yml
    module: str
    kernels: str
    switch: str = ""
    yields_to: str = ""


LIBRARIES = {
    # Its wheel brings sources and compiles them at the first call; without nvcc its kernels are None.
    "nerfacc": Library("ray marching", 'pip install -e ".[gpu]"', "nerfacc", "nerfacc.cuda._backend:_C"),
    "torchsparse": Library(
        "sparse 3D convolution",
        "compile it, see environment.yml",
        "torchsparse",
        "torchsparse.backend:conv_forward_gather_scatter_cuda|convolution_forward_cuda",  # of 2.1, of 1.4
    ),
    "tinycudann": Library("hash encoding", "compile it, see environment.yml", "tinycudann", "tinycudann:Encoding"),
    "kaolin": Library(
        "mesh rasterising",
        "conda install -c conda-forge kaolin, see environment.yml",
        "kaolin.render.mesh",
        "kaolin:_C",
        yields_to="nvdiffrast",
    ),
    "kaolin.ops.conversions": Library(
        "surface extraction",
        "conda install -c conda-forge kaolin, see environment.yml",
        "kaolin.ops.conversions",
        "kaolin:_C",
    ),
    "nvdiffrast": Library(
        "mesh rasterising, non-commercial licence",
        "compile it, see environment.yml",
        "nvdiffrast.torch",
        "nvdiffrast.torch:RasterizeCudaContext",
        switch="GEODREAM_NVDIFFRAST",
    ),
}

State = Literal["active", "missing", "switched off", "no device", "broken", "yields"]


def library(name: str, *tensors: Tensor) -> ModuleType | None:
    """The module of `LIBRARIES[name]` if it computes on these tensors; None where the plain body does."""
    if not all(tensor.is_cuda for tensor in tensors) or state(name)[0] != "active":
        return None
    return importlib.import_module(LIBRARIES[name].module)


def distribution(name: str) -> str:
    """What is installed for it: kaolin stands behind two operations."""
    return name.partition(".")[0]


def state(name: str) -> tuple[State, str]:
    """Whether a library is used for tensors on CUDA, and the fault of a broken one. Loads it if there is a device."""
    chosen = LIBRARIES[name]
    if find_spec(distribution(name)) is None:
        return "missing", ""
    if chosen.switch and os.environ.get(chosen.switch) != "1":
        return "switched off", ""
    if not torch.cuda.is_available():
        return "no device", ""
    fault = _fault(name)
    if fault:
        return "broken", fault
    if chosen.yields_to and state(chosen.yields_to)[0] == "active":
        return "yields", ""
    return "active", ""


@functools.cache
def _fault(name: str) -> str:
    """Load a library; why that fails, in one line, or nothing."""
    chosen = LIBRARIES[name]
    module, _, attribute = chosen.kernels.partition(":")
    try:
        importlib.import_module(chosen.module)
        kernels = importlib.import_module(module)
        names = attribute.split("|") if attribute else []
        if not names or any(getattr(kernels, name, None) is not None for name in names):
            return ""
        fault = "its CUDA kernels are not compiled"
    except Exception as error:  # a compiled library that does not fit raises whatever its loader raises
        fault = " ".join(f"{type(error).__name__}: {error}".split())
    logger.warning("%s is installed but not used, %s goes through PyTorch: %s", name, chosen.operation, fault)
    return fault

"""The kernels that a CPU takes in place of plain torch: compiled by numba, from modules that nothing else imports."""

import functools
import importlib
from types import ModuleType


@functools.cache
def cpu_kernels(module: str) -> ModuleType | None:
    """A module of kernels by its full name, compiled on first use; None where its compiler is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None

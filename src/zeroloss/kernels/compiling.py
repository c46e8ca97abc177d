"""How loops are compiled: by numba, kept on disk, and without Python's lock."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from numba import njit

FAST = {"contract", "reassoc", "nsz", "arcp"}  # never nnan or ninf, so that a NaN that should not be there is seen


def loop(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of numpy arrays at its first call, and keep the machine code on disk.

    Args:
        function: in the part of Python that numba compiles; where shapes are checked at run time it comes wrapped, and is unwrapped.

    Returns:
        The compiled function.
    """
    compiled: Callable[..., Any] = njit(nogil=True, cache=True, fastmath=FAST)(inspect.unwrap(function))
    return compiled

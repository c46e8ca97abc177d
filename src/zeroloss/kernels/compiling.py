"""How loops are compiled: by numba at their first call, kept on disk, and without Python's lock, so that they run side by side."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from numba import njit

# never nnan or ninf: a NaN that should not be there is seen
STRICT = {"contract", "nsz"}  # sums may be fused with products, and -0 is 0
FAST = STRICT | {"reassoc", "arcp"}  # sums may be taken in any order


def _compile(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    # where shapes are checked at run time a function comes wrapped, which numba would compile instead of it
    # division by zero gives infinity: the check that Python would make keeps a loop from using the processor's lanes
    result: Callable[..., Any] = njit(nogil=True, cache=True, error_model="numpy", **options)(inspect.unwrap(function))
    return result


def loop(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of numpy arrays whose sums may be taken in any order.

    Args:
        function: in the part of Python that numba compiles.

    Returns:
        The compiled function.
    """
    return _compile(function, fastmath=FAST)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of numpy arrays whose sums are taken in their order.

    Args:
        function: in the part of Python that numba compiles.

    Returns:
        The compiled function.
    """
    return _compile(function, fastmath=STRICT)


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a function that is part of another's loop, where the call itself would count.

    Args:
        function: in the part of Python that numba compiles.

    Returns:
        The compiled function.
    """
    return _compile(function, fastmath=STRICT, inline="always")

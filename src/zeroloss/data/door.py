"""The door: whatever a caller hands over becomes a finite float64 (or int64) tensor of its own, or an error that says why not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from zeroloss.errors import ArgumentError
from zeroloss.typing import Labels

Values: TypeAlias = Tensor | NDArray[Any] | Sequence[Any]  # what a caller may pass where numbers are wanted

_EXACT = 2**53  # above it float64 skips integers, so that two different rows could become one
_KINDS = {
    "b": "booleans",
    "c": "complex numbers",
    "U": "text",
    "S": "bytes",
    "O": "Python objects",
    "M": "dates",
    "m": "durations",
}


def finite_tensor(argument: str, values: Values) -> Float[Tensor, "*shape"]:
    r"""A float64 copy of ``values``: detached, contiguous, on the tensor's own device (CPU for anything else).

    Args:
        argument: the name to use in errors.
        values: numbers of any real dtype: a tensor, a numpy array or nested lists.

    Returns:
        The copy; nothing the caller later does to ``values`` can reach it.

    Raises:
        ArgumentError: for complex, boolean, text or object values, ragged lists, masked entries, integers beyond $2^{53}$, and
            for NaN or infinite entries (how many, and the first row that has one).

    Example:
        >>> finite_tensor("x", [[1, 2], [3, 4]])
        tensor([[1., 2.],
                [3., 4.]], dtype=torch.float64)
    """
    tensor = _numbers(argument, values)
    if tensor.dtype in (torch.int64, torch.uint64) and tensor.numel():
        signed = tensor.contiguous().view(torch.int64)  # reads an unsigned integer of 2**63 or more as a negative one
        smallest = 0 if tensor.dtype == torch.uint64 else -_EXACT
        if int(signed.max()) > _EXACT or int(signed.min()) < smallest:
            raise ArgumentError(argument, "has integers beyond 2**53, which float64 cannot tell apart", "rescale or pass floats")
    copy = tensor.detach().to(torch.float64, copy=True, memory_format=torch.contiguous_format)
    # The extremes tell at once, without three more tensors of this size, that all is well.
    if copy.ndim and copy.numel() and not all(bool(torch.isfinite(end)) for end in torch.aminmax(copy)):
        bad = ~torch.isfinite(copy)
        first = first_row(bad.flatten(1).any(1) if copy.ndim > 1 else bad)
        count = int(bad.sum())
        entries = "entry that is" if count == 1 else "entries that are"
        raise ArgumentError(
            argument,
            f"of shape {shape(copy)} has {count} {entries} NaN or infinite (first: row {first})",
            "drop those rows or fill them in",
        )
    return copy


def label_tensor(labels: Values, n: int) -> Labels:
    """An int64 copy of ``labels``, one an input.

    Args:
        labels: n integers.
        n: the number of inputs.

    Returns:
        The copy, shape n.

    Raises:
        ArgumentError: unless ``labels`` has an integer dtype and shape n.

    Example:
        >>> label_tensor([3, 8], 2)
        tensor([3, 8])
    """
    tensor = _numbers("labels", labels)
    if tuple(tensor.shape) != (n,):
        raise ArgumentError("labels", f"has shape {shape(tensor)}, but x has {n} rows", f"pass one integer a row: shape ({n},)")
    if tensor.is_floating_point():
        raise ArgumentError("labels", f"has dtype {tensor.dtype}", "pass integers (numbers to be fitted belong in y)")
    if tensor.dtype == torch.uint64 and bool((tensor.to(torch.int64) < 0).any()):
        raise ArgumentError("labels", "has values above 2**63 - 1", "renumber the labels")
    return tensor.detach().to(torch.int64, copy=True).contiguous()


def first_row(bad: Bool[Tensor, " n"]) -> int:
    """The number of the first row that is marked.

    Args:
        bad: one mark a row, at least one of them set.

    Returns:
        The row's number, from 0.

    Example:
        >>> first_row(torch.tensor([False, True, True]))
        1
    """
    return int(bad.to(torch.uint8).argmax())


def shape(tensor: Tensor) -> str:
    """A shape as errors print it.

    Args:
        tensor: any tensor.

    Returns:
        Such as ``(5, 3)``.

    Example:
        >>> shape(torch.zeros(5, 3))
        '(5, 3)'
    """
    return str(tuple(tensor.shape))


def _numbers(argument: str, values: Values) -> Tensor:
    """``values`` as a tensor of real numbers, in whatever dtype they came (not yet copied)."""
    if isinstance(values, Tensor):
        if values.layout != torch.strided:
            raise ArgumentError(argument, f"is a tensor of layout {values.layout}", "pass a dense one: .to_dense()")
        if values.dtype == torch.bool or values.is_complex():
            raise ArgumentError(argument, f"of shape {shape(values)} has dtype {values.dtype}", "pass real numbers")
        return values
    # Numpy would drop the mask without a word and use the numbers below it.
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise ArgumentError(argument, "is a masked array with masked entries", "fill them in (.filled) or drop their rows")
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ArgumentError(
            argument, f"is not one block of numbers ({error})", "pass a tensor, an array or even nested lists"
        ) from error
    if array.dtype.kind not in "iuf":
        found = _KINDS.get(array.dtype.kind, "no numbers")
        raise ArgumentError(argument, f"of shape {array.shape} holds {found} (dtype {array.dtype})", "pass real numbers")
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # a long double too large for float64 becomes inf, which the door then refuses
            array = array.astype(np.float64, order="C")
    else:
        array = array.astype(array.dtype.newbyteorder("="), order="C")
    return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))

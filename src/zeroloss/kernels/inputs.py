"""Inputs at the door of a limit kernel: rows or images, float32 or float64, finite."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from zeroloss.errors import ArgumentError
from zeroloss.typing import Inputs


def check_inputs(name: str, x: Tensor, module: nn.Module) -> Inputs:
    """Images or sequences for a module that convolves and rows for any other; float32 stays, all other real numbers become float64.

    Args:
        name: the argument's, for errors.
        x: n×d rows, n×c×w sequences, or n×c×h×w images, which a module that does not convolve sees as rows.
        module: the module.

    Returns:
        The inputs, in the graph if they are in one.

    Raises:
        ArgumentError: for other shapes, half precision, complex or boolean numbers, NaN or infinity.

    Example:
        >>> check_inputs("x", torch.ones(2, 3, dtype=torch.int64), nn.Linear(3, 1)).dtype
        torch.float64
    """
    wanted, what = _shape(module)
    if not isinstance(x, Tensor):
        raise ArgumentError(name, f"is of type {type(x).__name__}", f"pass torch.as_tensor({name}), an {what}")
    if x.ndim < 2 or x.layout != torch.strided or x.device.type == "meta":
        raise ArgumentError(name, f"has shape {tuple(x.shape)} ({x.layout}, {x.device})", f"pass an {what}")
    if wanted > 2 and x.ndim != wanted:
        kind = "images" if wanted == 4 else "sequences"
        raise ArgumentError(name, f"has shape {tuple(x.shape)}, but the module convolves {kind}", f"pass an {what}")
    if x.dtype in (torch.float16, torch.bfloat16) or x.is_complex() or x.dtype == torch.bool:
        raise ArgumentError(name, f"has dtype {x.dtype}", "convert it to float32 or float64 first")
    if x[:1].numel() == 0 and 0 in x.shape[1:]:
        raise ArgumentError(name, f"has shape {tuple(x.shape)}", "pass inputs with at least one number each")
    rows = x.flatten(1) if x.dtype == torch.float32 else x.flatten(1).to(torch.float64)
    if not bool(torch.isfinite(rows.detach().sum(dim=1, dtype=torch.float64)).all()):  # one number a row; then the slow question
        bad = ~torch.isfinite(rows).all(dim=1)
        if bool(bad.any()):
            where = int(bad.nonzero()[0])
            raise ArgumentError(name, f"has NaN or infinity in {int(bad.sum())} rows (first: row {where})", "clean or drop them")
    return rows.reshape(x.shape) if wanted > 2 else rows


def _shape(module: nn.Module) -> tuple[int, str]:
    """How many dimensions the module's inputs have, and in words."""
    if any(isinstance(layer, nn.Conv2d | nn.AvgPool2d | nn.AdaptiveAvgPool2d) for layer in module.modules()):
        return 4, "n×c×h×w tensor of images"
    if any(isinstance(layer, nn.Conv1d | nn.AvgPool1d | nn.AdaptiveAvgPool1d) for layer in module.modules()):
        return 3, "n×c×w tensor of sequences"
    return 2, "n×d tensor, one input a row"


def check_pair(
    x1: Tensor, x2: Tensor | None, module: nn.Module
) -> tuple[Float[Tensor, " n1 *shape"], Float[Tensor, " n2 *shape"] | None]:
    """Two sets of inputs of one shape, or one.

    Args:
        x1: the first set.
        x2: the second; None, or the first one itself, for the first with itself.
        module: the module.

    Returns:
        The two, the second None for one.

    Raises:
        ArgumentError: as :func:`check_inputs`, and for inputs of two shapes.

    Example:
        >>> check_pair(torch.ones(2, 3), None, nn.Linear(3, 1))[1] is None
        True
    """
    first = check_inputs("x1", x1, module)
    second = None if x2 is None or x2 is x1 else check_inputs("x2", x2, module)
    if second is not None and second.shape[1:] != first.shape[1:]:
        seen, wanted = (f"{t.shape[1]} columns" if t.ndim == 2 else f"images of {tuple(t.shape[1:])}" for t in (second, first))
        raise ArgumentError("x2", f"has {seen} where x1 has {wanted}", "pass inputs of one shape")
    return first, second


def check_out(out: object, shape: tuple[int, int], like: Tensor) -> Tensor:
    """A tensor to write into, or an array or memory map as one.

    Args:
        out: what was given.
        shape: what it must have.
        like: inputs, on whose device it must be.

    Returns:
        A tensor that shares its memory.

    Raises:
        ArgumentError: for another shape, dtype or device, or memory that cannot be written to.

    Example:
        >>> check_out(np.zeros((1, 2)), (1, 2), torch.ones(1)).shape
        torch.Size([1, 2])
    """
    if isinstance(out, np.ndarray) and out.dtype in (np.float32, np.float64) and out.flags.writeable:
        out = torch.from_numpy(out)
    if not isinstance(out, Tensor) or out.dtype not in (torch.float32, torch.float64):
        seen = str(getattr(out, "dtype", type(out).__name__))
        raise ArgumentError("out", f"is {seen}", "pass a writable float32 or float64 tensor or array")
    if out.shape != shape:
        raise ArgumentError("out", f"has shape {tuple(out.shape)}", f"pass one of shape {shape}")
    expanded = any(step == 0 and length > 1 for step, length in zip(out.stride(), out.shape, strict=True))
    if out.requires_grad or out.device != like.device or expanded:
        raise ArgumentError("out", "requires gradients, is expanded, or lies on another device", "pass memory of its own")
    return out


def shares_memory(x: Tensor, out: Tensor) -> bool:
    """Whether writing to one may change the other.

    Example:
        >>> x = torch.zeros(2, 2)
        >>> shares_memory(x[:1], x), shares_memory(x, x.clone())
        (True, False)
    """
    return x.untyped_storage().data_ptr() == out.untyped_storage().data_ptr()

"""One forward pass that records what every layer of a known kind saw: its inputs, and its outputs in the graph."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from zeroloss.errors import ArgumentError
from zeroloss.gram.affine import gradient_of
from zeroloss.gram.positions import kind_of

Taken = ParamSpec("Taken")
Given = TypeVar("Given")
_TURN = threading.RLock()


def alone(function: Callable[Taken, Given]) -> Callable[Taken, Given]:
    """Let a function differentiate, and one thread at a time: what it hangs on a module would record the other threads' passes too.

    Args:
        function: any.

    Returns:
        The same, with gradients on, in turn.
    """

    @functools.wraps(function)
    def taken_in_turn(*args: Taken.args, **kwargs: Taken.kwargs) -> Given:
        with _TURN, torch.enable_grad():
            return function(*args, **kwargs)

    return taken_in_turn


@dataclass(frozen=True, eq=False)
class Call:
    """One use of one layer in a forward pass.

    Args:
        name: the layer's dotted name.
        layer: the layer, of a kind in :data:`zeroloss.gram.positions.KINDS` or :mod:`zeroloss.gram.affine`.
        inputs: h, as the layer took them: n×d, n×tokens×d, or n×channels×height×width.
        outputs: z, as the layer gave them, still in the graph.
    """

    name: str
    layer: nn.Module
    inputs: Tensor
    outputs: Tensor

    @property
    def linear(self) -> bool:
        """Whether the layer applies a weight to its inputs, as linear layers and convolutions do."""
        return isinstance(self.layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)


def trace(module: nn.Module, x: Tensor) -> tuple[Tensor, list[Call]]:
    """Run the module once and record every call of a layer of a known kind.

    Args:
        module: any module; it is left as it was.
        x: inputs, one a row, converted to the module's dtype and device.

    Returns:
        The outputs as n×k, and the calls in the order in which they ran.

    Raises:
        ArgumentError: where the outputs are not one row an input, or a layer mixes samples.
    """
    refuse_mixing(module)
    names = {layer: name for name, layer in module.named_modules() if kind_of(layer) or gradient_of(layer)}
    calls: list[Call] = []

    def record(layer: nn.Module, arguments: tuple[Tensor, ...], result: Tensor) -> Tensor:
        if not arguments or not isinstance(arguments[0], Tensor):
            return result  # called by keyword: what it saw is not known, and its parameters go another way
        calls.append(Call(names[layer], layer, arguments[0].detach(), result))
        return result.clone()  # an activation that works in place must not overwrite what was recorded

    with hooks(names, record), torch.enable_grad():
        outputs = forward(module, x)
    return outputs, calls


def forward(module: nn.Module, x: Tensor) -> Tensor:
    """The module's outputs as n×k, its inputs checked and put into its dtype and onto its device.

    Args:
        module: any module.
        x: inputs, one a row.

    Returns:
        Outputs, in the graph where gradients are enabled.

    Raises:
        ArgumentError: for inputs that are empty, complex, not finite, or do not fit, and outputs that are not one row an input.
    """
    if not isinstance(x, Tensor) or x.ndim < 1 or len(x) == 0 or x.is_complex():
        seen = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ArgumentError("x", f"is {seen}", "pass a real tensor with at least one row")
    if not bool(torch.isfinite(x).all()):
        row = int((~torch.isfinite(x.flatten(1) if x.ndim > 1 else x[:, None]).all(dim=1)).nonzero()[0])
        raise ArgumentError("x", f"has NaN or infinity (first: row {row})", "clean or drop such rows")
    try:
        outputs = module(own_copy(match(module, x)))
    except (RuntimeError, ValueError, IndexError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if not any(word in reason for word in ("shape", "dimension", "size", "indices", "index")):
            raise
        remedy = "pass token numbers as integers within its vocabulary" if "ind" in reason else "pass rows of its length"
        raise ArgumentError("x", f"of shape {tuple(x.shape)} does not fit the module ({reason})", remedy) from error
    return rows_of(outputs, len(x))


@contextlib.contextmanager
def hooks(layers: dict[nn.Module, str], record: object) -> Iterator[None]:
    """Register a forward hook on every layer for the length of a block, and take it off again whatever happens."""
    handles = [layer.register_forward_hook(record) for layer in layers]  # type: ignore[arg-type]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def match(module: nn.Module, x: Tensor) -> Tensor:
    """The inputs on the device and in the dtype of the module's parameters; whole numbers stay so where it looks tokens up."""
    tokens = not x.is_floating_point() and any(isinstance(layer, nn.Embedding | nn.EmbeddingBag) for layer in module.modules())
    for parameter in module.parameters():
        return x.detach().to(device=parameter.device, dtype=x.dtype if tokens else parameter.dtype)
    return x.detach()


def own_copy(x: Tensor) -> Tensor:
    """Inputs that a module may write into, as one does that begins with an activation in place: the caller's stay as they are.

    Args:
        x: inputs.

    Returns:
        The same numbers in memory of their own.

    Example:
        >>> x = torch.tensor([-1.0])
        >>> nn.ReLU(inplace=True)(own_copy(x)), x
        (tensor([0.]), tensor([-1.]))
    """
    return x.clone()


def rows_of(outputs: Tensor, n: int) -> Tensor:
    """A module's outputs as n×k.

    Raises:
        ArgumentError: where they are not one row an input.
    """
    if not isinstance(outputs, Tensor) or outputs.ndim == 0 or outputs.shape[0] != n:
        seen = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ArgumentError("module", f"returns {seen} for {n} inputs", "return one row of outputs an input")
    return outputs.reshape(n, -1)


def refuse_mixing(module: nn.Module) -> None:
    """Refuse a module that by its own setting mixes samples, or is random, for which a tangent kernel is not defined.

    Raises:
        ArgumentError: naming the layer.
    """
    for name, layer in module.named_modules():
        kind = type(layer).__name__
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and (layer.training or layer.running_mean is None):
            how = "in training mode" if layer.training else "without running statistics"
            remedy = "call module.eval() first" if layer.training else "build it with track_running_stats=True"
            raise ArgumentError("module", f"mixes samples: {name!r} is {kind} {how}", remedy)
        if isinstance(layer, nn.modules.instancenorm._InstanceNorm) and layer.training and layer.track_running_stats:
            raise ArgumentError("module", f"changes as it runs: {name!r} is {kind} in training mode", "call module.eval() first")
        if isinstance(layer, nn.modules.dropout._DropoutNd) and layer.training and layer.p > 0:
            raise ArgumentError("module", f"is random: {name!r} is {kind} in training mode", "call module.eval() first")

"""One forward and one backward pass that record what every linear layer saw: its inputs and the outputs' derivatives."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zeroloss.errors import ArgumentError


@dataclass(frozen=True, eq=False)
class Call:
    """One use of one linear layer in a forward pass.

    Args:
        name: the layer's dotted name.
        layer: the layer.
        inputs: h, n×d_in.
        outputs: z, n×d_out, still in the graph.
    """

    name: str
    layer: nn.Linear
    inputs: Tensor
    outputs: Tensor


def trace(module: nn.Module, x: Tensor) -> tuple[Tensor, list[Call]]:
    """Run the module once and record every call of a linear layer.

    Args:
        module: any module; it is left as it was.
        x: n×d inputs, converted to the module's dtype and device.

    Returns:
        The outputs as n×k, and the calls in the order in which they ran.

    Raises:
        ArgumentError: where the outputs are not one row an input, or a layer mixes samples.
    """
    refuse_mixing(module)
    names = {layer: name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}
    calls: list[Call] = []

    def record(layer: nn.Module, arguments: tuple[Tensor, ...], result: Tensor) -> None:
        if isinstance(layer, nn.Linear):
            calls.append(Call(names[layer], layer, arguments[0].detach(), result))

    with hooks(names, record), torch.enable_grad():
        outputs = module(match(module, x))
    return rows_of(outputs, len(x)), calls


@contextlib.contextmanager
def hooks(layers: dict[nn.Linear, str], record: object) -> Iterator[None]:
    """Register a forward hook on every layer for the length of a block, and take it off again whatever happens."""
    handles = [layer.register_forward_hook(record) for layer in layers]  # type: ignore[arg-type]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def match(module: nn.Module, x: Tensor) -> Tensor:
    """The inputs in the dtype and on the device of the module's parameters."""
    for parameter in module.parameters():
        return x.detach().to(device=parameter.device, dtype=parameter.dtype)
    return x.detach()


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
    """Refuse a module whose outputs for one sample depend on the others, for which a tangent kernel is not defined.

    Raises:
        ArgumentError: naming the layer.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training:
            raise ArgumentError(
                "module", f"mixes samples: {name!r} is {type(layer).__name__} in training mode", "call module.eval() first"
            )

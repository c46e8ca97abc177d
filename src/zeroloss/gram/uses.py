"""What a per-layer Gram rests on, checked: who owns the trained parameters, how they are used, and that samples keep apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zeroloss.errors import ArgumentError
from zeroloss.gram.positions import Layer, check_rows, is_layer, parameters_of, patches, signals
from zeroloss.gram.trace import Call, trace
from zeroloss.typing import Inputs


def trained_layers(module: nn.Module) -> dict[Layer, str]:
    """The layers that hold the module's trainable parameters.

    Args:
        module: any module.

    Returns:
        Layer to its dotted name, in the module's order.

    Raises:
        ArgumentError: naming a parameter that the per-layer formula does not cover, or saying that none is trainable.

    Example:
        >>> list(trained_layers(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 1))).values())
        ['0', '2']
    """
    layers = {layer: name for name, layer in module.named_modules() if is_layer(layer) and parameters_of(layer)}
    covered = {id(p) for layer in layers for p in parameters_of(layer).values()}
    names = [name for name, p in module.named_parameters() if p.requires_grad and id(p) not in covered]
    if names:
        raise ArgumentError(
            "module",
            f"trains {names[0]!r}, which is not the weight or bias of a Linear layer or of a Conv2d with groups=1",
            "freeze it, or use such layers only",
        )
    if not layers:
        raise ArgumentError("module", "has no trainable parameter", "set requires_grad=True on the layers to be trained")
    return layers


def used_calls(calls: Sequence[Call], layers: dict[Layer, str], n: int) -> list[Call]:
    """The calls through which a trained layer can act on the outputs.

    Args:
        calls: as recorded.
        layers: the trained ones.
        n: the number of samples.

    Returns:
        Those of trained layers that are in the graph.

    Raises:
        ArgumentError: where a layer's inputs do not have one row a sample.
    """
    used = [call for call in calls if call.layer in layers and call.outputs.requires_grad]
    for call in used:
        check_rows(call.name, call.layer, call.inputs, n)
    return used


def check_uses(module: nn.Module, x: Inputs) -> tuple[Tensor, list[Call]]:
    r"""Refuse a module that uses a layer's parameters in a way that its calls do not show, or whose samples act on each other.

    On two rows, a random combination of the first one's outputs is differentiated. The gradient from the recorded calls,
    $\sum_t\delta_t\phi_t^\top$, is held against that of automatic differentiation: a weight shared between two layers, or used through
    ``functional.linear``, makes them differ. And the second row must not have moved the first one's outputs. The per-layer formula
    would be wrong in silence in either case.

    Args:
        module: as for :func:`zeroloss.gram.gram`.
        x: inputs, of which two rows are looked at.

    Returns:
        The outputs for those rows and the calls of trained layers, which tell what a row needs.

    Raises:
        ArgumentError: naming the parameter or the layer.
    """
    layers = trained_layers(module)
    outputs, calls = trace(module, x[:2])
    used = used_calls(calls, layers, len(outputs))
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(outputs.shape[1], generator=generator).to(outputs)  # equal ones are blind where outputs sum to 1
    owned = [(layer, part, parameter) for layer in layers for part, parameter in parameters_of(layer).items()]
    wanted = [call.outputs for call in used] + [parameter for *_, parameter in owned]
    found: Sequence[Tensor | None] = torch.autograd.grad(outputs[0] @ weights, wanted, allow_unused=True)
    # both gradients are compared along one random direction: that costs two passes over the weights where comparing them whole costs six
    along = {layer: torch.randn(layer.weight[0].numel() + 1, generator=generator).to(outputs) for layer in layers}
    gaps = {layer: outputs.new_zeros(len(layer.weight)) for layer in layers}
    sizes = dict.fromkeys(layers, 0.0)  # of the terms, not of their sum: positions and calls may cancel down to rounding
    for call, delta in zip(used, found, strict=False):
        if delta is None:
            continue
        if bool((delta[1:].abs() > 0).any()):
            seen = f"mixes samples: one row moves another's outputs through {call.name!r}"
            raise ArgumentError("module", seen, "keep samples apart")
        direction = torch.cat([_part(along[call.layer], part) for part in parameters_of(call.layer)])
        phi, signal = patches(call.layer, call.inputs[:1])[0], signals(call.layer, delta[:1])[0]
        gaps[call.layer] += signal @ (direction @ phi)
        sizes[call.layer] += float((signal.abs() @ (direction.abs() @ phi.abs())).norm())
    for (layer, part, _), gradient in zip(owned, found[len(used) :], strict=True):
        if gradient is not None:
            gaps[layer] -= gradient.reshape(len(gradient), -1) @ _part(along[layer], part)
    for layer, name in layers.items():
        if float(gaps[layer].norm()) > 1e4 * torch.finfo(outputs.dtype).eps * sizes[layer]:
            parameter = ".".join([*filter(None, [name]), next(iter(parameters_of(layer)))])
            seen = f"uses {parameter!r} outside its own layer (shared or functional use)"
            raise ArgumentError("module", seen, "give every use a layer of its own")
    return outputs, used


def _part(direction: Tensor, part: str) -> Tensor:
    """The entries of a direction that meet the weight, or the last one, which meets the bias."""
    return direction[:-1] if part == "weight" else direction[-1:]

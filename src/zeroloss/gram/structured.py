r"""The finite-width Gram (empirical NTK), layer by layer: $G = \sum_l (H_{l-1}H_{l-1}^\top) \circ (\Delta_l\Delta_l^\top)$.

$H_{l-1}$ holds a layer's inputs and $\Delta_l$ the derivatives of an output in its pre-activations, so no n×P Jacobian is
ever formed (AZ Fact 2.6, DU section 3; THEORY 1.2, 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zeroloss.errors import ArgumentError
from zeroloss.gram.trace import Call, trace
from zeroloss.typing import Inputs


def gram(module: nn.Module, x: Inputs, output: str | int = "mean") -> Float[Tensor, "N N"]:
    r"""The Gram matrix $J J^\top$ of the module's outputs over its trainable parameters, at its current weights.

    Args:
        module: a module whose trainable parameters all belong to ``nn.Linear`` layers.
        x: n×d inputs.
        output: ``"mean"``, the n×n average over the k outputs; an int, that output's n×n; ``"full"``, all pairs of outputs,
            (nk)×(nk), sample-major (row ``i*k + a`` is output a of sample i).

    Returns:
        The Gram, symmetric, in the module's dtype.

    Raises:
        ArgumentError: for an unknown output, a layer that mixes samples, or a trainable parameter outside Linear layers.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False).double()
        >>> gram(layer, torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64))
        tensor([[ 5., 11.],
                [11., 25.]], dtype=torch.float64)
    """
    parts = layer_grams(module, x, output)
    return torch.stack(list(parts.values())).sum(dim=0)


def layer_grams(module: nn.Module, x: Inputs, output: str | int = "mean") -> dict[str, Float[Tensor, "N N"]]:
    r"""Every trainable layer's share of the Gram (DU's $G^{(h)}$; they sum to :func:`gram`).

    Args:
        module: as for :func:`gram`.
        x: n×d inputs.
        output: as for :func:`gram`.

    Returns:
        Layer name to its share, first layer first.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
        >>> list(layer_grams(net, torch.ones(4, 2)))
        ['0', '2']
    """
    check_trainable(module)
    check_uses(module, x[:4])
    outputs, calls = trace(module, x)
    trained = [c for c in calls if c.layer.weight.requires_grad or (c.layer.bias is not None and c.layer.bias.requires_grad)]
    for call in trained:
        if call.inputs.ndim != 2:
            raise ArgumentError(
                "module", f"uses {call.name!r} on inputs of shape {tuple(call.inputs.shape)}", "flatten to n×d before it"
            )
    k = outputs.shape[1]
    if output == "full" or output == "mean":
        chosen = list(range(k))
    elif isinstance(output, int) and not isinstance(output, bool) and 0 <= output < k:
        chosen = [output]
    else:
        raise ArgumentError("output", f"is {output!r}", f"pass 'mean', 'full', or an int from 0 to {k - 1}")
    deltas = [
        torch.autograd.grad(outputs[:, a].sum(), [c.outputs for c in trained], retain_graph=True, allow_unused=True)
        for a in chosen
    ]
    return {
        name: _share([c for c in trained if c.name == name], trained, deltas, full=output == "full")
        for name in dict.fromkeys(c.name for c in trained)
    }


def check_trainable(module: nn.Module) -> None:
    """Refuse a module with trainable parameters that the per-layer formula does not cover.

    Raises:
        ArgumentError: naming the parameter, or saying that none is trainable.
    """
    covered = {id(p) for layer in module.modules() if isinstance(layer, nn.Linear) for p in layer.parameters(recurse=False)}
    names = [name for name, p in module.named_parameters() if p.requires_grad and id(p) not in covered]
    if names:
        raise ArgumentError(
            "module", f"trains {names[0]!r}, which is not in a Linear layer", "freeze it, or use Linear layers only"
        )
    if not any(p.requires_grad for p in module.parameters()):
        raise ArgumentError("module", "has no trainable parameter", "set requires_grad=True on the layers to be trained")


def check_uses(module: nn.Module, x: Inputs) -> None:
    r"""Refuse a module that uses a Linear layer's weights in a way that its calls do not show.

    On a few rows the gradient from the recorded calls, $\sum \delta^\top h$, is held against automatic differentiation: a weight shared
    between two layers, or used through ``functional.linear``, makes them differ, and the per-layer formula would be wrong in silence.

    Raises:
        ArgumentError: naming the parameter.
    """
    outputs, calls = trace(module, x)
    value = outputs.sum()
    names = {id(p): name for name, p in module.named_parameters()}
    trained = [c for c in calls if c.inputs.ndim == 2 and c.layer.weight.requires_grad]
    if not trained:
        return
    deltas = torch.autograd.grad(value, [c.outputs for c in trained], retain_graph=True, allow_unused=True)
    # both gradients are compared along one random direction: that costs two passes over the weights where comparing them whole costs six
    generator = torch.Generator().manual_seed(0)
    directions = {c.layer: torch.randn(c.layer.in_features, generator=generator).to(c.layer.weight) for c in trained}
    sums: dict[nn.Linear, Tensor] = {}
    sizes: dict[nn.Linear, float] = {}  # of the terms, not of their sum: opposite rows may cancel down to rounding
    for call, delta in zip(trained, deltas, strict=True):
        if delta is not None:
            along = call.inputs @ directions[call.layer]
            part = delta.T @ along
            sums[call.layer] = sums[call.layer] + part if call.layer in sums else part
            reach = call.inputs.abs() @ directions[call.layer].abs()
            sizes[call.layer] = sizes.get(call.layer, 0.0) + float((delta.abs().T @ reach).norm())
    exact = torch.autograd.grad(value, [layer.weight for layer in sums], allow_unused=True)
    for (layer, ours), true in zip(sums.items(), exact, strict=True):
        other = torch.zeros_like(ours) if true is None else true @ directions[layer]
        if float((ours - other).norm()) > 1e4 * torch.finfo(ours.dtype).eps * sizes[layer]:
            name = names[id(layer.weight)]
            raise ArgumentError(
                "module",
                f"uses {name!r} outside its own layer (shared or functional use)",
                "give every use a Linear layer of its own",
            )


def _share(own: list[Call], trained: list[Call], deltas: Sequence[tuple[Tensor | None, ...]], full: bool) -> Tensor:
    """One layer's Gram: a layer called twice has the sum of its calls as gradient, so all pairs of calls contribute."""
    n = len(own[0].inputs)
    k = len(deltas)
    index = {id(call): position for position, call in enumerate(trained)}
    total = torch.zeros((n, k, n, k) if full else (n, n), dtype=own[0].inputs.dtype, device=own[0].inputs.device)
    for first in own:
        for second in own:
            weight, bias = first.layer.weight.requires_grad, first.layer.bias is not None and first.layer.bias.requires_grad
            inner = first.inputs @ second.inputs.T if weight else torch.zeros_like(total[:, 0, :, 0] if full else total)
            if bias:
                inner = inner + 1
            for a, left in enumerate(deltas):
                for b, right in enumerate(deltas):
                    if not full and a != b:
                        continue
                    d1, d2 = left[index[id(first)]], right[index[id(second)]]
                    if d1 is None or d2 is None:  # this output does not depend on the layer
                        continue
                    if full:
                        total[:, a, :, b] += inner * (d1 @ d2.T)
                    else:
                        total += inner * (d1 @ d2.T) / k
    return total.reshape(n * k, n * k) if full else total

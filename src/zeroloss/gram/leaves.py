"""What the graph of a pass says of a weight's uses, without computing a gradient: the common case, told at no cost.

A linear layer's call on rows is one node of the graph, a product with the weight. Where the graph has as many edges to the weight and to
the bias as the layer has calls, all of them from those nodes, nothing else uses either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from zeroloss.gram.trace import Call


def plain_layers(outputs: Tensor, calls: Sequence[Call]) -> set[nn.Module]:
    """Linear layers whose trained parameters act through their calls alone, by the products that the calls show.

    Args:
        outputs: of the pass, in its graph.
        calls: those of one pass that are in the graph.

    Returns:
        The layers; that another is missing says nothing of it.

    Example:
        >>> import torch
        >>> from zeroloss.gram.trace import trace
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> len(plain_layers(*trace(net, torch.eye(2))))
        2
    """
    uses = _uses(outputs)
    found = set()
    for layer in dict.fromkeys(call.layer for call in calls):
        own = [call for call in calls if call.layer is layer]
        products = [call.outputs.grad_fn for call in own]
        trained = [
            p for p in (layer._parameters.get("weight"), layer._parameters.get("bias")) if p is not None and p.requires_grad
        ]
        if (
            type(layer).forward is nn.Linear.forward
            and all(call.inputs.ndim == 2 for call in own)
            and all(product is not None and product.name() in ("AddmmBackward0", "MmBackward0") for product in products)
            and all(sorted(map(id, uses.get(p, []))) == sorted(map(id, products)) for p in trained)
        ):
            found.add(layer)
    return found


def _uses(outputs: Tensor) -> dict[Tensor, list[object]]:
    """Every leaf's uses in the graph: the nodes that take it, seen through transpositions."""
    parents: dict[Any, list[Any]] = {outputs.grad_fn: []}
    stack = [outputs.grad_fn]
    while stack:
        node = stack.pop()
        for below, _ in node.next_functions if node is not None else ():
            if below is None:
                continue
            if below not in parents:
                parents[below] = []
                stack.append(below)
            parents[below].append(node)
    found: dict[Tensor, list[object]] = {}
    for node, above in parents.items():
        variable = getattr(node, "variable", None)
        if variable is not None:
            found[variable] = [use for one in above for use in (parents[one] if one.name() == "TBackward0" else [one])]
    return found

"""Which way each trained parameter's share of the Gram is formed, found out on a few rows, and that samples keep apart.

A layer's calls speak for a parameter where the gradient they make up, a sum over positions or one written out, is the one that automatic
differentiation finds. Weights that are tied, used through a function, or laid out with other things than samples in the first
dimension make the two differ: those parameters are differentiated sample by sample instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zeroloss.errors import ArgumentError
from zeroloss.gram.affine import reach, written_out
from zeroloss.gram.leaves import plain_layers
from zeroloss.gram.parameters import owners, parameters_of
from zeroloss.gram.per_sample import WAYS
from zeroloss.gram.positions import kind_of, patches
from zeroloss.gram.trace import Call, alone, forward, trace
from zeroloss.typing import AnyInputs

ROUNDING = 1e4  # units in the last place by which two passes, or two ways to a sample's gradient, may differ
COVERED = 100.0  # likewise two orders of one sum, of the size of its terms


@dataclass(frozen=True, eq=False)
class Plan:
    """How a module's Gram is formed.

    Args:
        covered: layer to the parts, of ``"weight"`` and ``"bias"``, for which its calls speak.
        rest: names of all other trained parameters.
        way: how gradients in those are taken, a key of :data:`zeroloss.gram.per_sample.WAYS`.
        row_bytes: what the outputs of the covered layers take for a row.
        outputs: k.
    """

    covered: dict[nn.Module, tuple[str, ...]]
    rest: tuple[str, ...]
    way: str
    row_bytes: int
    outputs: int

    def used(self, calls: Sequence[Call], n: int) -> list[Call]:
        """The calls that speak for trained parameters and are in the graph.

        Raises:
            ArgumentError: where one does not have one row a sample.
        """
        used = [call for call in calls if call.layer in self.covered and call.outputs.requires_grad]
        for call in used:
            if not _by_rows(call, n):
                seen = f"uses {call.name!r} on inputs of shape {tuple(call.inputs.shape)} for {n} samples"
                raise ArgumentError("module", seen, "keep the samples in the first dimension, one row each")
        return used


@alone
def make_plan(module: nn.Module, x: AnyInputs) -> Plan:
    """Find out how a module uses its trained parameters, on two of its inputs.

    Args:
        module: any module whose outputs for one sample depend on that sample alone.
        x: inputs, one a row.

    Returns:
        The plan, good for any weights at which the module uses its parameters in the same way.

    Raises:
        ArgumentError: where nothing is trainable, samples mix, outputs are random, cut off from the weights or not real numbers, or a
            row alone is treated in another way.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> net[1].weight = net[0].weight
        >>> make_plan(net, torch.eye(2)).rest
        ('0.weight',)
    """
    if not isinstance(module, nn.Module):
        raise ArgumentError("module", f"is {type(module).__name__}", "pass a torch.nn.Module")
    names = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not names:
        raise ArgumentError("module", "has no trainable parameter", "set requires_grad=True on the layers to be trained")
    rows = _few(x)
    outputs, calls = trace(module, rows)
    if not outputs.numel() or not outputs.is_floating_point():
        raise ArgumentError(
            "module", f"gives {outputs.dtype} of shape {tuple(outputs.shape)}", "return real numbers, one row an input"
        )
    if not outputs.requires_grad:
        remedy = "take detach() and no_grad() out of its forward, and inference_mode() from around this call"
        raise ArgumentError("module", "gives outputs that are cut off from its trained parameters", remedy)
    _check_apart(module, rows, outputs.detach(), _largest(calls))
    covered = _covered(module, outputs, calls)
    spoken = {id(p) for layer, mine in covered.items() for part, p in parameters_of(layer).items() if part in mine}
    rest = tuple(name for name, p in names.items() if id(p) not in spoken)
    size = sum(call.outputs.numel() for call in calls if call.layer in covered) * outputs.element_size()
    way = _way(module, rest, rows, outputs) if rest else "vectorised"
    return Plan(covered, rest, way, max(1, size // len(rows)), outputs.shape[1])


def check_apart(module: nn.Module, x: AnyInputs) -> None:
    """Refuse a module whose samples act on each other, or whose outputs are random, as far as three rows tell.

    Args:
        module: any.
        x: inputs.

    Raises:
        ArgumentError: saying which.
    """
    rows = _few(x)
    outputs, calls = trace(module, rows)
    _check_apart(module, rows, outputs.detach(), _largest(calls))


def _largest(calls: Sequence[Call]) -> float:
    return max((float(call.outputs.detach().abs().max()) for call in calls if call.outputs.numel()), default=0.0)


def _few(x: Tensor) -> Tensor:
    """The first row, the first one that differs from it, and the first again: mixing, and another order, show only where rows differ."""
    if not isinstance(x, Tensor) or x.ndim < 1 or len(x) < 2:
        return x
    other = int((x[1:] != x[0]).flatten(1).any(dim=1).to(torch.uint8).argmax()) if x.ndim > 1 else 0
    return x[[0, 1 + other, 0]]


def _check_apart(module: nn.Module, rows: Tensor, outputs: Tensor, within: float) -> None:
    """Refuse outputs of the first row that change with the rows beside or before it, or from one pass to the next.

    Outputs may be what is left where large numbers cancel, so rounding is measured by the largest number within, too.
    """
    size = ROUNDING * torch.finfo(outputs.dtype).eps * max(float(outputs.abs().max()), within)
    if not math.isfinite(size):
        return  # nothing can be told from NaN; what is formed from it will be NaN too
    with torch.no_grad():
        beside = forward(module, rows[[0] * len(rows)])
        if max(float((beside[0] - outputs[0]).abs().max()), float((outputs[-1] - outputs[0]).abs().max())) <= size:
            return
        again = forward(module, rows)
    if float((again - outputs).abs().max()) > size:
        raise ArgumentError(
            "module", "is random: two passes over the same rows differ", "call module.eval() first, or fix its noise"
        )
    raise ArgumentError("module", "mixes samples: one row's outputs change with the rows beside it", "keep samples apart")


def _by_rows(call: Call, n: int) -> bool:
    """Whether a call's first dimension runs over the samples, as far as its shape tells."""
    kind = kind_of(call.layer)
    fewest = 2 if kind is None else kind.dimensions
    return call.inputs.ndim >= fewest and len(call.inputs) == n and len(call.outputs) == n


def _covered(module: nn.Module, outputs: Tensor, calls: Sequence[Call]) -> dict[nn.Module, tuple[str, ...]]:
    """The layers, and their parts, whose calls make up the gradient of each row's outputs, and of no other row's.

    Both are compared along one random direction, which costs two passes over the weights where comparing whole gradients costs six.
    """
    holders, generator = owners(module), torch.Generator().manual_seed(0)
    used = [call for call in calls if call.outputs.requires_grad]
    odd = {call.layer for call in used if not _by_rows(call, len(outputs))}
    parts = {
        layer: tuple(part for part, p in parameters_of(layer).items() if holders[id(p)] == 1)
        for layer in dict.fromkeys(call.layer for call in used)
        if layer not in odd
    }
    agreeing = {layer: mine for layer, mine in parts.items() if mine}  # so far
    used = [call for call in used if call.layer in agreeing]
    directions = {layer: _direction(layer, mine, generator) for layer, mine in agreeing.items()}
    aims = torch.randn(outputs.shape, generator=generator).to(outputs)  # equal ones are blind where outputs sum to 1
    values = [call.outputs for call in used]
    own = len(outputs) // 2  # the row between the others is in its place in no other order
    by_one = torch.autograd.grad(outputs[own] @ aims[own], values, retain_graph=True, allow_unused=True) if used else ()
    for call, delta in zip(used, by_one, strict=True):
        if delta is not None and any(bool((part.abs() > 0).any()) for part in (delta[:own], delta[own + 1 :])):
            agreeing.pop(call.layer, None)  # its rows are not samples
    told = plain_layers(outputs, used) if used else set()
    plain = {layer: mine for layer, mine in agreeing.items() if layer in told}
    agreeing = {layer: mine for layer, mine in agreeing.items() if layer not in told}
    owned = [(layer, parameters_of(layer)[part], directions[layer][part]) for layer, mine in agreeing.items() for part in mine]
    if not owned:
        return plain
    wanted = [*values, *(parameter for _, parameter, _ in owned)]
    found = torch.autograd.grad((outputs * aims).sum(), wanted, retain_graph=True, allow_unused=True)
    gaps: dict[nn.Module, Tensor | float] = dict.fromkeys(agreeing, 0.0)
    sizes = dict.fromkeys(agreeing, 0.0)  # of the terms, not of their sum: positions and calls may cancel down to rounding
    for (layer, _, direction), gradient in zip(owned, found[len(used) :], strict=True):
        if gradient is not None:
            whole = gradient.to_dense() if gradient.is_sparse else gradient
            gaps[layer] = gaps[layer] - _along(layer, whole, direction)
    for call, delta in zip(used, found, strict=False):
        if delta is not None and call.layer in agreeing:
            made, terms = _made(call, delta, directions[call.layer])
            gaps[call.layer], sizes[call.layer] = gaps[call.layer] + made, sizes[call.layer] + terms
    limit = COVERED * torch.finfo(outputs.dtype).eps
    agreed = {layer for layer in agreeing if float(torch.as_tensor(gaps[layer]).norm()) <= limit * sizes[layer]}
    return {layer: mine for layer, mine in parts.items() if layer in agreed or layer in plain}


def _direction(layer: nn.Module, parts: tuple[str, ...], generator: torch.Generator) -> dict[str, Tensor]:
    """A random one; for a layer that applies its weight at positions, one that all rows of the weight share."""
    direction = {}
    for part in parts:
        parameter = parameters_of(layer)[part]
        size = parameter.numel() if kind_of(layer) is None else parameter[0].numel()
        direction[part] = torch.randn(size, generator=generator).to(parameter)
    return direction


def _along(layer: nn.Module, gradient: Tensor, direction: Tensor) -> Tensor:
    """A true gradient along the direction: a number for each row of the weight, or one in all."""
    return gradient.flatten() @ direction if kind_of(layer) is None else gradient.reshape(len(gradient), -1) @ direction


def _made(call: Call, delta: Tensor, direction: dict[str, Tensor]) -> tuple[Tensor, float]:
    """What one call makes up of the same over all rows, and the size of its terms."""
    kind, along = kind_of(call.layer), torch.cat(list(direction.values()))
    if kind is None:
        gradient = written_out(call.layer, call.inputs, delta[:, None], tuple(direction)).sum(dim=(0, 1))
        return gradient @ along, float(delta.abs().sum() * along.abs().max() * (1 + reach(call.layer, call.inputs)))
    signal = kind.signals(delta).transpose(0, 1).flatten(1)
    phi = patches(call.layer, call.inputs, tuple(direction)).transpose(0, 1).flatten(1)
    if kind.explicit:
        return signal @ (along @ phi), float((signal.abs() @ (along.abs() @ phi.abs())).norm())
    known, weight = phi[0].isfinite(), call.layer.weight
    assert isinstance(weight, Tensor)
    summed = torch.zeros_like(weight).index_add_(0, phi[0][known].long(), signal.T[known])
    return summed @ along, float(signal.abs().sum() * along.abs().max())


def _way(module: nn.Module, names: tuple[str, ...], rows: Tensor, outputs: Tensor) -> str:
    """The first way to sample gradients that gives, one row at a time, what a pass over both rows gives."""
    own = dict(module.named_parameters())
    generator = torch.Generator().manual_seed(0)
    few = sorted({0, outputs.shape[1] - 1})
    aims = torch.randn(len(outputs), len(few), generator=generator).to(outputs)
    wanted = [own[name] for name in names]
    found = torch.autograd.grad((outputs[:, few] * aims).sum(), wanted, retain_graph=True, allow_unused=True)
    true = torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in zip(wanted, found, strict=True)])
    failure: Exception | None = None
    for way, gradients in WAYS.items():
        try:
            each = gradients(module, names, rows, few, len(rows))
        except (RuntimeError, NotImplementedError, ArgumentError) as error:
            failure = error  # no rule for one of its operations, or no outputs for one row alone
            continue
        ours = torch.einsum("nkp,nk->p", each, aims)
        size = float(torch.einsum("nkp,nk->p", each.abs(), aims.abs()).norm())
        if float((ours - true).norm()) <= ROUNDING * torch.finfo(outputs.dtype).eps * size:
            return way
    if failure is not None:
        said = (str(failure).strip().splitlines() or [type(failure).__name__])[0]
        seen = f"cannot be differentiated in {names[0]!r} for a row by itself ({said})"
    else:
        seen = f"gives other gradients in {names[0]!r} for a row by itself than for a row among others"
    raise ArgumentError("module", seen, "let every row be treated alike, whatever the number of rows") from failure

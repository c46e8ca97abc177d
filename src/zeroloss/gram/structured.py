r"""The finite-width Gram (empirical NTK) of any module, layer by layer, from what each layer saw and how the outputs depend on it.

No n×P Jacobian is ever formed: for linear layers $G = \sum_l (H_{l-1}H_{l-1}^\top) \circ (\Delta_l\Delta_l^\top)$ (AZ Fact 2.6, DU
section 3; THEORY 1.2, 3.2), for convolutions its sum over positions (:mod:`zeroloss.gram.shares`), and for what no layer's formula
covers products of sample gradients, a group of parameters at a time (:mod:`zeroloss.gram.per_sample`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zeroloss.errors import ArgumentError
from zeroloss.gram import per_sample, shares
from zeroloss.gram.affine import written_out
from zeroloss.gram.plan import Plan, make_plan
from zeroloss.gram.positions import kind_of
from zeroloss.gram.shares import Factors, Gradients
from zeroloss.gram.trace import Call, alone, trace
from zeroloss.typing import AnyInputs

TRACE_BYTES = 2**29  # for what a traced pass keeps; more rows are taken tile by tile
WHOLE = ""  # the name of all layers together
KEPT = 3  # of each layer's outputs: themselves, in the graph, and as the next one's inputs

Parts = dict[str, Tensor]


@alone
def gram(module: nn.Module, x: AnyInputs, output: str | int = "mean", x2: AnyInputs | None = None) -> Float[Tensor, "N M"]:
    r"""The Gram matrix $J J^\top$ of a module's outputs over its trainable parameters, at its current weights.

    Layers whose calls speak for their weights (``Linear``, ``Conv1d/2d/3d``, ``Embedding``, normalisations with scale and shift) are
    taken by their own formula, by whichever way takes fewer operations; tied weights, attention, recurrent cells and a user's own
    parameters by sample gradients. Which is which is found out on three rows (:mod:`zeroloss.gram.plan`).

    Args:
        module: any module whose outputs for a sample depend on that sample alone.
        x: n inputs, one a row: n×d, n×c×h×w, or token numbers.
        output: ``"mean"``, the n×n average over the k outputs; an int, that output's n×n; ``"full"``, all pairs of outputs,
            (nk)×(nk), sample-major (row ``i*k + a`` is output a of sample i).
        x2: m inputs; the result is then n×m or (nk)×(mk), between x and x2. None stands for x itself.

    Returns:
        The Gram, in the module's dtype; symmetric where x2 is None.

    Raises:
        ArgumentError: for an unknown output, nothing trainable, and modules that mix samples or are random, by name where one of their
            layers is known to.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False).double()
        >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
        >>> gram(layer, x)
        tensor([[ 5., 11.],
                [11., 25.]], dtype=torch.float64)
        >>> gram(layer, x, x2=x[1:])
        tensor([[11.],
                [25.]], dtype=torch.float64)
    """
    return _parts(module, _plan(module, x, x2), x, x2, output, whole=True)[WHOLE]


@alone
def layer_grams(module: nn.Module, x: AnyInputs, output: str | int = "mean", x2: AnyInputs | None = None) -> Parts:
    r"""Every layer's share of the Gram (DU's $G^{(h)}$; they sum to :func:`gram`).

    Args:
        module: as for :func:`gram`.
        x: as for :func:`gram`.
        output: as for :func:`gram`.
        x2: as for :func:`gram`.

    Returns:
        Layer name to its share, in the order of first use; then, by their own names, parameters that no layer's calls speak for.

    Raises:
        ArgumentError: as for :func:`gram`.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
        >>> list(layer_grams(net, torch.ones(4, 2)))
        ['0', '2']
    """
    return _parts(module, _plan(module, x, x2), x, x2, output)


@alone
def traced_grams(
    module: nn.Module, plan: Plan, x: AnyInputs, outputs: Float[Tensor, "n k"], calls: Sequence[Call], output: str | int = "mean"
) -> Parts:
    """:func:`layer_grams` from a pass that was traced already.

    Args:
        module: as for :func:`gram`.
        plan: as :func:`zeroloss.gram.make_plan` gave it.
        x: the inputs that were traced.
        outputs: as :func:`zeroloss.gram.trace` gave them; their graph is kept.
        calls: likewise.
        output: as for :func:`gram`.

    Returns:
        As :func:`layer_grams`.

    Raises:
        ArgumentError: for an unknown output, or rows that do not come first.

    Example:
        >>> layer, x = nn.Linear(2, 1, bias=False).double(), torch.eye(2)
        >>> traced_grams(layer, make_plan(layer, x), x, *trace(layer, x))[""]
        tensor([[1., 0.],
                [0., 1.]], dtype=torch.float64)
    """
    _check_output(output, plan.outputs)
    tile = _tile((outputs, plan.used(calls, len(outputs))), None, plan, output, whole=False)
    flat = {name: part.flatten(2).flatten(0, 1) for name, part in tile.items()}
    return _with_rest(module, plan, x, None, output, False, flat)


@alone
def sample_blocks(module: nn.Module, x: AnyInputs) -> Float[Tensor, "n k k"]:
    r"""The diagonal blocks of the full Gram, $G_{ii} = J_iJ_i^\top$ over the outputs of each sample; the rest is not formed.

    Stochastic gradient descent that draws one sample a step is stable, where the Gram stands still, below $2/\max_i\lambda_{\max}(G_{ii})$.

    Args:
        module: as for :func:`gram`.
        x: as for :func:`gram`.

    Returns:
        One symmetric k×k matrix a sample, in the module's dtype.

    Raises:
        ArgumentError: as for :func:`gram`.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False).double()
        >>> sample_blocks(layer, torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)).flatten()
        tensor([ 5., 25.], dtype=torch.float64)
    """
    plan = make_plan(module, x)
    k, blocks = plan.outputs, []
    for rows in torch.split(x, max(1, shares.BYTES // (2 * k * plan.row_bytes))):
        outputs, calls = trace(module, rows)
        total = outputs.detach().new_zeros(len(rows), k, k)
        for factors in _factors(outputs, plan.used(calls, len(rows)), plan, range(k)).values():
            total += factors.blocks()
        for names in per_sample.grouped(module, plan.rest, len(rows) * k):
            for few, one in zip(torch.split(rows, _chunk(plan)), torch.split(total, _chunk(plan)), strict=True):
                values = per_sample.WAYS[plan.way](module, names, few, range(k), _chunk(plan))
                one += values @ values.mT
        blocks.append(total)
    return torch.cat(blocks)


def _plan(module: nn.Module, x: Tensor, x2: Tensor | None) -> Plan:
    """Made on x, or where that is a single row, beside which nothing shows, on the other rows."""
    return make_plan(module, x if x2 is None or len(x) > 1 else x2)


def _parts(module: nn.Module, plan: Plan, x: Tensor, x2: Tensor | None, output: str | int, whole: bool = False) -> Parts:
    """Every share, or their sum, over tiles of as many rows as a traced pass may keep."""
    _check_output(output, plan.outputs)
    derivatives = 2 * plan.outputs if output == "full" else 0  # of all outputs at once, and once more for order
    size = max(1, TRACE_BYTES // ((KEPT + derivatives) * plan.row_bytes))
    second = x if x2 is None else x2
    if not isinstance(second, Tensor) or second.ndim < 1 or len(second) == 0:
        seen = f"of shape {tuple(second.shape)}" if isinstance(second, Tensor) else type(second).__name__
        raise ArgumentError("x2", f"is {seen}", "pass a real tensor with at least one row")
    found: Parts = {}
    for i in range(0, len(x), size) if plan.covered else ():
        one = _traced(module, plan, x[i : i + size])
        for j in range(i if x2 is None else 0, len(second), size):
            same = x2 is None and i == j
            two = None if same else _traced(module, plan, second[j : j + size])
            for name, block in _tile(one, two, plan, output, whole).items():
                if max(len(x), len(second)) <= size:
                    found[name] = block
                    continue
                c = block.shape[1]
                if name not in found:
                    found[name] = block.new_zeros(len(x), c, len(second), c)
                found[name][i : i + size, :, j : j + size] = block
                if x2 is None and not same:
                    found[name][j : j + size, :, i : i + size] = block.permute(2, 3, 0, 1)
    flat = {name: part.flatten(2).flatten(0, 1) for name, part in found.items()}
    return _with_rest(module, plan, x, x2, output, whole, flat)


def _traced(module: nn.Module, plan: Plan, rows: Tensor) -> tuple[Tensor, list[Call]]:
    outputs, calls = trace(module, rows)
    return outputs, plan.used(calls, len(rows))


def _tile(
    one: tuple[Tensor, list[Call]], two: tuple[Tensor, list[Call]] | None, plan: Plan, output: str | int, whole: bool
) -> dict[str, Float[Tensor, "n c m c"]]:
    """The layers' shares, or their sum, between two traced sets of rows, summed over outputs unless all their pairs are asked for."""
    found: Parts = {}
    for group in _groups(one[0], one[1], plan, output):
        others = None if two is None else _factors(*two, plan, group)
        for name, factors in _factors(*one, plan, group).items():
            left, right = factors, None if others is None else others.get(name)
            if others is not None and right is None:
                continue  # a layer that those rows' outputs do not depend on
            if output != "full":
                left, right = left.summed(), None if right is None else right.summed()
            block = left.share(right)  # type: ignore[arg-type]
            key = WHOLE if whole else name
            found[key] = found[key].add_(block) if key in found else block
    return found


def _with_rest(
    module: nn.Module, plan: Plan, x: Tensor, x2: Tensor | None, output: str | int, whole: bool, found: Parts
) -> Parts:
    """Add the shares of parameters that no layer's calls speak for, by sample gradients, one output at a time unless their pairs count."""
    k = plan.outputs
    turns: list[Sequence[int]] = (
        [range(k)] if output == "full" else [[a] for a in (range(k) if output == "mean" else [int(output)])]
    )
    for outputs in turns if plan.rest else ():
        groups = per_sample.grouped(module, plan.rest, len(x) * len(outputs))
        for name, share in per_sample.shares(module, plan.way, groups, x, x2, outputs, _chunk(plan)):
            flat, key = share.flatten(2).flatten(0, 1), WHOLE if whole else name
            found[key] = found[key].add_(flat) if key in found else flat
    return {name: part.div_(k) for name, part in found.items()} if output == "mean" else found


def _check_output(output: str | int, k: int) -> None:
    number = isinstance(output, int) and not isinstance(output, bool)
    if output not in ("mean", "full") and not (number and 0 <= int(output) < k):
        raise ArgumentError("output", f"is {output!r}", f"pass 'mean', 'full', or an int from 0 to {k - 1}")


def _factors(outputs: Tensor, used: Sequence[Call], plan: Plan, group: Sequence[int]) -> dict[str, Factors | Gradients]:
    """Every layer's gradients of a group of outputs; layers that the group does not depend on are left out."""
    values = [call.outputs for call in used]
    found = (
        [torch.autograd.grad(outputs[:, a].sum(), values, retain_graph=True, allow_unused=True) for a in group] if used else []
    )
    parts: dict[str, Factors | Gradients] = {}
    for name in dict.fromkeys(call.name for call in used):
        own = [index for index, call in enumerate(used) if call.name == name and any(each[index] is not None for each in found)]
        if not own:
            continue
        layer, inputs = used[own[0]].layer, tuple(used[index].inputs for index in own)
        deltas = [torch.stack([_or_zero(used[index], each[index]) for each in found], dim=1) for index in own]
        kind = kind_of(layer)
        if kind is None:
            each_call = zip(inputs, deltas, strict=True)
            written = [written_out(layer, seen, delta, plan.covered[layer]) for seen, delta in each_call]
            parts[name] = Gradients(torch.stack(written).sum(dim=0))
        else:
            signals = [torch.unflatten(kind.signals(delta.flatten(0, 1)), 0, delta.shape[:2]) for delta in deltas]
            joined = signals[0] if len(own) == 1 else torch.cat(signals, dim=3)
            parts[name] = Factors(layer, inputs, joined, plan.covered[layer])
    return parts


def _or_zero(call: Call, delta: Tensor | None) -> Tensor:
    return torch.zeros_like(call.outputs) if delta is None else delta


def _groups(outputs: Tensor, used: Sequence[Call], plan: Plan, output: str | int) -> list[range]:
    """The outputs to be taken, as many at once as memory allows for: their derivatives in all layers, and once more for order."""
    k = outputs.shape[1]
    if output == "full":
        return [range(k)]
    if output != "mean":
        return [range(int(output), int(output) + 1)]
    some = max(1, shares.BYTES // max(1, 2 * len(outputs) * plan.row_bytes))
    return [range(first, min(first + some, k)) for first in range(0, k, some)] if used else []


def _chunk(plan: Plan) -> int:
    """How many samples are differentiated at once."""
    return max(1, min(256, shares.BYTES // (KEPT * plan.row_bytes * plan.outputs)))

r"""The finite-width Gram (empirical NTK), layer by layer, from each layer's inputs and the outputs' derivatives in its outputs.

No n×P Jacobian is ever formed: for linear layers $G = \sum_l (H_{l-1}H_{l-1}^\top) \circ (\Delta_l\Delta_l^\top)$ (AZ Fact 2.6, DU
section 3; THEORY 1.2, 3.2), and for convolutions its sum over positions (:mod:`zeroloss.gram.shares`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zeroloss.errors import ArgumentError
from zeroloss.gram import shares
from zeroloss.gram.positions import signals
from zeroloss.gram.shares import Factors
from zeroloss.gram.trace import Call, trace
from zeroloss.gram.uses import check_uses, trained_layers, used_calls
from zeroloss.typing import Inputs


def gram(module: nn.Module, x: Inputs, output: str | int = "mean") -> Float[Tensor, "N N"]:
    r"""The Gram matrix $J J^\top$ of the module's outputs over its trainable parameters, at its current weights.

    Args:
        module: a module whose trainable parameters all belong to ``nn.Linear`` or ``nn.Conv2d`` layers (groups=1), put together in any
            way that keeps samples apart and in the first dimension.
        x: n×d inputs, or n×c×h×w images.
        output: ``"mean"``, the n×n average over the k outputs; an int, that output's n×n; ``"full"``, all pairs of outputs,
            (nk)×(nk), sample-major (row ``i*k + a`` is output a of sample i).

    Returns:
        The Gram, symmetric, in the module's dtype.

    Raises:
        ArgumentError: for an unknown output, a module that mixes samples, a trainable parameter outside such layers, or one that is
            used outside its own layer.

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
        x: as for :func:`gram`.
        output: as for :func:`gram`.

    Returns:
        Layer name to its share, in the order of first use.

    Raises:
        ArgumentError: as for :func:`gram`.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
        >>> list(layer_grams(net, torch.ones(4, 2)))
        ['0', '2']
    """
    check_uses(module, x)
    return traced_grams(module, *trace(module, x), output)


def traced_grams(
    module: nn.Module, outputs: Float[Tensor, "n k"], calls: Sequence[Call], output: str | int = "mean"
) -> dict[str, Float[Tensor, "N N"]]:
    """:func:`layer_grams` from a pass that was traced already, by a module whose uses were checked already.

    Args:
        module: as for :func:`gram`.
        outputs: as :func:`zeroloss.gram.trace` gave them; their graph is kept.
        calls: likewise.
        output: as for :func:`gram`.

    Returns:
        Layer name to its share, in the order of first use.

    Raises:
        ArgumentError: for an unknown output, a trainable parameter outside such layers, or rows that do not come first.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False).double()
        >>> traced_grams(layer, *trace(layer, torch.eye(2)))[""]
        tensor([[1., 0.],
                [0., 1.]], dtype=torch.float64)
    """
    used = used_calls(calls, trained_layers(module), len(outputs))
    n, k = outputs.shape
    if output == "mean":
        groups = _groups(outputs, used)
    elif output == "full":
        groups = [range(k)]
    elif isinstance(output, int) and not isinstance(output, bool) and 0 <= output < k:
        groups = [range(output, output + 1)]
    else:
        raise ArgumentError("output", f"is {output!r}", f"pass 'mean', 'full', or an int from 0 to {k - 1}")
    size = n * k if output == "full" else n
    parts = {name: outputs.new_zeros(size, size) for name in dict.fromkeys(call.name for call in used)}
    for group in groups:
        for name, factors in _factors(outputs, used, group).items():
            parts[name] += shares.share(factors if output == "full" else factors.summed())
    return {name: part / k for name, part in parts.items()} if output == "mean" else parts


def sample_blocks(module: nn.Module, x: Inputs) -> Float[Tensor, "n k k"]:
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
    layers = trained_layers(module)
    blocks = []
    for rows in torch.split(x, _rows_at_once(*check_uses(module, x))):
        outputs, calls = trace(module, rows)
        used = used_calls(calls, layers, len(rows))
        parts = _factors(outputs, used, range(outputs.shape[1])).values()
        total = outputs.new_zeros(len(rows), outputs.shape[1], outputs.shape[1])
        for factors in parts:
            total += shares.blocks(factors)
        blocks.append(total)
    return torch.cat(blocks)


def _factors(outputs: Tensor, used: Sequence[Call], group: Sequence[int]) -> dict[str, Factors]:
    """Every layer's gradients of a group of outputs, in factors; layers that the group does not depend on are left out."""
    values = [call.outputs for call in used]
    found = [torch.autograd.grad(outputs[:, a].sum(), values, retain_graph=True, allow_unused=True) for a in group]
    parts: dict[str, Factors] = {}
    for name in dict.fromkeys(call.name for call in used):
        own = [index for index, call in enumerate(used) if call.name == name and any(each[index] is not None for each in found)]
        if own:
            deltas = [torch.stack([_signals(used[index], each[index]) for each in found], dim=1) for index in own]
            inputs = tuple(used[index].inputs for index in own)
            parts[name] = Factors(used[own[0]].layer, inputs, deltas[0] if len(own) == 1 else torch.cat(deltas, dim=3))
    return parts


def _signals(call: Call, delta: Tensor | None) -> Tensor:
    return signals(call.layer, torch.zeros_like(call.outputs) if delta is None else delta)


def _output_bytes(outputs: Tensor, used: Sequence[Call]) -> int:
    """What the derivatives of one output in all layers take, and once more for their arrangement."""
    return max(1, 2 * sum(call.outputs.numel() for call in used) * outputs.element_size())


def _groups(outputs: Tensor, used: Sequence[Call]) -> list[range]:
    """All outputs, as many at once as memory allows for."""
    k, some = outputs.shape[1], max(1, shares.BYTES // _output_bytes(outputs, used))
    return [range(first, min(first + some, k)) for first in range(0, k, some)]


def _rows_at_once(outputs: Tensor, used: Sequence[Call]) -> int:
    """How many rows keep the derivatives of all outputs in all layers within memory, told from a few rows."""
    return max(1, shares.BYTES * len(outputs) // (_output_bytes(outputs, used) * outputs.shape[1]))

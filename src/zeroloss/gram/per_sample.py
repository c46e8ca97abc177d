r"""Sample gradients of any parameters by automatic differentiation, and their share of the Gram in bounded memory.

For what no formula of a layer covers: weights that are tied or used by a function, recurrent cells, attention, and parameters of a
user's own. Vectorised over samples where torch can do that, one sample after another where it cannot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zeroloss.gram.differentiable import unfused
from zeroloss.gram.trace import match, own_copy, rows_of

BYTES = 2**27  # for the gradients of one group of parameters; two such groups are there at once


def vectorised(module: nn.Module, names: Sequence[str], x: Tensor, outputs: Sequence[int], chunk: int) -> Float[Tensor, "n k P"]:
    """Gradients of some outputs in some parameters, side by side, by ``torch.func``.

    Args:
        module: any module.
        names: of its parameters, as ``named_parameters`` gives them.
        x: inputs, one a row.
        outputs: numbers of the k outputs.
        chunk: samples at once.

    Returns:
        n×k×P.

    Raises:
        RuntimeError: where torch cannot vectorise the module.

    Example:
        >>> vectorised(nn.Linear(2, 1), ["weight"], torch.eye(2), [0], 2).flatten(1)
        tensor([[1., 0.],
                [0., 1.]])
    """
    values = {name: p.detach() for name, p in module.named_parameters()}
    wanted = {name: values.pop(name) for name in names}

    def pull(row: Tensor, number: Tensor) -> dict[str, Tensor]:
        def output(parameters: dict[str, Tensor]) -> Tensor:
            result = torch.func.functional_call(module, {**values, **parameters}, (own_copy(row[None]),))
            return rows_of(result, 1)[0].gather(0, number[None])[0]

        found: dict[str, Tensor] = torch.func.grad(output)(wanted)
        return found

    rows = match(module, x)
    numbers = torch.as_tensor(list(outputs), device=rows.device)
    each = torch.func.vmap(torch.func.vmap(pull, (None, 0)), (0, None), chunk_size=chunk)
    with unfused(module):
        found = each(rows, numbers)
    return torch.cat([found[name].reshape(*found[name].shape[:2], -1) for name in names], dim=2)


def one_by_one(module: nn.Module, names: Sequence[str], x: Tensor, outputs: Sequence[int], chunk: int) -> Float[Tensor, "n k P"]:
    """:func:`vectorised`, one sample and output after another; the module only needs to be differentiable.

    Args:
        module: any module.
        names: of its parameters.
        x: inputs, one a row.
        outputs: numbers of the k outputs.
        chunk: not used.

    Returns:
        n×k×P.
    """
    del chunk
    own = dict(module.named_parameters())
    wanted = [own[name] for name in names]
    rows = match(module, x)
    size = sum(p.numel() for p in wanted)
    result = torch.zeros(len(rows), len(outputs), size, dtype=wanted[0].dtype, device=wanted[0].device)
    with torch.enable_grad():
        for i in range(len(rows)):
            values = rows_of(module(own_copy(rows[i : i + 1])), 1)[0]
            for a, number in enumerate(outputs):
                if values[number].requires_grad:
                    found = torch.autograd.grad(values[number], wanted, retain_graph=True, allow_unused=True)
                    torch.cat(
                        [torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in zip(wanted, found, strict=True)],
                        out=result[i, a],
                    )
    return result


WAYS = {"vectorised": vectorised, "one_by_one": one_by_one}


def shares(
    module: nn.Module, way: str, groups: Sequence[Sequence[str]], x: Tensor, x2: Tensor | None, outputs: Sequence[int], chunk: int
) -> Iterator[tuple[str, Float[Tensor, "n k m k"]]]:
    """The share of every parameter in the products of gradients of x with those of x2, group by group.

    Args:
        module: any module.
        way: a key of :data:`WAYS`.
        groups: names of parameters; gradients of one group are there at once.
        x: n inputs.
        x2: m inputs; None stands for x again.
        outputs: numbers of the k outputs.
        chunk: samples that are differentiated at once.

    Yields:
        A parameter's name and its share.
    """
    sizes = {name: p.numel() * p.element_size() for name, p in module.named_parameters()}
    gradients = WAYS[way]
    for names in groups:
        some = max(1, BYTES // (len(outputs) * sum(sizes[name] for name in names)))
        totals: dict[str, Tensor] = {}
        for i in range(0, len(x), some):
            left = gradients(module, names, x[i : i + some], outputs, chunk)
            others = x if x2 is None else x2
            for j in range(i if x2 is None else 0, len(others), some):
                same = x2 is None and i == j
                right = left if same else gradients(module, names, others[j : j + some], outputs, chunk)
                for name, one, two in zip(names, _parts(module, names, left), _parts(module, names, right), strict=True):
                    block = (one.flatten(0, 1) @ two.flatten(0, 1).T).view(*one.shape[:2], *two.shape[:2])
                    if name not in totals:
                        totals[name] = block.new_zeros(len(x), len(outputs), len(others), len(outputs))
                    totals[name][i : i + some, :, j : j + some] = block
                    if x2 is None and not same:
                        totals[name][j : j + some, :, i : i + some] = block.permute(2, 3, 0, 1)
        yield from totals.items()


def grouped(module: nn.Module, names: Sequence[str], rows: int) -> list[list[str]]:
    """Parameters in groups whose gradients of so many rows fit into the memory, as few groups as their order allows.

    Args:
        module: whose they are.
        names: the parameters.
        rows: samples times outputs.

    Returns:
        The groups; one whose only parameter is too large by itself is taken a few rows at a time.

    Example:
        >>> grouped(nn.Linear(2, 1), ["weight", "bias"], 4)
        [['weight', 'bias']]
    """
    sizes = {name: p.numel() * p.element_size() * rows for name, p in module.named_parameters()}
    groups: list[list[str]] = []
    filled = BYTES
    for name in names:
        if filled + sizes[name] > BYTES or not groups:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += sizes[name]
    return groups


def _parts(module: nn.Module, names: Sequence[str], gradients: Tensor) -> tuple[Tensor, ...]:
    own = dict(module.named_parameters())
    return torch.split(gradients, [own[name].numel() for name in names], dim=2)

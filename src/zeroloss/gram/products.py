r"""The Jacobian and the Gram as operators, $Ju$, $J^\top v$ and $JJ^\top v$, a few rows at a time: for any differentiable module."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn

from zeroloss.errors import ArgumentError
from zeroloss.gram.differentiable import unfused
from zeroloss.gram.plan import check_apart
from zeroloss.gram.trace import match, own_copy, rows_of
from zeroloss.typing import AnyInputs

ROWS = 4096  # at once, where the caller names no number

Values = dict[str, Tensor]


class _Jacobian:
    """Products with the Jacobian over the trained parameters at the weights as they are, in the module's dtype."""

    def __init__(self, module: nn.Module, x: AnyInputs, rows: int) -> None:
        check_apart(module, x)
        if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
            raise ArgumentError("rows", f"is {rows!r}", "pass a whole number of at least 1")
        self.trained = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}
        if not self.trained:
            raise ArgumentError("module", "has no trainable parameter", "set requires_grad=True on the layers to be trained")
        self._module, self._tiles = module, torch.split(match(module, x), rows)
        # an embedding's padding is not trained, which its reverse mode knows and its forward mode does not
        self._forward_mode = all(getattr(layer, "padding_idx", None) is None for layer in module.modules())
        self._kept: tuple[Tensor, Callable[[Tensor], Values]] | None = None
        if len(self._tiles) == 1:  # its graph is kept; of several it would fill the memory, and they run again at every product
            self._kept = self._linearised(self._tiles[0])
            self.outputs = self._kept[0].numel() // len(self._tiles[0])
        else:
            with torch.no_grad():
                self.outputs = rows_of(module(own_copy(self._tiles[0])), len(self._tiles[0])).shape[1]
        self.shape = (sum(map(len, self._tiles)) * self.outputs, sum(p.numel() for p in self.trained.values()))

    def _function(self, tile: Tensor) -> Callable[[Values], Tensor]:
        def outputs(values: Values) -> Tensor:
            return rows_of(torch.func.functional_call(self._module, values, (own_copy(tile),)), len(tile)).reshape(-1)

        return outputs

    def _linearised(self, tile: Tensor) -> tuple[Tensor, Callable[[Tensor], Values]]:
        with unfused(self._module):
            value, pull, *_ = torch.func.vjp(self._function(tile), self.trained)
        return value, lambda direction: pull(direction)[0]

    def pull(self, vector: Tensor) -> Values:
        r"""$J^\top v$, v of length nk."""
        total: Values = {}
        for tile, part in zip(self._tiles, torch.split(vector, [len(t) * self.outputs for t in self._tiles]), strict=True):
            _, pull = self._kept or self._linearised(tile)
            for name, gradient in pull(part).items():
                total[name] = total[name] + gradient if name in total else gradient
        return total

    def push(self, change: Values) -> Tensor:
        """$Ju$, u shaped like the parameters."""
        return torch.cat([self._push(tile, change) for tile in self._tiles])

    def _push(self, tile: Tensor, change: Values) -> Tensor:
        if self._forward_mode:
            try:
                with unfused(self._module):
                    _, result, *_ = torch.func.jvp(self._function(tile), (self.trained,), (change,))
                return cast("Tensor", result.detach())
            except (RuntimeError, NotImplementedError):
                self._forward_mode = False  # one of its operations has none
        value, pull = self._linearised(tile)

        def along(direction: Tensor) -> Tensor:
            return sum(((g * change[name]).sum() for name, g in pull(direction).items()), value.new_zeros(()))

        return cast("Tensor", torch.func.grad(along)(torch.zeros_like(value)).detach())  # v -> <J'v, u> has the gradient Ju

    def tensor(self, vector: NDArray[np.float64]) -> Tensor:
        like = next(iter(self.trained.values()))
        return torch.from_numpy(np.ascontiguousarray(vector, dtype=np.float64)).reshape(-1).to(like)

    def named(self, vector: Tensor) -> Values:
        parts = torch.split(vector, [p.numel() for p in self.trained.values()])
        return {name: part.view(p.shape) for (name, p), part in zip(self.trained.items(), parts, strict=True)}


def _array(vector: Tensor) -> NDArray[np.float64]:
    return vector.detach().to(torch.float64).cpu().numpy()


def tangent_operator(module: nn.Module, x: AnyInputs, rows: int = ROWS) -> LinearOperator:
    r"""$J J^\top$ over all nk outputs, sample-major, without forming $J$ or the Gram.

    Args:
        module: any module that torch can differentiate, whose outputs for a sample depend on that sample alone.
        x: inputs, one a row.
        rows: how many of them are passed through the module at once; with more than that, every product passes them anew.

    Returns:
        A symmetric (nk)×(nk) scipy operator, computed in the module's dtype.

    Raises:
        ArgumentError: where nothing is trainable, or a layer mixes samples.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False).double()
        >>> tangent_operator(layer, torch.eye(2, dtype=torch.float64)) @ np.array([1.0, 2.0])
        array([1., 2.])
    """
    jacobian = _Jacobian(module, x, rows)

    def product(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        return _array(jacobian.push(jacobian.pull(jacobian.tensor(vector)))).reshape(vector.shape)

    size = jacobian.shape[0]
    return LinearOperator((size, size), matvec=product, rmatvec=product, dtype=np.float64)  # type: ignore[no-any-return, unused-ignore]


def jacobian_operator(module: nn.Module, x: AnyInputs, rows: int = ROWS) -> LinearOperator:
    r"""$J$ itself, (nk)×P: ``operator @ u`` is $Ju$ and ``operator.T @ v`` is $J^\top v$, for what is too large to store.

    Args:
        module: as for :func:`tangent_operator`.
        x: likewise.
        rows: likewise.

    Returns:
        A scipy operator; its columns are the trained parameters in ``named_parameters`` order, each flattened.

    Raises:
        ArgumentError: as for :func:`tangent_operator`.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False).double()
        >>> J = jacobian_operator(layer, torch.tensor([[1.0, 2.0]], dtype=torch.float64))
        >>> J @ np.array([1.0, 1.0]), J.T @ np.array([3.0])
        (array([3.]), array([3., 6.]))
    """
    jacobian = _Jacobian(module, x, rows)

    def push(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        return _array(jacobian.push(jacobian.named(jacobian.tensor(vector))))

    def pull(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        gradient = jacobian.pull(jacobian.tensor(vector))
        return _array(torch.cat([gradient[name].reshape(-1) for name in jacobian.trained]))

    return LinearOperator(jacobian.shape, matvec=push, rmatvec=pull, dtype=np.float64)  # type: ignore[no-any-return, unused-ignore]

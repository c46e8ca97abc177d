r"""The Gram as an operator: $G v = J(J^\top v)$ by one backward and one forward-mode pass, for any differentiable module."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import nn

from zeroloss.errors import ArgumentError
from zeroloss.gram.trace import match, refuse_mixing, rows_of
from zeroloss.typing import Inputs


def tangent_operator(module: nn.Module, x: Inputs) -> LinearOperator:
    r"""$J J^\top$ over all nk outputs, sample-major, without forming $J$ or the Gram.

    Args:
        module: any module that torch can differentiate forwards and backwards.
        x: inputs, one a row.

    Returns:
        A symmetric (nk)×(nk) scipy operator, computed in the module's dtype.

    Raises:
        ArgumentError: where nothing is trainable, or a layer mixes samples.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False).double()
        >>> tangent_operator(layer, torch.eye(2, dtype=torch.float64)) @ np.array([1.0, 2.0])
        array([1., 2.])
    """
    refuse_mixing(module)
    trained = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}
    if not trained:
        raise ArgumentError("module", "has no trainable parameter", "set requires_grad=True on the layers to be trained")
    inputs = match(module, x)

    def outputs(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        return rows_of(torch.func.functional_call(module, parameters, (inputs,)), len(inputs)).reshape(-1)

    value, pull, *_ = torch.func.vjp(outputs, trained)
    size = value.numel()

    def product(vector: np.ndarray) -> np.ndarray:
        direction = torch.from_numpy(np.ascontiguousarray(vector, dtype=np.float64)).reshape(-1).to(value)
        (gradient,) = pull(direction)
        _, change, *_ = torch.func.jvp(outputs, (trained,), (gradient,))
        result: np.ndarray = change.detach().to(torch.float64).cpu().numpy().reshape(vector.shape)
        return result

    return LinearOperator((size, size), matvec=product, rmatvec=product, dtype=np.float64)  # type: ignore[no-any-return, unused-ignore]

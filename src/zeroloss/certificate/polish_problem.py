r"""The equations that a polish solves, $\sqrt{w_i}\,(f(\theta,x_i)-\bar y_i)=0$ over distinct inputs, and their derivatives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from zeroloss.certificate.double_double import Pair
from zeroloss.certificate.polish_extended import extended_outputs
from zeroloss.data import Dataset
from zeroloss.gram import forward, gram, jacobian_operator

ROW_ENTRIES = 2**22  # of signals of one pass, by which rows are taken together

Values = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Problem:
    r"""The weighted residual of a module on distinct inputs, its Gram and its products with $J^\top$; never $J$.

    Equal inputs are one row: with w of them and the mean $\bar y$ of their targets, $\sum\|f-y\|^2=w\|f-\bar y\|^2+\text{const}$.

    Args:
        module: in float64, with at least one trained parameter; its weights are read anew at every call.
        x: n distinct inputs, float64.
        y: n×k mean targets.
        root_weight: $\sqrt{w}$, n of them.
        floor: the part of $\|f-y\|$ over all rows that no function can avoid.
    """

    module: nn.Module
    x: Tensor
    y: Float[Tensor, "n k"]
    root_weight: Float[Tensor, " n"]
    floor: float

    @staticmethod
    def of(module: nn.Module, data: Dataset) -> Problem:
        """The problem of a module, already in float64, and a data set.

        Example:
            >>> problem = Problem.of(nn.Linear(1, 1).double(), Dataset([[1.0], [2.0], [1.0]], [1.0, 2.0, 3.0]))
            >>> problem.y.flatten().tolist(), (problem.root_weight**2).round().tolist(), round(problem.floor, 9)
            ([2.0, 2.0], [2.0, 1.0], 1.414213562)
        """
        device = next(module.parameters()).device
        first = torch.arange(data.n)
        for rows in data.duplicates:
            first[list(rows)] = rows[0]
        distinct, group = torch.unique(first, return_inverse=True)
        count = torch.bincount(group).to(torch.float64)
        y = torch.zeros(len(distinct), data.outputs, dtype=torch.float64).index_add_(0, group, data.y.cpu()) / count[:, None]
        single = {int(rows[0]) for rows in data.duplicates}
        keep = torch.tensor([int(i) not in single for i in distinct])
        y[keep] = data.y.cpu()[distinct[keep]]  # to the bit
        return Problem(module, data.x[distinct].to(device), y.to(device), count.sqrt().to(device), math.sqrt(2 * data.loss_floor))

    @property
    def size(self) -> int:
        """N = nk."""
        return self.y.numel()

    @property
    def scale(self) -> float:
        """What a residual is compared with: the norm of the weighted targets, or 1 where they are all zero."""
        return float((self.root_weight[:, None] * self.y).norm()) or 1.0

    @cached_property
    def rows(self) -> int:
        """How many rows are passed through the module at once."""
        widest = max((p.shape[0] for p in self.module.parameters() if p.ndim), default=1)
        places = math.prod(self.x.shape[2:]) if self.x.ndim == 4 else 1
        return max(1, min(len(self.x), ROW_ENTRIES // (widest * places)))

    @cached_property
    def trained(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name."""
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    def values(self) -> Values:
        """A copy of the trained parameters."""
        return {name: p.detach().clone() for name, p in self.trained.items()}

    def put(self, values: Values, change: Values | None = None, fraction: float = 1.0) -> None:
        r"""Set the trained parameters to $\theta+t\Delta$."""
        with torch.no_grad():
            for name, p in self.trained.items():
                p.copy_(values[name] if change is None else torch.add(values[name], change[name], alpha=fraction))

    def residual(self, extended: bool = False) -> Float[Tensor, " N"] | None:
        """The weighted residual at the weights as they are, sample-major; None where it is asked for extended and cannot be had."""
        if not extended:
            with torch.no_grad():
                outputs = torch.cat([forward(self.module, some) for some in torch.split(self.x, self.rows)])
            return self.weighted(outputs - self.y)
        found = extended_outputs(self.module, self.x, max(1, self.rows // 4))
        return None if found is None else self.weighted((found - Pair.of(self.y)).rounded())

    def gram(self) -> Float[Tensor, "N N"]:
        r"""$\sqrt{W}JJ^\top\sqrt{W}$."""
        matrix = gram(self.module, self.x, "full").detach()
        if self._even:
            return matrix
        weight = self.root_weight.repeat_interleave(self.y.shape[1])
        return matrix.mul_(weight[:, None]).mul_(weight)

    def pull(self, z: Float[Tensor, " N"]) -> Values:
        r"""$J^\top\sqrt{W}z$ by parameter."""
        product = jacobian_operator(self.module, self.x, self.rows).T @ self.weighted(z.reshape(self.y.shape)).cpu().numpy()
        flat = torch.from_numpy(np.ascontiguousarray(product)).to(self.x.device)
        parts = torch.split(flat, [p.numel() for p in self.trained.values()])
        return {name: part.view(p.shape) for (name, p), part in zip(self.trained.items(), parts, strict=True)}

    def weighted(self, rows: Tensor) -> Tensor:
        r"""$\sqrt{w_i}$ times each row of an n×k tensor, flattened."""
        return rows.reshape(-1) if self._even else (rows * self.root_weight[:, None]).reshape(-1)

    @cached_property
    def _even(self) -> bool:
        return bool((self.root_weight == 1).all())


def distance(a: Values, b: Values) -> float:
    """The Euclidean distance of two sets of parameters.

    Example:
        >>> distance({"w": torch.tensor([3.0]), "b": torch.tensor([0.0])}, {"w": torch.tensor([0.0]), "b": torch.tensor([4.0])})
        5.0
    """
    return math.hypot(*(float((a[name].detach().to(torch.float64) - b[name].detach().to(torch.float64)).norm()) for name in a))

r"""Derivatives of a homogeneous kernel in its inputs: $K_{ij}=\tfrac1d\|x_i\|\|x_j\|F(\theta_{ij})$.

$\nabla_{x_i}K_{ij}=\tfrac1d\|x_j\|\big(F\,u_i-\tfrac{F'}{\sin\theta}(u_j-\cos\theta\,u_i)\big)$ with $u=x/\|x\|$.
Where two rows have one direction the second term is a jump in every direction and is taken as 0, its mean; so it is for opposite ones.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from zeroloss.errors import ArgumentError
from zeroloss.kernels.curve import Curve
from zeroloss.kernels.engine import RowKernel
from zeroloss.kernels.pairs import input_pairs

BLOCK = 2**20  # pairs at a time


def differentiable(kernel: RowKernel, x1: Float[Tensor, "n1 d"], x2: Float[Tensor, "n2 d"] | None) -> Float[Tensor, "n1 n2"]:
    """The kernel's values, in the graph of the inputs.

    Args:
        kernel: of the same inputs, outside the graph; its module homogeneous.
        x1: the first set.
        x2: the second, or None.

    Returns:
        n1×n2, with first derivatives (in both places of ``x1`` where there is no second set).

    Example:
        >>> from zeroloss.kernels.curve import Side
        >>> from zeroloss.kernels.engine import survey_sets
        >>> line = Curve(1.0, Side(False, 0.0, (0.5, -0.5)), Side(False, 0.0, (-0.5, 0.5)), 0.0, 1.0)  # cos(theta): the product over d
        >>> x = torch.tensor([[1.0, 2.0]], dtype=torch.float64, requires_grad=True)
        >>> y = torch.tensor([[3.0, -1.0]], dtype=torch.float64)
        >>> differentiable(survey_sets(x.detach(), y).kernel(line, homogeneous=True), x, y).sum().backward()
        >>> x.grad
        tensor([[ 1.5000, -0.5000]], dtype=torch.float64)
    """
    value: Tensor = _Value.apply(kernel, x1, x2)  # type: ignore[no-untyped-call]
    return value


class _Value(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: RowKernel, x1: Tensor, x2: Tensor | None) -> Tensor:
        ctx.curve = kernel.curve
        ctx.save_for_backward(x1, *(() if x2 is None else (x2,)))
        out = x1.new_empty(kernel.shape)
        kernel.fill(out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True: what is made here would have no derivatives, in silence
            raise ArgumentError("create_graph", "is True, and a kernel has first derivatives only", "leave it at False")
        (gradient,) = gradients
        x1, x2 = (*ctx.saved_tensors, None)[:2]
        if x2 is None:
            return None, _pull(ctx.curve, x1, x1, gradient + gradient.mT), None
        first = _pull(ctx.curve, x1, x2, gradient) if ctx.needs_input_grad[1] else None
        second = _pull(ctx.curve, x2, x1, gradient.mT) if ctx.needs_input_grad[2] else None
        return None, first, second


def _pull(curve: Curve, x: Tensor, other: Tensor, gradient: Tensor) -> Tensor:
    r"""$\sum_jg_{ij}\nabla_{x_i}K_{ij}$, in float64, a block of rows at a time."""
    rows, columns, d = x.to(torch.float64), other.to(torch.float64), x.shape[1]
    result = torch.empty_like(rows)
    lengths = torch.linalg.vector_norm(columns, dim=1)
    units = columns / torch.where(lengths > 0, lengths, torch.ones_like(lengths))[:, None]
    for start in range(0, len(rows), max(1, BLOCK // max(1, len(columns)))):
        place = slice(start, start + max(1, BLOCK // max(1, len(columns))))
        pairs = input_pairs(rows[place], columns)
        own = torch.linalg.vector_norm(rows[place], dim=1)
        unit = rows[place] / torch.where(own > 0, own, torch.ones_like(own))[:, None]
        value, slope = _value_and_slope(curve, pairs.angle)
        sine = torch.sin(pairs.angle)
        turn = torch.where(sine > 0, slope / torch.where(sine > 0, sine, torch.ones_like(sine)), torch.zeros_like(sine))
        weight = gradient[place].to(torch.float64) * lengths / d
        along, across = weight * value, weight * turn
        result[place] = (along + across * (1 - pairs.versine)).sum(dim=1)[:, None] * unit - across @ units
    return result.to(x.dtype)


def _value_and_slope(curve: Curve, angle: Tensor) -> tuple[Tensor, Tensor]:
    """F and its derivative in the angle; the angle's own end is as good as what lies next to it."""
    with torch.enable_grad():
        theta = angle.detach().clamp(1e-12, torch.pi - 1e-12).requires_grad_()
        wide = theta > torch.pi / 2
        m = 2 * torch.sin(torch.where(wide, torch.pi - theta, theta) / 2) ** 2
        value = curve.at(torch.where(wide, -m, m))
        (slope,) = torch.autograd.grad(value.sum(), theta)
    return value.detach(), slope

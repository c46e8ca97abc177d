r"""What linearised training has done to every eigendirection of a still kernel by step k: the residual left, and what moved the outputs.

A method turns $r_0=\sum_ic_iv_i$ into $r_k=\sum_ip_k(\lambda_i)c_iv_i$, and any output, of a test point too, into
$f(k)=f(0)-K_*\sum_is_k(\lambda_i)c_iv_i$, with $s_k(\lambda)=(1-p_k(\lambda))/\lambda$.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def descent_filter(
    eigenvalues: Float[Tensor, " N"], step: float, steps: Float[Tensor, " s"]
) -> tuple[Float[Tensor, "s N"], Float[Tensor, "s N"]]:
    r"""Gradient descent: $p_k=(1-\eta\lambda)^k$, $s_k=(1-(1-\eta\lambda)^k)/\lambda$, which is $\eta k$ at $\lambda=0$.

    Both keep their relative accuracy where they are small: $p_k$ after many steps, $1-p_k$ for small $\lambda$.

    Args:
        eigenvalues: $\lambda$, float64.
        step: $\eta$.
        steps: whole k's.

    Returns:
        $p$ and $s$.

    Example:
        >>> p, s = descent_filter(torch.tensor([0.0, 0.5]).double(), 1.0, torch.tensor([2.0]).double())
        >>> p.tolist(), s.tolist()
        ([[1.0, 0.25]], [[2.0, 1.5]])
    """
    a, k = step * eigenvalues, steps[:, None]
    beyond = a > 1  # the factor is negative: the residual alternates
    exponent = k * torch.where(beyond, (a - 1).log(), torch.log1p(-a.clamp(max=1)))
    exponent = torch.where(k == 0, 0.0, exponent)  # 0 times the logarithm of 0
    flipped = beyond & (k % 2 == 1)
    left = torch.where(flipped, -exponent.exp(), exponent.exp())
    gone = torch.where(flipped, 1 + exponent.exp(), -torch.expm1(exponent))
    return left, torch.where(a == 0, step * k, gone / eigenvalues)


def flow_filter(
    eigenvalues: Float[Tensor, " N"], step: float, steps: Float[Tensor, " s"]
) -> tuple[Float[Tensor, "s N"], Float[Tensor, "s N"]]:
    r"""Gradient flow at time $t=\eta k$: $p=e^{-\lambda t}$, $s=(1-e^{-\lambda t})/\lambda$, which is $t$ at $\lambda=0$.

    Args:
        eigenvalues: $\lambda$, float64.
        step: $\eta$.
        steps: the k's, which need not be whole.

    Returns:
        $p$ and $s$.

    Example:
        >>> p, s = flow_filter(torch.tensor([0.0, 1.0]).double(), 0.5, torch.tensor([2.0]).double())
        >>> [round(v, 4) for v in (*p[0].tolist(), *s[0].tolist())]
        [1.0, 0.3679, 1.0, 0.6321]
    """
    time = step * steps[:, None]
    gone = -torch.expm1(-eigenvalues * time)
    return (-eigenvalues * time).exp(), torch.where(eigenvalues * time == 0, time, gone / eigenvalues)


def heavy_ball_filter(
    eigenvalues: Float[Tensor, " N"], step: float, momentum: float, steps: Float[Tensor, " s"]
) -> tuple[Float[Tensor, "s N"], Float[Tensor, "s N"]]:
    r"""Heavy ball from rest, by powers of a 3×3 matrix for every eigenvalue.

    With $a=\eta\lambda$ and the velocity $-\eta w$ of an output: $w_{k+1}=p_k+\mu w_k$, $p_{k+1}=p_k-aw_{k+1}$ and
    $s_{k+1}/\eta=s_k/\eta+w_{k+1}$, from $(p,w,s)=(1,0,0)$. The matrices $M^{1},M^{2},M^{4},\dots$ are made once, and a step takes those of
    its binary digits, so that step k costs $\log_2k$ products; the relative error is about k roundings.

    Args:
        eigenvalues: $\lambda$, float64.
        step: $\eta$.
        momentum: $\mu$ in [0, 1).
        steps: whole k's.

    Returns:
        $p$ and $s$; infinite where they overflow.

    Example:
        >>> p, s = heavy_ball_filter(torch.tensor([1.0]).double(), 0.5, 0.5, torch.tensor([0.0, 1.0, 2.0]).double())
        >>> p[:, 0].tolist(), s[:, 0].tolist()
        ([1.0, 0.5, 0.0], [0.0, 0.5, 1.0])
    """
    a, one = step * eigenvalues, torch.ones_like(eigenvalues)
    rows = ((1 - a, -momentum * a, 0 * one), (one, momentum * one, 0 * one), (one, momentum * one, one))
    power = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)  # N×3×3
    state = torch.zeros(len(steps), len(a), 3, dtype=torch.float64)
    state[..., 0] = 1
    left = steps.to(torch.int64)
    while bool((left > 0).any()):
        odd = left % 2 == 1
        state[odd] = torch.einsum("Nij,sNj->sNi", power, state[odd])
        left = left // 2
        power = power @ power
    p, s = state[..., 0], step * state[..., 2]
    return torch.where(p.isnan(), torch.inf, p), torch.where(s.isnan(), torch.inf, s)

r"""Enclosures of the forward and the backward pass at the given weights, tracked as 2-norms per sample.

With $\tilde h$ what float64 gives and $h$ the exact value, every sample carries $e_i\ge\|h_i-\tilde h_i\|_2$, and every pre-activation
also a radius $|z_{ir}-\tilde z_{ir}|\le\rho_{ir}$, which decides kinks. Through an affine map (A1, Cauchy-Schwarz)
$$e_z\le\|W\|_2e_h+\gamma\|[\tilde h;1]\|\,\|[W,b]\|_F,\qquad\rho_{ir}\le\|w_r\|e_h+\gamma\|[\tilde h;1]\|\,\|[w_r;b_r]\|,$$
through an activation $e\le c_1e+\|\text{its own rounding}\|$. Backward, for rows $T=\partial f/\partial z$, $S=\partial f/\partial h$:
$e_S\le\|W\|_2e_T+\gamma\|\tilde T\|\|W\|_F$ and $e_T\le c_1e_S+\|\tilde S\circ(c_2\rho+\text{rounding of }\sigma')\|+u\|\tilde T\|$.
Midpoint-radius arithmetic would grow by $\||W|\|_2$ a layer, ten times or more; this grows by $\|W\|_2$.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroloss.certificate.convolution import coverage, gathered, patches
from zeroloss.certificate.exact_product import Low, affine, two_product, two_sum
from zeroloss.certificate.forward import convolved, pooled
from zeroloss.certificate.rounding import TINY, UNIT, gamma, norm_bound, row_norms, up
from zeroloss.certificate.spectral_bounds import matrix_norm_bound
from zeroloss.certificate.stages import Activation, Affine, Chain, Conv2d, Flatten, Fork, Join, Linear, Op, Pool, Scale


@dataclass(frozen=True, eq=False)
class Ball:
    """Values with bounds of their errors.

    Args:
        mid: what was computed, one sample (or one sample's output) a row.
        error: for every row a bound of the error's 2-norm.
        radius: bounds entry by entry, of mid's shape.
        low: what must be added to mid in extended precision, or None.
    """

    mid: Tensor
    error: Tensor
    radius: Tensor
    low: Low = None


@dataclass(frozen=True, eq=False)
class WeightFacts:
    r"""What bounds need to know of an affine stage's weights.

    Args:
        norm: at least the norm of the linear map $h\mapsto Wh$.
        frobenius: at least $\|[W,b]\|_F$.
        rows: at least $\|w_r\|$ for every unit (channel) r.
        rows_with_bias: at least $\|[w_r;b_r]\|$.
        cover: $\sqrt q$, q the most patches that an input is part of; 1 for a dense layer.
        terms: how many products a pre-activation sums.
    """

    norm: float
    frobenius: float
    rows: Tensor
    rows_with_bias: Tensor
    cover: float
    terms: int


@dataclass(frozen=True, eq=False)
class Enclosure:
    """A forward pass, enclosed.

    Args:
        tape: the ops.
        inputs: the ball that enters each op.
        outputs: f.
        weights: facts of every affine op, by its place.
    """

    tape: tuple[Op, ...]
    inputs: tuple[Ball, ...]
    outputs: Ball
    weights: dict[int, WeightFacts]


def enclose_forward(chain: Chain, x: Tensor, extended: bool = False) -> Enclosure:
    """Enclose every value of the forward pass.

    Args:
        chain: the network.
        x: n inputs, exact.
        extended: whether affine stages are evaluated in twice the precision.

    Returns:
        The enclosure.
    """
    zeros = x.new_zeros(len(x))
    ball = Ball(x, zeros, torch.zeros_like(x), torch.zeros_like(x) if extended else None)
    inputs: list[Ball] = []
    kept: list[Ball] = []
    weights: dict[int, WeightFacts] = {}
    for place, op in enumerate(chain.tape):
        inputs.append(ball)
        match op:
            case Linear() | Conv2d():
                weights[place] = weight_facts(chain, op, ball.mid)
                ball = _affine(chain, op, weights[place], ball)
            case Activation():
                ball = _activated(op, ball)
            case Scale(factor):
                ball = _scaled(ball, factor)
            case Pool(to):
                ball = _pooled(ball, to)
            case Fork():
                kept.append(ball)
            case Join():
                ball = _added(kept.pop(), ball)
            case Flatten():
                low = None if ball.low is None else ball.low.flatten(1)
                ball = Ball(ball.mid.flatten(1), ball.error, ball.radius.flatten(1), low)
    return Enclosure(chain.tape, tuple(inputs), ball, weights)


def weight_facts(chain: Chain, op: Affine, h: Tensor) -> WeightFacts:
    """The facts of one affine stage.

    Args:
        chain: holds the tensors.
        op: the stage.
        h: what enters it, for its shape.

    Returns:
        The facts.
    """
    weight = chain.tensors[op.weight]
    flat = weight.flatten(1)
    rows = row_norms(flat)
    bias = None if op.bias is None else chain.tensors[op.bias]
    wide = rows if bias is None else up(torch.sqrt(rows.square() + bias.square())) + TINY
    frobenius = norm_bound(wide)
    if isinstance(op, Linear):
        return WeightFacts(matrix_norm_bound(flat), frobenius, rows, wide, 1.0, flat.shape[1] + 1)
    size, sides = (h.shape[2], h.shape[3]), (weight.shape[2], weight.shape[3])
    cover = up(math.sqrt(coverage(op, sides, size)))
    # z = K patches(h); or first what each pixel gives to the positions that see it, K' h, summed over a window at every position
    turned = matrix_norm_bound(weight.transpose(0, 1).flatten(1))
    norm = min(cover * matrix_norm_bound(flat), math.sqrt(gathered(op, sides, size)) * turned)
    return WeightFacts(up(norm), frobenius, rows, wide, cover, flat.shape[1] + 1)


def local_norms(op: Affine, chain: Chain, h: Tensor, bias: bool) -> Tensor:
    r"""At every position a bound of the norm of what the weights meet there, $\|[h;1]\|$ or $\|[\text{patch};1]\|$.

    Args:
        op: the stage.
        chain: holds the tensors.
        h: what enters.
        bias: whether the 1 is there.

    Returns:
        n×1 for a dense stage, n×1×height×width for a convolution.
    """
    one = 1.0 if bias else 0.0
    if isinstance(op, Linear):
        return up(torch.sqrt(row_norms(h).square() + one))[:, None]
    kernel = chain.tensors[op.weight]
    sides = (kernel.shape[2], kernel.shape[3])
    squares = patches(h.square(), op, sides).sum(1)
    shape = convolved(h[:1], op, chain).shape[2:]
    return up(torch.sqrt(squares + one), len(kernel[0].flatten())).reshape(len(h), 1, *shape) + TINY


def _affine(chain: Chain, op: Affine, facts: WeightFacts, ball: Ball) -> Ball:
    h = ball.mid
    near = local_norms(op, chain, h, op.bias is not None)
    units = (1, -1, *[1] * (near.ndim - 2))
    error = facts.norm * ball.error
    radius = _spread(ball.error, near.ndim) * facts.rows.reshape(units)
    mid, low, own = affine(chain, op, ball.mid, ball.low, facts.terms, near)
    error = error + row_norms(own) * facts.frobenius
    radius = radius + own * facts.rows_with_bias.reshape(units)
    return Ball(mid, up(error) + TINY, up(radius) + TINY, low)


def _activated(op: Activation, ball: Ball) -> Ball:
    sigma, z = op.sigma, ball.mid
    value = sigma.value(z)
    own = sigma.value_error(z, value)
    low = None
    if ball.low is not None:  # to first order, which between kinks is all there is
        low = sigma.derivative(z) * ball.low
        own = own + sigma.c2 * ball.low.square() + (8 * UNIT + sigma.derivative_error) * ball.low.abs()
        if sigma.kinks:  # where the two parts lie on two pieces the cell test fails anyway, but the enclosure must hold
            own = own + torch.where(_near_kink(z, ball.low, sigma.kinks), 2 * sigma.c1 * ball.low.abs(), 0.0)
    error = sigma.c1 * ball.error + (row_norms(own) if bool(own.any()) else 0.0)
    return Ball(value, up(error) + TINY, up(sigma.c1 * ball.radius + own) + TINY, low)


def _near_kink(z: Tensor, low: Tensor, kinks: tuple[float, ...]) -> Tensor:
    near = torch.zeros_like(z, dtype=torch.bool)
    for kink in kinks:
        near |= (z - kink).abs() <= 2 * low.abs()
    return near


def _scaled(ball: Ball, factor: float) -> Ball:
    size = abs(factor)
    if ball.low is None:
        mid, low = ball.mid * factor, None
        own = UNIT * mid.abs()
    else:
        mid, lost = two_product(ball.mid, factor)
        low = lost + ball.low * factor
        own = 4 * UNIT * (lost.abs() + size * ball.low.abs())
    error = size * ball.error + row_norms(own)
    return Ball(mid, up(error) + TINY, up(size * ball.radius + own) + TINY, low)


def _pooled(ball: Ball, to: tuple[int, int]) -> Ball:
    mid = pooled(ball.mid, to)
    area = (ball.mid.shape[2] // to[0]) * (ball.mid.shape[3] // to[1])
    own = gamma(area + 2) * pooled(ball.mid.abs(), to)
    low = None
    if ball.low is not None:
        low = pooled(ball.low, to)
        own = own + gamma(area + 2) * pooled(ball.low.abs(), to)
    error = ball.error / math.sqrt(area) + row_norms(own)
    return Ball(mid, up(error, area) + TINY, up(pooled(ball.radius, to) + own, area) + TINY, low)


def _added(first: Ball, second: Ball) -> Ball:
    mid = first.mid + second.mid
    own = UNIT * mid.abs()
    low = None
    if first.low is not None and second.low is not None:
        _, lost = two_sum(first.mid, second.mid)
        low = lost + first.low + second.low
        own = 4 * UNIT * (lost.abs() + first.low.abs() + second.low.abs())
    error = first.error + second.error + row_norms(own)
    return Ball(mid, up(error) + TINY, up(first.radius + second.radius + own) + TINY, low)


def _spread(per_sample: Tensor, dimensions: int) -> Tensor:
    return per_sample.reshape(-1, *[1] * (dimensions - 1))

r"""Limit kernels of fully connected networks in 40 digits, pair by pair: the slow, obvious twin of :func:`zeroloss.limit_kernel`.

A module is read once into plain steps, its own float64 constants (variances, scale factors) taken as exact numbers. Then the second
moments $S_{xx}, S_{xy}, S_{yy}$ of one coordinate, its means and the tangent kernel of the pair go through the steps by the formulas as
textbooks print them, in products rather than in distances: 40 digits can afford the cancellation that double precision cannot.

Duals: Cho and Saul's for functions with one kink at 0, Williams' for erf, Price's theorem for GELU, and for any other analytic
function a trapezoid rule in two independent Gaussian coordinates, which converges faster than any power.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import mpmath as mp
import torch
from torch import Tensor, nn

from zeroloss.networks import GaussianLinear, Residual, Scale, activation_of

DIGITS = 40
REACH = 10  # of the trapezoid rule, in standard deviations
KNEES = {"relu": (1, 0), "abs": (1, -1)}  # slopes above and below zero

# 1 - cosine of the pairs that are judged: from one row twice over near duplicates to near opposites and the opposite itself
NEAR = (0.0, 1e-14, 1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-3, 0.0199, 0.0201, 0.1, 0.29, 0.5, 0.9, 1.0)
VERSINES = (*NEAR, *(2 - v for v in reversed(NEAR[:-1])))


Three = tuple[mp.mpf, mp.mpf, mp.mpf]  # of a pair of inputs: x with x, x with y, y with y


@dataclass(frozen=True)
class Moments:
    """What is known about one coordinate at two inputs x and y.

    Args:
        second: its second moments.
        tangent: the tangent kernel of the chosen layers.
        width: how many coordinates there are.
        mean: its means at x and y, which only skips need.
    """

    second: Three
    tangent: Three
    width: int
    mean: tuple[mp.mpf, mp.mpf] = (mp.mpf(0), mp.mpf(0))


def rows_at(
    versines: tuple[float, ...], d: int = 20, dtype: torch.dtype = torch.float64, stretch: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Pairs of rows at given angles. What they are after rounding is what counts: the reference takes them as they are.

    Args:
        versines: 1 - cosine of each pair.
        d: features.
        dtype: which the rows are rounded to.
        stretch: the norm of every second row; its inverse is that of every first.

    Returns:
        First and second rows, in the order of the versines.
    """
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn(2, len(versines), d, dtype=torch.float64, generator=generator)
    x = torch.nn.functional.normalize(draw[0], dim=1)
    across = torch.nn.functional.normalize(draw[1] - (draw[1] * x).sum(1, keepdim=True) * x, dim=1)
    back = torch.tensor([v > 1 for v in versines])
    small = torch.tensor([min(v, 2 - v) for v in versines], dtype=torch.float64)
    angle = 2 * torch.asin((small / 2).sqrt())[:, None]
    y = angle.cos() * torch.where(back[:, None], -x, x) + angle.sin() * across
    return (x / stretch).to(dtype), (y * stretch).to(dtype)


def others(count: int, like: Tensor) -> Tensor:
    """More rows on the unit sphere, in the dtype and with the features of some rows.

    Args:
        count: how many.
        like: the rows.
    """
    draw = torch.randn(count, like.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.normalize(draw, dim=1).to(like.dtype)


def mp_kernel(module: nn.Module, kind: str, x: Tensor, y: Tensor) -> Three:
    """The limit kernel of one pair of rows.

    Args:
        module: Linear, GaussianLinear, Scale, Residual and activations in sequence.
        kind: ``"ntk"``, ``"nngp"`` or ``"last-hidden"``.
        x: one row, its floating point numbers taken as exact.
        y: another.

    Returns:
        K(x, x), K(x, y) and K(y, y) in 40 digits.
    """
    with mp.workdps(DIGITS):
        a, b = ([mp.mpf(v) for v in row.tolist()] for row in (x, y))
        start = tuple(mp.fdot(zip(u, v, strict=True)) / len(a) for u, v in ((a, a), (a, b), (b, b)))
        linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
        counted = {"ntk": linear, "nngp": [], "last-hidden": linear[-2:-1]}[kind]
        end = _run(module, Moments(start, (mp.mpf(0),) * 3, len(a)), counted)
        return end.second if kind == "nngp" else end.tangent


def mp_errors(exact: Three, *ours: tuple[int, float]) -> list[float]:
    r"""How far values of a kernel are off, over $\sqrt{K(x,x)K(y,y)}$.

    Args:
        exact: what :func:`mp_kernel` says of the pair.
        ours: which of the three, and the value to judge.

    Returns:
        Absolute errors relative to the diagonal (for a diagonal entry: to itself).
    """
    with mp.workdps(DIGITS):
        size = (exact[0], mp.sqrt(exact[0] * exact[2]), exact[2])
        return [float(abs(mp.mpf(value) - exact[which]) / size[which]) for which, value in ours]


def _run(module: nn.Module, s: Moments, counted: list[nn.Module]) -> Moments:
    if isinstance(module, Residual):
        branch = s
        for layer in module:
            branch = _run(layer, branch, counted)
        (a, b), (f, g) = s.mean, branch.mean
        meeting = (2 * a * f, a * g + b * f, 2 * b * g)  # E[h f] for independent h and f
        second = tuple(h + k + m for h, k, m in zip(s.second, branch.second, meeting, strict=True))
        tangent = tuple(h + k for h, k in zip(s.tangent, branch.tangent, strict=True))
        return Moments(second, tangent, s.width, (a + f, b + g))
    if isinstance(module, nn.Sequential):
        for layer in module:
            s = _run(layer, s, counted)
        return s
    if isinstance(module, nn.Linear):
        return _linear(module, s, module in counted)
    if isinstance(module, Scale):
        f = mp.mpf(module.factor)
        scaled = (tuple(v * f**2 for v in values) for values in (s.second, s.tangent))
        return Moments(*scaled, s.width, (f * s.mean[0], f * s.mean[1]))
    name = activation_of(module).name
    xx, xy, yy = s.second
    left, right = dual(name, xx, xx, xx), dual(name, yy, yy, yy)
    duals = (left, dual(name, xx, xy, yy), right)
    tangent = tuple(t * slope for t, (_, slope) in zip(s.tangent, duals, strict=True))
    return Moments(tuple(value for value, _ in duals), tangent, s.width, (mean(name, xx), mean(name, yy)))


def _linear(layer: nn.Linear, s: Moments, counted: bool) -> Moments:
    """f = W h + b: the weights' share of the tangent kernel is h.h', the bias's is 1; both random parts add to the moments."""
    third = mp.mpf(1) / (3 * layer.in_features)  # torch's own draw, of weights and of biases: uniform on +-1/sqrt(fan-in)
    gain = s.width * (mp.mpf(layer.variance) if isinstance(layer, GaussianLinear) else third)
    bias = third if layer.bias is not None else 0
    weights = s.width if counted and layer.weight.requires_grad else 0
    biases = 1 if counted and layer.bias is not None and layer.bias.requires_grad else 0
    tangent = tuple(gain * t + weights * v + biases for t, v in zip(s.tangent, s.second, strict=True))
    return Moments(tuple(gain * v + bias for v in s.second), tangent, layer.out_features)


def dual(name: str, xx: mp.mpf, xy: mp.mpf, yy: mp.mpf) -> tuple[mp.mpf, mp.mpf]:
    r"""$\mathbb{E}\sigma(u)\sigma(v)$ and $\mathbb{E}\sigma'(u)\sigma'(v)$ for Gaussian u and v of these moments.

    Args:
        name: the activation's.
        xx: the variance of u.
        xy: the covariance.
        yy: the variance of v.

    Returns:
        Both expectations.
    """
    if name in KNEES or name.startswith("leaky_relu"):
        return _knee(*_knee_slopes(name), xx, xy, yy)
    if name == "erf":
        root = (1 + 2 * xx) * (1 + 2 * yy)
        return 2 / mp.pi * mp.asin(2 * xy / mp.sqrt(root)), 4 / mp.pi / mp.sqrt(root - 4 * xy**2)
    if name == "gelu":
        return _gelu(xx, xy, yy)
    return _trapezoid(name, xx, xy, yy)


def _knee_slopes(name: str) -> tuple[mp.mpf, mp.mpf]:
    if name in KNEES:
        return tuple(mp.mpf(v) for v in KNEES[name])
    inside = name.removeprefix("leaky_relu").strip("()")
    return mp.mpf(1), mp.mpf(float(inside or 0.01))


def _knee(above: mp.mpf, below: mp.mpf, xx: mp.mpf, xy: mp.mpf, yy: mp.mpf) -> tuple[mp.mpf, mp.mpf]:
    """Arc-cosine formulas: quadrants of one sign weigh a^2 + b^2, mixed ones 2ab."""
    size = mp.sqrt(xx * yy)
    if size == 0:
        return mp.mpf(0), (above**2 + below**2) / 4 + above * below / 2  # the slope of a zero input never reaches a kernel
    theta = mp.acos(max(-1, min(1, xy / size)))
    same = size * (mp.sin(theta) + (mp.pi - theta) * mp.cos(theta)) / (2 * mp.pi)
    mixed = size * (mp.sin(theta) - theta * mp.cos(theta)) / (2 * mp.pi)
    power, cross = above**2 + below**2, 2 * above * below
    return power * same - cross * mixed, (power * (mp.pi - theta) + cross * theta) / (2 * mp.pi)


def _gelu(xx: mp.mpf, xy: mp.mpf, yy: mp.mpf) -> tuple[mp.mpf, mp.mpf]:
    r"""With $F=\mathbb{E}\Phi(u)\Phi(v)$, $P=\mathbb{E}\phi(u)\phi(v)$, by Stein's lemma in u and then in v."""
    a, b = 1 + xx, 1 + yy
    D = a * b - xy**2
    F = mp.mpf(1) / 4 + mp.asin(xy / mp.sqrt(a * b)) / (2 * mp.pi)
    P = 1 / (2 * mp.pi * mp.sqrt(D))
    value = xx * P * (yy - xy**2 / a) + xy * F + xy**2 * P / b
    return value, F + xy * P / a + xy * P / b + P * xy / D


def mean(name: str, variance: mp.mpf) -> mp.mpf:
    r"""$\mathbb{E}\sigma(u)$ for a Gaussian u of that variance, where skips are tested: ReLU's and its like, and odd functions."""
    if name in KNEES or name.startswith("leaky_relu"):
        above, below = _knee_slopes(name)
        return (above - below) * mp.sqrt(variance / (2 * mp.pi))
    return mp.mpf(0) if name in ("erf", "tanh") else mp.nan


def _softplus(z: mp.mpf) -> tuple[mp.mpf, mp.mpf]:
    e = mp.exp(-abs(z))
    return mp.log1p(e) + max(z, 0), (1 / (1 + e) if z >= 0 else e / (1 + e))


def _tanh(z: mp.mpf) -> tuple[mp.mpf, mp.mpf]:
    t = mp.tanh(z)
    return t, 1 - t**2


# with the step that leaves about 1e-17 at variances around 1: poles at i pi and at i pi/2
SMOOTH = {"softplus": (_softplus, 0.35), "tanh": (_tanh, 0.2)}


@lru_cache(maxsize=4096)
def _trapezoid(name: str, xx: mp.mpf, xy: mp.mpf, yy: mp.mpf) -> tuple[mp.mpf, mp.mpf]:
    """Every pair of grid points, u = p z and v = q (rho z + r t)."""
    both, step = SMOOTH[name]
    with mp.workdps(25):
        p, q = mp.sqrt(xx), mp.sqrt(yy)
        rho = max(mp.mpf(-1), min(mp.mpf(1), xy / (p * q)))
        r = mp.sqrt((1 - rho) * (1 + rho))
        grid = [mp.mpf(k) * step for k in range(-round(REACH / step), round(REACH / step) + 1)]
        weight = [step * mp.npdf(z) for z in grid]
        inner = grid if r else [mp.mpf(0)]
        value = slope = mp.mpf(0)
        for z, w in zip(grid, weight, strict=True):
            f, g = both(p * z)
            ours = [both(q * (rho * z + r * t)) for t in inner]
            masses = weight if r else [mp.mpf(1)]
            value += w * f * mp.fdot((m, o[0]) for m, o in zip(masses, ours, strict=True))
            slope += w * g * mp.fdot((m, o[1]) for m, o in zip(masses, ours, strict=True))
        return value, slope

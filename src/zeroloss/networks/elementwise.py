"""Elementwise functions: their derivatives by automatic differentiation, and the test that a user's function is one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from zeroloss.errors import ArgumentError

REACH = 40.0  # in standard deviations of a normalised pre-activation; nothing is integrated beyond
SIDE = 1e-9  # how far from a kink its two sides are read
HALVINGS = 35  # from a grid's spacing of 0.02 down to rounding
LEAP = 1e-6  # a change this large, relative to the largest value, over an interval of rounding size is a jump

Function = Callable[[Tensor], Tensor]


def derivative(function: Function, z: Float[Tensor, " *n"]) -> Float[Tensor, " *n"]:
    r"""$\sigma'(z)$ elementwise, by automatic differentiation; at a kink, torch's choice.

    Args:
        function: $\sigma$.
        z: points, any shape.

    Returns:
        The derivative at each point.

    Example:
        >>> derivative(torch.square, torch.tensor([1.0, 3.0]))
        tensor([2., 6.])
    """
    with torch.enable_grad():
        point = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(function(point).sum(), point)
    return slope


def curvature(function: Function, z: Float[Tensor, " *n"]) -> Float[Tensor, " *n"]:
    r"""$\sigma''(z)$ elementwise, by differentiating twice; 0 where the function is piecewise linear.

    Args:
        function: $\sigma$.
        z: points, any shape.

    Returns:
        The second derivative at each point.

    Example:
        >>> curvature(torch.square, torch.tensor([1.0, 3.0]))
        tensor([2., 2.])
    """
    with torch.enable_grad():
        point = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(function(point).sum(), point, create_graph=True)
        if not slope.requires_grad:  # piecewise linear
            return torch.zeros_like(z)
        (bend,) = torch.autograd.grad(slope.sum(), point, allow_unused=True)
    return torch.zeros_like(z) if bend is None else bend.add(0.0)  # torch marks some zeros instead of storing them


def check_elementwise(name: str, function: Function, kinks: tuple[float, ...]) -> None:
    """Refuse a function that no wide layer has a limit for.

    Args:
        name: the activation's name, for errors.
        function: maps a float64 tensor to one of its shape.
        kinks: where it is not twice differentiable, in increasing order.

    Raises:
        ArgumentError: where it fails, returns another shape or dtype, NaN or infinity, is random, mixes entries, is constant, has a
            jump, has no derivative, or has a kink that is not listed.

    Example:
        >>> check_elementwise("softmax", lambda z: torch.softmax(z, -1), ())
        Traceback (most recent call last):
        zeroloss.errors.ArgumentError: activation 'softmax' mixes its entries; pass a function of each entry alone
    """
    z = torch.arange(-2000, 2001, dtype=torch.float64) * (REACH / 2000)  # 0 itself is among them
    value = _call(name, function, z)
    scale = float(value.abs().max())
    if not _same(value, _call(name, function, z), scale):
        raise _refused(name, "gives another value each time", "pass a deterministic function")
    grid = _call(name, function, z[:3999].reshape(3, 31, 43)).flatten()
    if not (_same(value[:3999], grid, scale) and _same(value[5::7], _call(name, function, z[5::7]), scale)):
        raise _refused(name, "mixes its entries", "pass a function of each entry alone")
    slope = _slopes(name, function, z)
    if bool((value == value[0]).all()):
        raise _refused(name, f"is the constant {float(value[0]) + 0.0:g}", "pass a function that changes with its argument")
    for kink in kinks:
        sides = _call(name, function, torch.tensor([kink - SIDE, kink + SIDE], dtype=torch.float64))
        if float((sides[1] - sides[0]).abs()) > LEAP * scale:
            raise _refused(name, f"jumps at its kink {kink:g}", "pass a continuous function")
    left, right = _intervals(kinks)
    if (place := _leap(function, left, right, scale)) is not None:
        raise _refused(name, f"jumps near {place:.6g}", "pass a continuous function")
    if (place := _leap(lambda t: derivative(function, t), left, right, float(slope.abs().max()))) is not None:
        raise _refused(name, f"has a kink near {place:.6g} that kinks={kinks} does not list", "list it in kinks=")


def _refused(name: str, seen: str, remedy: str) -> ArgumentError:
    return ArgumentError(f"activation {name!r}", seen, remedy)


def _call(name: str, function: Function, z: Tensor) -> Tensor:
    try:
        with torch.no_grad():
            value = function(z.clone())  # a copy, since the function may work in place
    except Exception as error:
        raise _refused(name, f"fails on a tensor of shape {tuple(z.shape)}: {error}", "pass an elementwise function") from error
    if not isinstance(value, Tensor):
        raise _refused(name, f"returns {type(value).__name__}", "return a tensor")
    if value.shape != z.shape or value.dtype != z.dtype:
        seen = f"maps {tuple(z.shape)} in float64 to {tuple(value.shape)} in {str(value.dtype).removeprefix('torch.')}"
        raise _refused(name, seen, "keep shape and dtype")
    if not bool(torch.isfinite(value).all()):
        where = float(z[~torch.isfinite(value)].abs().min())
        raise _refused(name, f"returns NaN or infinity at |z| = {where:.4g}", f"pass a function that is finite on ±{REACH:g}")
    return value


def _slopes(name: str, function: Function, z: Tensor) -> Tensor:
    try:
        slope = derivative(function, z)
    except Exception as error:
        raise _refused(name, f"cannot be differentiated: {error}", "write it in differentiable torch operations") from error
    if not bool(torch.isfinite(slope).all()):
        where = float(z[~torch.isfinite(slope)].abs().min())
        raise _refused(name, f"has no finite derivative at |z| = {where:.4g}", "pass a function with a bounded derivative there")
    return slope


def _same(a: Tensor, b: Tensor, scale: float) -> bool:
    """Equal up to what vector and scalar code of one function may differ by."""
    return bool(((a - b).abs() <= 1e-12 * (a.abs() + 1e-3 * scale)).all())


def _intervals(kinks: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """A grid's intervals on [-REACH, REACH], cut where a kink is listed and leaving it out."""
    cuts = torch.tensor([c for c in kinks if abs(c) < REACH], dtype=torch.float64)
    # a grid that misses round numbers, where torch's own choice of derivative would stand for a kink's two sides
    grid = torch.linspace(-REACH - 0.0037, REACH + 0.0041, 4001, dtype=torch.float64)
    grid = grid[((grid[:, None] - cuts).abs() > 2 * SIDE).all(1)]
    left = torch.cat([grid, cuts + SIDE]).sort().values[:-1]
    right = torch.cat([grid, cuts - SIDE]).sort().values[1:]
    return left, right


def _leap(function: Function, left: Tensor, right: Tensor, scale: float) -> float | None:
    """Where the function jumps: every interval is halved towards the half with the larger change until rounding is left."""
    at_left, at_right = function(left), function(right)
    for _ in range(HALVINGS):
        middle = (left + right) / 2
        at_middle = function(middle)
        first = (at_middle - at_left).abs() > (at_right - at_middle).abs()
        left, at_left = torch.where(first, left, middle), torch.where(first, at_left, at_middle)
        right, at_right = torch.where(first, middle, right), torch.where(first, at_middle, at_right)
    change = (at_right - at_left).abs()
    worst = int(change.argmax())
    return round(float(left[worst]), 9) + 0.0 if float(change[worst]) > LEAP * scale else None

"""Certify concrete weights: enclose, bound, and apply the theorems."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from zeroloss.certificate.backward import enclose_backward
from zeroloss.certificate.certificate import Certificate, Numbers, Status
from zeroloss.certificate.chain import read_chain
from zeroloss.certificate.enclosure import Ball, enclose_forward
from zeroloss.certificate.exact_product import two_sum
from zeroloss.certificate.facts import Facts, gather
from zeroloss.certificate.jacobian_gram import EnclosedGram, enclose_gram
from zeroloss.certificate.lipschitz import cell_margin, lipschitz_bound
from zeroloss.certificate.problem import Problem, merge
from zeroloss.certificate.rounding import HUGE, TINY, UNIT, gamma, norm_bound, row_norms, up
from zeroloss.certificate.spectral_bounds import largest_eigenvalue_bound, smallest_eigenvalue_bound
from zeroloss.certificate.stages import Activation
from zeroloss.certificate.theorems import (
    Descent,
    Fails,
    Flow,
    Newton,
    Stochastic,
    gradient_descent,
    gradient_flow,
    newton,
    stochastic_descent,
)
from zeroloss.data import Dataset
from zeroloss.errors import ArgumentError, unknown_name

METHODS = ("flow", "gd", "sgd", "newton")
PRECISIONS = ("float64", "extended")
MARGIN = 1 + 1e-9  # of the cell test

_Result = TypeVar("_Result", Flow | Fails, Descent | Fails, Newton | Fails)


def certify(
    module: nn.Module,
    data: Dataset,
    *,
    train: str | Iterable[str] | None = None,
    method: str = "flow",
    step: float | None = None,
    batch: int | None = None,
    scale: float = 1.0,
    precision: str = "float64",
    dedupe: bool = True,
) -> Certificate:
    r"""Prove, rounding included, that weights of zero loss lie near these and that an idealised training reaches them.

    With $\rho\ge\|f-y\|$, $\sigma_0\le\sigma_{\min}(J)$ and a Lipschitz constant $\Lambda$ of J on a ball around the weights, gradient
    flow converges to zero loss within the ball if $2\Lambda\rho<\sigma_0^2$ (Theorem 1 of docs/certificates.md), and gradient descent and
    mini-batches do under conditions alike. All three are bounded here from the weights themselves, which are taken as exact.

    Args:
        module: a chain of layers (see :func:`zeroloss.certificate.read_chain`), in any dtype; it is not changed.
        data: what it is to interpolate.
        train: what training moves: layer or parameter names, ``"all"``, or None for parameters with ``requires_grad``.
        method: ``"flow"`` (Theorem 1), ``"gd"`` (2), ``"sgd"`` (3, with a probability) or ``"newton"`` (4, existence alone).
        step: the step size of gd and sgd; None for one that is found.
        batch: rows a step of sgd.
        scale: a factor of the network's outputs: what is certified is ``scale`` times the module.
        precision: of the residual: ``"float64"``, or ``"extended"`` where rounding decides (16 layers and more).
        dedupe: whether equal rows are merged into one of weight $\sqrt w$; the loss is the same.

    Returns:
        The certificate: PROVED, REFUSED (these bounds prove nothing), or IMPOSSIBLE (equal inputs with different targets).

    Raises:
        ArgumentError: for a module that is not covered, data that do not fit it, and arguments out of range.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 1, bias=False)).double()
        >>> data = Dataset([[1.0, 0.0], [0.0, 1.0]], [1.0, -1.0])
        >>> found = certify(net, data)
        >>> found.status, round(found.rate, 2)
        (<Status.PROVED: 'PROVED'>, 1.0)
    """
    began = time.perf_counter()
    _check(module, data, method, step, batch, scale, precision)
    chain = read_chain(module, data.x, train, scale)
    blank = Numbers(rows=data.n, samples=data.n, outputs=data.outputs, N=data.n * data.outputs, P=chain.parameters)
    if data.conflicts:
        groups, floor = len(data.conflicts), data.loss_floor
        first = " and ".join(str(row) for row in data.conflicts[0].rows[:2])
        reason = (
            f"{groups} group{'s' if groups > 1 else ''} of equal inputs with different targets (first: rows {first}): the loss of no "
            f"network is below {floor:.6g}, the sum of squares around the groups' means"
        )
        return Certificate(Status.IMPOSSIBLE, reason, method, blank, loss_floor=floor, seconds=time.perf_counter() - began)
    problem = merge(chain, data, dedupe)
    samples = len(problem.x)
    numbers = replace(blank, samples=samples, N=samples * data.outputs)
    options = _Options(method, step, data.n if batch is None else batch, precision)
    with torch.no_grad():
        found = _certify(problem, numbers, options)
    return replace(found, seconds=time.perf_counter() - began)


@dataclass(frozen=True)
class _Options:
    method: str
    step: float | None
    batch: int
    precision: str


def _check(
    module: nn.Module, data: Dataset, method: str, step: float | None, batch: int | None, scale: float, precision: str
) -> None:
    if not isinstance(module, nn.Module) or not isinstance(data, Dataset):
        raise ArgumentError(
            "module, data", f"are {type(module).__name__} and {type(data).__name__}", "pass an nn.Module and a zeroloss.Dataset"
        )
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    for name, value in (("step", step), ("scale", scale)):
        if value is not None and not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
            raise ArgumentError(name, f"is {value!r}", "pass a finite number above 0")
    if step is not None and method not in ("gd", "sgd"):
        raise ArgumentError("step", f"goes with gd and sgd, not with {method!r}", "leave it out")
    if batch is not None and method != "sgd":
        raise ArgumentError("batch", f"goes with sgd, not with {method!r}", "leave it out")
    if method == "sgd" and (isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= data.n):
        raise ArgumentError("batch", f"is {batch!r}", f"pass a whole number from 1 to {data.n}")


def _certify(problem: Problem, numbers: Numbers, options: _Options) -> Certificate:
    def refuse(reason: str) -> Certificate:
        return Certificate(Status.REFUSED, reason, options.method, numbers, precision=options.precision)

    if numbers.N > numbers.P:
        return refuse(f"N = {numbers.N} equations exceed P = {numbers.P} trained numbers: J cannot have full row rank")
    forward = enclose_forward(problem.chain, problem.x, options.precision == "extended")
    if forward.outputs.mid.shape != problem.y.shape:
        seen = f"returns {forward.outputs.mid.shape[1]} outputs for targets with {problem.y.shape[1]}"
        raise ArgumentError("module", seen, "build it with outputs=data.outputs")
    residual, residual_error, rho = _residual(forward.outputs, problem)
    numbers = replace(numbers, residual=rho)
    if not rho < HUGE:
        return refuse("the outputs overflow or are too large to work with")
    for place, op in enumerate(forward.tape):
        if isinstance(op, Activation) and op.sigma.kinks and place > problem.chain.first_trained:
            undecided = _undecided(op, forward.inputs[place])
            if undecided:
                return refuse(
                    f"{undecided} pre-activations lie on a kink to within rounding: the Jacobian is not determined there"
                )
    adjoints = enclose_backward(problem.chain, forward)
    gram = enclose_gram(problem.chain, forward, adjoints, problem.roots)
    if not math.isfinite(gram.error) or not bool(torch.isfinite(gram.matrix.sum())) or gram.error > HUGE:
        return refuse("the Gram matrix overflows")
    bound, near = smallest_eigenvalue_bound(gram.matrix, gram.error)
    numbers = replace(numbers, near=near, gram_error=gram.error)
    if not bound > 1e-200:
        return refuse(
            f"the smallest eigenvalue of the Gram matrix, about {near:.3g}, is not known to be positive (rounding: {gram.error:.1g})"
        )
    sigma = math.sqrt(bound) * (1 - 1e-14)
    beta0 = up(math.sqrt(largest_eigenvalue_bound(gram.matrix, gram.error)))
    numbers = replace(numbers, sigma0=sigma, beta0=beta0)
    length = _newton_length(gram, residual, residual_error, sigma)
    del gram
    facts = gather(problem.chain, forward, adjoints, problem.roots)
    return _apply(problem, numbers, options, facts, length)


def _apply(problem: Problem, numbers: Numbers, options: _Options, facts: tuple[Facts, ...], length: float) -> Certificate:
    samples = numbers.samples
    known: dict[float, float] = {}

    def modulus(radius: float) -> float:
        if radius not in known:
            known[radius] = lipschitz_bound(facts, samples, radius)
        return known[radius]

    def margin(radius: float) -> float:
        return cell_margin(facts, samples, radius)

    rho, sigma, beta0 = numbers.residual, numbers.sigma0, numbers.beta0
    flow = gradient_flow(rho, sigma, modulus)
    near = newton(length, sigma, modulus)
    gd = gradient_descent(rho, sigma, beta0, modulus, options.step if options.method == "gd" else None)
    if options.step is None and isinstance(gd, Descent) and not isinstance(flow, Fails) and margin(flow.radius) > MARGIN:
        for _ in range(12):  # a smaller step needs a smaller ball, which holds fewer kinks
            if margin(gd.radius) > MARGIN:
                break
            smaller = gradient_descent(rho, sigma, beta0, modulus, gd.step / 2)
            if isinstance(smaller, Fails):
                break
            gd = smaller
    sgd = None
    if options.method == "sgd":
        largest = _largest(margin, rho / sigma * 2.0, 2.0**60)
        sgd = stochastic_descent(rho, sigma, beta0, modulus, numbers.rows, options.batch, largest, options.step)
    chosen = {"flow": flow, "gd": gd, "sgd": sgd, "newton": near}[options.method]
    assert chosen is not None
    reached = margin(chosen.radius)
    numbers = replace(numbers, cell_margin=reached)
    made = Certificate(
        Status.REFUSED, "", options.method, numbers, flow, gd, sgd, near, precision=options.precision, problem=problem
    )
    if isinstance(chosen, Fails):
        return replace(made, reason=_failure(options.method, chosen))
    if not reached > MARGIN:
        reason = (
            f"a pre-activation may cross its kink within the ball of radius {chosen.radius:.3g}: the nearest one is at "
            f"{reached:.3g} of the distance that it can move"
        )
        return replace(made, reason=reason)
    return replace(
        made,
        flow=_inside(flow, margin),
        gd=_inside(gd, margin),
        newton=_inside(near, margin),
        status=Status.PROVED,
        reason=_conclusion(chosen),
    )


def _inside(found: _Result, margin: Callable[[float], float]) -> _Result | None:
    """A theorem's conclusion where no kink is crossed on its ball, else None."""
    if isinstance(found, Fails):
        return found
    return found if margin(found.radius) > MARGIN else None


def _conclusion(found: Flow | Descent | Stochastic | Newton) -> str:
    match found:
        case Flow():
            return (
                f"zero-loss weights lie within {found.path:.3g} of these, and gradient flow converges to them, its residual at least as "
                f"fast as exp(-{found.rate:.3g} t)"
            )
        case Descent():
            return (
                f"zero-loss weights lie within {found.path:.3g} of these, and gradient descent with step {found.step:.3g} converges to "
                f"them, its residual by a factor of at most 1 - {found.rate:.3g} a step"
            )
        case Stochastic():
            return (
                f"with probability at least 1 - {found.delta:.2g}, batches of {found.batch} rows with step {found.step:.3g} stay within "
                f"{found.radius:.3g} of these weights and converge to zero loss"
            )
        case Newton():
            return f"zero-loss weights lie within {found.radius:.3g} of these"


def _residual(outputs: Ball, problem: Problem) -> tuple[Tensor, float, float]:
    r"""The weighted residual as computed, a bound of its error's norm, and $\rho$."""
    difference, lost = two_sum(outputs.mid, -problem.y)
    own = 2 * UNIT * (difference.abs() if outputs.low is None else lost.abs() + outputs.low.abs())
    if outputs.low is not None:
        difference = difference + (lost + outputs.low)
        own = own + 2 * UNIT * difference.abs()
    roots = problem.roots
    weighted = difference * roots[:, None]
    error = norm_bound((up(outputs.error + row_norms(own)) + 4 * UNIT * row_norms(difference)) * roots)
    return weighted, error, up(norm_bound(weighted) + error)


def _undecided(op: Activation, entering: Ball) -> int:
    reach = entering.radius if entering.low is None else entering.radius + entering.low.abs()
    bad = torch.zeros_like(entering.mid, dtype=torch.bool)
    for kink in op.sigma.kinks:
        bad |= ~((entering.mid - kink).abs() * (1 - 1e-12) > reach)
    return int(bad.sum())


def _newton_length(gram: EnclosedGram, residual: Tensor, residual_error: float, sigma: float) -> float:
    r"""$D_0\ge\|J^+r\|$: for any $\tilde z\approx G^{-1}r$, $\|J^\top\tilde z\|+\|r-G\tilde z\|/\sigma_0$; at most $\rho/\sigma_0$."""
    r = residual.reshape(-1, 1)
    n = len(r)
    simple = (norm_bound(r) + residual_error) / sigma
    factor, info = torch.linalg.cholesky_ex(gram.matrix)
    if int(info) != 0:
        return up(simple)
    z = torch.cholesky_solve(r, factor)
    del factor
    product = gram.matrix @ z
    size = norm_bound(z)
    rounding = gamma(n + 4) * norm_bound(gram.matrix) * size
    rest = norm_bound(r - product) + 2 * UNIT * norm_bound(r) + rounding + gram.error * size + residual_error
    square = abs(float((z * product).sum())) + gamma(n + 4) * size * norm_bound(product) + (rounding + gram.error * size) * size
    return up(min(simple, math.sqrt(up(square)) + rest / sigma) + TINY)


def _largest(margin: Callable[[float], float], radius: float, factor: float) -> float:
    """The largest doubling of a radius, up to a factor, within which no kink is crossed."""
    largest = 0.0
    reach = radius
    while reach <= radius * factor and margin(reach) > MARGIN:
        largest = reach
        reach *= 2
    return largest


def _failure(method: str, found: Fails) -> str:
    tried = f"(Λ = {found.lipschitz:.3g} on the ball of radius {found.radius:.3g})"
    match method:
        case "flow":
            return f"2Λρ = {found.left:.3g} is not below σ0² = {found.right:.3g} {tried}"
        case "gd":
            return f"2Λρ = {found.left:.3g} is not below c²σ0² = {found.right:.3g} {tried}"
        case "sgd":
            return f"no ball and step make both q and the probability of leaving smaller than 1: {found.left:.3g} {tried}"
        case _:
            return f"ΛD0/σ0 = {found.left:.3g} exceeds 1/2 {tried}"

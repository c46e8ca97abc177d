r"""From the weights a user has to weights where the loss is zero up to rounding, the place where a certificate can begin."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import nn

from zeroloss.certificate.polish_held import held_step
from zeroloss.certificate.polish_kinks import across, gradients, kinked_layers, margin, narrow, room
from zeroloss.certificate.polish_newton import EXTENDED, Budget, End, State, cholesky, run, state_of, trial
from zeroloss.certificate.polish_problem import Problem, distance
from zeroloss.certificate.polish_starts import fit_last_layer, go_down
from zeroloss.data import Dataset
from zeroloss.errors import ArgumentError
from zeroloss.gram import forward
from zeroloss.gram.trace import refuse_mixing

DESCENTS = (300, 1000, 3000)  # steps of gradient descent before each new attempt
ENDINGS = {
    End.BUDGET: "max_steps ended first",
    End.FLAT: "the outputs do not depend on the trained parameters (dead units?)",
    End.STATIONARY: "the loss's gradient vanishes there (a local minimum or saddle, or dead units)",
    End.OVERFLOW: "the Gram overflows",
    End.ROUNDING: "float64 weights do not come closer",
    End.STUCK: "no kind of step lowers it further",
}
WIDENINGS = 12  # steps to move units off their kinks
POLISHED_AGAIN = 6  # Grams, after that


class PolishStatus(StrEnum):
    """How a polish ended; each is an outcome, none an error."""

    REACHED = "REACHED"  # the residual is at most what was asked for
    FLOOR = "FLOOR"  # equal inputs with different targets stand in the way, and nothing else does
    STALLED = "STALLED"  # no kind of step lowers the residual any further
    MAX_STEPS = "MAX_STEPS"  # the budget ended first


@dataclass(frozen=True, eq=False)
class Polished:
    r"""Weights near a user's own at which the residual is at rounding level, or as low as it would go.

    Attributes:
        module: a float64 copy with the new weights; the user's module is as it was.
        residual: $\|f(\theta)-y\|$ over all rows and outputs, in double-double arithmetic where ``extended``, else in float64.
        moved: $\|\theta-\theta_{\mathrm{user}}\|$ over the trained parameters.
        status: how it ended.
        reason: why, in a sentence.
        history: residuals of the weights that were kept, from the user's own on; each below the one before. (Units moved off a
            kink in the end may leave ``residual`` a little above the last.)
        steps: how many Gram matrices were formed.
        extended: whether ``residual`` was computed in double-double arithmetic.
        float64_residual: what float64 arithmetic gives for the same weights.
        margin: the smallest distance of a pre-activation from a kink, relative to its layer's root mean square; infinite without kinks.
    """

    module: nn.Module
    residual: float
    moved: float
    status: PolishStatus
    reason: str
    history: tuple[float, ...]
    steps: int
    extended: bool
    float64_residual: float
    margin: float


def polish(
    module: nn.Module,
    data: Dataset,
    *,
    until: float = 1e-13,
    max_steps: int = 100,
    progress: Callable[[int, float], None] | None = None,
) -> Polished:
    r"""Move a copy of a module's trained weights to where its residual $f(\theta)-y$ vanishes up to rounding.

    Levenberg-Marquardt steps $(G+\lambda I)z=r$, $\theta\leftarrow\theta-J^\top z$ through the (nk)×(nk) Gram, which end as Gauss-Newton
    steps; J is never formed. Where activations have kinks and a step is refused, shorter ones that end just beyond a crossing are
    tried, and one that holds the units that would cross first. Where steps lead nowhere, the last layer is fitted alone (no kink is in
    the way there), and then gradient descent is run for a while, each followed by new steps. Once float64's rounding would show in the
    residual it is computed in double-double arithmetic, for the networks that :func:`zeroloss.certificate.polish_extended.extended_outputs`
    knows. In the end units that lie on a kink, or nearly, are moved off it with the outputs held where they are.

    Args:
        module: any module that :func:`zeroloss.gram` takes, in any float dtype; only a float64 copy of it is changed.
        data: inputs and targets. Equal inputs count as one row with the mean of their targets.
        until: what is asked for: a residual of this, times the norm of the targets (times 1 where they are all zero). Steps go on
            below it while they still halve the residual, and cost little.
        max_steps: how many Gram matrices may be formed; each costs about a Cholesky factorisation of an (nk)×(nk) matrix.
        progress: called with the number of Grams so far and the residual.

    Returns:
        The weights, and how far they are from the user's.

    Raises:
        ArgumentError: for a module without trained parameters, with NaN or infinite weights or outputs, or that does not fit the data;
            for arguments out of range.

    Source:
        Marquardt 1963; the step's dual form, an n×n system in place of a P×P one, is $J^\top(JJ^\top+\lambda I)^{-1}=(J^\top J+\lambda
        I)^{-1}J^\top$.

    Example:
        >>> from zeroloss.networks import fully_connected
        >>> net = fully_connected(2, 32, 1, dtype=torch.float32)
        >>> done = polish(net, Dataset([[1.0, 0.0], [0.0, 1.0]], [1.0, -1.0]))
        >>> done.status, done.residual < 1e-14, next(done.module.parameters()).dtype
        (<PolishStatus.REACHED: 'REACHED'>, True, torch.float64)
    """
    _check(module, data, until, max_steps)
    problem = Problem.of(copy.deepcopy(module).to(torch.float64), data)
    start = state = state_of(problem)
    if not math.isfinite(start.norm):
        raise ArgumentError("module", "returns NaN or infinity for the data", "check its weights and the scale of the inputs")
    goal, kinked = until * problem.scale, bool(kinked_layers(problem.module))
    budget, mind = Budget(max_steps, [start.norm], progress), across if kinked else None
    state, end = run(problem, state, budget, mind)
    for turn in range(1 + len(DESCENTS)):
        if state.norm <= goal or end is not End.STUCK:
            break
        other = fit_last_layer(problem, state) if turn == 0 else go_down(problem, data, state, DESCENTS[turn - 1], budget)
        if other is None:
            continue
        budget.accept(other.norm)
        found, end = run(problem, other, budget, mind)
        state = min(state, found, key=lambda s: s.norm)
    if kinked and max_steps > 0 and state.norm <= goal:
        state = _widened(problem, state, goal, budget)
    problem.put(state.values)
    status, reason = _outcome(problem, state, goal, until, end)
    plain = state_of(problem)
    own = {name: p.detach() for name, p in module.named_parameters()}
    return Polished(
        module=problem.module,
        residual=math.hypot(state.norm, problem.floor),
        moved=distance(state.values, own),
        status=status,
        reason=reason,
        history=tuple(math.hypot(norm, problem.floor) for norm in budget.history),
        steps=budget.used,
        extended=state.extended,
        float64_residual=math.hypot(plain.norm, problem.floor),
        margin=margin(problem),
    )


def _widened(problem: Problem, state: State, goal: float, budget: Budget) -> State:
    """The state with units that sit on their kinks moved off them, where that can be had within the goal."""
    problem.put(state.values)
    best, width, tiny = state, margin(problem), EXTENDED * problem.scale
    for turn in range(WIDENINGS if room(problem) else 0):
        units, moves = narrow(problem)
        if turn == 0 and not bool((moves != 0).any()):
            break
        if state.norm < tiny and not bool((moves != 0).any()):
            again = Budget(min(POLISHED_AGAIN, budget.grams - budget.used), [math.inf])
            state, _ = run(problem, state, again)
            budget.used += again.used
            if state.norm <= goal and (wider := margin(problem)) > width:
                best, width = state, wider
            break
        if budget.spent:
            break
        matrix = problem.gram()
        budget.spend()
        factor = cholesky(matrix, 0.0)
        if factor is None:  # singular: no certificate would come of it
            break
        step = held_step(problem, state.residual, factor, gradients(problem, units), moves)
        state = trial(problem, state, step, 1.0)
    return best


def _outcome(problem: Problem, state: State, goal: float, until: float, end: End) -> tuple[PolishStatus, str]:
    parameters = sum(p.numel() for p in problem.trained.values())
    asked = f"{until:g} times the targets' norm, {goal:.3g}"
    if problem.floor > 0 and state.norm <= goal:
        return (
            PolishStatus.FLOOR,
            f"equal inputs have different targets: no function goes below {problem.floor:.6g}, which is reached",
        )
    if state.norm <= goal:
        return PolishStatus.REACHED, f"the residual is {state.norm:.3g}; asked for was {asked}"
    why = f"the residual is {state.norm:.3g}; asked for was {asked}"
    if problem.floor > 0:
        why += f"; equal inputs have different targets, which keep it above {problem.floor:.6g}"
    if problem.size > parameters:
        why += f"; there are more equations (N = {problem.size}) than trained parameters (P = {parameters}): a wider network has solutions"
    status = PolishStatus.MAX_STEPS if end is End.BUDGET else PolishStatus.STALLED
    return status, f"{why}; {ENDINGS[end]}"


def _check(module: nn.Module, data: Dataset, until: float, max_steps: int) -> None:
    if not isinstance(module, nn.Module) or not isinstance(data, Dataset):
        raise ArgumentError(
            "module, data", f"are {type(module).__name__} and {type(data).__name__}", "pass an nn.Module and a zeroloss.Dataset"
        )
    if isinstance(until, bool) or not isinstance(until, int | float) or not 0 <= until < math.inf:
        raise ArgumentError("until", f"is {until!r}", "pass a finite number of at least 0")
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 0:
        raise ArgumentError("max_steps", f"is {max_steps!r}", "pass a whole number of at least 0")
    if not any(p.requires_grad for p in module.parameters()):
        raise ArgumentError("module", "has no trainable parameter", "set requires_grad=True on the layers to be trained")
    for name, p in module.named_parameters():
        if not p.is_floating_point() or not bool(torch.isfinite(p).all()):
            raise ArgumentError("module", f"has NaN, infinite or complex weights (first: {name})", "pass finite real weights")
    refuse_mixing(module)
    with torch.no_grad():
        outputs = forward(module, data.x[:1])
    if outputs.shape[1] != data.y.shape[1]:
        seen = f"returns {outputs.shape[1]} outputs for targets with {data.y.shape[1]}"
        raise ArgumentError("module", seen, "build it with outputs=data.outputs")

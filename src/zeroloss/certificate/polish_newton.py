r"""Levenberg-Marquardt steps through the Gram, $(G+\lambda I)z=r$, $\theta\leftarrow\theta-J^\top z$, that end as Gauss-Newton's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from zeroloss.certificate.polish_problem import Problem, Values

DAMPING = 1e-4  # at first, of the Gram's mean diagonal entry
LEAST_DAMPING = 1e-15  # below, none
ATTEMPTS = 12  # with more and more damping, before a step is given up
RULE = ((0.8, 0.03), (0.4, 0.25), (0.2, 1.0))  # a step of more than this share of the model's gain: what becomes of the damping
RAISE = 4.0  # where it was less
WORTH = 1e-4  # of the linear model's decrease that a step must deliver
EXTENDED = 1e-11  # of the targets' norm: below, float64's own rounding begins to show in a residual
ENOUGH, LARGE, ENOUGH_IF_LARGE = (
    0.2,
    2000,
    0.5,
)  # what a step may leave of the residual for the next to use the same Gram of that size
UNIT = 2.0**-53  # of the targets' norm: a residual as small as their own rounding
STATIONARY = 1e-15
WINDOW, SLOW = 8, 0.98  # this many Grams that bring no more than this factor are a stall


class End(StrEnum):
    """Why a run of steps has ended."""

    ROUNDING = "ROUNDING"  # no step halves a residual that is at rounding level
    STUCK = "STUCK"  # no step, however short, or only crawling
    FLAT = "FLAT"  # the Gram is zero
    STATIONARY = "STATIONARY"  # the loss's gradient is zero up to rounding
    OVERFLOW = "OVERFLOW"  # the Gram is not finite
    BUDGET = "BUDGET"


@dataclass(frozen=True, eq=False)
class State:
    """Where a polish stands.

    Args:
        values: the trained parameters.
        residual: the weighted residual there.
        norm: its norm.
        extended: whether it was computed in double-double arithmetic.
    """

    values: Values
    residual: Tensor
    norm: float
    extended: bool = False


@dataclass
class Budget:
    """Grams left, and the history of accepted residuals with those who watch it."""

    grams: int
    history: list[float]
    watch: Callable[[int, float], None] | None = None
    used: int = 0

    def spend(self) -> None:
        """One Gram."""
        self.used += 1

    @property
    def spent(self) -> bool:
        """Whether none is left."""
        return self.used >= self.grams

    def accept(self, norm: float) -> None:
        """Show a residual, and record it where it is the lowest so far."""
        if norm < self.history[-1]:
            self.history.append(norm)
        if self.watch is not None:
            self.watch(self.used, norm)


Blocked = Callable[[Problem, State, Values, Tensor], "State | None"]


def state_of(problem: Problem, extended: bool = False) -> State:
    """The state at the module's weights as they are; float64's where no extended residual can be had."""
    values = problem.values()
    residual = problem.residual(extended=True) if extended else None
    found = residual is not None
    if residual is None:
        residual = problem.residual()
    assert residual is not None
    return State(values, residual, float(residual.norm()), found)


def trial(problem: Problem, state: State, change: Values, fraction: float = -1.0) -> State:
    r"""The state after $\theta+t\Delta$; the module is left there."""
    problem.put(state.values, change, fraction)
    return state_of(problem, state.extended)


def run(problem: Problem, state: State, budget: Budget, across: Blocked | None = None) -> tuple[State, End]:
    """Steps until none is worth its cost.

    Args:
        problem: its module is left at the returned state.
        state: where to begin.
        budget: of Grams; its history is added to.
        across: what to try where the whole step is refused, such as a step that minds kinks.

    Returns:
        The last state, and why it is the last.
    """
    tiny = EXTENDED * problem.scale
    if state.norm < tiny and not state.extended:
        state = _extended(problem, state)
    damping, marks = math.nan, [state.norm]
    while not budget.spent:
        problem.put(state.values)
        matrix = problem.gram()
        budget.spend()
        mean = float(matrix.diagonal().mean())
        if not math.isfinite(mean) or mean <= 0:
            return state, End.FLAT if mean == 0 else End.OVERFLOW
        if _stationary(matrix, state.residual):
            return state, End.STATIONARY
        damping = DAMPING * mean if math.isnan(damping) else min(damping, 1e3 * mean)
        before = state.norm
        state, damping, factor = _one(problem, state, matrix, damping, across)
        del matrix
        if factor is None:
            problem.put(state.values)
            return state, End.ROUNDING if state.norm < tiny else End.STUCK
        budget.accept(state.norm)
        if state.norm < tiny and not state.extended:
            state = _extended(problem, state)
        if state.norm < 0.1 * before:
            state = _again(problem, state, factor, budget)
        marks.append(state.norm)
        if state.norm <= UNIT * problem.scale or (state.norm < tiny and state.norm > 0.5 * before):
            return state, End.ROUNDING
        if len(marks) > WINDOW and state.norm > SLOW * marks[-1 - WINDOW]:
            return state, End.STUCK
    return state, End.BUDGET


def _one(
    problem: Problem, state: State, matrix: Tensor, damping: float, across: Blocked | None
) -> tuple[State, float, Tensor | None]:
    """One accepted step, its damping for the next, and its factor; no factor where none was accepted."""
    mean = float(matrix.diagonal().mean())
    for attempt in range(ATTEMPTS):
        damping = 0.0 if damping < LEAST_DAMPING * mean else damping
        factor = cholesky(matrix, damping)
        if factor is None:
            damping = max(8 * damping, 1e-14 * mean)
            continue
        z = _solve(factor, state.residual)
        problem.put(state.values)
        change = problem.pull(z)
        model = damping * float(z.norm())  # of the linear model's residual r - Gz
        after = trial(problem, state, change)
        if across is not None and not worth(state.norm, after.norm, model) and attempt in (0, 4):
            after = across(problem, state, change, factor) or after
        if worth(state.norm, after.norm, model):
            gain = (state.norm**2 - after.norm**2) / max(state.norm**2 - model**2, 1e-300)
            shrink = next((share for least, share in RULE if gain > least), RAISE)
            damping = max(damping * shrink, LEAST_DAMPING * mean) if shrink > 1 else damping * shrink
            if gain > RULE[0][0]:
                damping *= min(1.0, 10 * after.norm / state.norm)
            return after, damping, factor
        if state.norm < EXTENDED * problem.scale and attempt >= 2:
            break
        damping = max(6 * damping, 1e-12 * mean)
    return state, damping, None


def _again(problem: Problem, state: State, factor: Tensor, budget: Budget) -> State:
    """Steps with a Gram that is a little old, while each brings enough: they cost two passes, and no matrix."""
    limit = ENOUGH_IF_LARGE if problem.size >= LARGE else ENOUGH
    while state.norm > 0:
        problem.put(state.values)
        after = trial(problem, state, problem.pull(_solve(factor, state.residual)))
        if not after.norm < state.norm:
            break
        enough = after.norm < limit * state.norm
        state = after
        budget.accept(state.norm)
        if state.norm < EXTENDED * problem.scale and not state.extended:
            state = _extended(problem, state)
        if not enough:
            break
    problem.put(state.values)
    return state


def _extended(problem: Problem, state: State) -> State:
    """The same weights with their residual in double-double arithmetic, where that can be had."""
    problem.put(state.values)
    return state_of(problem, extended=True)


def _stationary(matrix: Tensor, residual: Tensor) -> bool:
    r"""Whether $\|J^\top r\|^2=r^\top Gr$ is zero beside the Gram's trace, up to rounding; that a residual of zero is, does not count."""
    size = float(residual.norm())
    direction = residual / size if size > 0 else residual
    return size > 0 and float(direction @ (matrix @ direction)) <= STATIONARY * float(matrix.diagonal().sum())


def worth(norm: float, after: float, model: float) -> bool:
    """Whether a step delivers a fair share of what the linear model, whose residual would be `model`, promised."""
    return math.isfinite(after) and norm**2 - after**2 > WORTH * (norm**2 - min(model, norm) ** 2) and after < norm


def cholesky(matrix: Tensor, damping: float) -> Tensor | None:
    r"""Lower factor of $G+\lambda I$; None where that is not positive definite to rounding."""
    shifted = matrix.clone()
    shifted.diagonal().add_(damping)
    factor, info = torch.linalg.cholesky_ex(shifted)
    return factor if int(info) == 0 and bool(torch.isfinite(factor.diagonal()).all()) else None


def _solve(factor: Tensor, residual: Tensor) -> Tensor:
    return torch.cholesky_solve(residual[:, None], factor)[:, 0]

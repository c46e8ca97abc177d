"""What happened and why, in plain words with the numbers behind them; every sentence is said only where its number bears it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from zeroloss.training import Probe, Status, Trajectory

if TYPE_CHECKING:
    from zeroloss.study.result import DataSummary, Forecast, NetworkResult
    from zeroloss.study.specification import TrainingSpec

CLOSE = 0.10  # a forecast within this of the truth needs no excuse
STILL = 0.05  # a Gram that moved by less than this share of its norm is said to have hardly moved
SAME = 2.0  # a foretold loss within this factor of the one reached counts as foretold
SINGULAR = 1e-12  # of the largest eigenvalue: below it an eigenvalue is zero to rounding


def explain_network(forecast: Forecast, run: Trajectory, training: TrainingSpec, loss_floor: float) -> str:
    """One paragraph on one run: the outcome, the forecast, the reason for their distance, and what carried the loss down.

    Args:
        forecast: made before the run.
        run: what happened.
        training: the target and the budget.
        loss_floor: the loss that conflicting targets make unreachable.

    Returns:
        A few sentences.
    """
    parts = [_outcome(forecast, run, training, loss_floor)]
    if run.status is Status.CONVERGED and forecast.steps:
        parts.append(_miss(forecast.steps, run))
    if run.status is not Status.DIVERGED and len(run.probes) > 1:
        parts.append(_mechanism(run.probes))
    return " ".join(part for part in parts if part)


def explain_study(data: DataSummary, networks: tuple[NetworkResult, ...]) -> str:
    """One paragraph on the whole study.

    Args:
        data: the rows.
        networks: the results.

    Returns:
        A few sentences.
    """
    reached = [n for n in networks if n.status == "CONVERGED"]
    sizes = f"{count(data.features, 'feature')}, nearest two rows {number(data.separation)} apart"
    start = f"On {count(data.n, 'row')} of {data.name} ({sizes})"
    if len(reached) == len(networks):
        who = "the network" if len(networks) == 1 else f"all {len(networks)} networks"
        parts = [f"{start}, gradient descent drove {who} to the target loss."]
    elif reached:
        parts = [f"{start}, gradient descent drove {len(reached)} of {len(networks)} networks to the target loss."]
    else:
        parts = [f"{start}, no network reached the target loss."]
    for n in networks:
        if n.status == "DIVERGED":
            parts.append(f"{n.spec.name} diverged at step {n.steps:,}.")
        elif n.status == "MAX_STEPS":
            told = "as foretold" if foretold(n.forecast, n.loss_ratio) else f"where {number(n.forecast.loss_ratio)} was foretold"
            parts.append(f"{n.spec.name} used up its budget at {number(n.loss_ratio)} of its first loss, {told}.")
    if data.conflicts:
        verb = "carries" if len(data.conflicts) == 1 else "carry"
        parts.append(
            f"{count(len(data.conflicts), 'group')} of identical inputs (as normalised) {verb} different targets, so no network can get "
            f"below a loss of {number(data.loss_floor)}."
        )
    if reached:
        parts.append(_why(reached))
        slow = max(reached, key=lambda n: n.steps)
        spread = f"lambda_max/lambda_min = {number(slow.forecast.condition)}"
        if math.isinf(slow.forecast.condition):
            spread = "a G that is singular to rounding"
        parts.append(
            f"How fast is set by the spread of G's eigenvalues: the slowest of them, {slow.spec.name}, took {count(slow.steps, 'step')} "
            f"with {spread}."
        )
    return " ".join(parts)


def foretold(forecast: Forecast, ratio: float) -> bool:
    """Whether a run that used up its budget ended near the loss that was foretold for it.

    Args:
        forecast: made before the run.
        ratio: final loss over first.

    Returns:
        True where the two differ by less than a factor 2.
    """
    return ratio > 0 and forecast.loss_ratio > 0 and abs(math.log(ratio / forecast.loss_ratio)) <= math.log(SAME)


def count(many: int, what: str) -> str:
    """A number of things, in the singular for one.

    Example:
        >>> count(1, "row"), count(2, "row")
        ('1 row', '2 rows')
    """
    return f"{many:,} {what}{'' if many == 1 else 's'}"


def number(value: float) -> str:
    """Three digits."""
    return f"{value:.3g}"


def _why(reached: list[NetworkResult]) -> str:
    """What the theory says of the runs that converged: only as much as the probes show."""
    probed = [n for n in reached if n.probes]
    kept = [n for n in probed if all(p.smallest > SINGULAR * p.largest for p in n.probes)]
    still = [n for n in kept if max(p.gram_drift for p in n.probes) <= STILL]
    argument = (
        "while the smallest eigenvalue of the Gram matrix G of the outputs' gradients stays positive, ||grad F||^2 >= 2 lambda_min(G) F, "
        "so no step can meet a flat place before the loss is zero."
    )
    if probed and len(still) == len(probed):
        return f"It works because of two things seen in every run: G keeps all its eigenvalues positive and hardly moves; and {argument}"
    if probed and len(kept) == len(probed):
        most = max(p.gram_drift for n in kept for p in n.probes)
        return (
            f"The smallest eigenvalue of G was positive at every probe, which is what carries the loss down: {argument} But G moved by up "
            f"to {100 * most:.0f} % of its norm, so these runs are not those of a fixed kernel."
        )
    return (
        "G was singular to rounding at some probe (identical or parallel rows do that), so the usual argument, a smallest eigenvalue above "
        "zero, does not cover every run; the loss fell because the residual has no part along the singular directions, or because G moved."
    )


def _outcome(forecast: Forecast, run: Trajectory, training: TrainingSpec, loss_floor: float) -> str:
    told = (
        f"the initial Gram foretold {forecast.steps:,}"
        if forecast.steps is not None
        else (
            f"the initial Gram foretold that the target is {'not reached within the budget' if forecast.bounded else 'never reached'}"
        )
    )
    if run.status is Status.CONVERGED and training.stop_when_fitted and run.fitted == run.taken:
        left = number(float(run.loss[-1] / run.loss[0]))
        return f"Every row was classified right at step {run.taken:,}, with the loss at {left} of its start; {told}."
    if run.status is Status.CONVERGED:
        return f"The loss fell to {number(training.until)} of its start in {count(run.taken, 'step')}; {told}."
    start = float(run.loss[0])
    ratio = float(run.loss[-1]) / start if start > 0 else math.nan
    largest = run.probes[0].largest if run.probes else math.nan
    share = run.step_size * largest / 2
    if run.status is Status.DIVERGED:
        return (
            f"The run diverged at step {run.taken:,}: the step {number(run.step_size)} is {number(share)} times the stable limit "
            f"2/lambda_max of the initial Gram."
        )
    if run.taken < training.max_steps:
        return f"The gradient is exactly zero at step {run.taken:,}, at {number(ratio)} of the first loss: no later step would differ."
    text = f"The budget of {count(run.taken, 'step')} ended at {number(ratio)} of the first loss"
    close = "as foretold" if foretold(forecast, ratio) else f"where {number(forecast.loss_ratio)} was foretold"
    text = f"{text}, {close}; {told}{' steps to the target' if forecast.steps is not None else ''}."
    return f"{text} {_remedy(forecast, run, share, loss_floor)}"


def _remedy(forecast: Forecast, run: Trajectory, share: float, loss_floor: float) -> str:
    """What would help, by what stood in the way."""
    if loss_floor > 0:
        return (
            f"Conflicting targets keep the loss above {number(loss_floor)}: only other targets, or inputs that tell these rows apart, "
            f"can help."
        )
    if share < 0.1:
        return f"The step is {number(share)} of the stable limit 2/lambda_max: a larger one (step='auto') is what would help."
    if math.isinf(forecast.condition):
        return (
            "The initial Gram is singular to rounding (identical or parallel rows do that): merging such rows, or a larger max_steps, "
            "would help."
        )
    if forecast.condition > 1e3:
        return (
            f"What makes it slow is lambda_max/lambda_min = {number(forecast.condition)}: better conditioned rows (normalise), another "
            f"activation or a larger max_steps would help, in this order."
        )
    return "A larger max_steps would help." if run.taken > 0 else ""


def _miss(told: int, run: Trajectory) -> str:
    """Why the forecast was off, from forecasts made again at later probes."""
    miss = run.taken / told - 1
    more = f"{100 * abs(miss):.{1 if abs(miss) <= CLOSE else 0}f} % {'more' if miss > 0 else 'fewer'} steps than foretold"
    if abs(miss) <= CLOSE or len(run.probes) < 2:
        return f"That is {more}."
    drift = max(p.gram_drift for p in run.probes)
    first = run.probes[0]
    text = f"That is {more}, because the Gram moved: by {100 * drift:.1f} % of its norm"
    if first.smallest > SINGULAR * first.largest:
        text += f", which is {drift * first.largest / first.smallest:.1f} times its smallest eigenvalue"
    settled = next((p for p in run.probes if p.forecast is not None and abs(run.taken / max(p.forecast, 1) - 1) <= CLOSE), None)
    if settled is None or settled.forecast is None or not 0 < settled.step < run.taken:
        return f"{text}."
    return f"{text}. The same forecast made again with the Gram and the residual of step {settled.step:,} says {settled.forecast:,} steps."


def _mechanism(probes: tuple[Probe, ...]) -> str:
    first, low = probes[0], min(p.smallest for p in probes)
    moved = max(max(p.weight_drift.values(), default=0.0) for p in probes)
    changed = max(p.sign_changes for p in probes)
    tail = (
        f"no weight matrix was seen further than {number(moved)} from its start in spectral norm, and at most {100 * changed:.1f} % of "
        f"the hidden units' signs differed from it."
    )
    if low <= SINGULAR * first.largest:
        return (
            f"The Gram was singular to rounding (smallest eigenvalue {number(low)}), so its theory promises nothing here; {tail}"
        )
    share = 100 * low / first.smallest
    return f"Along the run lambda_min(G(k)) kept at least {share:.0f} % of its first value {number(first.smallest)}; {tail}"

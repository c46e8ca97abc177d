"""What happened and why, in plain words with the numbers behind them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from zeroloss.training import Probe, Status, Trajectory

if TYPE_CHECKING:
    from zeroloss.study.result import DataSummary, Forecast, NetworkResult
    from zeroloss.study.specification import TrainingSpec

CLOSE = 0.10  # a forecast within this of the truth needs no excuse


def explain_network(forecast: Forecast, run: Trajectory, training: TrainingSpec) -> str:
    """One paragraph on one run: the outcome, the forecast, the reason for their distance, and what carried the loss down.

    Args:
        forecast: made before the run.
        run: what happened.
        training: the target and the budget.

    Returns:
        A few sentences.
    """
    parts = [_outcome(forecast, run, training)]
    if run.status is Status.CONVERGED and forecast.steps:
        parts.append(_miss(forecast.steps, run))
    if run.probes:
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
    missed = [n for n in networks if n.status != "CONVERGED"]
    parts = []
    start = f"On {data.n} rows of {data.name} ({data.features} features, nearest two rows {_number(data.separation)} apart)"
    if len(reached) == len(networks):
        who = "the network" if len(networks) == 1 else f"all {len(networks)} networks"
        parts.append(f"{start}, gradient descent drove {who} to the target loss.")
    elif reached:
        parts.append(f"{start}, gradient descent drove {len(reached)} of {len(networks)} networks to the target loss.")
    else:
        parts.append(f"{start}, no network reached the target loss.")
    for n in missed:
        told = "as forecast" if not n.forecast.within_budget else "against the forecast"
        parts.append(f"{n.spec.name} ended with {n.status} at {_number(n.loss_ratio)} of its first loss, {told}.")
    if data.conflicts:
        parts.append(
            f"{len(data.conflicts)} groups of identical rows carry different targets, so no network can get below a loss of "
            f"{_number(data.loss_floor)}."
        )
    if reached:
        parts.append(
            "It works because the Gram matrix G of the outputs' gradients has no zero eigenvalue on these rows, and training hardly "
            "moves it: while its smallest eigenvalue stays positive, ||grad F||^2 >= 2 lambda_min(G) F, so no step can meet a flat "
            "place before the loss is zero."
        )
        slow = max(reached, key=lambda n: n.forecast.condition)
        parts.append(
            f"How fast is set by the spread of G's eigenvalues: the slowest network here has lambda_max/lambda_min = "
            f"{_number(slow.forecast.condition)} and took {slow.steps:,} steps."
        )
    return " ".join(parts)


def _outcome(forecast: Forecast, run: Trajectory, training: TrainingSpec) -> str:
    told = "never" if forecast.steps is None else f"after {forecast.steps:,} steps"
    if run.status is Status.CONVERGED:
        return f"The loss fell to {_number(training.until)} of its start in {run.taken:,} steps; the initial Gram foretold it {told}."
    start = float(run.loss[0])
    ratio = float(run.loss[-1]) / start if start > 0 else math.nan
    if run.status is Status.MAX_STEPS:
        text = f"The budget of {run.taken:,} steps ended at {_number(ratio)} of the first loss"
        if forecast.within_budget:
            return f"{text}, although the initial Gram foretold the target {told}."
        return (
            f"{text}, as foretold: the initial Gram reaches the target {told} (lambda_max/lambda_min = {_number(forecast.condition)}), "
            f"and {_number(forecast.loss_ratio)} within the budget. Better conditioned rows (normalise), another activation or "
            f"a larger max_steps would help, in this order."
        )
    largest = run.probes[0].largest if run.probes else math.nan
    return (
        f"The run diverged at step {run.taken:,}: the step {_number(run.step_size)} is {_number(run.step_size * largest / 2)} times "
        f"the stable limit 2/lambda_max of the initial Gram."
    )


def _miss(told: int, run: Trajectory) -> str:
    """Why the forecast was off, from forecasts made again at later probes."""
    miss = run.taken / told - 1
    if abs(miss) <= CLOSE:
        return f"That is {100 * abs(miss):.1f} % {'more' if miss > 0 else 'fewer'} than foretold."
    text = f"That is {100 * abs(miss):.0f} % {'more' if miss > 0 else 'fewer'} than foretold, because the Gram moved"
    if len(run.probes) < 2:
        return text + "."
    drift = max(p.gram_drift for p in run.probes)
    first = run.probes[0]
    text += f": by {100 * drift:.1f} % of its norm, which is {drift * first.largest / first.smallest:.1f} times its smallest eigenvalue."
    settled = next((p for p in run.probes if p.forecast is not None and abs(run.taken / max(p.forecast, 1) - 1) <= CLOSE), None)
    if settled is None or settled.step == 0:
        return text
    return f"{text} The same forecast made again with the Gram and residual of step {settled.step:,} says {settled.forecast:,} steps."


def _mechanism(probes: tuple[Probe, ...]) -> str:
    first, last = probes[0], probes[-1]
    low = min(p.smallest for p in probes)
    if first.smallest <= 0 or low <= 0:
        return f"The Gram's smallest eigenvalue fell to {_number(low)}, so its theory promises nothing here."
    moved = max(last.weight_drift.values(), default=0.0)
    return (
        f"Along the run lambda_min(G(k)) kept at least {100 * low / first.smallest:.0f} % of its first value {_number(first.smallest)}; "
        f"no weight matrix moved further than {_number(moved)} in spectral norm, and {100 * last.sign_changes:.1f} % of the "
        f"hidden units' signs changed."
    )


def _number(value: float) -> str:
    return f"{value:.3g}"

"""Linear convergence as a rule: no stretch of a run is slower than a fixed rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from zeroloss.claims.evidence import Run
from zeroloss.claims.verdict import Judgement


@dataclass(frozen=True)
class Rate:
    r"""What a run says about linear convergence.

    Args:
        status: the answer.
        slowest: the slowest tenth's rate over $\eta\lambda$; None where nothing could be measured.
        reason: one sentence.
    """

    status: Judgement
    slowest: float | None
    reason: str


def judge_rate(run: Run) -> Rate:
    r"""Whether in each tenth of a run $F$ falls at least like $e^{-\eta\lambda k}$, $\lambda$ the smallest eigenvalue of any probed Gram.

    For a Gram that stands still the rate is at least $-2\log\max_i|1-\eta\lambda_i|$, so half of it is asked for: $\eta\lambda$ up to
    $\eta=1/\lambda_{\max}$, and $-\log|1-\eta\lambda_{\max}|$ where that is smaller. A loss that falls like a power of
    k has a rate that tends to 0 and is rejected. Only the first ten decades count: below lies the rounding of float32.

    Args:
        run: the run, with at least one probe.

    Returns:
        The answer; NOT_APPLICABLE where inputs repeat, the step is beyond $2/\lambda_{\max}$ or $\lambda$ is 0, and INCONCLUSIVE
        for a run of fewer than 20 steps.
    """
    loss = run.loss.numpy()
    lam = min((p.smallest for p in run.probes), default=math.nan)
    largest = max((p.largest for p in run.probes), default=math.nan)
    missing = ""
    if run.method:
        missing = f"the statement is about gradient descent on the squared loss, and this run has {run.method}"
    elif run.separation <= 0:
        missing = "two inputs are equal, which the theorem excludes"
    elif not run.stable:
        missing = "the step is beyond 2/lambda_max of the initial Gram, which the theorem excludes"
    elif not run.step_size * largest < 2:
        missing = "the step is beyond 2/lambda_max of a probed Gram, where the linear model no longer contracts"
    elif not lam > 1e-12 * largest:
        missing = f"the smallest eigenvalue of the probed Grams, {lam:.3g}, gives no rate"
    if missing:
        return Rate(Judgement.NOT_APPLICABLE, None, missing)
    if not np.isfinite(loss).all():
        return Rate(Judgement.VIOLATED, math.inf, "the loss stopped being finite")
    end = int(np.argmax(loss <= 1e-10 * loss[0])) if loss.min() <= 1e-10 * loss[0] else len(loss) - 1
    if end < 20 or loss[0] <= 0:
        return Rate(Judgement.INCONCLUSIVE, None, f"only {end} steps; 20 are needed")
    cuts = np.linspace(0, end, 11).round().astype(int)
    rates = -np.diff(np.log(np.maximum(loss[cuts], 1e-300))) / np.diff(cuts)
    # beyond 1/lambda_max the top direction swings, and may be the slowest
    asked = min(run.step_size * lam, -math.log(max(abs(1 - run.step_size * largest), 1e-300)))
    slowest = float(rates.min()) / asked
    status = Judgement.HOLDS if slowest >= 1 else Judgement.VIOLATED
    share = f"{slowest:.2f} times what eta and the spectrum ask"
    reason = f"the loss falls by a factor e^-{rates.min():.3g} a step or more in every tenth of the run, {share}"
    return Rate(status, slowest, reason)

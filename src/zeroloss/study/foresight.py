"""What theory says of a run before it is made: the same run with the initial Gram held still."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from zeroloss.study.result import Forecast
from zeroloss.study.specification import TrainingSpec
from zeroloss.training import forecast_descent, linearise
from zeroloss.typing import Targets


@dataclass(frozen=True, eq=False)
class Foresight:
    """A forecast, with its whole curve.

    Args:
        forecast: steps and loss.
        losses: from steps to the losses foretold there; NaN beyond where the forecast ended.
    """

    forecast: Forecast
    losses: Callable[[Tensor], Tensor]


def foresee(gram: Float[Tensor, "K K"], outputs: Targets, targets: Targets, eta: float, training: TrainingSpec) -> Foresight:
    r"""Foretell a run from the initial Gram.

    Full-batch descent on the squared loss has a closed form in the Gram's eigenbasis, at any number of steps; every other run is made
    in the space of outputs, up to its budget (:func:`zeroloss.training.forecast_descent`).

    Args:
        gram: G(0), (nk)×(nk), or n×n applied to every output alike.
        outputs: $f_0$, n×k.
        targets: y, n×k.
        eta: the step size.
        training: the rest of the run.

    Returns:
        The forecast.

    Example:
        >>> one = torch.ones(1, 1, dtype=torch.float64)
        >>> foresee(one, 0 * one, one, 0.5, TrainingSpec(until=1e-6)).forecast.steps
        10
    """
    linearised = linearise(gram, outputs - targets)
    largest, smallest = float(linearised.eigenvalues[-1]), float(linearised.eigenvalues[0])
    condition = largest / smallest if smallest > 0 else math.inf
    plain = training.loss == "squared" and not training.momentum and not training.schedule and not training.stop_when_fitted
    if plain and training.batch in (None, len(targets)) and not training.replacement:
        steps = linearised.steps_to(eta, training.until)
        horizon = training.max_steps if steps is None else min(steps, training.max_steps)
        ratio = float(linearised.norms(eta, [horizon])[0]) ** 2 / max(float(linearised.weights.sum()), 1e-300)
        known = Forecast(steps, steps is not None and steps <= training.max_steps, ratio, condition)
        return Foresight(known, lambda at: 0.5 * linearised.norms(eta, at) ** 2)
    run = forecast_descent(
        gram,
        outputs,
        targets,
        eta,
        loss=training.loss,
        batch=training.batch,
        replacement=training.replacement,
        momentum=training.momentum,
        schedule=training.schedule,
        max_steps=training.max_steps,
        until=training.until,
        seed=training.seed,
        stop_when_fitted=training.stop_when_fitted,
    )
    reached = run.status == "CONVERGED"
    ratio = float(run.loss[-1] / run.loss[0]) if float(run.loss[0]) > 0 else 0.0
    at_step = dict(zip(run.steps.tolist(), run.loss.tolist(), strict=True))

    def losses(steps: Tensor) -> Tensor:
        return torch.tensor([at_step.get(k, math.nan) for k in torch.as_tensor(steps).tolist()], dtype=torch.float64)

    return Foresight(Forecast(run.taken if reached else None, reached, ratio, condition, bounded=True), losses)

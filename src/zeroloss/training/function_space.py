r"""The forecast for any loss and sampling: the run itself, in the space of outputs, with the Gram held still."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from zeroloss.errors import ArgumentError
from zeroloss.spectrum.extremes import symmetric
from zeroloss.training.batches import make_batches
from zeroloss.training.losses import Loss, find_loss
from zeroloss.training.record import Goal, Record
from zeroloss.training.schedule import check_momentum, check_schedule, factor_at
from zeroloss.training.trajectory import Trajectory
from zeroloss.typing import Targets


def forecast_descent(
    kernel: Float[Tensor, "K K"],
    outputs: Targets,
    targets: Targets,
    step: float,
    *,
    loss: str | Loss = "squared",
    batch: int | None = None,
    replacement: bool = False,
    momentum: float = 0.0,
    schedule: Iterable[Any] = (),
    max_steps: int = 10_000,
    until: float = 1e-8,
    seed: int = 0,
    stop_when_fitted: bool = False,
) -> Trajectory:
    r"""The run that :func:`zeroloss.descend` would make if the Gram did not move.

    $f_{k+1}=f_k+u_{k+1}$, $u_{k+1}=\mu u_k-\eta_k\frac{n}{|B|}G_{\cdot B}\nabla f(f_{k,B})$, over the very batches of the run.

    Exact for a module that is linear in its parameters; for the squared loss and full batches it is the iteration of
    :func:`zeroloss.predict_descent`.

    Args:
        kernel: G: finite Gram or limit kernel, symmetric; n×n, applied to every output alike, or (nk)×(nk), sample-major.
        outputs: $f_0$, n×k.
        targets: y, n×k.
        step: $\eta>0$.
        loss: as for ``descend``, like all that follow.
        batch: b.
        replacement: whether rows are drawn with replacement.
        momentum: $\mu$.
        schedule: pairs (first step, factor).
        max_steps: the budget.
        until: the target relative to the first loss.
        seed: of the order.
        stop_when_fitted: whether 100 % accuracy ends the run.

    Returns:
        A trajectory without probes; where its status is CONVERGED, ``taken`` is the forecast number of steps.

    Raises:
        ArgumentError: for shapes that do not fit and arguments out of range.

    Example:
        >>> one = torch.ones(1, 1, dtype=torch.float64)
        >>> forecast_descent(one, 0 * one, one, 0.5, max_steps=3, until=0.0).loss
        tensor([0.5000, 0.1250, 0.0312, 0.0078], dtype=torch.float64)
    """
    if isinstance(step, bool) or not isinstance(step, int | float) or not (math.isfinite(step) and step > 0):
        raise ArgumentError("step", f"is {step!r}", "pass a positive number")
    check_momentum(momentum)
    schedule = check_schedule(schedule)
    loss = find_loss(loss)
    matrix = torch.from_numpy(symmetric(kernel))
    values, y = (t.detach().to(device="cpu", dtype=torch.float64).contiguous() for t in (outputs, targets))
    n, k, size = *values.shape, len(matrix)
    if y.shape != values.shape or size not in (n, n * k):
        raise ArgumentError(
            "kernel, outputs, targets",
            f"have shapes {tuple(kernel.shape)}, {tuple(outputs.shape)} and {tuple(targets.shape)}",
            "pass outputs and targets n×k with a kernel n×n or (nk)×(nk)",
        )
    batches = make_batches(n, batch, replacement, seed)
    record = Record(loss, y, Goal(max_steps, until, stop_when_fitted), batches.epoch)
    # rows of the kernel by sample; the outputs as the columns that one kernel acts on alike
    by_sample, state = matrix.reshape(n, size // n, size), values.clone()
    columns, velocity = state.view(size, -1), torch.zeros(size, n * k // size, dtype=torch.float64)
    number = 0
    while True:
        if record.due(number):
            status = record.add(number, state)
            if status is not None:
                return record.trajectory(status, float(step))
        rows = batches.rows(number)
        chosen, aim, wanted = matrix, state, y
        if rows is not None:  # index_select takes half the time of [rows], which matters where a batch is one row
            chosen, aim, wanted = (
                by_sample.index_select(0, rows).view(-1, size),
                state.index_select(0, rows),
                y.index_select(0, rows),
            )
        derivative = loss.gradient(aim, wanted).reshape(chosen.shape[0], -1)
        scale = -step * factor_at(schedule, number) * n / aim.shape[0]
        if momentum:
            columns += velocity.addmm_(chosen.T, derivative, beta=momentum, alpha=scale)
        else:
            columns.addmm_(chosen.T, derivative, alpha=scale)
        number += 1

r"""Gradient descent, full-batch or stochastic, on the papers' objective $F=\sum_iF_i$: a sum, not a mean (AZ section 2)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zeroloss.data import Dataset
from zeroloss.errors import ArgumentError, FileError
from zeroloss.gram import forward, match
from zeroloss.training.batches import make_batches
from zeroloss.training.checkpoint import Checkpoint, fingerprint, read_checkpoint, write_checkpoint
from zeroloss.training.losses import Loss, find_loss
from zeroloss.training.probes import FULL_GRAM, Prober
from zeroloss.training.rayleigh import Tracker
from zeroloss.training.record import Goal, Record
from zeroloss.training.schedule import check_momentum, check_schedule, factor_at
from zeroloss.training.steps import check_step, step_size
from zeroloss.training.trajectory import Probe, Status, Trajectory
from zeroloss.training.weights import Weights

CHECKPOINT_SECONDS = 5.0


def descend(
    module: nn.Module,
    data: Dataset,
    *,
    loss: str | Loss = "squared",
    step: str | float = "auto",
    batch: int | None = None,
    replacement: bool = False,
    momentum: float = 0.0,
    schedule: Iterable[Any] = (),
    max_steps: int = 10_000,
    until: float = 1e-8,
    stop_when_fitted: bool = False,
    seed: int = 0,
    probes: Iterable[int] = (),
    track: bool = False,
    checkpoint: str | Path | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Trajectory:
    r"""Train a module in place: $\theta_{k+1}=\theta_k-\eta_k\hat g_k+\mu(\theta_k-\theta_{k-1})$, by default full-batch gradient descent.

    $\hat g_k=\frac{n}{|B_k|}\sum_{i\in B_k}\nabla F_i$ over the batches of :class:`zeroloss.training.Batches` (AZ Theorem 2).

    Args:
        module: trained in place, in its own dtype and on its own device; frozen parameters stay.
        data: inputs and targets.
        loss: a name in :data:`zeroloss.training.LOSSES` (``"squared"``, the papers' $\tfrac12\sum\|f-y\|^2$, ``"cross_entropy"``,
            ``"logistic"``, ...) or a :class:`zeroloss.training.Loss`.
        step: $\eta$: ``"auto"``, one over smoothness and expected smoothness (:func:`zeroloss.training.step_size`; $1/\lambda_{\max}(G(0))$
            for full batches and the squared loss), ``"theory"`` for the theorem's, or a number.
        batch: b in 1..n; None is all rows, as is n without replacement, to the bit.
        replacement: whether rows are drawn with replacement; else every epoch runs through a fresh permutation.
        momentum: $\mu$ in [0, 1), heavy ball.
        schedule: pairs (first step, factor): from that step on $\eta_k$ is factor times $\eta$.
        max_steps: the budget.
        until: the run has converged once the loss is at most this times its first value; 0 runs to the budget.
        stop_when_fitted: whether the first recorded step with 100 % accuracy is the end, as CONVERGED, too.
        seed: of the batches' order, which is a function of it and of the epoch; full-batch descent draws nothing.
        probes: the steps at which to measure :class:`Probe`; with any, the last step is measured too.
        track: whether to follow both ends of the Gram's spectrum at every recorded step, as ``Trajectory.tracked``: the Rayleigh quotients
            of the eigenvectors found at the last probe, one backward pass each (:mod:`zeroloss.training.rayleigh`). Step 0 is probed
            then, too, and the vectors are those of the probe before where a probe is only due to the end of the run.
        checkpoint: a ``.safetensors`` file to resume from and to keep up to date; the resumed run repeats the
            uninterrupted one to the bit on the same machine.
        progress: called with the step and the last recorded loss, every few steps.

    Returns:
        The trajectory; full batches record the loss of every step, mini-batches the loss of all rows once an epoch and at the end.
        Whether the run has ended is asked at recorded steps.

    Raises:
        ArgumentError: for arguments out of range, targets that the loss does not cover, or a module that does not fit the data.
        FileError: for a checkpoint of another run.

    Example:
        >>> from zeroloss.networks import fully_connected
        >>> data = Dataset([[1.0, 0.0], [0.0, 1.0]], [1.0, -1.0])
        >>> run = descend(fully_connected(2, 64, 1), data)
        >>> run.status, bool(run.loss[-1] <= 1e-8 * run.loss[0])
        (<Status.CONVERGED: 'CONVERGED'>, True)
        >>> descend(fully_connected(2, 64, 1), data, loss="logistic", batch=1, stop_when_fitted=True).accuracy[-1]
        tensor(1., dtype=torch.float64)
    """
    chosen, goal, asked = find_loss(loss), Goal(max_steps, until, stop_when_fitted), _asked(probes)
    check_step(step)
    check_momentum(momentum)
    schedule = check_schedule(schedule)
    check_module(module, data)
    batches = make_batches(data.n, batch, replacement, seed)
    x, y = match(module, data.x), match(module, data.y)
    record = Record(chosen, y, goal, batches.epoch)
    _check_track(track, data)
    asked = asked | {0} if track else asked
    weights = Weights(module, x, momentum)
    tracker = Tracker(weights) if track else None
    path, mark, found = None if checkpoint is None else Path(checkpoint), "", None
    if path is not None:
        rule = step if isinstance(step, str) else f"{step:.6g}"  # not all its digits: with other threads the last ones may differ
        drawn = None if batches.whole else batches
        mark = fingerprint(
            module,
            data,
            f"{module!r} {chosen.name} {rule} {drawn} {momentum!r} {schedule!r} {until!r} {stop_when_fitted} {sorted(asked)}"
            + (" tracked" if track else ""),
        )
        found = read_checkpoint(path, mark)
    taken: tuple[Probe, ...] = ()
    seconds, k = 0.0, 0
    if found is not None:
        k, taken, seconds = found.step, found.probes, found.seconds
        record.resume(found.steps, found.loss, found.accuracy)
        if (
            found.steps[-1:] == [k] and record.due(k) and (status := record.status) is not None
        ):  # ended, and the budget is not larger now
            _restore(weights, tracker, found, path)
            return _result(record, tracker, status, found.step_size, taken, seconds)
        record.forget(k)
        taken = tuple(p for p in taken if p.step < k)
    eta = step_size(step, module, data, loss=chosen, batches=batches, momentum=momentum) if found is None else found.step_size
    plain = chosen.name == "squared" and batches.whole and not momentum and not schedule
    prober = Prober(module, data, chosen, eta, until, forecasts=plain) if asked else None
    if found is not None:
        _restore(weights, tracker, found, path)
        if tracker is not None:
            tracker.forget(k)

    clock = saved = time.perf_counter()
    while True:
        rows, status = batches.rows(k), None
        if record.due(k):
            with torch.set_grad_enabled(rows is None or track):
                done = weights.forward(x)
            status = record.add(k, done.outputs.detach())
            if status is None and record.still and rows is None:  # of mini-batches some may still move
                again = weights.forward(x)
                if weights.at_rest(again, chosen.gradient(again.outputs.detach(), y)):
                    status = Status.MAX_STEPS
        pause, probed = time.perf_counter(), False
        if prober is not None and status is not Status.DIVERGED and (k in asked or status is not None):
            taken, probed = (*taken, prober.measure(module, k)), True
        if tracker is not None and prober is not None and record.due(k) and status is not Status.DIVERGED:
            tracker.add(k, done, prober.ends if probed else None, keep=k in asked)
        clock += time.perf_counter() - pause
        if status is not None:
            break
        wanted = y
        if rows is not None:
            done, wanted = weights.forward(x[rows]), y[rows]
        eta_k = eta * factor_at(schedule, k) * (data.n / len(wanted))
        weights.step(done, chosen.gradient(done.outputs.detach(), wanted), eta_k)
        k += 1
        now = time.perf_counter()
        if progress is not None and k % 16 == 0:
            progress(k, record.losses[-1])
        if path is not None and now - saved > CHECKPOINT_SECONDS:
            write_checkpoint(path, _checkpoint(k, eta, record, taken, seconds + now - clock, "", weights, tracker), mark)
            saved = time.perf_counter()
            clock += saved - now
    seconds += time.perf_counter() - clock
    if path is not None:
        write_checkpoint(path, _checkpoint(k, eta, record, taken, seconds, status, weights, tracker), mark)
    if progress is not None:
        progress(k, record.losses[-1])
    return _result(record, tracker, status, eta, taken, seconds)


def powers_of_four(limit: int) -> tuple[int, ...]:
    """0, 1, 4, 16, ... up to a limit: probes at these steps and at the last cost a few per cent of a run of any length.

    Example:
        >>> powers_of_four(100)
        (0, 1, 4, 16, 64)
    """
    return (0, *(4**i for i in range(max(limit, 0).bit_length()) if 4**i <= limit))


def _asked(probes: Iterable[int]) -> frozenset[int]:
    steps = list(probes) if isinstance(probes, Iterable) else [probes]
    if bad := [k for k in steps if isinstance(k, bool) or not isinstance(k, int) or k < 0]:
        raise ArgumentError("probes", f"contains {bad[0]!r}", "pass the steps, whole numbers of at least 0")
    return frozenset(steps)


def _checkpoint(
    k: int,
    eta: float,
    record: Record,
    probes: tuple[Probe, ...],
    seconds: float,
    status: str,
    weights: Weights,
    tracker: Tracker | None,
) -> Checkpoint:
    tracked = {} if tracker is None else tracker.state
    return Checkpoint(k, eta, record.steps, record.losses, record.accuracies, probes, seconds, status, weights.state, tracked)


def _result(
    record: Record, tracker: Tracker | None, status: Status, eta: float, probes: tuple[Probe, ...], seconds: float
) -> Trajectory:
    return replace(record.trajectory(status, eta, probes, seconds), tracked=None if tracker is None else tracker.tracked)


def _check_track(track: bool, data: Dataset) -> None:
    if track and data.n * data.outputs > FULL_GRAM:
        raise ArgumentError(
            "track", f"is True for {data.n * data.outputs} outputs over all rows", f"track at most {FULL_GRAM}, with fewer rows"
        )


def _restore(weights: Weights, tracker: Tracker | None, found: Checkpoint, path: Path | None) -> None:
    try:
        weights.restore(found.weights)
        if tracker is not None:
            tracker.restore(found.tracked)
    except ValueError as error:
        raise FileError(path or "", f"is damaged ({error})", "delete it to train from the start") from error


def check_module(module: nn.Module, data: Dataset) -> None:
    """Refuse what is no module and data set, a module without trainable parameters, and outputs that do not fit the targets.

    Raises:
        ArgumentError: saying which.
    """
    if not isinstance(module, nn.Module) or not isinstance(data, Dataset):
        raise ArgumentError(
            "module, data", f"are {type(module).__name__} and {type(data).__name__}", "pass an nn.Module and a zeroloss.Dataset"
        )
    if not any(p.requires_grad for p in module.parameters()):
        raise ArgumentError("module", "has no trainable parameter", "set requires_grad=True on the layers to be trained")
    with torch.no_grad():
        outputs = forward(module, data.x)
    if outputs.shape != data.y.shape:
        raise ArgumentError(
            "module",
            f"returns {outputs.shape[1]} outputs for targets with {data.y.shape[1]}",
            "build it with outputs=data.outputs",
        )

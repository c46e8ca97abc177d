r"""Gradient descent on the papers' loss, $F(\theta)=\tfrac12\sum_i\|f_\theta(x_i)-y_i\|^2$: a sum, not a mean (AZ section 2)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from zeroloss.data import Dataset
from zeroloss.errors import ArgumentError, unknown_name
from zeroloss.gram import forward, match, rows_of
from zeroloss.training.checkpoint import Checkpoint, fingerprint, read_checkpoint, write_checkpoint
from zeroloss.training.probes import Prober
from zeroloss.training.steps import check_budget, step_size
from zeroloss.training.trajectory import Probe, Status, Trajectory
from zeroloss.training.weights import Weights

LOSSES = ("squared",)
BLOW_UP = 1e6  # a loss this many times its start is called divergence; catapults stay far below
CHECKPOINT_SECONDS = 5.0


def descend(
    module: nn.Module,
    data: Dataset,
    *,
    loss: str = "squared",
    step: str | float = "auto",
    batch: int | None = None,
    max_steps: int = 10_000,
    until: float = 1e-8,
    seed: int = 0,  # noqa: ARG001 (full-batch descent draws nothing)
    probes: Iterable[int] = (),
    checkpoint: str | Path | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Trajectory:
    r"""Train a module in place by full-batch gradient descent, $\theta_{k+1} = \theta_k - \eta\nabla F(\theta_k)$.

    Args:
        module: trained in place, in its own dtype and on its own device; frozen parameters stay.
        data: inputs and targets.
        loss: ``"squared"``, the papers' $\tfrac12\sum\|f-y\|^2$.
        step: $\eta$: ``"auto"`` for $1/\lambda_{\max}(G(0))$, ``"theory"`` for the theorem's, or a number.
        batch: None, the whole data set.
        max_steps: the budget.
        until: the run has converged once the loss is at most this times its first value; 0 runs to the budget.
        seed: kept for stochastic methods; full-batch descent draws nothing.
        probes: the steps at which to measure :class:`Probe`; with any, the last step is measured too.
        checkpoint: a ``.safetensors`` file to resume from and to keep up to date; the resumed run repeats the
            uninterrupted one to the bit on the same machine.
        progress: called with the step and the loss, every few steps.

    Returns:
        The trajectory, with the loss of every step.

    Raises:
        ArgumentError: for arguments out of range or a module that does not fit the data.
        FileError: for a checkpoint of another run.

    Example:
        >>> from zeroloss.networks import fully_connected
        >>> data = Dataset([[1.0, 0.0], [0.0, 1.0]], [1.0, -1.0])
        >>> run = descend(fully_connected(2, 64, 1), data)
        >>> run.status, bool(run.loss[-1] <= 1e-8 * run.loss[0])
        (<Status.CONVERGED: 'CONVERGED'>, True)
    """
    _check(loss, batch, max_steps, until)
    if not isinstance(module, nn.Module) or not isinstance(data, Dataset):
        raise ArgumentError(
            "module, data", f"are {type(module).__name__} and {type(data).__name__}", "pass an nn.Module and a zeroloss.Dataset"
        )
    x, y = match(module, data.x), match(module, data.y)
    if not any(p.requires_grad for p in module.parameters()):
        raise ArgumentError("module", "has no trainable parameter", "set requires_grad=True on the layers to be trained")
    with torch.no_grad():
        outputs = forward(module, data.x)
    if outputs.shape != y.shape:
        raise ArgumentError(
            "module", f"returns {outputs.shape[1]} outputs for targets with {y.shape[1]}", "build it with outputs=data.outputs"
        )
    eta = step_size(step, module, data)
    asked = _asked(probes)
    prober = Prober(module, data, eta, until) if asked else None
    path = None if checkpoint is None else Path(checkpoint)
    mark = fingerprint(module, data, f"{loss} {eta:.6g} {until!r} {sorted(asked)}") if path else ""

    weights = Weights(module)
    losses: list[float] = []
    taken: tuple[Probe, ...] = ()
    seconds, first = 0.0, 0
    if path is not None and (found := read_checkpoint(path, mark)) is not None:
        first, losses, taken, seconds, eta = found.step, found.loss, found.probes, found.seconds, found.step_size
        weights.restore(found.movement)
        ended = len(losses) > first  # the loss of its last step is there already
        if ended and (first >= max_steps or found.status == Status.DIVERGED or losses[-1] <= until * losses[0]):
            return _trajectory(losses, Status(found.status), eta, taken, seconds, max_steps)
        del losses[first:]
        taken = tuple(p for p in taken if p.step < first)

    clock = saved = time.perf_counter()
    k = first
    while True:
        value = 0.5 * (_forward(module, x) - y).square().sum()
        losses.append(float(value.detach()))
        status = _status(losses, k, until, max_steps)
        if status is None:
            gradients = torch.autograd.grad(value, weights.parameters)
            if losses[-1:] == losses[-2:-1] and not any(bool(g.any()) for g in gradients):
                status = Status.MAX_STEPS  # a dead network: no later step would differ
        if prober is not None and status is not Status.DIVERGED and (k in asked or status is not None):
            pause = time.perf_counter()
            taken = (*taken, prober.measure(module, k))
            clock += time.perf_counter() - pause
        if status is not None:
            break
        weights.step(gradients, eta)
        k += 1
        now = time.perf_counter()
        if progress is not None and k % 16 == 0:
            progress(k, losses[-1])
        if path is not None and now - saved > CHECKPOINT_SECONDS:
            write_checkpoint(path, Checkpoint(k, eta, losses, taken, seconds + now - clock, "", weights.movement), mark)
            saved = time.perf_counter()
            clock += saved - now
    seconds += time.perf_counter() - clock
    if path is not None:
        write_checkpoint(path, Checkpoint(k, eta, losses, taken, seconds, status, weights.movement), mark)
    if progress is not None:
        progress(k, losses[-1])
    return _trajectory(losses, status, eta, taken, seconds, max_steps)


def powers_of_two(limit: int) -> tuple[int, ...]:
    """0, 1, 2, 4, ... up to a limit: probes at these steps cost a bounded share of a run of any length.

    Example:
        >>> powers_of_two(10)
        (0, 1, 2, 4, 8)
    """
    return (0, *(2**i for i in range(max(limit, 0).bit_length()) if 2**i <= limit))


def _asked(probes: Iterable[int]) -> frozenset[int]:
    steps = list(probes) if isinstance(probes, Iterable) else [probes]
    if bad := [k for k in steps if isinstance(k, bool) or not isinstance(k, int) or k < 0]:
        raise ArgumentError("probes", f"contains {bad[0]!r}", "pass the steps, whole numbers of at least 0")
    return frozenset(steps)


def _forward(module: nn.Module, x: Tensor) -> Tensor:
    return rows_of(module(x), len(x))


def _status(losses: list[float], k: int, until: float, max_steps: int) -> Status | None:
    value, start = losses[-1], losses[0]
    if not math.isfinite(value) or (start > 0 and value > BLOW_UP * start):
        return Status.DIVERGED
    if value <= until * start:
        return Status.CONVERGED
    return Status.MAX_STEPS if k >= max_steps else None


def _trajectory(
    losses: list[float], status: Status, eta: float, probes: tuple[Probe, ...], seconds: float, max_steps: int
) -> Trajectory:
    k, start, value = len(losses) - 1, losses[0], losses[-1]
    ratio = value / start if start > 0 else 0.0
    reason = {
        Status.CONVERGED: f"the loss fell to {ratio:.2g} of its start in {k} steps",
        Status.MAX_STEPS: f"the budget of {k} steps ended at {ratio:.2g} of the first loss"
        if k >= max_steps
        else f"the gradient is exactly zero at step {k}, at {ratio:.2g} of the first loss: the network is dead",
        Status.DIVERGED: f"the loss grew from {start:.3g} to {value:.3g} by step {k}; try a smaller step",
    }[status]
    steps = torch.arange(len(losses), dtype=torch.int64)
    return Trajectory(torch.tensor(losses, dtype=torch.float64), steps, status, eta, probes, seconds, reason)


def _check(loss: str, batch: int | None, max_steps: int, until: float) -> None:
    if loss not in LOSSES:
        raise unknown_name("loss", loss, LOSSES)
    if batch is not None:
        raise ArgumentError("batch", f"is {batch!r}", "pass None: descent is full-batch")
    check_budget(max_steps, until)

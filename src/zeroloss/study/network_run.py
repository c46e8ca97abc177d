"""One network of a study, from its initial Gram to the end of its run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from zeroloss.claims import Run
from zeroloss.data import Dataset
from zeroloss.gram import gram, match, own_copy, rows_of
from zeroloss.kernels import limit_kernel
from zeroloss.networks import Network
from zeroloss.spectrum import extremes
from zeroloss.study.building import build_for, data_for, find_device
from zeroloss.study.explanation import explain_network
from zeroloss.study.foresight import Foresight, foresee
from zeroloss.study.result import NetworkResult
from zeroloss.study.specification import NetworkSpec, TrainingSpec
from zeroloss.training import AUTO_FRACTION, FULL_GRAM, Trajectory, descend, find_loss, make_batches, powers_of_four, step_size

CURVE_POINTS = 300


@dataclass(frozen=True, eq=False)
class Prepared:
    """A network before its run, with everything that theory says in advance.

    Args:
        spec: what it is.
        data: as the network takes it, rows or images.
        module: at its initial weights, in the run's dtype and on its device.
        foresight: steps and losses foretold.
        limit_spectrum: of the limit NTK on the data, ascending.
        finite_spectrum: of the initial Gram, averaged over outputs, ascending.
        kernel_gap: their relative Frobenius distance.
        last_hidden_limit: smallest eigenvalue of the limit of the last hidden layer's share.
        step_size: the step that the run will take.
        seconds_per_step: measured on a few gradients.
    """

    spec: NetworkSpec
    data: Dataset
    module: Network
    foresight: Foresight
    limit_spectrum: tuple[float, ...]
    finite_spectrum: tuple[float, ...]
    kernel_gap: float
    last_hidden_limit: float
    step_size: float
    seconds_per_step: float


def prepare(spec: NetworkSpec, data: Dataset, training: TrainingSpec) -> Prepared:
    """Build a network and predict its run from the initial Gram, without training it.

    Args:
        spec: the network.
        data: what it will train on, rows or images.
        training: how.

    Returns:
        The network and its forecast.
    """
    data = data_for(spec, data)
    exact = build_for(spec, data)
    limit = limit_kernel(exact)(data.x)
    mean = gram(exact, data.x)
    whole = gram(exact, data.x, "full") if data.outputs > 1 and data.n * data.outputs <= FULL_GRAM else mean
    with torch.no_grad():
        outputs = rows_of(exact(data.x), data.n)
    device = find_device(training.device)
    module = build_for(spec, data, getattr(torch, training.dtype)).to(device)
    eta = _step(training, exact, data, whole)
    return Prepared(
        spec,
        data,
        module,
        foresee(whole, outputs, data.y, eta, training),
        tuple(torch.linalg.eigvalsh(limit).tolist()),
        tuple(torch.linalg.eigvalsh(mean).tolist()),
        float((mean - limit).norm() / limit.norm()),
        extremes(limit_kernel(exact, "last-hidden")(data.x)).smallest,
        eta,
        _seconds_per_step(module, data, training),
    )


def train(
    prepared: Prepared,
    training: TrainingSpec,
    checkpoint: Path | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[NetworkResult, Run, Trajectory]:
    """Run gradient descent on a prepared network and put what happened beside what was predicted.

    Args:
        prepared: the network and its forecast; its module is trained in place.
        training: how.
        checkpoint: file to resume from and to keep.
        progress: called with step and loss.

    Returns:
        The result, the evidence for the claims, and the full trajectory.
    """
    data = prepared.data
    run = descend(
        prepared.module,
        data,
        loss=training.loss,
        step=prepared.step_size,
        batch=training.batch,
        replacement=training.replacement,
        momentum=training.momentum,
        schedule=training.schedule,
        max_steps=training.max_steps,
        until=training.until,
        stop_when_fitted=training.stop_when_fitted,
        seed=training.seed,
        probes=powers_of_four(training.max_steps),
        checkpoint=checkpoint,
        progress=progress,
    )
    shown = thin(len(run.loss))
    predicted = prepared.foresight.losses(run.steps[shown])
    architecture = prepared.module.architecture
    ratio = float(run.loss[-1] / run.loss[0]) if float(run.loss[0]) > 0 else 0.0
    parameters = list(prepared.module.parameters())
    result = NetworkResult(
        spec=prepared.spec,
        parameters=sum(p.numel() for p in parameters),
        trained=sum(p.numel() for p in parameters if p.requires_grad),
        limit_spectrum=prepared.limit_spectrum,
        finite_spectrum=prepared.finite_spectrum,
        kernel_gap=prepared.kernel_gap,
        last_hidden_limit=prepared.last_hidden_limit,
        step_size=run.step_size,
        forecast=prepared.foresight.forecast,
        status=str(run.status),
        steps=run.taken,
        loss_ratio=ratio,
        accuracy=None if run.accuracy is None else float(run.accuracy[-1]),
        fitted=run.fitted,
        curve_steps=tuple(run.steps[shown].tolist()),
        curve_loss=tuple(run.loss[shown].tolist()),
        curve_predicted=tuple(predicted.tolist()),
        probes=run.probes,
        explanation=explain_network(
            prepared.foresight.forecast, run, training, data.loss_floor if training.loss == "squared" else 0.0
        ),
    )
    evidence = Run(
        prepared.spec.name,
        architecture,
        data.n,
        data.separation,
        float(torch.linalg.vector_norm(data.x.flatten(1), dim=1).max()),
        run.loss,
        run.step_size,
        run.probes,
        prepared.last_hidden_limit,
        method_of(training, data.n),
    )
    return result, evidence, run


def method_of(training: TrainingSpec, n: int) -> str:
    """How a run differs from the theorems' own, full batches at one step size on the squared loss; empty where it does not.

    Example:
        >>> method_of(TrainingSpec(batch=10, momentum=0.9), 100)
        'batches of 10, momentum 0.9'
    """
    parts = [
        f"the {training.loss} loss" if training.loss != "squared" else "",
        f"batches of {training.batch}" if training.batch is not None and (training.batch < n or training.replacement) else "",
        f"momentum {training.momentum:g}" if training.momentum else "",
        "a step schedule" if training.schedule else "",
    ]
    return ", ".join(part for part in parts if part)


def thin(count: int) -> list[int]:
    """At most about 300 of the steps 0..count-1: half of them evenly spaced, half geometrically, first and last included.

    Example:
        >>> thin(4)
        [0, 1, 2, 3]
    """
    last = count - 1
    half = CURVE_POINTS // 2
    even = {round(i * last / half) for i in range(half + 1)}
    geometric = {round(last ** (i / half)) for i in range(half + 1)} if last > 0 else set()
    return sorted({0, last} | even | geometric)


def _step(training: TrainingSpec, exact: Network, data: Dataset, whole: torch.Tensor) -> float:
    """The step that the run will take, from the spectrum at hand where that is all it needs."""
    batches = make_batches(data.n, training.batch, training.replacement, training.seed)
    if training.step == "auto" and len(whole) == data.n * data.outputs:
        largest = extremes(whole).largest
        if largest <= 0:  # a dead network: nothing will move, whatever the step
            return 1.0
        if batches.whole:
            return AUTO_FRACTION / (find_loss(training.loss).smoothness * largest)
    return step_size(training.step, exact, data, loss=training.loss, batches=batches, momentum=training.momentum)


def _seconds_per_step(module: Network, data: Dataset, training: TrainingSpec) -> float:
    rows = slice(training.batch)
    x, y, loss = match(module, data.x[rows]), match(module, data.y[rows]), find_loss(training.loss)
    parameters = [p for p in module.parameters() if p.requires_grad]
    times = []
    for _ in range(4):
        start = time.perf_counter()
        outputs = rows_of(module(own_copy(x)), len(x))
        torch.autograd.grad(outputs, parameters, loss.gradient(outputs.detach(), y))
        times.append(time.perf_counter() - start)
    return sorted(times)[1]

r"""Gradient flow, $\dot\theta=-\nabla F(\theta)$: what gradient descent becomes as its step tends to 0."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from zeroloss.data import Dataset
from zeroloss.errors import ArgumentError
from zeroloss.gram import forward, match, own_copy, rows_of
from zeroloss.training.losses import Loss, find_loss
from zeroloss.training.targets import check_targets
from zeroloss.training.trajectory import Status


@dataclass(frozen=True, eq=False)
class Flow:
    r"""A solution of the gradient flow.

    Args:
        times: t after every step of the solver, 0 first; k steps of descent with $\eta$ are comparable to $t=\eta k$.
        loss: $F(\theta(t))$ there.
        status: CONVERGED (the loss fell to its target), MAX_STEPS (the time ended), DIVERGED (no step keeps the tolerance, or NaN).
        reason: one sentence on how it ended.
    """

    times: Float[Tensor, " s"]
    loss: Float[Tensor, " s"]
    status: Status
    reason: str


def gradient_flow(
    module: nn.Module,
    data: Dataset,
    *,
    loss: str | Loss = "squared",
    time: float,
    until: float = 0.0,
    rtol: float = 1e-6,
    atol: float = 1e-9,
) -> Flow:
    r"""Carry a module along $\dot\theta=-\nabla F(\theta)$, in place, by an adaptive Runge-Kutta method of order 8.

    The flow is solved in float64 whatever the module's dtype, and only the solver's own stages are held in memory.

    Args:
        module: moved in place; frozen parameters stay.
        data: inputs and targets.
        loss: a name in :data:`zeroloss.training.LOSSES` or a :class:`zeroloss.training.Loss`.
        time: how far to go, in the units of $\eta k$.
        until: the flow has converged once the loss is at most this times its first value.
        rtol: relative tolerance of a step, in each weight.
        atol: absolute tolerance of a step, in each weight.

    Returns:
        Times and losses.

    Raises:
        ArgumentError: for arguments out of range, or a module that does not fit the data.

    Source:
        CERTIFICATE, flow; the solver is DOP853 of Hairer, Norsett, Wanner, "Solving Ordinary Differential Equations I".

    Example:
        >>> layer = nn.Linear(1, 1, bias=False).double()
        >>> with torch.no_grad():
        ...     _ = layer.weight.zero_()
        >>> flow = gradient_flow(layer, Dataset([[1.0]], [1.0]), time=1.0)
        >>> round(float(flow.loss[-1]) / (0.5 * math.exp(-2)), 6)
        1.0
    """
    from scipy.integrate import DOP853  # imports scipy.optimize, which is not needed elsewhere

    chosen = find_loss(loss)
    for name, value in (("time", time), ("rtol", rtol), ("atol", atol)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
            raise ArgumentError(name, f"is {value!r}", "pass a positive number")
    if isinstance(until, bool) or not isinstance(until, int | float) or not 0 <= until < 1:
        raise ArgumentError("until", f"is {until!r}", "pass a fraction of the first loss in [0, 1)")
    exact = copy.deepcopy(module).to(torch.float64)
    x, y = match(exact, data.x), match(exact, data.y)
    check_targets(chosen.name, chosen.targets, y)
    trained = [p for p in exact.parameters() if p.requires_grad]
    if not trained:
        raise ArgumentError("module", "has no trainable parameter", "set requires_grad=True on the layers to be trained")
    with torch.no_grad():
        shape = forward(exact, x).shape
    if shape != y.shape:
        raise ArgumentError(
            "module", f"returns {shape[1]} outputs for targets with {y.shape[1]}", "build it with outputs=data.outputs"
        )

    def put(state: NDArray[np.float64]) -> None:
        vector_to_parameters(torch.from_numpy(state).to(x.device), trained)

    def velocity(_: float, state: NDArray[np.float64]) -> NDArray[np.float64]:
        put(state)
        outputs = rows_of(exact(own_copy(x)), len(x))
        parts = torch.autograd.grad(outputs, trained, chosen.gradient(outputs.detach(), y), allow_unused=True)
        flat = [(torch.zeros_like(p) if g is None else g).reshape(-1) for p, g in zip(trained, parts, strict=True)]
        result: NDArray[np.float64] = -torch.cat(flat).cpu().numpy()
        return result

    def current() -> float:
        with torch.no_grad():
            return float(chosen.value(rows_of(exact(own_copy(x)), len(x)), y).sum())

    start = parameters_to_vector(trained).detach().cpu().numpy().copy()
    floor = chosen.infimum * data.n
    times, losses = [0.0], [current()]
    target, status, reason = until * (losses[0] - floor) + floor, Status.MAX_STEPS, f"the flow reached time {time:.6g}"
    solver = DOP853(velocity, 0.0, start, float(time), rtol=rtol, atol=atol)
    while True:
        if losses[-1] <= target:
            status, reason = Status.CONVERGED, f"the loss fell to its target by time {times[-1]:.6g}"
            break
        if solver.status != "running":
            break
        message = solver.step()
        if message is not None:
            status, reason = Status.DIVERGED, f"the solver stopped at time {times[-1]:.6g}: {message}"
            break
        put(solver.y)
        times.append(float(solver.t))
        losses.append(current())
        if not math.isfinite(losses[-1]):
            status, reason = Status.DIVERGED, f"the loss is {losses[-1]} at time {times[-1]:.6g}"
            break
    put(solver.y)
    with torch.no_grad():
        for own, moved in zip((p for p in module.parameters() if p.requires_grad), trained, strict=True):
            own.copy_(moved)
    return Flow(torch.tensor(times, dtype=torch.float64), torch.tensor(losses, dtype=torch.float64), status, reason)

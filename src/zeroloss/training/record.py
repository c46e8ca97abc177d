"""What a run has recorded so far, and whether that ends it: one rule for the network and for its forecast in function space."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroloss.errors import ArgumentError
from zeroloss.training.losses import Loss
from zeroloss.training.steps import check_budget
from zeroloss.training.targets import accuracy, check_targets, classes_of
from zeroloss.training.trajectory import Probe, Status, Trajectory

BLOW_UP = 1e6  # a loss this many times its start is called divergence; catapults stay far below


@dataclass(frozen=True)
class Goal:
    """When a run ends.

    Args:
        max_steps: the budget.
        until: the target for the loss relative to its first value.
        stop_when_fitted: whether 100 % accuracy ends it too.
    """

    max_steps: int
    until: float
    stop_when_fitted: bool = False

    def __post_init__(self) -> None:
        check_budget(self.max_steps, self.until)
        if not isinstance(self.stop_when_fitted, bool):
            raise ArgumentError("stop_when_fitted", f"is {self.stop_when_fitted!r}", "pass True or False")


class Record:
    """Losses, and accuracies where the targets are classes, at the recorded steps of one run.

    Args:
        loss: the loss of one sample.
        targets: n×k, where the outputs will be.
        goal: when the run ends.
        every: the number of steps from one record to the next; the budget's last step is recorded too.

    Raises:
        ArgumentError: for targets that the loss, or the wish to stop when fitted, does not cover.
    """

    def __init__(self, loss: Loss, targets: Tensor, goal: Goal, every: int) -> None:
        check_targets(loss.name, loss.targets, targets)
        self._loss, self._targets, self._goal, self._every = loss, targets, goal, every
        self._classes = classes_of(targets)
        self._floor = loss.infimum * len(targets)
        if goal.stop_when_fitted and self._classes == "any":
            raise ArgumentError(
                "stop_when_fitted", "is True for targets that are not classes", "pass targets of 1 and -1, or one-hot rows"
            )
        self.steps: list[int] = []
        self.losses: list[float] = []
        self.accuracies: list[float] = []

    def due(self, step: int) -> bool:
        """Whether a step is to be recorded."""
        return step % self._every == 0 or step >= self._goal.max_steps

    def add(self, step: int, outputs: Tensor) -> Status | None:
        """Record the outputs of all rows at a step; returns how the run has ended, or None while it goes on.

        Args:
            step: k.
            outputs: n×k, outside the graph.
        """
        self.steps.append(step)
        self.losses.append(float(self._loss.value(outputs, self._targets).sum()))
        if self._classes != "any":
            self.accuracies.append(accuracy(outputs, self._targets, self._classes))
        return self.status

    @property
    def status(self) -> Status | None:
        """How the run has ended by its last record; None while it goes on."""
        value, start = self.losses[-1] - self._floor, self.losses[0] - self._floor
        if not math.isfinite(value) or (start > 0 and value > BLOW_UP * start):
            return Status.DIVERGED
        if value <= self._goal.until * start or (self._goal.stop_when_fitted and self.accuracies[-1] == 1):
            return Status.CONVERGED
        return Status.MAX_STEPS if self.steps[-1] >= self._goal.max_steps else None

    @property
    def still(self) -> bool:
        """Whether the last two recorded losses are the same number."""
        return self.losses[-1:] == self.losses[-2:-1]

    def resume(self, steps: list[int], losses: list[float], accuracies: list[float]) -> None:
        """Take up what an earlier run of the same settings recorded."""
        self.steps, self.losses, self.accuracies = steps, losses, accuracies

    def forget(self, step: int) -> None:
        """Drop what was recorded at a step and later: a run with a larger budget records it again, or not."""
        kept = sum(k < step for k in self.steps)
        self.steps, self.losses, self.accuracies = self.steps[:kept], self.losses[:kept], self.accuracies[:kept]

    def trajectory(self, status: Status, eta: float, probes: tuple[Probe, ...] = (), seconds: float = 0.0) -> Trajectory:
        """The record as a run's result.

        Args:
            status: how the run ended.
            eta: the step size.
            probes: measured along it.
            seconds: spent stepping.
        """
        k, start, value = self.steps[-1], self.losses[0] - self._floor, self.losses[-1] - self._floor
        ratio = value / start if start > 0 else 0.0
        reached = value <= self._goal.until * start
        reason = {
            Status.CONVERGED: f"the loss fell to {ratio:.2g} of its start in {k} steps"
            if reached
            else f"every row is classified right at step {k}, with the loss at {ratio:.2g} of its start",
            Status.MAX_STEPS: f"the budget of {k} steps ended at {ratio:.2g} of the first loss"
            if k >= self._goal.max_steps
            else f"the gradient is exactly zero at step {k}, at {ratio:.2g} of the first loss: no later step would differ",
            Status.DIVERGED: f"the loss grew from {start:.3g} to {value:.3g} by step {k}; try a smaller step",
        }[status]
        return Trajectory(
            torch.tensor(self.losses, dtype=torch.float64),
            torch.tensor(self.steps, dtype=torch.int64),
            status,
            eta,
            probes,
            seconds,
            reason,
            torch.tensor(self.accuracies, dtype=torch.float64) if self._classes != "any" else None,
        )

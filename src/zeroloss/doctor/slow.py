r"""What holds the loss up: the Gram's slowest directions that carry residual, and the rows that are fitted last."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroloss.data import Dataset
from zeroloss.doctor.modes import Forecast, Modes
from zeroloss.doctor.subject import Subject

DIRECTIONS = 5
SAMPLES = 10
HORIZON = 1e-2  # of the first loss: the samples are compared when it is reached
LATEST = 10**6  # else after so many steps


@dataclass(frozen=True)
class SlowDirection:
    r"""An eigenvector of the Gram on which the loss waits.

    Args:
        eigenvalue: $\lambda_i$.
        share: of the residual's energy at the start.
        remaining: of the residual's energy at the horizon.
        steps_per_decade: steps in which its part of the squared loss falls tenfold; infinite where the eigenvalue is zero. Other
            losses have no such number: NaN.
        rows: the rows that make it up most, largest first.
    """

    eigenvalue: float
    share: float
    remaining: float
    steps_per_decade: float
    rows: tuple[int, ...]


@dataclass(frozen=True)
class SlowSample:
    r"""A row that is fitted late.

    Args:
        row: its number in the data.
        label: its class, or its target.
        residual: $\|r_i\|$ predicted at the horizon.
        share: of the loss's gradient energy there.
    """

    row: int
    label: str
    residual: float
    share: float


def slow_directions(modes: Modes, subject: Subject, start: Forecast, step: float, horizon: int) -> tuple[SlowDirection, ...]:
    r"""The eigenvectors with the most energy left at the horizon.

    Args:
        modes: of the Gram.
        subject: whose rows.
        start: the forecast.
        step: $\eta$.
        horizon: a step.

    Returns:
        At most five, the most energy first; none where no residual is left.
    """
    signal = start.signal(horizon)
    modes = _gathered(modes, signal)
    share, rest = modes.shares(start.signal(0)), modes.shares(signal)
    k = subject.targets.shape[1]
    found = []
    for i in torch.argsort(rest, descending=True)[:DIRECTIONS].tolist():
        if rest[i] <= 1e-12:
            break
        eigenvalue = float(modes.values[i])
        factor = abs(1 - step * eigenvalue)
        squared = subject.loss.name == "squared"
        per_decade = (
            math.nan
            if not squared
            else math.inf
            if factor >= 1
            else 1.0
            if factor == 0
            else math.log(10) / (-2 * math.log(factor))
        )
        weight = (modes.vectors[:, i] ** 2).reshape(-1, k).sum(dim=1)
        rows = [subject.rows[j] for j in torch.argsort(weight, descending=True)[:3].tolist() if weight[j] > 0.05]
        found.append(SlowDirection(eigenvalue, float(share[i]), float(rest[i]), per_decade, tuple(rows)))
    return tuple(found)


def _gathered(modes: Modes, signal: Tensor) -> Modes:
    """The modes with the signal's whole part where the Gram is zero along one vector: any basis is eigenvectors there."""
    zero = int((modes.values == 0).sum())
    basis = modes.vectors[:, :zero]
    part = basis.T @ signal.reshape(-1)
    if zero < 2 or not float(part.norm()) > 0:
        return modes
    turn = torch.linalg.qr(part[:, None], mode="complete").Q  # its first column is the part, up to sign
    return Modes(modes.values, torch.cat([basis @ turn, modes.vectors[:, zero:]], dim=1), modes.floor)


def slow_samples(subject: Subject, start: Forecast, horizon: int) -> tuple[SlowSample, ...]:
    """The rows with the largest predicted residual at the horizon.

    Args:
        subject: whose rows.
        start: the forecast.
        horizon: a step.

    Returns:
        At most ten, the largest first; none where no residual is left.
    """
    left = start.signal(horizon).norm(dim=1)
    energy = left.square()
    total = float(energy.sum())
    if not total > 0:
        return ()
    order = torch.argsort(left, descending=True, stable=True)[:SAMPLES].tolist()
    return tuple(
        SlowSample(subject.rows[i], label_of(subject.sample, i), float(left[i]), float(energy[i]) / total)
        for i in order
        if left[i] > 0
    )


def label_of(sample: Dataset, i: int) -> str:
    """What a row is called: its class, else its target.

    Args:
        sample: whose row.
        i: its number.

    Returns:
        The text.

    Example:
        >>> label_of(Dataset([[0.0], [1.0]], [-1.0, 1.0], classes=("cat", "dog")), 1)
        'dog'
    """
    target = sample.y[i]
    if sample.classes:
        if target.numel() == len(sample.classes):
            return sample.classes[int(target.argmax())]
        if target.numel() == 1 and len(sample.classes) == 2 and abs(float(target)) == 1:
            return sample.classes[int(float(target) > 0)]  # the first class is -1
    if sample.labels is not None:
        return str(int(sample.labels[i]))
    return ", ".join(f"{v:.3g}" for v in target[:4].tolist()) + (", ..." if target.numel() > 4 else "")

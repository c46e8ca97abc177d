"""What targets are: signs, one-hot rows or plain numbers; and, where they name classes, the share of rows that outputs get right."""

from __future__ import annotations

from typing import Literal

import torch

from zeroloss.errors import ArgumentError
from zeroloss.typing import Targets

Kind = Literal["any", "signs", "one-hot"]


def is_signs(targets: Targets) -> bool:
    """Whether every target is 1 or -1.

    Example:
        >>> is_signs(torch.tensor([[1.0], [-1.0]])), is_signs(torch.tensor([[1.0], [0.0]]))
        (True, False)
    """
    return bool((targets.abs() == 1).all())


def is_one_hot(targets: Targets) -> bool:
    """Whether every row of at least two targets is 0 but for one 1.

    Example:
        >>> is_one_hot(torch.eye(3)), is_one_hot(torch.ones(2, 2))
        (True, False)
    """
    return targets.shape[1] >= 2 and bool(((targets == 0) | (targets == 1)).all()) and bool((targets.sum(dim=1) == 1).all())


def check_targets(loss: str, kind: Kind, targets: Targets) -> None:
    """Refuse targets that a loss is not defined for.

    Args:
        loss: its name, for the message.
        kind: what it asks for.
        targets: n×k.

    Raises:
        ArgumentError: saying what to pass.
    """
    if kind == "signs" and not is_signs(targets):
        raise ArgumentError(
            "data", f"has targets other than 1 and -1, which {loss!r} asks for", "relabel, or pass loss='squared'"
        )
    if kind == "one-hot" and not is_one_hot(targets):
        seen = f"has targets of shape {tuple(targets.shape)} that are not one-hot rows, which {loss!r} asks for"
        raise ArgumentError(
            "data", seen, "pass one 1 a row among k >= 2 columns; two classes with targets 1 and -1 take 'logistic'"
        )


def classes_of(targets: Targets) -> Kind:
    """How targets name classes: by ``"signs"`` (one output), by ``"one-hot"`` rows, or not at all, ``"any"``.

    Example:
        >>> classes_of(torch.eye(2)), classes_of(torch.tensor([[0.7]]))
        ('one-hot', 'any')
    """
    if targets.shape[1] == 1 and is_signs(targets):
        return "signs"
    return "one-hot" if is_one_hot(targets) else "any"


def accuracy(outputs: Targets, targets: Targets, kind: Kind) -> float:
    """The share of rows whose class the outputs name.

    A sign is right where output and target agree in it; a one-hot row where its own output is above every other. A tie is wrong.

    Args:
        outputs: n×k.
        targets: n×k.
        kind: ``"signs"`` or ``"one-hot"``, as :func:`classes_of` says.

    Returns:
        A number in [0, 1].

    Example:
        >>> accuracy(torch.tensor([[0.3], [-2.0], [0.0]]), torch.tensor([[1.0], [1.0], [1.0]]), "signs")
        0.3333333333333333
    """
    if kind == "signs":
        right = outputs * targets > 0
    else:
        right = (outputs * targets).sum(dim=1) > outputs.masked_fill(targets == 1, -torch.inf).amax(dim=1)
    return int(right.sum()) / len(targets)

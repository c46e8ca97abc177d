"""What a module takes, packed into rows: the probes ask for n×d, users' modules take images, token numbers, or several named tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zeroloss.data import Dataset
from zeroloss.errors import ArgumentError
from zeroloss.gram import rows_of

Inputs = Tensor | Mapping[str, Tensor]


@dataclass(frozen=True)
class Field:
    """One tensor among the columns of a row.

    Args:
        name: the keyword it is passed by; empty for the only positional argument.
        shape: of one sample's part.
        dtype: what the module takes where that is whole numbers or truth values; None for real numbers, in the module's own precision.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype | None

    @property
    def columns(self) -> int:
        """How many columns it takes."""
        return math.prod(self.shape)


class Packed(nn.Module):
    """A module that takes rows, n×columns, and gives n×k.

    Whole numbers below 2^53 survive in float64, so token numbers and masks come back exactly. Of what the module returns, a tensor is
    taken, or its ``logits``, or the first of several.

    Args:
        module: the module inside.
        fields: its inputs, in the order of the columns.
    """

    def __init__(self, module: nn.Module, fields: tuple[Field, ...]) -> None:
        super().__init__()
        self.module, self.fields = module, fields

    def forward(self, x: Tensor) -> Tensor:
        """The outputs of rows.

        Args:
            x: n×columns.

        Returns:
            n×k.
        """
        parts = torch.split(x, [field.columns for field in self.fields], dim=1)
        values = {
            field.name: part.reshape(len(x), *field.shape).to(field.dtype or x.dtype)
            for field, part in zip(self.fields, parts, strict=True)
        }
        outputs = self.module(values[""]) if list(values) == [""] else self.module(**values)
        if not isinstance(outputs, Tensor):
            outputs = outputs.logits if hasattr(outputs, "logits") else next(iter(outputs), None)
        return rows_of(outputs, len(x))


def pack(inputs: Inputs, rows: Tensor) -> tuple[Tensor, tuple[Field, ...]]:
    """Some samples' inputs as float64 rows, and how to undo it.

    Args:
        inputs: n×anything, or such tensors by the keywords they are passed by.
        rows: numbers of the samples.

    Returns:
        rows×columns, and the fields.

    Example:
        >>> x, fields = pack({"ids": torch.tensor([[3, 4], [5, 6]]), "mask": torch.tensor([[True, False]] * 2)}, torch.tensor([1]))
        >>> x, [field.dtype for field in fields]
        (tensor([[5., 6., 1., 0.]], dtype=torch.float64), [torch.int64, torch.bool])
    """
    named = {"": inputs} if isinstance(inputs, Tensor) else dict(inputs)
    if not named or not all(isinstance(value, Tensor) and value.ndim >= 1 for value in named.values()):
        raise ArgumentError("data", "has inputs that are not tensors of samples", "pass a tensor, or tensors by keyword")
    if len(lengths := {len(value) for value in named.values()}) > 1:
        raise ArgumentError("data", f"has inputs of {sorted(lengths)} samples", "pass as many of each")
    fields = tuple(
        Field(name, tuple(value.shape[1:]), None if value.is_floating_point() else value.dtype) for name, value in named.items()
    )
    columns = [value.detach()[rows.to(value.device)].reshape(len(rows), -1).to("cpu", torch.float64) for value in named.values()]
    return torch.cat(columns, dim=1), fields


def spread(n: int, wanted: int) -> Tensor:
    """Evenly spaced row numbers, the first and the last among them; all where there are no more.

    Example:
        >>> spread(10, 4)
        tensor([0, 3, 6, 9])
    """
    if n == 0:
        raise ArgumentError("data", "has no samples", "pass at least one")
    return torch.linspace(0, n - 1, min(n, wanted), dtype=torch.float64).round().to(torch.int64)


def inputs_and_targets(data: Dataset | tuple[Inputs, Tensor], wanted: int) -> tuple[Tensor, Tensor, tuple[Field, ...]]:
    """The probe rows of a data set or of a pair of tensors.

    Args:
        data: a :class:`zeroloss.Dataset`, or (inputs, targets) with as many targets as samples.
        wanted: how many rows at most.

    Returns:
        Packed inputs, targets as they were given, and the fields.

    Raises:
        ArgumentError: for anything else.
    """
    pair = (data.x, data.y) if isinstance(data, Dataset) else data
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[1], Tensor):
        raise ArgumentError("data", f"is {type(data).__name__}", "pass a zeroloss.Dataset, or (inputs, targets) as tensors")
    inputs, targets = pair
    first = inputs if isinstance(inputs, Tensor) else next(iter(inputs.values()), None) if isinstance(inputs, Mapping) else None
    if not isinstance(first, Tensor) or first.ndim < 1 or targets.ndim not in (1, 2) or len(targets) != len(first):
        seen = f"{type(inputs).__name__} and targets of shape {tuple(targets.shape)}"
        raise ArgumentError("data", f"has inputs that are {seen}", "pass as many targets as samples, n or n×k")
    rows = spread(len(first), wanted)
    x, fields = pack(inputs, rows)
    return x, targets.detach()[rows.to(targets.device)].cpu(), fields


def as_targets(targets: Tensor, outputs: int) -> Tensor:
    """Targets as n×k: class numbers become one-hot rows where there are several outputs.

    Args:
        targets: n or n×k.
        outputs: k of the module.

    Returns:
        n×k, float64.

    Raises:
        ArgumentError: for class numbers or a number of targets that the outputs do not have.

    Example:
        >>> as_targets(torch.tensor([2, 0]), 3)
        tensor([[0., 0., 1.],
                [1., 0., 0.]], dtype=torch.float64)
    """
    if targets.ndim == 1 and outputs > 1 and not targets.is_floating_point() and not targets.is_complex():
        low, high = int(targets.min()), int(targets.max())
        if low < 0 or high >= outputs:
            raise ArgumentError(
                "data", f"has classes from {low} to {high}", f"pass 0 to {outputs - 1}: the module has {outputs} outputs"
            )
        return torch.nn.functional.one_hot(targets.to(torch.int64), outputs).to(torch.float64)
    made = targets[:, None] if targets.ndim == 1 else targets
    if made.shape[1] != outputs:
        raise ArgumentError("data", f"has {made.shape[1]} targets a sample", f"pass {outputs}: the module has {outputs} outputs")
    return made.to(torch.float64)

"""The kinds of stages a network is read as, and the order in which they are walked through."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from torch import Tensor

from zeroloss.certificate.activations import Sigma


@dataclass(frozen=True)
class Linear:
    """z = W h + b; ``weight`` and ``bias`` name tensors, ``trained`` says which of the two gradient descent moves."""

    weight: str
    bias: str | None = None
    trained: tuple[str, ...] = ()


@dataclass(frozen=True)
class Conv2d:
    """A two-dimensional convolution; padding is (above and below, left and right), its mode ``zeros`` or ``circular``."""

    weight: str
    bias: str | None = None
    trained: tuple[str, ...] = ()
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    padding_mode: str = "zeros"
    dilation: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Activation:
    """An elementwise function."""

    sigma: Sigma


@dataclass(frozen=True)
class Scale:
    """Multiplication by a fixed number."""

    factor: float


@dataclass(frozen=True)
class Pool:
    """Averages over equal rectangles, down to ``to`` = (height, width)."""

    to: tuple[int, int]


@dataclass(frozen=True)
class Flatten:
    """Images to rows."""


@dataclass(frozen=True)
class Residual:
    """The input plus what the stages inside make of it."""

    stages: tuple[Stage, ...]


Affine: TypeAlias = Linear | Conv2d
Stage: TypeAlias = Linear | Conv2d | Activation | Scale | Pool | Flatten | Residual


@dataclass(frozen=True)
class Fork:
    """Start of a residual block: the value is kept."""


@dataclass(frozen=True)
class Join:
    """End of a residual block: the kept value is added."""


Op: TypeAlias = Linear | Conv2d | Activation | Scale | Pool | Flatten | Fork | Join


@dataclass(frozen=True, eq=False)
class Chain:
    """A network as nested stages, with its parameters in float64.

    Args:
        stages: first to last.
        tensors: every parameter by its name, detached copies.
        order: names of the trained parameters, in the module's order: the coordinates of theta.
    """

    stages: tuple[Stage, ...]
    tensors: dict[str, Tensor] = field(repr=False)
    order: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """P, how many numbers are trained."""
        return sum(self.tensors[name].numel() for name in self.order)

    @property
    def first_trained(self) -> int:
        """Place of the first affine stage with something trained: what lies before it does not depend on theta."""
        places = (i for i, op in enumerate(self.tape) if isinstance(op, (Linear, Conv2d)) and op.trained)
        return next(places, len(self.tape))

    @property
    def tape(self) -> tuple[Op, ...]:
        """The stages in the order of a forward pass, residual blocks between marks.

        Example:
            >>> Chain((Residual((Scale(2.0),)),), {}).tape
            (Fork(), Scale(factor=2.0), Join())
        """
        return tuple(_unrolled(self.stages))


def _unrolled(stages: tuple[Stage, ...]) -> list[Op]:
    ops: list[Op] = []
    for stage in stages:
        if isinstance(stage, Residual):
            ops += [Fork(), *_unrolled(stage.stages), Join()]
        else:
            ops.append(stage)
    return ops

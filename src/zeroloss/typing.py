"""Shape aliases, so that every signature says n, d, k and m in the same way (letters: docs/notation.md)."""

from __future__ import annotations

from typing import TypeAlias

from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

Rows: TypeAlias = Float[Tensor, "n d"]  # one input a row
Inputs: TypeAlias = Float[Tensor, "n *shape"]  # rows or images
AnyInputs: TypeAlias = Shaped[Tensor, "_ *_shape"]  # rows, images or token numbers, of one data set or another
Targets: TypeAlias = Float[Tensor, "n k"]  # one target row an input
Labels: TypeAlias = Int[Tensor, " n"]
Square: TypeAlias = Float[Tensor, "n n"]  # a Gram or kernel matrix
Vector: TypeAlias = Float[Tensor, " n"]
Mask: TypeAlias = Bool[Tensor, " n"]

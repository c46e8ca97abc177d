"""What a source returns, before anything is chosen or normalised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Raw:
    """A data set as its source has it: nothing chosen, nothing normalised.

    Attributes:
        x: n×d numbers, or images n×c×h×w.
        target: n integers (the source's own class labels), n texts (labels without numbers), or floats, n or n×k (regression).
        classes: the name of class label v at place v; a label beyond the tuple is named by its number. Not used for texts.
        images: whether x holds images.
        divisor: what x is to be divided by, once rows are chosen (255 turns bytes into [0, 1] without a float64 copy of all rows).

    Example:
        >>> import numpy as np
        >>> Raw(np.zeros((2, 3)), np.array([0, 1])).images
        False
    """

    x: NDArray[Any]
    target: NDArray[Any]
    classes: tuple[str, ...] = ()
    images: bool = False
    divisor: float = 1.0


Source: TypeAlias = Callable[[Path | None], Raw]  # takes the folder that load's `root` names, for sources kept on disk

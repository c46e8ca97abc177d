"""A data set: inputs and targets checked once, at the door, with the geometry that both papers' theorems ask about."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from zeroloss.data.door import Values, finite_tensor, label_tensor, shape
from zeroloss.data.duplicates import Conflict, duplicate_groups, find_conflicts
from zeroloss.data.geometry import nearest_distances, parallel_pairs
from zeroloss.errors import ArgumentError
from zeroloss.typing import Inputs, Labels, Targets, Vector


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Dataset:
    r"""Inputs $x_1..x_n$ and targets $y_1..y_n$, in float64, owned by this value alone.

    Args:
        x: n×d rows or n×c×h×w images: a tensor (kept on its device), a numpy array or nested lists of real numbers.
        y: n×k targets; n numbers count as n×1.
        labels: n integers, the source's own class labels, or None.
        name: what reports call the data.
        classes: class names in order; empty for regression.
        image_shape: (c, h, w) of flattened images, so that they can be drawn; known anyway where x has four dimensions.

    Attributes:
        x: inputs, n×d or n×c×h×w, float64, contiguous.
        y: targets, n×k, float64, on x's device.
        labels: int64 of shape n, or None.
        name: as passed.
        classes: a tuple of str.
        image_shape: (c, h, w) or None.

    Raises:
        ArgumentError: for no rows or columns, NaN or infinite entries, shapes that disagree, and dtypes other than real numbers.

    Example:
        >>> data = Dataset([[0, 0], [3, 4], [3, 4]], [1, 0, 1])
        >>> data
        Dataset('data': x (3, 2), y (3, 1))
        >>> data.separation, data.duplicates, data.loss_floor
        (0.0, ((1, 2),), 0.25)
    """

    x: Inputs
    y: Targets
    labels: Labels | None
    name: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int] | None

    # Written out, because what may be passed (lists, arrays, integers) is wider than what is then held.
    def __init__(
        self,
        x: Values,
        y: Values,
        labels: Values | None = None,
        name: str = "data",
        classes: Sequence[str] = (),
        image_shape: Sequence[int] | None = None,
    ) -> None:
        inputs = _inputs(x)
        n = len(inputs)
        fields = {
            "x": inputs,
            "y": _targets(y, n).to(inputs.device),
            "labels": None if labels is None else label_tensor(labels, n).to(inputs.device),
            "name": str(name),
            "classes": _class_names(classes),
            "image_shape": _image_shape(image_shape, inputs),
        }
        for field, value in fields.items():
            object.__setattr__(self, field, value)  # the way a frozen dataclass sets its own fields

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}: x {shape(self.x)}, y {shape(self.y)})"

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.x)

    @property
    def outputs(self) -> int:
        """Number k of targets a sample."""
        return self.y.shape[1]

    def as_images(self) -> Dataset:
        """The same samples with x as n×c×h×w images, for convolutional networks.

        Raises:
            ArgumentError: where the rows are not known to be images.
        """
        if self.x.ndim == 4:
            return self
        if self.image_shape is None:
            raise ArgumentError(
                "x", f"of {self.name!r} holds rows of {self.x.shape[1]} features, not images", "take image data, unpadded"
            )
        return Dataset(self.x.reshape(self.n, *self.image_shape), self.y, self.labels, self.name, self.classes)

    def as_rows(self) -> Dataset:
        """The same samples with x as n×d rows, for fully connected networks."""
        if self.x.ndim == 2:
            return self
        return Dataset(self.x.flatten(1), self.y, self.labels, self.name, self.classes, self.image_shape)

    @cached_property
    def nearest(self) -> Vector:
        """Distance from each input to the nearest other one, n of them, over flattened inputs; infinite where n = 1."""
        return nearest_distances(self.x.flatten(1))

    @cached_property
    def separation(self) -> float:
        r"""$\delta=\min_{i\neq j}\|x_i-x_j\|$ (AZ Assumption 2.1), in the units of x; 0 if inputs repeat, infinite if n = 1."""
        return float(self.nearest.min())

    @cached_property
    def duplicates(self) -> tuple[tuple[int, ...], ...]:
        """Groups of row numbers whose inputs are identical, whatever their targets."""
        return duplicate_groups(self.x.flatten(1))

    @cached_property
    def conflicts(self) -> tuple[Conflict, ...]:
        """Groups of identical inputs with different targets: no network reaches zero loss on them."""
        return find_conflicts(self.duplicates, self.y)

    @cached_property
    def loss_floor(self) -> float:
        r"""The summed loss $\tfrac12\sum_i\|f(x_i)-y_i\|^2$ below which no function $f$ can go; 0 without conflicts."""
        return math.fsum(conflict.unreachable_loss for conflict in self.conflicts)

    @cached_property
    def parallel(self) -> tuple[tuple[int, int], ...]:
        r"""Pairs (i, j) with $x_i=\pm c\,x_j$, which DU Theorem 5.1 excludes; the first ``MAX_PARALLEL`` of them."""
        return parallel_pairs(self.x.flatten(1))


def _inputs(values: Values) -> Inputs:
    """X, checked: two dimensions or four, none of them empty."""
    x = finite_tensor("x", values)
    if x.ndim not in (2, 4):
        raise ArgumentError("x", f"has shape {shape(x)}", "pass rows (n, d) or images (n, c, h, w)")
    if x.shape[0] == 0:
        raise ArgumentError("x", f"has no rows (shape {shape(x)})", "pass at least one sample")
    if x.numel() == 0:
        raise ArgumentError("x", f"has no columns (shape {shape(x)})", "pass at least one feature a row")
    return x


def _targets(values: Values, n: int) -> Targets:
    """Y, checked against x's n rows; one dimension becomes n×1."""
    y = finite_tensor("y", values)
    if y.ndim not in (1, 2):
        raise ArgumentError("y", f"has shape {shape(y)}", f"pass one target a row: ({n},) or ({n}, k)")
    if len(y) != n:
        raise ArgumentError("y", f"has {len(y)} rows (shape {shape(y)}), but x has {n}", "pass one target for every row of x")
    if y.numel() == 0:
        raise ArgumentError("y", f"has no columns (shape {shape(y)})", "pass at least one target a row")
    return y[:, None] if y.ndim == 1 else y


def _class_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Class names as a tuple; a lone string would become its letters."""
    if isinstance(classes, str):
        raise ArgumentError("classes", f"is the string {classes!r}", f"pass a tuple: ({classes!r},)")
    return tuple(str(name) for name in classes)


def _image_shape(wanted: Sequence[int] | None, x: Inputs) -> tuple[int, int, int] | None:
    """(c, h, w) where x holds images, flattened or not."""
    if x.ndim == 4:
        own = (x.shape[1], x.shape[2], x.shape[3])
        if wanted is not None and tuple(wanted) != own:
            raise ArgumentError("image_shape", f"is {tuple(wanted)}, but x has images of shape {own}", "leave it out")
        return own
    if wanted is None:
        return None
    if len(wanted) != 3 or math.prod(wanted) != x.shape[1] or min(wanted) < 1:
        raise ArgumentError(
            "image_shape", f"is {tuple(wanted)}, but x has {x.shape[1]} columns", "pass (c, h, w) with c·h·w columns"
        )
    return (int(wanted[0]), int(wanted[1]), int(wanted[2]))

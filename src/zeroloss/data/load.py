"""``load``: a data set by name or file, chosen, normalised and encoded, ready for both papers' theorems."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import torch

from zeroloss.data.dataset import Dataset
from zeroloss.data.files import SUFFIXES, read_file
from zeroloss.data.normalisation import NORMALISATIONS, standardise
from zeroloss.data.normalisation import normalise as normalise_inputs
from zeroloss.data.raw import Raw
from zeroloss.data.selection import ClassLabel, Indices, choose_classes, draw
from zeroloss.data.shrink import shrink
from zeroloss.data.sources import FAMILIES, SOURCES
from zeroloss.data.synthetic import SYNTHETIC
from zeroloss.errors import ArgumentError, unknown_name
from zeroloss.typing import Targets

_SYNTHETIC = "synthetic/"


def load(
    source: str | os.PathLike[str],
    *,
    n: SupportsIndex | None = None,
    classes: Sequence[ClassLabel] | None = None,
    normalise: str = "auto",
    flat: bool = True,
    size: int | None = None,
    root: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> Dataset:
    r"""A data set, normalised over the rows that were chosen.

    Args:
        source: a name in ``SOURCES`` (digits, iris, wine, breast_cancer, diabetes, mnist, fashion_mnist, cifar10, cifar100),
            ``uci/<name>``, ``synthetic/<name>`` (a name in ``SYNTHETIC``), or a path that ends in .npz or .csv.
        n: how many rows, chosen at random, as equally from every class as can be; None for all. Rows keep the source's order.
            Synthetic sets are made with n rows (None for 100).
        classes: which classes, by label or name, in this order; None for all.
        normalise: ``auto`` (tables standardised, images less their mean image, then $\|x_i\|=1$; synthetic sets as they are made),
            ``sphere``, ``padded`` (AZ) or ``none`` (tables as they are, the image sets' pixels in [0, 1]).
        flat: n×d rows; False leaves images n×c×h×w (tables stay rows).
        size: images are averaged down to size×size pixels before they are normalised; None leaves them as they are.
        root: the folder where relative paths start, and that holds the sets kept on disk; for these, None means the folder that
            the environment variable ``ZEROLOSS_DATA`` names. A missing image set is downloaded into ``root`` if pooch is there.
        seed: of the choice of rows, or of a synthetic set.

    Returns:
        The data set: y is n×1 of ±1 for two classes (the first −1), n×k one-hot for more, and for regression n×1 of mean 0 and
        standard deviation 1 (as the source has it with ``normalise="none"``), since DU asks $|y_i|=O(1)$. ``labels`` holds the
        source's own integers, or places in ``classes`` where the source has only texts.

    Raises:
        ArgumentError: for an unknown source, class or normalisation, more rows than there are, or a single class.
        FileError: for a file that cannot be read as data.

    References:
        AZ footnote 3 (padding), Assumption 2.1 (separation); DU section 3 (unit norm); THEORY 1.1 and 3.1.

    Example:
        >>> data = load("digits", classes=(3, 8), n=100)
        >>> data, data.classes, data.y[:3].T
        (Dataset('digits': x (100, 64), y (100, 1)), ('3', '8'), tensor([[-1.,  1., -1.]], dtype=torch.float64))
    """
    if normalise not in NORMALISATIONS:
        raise unknown_name("normalise", normalise, NORMALISATIONS)
    if isinstance(source, str) and source.startswith(_SYNTHETIC):
        return _made(source, n, classes, normalise, seed)
    name, raw = _read(source, None if root is None else Path(root).expanduser())
    if len(raw.x) < 2:
        raise ArgumentError("source", f"{name!r} has one sample", "pass data with two rows or more")
    if normalise == "padded" and raw.images and not flat:
        raise ArgumentError(
            "flat", "is False, but padding appends coordinates to an image", "pass flat=True or normalise='sphere'"
        )

    if raw.target.dtype.kind == "f":
        if classes is not None:
            raise ArgumentError("classes", f"is {tuple(classes)}, but {name!r} is a regression without classes", "leave it out")
        rows = draw(np.zeros(len(raw.x), dtype=np.int64), n, seed, repr(name))
        y, labels, names = _real_targets(raw, rows, name, normalise != "none"), None, raw.classes
    else:
        chosen = choose_classes(raw.target, raw.classes, classes)
        kept = draw(chosen.place, n, seed, f"{name!r} (classes {', '.join(chosen.names[:10])})")
        rows, names = chosen.rows[kept], chosen.names
        y, labels = _class_targets(chosen.place[kept], len(names)), torch.from_numpy(chosen.labels[kept])

    x = torch.from_numpy(np.ascontiguousarray(raw.x[rows], dtype=np.float64))
    if raw.divisor != 1:
        x /= raw.divisor
    if size is not None:
        if not raw.images:
            raise ArgumentError("size", f"is {size}, but {name!r} has rows, not images", "leave it out")
        x = shrink(x, size)
    image_shape = x.shape[1:] if raw.images and normalise != "padded" else None
    x = normalise_inputs(x, normalise, raw.images)
    return Dataset(x.flatten(1) if flat else x, y, labels, name, names, image_shape)


def _read(source: str | os.PathLike[str], root: Path | None) -> tuple[str, Raw]:
    """The source's short name and its rows."""
    if isinstance(source, str) and source in SOURCES:
        return source, SOURCES[source](root)
    if isinstance(source, str) and Path(source).suffix.lower() not in SUFFIXES:
        family, _, member = source.partition("/")
        if family in FAMILIES and member:
            return source, FAMILIES[family](member, root)
    if not isinstance(source, str | os.PathLike) or Path(source).suffix.lower() not in SUFFIXES:
        families = [f"{family}/<name>" for family in FAMILIES]
        raise unknown_name("source", source, [*SOURCES, *families, *_synthetic_names(), "a path ending in .npz or .csv"])
    path = Path(source).expanduser()
    return path.stem, read_file(path if root is None else root / path)


def _made(source: str, n: SupportsIndex | None, classes: Sequence[ClassLabel] | None, how: str, seed: int) -> Dataset:
    """A synthetic set, with its own parameters at their defaults."""
    make = SYNTHETIC.get(source.removeprefix(_SYNTHETIC))
    if make is None:
        raise unknown_name("source", source, _synthetic_names())
    if classes is not None:
        raise ArgumentError("classes", f"is {tuple(classes)}, but {source!r} is made whole", "leave it out")
    options: dict[str, Any] = {"seed": seed} if n is None else {"n": n, "seed": seed}
    data = make(**options)
    # Standardised columns would undo what the set was made for: its separation, its pairs, its cube.
    x = data.x if how == "auto" else normalise_inputs(data.x, how, images=False)
    return Dataset(x, data.y, data.labels, source, data.classes)


def _synthetic_names() -> list[str]:
    """What ``load`` calls the synthetic sets."""
    return [_SYNTHETIC + name for name in SYNTHETIC]


def _class_targets(place: Indices, count: int) -> Targets:
    """Two classes as −1 and +1, more as one-hot rows."""
    if count == 2:
        return torch.from_numpy(2.0 * place - 1.0)[:, None]
    return torch.from_numpy(np.eye(count)[place])


def _real_targets(raw: Raw, rows: Indices, name: str, scaled: bool) -> Targets:
    """Regression targets of the chosen rows, each column to mean 0 and standard deviation 1 where asked."""
    y = torch.from_numpy(raw.target[rows].reshape(len(rows), -1).astype(np.float64))
    if not scaled:
        return y
    if bool((y == y[0]).all()):
        raise ArgumentError(
            "source", f"{name!r} gives all {len(rows)} chosen rows one target", "take other rows or normalise='none'"
        )
    return standardise(y)

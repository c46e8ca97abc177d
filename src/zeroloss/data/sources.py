"""The registry of named data sets: a name, and a function that returns its raw rows.

Another source is one file with one function ``(root) -> Raw`` and one line in ``SOURCES``; a family of them
(``uci/<name>``), one function ``(name, root) -> Raw`` and one line in ``FAMILIES``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from zeroloss.data.embedded import breast_cancer, diabetes, digits, iris, wine
from zeroloss.data.images import cifar10, cifar100, fashion_mnist, mnist
from zeroloss.data.raw import Raw, Source
from zeroloss.data.uci import uci

__all__ = ["FAMILIES", "SOURCES", "Family", "Raw", "Source"]

Family: TypeAlias = Callable[[str, Path | None], Raw]  # takes what follows the slash, and load's `root`

SOURCES: dict[str, Source] = {
    "digits": digits,
    "iris": iris,
    "wine": wine,
    "breast_cancer": breast_cancer,
    "diabetes": diabetes,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
}

FAMILIES: dict[str, Family] = {"uci": uci}

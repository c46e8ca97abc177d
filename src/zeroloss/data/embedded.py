"""The data sets that scikit-learn embeds: always there, with no file and no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from zeroloss.data.raw import Raw


def digits(root: Path | None = None) -> Raw:
    """1797 handwritten digits of 8×8 pixels, grey values 0 to 16 (Alpaydin and Kaynak 1998, as scikit-learn embeds them).

    Args:
        root: not used; the data set comes with scikit-learn.

    Returns:
        1797×1×8×8 images and the labels 0 to 9.

    Example:
        >>> digits().x.shape
        (1797, 1, 8, 8)
    """
    del root
    from sklearn.datasets import load_digits

    found = load_digits()
    return Raw(found.images[:, None], found.target, images=True)


def iris(root: Path | None = None) -> Raw:
    """150 irises of three species, four lengths in cm (Fisher 1936).

    Args:
        root: not used; the data set comes with scikit-learn.

    Returns:
        150×4 rows and the labels 0 to 2.

    Example:
        >>> iris().classes
        ('setosa', 'versicolor', 'virginica')
    """
    del root
    from sklearn.datasets import load_iris

    return _table(load_iris())


def wine(root: Path | None = None) -> Raw:
    """178 wines of three growers, 13 chemical measurements (Forina et al. 1988).

    Args:
        root: not used; the data set comes with scikit-learn.

    Returns:
        178×13 rows and the labels 0 to 2.

    Example:
        >>> wine().x.shape
        (178, 13)
    """
    del root
    from sklearn.datasets import load_wine

    return _table(load_wine())


def breast_cancer(root: Path | None = None) -> Raw:
    """569 tumours, 30 measurements of cell nuclei (Street, Wolberg and Mangasarian 1993).

    Args:
        root: not used; the data set comes with scikit-learn.

    Returns:
        569×30 rows and the labels 0 (malignant) and 1 (benign).

    Example:
        >>> breast_cancer().classes
        ('malignant', 'benign')
    """
    del root
    from sklearn.datasets import load_breast_cancer

    return _table(load_breast_cancer())


def diabetes(root: Path | None = None) -> Raw:
    """442 patients, ten measurements, and how far the disease had gone a year later (Efron et al. 2004).

    Args:
        root: not used; the data set comes with scikit-learn.

    Returns:
        442×10 rows, as measured (not scaled), and 442 real targets from 25 to 346.

    Example:
        >>> diabetes().target.dtype
        dtype('float64')
    """
    del root
    from sklearn.datasets import load_diabetes

    found = load_diabetes(scaled=False)
    return Raw(found.data, found.target.astype(np.float64))


def _table(found: Any) -> Raw:
    """scikit-learn's bunch of a classification table."""
    return Raw(found.data, found.target, tuple(str(name) for name in found.target_names))

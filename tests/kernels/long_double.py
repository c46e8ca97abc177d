r"""The tangent kernel of DU's fully connected network for all pairs of rows in long double precision: textbook formulas, no tricks.

Where long doubles have 64 bits, $1-\cos$ of rows 1e-4 apart keeps 10 digits in plain products; where they are ordinary doubles it keeps
7, which is still more than the smallest eigenvalue of near duplicates needs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zeroloss.networks import c_sigma, find_activation

Array = NDArray[np.longdouble]
PI = np.longdouble("3.14159265358979323846264338327950288")


def long_double_ntk(x: np.ndarray, depth: int, activation: str = "relu") -> Array:
    """The kernel of all pairs of rows.

    Args:
        x: n×d rows, taken as exact.
        depth: H.
        activation: relu, erf or gelu.

    Returns:
        n×n kernel.
    """
    rows = x.astype(np.longdouble)
    gain = np.longdouble(c_sigma(find_activation(activation)))
    s = rows @ rows.T
    tangent = s.copy()
    for _ in range(depth):
        value, slope = {"relu": _relu, "erf": _erf, "gelu": _gelu}[activation](s)
        s = gain * value
        tangent = s + gain * slope * tangent
    return tangent


def _relu(s: Array) -> tuple[Array, Array]:
    size = np.sqrt(np.outer(s.diagonal(), s.diagonal()))
    cosine = np.divide(s, size, out=np.zeros_like(s), where=size > 0).clip(-1, 1)
    np.fill_diagonal(cosine, 1)
    theta = np.arccos(cosine)
    return size * (np.sin(theta) + (PI - theta) * cosine) / (2 * PI), (PI - theta) / (2 * PI)


def _erf(s: Array) -> tuple[Array, Array]:
    root = np.outer(1 + 2 * s.diagonal(), 1 + 2 * s.diagonal())
    return 2 / PI * np.arcsin(2 * s / np.sqrt(root)), 4 / PI / np.sqrt(root - 4 * s**2)


def _gelu(s: Array) -> tuple[Array, Array]:
    left, right = s.diagonal()[:, None], s.diagonal()[None]
    a, b = 1 + left, 1 + right
    D = a * b - s**2
    F = np.longdouble(0.25) + np.arcsin(s / np.sqrt(a * b)) / (2 * PI)
    P = 1 / (2 * PI * np.sqrt(D))
    return left * P * (right - s**2 / a) + s * F + s**2 * P / b, F + s * P * (1 / a + 1 / b + 1 / D)


def near_duplicates(pairs: int, d: int, gap: float, dtype: type = np.float64) -> np.ndarray:
    """Random unit rows, each followed half the rows later by a copy that far away.

    Args:
        pairs: how many.
        d: features.
        gap: the distance within a pair.
        dtype: which the rows are rounded to.

    Returns:
        2·pairs×d rows.
    """
    generator = np.random.default_rng(0)
    x = generator.standard_normal((pairs, d))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    step = generator.standard_normal((pairs, d))
    step -= (step * x).sum(1, keepdims=True) * x
    step *= gap / np.linalg.norm(step, axis=1, keepdims=True)
    both = np.concatenate([x, x + step])
    return (both / np.linalg.norm(both, axis=1, keepdims=True)).astype(dtype)

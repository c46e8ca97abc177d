r"""Data made to order: each set isolates one thing that the theorems ask of inputs or labels.

All rows have norm 1 (save ``parallel_pair``'s), as DU assumes; every set is the same for the same arguments.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from zeroloss.data.dataset import Dataset
from zeroloss.errors import ArgumentError

MIN_DELTA = 1e-300  # below it float64 has no halves to spare
MAX_TRIES = 1000  # draws of a point before a separation counts as unattainable

Floats = NDArray[np.float64]


def sphere(n: SupportsIndex = 100, d: SupportsIndex = 20, seed: SupportsIndex = 0) -> Dataset:
    r"""Points uniform on the sphere $S^{d-1}$ with random labels ±1: both papers' generic case, where any labels can be fitted.

    Args:
        n: how many.
        d: their dimension.
        seed: of points and labels.

    Returns:
        n×d rows of norm 1, targets ±1.

    Raises:
        ArgumentError: for n or d below 1, or a negative seed.

    References:
        AZ Theorem 1 (arbitrary labels, dependence on $\delta$ alone); DU section 3.

    Example:
        >>> sphere(50, d=3)
        Dataset('sphere': x (50, 3), y (50, 1))
    """
    n, d, generator = _counts(n, d, seed)
    return _signed(_on_sphere(generator, n, d), generator.integers(0, 2, n), "sphere")


def two_clusters(n: SupportsIndex = 100, d: SupportsIndex = 20, delta: float | int = 0.1, seed: SupportsIndex = 0) -> Dataset:
    r"""Pairs of points at distance exactly $\delta$ with opposite labels: AZ's separation, set to a number.

    $x_{2i}, x_{2i+1} = \left(\sqrt{1-\delta^2/4}\;u_i,\ \mp\delta/2\right)$ with $u_i$ on $S^{d-2}$, drawn until points of
    different pairs are more than $\delta$ apart. A pair differs in one coordinate alone, by $\delta/2-(-\delta/2)$: no digit of
    $\delta$ is lost, however small it is. The last coordinate's sign is the label, so that the two classes are two slices
    of the sphere, $\delta$ apart.

    Args:
        n: how many points, even.
        d: their dimension, at least 2.
        delta: the separation, from ``MIN_DELTA`` to 1.
        seed: of the points.

    Returns:
        n×d rows of norm 1, whose ``separation`` is ``delta``; targets −1, +1, −1, ...

    Raises:
        ArgumentError: for an odd n, a delta out of range, or more points than fit at that separation.

    References:
        AZ Assumption 2.1 and the dependence of Theorems 1 and 2 on $\delta$; THEORY 1.1.

    Example:
        >>> two_clusters(10, delta=1e-9).separation
        1e-09
    """
    n, d, generator = _counts(n, d, seed, least_d=2, even=True)
    if not MIN_DELTA <= delta <= 1:
        raise ArgumentError("delta", f"is {delta!r}", f"pass a distance from {MIN_DELTA:g} to 1")
    radius = math.sqrt((1 - delta / 2) * (1 + delta / 2))
    centres = np.empty((n // 2, d - 1))
    for i in range(len(centres)):
        for _ in range(MAX_TRIES):
            centres[i] = _on_sphere(generator, 1, d - 1)[0]
            # The margin keeps rounding from making another pair the nearest.
            if radius * np.linalg.norm(centres[:i] - centres[i], axis=1).min(initial=math.inf) > delta * (1 + 1e-9):
                break
        else:
            raise ArgumentError(
                "delta",
                f"is {delta:g}, but {n} points in {d} dimensions found no room at it",
                "pass a smaller delta or n, or a larger d",
            )
    x = np.repeat(np.hstack([radius * centres, np.full((len(centres), 1), delta / 2)]), 2, axis=0)
    x[::2, -1] *= -1
    return _signed(x, np.arange(n) % 2, "two_clusters")


def xor(n: SupportsIndex = 100, d: SupportsIndex = 2, seed: SupportsIndex = 0) -> Dataset:
    r"""Points uniform on the sphere, labelled by $\mathrm{sign}(x_1x_2)$: no linear function of x fits, and hidden layers must.

    Args:
        n: how many.
        d: their dimension, at least 2; the others are noise.
        seed: of the points.

    Returns:
        n×d rows of norm 1, targets ±1.

    Raises:
        ArgumentError: for n below 1, d below 2, or a negative seed.

    References:
        DU sections 4 and 5 ($\lambda_{\min}(K^{(H)})>0$ asks for a nonlinear, non-polynomial activation; THEORY 3.2 and 3.7).

    Example:
        >>> data = xor(50)
        >>> bool((data.x.prod(1).sign() == data.y[:, 0]).all())
        True
    """
    n, d, generator = _counts(n, d, seed, least_d=2)
    x = _on_sphere(generator, n, d)
    return _signed(x, (x[:, 0] * x[:, 1] > 0).astype(np.int64), "xor")


def teacher(n: SupportsIndex = 100, d: SupportsIndex = 20, width: SupportsIndex = 8, seed: SupportsIndex = 0) -> Dataset:
    r"""Targets of a random network, $y = \sqrt{2/p}\sum_{r=1}^p a_r\,\sigma(\langle w_r,x\rangle)$, $\sigma$ = ReLU.

    $a_r\sim N(0,1)$ and $w_r\sim N(0,I)$, so that $\mathbb{E}\,y^2=1$ for each x: a regression that small networks can fit, beside
    random labels, which they cannot.

    Args:
        n: how many points, uniform on the sphere.
        d: their dimension.
        width: the teacher's p.
        seed: of points and teacher.

    Returns:
        n×d rows of norm 1, real targets of order 1.

    Raises:
        ArgumentError: for n, d or width below 1, or a negative seed.

    References:
        DU section 3 ($|y_i|=O(1)$); AZ Theorem 1 for real targets.

    Example:
        >>> teacher(5).labels is None
        True
    """
    n, d, generator = _counts(n, d, seed)
    p = _at_least("width", width, 1)
    x = _on_sphere(generator, n, d)
    w, a = generator.standard_normal((p, d)), generator.standard_normal(p)
    return Dataset(x, math.sqrt(2 / p) * np.maximum(x @ w.T, 0) @ a, name="teacher")


def parity(n: SupportsIndex = 100, d: SupportsIndex = 10, k: SupportsIndex = 3, seed: SupportsIndex = 0) -> Dataset:
    r"""Different corners of the cube, $x\in\{\pm1\}^d/\sqrt d$, labelled by the parity of their first k signs, $\prod_{j\le k}s_j$.

    The separation is $2/\sqrt d$ or more, yet the labels have no correlation with fewer than k coordinates: kernels see little of
    them, so that the loss falls slowly along small eigenvalues.

    Args:
        n: how many, at most $2^d$.
        d: the number of signs.
        k: how many of them count.
        seed: which corners.

    Returns:
        n×d rows of norm 1, all different, targets ±1.

    Raises:
        ArgumentError: for n above $2^d$ or k above d.

    References:
        DU Theorem 5.1 (the rate is $\lambda_{\min}$, whatever the labels); THEORY 5 (juntas and parities).

    Example:
        >>> parity(8, d=3).separation == 2 / 3**0.5
        True
    """
    n, d, generator = _counts(n, d, seed)
    k = _at_least("k", k, 1)
    if k > d:
        raise ArgumentError("k", f"is {k}, but there are d={d} signs", "pass k at most d")
    if n > 2**d:
        raise ArgumentError("n", f"is {n}, but d={d} signs have {2**d} corners", f"pass n at most {2**d}, or a larger d")
    if d <= 20:
        chosen = generator.choice(2**d, n, replace=False)
        bits = (chosen[:, None] >> np.arange(d)) & 1
    else:
        rows: dict[bytes, NDArray[np.int64]] = {}  # a dictionary keeps the order of the draw
        while len(rows) < n:
            row = generator.integers(0, 2, d)
            rows.setdefault(row.tobytes(), row)
        bits = np.array(list(rows.values()))
    x: Floats = np.asarray(2 * bits - 1, dtype=np.float64) / math.sqrt(d)
    return _signed(x, (bits[:, :k].sum(1) + k + 1) % 2, "parity")


def parallel_pair(n: SupportsIndex = 100, d: SupportsIndex = 20, c: float | int = 2.0, seed: SupportsIndex = 0) -> Dataset:
    r"""Generic points of which the second is c times the first, $x_2=c\,x_1$, with opposite labels: what DU's theorems exclude.

    A ReLU network without biases is homogeneous, $f(cx)=c\,f(x)$ for $c>0$, so it cannot give both targets: its loss stays above
    $\tfrac12(1+c)^2/(1+c^2)$. Though $\delta>0$, its limit kernel is singular. (AZ's padding adds the bias that tells them apart.)

    Args:
        n: how many, at least 2.
        d: their dimension, at least 2.
        c: the positive ratio, other than 1.
        seed: of points and labels.

    Returns:
        n×d rows of norm 1, save row 1 of norm c; targets ±1.

    Raises:
        ArgumentError: for n or d below 2, or c that is not positive and finite, or 1.

    References:
        DU Theorem 5.1 (no two inputs parallel); THEORY 3.7, I8; DU-03.

    Example:
        >>> parallel_pair(10).parallel
        ((0, 1),)
    """
    n, d, generator = _counts(n, d, seed, least_n=2, least_d=2)
    if not 0 < c < math.inf or c == 1:
        raise ArgumentError("c", f"is {c!r}", "pass a positive ratio other than 1")
    x, place = _on_sphere(generator, n, d), generator.integers(0, 2, n)
    x[1], place[1] = c * x[0], 1 - place[0]
    return _signed(x, place, "parallel_pair")


def antipodal_pairs(n: SupportsIndex = 100, d: SupportsIndex = 20, seed: SupportsIndex = 0) -> Dataset:
    r"""Pairs x and −x, exactly, with labels ±1 drawn for each point: singular for odd activations, harmless for ReLU.

    An odd network ($\tanh$, erf, no biases) has $f(-x)=-f(x)$ and cannot fit a pair of equal labels; ReLU's kernel is positive
    definite on such pairs, though DU's hypothesis (no parallel inputs) fails: it is sufficient and not necessary.

    Args:
        n: how many, even.
        d: their dimension, at least 2.
        seed: of points and labels.

    Returns:
        n×d rows of norm 1, row 2i+1 = −row 2i; targets ±1.

    Raises:
        ArgumentError: for an odd n, or d below 2.

    References:
        DU Theorem 5.1; THEORY's DU-03.

    Example:
        >>> antipodal_pairs(4).parallel
        ((0, 1), (2, 3))
    """
    n, d, generator = _counts(n, d, seed, least_d=2, even=True)
    x = np.repeat(_on_sphere(generator, n // 2, d), 2, axis=0)
    x[1::2] *= -1
    return _signed(x, generator.integers(0, 2, n), "antipodal_pairs")


SYNTHETIC: dict[str, Callable[..., Dataset]] = {
    make.__name__: make for make in (sphere, two_clusters, xor, teacher, parity, parallel_pair, antipodal_pairs)
}


def _on_sphere(generator: np.random.Generator, n: int, d: int) -> Floats:
    """Independent uniform directions."""
    x = generator.standard_normal((n, d))
    norms: Floats = np.linalg.norm(x, axis=1, keepdims=True)
    return x / norms


def _signed(x: Floats, place: NDArray[np.int64], name: str) -> Dataset:
    """A two-class data set: class 0 is −1, class 1 is +1."""
    return Dataset(x, 2.0 * place - 1.0, place, name, ("-1", "+1"))


def _counts(
    n: SupportsIndex, d: SupportsIndex, seed: SupportsIndex, *, least_n: int = 1, least_d: int = 1, even: bool = False
) -> tuple[int, int, np.random.Generator]:
    """The arguments that all sets share, checked; and the generator."""
    rows = _at_least("n", n, least_n)
    if even and rows % 2:
        raise ArgumentError("n", f"is {rows}, but the points come in pairs", "pass an even number")
    return rows, _at_least("d", d, least_d), np.random.default_rng(_at_least("seed", seed, 0))


def _at_least(argument: str, value: SupportsIndex, least: int) -> int:
    """A whole number, checked."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ArgumentError(argument, f"is {value!r}", "pass a whole number") from None
    if number < least:
        raise ArgumentError(argument, f"is {number}", f"pass at least {least}")
    return number

r"""Compiled loops: rows made ready, and one tile of a kernel, from products to $1-|\rho|$, through the curve, into place.

Every loop runs over a row of the tile that stays in the cache, and over as many of its entries at once as the processor has lanes. The
loops hold no lock of Python's, so that tiles run side by side in threads.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zeroloss.kernels.compiling import loop

GROUP = 16  # rows that are turned together: a cache line of float32


def side_constants(near: float, pulls: tuple[float, float], roots: tuple[bool, bool], dtype: type) -> NDArray[np.floating]:
    """What the loops need beside the coefficients, in the tile's dtype, since a literal in a compiled loop would widen it.

    Args:
        near: the share of a pair's size below which its distance is formed again.
        pulls: b on the side of equal and on that of opposite inputs.
        roots: whether the variable is a square root, likewise.
        dtype: float32 or float64, numpy's.

    Example:
        >>> side_constants(0.02, (0.0, 1.0), (True, False), np.float64)[[0, 1, 2, 4]]
        array([0.  , 1.  , 2.  , 0.02])
    """
    tiny = float(np.finfo(dtype).tiny)
    return np.array([0.0, 1.0, 2.0, 0.5, near, tiny, *pulls, *(float(root) for root in roots)], dtype=dtype)


@loop
def _exact(a, inverse_a, b, inverse_b, sign):  # type: ignore[no-untyped-def]
    """Half the squared distance (sign -1) or sum (sign +1) of two unit vectors, in float64 from the rows themselves."""
    total = 0.0
    for k in range(len(a)):
        gap = np.float64(a[k]) * inverse_a + sign * (np.float64(b[k]) * inverse_b)
        total += gap * gap
    return 0.5 * total


@loop
def _signed_row(products, half_i, half2, signed, constants):  # type: ignore[no-untyped-def]
    """One row of products to $m$ with the sign of the correlation; returns how many keep too few digits."""
    zero, one, two, near, tiny = constants[0], constants[1], constants[2], constants[4], constants[5]
    count = 0
    for j in range(len(signed)):
        size = half_i + half2[j]
        w = size - products[j]
        w = max(zero, min(two, w))
        signed[j] = w if w <= one else -max(two - w, tiny)
        count += 1 if (w < near * size or two - w < near) else 0
    return count


@loop
def _mend_row(signed, half_i, half2, row, inverse_i, x2, inverse2, same, constants):  # type: ignore[no-untyped-def]
    """Form again, without cancellation, the entries of a row that keep too few digits; ``same`` is the column of the row itself."""
    one, near, tiny = constants[1], constants[4], constants[5]
    for j in range(len(signed)):
        if j == same:
            continue
        if signed[j] >= constants[0]:
            if signed[j] < near * (half_i + half2[j]):
                signed[j] = min(_exact(row, inverse_i, x2[j], inverse2[j], -1.0), one)
        elif -signed[j] < near:
            signed[j] = -max(min(_exact(row, inverse_i, x2[j], inverse2[j], 1.0), one), tiny)


@loop
def _curve_row(signed, place, total, powers, constants):  # type: ignore[no-untyped-def]
    """The curve along one row, Horner's rule four powers at a time; ``powers`` holds both sides, highest first."""
    zero, one, two = constants[0], constants[1], constants[2]
    pull_same, pull_opposite = constants[6], constants[7]
    root_same, root_opposite = constants[8] > zero, constants[9] > zero
    n = len(signed)
    for j in range(n):
        m = abs(signed[j])
        root = np.sqrt(m)
        alike = signed[j] >= zero
        z = (root if root_same else m) if alike else (root if root_opposite else m)
        pull = pull_same if alike else pull_opposite
        place[j] = two * ((one + pull) * z / (one + pull * z)) - one
        total[j] = zero
    for k in range(0, powers.shape[1], 4):
        a0, a1, a2, a3 = powers[0, k], powers[0, k + 1], powers[0, k + 2], powers[0, k + 3]
        b0, b1, b2, b3 = powers[1, k], powers[1, k + 1], powers[1, k + 2], powers[1, k + 3]
        for j in range(n):
            alike = signed[j] >= zero
            v = place[j]
            t = total[j] * v + (a0 if alike else b0)
            t = t * v + (a1 if alike else b1)
            t = t * v + (a2 if alike else b2)
            total[j] = t * v + (a3 if alike else b3)


@loop
def fill_tile(products, half1, half2, x1, x2, inverse1, inverse2, scale1, scale2, powers, constants, same, out, turned):  # type: ignore[no-untyped-def]
    r"""One tile: products of centred unit rows in, kernel values out.

    Args:
        products: $\langle u_i-c, u_j-c\rangle$, p×q.
        half1: $\tfrac12\|u_i-c\|^2$, p.
        half2: the same of the columns, q.
        x1: the rows as given, p×d, for pairs that are formed again.
        x2: the columns, q×d.
        inverse1: one over their norms (0 for a zero row), float64, p.
        inverse2: likewise, q.
        scale1: what a value is multiplied by, p.
        scale2: likewise, q.
        powers: 2×K coefficients, highest first, K a multiple of 4.
        constants: of :func:`side_constants`.
        same: whether rows and columns are one set, whose diagonal is then exactly $m=0$.
        out: p×q, written.
        turned: q×p, written with the transpose; 0×0 for none.
    """
    p, q = products.shape
    signed, place = np.empty(q, products.dtype), np.empty(q, products.dtype)
    block = np.empty((GROUP, q), products.dtype)
    for first in range(0, p, GROUP):
        last = min(first + GROUP, p)
        for i in range(first, last):
            count = _signed_row(products[i], half1[i], half2, signed, constants)
            if same:
                signed[i] = constants[0]
                count -= 1
            if count > 0:
                _mend_row(signed, half1[i], half2, x1[i], inverse1[i], x2, inverse2, i if same else -1, constants)
            total = block[i - first]
            _curve_row(signed, place, total, powers, constants)
            for j in range(q):
                total[j] = total[j] * (scale1[i] * scale2[j])
                out[i, j] = total[j]
        if turned.shape[0] > 0:
            for j in range(q):
                for i in range(first, last):
                    turned[j, i] = block[i - first, j]
    if same:  # a product of a set with itself may round (i, j) and (j, i) differently
        for i in range(p):
            for j in range(i):
                out[i, j] = out[j, i]


@loop
def survey_rows(x, norms, mean):  # type: ignore[no-untyped-def]
    """Norms, and the mean of the unit rows; both are written (see :func:`zeroloss.kernels.preparation.survey`)."""
    for i in range(x.shape[0]):
        row = x[i]
        square = 0.0
        for k in range(len(row)):
            square += np.float64(row[k]) * np.float64(row[k])
        norm = np.sqrt(square)
        if not (1e-140 < norm < 1e140):  # its square may have overflowed or vanished, or it is NaN
            largest = 0.0
            for k in range(len(row)):
                largest = max(largest, abs(np.float64(row[k])))
            if largest < 2.2250738585072014e-308:  # one over it would overflow
                norm = 0.0
            elif largest < np.inf:
                square = 0.0
                for k in range(len(row)):
                    part = np.float64(row[k]) / largest
                    square += part * part
                norm = np.sqrt(square) * largest
        norms[i] = norm
        if norm > 0.0:
            inverse = 1.0 / norm
            for k in range(len(row)):
                mean[k] += np.float64(row[k]) * inverse
    for k in range(len(mean)):
        mean[k] /= max(1, x.shape[0])


@loop
def centre_rows(x, inverse, centre, centred, half):  # type: ignore[no-untyped-def]
    """Unit rows less the centre, and half their squares; both are written (see :func:`zeroloss.kernels.preparation.prepare`)."""
    for i in range(x.shape[0]):
        source, target, factor = x[i], centred[i], inverse[i]
        total = 0.0
        for k in range(len(source)):
            target[k] = np.float64(source[k]) * factor - centre[k]
        for k in range(len(source)):
            total += np.float64(target[k]) * np.float64(target[k])
        half[i] = 0.5 * total

r"""The two polynomials that replace the arc cosine in compiled loops.

With $a=|\rho|$, $r=\sqrt{1-a}$ and $\theta=\arccos a$ both $\theta/(\pi r)$ and $(\sin\theta-\theta\cos\theta)/(\pi r^3)$ are
smooth in $a\in[0,1]$, so a polynomial (interpolated at Chebyshev points in 60 digits) gives them with a small relative error up to
$a=1$: 1.4e-7 for float32, 2e-17 for float64. They vectorise, and nothing in them cancels.
"""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from numba.core import types
from numba.extending import overload

from zeroloss.kernels.compiling import STRICT

f = np.float32  # a float32 beside a float64 becomes one, a Python number beside a float32 would make a float64 of it
P0, P1, P2, P3, P4, P5, P6 = map(
    f,
    (
        0.4999999360436614,
        -0.06830356858597457,
        0.028239845236573573,
        -0.015483972110095596,
        0.00846634151960893,
        -0.0034631065643198327,
        0.000702718728677509,
    ),
)
Q0, Q1, Q2, Q3, Q4, Q5 = map(
    f,
    (
        0.3183098390478811,
        -0.02253174696574181,
        0.005944207137752572,
        -0.0022691191364910403,
        0.0008178150194912144,
        -0.00016558550229587562,
    ),
)
A0, A1, A2, A3, A4, A5, A6, A7, A8, A9, A10, A11, A12, A13, A14, A15, A16, A17, A18 = (
    0.5,
    -0.06830988618378347,
    0.028345056907235874,
    -0.01616785497439062,
    0.010721085649171534,
    -0.007758577064250746,
    0.0059434582884418385,
    -0.004737634236144924,
    0.003884724692997268,
    -0.0032401599258976978,
    0.002702012366668956,
    -0.0021875340112401634,
    0.001646878933331324,
    -0.0010938835217706685,
    0.0006052303485827351,
    -0.0002618154905523159,
    8.175580059883875e-05,
    -1.6226605184888968e-05,
    1.527104740182858e-06,
)
B0, B1, B2, B3, B4, B5, B6, B7, B8, B9, B10, B11, B12, B13, B14, B15, B16, B17 = (
    0.3183098861837907,
    -0.022535170724312468,
    0.005985979686337739,
    -0.002464709327986569,
    0.0012691655888037857,
    -0.0007481327268291718,
    0.00048259794872714033,
    -0.00033185703130211695,
    0.00023893512264966456,
    -0.00017700272388117006,
    0.00013149330196400181,
    -9.405349619839536e-05,
    6.127237335815553e-05,
    -3.40742690373725e-05,
    1.5058914821246522e-05,
    -4.850607795333561e-06,
    9.98096511493633e-07,
    -9.759058594307168e-08,
)


def turn(a: Any) -> Any:
    r"""$\theta/(\pi r)$; compiled only."""
    raise NotImplementedError


def excess(a: Any) -> Any:
    r"""$(\sin\theta-\theta\cos\theta)/(\pi r^3)$; compiled only."""
    raise NotImplementedError


@overload(turn, jit_options={"fastmath": STRICT})
@no_type_check
def _turn(a):
    if a == types.float32:
        return lambda a: P0 + a * (P1 + a * (P2 + a * (P3 + a * (P4 + a * (P5 + a * P6)))))

    def wide(a):
        b = a * a
        even = A8 + b * (A10 + b * (A12 + b * (A14 + b * (A16 + b * A18))))
        odd = A7 + b * (A9 + b * (A11 + b * (A13 + b * (A15 + b * A17))))
        even = A0 + b * (A2 + b * (A4 + b * (A6 + b * even)))
        odd = A1 + b * (A3 + b * (A5 + b * odd))
        return even + a * odd

    return wide


@overload(excess, jit_options={"fastmath": STRICT})
@no_type_check
def _excess(a):
    if a == types.float32:
        return lambda a: Q0 + a * (Q1 + a * (Q2 + a * (Q3 + a * (Q4 + a * Q5))))

    def wide(a):
        b = a * a
        even = B8 + b * (B10 + b * (B12 + b * (B14 + b * B16)))
        odd = B7 + b * (B9 + b * (B11 + b * (B13 + b * (B15 + b * B17))))
        even = B0 + b * (B2 + b * (B4 + b * (B6 + b * even)))
        odd = B1 + b * (B3 + b * (B5 + b * odd))
        return even + a * odd

    return wide

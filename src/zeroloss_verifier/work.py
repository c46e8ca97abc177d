"""How much a certificate asks to be recomputed, estimated before anything is; what is too much is said, never accepted."""

from __future__ import annotations

import math

from zeroloss_verifier.document import Certificate
from zeroloss_verifier.jacobian import EXPLICIT_WORK
from zeroloss_verifier.network import Activation, Affine, Residual, Stage
from zeroloss_verifier.outcome import TooLargeError
from zeroloss_verifier.passes import layout

MOST_ROWS = 2_000  # N
MOST_PRODUCTS = 30_000_000_000  # some five minutes of one core
FUNCTION = 200  # an activation takes as long as so many multiplications in a product
MOST_NUMBERS = 30_000_000  # balls held at once, a hundred bytes each


def refuse_work(certificate: Certificate) -> None:
    """Nothing, or the reason why it is too much.

    Args:
        certificate: what is to be recomputed.

    Raises:
        RejectedError: where shapes do not fit.
        TooLargeError: where N, the multiplications or the numbers held at once exceed what the verifier takes on.
    """
    counts, tensors = certificate.counts, certificate.tensors
    N, n = counts["N"], counts["samples"]
    if N > MOST_ROWS:
        raise TooLargeError(f"N = {N} is too large for independent verification, which goes up to {MOST_ROWS}")
    windows, _ = layout(certificate.network, tensors, tensors["x"].shape[1:])
    products, numbers = 3 * N**3, len(tensors["x"].values) + 4 * N * N
    size = math.prod(tensors["x"].shape[1:])
    for stage, window in zip(_in_order(certificate.network), windows, strict=True):
        if not isinstance(stage, Affine) or window is None:
            size = size if window is None else len(window.index)
            products += FUNCTION * (N + n) * size
            numbers += (N + 2 * n) * size if isinstance(stage, Activation) else 0
            continue
        size = tensors[stage.weight].shape[0] * len(window.index)
        units, places, columns = tensors[stage.weight].shape[0], len(window.index), window.columns
        side, other = min(units, columns), max(units, columns)
        products += (n + N) * places * columns * units + 3 * side * side * other
        if stage.trained:
            products += N * N * (units + columns) if window.whole else N * places * columns * units + N * N * units * columns
            products += 3 * min(n * places, columns) ** 2 * max(n * places, columns)
        if stage.trained and window.whole and N * N * units * columns <= EXPLICIT_WORK:
            products += N * N * units * columns
        numbers += units * columns + (N + 4 * n) * units * places + (0 if window.whole else (n + N) * places * columns)
    if products > MOST_PRODUCTS:
        raise TooLargeError(f"it takes some {products:.1e} multiplications, more than {MOST_PRODUCTS:.0e}")
    if numbers > MOST_NUMBERS:
        raise TooLargeError(f"it takes some {numbers:.1e} numbers at once, more than {MOST_NUMBERS:.0e}")


def _in_order(stages: tuple[Stage, ...]) -> list[Stage]:
    # as layout lists them: the stages inside a block before the block
    found: list[Stage] = []
    for stage in stages:
        if isinstance(stage, Residual):
            found += _in_order(stage.stages)
        found.append(stage)
    return found

"""An independent verifier of zeroloss certificates: python-flint (Arb) and the standard library, nothing of zeroloss or torch."""

from __future__ import annotations

import os

from zeroloss_verifier.outcome import STATUSES, Verified

__all__ = ["STATUSES", "Verified", "verify"]


def verify(path: str | os.PathLike[str]) -> Verified:
    """Check a certificate; see :func:`zeroloss_verifier.checking.verify`, which is loaded with python-flint on the first call.

    Args:
        path: of the JSON, with or without its ending; the tensors' file lies beside it.

    Returns:
        The answer: ACCEPTED, REJECTED or TOO_LARGE, with a reason and what was recomputed.

    Raises:
        FileNotFoundError: where there is no such file.
        ImportError: without python-flint.
    """
    from zeroloss_verifier.checking import verify as check

    return check(path)

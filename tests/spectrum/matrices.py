"""Symmetric matrices whose spectrum is known."""

from __future__ import annotations

import numpy as np
from scipy.sparse.linalg import LinearOperator


def with_spectrum(values: np.ndarray, seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))
    m = q @ np.diag(values) @ q.T
    return (m + m.T) / 2


def operator_of(matrix: np.ndarray) -> LinearOperator:
    """One that counts its products in ``.count``."""

    def product(v: np.ndarray) -> np.ndarray:
        found.count += 1
        return matrix @ v

    found = LinearOperator(matrix.shape, matvec=product, dtype=np.float64)
    found.count = 0
    return found

r"""The spectral norm of a matrix of any shape."""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from zeroloss.spectrum.lanczos import lanczos
from zeroloss.spectrum.operators import Vector, start

SMALL = 64  # rows or columns up to which the Gram is decomposed
RESIDUAL = 1e-7  # of the norm's square, relative


def spectral_norm(matrix: Tensor) -> float:
    r"""$\|M\|_2$ of a matrix of any shape, by Lanczos on $MM^\top$ from a fixed start.

    It ends where the residual of the largest eigenvalue is 1e-7 of it: the eigenvalue errs by the residual's square over the gap to the
    next, which is rounding, and by the residual itself where the two nearly coincide. The movement of a layer is nearly of low rank, so
    that a few products do; ARPACK asks only after twenty.

    Args:
        matrix: p×q.

    Returns:
        The largest singular value.

    Example:
        >>> spectral_norm(torch.zeros(300, 200))
        0.0
    """
    wide = matrix.detach().to(torch.float64).cpu()
    wide = wide if wide.shape[0] <= wide.shape[1] else wide.T
    scale = float(wide.abs().max()) if wide.numel() else 0.0
    if scale == 0.0:
        return 0.0
    wide = wide / scale  # its squares must neither overflow nor vanish
    if len(wide) <= SMALL:
        return scale * _thin_norm(wide.numpy())

    def square(v: Vector) -> Vector:
        return (wide @ (wide.T @ torch.from_numpy(v))).numpy()

    known = lanczos(square, start(len(wide)), lambda k: float(k.residuals[-1]) <= RESIDUAL * float(k.values[-1]), most=len(wide))
    return scale * math.sqrt(max(float(known.values[-1]), 0.0))


def _thin_norm(array: NDArray[np.float64]) -> float:
    r"""$\sqrt{\lambda_{\max}(MM^\top)}$ of a wide matrix, to rounding, where a full SVD takes ten times as long."""
    return math.sqrt(float(scipy.linalg.eigvalsh(array @ array.T)[-1]))

r"""The density of eigenvalues by stochastic Lanczos quadrature, with the standard error over its random vectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from zeroloss.errors import ArgumentError
from zeroloss.spectrum.lanczos import lanczos
from zeroloss.spectrum.operators import Matrix, as_product


@dataclass(frozen=True, eq=False)
class Estimate:
    """Numbers estimated from random vectors.

    Args:
        value: the means over the vectors.
        standard_error: of the means, from the spread over the vectors.
    """

    value: Float[Tensor, " t"]
    standard_error: Float[Tensor, " t"]


@dataclass(frozen=True, eq=False)
class LanczosDensity:
    r"""Quadratures that stand for the spectral measure $\frac1n\sum_i\delta_{\lambda_i}$, one a random vector.

    The standard errors are those of random vectors; the quadrature itself is exact for polynomials of degree up to twice the steps less
    one, and a smooth function is off by no more than twice its distance to those. Shares below a number are not smooth in it: look at them
    no finer than the nodes lie apart.

    Args:
        nodes: Ritz values, p×s ascending.
        weights: p×s, each row sums to 1; zero where fewer steps than s exhausted the space.
        n: rows of the operator.
    """

    nodes: Float[Tensor, "p s"]
    weights: Float[Tensor, "p s"]
    n: int

    def mean(self, function: Callable[[Tensor], Tensor]) -> Estimate:
        r"""$\frac1n\operatorname{tr}f(A)$, the mean of a function over the eigenvalues.

        Args:
            function: f, of a tensor of eigenvalues, number by number.

        Returns:
            One number with its error.
        """
        return self._over_probes(function(self.nodes).unsqueeze(0))

    def below(self, at: Float[Tensor, " t"]) -> Estimate:
        r"""Share of eigenvalues that are at most t.

        Args:
            at: the t's.

        Returns:
            One share a t.
        """
        return self._over_probes((self.nodes <= at.to(self.nodes)[:, None, None]).to(self.nodes))

    def smoothed(self, at: Float[Tensor, " t"], width: float | int) -> Estimate:
        r"""Density $\frac1n\sum_i\phi_\sigma(t-\lambda_i)$ with a Gaussian $\phi_\sigma$; it integrates to 1.

        Args:
            at: the t's.
            width: $\sigma > 0$, in units of eigenvalues.

        Returns:
            One density a t, per unit of eigenvalue.

        Raises:
            ArgumentError: for a width that is not positive.
        """
        if not (width > 0 and math.isfinite(width)):
            raise ArgumentError("width", f"is {width}", "pass a positive number, in units of eigenvalues")
        away = (at.to(self.nodes)[:, None, None] - self.nodes) / width
        return self._over_probes(torch.exp(-(away**2) / 2) / (width * math.sqrt(2 * math.pi)))

    def _over_probes(self, values: Float[Tensor, "t p s"]) -> Estimate:
        # a weight of zero silences its node, even where the function overflows or is not defined there
        each = torch.where(self.weights > 0, self.weights * values, torch.zeros_like(values)).sum(dim=-1)
        return Estimate(each.mean(dim=-1), each.std(dim=-1) / math.sqrt(each.shape[-1]))


def lanczos_density(
    matrix_or_operator: Matrix | LinearOperator, probes: int = 16, steps: int = 64, seed: int = 0
) -> LanczosDensity:
    r"""Density of eigenvalues from probes × steps products, by stochastic Lanczos quadrature.

    For a vector $z$ of random signs $\mathbb{E}\,\frac1nz^\top f(A)z = \frac1n\operatorname{tr}f(A)$, and Lanczos from $z$ gives Gauss's
    quadrature of the left side: nodes are the Ritz values, weights the squared first entries of the tridiagonal matrix' eigenvectors
    (Golub and Welsch 1969; Lin, Saad and Yang 2016; Ubaru, Chen and Saad 2017).

    Args:
        matrix_or_operator: n×n symmetric tensor or array, or a scipy LinearOperator.
        probes: random vectors, at least 2, since the error is read off their spread.
        steps: Lanczos steps for each.
        seed: of the signs.

    Returns:
        The quadratures, from which densities, shares and means are read.

    Raises:
        ArgumentError: for what is not square, symmetric and finite, fewer than 2 probes or no steps.

    Example:
        >>> found = lanczos_density(torch.diag(torch.tensor([1.0, 1.0, 4.0])), probes=4)
        >>> found.below(torch.tensor([2.0])).value
        tensor([0.6667], dtype=torch.float64)
    """
    if probes < 2:
        raise ArgumentError("probes", f"is {probes}", "pass at least 2: the error is read off their spread")
    if steps < 1:
        raise ArgumentError("steps", f"is {steps}", "pass at least 1")
    apply, n = as_product(matrix_or_operator), matrix_or_operator.shape[0]
    steps = min(steps, n)
    generator = np.random.default_rng(seed)
    nodes: NDArray[np.float64] = np.empty((probes, steps))
    weights = np.zeros((probes, steps))
    for probe in range(probes):
        known = lanczos(apply, generator.choice([-1.0, 1.0], n), lambda _: False, steps)
        nodes[probe] = known.values[-1]
        nodes[probe, : known.steps] = known.values
        weights[probe, : known.steps] = known.coefficients[0] ** 2
    return LanczosDensity(torch.from_numpy(nodes), torch.from_numpy(weights), n)

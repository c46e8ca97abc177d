r"""Duals of functions with one kink, at zero, and any smooth shape on either side (ELU, SELU, softsign), tabulated by the angle.

In polar coordinates $u = \sqrt{S_{ii}}\,r\sin\alpha$, $v = \sqrt{S_{jj}}\,r\sin\beta$, where the signs of $u$ and $v$ part the plane into
sectors: two with $\alpha+\beta = \pi-\theta$, where they agree, two with $\alpha+\beta = \theta$, where they do not. In each the function
is smooth, so Gauss-Legendre panels in $r$ and $\alpha$ integrate $E(\theta) = \mathbb{E}[f(u)f(v)]$ to rounding. And $E$ is smooth in
$\theta\in[0,\pi]$ and in $\log S_{ii}$, $\log S_{jj}$: a table over Chebyshev nodes, made once for an activation and a band of
variances, gives it for every pair. With $K$ the table of $\sigma'$ and $D_0$ the half distance at $\theta=0$, half distances are
$D_0 + \sqrt{S_{ii}S_{jj}}\int_0^\theta K\sin\tau\,d\tau$, where nothing cancels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from zeroloss.errors import ArgumentError
from zeroloss.kernels.pairs import Pairs
from zeroloss.networks import Activation, gaussian_rule

BAND = math.log(4.0)  # of log variance
NODES = (16, 24, 32)  # Chebyshev nodes a band: as many as are needed
ANGLES = (32, 64, 128)  # Chebyshev nodes in the angle: as many as are needed
SETTLED = 1e-13  # relative to the largest: the last coefficients of a table that is resolved
WORST = 1e-10  # beyond this, with the most nodes, a table is refused
SMALLEST = 1e-30  # a variance below it is taken for it
RADII = (0.0, 1 / 16, 1 / 4, 3 / 4, 1.5, 2.5, 4.0, 6.0, 9.0)  # panels, finer towards the kink
TURNS = (0.0, 2**-7, 2**-5, 2**-3, 5 / 16, 1 / 2, 11 / 16, 1 - 2**-3, 1 - 2**-5, 1 - 2**-7, 1.0)  # of a sector, likewise
POINTS = 12  # Gauss-Legendre points a panel


@dataclass(frozen=True, eq=False)
class Table:
    r"""Moments over Chebyshev nodes of log variance, with their Chebyshev coefficients in the angle.

    Args:
        slope: of $\mathbb{E}[\sigma'(u)\sigma'(v)]$, k×a×a.
        drop: of $\int_0^\theta\mathbb{E}[\sigma'\sigma']\sin\tau\,d\tau/(1-\cos\theta)$, k×a×a.
        shape: $\sigma(\sqrt v\,\cdot)$ as a vector whose distances are those of $L^2$ under the normal law, a×a.
        mean: $\mathbb{E}\sigma$, a.
        second: $\mathbb{E}\sigma^2$, a.
    """

    slope: Float[Tensor, "k a a"]
    drop: Float[Tensor, "k a a"]
    shape: Float[Tensor, "a a"]
    mean: Float[Tensor, " a"]
    second: Float[Tensor, " a"]


@dataclass(frozen=True, eq=False)
class Sectors:
    """Where some pairs lie in a table.

    Args:
        bands: of variances, that the table covers.
        left: interpolation weights of the first set over the table's nodes, a×n1.
        right: of the second, a×n2.
        place: the angle, from -1 at 0 to 1 at a half turn.
    """

    bands: tuple[int, ...]
    left: Float[Tensor, "a n1 *p"]
    right: Float[Tensor, "a n2 *p"]
    place: Float[Tensor, "n1 n2 *p"]

    def at(self, coefficients: Float[Tensor, "k a a"]) -> Float[Tensor, "n1 n2 *p"]:
        """The sum of one of the table's series for every pair, by Clenshaw's recursion."""
        before, here = torch.zeros_like(self.place), torch.zeros_like(self.place)
        for k in range(len(coefficients) - 1, -1, -1):
            term = self._pairs(coefficients[k])
            before, here = here, (2 if k else 1) * self.place * here - before + term
        return here

    def _pairs(self, matrix: Tensor) -> Tensor:
        return torch.einsum("bi...,bj...->ij...", torch.einsum("ab,ai...->bi...", matrix, self.left), self.right)


def _placed(activation: Activation, pairs: Pairs) -> Sectors:
    logs = [side.clamp(min=SMALLEST).log() / BAND for side in (pairs.left, pairs.right)]
    bands = tuple(int(b) for b in torch.unique(torch.cat([values.flatten() for values in logs]).floor()))
    theta = 2 * torch.asin((pairs.versine / 2).sqrt().clamp(max=1))
    count = _count(activation, bands)
    return Sectors(bands, _weights(logs[0], bands, count), _weights(logs[1], bands, count), 2 / math.pi * theta - 1)


def sector_sums(activation: Activation, pairs: Pairs) -> tuple[Float[Tensor, "n1 n2 *p"], Float[Tensor, "n1 n2 *p"]]:
    r"""Half distances after the activation, and $\mathbb{E}[\sigma'(u)\sigma'(v)]$.

    Args:
        activation: one with its only kink at 0.
        pairs: the pre-activations.

    Returns:
        Half distances and slopes, both as ``pairs.versine`` in shape.

    Raises:
        ArgumentError: where the function is so steep at the largest variance that no table resolves it.

    Example:
        >>> from zeroloss.networks import activation_of
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> _, slope = sector_sums(activation_of(torch.nn.ELU()), Pairs(one, one, one[:, None]))  # rho = 0: a mean's square
        >>> round(float(slope), 10) == round((0.5 + math.exp(0.5) * math.erfc(math.sqrt(0.5)) / 2) ** 2, 10)
        True
    """
    at = _placed(activation, pairs)
    table = _table(activation, at.bands, str(pairs.versine.device))
    gap = torch.zeros_like(pairs.versine)
    for one, other in zip(*(torch.tensordot(table.shape, side, 1) for side in (at.left, at.right)), strict=True):
        gap += (one[:, None] - other[None]) ** 2 / 2
    half = gap + pairs.scale * pairs.versine * at.at(table.drop)
    return half.clamp(min=0), at.at(table.slope)


def sector_moments(activation: Activation, pairs: Pairs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""$\mathbb{E}\sigma$ of the first set and of the second, then $\mathbb{E}\sigma^2$ of both; otherwise as :func:`sector_sums`."""
    at = _placed(activation, pairs)
    table = _table(activation, at.bands, str(pairs.versine.device))
    (mean, mean_right), (second, second_right) = (
        [torch.tensordot(moment, side, 1) for side in (at.left, at.right)] for moment in (table.mean, table.second)
    )
    return mean, mean_right, second, second_right


def sector_gains(activation: Activation, pairs: Pairs) -> Float[Tensor, "n1 n2 *p"]:
    r"""$\mathbb{E}[u\sigma'(u)\,v\sigma'(v)]$ (:mod:`zeroloss.kernels.gains`).

    Args:
        activation: one with its only kink at 0.
        pairs: the pre-activations.

    Returns:
        One expectation a pair.
    """
    at = _placed(activation, pairs)
    return at.at(_series(activation, at.bands, gain=True).to(pairs.versine.device))


def _weights(place: Float[Tensor, " n *p"], bands: tuple[int, ...], count: int) -> Float[Tensor, "a n *p"]:
    """Lagrange's polynomials of every band, zero for the variances outside it."""
    found = []
    order = torch.arange(count, dtype=place.dtype, device=place.device)
    transform = _transform(count).to(place.device)
    for band in bands:
        inside = place.floor() == band
        angle = (2 * (place - band) - 1).clamp(-1, 1).acos()
        chebyshev = torch.cos(order.reshape(-1, *[1] * place.ndim) * angle)
        found.append(torch.tensordot(transform.mT, chebyshev, 1) * inside)
    return torch.cat(found)


@lru_cache(maxsize=64)
def _table(activation: Activation, bands: tuple[int, ...], device: str) -> Table:
    slope = _series(activation, bands, gain=False)
    root = _roots(bands, _count(activation, bands))
    z, weight = (t[0] for t in gaussian_rule(torch.ones(1, dtype=torch.float64)))
    value = activation.function(root[:, None] * z)
    shape = torch.linalg.qr((value * weight.sqrt()).T).R
    parts = (slope, torch.tensordot(_falling(len(slope)), slope, 1), shape, value @ weight, value**2 @ weight)
    return Table(*(part.to(device) for part in parts))


@lru_cache(maxsize=64)
def _series(activation: Activation, bands: tuple[int, ...], gain: bool) -> Float[Tensor, "k a a"]:
    r"""The Chebyshev coefficients in the angle of $\mathbb{E}[f(u)f(v)]$ over the nodes, $f(z)=\sigma'(z)$ or $z\sigma'(z)$."""
    root = _roots(bands, _count(activation, bands))
    z, weight = (t[0] for t in gaussian_rule(torch.ones(1, dtype=torch.float64)))
    exact = _steepness(activation, root[:, None] * z, gain) ** 2 @ weight
    steepest = root[root.argmax()][None]
    for count in ANGLES:  # the largest variance needs the most angles: it is tried alone
        alone = _by_angle(activation, steepest, count, gain)
        if float(alone[-4:].abs().max()) <= SETTLED * float(exact[root.argmax()]):
            break
    found = _by_angle(activation, root, count, gain)
    rest = float((found[-4:].abs() / (exact[:, None] * exact).sqrt()).max())
    # theta = 0 is the other end of the series, and known by another rule
    start = (found * (-1.0) ** torch.arange(len(found))[:, None, None]).sum(0).diagonal()
    rest = max(rest, float(((start - exact).abs() / exact).max()))
    if rest > WORST:
        raise _too_steep(activation, bands)
    return found


@lru_cache(maxsize=256)
def _count(activation: Activation, bands: tuple[int, ...]) -> int:
    """How many nodes a band needs for what is interpolated in it, the function and its slope as vectors over the normal law."""
    z, weight = (t[0] for t in gaussian_rule(torch.ones(1, dtype=torch.float64)))
    for count in NODES:
        points = _roots(bands, count)[:, None] * z
        rest = 0.0
        for values in (activation.function(points), activation.derivative(points), points * activation.derivative(points)):
            vectors = (values * weight.sqrt()).reshape(len(bands), count, -1)
            sizes = torch.linalg.vector_norm(torch.einsum("kn,bnz->bkz", _transform(count), vectors), dim=2)
            rest = max(rest, float((sizes[:, -2:].amax(1) / sizes.amax(1)).max()))
        if rest <= SETTLED:
            break
    if rest > WORST:
        raise _too_steep(activation, bands)
    return count


def _too_steep(activation: Activation, bands: tuple[int, ...]) -> ArgumentError:
    return ArgumentError(
        "x",
        f"gives pre-activations of variance {math.exp(BAND * bands[-1]):.3g}, at which {activation.name} is too steep for its limit",
        "divide the inputs by a number, or put them on the unit sphere",
    )


def _roots(bands: tuple[int, ...], count: int) -> Float[Tensor, " a"]:
    """Standard deviations at the nodes of some bands."""
    nodes = torch.cos(math.pi / (2 * count) * (2 * torch.arange(count, dtype=torch.float64) + 1))
    return torch.cat([torch.exp(BAND / 2 * (band + (nodes + 1) / 2)) for band in bands])


def _steepness(activation: Activation, z: Tensor, gain: bool) -> Tensor:
    slope = activation.derivative(z)
    return z * slope if gain else slope


def _by_angle(activation: Activation, root: Tensor, count: int, gain: bool) -> Float[Tensor, "k a a"]:
    """The series of :func:`_series` with that many terms, from as many angles."""
    t, weight = _panels(TURNS)
    r, radial = _panels(RADII)
    radial = radial * r * torch.exp(-(r**2) / 2) / (2 * math.pi)
    both = (weight[:, None] * radial).flatten()
    values = []
    for place in torch.cos(math.pi / (2 * count) * (2 * torch.arange(count, dtype=torch.float64) + 1)):
        theta = float((place + 1) * math.pi / 2)
        total = torch.zeros(len(root), len(root), dtype=torch.float64)
        for length, agree in ((math.pi - theta, True), (theta, False)):
            z = root[:, None, None] * torch.sin(length * t)[:, None] * r
            above, below = _steepness(activation, z, gain), _steepness(activation, -z, gain)
            for one, other in ((above, above), (below, below)) if agree else ((above, below), (below, above)):
                total += length * ((one.flatten(1) * both) @ other.flip(1).flatten(1).T)
        values.append(total)
    series: Tensor = torch.tensordot(_transform(count), torch.stack(values), 1)
    return series


def _falling(count: int) -> Float[Tensor, "k k"]:
    r"""From the series of $K$ to that of $\int_0^\theta K\sin\tau\,d\tau/(1-\cos\theta)$."""
    s, weight = (torch.from_numpy(part) / 2 for part in np.polynomial.legendre.leggauss(count))
    s = s + 0.5
    order = torch.arange(count, dtype=torch.float64)
    place = torch.cos(math.pi / (2 * count) * (2 * order + 1))
    theta = (place + 1) * math.pi / 2
    inner = theta[:, None] * s
    mass = weight * torch.sin(inner) * theta[:, None] / (2 * torch.sin(theta / 2) ** 2)[:, None]
    chebyshev = torch.cos(order[:, None, None] * (2 / math.pi * inner - 1).clamp(-1, 1).acos())
    return _transform(count) @ (chebyshev * mass).sum(-1).mT


def _transform(count: int) -> Float[Tensor, "k n"]:
    """From values at Chebyshev nodes to coefficients; angles modulo a whole turn, so that high orders lose no digits."""
    order = torch.arange(count, dtype=torch.float64)
    transform = 2 / count * torch.cos(math.pi / (2 * count) * ((2 * order + 1) * order[:, None] % (4 * count)))
    transform[0] /= 2
    return transform


def _panels(edges: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre points and weights on every panel."""
    x, weight = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(POINTS))
    ends = torch.tensor(edges, dtype=torch.float64)
    half, middle = (ends[1:] - ends[:-1]) / 2, (ends[1:] + ends[:-1]) / 2
    return (middle[:, None] + half[:, None] * x).flatten(), (half[:, None] * weight).flatten()

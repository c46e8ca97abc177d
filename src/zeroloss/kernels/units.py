r"""Units for the compiled sums over ReLU convolutions: moments and tangent kernels about 1 in every layer.

So float32 neither overflows at a large width nor underflows at a deep one. The units follow from the data before anything is summed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from zeroloss.kernels.stacks import Stack


@dataclass(frozen=True, eq=False)
class Units:
    """The numbers of every layer in units that fit the data.

    Args:
        table: one array of layers×5 a slice of the tangent kernel, what :func:`zeroloss.kernels.planes.duals` calls shift, gain, carry,
            add_s and add_1.
        inputs: the unit of the inputs' second moments.
        roots: the unit of every layer's variances.
        moments: the unit of the last layer's moments.
        tangents: the unit of its tangent kernel, one a slice.
    """

    table: tuple[np.ndarray, ...]
    inputs: float
    roots: tuple[float, ...]
    moments: float
    tangents: tuple[float, ...]


def variances_of(stack: Stack, x: Float[Tensor, "n c h w"]) -> list[Float[Tensor, "n h w"]]:
    """Variances of the pre-activations of every layer, pixel by pixel."""
    moments, found = x.square().mean(dim=1), []
    for stage in stack.stages:
        found.append(stage.variances(moments))
        moments = found[-1] * (stage.after / 2)
    return found


def units_of(stack: Stack, x: Float[Tensor, "n c h w"], parts: Mapping[nn.Module, int], slices: int) -> Units:
    r"""Units $u_l$ of moments and $t_l$ of tangent kernels, and every layer's numbers in them.

    With $S=u\hat S$, $T=t\hat T$ a layer is $\hat S' = \frac{c'c\,vm\,u}{2u'}\,s_xs_y\,\kappa_1(\rho)$, where
    $\rho=(\mathcal{P}\hat S+\frac{b}{vm\,u})/(s_xs_y)$ and $s^2=K/(c\,vm\,u)$, and
    $\hat T' = \frac{c'c}{2t'}\,(vm\,t\,\mathcal{P}\hat T+[W]\,m\,u\,\mathcal{P}\hat S+[b])\,\kappa_0(\rho)$.

    Args:
        stack: the module.
        x: the first set.
        parts: which slice each trained layer adds to.
        slices: how many there are; at least one table is made.

    Returns:
        The units.
    """
    inputs = _positive(float(x.square().mean()))
    variances = [float(v.mean()) for v in variances_of(stack, x)]
    tables: list[np.ndarray] = []
    tangents: list[float] = []
    roots: list[float] = []
    unit = inputs
    for part in range(max(1, slices)):
        unit, tangent, roots, rows = inputs, 0.0, [], []
        for stage, variance in zip(stack.stages, variances, strict=True):
            weights, bias = stage.trained(parts, part)
            half, count = stage.after * stage.before / 2, math.prod(stage.patches.kernel)
            following = _positive(stage.after * variance / 2)
            width = stage.layer.in_channels
            grown = half * (stage.gain * tangent * count + weights * width * unit * count + bias)
            new = _positive(grown)
            shift, add_s = stage.bias / (stage.gain * unit), half * weights * width * unit / new
            carry = half * stage.gain * tangent / new
            rows.append((shift, half * stage.gain * unit / following, carry, add_s, half * bias / new - add_s * shift))
            roots.append(stage.before * stage.gain * unit)
            unit, tangent = following, grown
        tables.append(np.array(rows))
        tangents.append(tangent)
    return Units(tuple(tables), inputs, tuple(roots), unit, tuple(tangents))


def _positive(value: float) -> float:
    return value if value > 0 else 1.0

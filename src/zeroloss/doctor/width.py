r"""Width advice: $\lambda_{\min}$ of the Gram at a few widths, extrapolated.

The Gram of a network of width m errs from its limit by about $m^{-1/2}$ (AZ Theorem 3, DU Lemma on $G(0)$; THEORY 3.7), so the smallest
eigenvalue over the mean of the diagonal, which no parameterisation changes, is fitted by $\nu(m)=\nu_\infty - a\,m^{-1/2}$.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from zeroloss.doctor.finding import Finding, Severity, listed, percent
from zeroloss.doctor.subject import Subject, as_tokens, take
from zeroloss.doctor.tangent import full_gram
from zeroloss.errors import ArgumentError
from zeroloss.networks import Network, cnn, conv_resnet, fully_connected, resnet, weight_layers

FACTORS = (0.125, 0.25, 0.5, 1.0, 2.0)
SEEDS = 2
ROWS = 200  # n·k of the Grams here
LARGEST = 10**7  # parameters; larger networks than the user's own are not built beyond that
ENOUGH = 0.9  # of the limit

_BUILDERS: dict[str, Callable[..., Network]] = {
    "fully_connected": fully_connected,
    "resnet": resnet,
    "cnn": cnn,
    "conv_resnet": conv_resnet,
}


@dataclass(frozen=True)
class WidthAdvice:
    r"""How the smallest eigenvalue grows with width.

    Args:
        widths: ascending.
        smallest: the mean of $\lambda_{\min}$ over the mean diagonal entry, at each.
        limit: $\nu_\infty$; at most 0 where no positive limit is in sight.
        slope: a.
        rows: how many rows the Grams have.
        own: the width asked about.
    """

    widths: tuple[int, ...]
    smallest: tuple[float, ...]
    limit: float
    slope: float
    rows: int
    own: int

    @property
    def enough(self) -> int | None:
        """The width at which nine tenths of the limit are reached; None where the fit has no positive limit."""
        if not self.limit > 0:
            return None
        return 1 if self.slope <= 0 else math.ceil((self.slope / ((1 - ENOUGH) * self.limit)) ** 2)


def rebuild(network: nn.Module) -> Callable[[int, int], nn.Module] | None:
    """From width and seed to a network like the given one; None where no builder of this library made it.

    Args:
        network: any module.

    Returns:
        The function.

    Example:
        >>> rebuild(fully_connected(3, 8, 1))(16, 0).architecture.width
        16
    """
    if not isinstance(network, Network) or getattr(network, "architecture", None) is None:
        return None
    a = network.architecture
    builder = _BUILDERS.get(a.family)
    if builder is None:
        return None
    options: dict[str, object] = {}
    if a.kernel != (0, 0):
        options |= {"kernel": a.kernel, "padding": a.padding}
    if a.family in ("resnet", "conv_resnet"):
        options |= {"c_res": a.c_res} if a.scheme == "du" else {"tau": a.tau}
    if a.family == "resnet" and a.scheme == "allen-zhu":
        options |= {"block": a.block, "last_plain": a.last_plain}
    trained = [name for name, layer in weight_layers(network).items() if any(p.requires_grad for p in layer.parameters())]

    def build(width: int, seed: int) -> nn.Module:
        widths = [max(1, round(m * width / a.width)) for m in a.widths]
        return builder(
            a.inputs,
            widths,
            a.depth,
            a.outputs,
            activation=a.activation,
            scheme=a.scheme,
            trained=trained,
            seed=seed,
            **options,
        )

    return build


def advise_width(subject: Subject, build: Callable[[int, int], nn.Module], own: int) -> WidthAdvice:
    """Measure the smallest eigenvalue at a quarter to twice the width, and fit.

    Args:
        subject: for its rows.
        build: from width and seed to a network.
        own: the width asked about.

    Returns:
        The fit.

    Raises:
        ArgumentError: where a network of another width does not take the data.
    """
    k = subject.sample.outputs
    rows = tuple(range(min(subject.sample.n, max(2, ROWS // k))))
    data = take(subject.sample, rows)
    factors = [f for f in FACTORS if f <= 1 or subject.parameters * f**2 <= LARGEST]
    widths = tuple(sorted({max(1, round(own * factor)) for factor in factors[-4:]}))
    means = []
    for width in widths:
        values = []
        for seed in range(SEEDS):
            try:
                network = build(width, seed).double().eval()
                if subject.tokens:
                    network.register_forward_pre_hook(as_tokens)
                matrix = full_gram(network, data.x)
            except ArgumentError:
                raise
            except Exception as error:  # a user's build may raise anything
                raise ArgumentError("build", f"fails at width {width} ({error})", "let it give a network of any width") from error
            scale = float(matrix.diagonal().mean())
            values.append(float(torch.linalg.eigvalsh(matrix)[0]) / scale if scale > 0 else 0.0)
        means.append(sum(values) / len(values))
    limit, slope = fit(widths, means)
    return WidthAdvice(widths, tuple(means), limit, slope, len(rows), own)


def fit(widths: tuple[int, ...], values: list[float]) -> tuple[float, float]:
    r"""Least squares for $\nu_\infty - a\,m^{-1/2}$.

    Args:
        widths: m.
        values: $\nu$.

    Returns:
        $\nu_\infty$ and a.

    Example:
        >>> limit, slope = fit((16, 64, 256), [1 - 2 / 4, 1 - 2 / 8, 1 - 2 / 16])
        >>> round(limit, 9), round(slope, 9)
        (1.0, 2.0)
    """
    if len(widths) < 2:
        return values[-1], 0.0
    design = torch.tensor([[1.0, -(m**-0.5)] for m in widths], dtype=torch.float64)
    solution = torch.linalg.lstsq(design, torch.tensor(values, dtype=torch.float64)[:, None]).solution.flatten()
    return float(solution[0]), float(solution[1])


def width_findings(advice: WidthAdvice | None, why_not: str) -> Iterator[Finding]:
    """What is to be said of the width.

    Args:
        advice: the fit, or None.
        why_not: why there is none.

    Yields:
        One finding.
    """
    if advice is None:
        yield Finding(Severity.INFO, "Width", why_not)
        return
    pairs = listed([f"{v:.3g} at {m:,}" for m, v in zip(advice.widths, advice.smallest, strict=True)])
    head = f"λ_min over the mean diagonal of the Gram on {advice.rows} rows is {pairs}"
    numbers = {"limit": advice.limit, "slope": advice.slope, "own": advice.own}
    if advice.enough is None or max(advice.smallest) < 1e-12:
        yield Finding(Severity.INFO, "Width", f"{head}: no positive limit is in sight, so width alone will not help.", numbers)
        return
    now = advice.limit - advice.slope * advice.own**-0.5
    reach = f"{percent(ENOUGH)} of it by width {advice.enough:,}"
    yield Finding(
        Severity.INFO,
        "Width",
        f"{head}; extrapolated to {advice.limit:.3g} at infinite width, {reach}. At width {advice.own:,} it is "
        f"{percent(max(now, 0.0) / advice.limit)} of the limit"
        + (
            "."
            if advice.enough <= advice.own
            else f": a wider network fits in fewer steps, by a factor of up to {advice.limit / max(now, 1e-300):.3g}."
        ),
        numbers,
    )

r"""Whether a network is as wide as its theorem asks: in practice never, and a verdict has to say so."""

from __future__ import annotations

import math

from zeroloss.claims.evidence import Run


def required_width(run: Run) -> float:
    r"""$\log_{10}$ of the width that the theorem covering a run asks for, with every hidden constant set to 1.

    AZ Theorem 1: $k\,n^{24}L^{12}/\delta^8$ (later versions, from memory: THEORY section 4, C6). DU Theorem 5.1:
    $2^H\max\{n^4/\lambda^4,\ n/p,\ n^2\log(Hn/p)/\lambda^2\}$; Theorem 6.1: $\max\{n^4/(\lambda^4H^6),\ n^2/(\lambda^2H^2),\dots\}$;
    Theorem 7.1: the same with $n^4/(\lambda^4H^2)$, and a polynomial of the pixels that is not counted. AZ Theorems 6 and 7 give no powers;
    Theorem 1's are a lower reading of them. All
    with failure probability p = 0.1 and $\lambda=\lambda_{\min}(K^{(H)})$.

    Args:
        run: the run.

    Returns:
        The logarithm; infinite where $\delta$ or $\lambda$ is 0.
    """
    a, n, p = run.architecture, float(run.n), 0.1
    if a.scheme == "allen-zhu":
        if run.separation <= 0:
            return math.inf
        return math.log10(a.outputs) + 24 * math.log10(n) + 12 * math.log10(a.depth) - 8 * math.log10(run.separation)
    lam, h = run.last_hidden_limit, float(a.depth)
    if lam <= 0:
        return math.inf
    last = [math.log10(n / p), 2 * math.log10(n / lam) + math.log10(math.log(h * n / p))]
    if a.family == "fully_connected":
        return h * math.log10(2) + max(4 * math.log10(n / lam), *last)
    if a.family == "conv_resnet":
        return max(4 * math.log10(n / lam) - 2 * math.log10(h), *last)
    return max(4 * math.log10(n / lam) - 6 * math.log10(h), 2 * math.log10(n / (lam * h)), *last)


def regime(run: Run) -> str:
    """One phrase: inside the proven regime, or outside it and by how much."""
    needed = required_width(run)
    if math.log10(run.architecture.width) >= needed:
        return f"inside the proven regime as far as the width goes (10^{needed:.0f} with constants set to 1)"
    asked = "no finite width" if math.isinf(needed) else f"width 10^{needed:.0f} with constants set to 1"
    if run.architecture.family != "fully_connected" and (run.architecture.scheme == "allen-zhu" or run.architecture.images):
        asked += " or more (its polynomial is not explicit)"
    return f"outside the proven regime: the theorem asks for {asked}, this network has {run.architecture.width}"

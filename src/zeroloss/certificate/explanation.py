"""A certificate in words: what is proved, or which inequality binds and what would make it hold."""

from __future__ import annotations

from zeroloss.certificate.certificate import ASSUMPTIONS, Certificate, Status
from zeroloss.certificate.theorems import Descent, Fails, Stochastic


def explain(certificate: Certificate) -> str:
    """The text of :meth:`zeroloss.Certificate.explain`.

    Args:
        certificate: any.

    Returns:
        A few lines.

    Example:
        >>> from zeroloss.certificate.certificate import Numbers
        >>> print(explain(Certificate(Status.REFUSED, "N = 3 equations exceed P = 2", "flow", Numbers(N=3, P=2))))
        REFUSED: N = 3 equations exceed P = 2.
        What would help: train more layers or a wider network, or fit fewer rows: there must be at least 3 trained numbers.
    """
    c = certificate
    lines = [f"{c.status}: {c.reason}."]
    if c.status is Status.PROVED:
        lines += ["", *_inequalities(c), "", "Assumed: " + "; ".join(ASSUMPTIONS) + "."]
    elif c.status is Status.IMPOSSIBLE:
        lines.append("What would help: drop or relabel these rows, or give them inputs that tell them apart.")
    else:
        lines += [*_inequalities(c), f"What would help: {_remedy(c)}"]
    return "\n".join(lines)


def _inequalities(c: Certificate) -> list[str]:
    n = c.numbers
    if n.residual != n.residual:  # was not reached
        return []
    lines = [
        f"equations: N = {n.N} (of {n.rows} rows, {n.samples} different), unknowns: P = {n.P}",
        f"residual at the weights:       ‖r‖ <= ρ  = {n.residual:.4g}",
    ]
    if n.sigma0 == n.sigma0:
        lines += [
            f"smallest singular value of J:  >= σ0 = {n.sigma0:.4g} (squared {n.sigma0**2:.4g}; as computed {n.near:.4g})",
            f"largest singular value of J:   <= β0 = {n.beta0:.4g}",
        ]
    if c.lipschitz == c.lipschitz:
        found = {"flow": c.flow, "gd": c.gd, "sgd": c.sgd, "newton": c.newton}[c.method]
        radius = 0.0 if found is None else found.radius
        lines.append(f"Lipschitz constant of J:       <= Λ = {c.lipschitz:.4g} on the ball of radius R = {radius:.4g}")
        if c.method == "flow":
            lines.append(f"Theorem 1 asks for h = Λρ/σ0² < 1/2:  h = {c.h:.3g}")
        elif isinstance(c.gd, Descent) and c.method == "gd":
            left, right = 2 * c.gd.lipschitz * n.residual, (c.gd.c * n.sigma0) ** 2
            lines.append(f"Theorem 2 asks for 2Λρ < c²σ0²:  {left:.3g} < {right:.3g}, c = {c.gd.c:.3g}")
        elif isinstance(c.sgd, Stochastic) and c.method == "sgd":
            lines.append(f"Theorem 3: q = 1 - {c.sgd.rate:.3g}, probability of leaving the ball at most {c.sgd.delta:.3g}")
    if n.cell_margin < float("inf"):
        lines.append(f"distance to the nearest kink over the largest movement: {n.cell_margin:.3g}, which must exceed 1")
    return lines


def _remedy(c: Certificate) -> str:
    n = c.numbers
    if n.N > n.P:
        return f"train more layers or a wider network, or fit fewer rows: there must be at least {n.N} trained numbers."
    if "overflow" in c.reason:
        return "rescale the inputs, targets or weights."
    if "lie on a kink" in c.reason:
        return (
            "polish(module, data), which moves weights off kinks; a smooth activation; or a unit less that is dead for all rows."
        )
    if n.sigma0 != n.sigma0:
        return (
            "a wider network, more trained layers, fewer or better separated rows (near-duplicates make the Gram matrix singular), or a "
            "head that is not zero."
        )
    finer = "" if c.precision == "extended" else " and precision='extended'"
    found = {"flow": c.flow, "gd": c.gd, "sgd": c.sgd, "newton": c.newton}[c.method]
    if not isinstance(found, Fails):
        return f"a smaller residual, so that the ball shrinks: polish(module, data){finer}; fewer rows or a smooth activation."
    if c.method == "sgd":
        return f"a smaller step, larger batches, or a smaller residual: polish(module, data){finer}."
    if c.method == "gd" and found.right == 1.0:
        return f"a step below 2/β² = {2 / n.beta0**2:.3g}."
    needed = 0.5 * n.sigma0**2 / found.lipschitz
    return (
        f"a residual below σ0²/2Λ = {needed:.3g} (now {n.residual:.3g}): polish(module, data){finer}; a wider network (h shrinks like "
        f"1/√m); or, from initial weights, an output scale larger by {n.residual / needed:.3g}."
    )

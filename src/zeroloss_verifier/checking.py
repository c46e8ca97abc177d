"""One certificate, from its files to the answer."""

from __future__ import annotations

import os
from collections.abc import Iterator

from flint import arb, arb_mat

from zeroloss_verifier.ball import Ball
from zeroloss_verifier.balls import Row, exact, matrix, norm, precision, rows_of
from zeroloss_verifier.definite import is_semidefinite
from zeroloss_verifier.document import Certificate, read_certificate
from zeroloss_verifier.facts import BallFacts
from zeroloss_verifier.jacobian import jacobian_gram, residual_square, weighted_residual
from zeroloss_verifier.network import affine_stages
from zeroloss_verifier.outcome import RejectedError, TooLargeError, UnprovenError, Verified
from zeroloss_verifier.passes import Passes, run_passes
from zeroloss_verifier.theorems import Numbers, hold_descent, hold_flow, hold_newton, hold_stochastic
from zeroloss_verifier.work import refuse_work

PRECISIONS = (128, 384)  # bits; what cannot be decided with the first is tried with the second
EXACT = 1024  # bits for the theorems' inequalities between claimed numbers: nothing is lost but in roots
THEOREMS = {"gd": 2, "sgd": 3, "newton": 4}
NAMES = {"flow": "gradient flow", "gd": "gradient descent", "sgd": "stochastic gradient descent", "newton": "Newton's step"}


def verify(path: str | os.PathLike[str]) -> Verified:
    """Check a certificate, trusting nothing in its files but the tensors.

    Args:
        path: of the JSON, with or without its ending; the tensors' file lies beside it.

    Returns:
        ACCEPTED where every claim was confirmed; REJECTED with the first that was not; TOO_LARGE where there is too much to recompute.

    Raises:
        FileNotFoundError: where there is no such file.
        PermissionError: where it cannot be read.

    Example:
        >>> verify("no-such-file")
        Traceback (most recent call last):
        ...
        FileNotFoundError: there is no certificate at no-such-file.json
    """
    covered: list[str] = []
    try:
        certificate = read_certificate(path)
        covered.append("format of both files, sha256 of the tensors")
        _hold_counts(certificate)
        with precision(EXACT):
            covered.extend(_hold_theorems(certificate))
        refuse_work(certificate)
        for bits in PRECISIONS:
            done = len(covered)
            try:
                with precision(bits):
                    covered.extend(_confirm(certificate))
                break
            except UnprovenError:
                if bits == PRECISIONS[-1]:
                    raise
                del covered[done:]
    except RejectedError as error:
        return Verified("REJECTED", str(error), tuple(covered))
    except (TooLargeError, MemoryError) as error:
        return Verified("TOO_LARGE", str(error) or "there is not enough memory", tuple(covered))
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # whatever a hostile file finds: never a crash, never an acceptance
        return Verified("REJECTED", f"it could not be read: {type(error).__name__}: {error}"[:300], tuple(covered))
    proved = [NAMES["flow"]] * bool(certificate.flow) + [NAMES[name] for name in certificate.sections]
    return Verified("ACCEPTED", f"an exact zero-loss minimum, proved for {', '.join(proved)}", tuple(covered))


def _hold_counts(certificate: Certificate) -> None:
    tensors, counts = certificate.tensors, certificate.counts
    x, y, repeats = tensors["x"], tensors["y"], tensors["multiplicity"]
    trained = [
        name
        for stage in affine_stages(certificate.network)
        for part, name in (("weight", stage.weight), ("bias", stage.bias))
        if part in stage.trained and name is not None
    ]
    if len(x.shape) not in (2, 4) or len(y.shape) != 2 or repeats.shape != x.shape[:1] or y.shape[0] != x.shape[0]:
        raise RejectedError(f"x, y and multiplicity have the shapes {list(x.shape)}, {list(y.shape)}, {list(repeats.shape)}")
    if not all(1 <= count <= 2**53 and count == int(count) for count in repeats.values):
        raise RejectedError("a multiplicity is not a positive whole number")
    seen = {"samples": x.shape[0], "outputs": y.shape[1], "N": x.shape[0] * y.shape[1]}
    seen["P"] = sum(len(tensors[name].values) for name in trained)
    for name, count in seen.items():
        if counts[name] != count:
            raise RejectedError(f"claims.{name} is {counts[name]}, and the tensors say {count}")
    if counts["N"] > counts["P"]:
        raise RejectedError(f"N = {counts['N']} exceeds P = {counts['P']}: the theorems never apply")


def _confirm(certificate: Certificate) -> Iterator[str]:
    tensors = certificate.tensors
    claims = {name: arb(number) for name, number in (certificate.constants | certificate.flow).items()}
    roots = [arb(count).sqrt() if count != 1 else arb(1) for count in tensors["multiplicity"].values]
    passes = run_passes(certificate.network, tensors)
    if (passes.samples, passes.width) != tensors["y"].shape:
        raise RejectedError(f"the network has {passes.width} outputs, and y has {tensors['y'].shape[1]}")
    targets = exact(tensors["y"].values, passes.width)
    yield "forward pass from the definition"
    if not residual_square(passes, targets, roots) <= claims["residual"] ** 2:
        raise UnprovenError("the residual is not at most claims.residual")
    yield "residual"
    G, explicit = jacobian_gram(passes, roots)
    how = "explicit Jacobian" if explicit else "Jacobian by the product rule"
    if not claims["sigma0"] > 0:
        raise RejectedError("claims.sigma0 is not positive")
    if not is_semidefinite(G - _identity(G.nrows(), claims["sigma0"] ** 2)):
        raise UnprovenError("the smallest singular value of the Jacobian is not at least claims.sigma0, as far as can be proved")
    yield f"smallest singular value, {how}"
    if not is_semidefinite(_identity(G.nrows(), claims["beta0"] ** 2) - G):
        raise UnprovenError("the norm of the Jacobian is not at most claims.beta0, as far as can be proved")
    yield f"norm of the Jacobian, {how}"
    balls = Balls(passes, BallFacts(passes, roots))
    balls.hold("claims", claims)
    yield "Lipschitz constant and linear pieces on the ball of the claims"
    for name, section in certificate.sections.items():
        numbers = {key: arb(number) for key, number in section.items()}
        balls.hold(name, numbers)
        yield f"Lipschitz constant and linear pieces on the ball of {NAMES[name]}"
        if name == "newton":
            _hold_newton_step(G, weighted_residual(passes, targets, roots), claims, numbers)
            yield "length of Newton's step"


def _hold_theorems(certificate: Certificate) -> Iterator[str]:
    """The inequalities between the claimed constants, which are confirmed afterwards."""
    claims = {name: arb(number) for name, number in (certificate.constants | certificate.flow).items()}
    if certificate.flow:
        hold_flow(claims)
        yield f"Theorem 1, {NAMES['flow']}"
    for name, section in certificate.sections.items():
        numbers = {key: arb(number) for key, number in section.items()}
        if name == "gd":
            hold_descent(claims, numbers)
        elif name == "sgd":
            hold_stochastic(claims, numbers, arb(sum(map(int, certificate.tensors["multiplicity"].values))))
        else:
            hold_newton(claims, numbers)
        yield f"Theorem {THEOREMS[name]}, {NAMES[name]}"


class Balls:
    """The balls that a certificate speaks of; two of one radius are computed once."""

    def __init__(self, passes: Passes, facts: BallFacts) -> None:
        self.passes, self.facts = passes, facts
        self.known: list[tuple[arb, Ball]] = []

    def hold(self, where: str, numbers: Numbers) -> None:
        """Confirm a section's Lipschitz constant on its ball.

        Raises:
            UnprovenError: where this verifier's own bound is larger, or a unit may change its piece.
        """
        ball = next((ball for radius, ball in self.known if radius == numbers["R"]), None)
        if ball is None:
            ball = Ball(self.passes, self.facts, numbers["R"])
            self.known.append((numbers["R"], ball))
        if not ball.has_lipschitz(numbers["lipschitz"]):
            raise UnprovenError(
                f"the verifier's own Lipschitz bound on the ball of radius {where}.R is larger than {where}.lipschitz"
            )


def _hold_newton_step(G: arb_mat, residual: Row, claims: Numbers, newton: Numbers) -> None:
    r"""$D_0\ge\|J_0^+r\|$.

    With $z$ near $G^{-1}r$, $J_0^+r=J_0^\top z+J_0^+(r-Gz)$, so $\|J_0^+r\|\le\sqrt{z^\top Gz}+\|r-Gz\|/\sigma_0$.
    """
    column = matrix([[entry] for entry in residual])
    z = G.mid().solve(column.mid(), algorithm="approx").mid()
    image = G * z
    length = (z.transpose() * image)[0, 0].upper()
    if not length >= 0:
        raise UnprovenError("the length of Newton's step could not be enclosed")
    rest = norm(row[0] for row in rows_of(column - image))
    if not length.sqrt() + rest / claims["sigma0"] <= newton["D0"]:
        raise UnprovenError("the length of Newton's step is not at most newton.D0, as far as can be proved")


def _identity(size: int, factor: arb) -> arb_mat:
    made = arb_mat(size, size)
    for i in range(size):
        made[i, i] = factor
    return made

"""The verifier accepts what is true, computes what it says, and its bounds hold against slow twins and against what can be found."""

from __future__ import annotations

import ast
import json
import math
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from flint import arb, arb_mat, ctx

from tests.certificate.bounds import own_bound, passes_of, published_bound
from tests.certificate.maker import activation, with_gd, with_newton, with_sgd
from tests.certificate.networks import NETWORKS, small
from zeroloss.certificate.verifying import verify
from zeroloss.cli import main
from zeroloss.errors import ArgumentError, FileError
from zeroloss_verifier.balls import exact, precision
from zeroloss_verifier.definite import is_semidefinite, largest_eigenvalue, spectral_norm
from zeroloss_verifier.functions import function_of
from zeroloss_verifier.jacobian import jacobian_gram, residual_square
from zeroloss_verifier.network import PARAMETERS, Activation
from zeroloss_verifier.outcome import RejectedError
from zeroloss_verifier.theorems import hold_flow, hold_stochastic

SECTIONS = {"flow": lambda made, _: made, "gd": with_gd, "sgd": with_sgd, "newton": with_newton}


@pytest.mark.parametrize("method", SECTIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_true_certificate_is_accepted(name, method, tmp_path):
    made = SECTIONS[method](small(name), own_bound)
    answer = verify(made.write(tmp_path))
    assert answer.accepted, answer.reason
    assert answer.status == "ACCEPTED"
    assert "smallest singular value, explicit Jacobian" in answer.covered
    assert sum("Theorem" in line for line in answer.covered) == (1 if method == "flow" else 2)


def test_it_imports_nothing_but_flint_and_the_standard_library():
    code = (
        "import sys, zeroloss_verifier.checking, zeroloss_verifier.__main__;"
        "top = {name.partition('.')[0] for name in sys.modules};"
        "print(sorted(top - set(sys.stdlib_module_names) - {'zeroloss_verifier', '__main__'}))"
    )
    source = str(Path(__file__).parents[2] / "src")
    code = f"import sys; sys.path[:0] = {[source, *sys.path]!r}; {code}"
    run = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    foreign = [
        name
        for name in ast.literal_eval(run.stdout)
        if name not in ("flint", "cython_runtime") and not name.startswith("_cython")
    ]
    assert foreign == []


@pytest.mark.parametrize("name", NETWORKS)
def test_residual_and_gram_are_those_of_automatic_differentiation(name):
    made = small(name)
    J, r = made.jacobian(), made.residual()
    with precision(128):
        passes, roots = passes_of(made)
        G, explicit = jacobian_gram(passes, roots)
        by_rule, still = jacobian_gram(passes, roots, explicit_work=0)
        square = residual_square(passes, exact(made.tensors["y"].flatten().tolist(), made.tensors["y"].shape[1]), roots)
    assert explicit
    assert not still
    for found in (G, by_rule):
        ours = np.array([[float(entry) for entry in row] for row in found.tolist()])
        np.testing.assert_allclose(ours, (J @ J.T).numpy(), rtol=1e-11, atol=1e-12)
    assert all(p.overlaps(q) for p, q in zip(G.entries(), by_rule.entries(), strict=True))  # both enclose the same numbers
    assert math.isclose(float(square), float(r @ r), rel_tol=1e-5)  # r is a difference of nearly equal numbers in float64


@pytest.mark.parametrize("radius", [1e-8, 1e-3, 0.3])
@pytest.mark.parametrize("name", ["biases", "relu", "smooth"])
def test_the_lipschitz_bound_is_the_published_one(name, radius):
    made = small("biases" if name == "smooth" else name).copy()
    if name == "smooth":
        for stage in made.stages:
            if stage["kind"] == "linear":
                stage["trained"] = ["weight", "bias"]
    if name == "relu" and radius > 1e-6:
        pytest.skip("pieces change")
    ours, theirs = own_bound(made, radius), published_bound(made, radius)
    assert ours <= theirs * (1 + 1e-9)
    assert ours >= theirs * 0.9  # the twin takes fewer minima


@pytest.mark.parametrize("name", NETWORKS)
def test_no_pair_of_points_of_the_ball_contradicts_the_lipschitz_bound(name):
    made = small(name)
    radius = 3e-3 if not any(s.get("name") in ("relu", "leaky_relu", "abs", "hard_tanh") for s in made.stages) else 1e-6
    bound = own_bound(made, radius)
    worst = 0.0
    shapes = [made.tensors[p].shape for p in made.trained]
    size = sum(math.prod(shape) for shape in shapes)
    direction = torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for _ in range(12):  # power iteration on theta -> dJ[u]'s top singular pair: the direction that bends J most
        direction = direction / direction.norm() * radius
        parts = torch.split(direction, [math.prod(shape) for shape in shapes])
        moved = {p: part.reshape(shape) for p, part, shape in zip(made.trained, parts, shapes, strict=True)}
        ahead = made.jacobian({**made.tensors, **{p: made.tensors[p] + m for p, m in moved.items()}})
        behind = made.jacobian({**made.tensors, **{p: made.tensors[p] - m for p, m in moved.items()}})
        _, values, right = torch.linalg.svd(ahead - behind, full_matrices=False)
        worst = max(worst, float(values[0]) / (2 * radius))
        direction = right[0]
    assert worst <= bound * (1 + 1e-6)
    assert worst >= bound / 60 or bound < 1e-12  # and it is not vacuous


@pytest.mark.parametrize("name", PARAMETERS)
def test_activations_and_their_constants(name):
    numbers = {"leaky_relu": {"slope": -1.5}, "softplus": {"beta": 3.0}, "hard_tanh": {"low": -0.5, "high": 2.0}}.get(name, {})
    z = torch.cat([torch.linspace(-30, 30, 2401, dtype=torch.float64), torch.linspace(-3, 3, 4001, dtype=torch.float64)]) + 1e-4
    z.requires_grad_()
    value = activation({"kind": "a", "name": name, **{key: float(v).hex() for key, v in numbers.items()}})(z)
    slope = torch.autograd.grad(value.sum(), z, create_graph=True)[0]
    curvature = torch.autograd.grad(slope.sum(), z)[0] if slope.requires_grad else torch.zeros_like(z)
    with precision(128):
        function = function_of(Activation(name, tuple(numbers.items())))
        c1, c2 = float(function.c1), float(function.c2)
        z, value, slope = z.detach(), value.detach(), slope.detach()
        for at in range(0, len(z), 97):
            ball = arb(float(z[at]))
            assert math.isclose(float(function.value(ball)), float(value[at]), rel_tol=1e-9, abs_tol=1e-14)
            assert math.isclose(float(function.slope(ball)), float(slope[at]), rel_tol=1e-7, abs_tol=1e-13)
    assert float(slope.abs().max()) <= c1 * (1 + 1e-12)
    assert float(slope.abs().max()) >= c1 * (1 - 1e-3)
    assert float(curvature.abs().max()) <= c2 + 1e-9
    assert float(curvature.abs().max()) >= c2 * (1 - 1e-3)
    if function.kinks:
        assert not function.slope(function.kinks[0]).is_finite()
        around = arb(float(function.kinks[0]), 0.25)  # the value encloses both pieces
        for shift in (-0.25, -0.1, 0.0, 0.1, 0.25):
            point = function.value(arb(float(function.kinks[0]) + shift))
            assert function.value(around).overlaps(point)


def is_semidefinite_exactly(rows: list[list[int]]) -> bool:
    """Whether all eigenvalues are nonnegative, by fractions: signs of the characteristic polynomial's coefficients alternate."""
    size = len(rows)
    A = [[Fraction(entry) for entry in row] for row in rows]
    M, coefficients = [[Fraction(0)] * size for _ in range(size)], [Fraction(1)]
    for k in range(1, size + 1):  # Faddeev and LeVerrier
        M = [
            [
                sum((A[i][m] * M[m][j] for m in range(size)), Fraction(0)) + (coefficients[-1] if i == j else 0)
                for j in range(size)
            ]
            for i in range(size)
        ]
        trace = sum((A[i][m] * M[m][i] for i in range(size) for m in range(size)), Fraction(0))
        coefficients.append(-trace / k)
    return all(c * (-1) ** k >= 0 for k, c in enumerate(coefficients))


def test_semidefiniteness_is_never_claimed_falsely():
    draw = torch.Generator().manual_seed(0)
    claimed = truths = 0
    for trial in range(200):
        size = 2 + trial % 6
        B = torch.randint(-9, 10, (size, size + 1), generator=draw)
        rows = (B @ B.T).tolist()
        for i in range(size):
            rows[i][i] -= trial % 40
        truth = is_semidefinite_exactly(rows)
        with precision(128):
            found = is_semidefinite(arb_mat(rows))
        assert truth or not found
        claimed, truths = claimed + found, truths + truth
    assert 40 < claimed <= truths < 190
    assert claimed >= truths - 2  # only singular ones may be left open


def test_semidefiniteness_to_a_hair_at_sizes_beyond_one_panel():
    J = torch.randn(75, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with precision(192):
        A = arb_mat([[arb(v) for v in row] for row in J.tolist()])
        G = A * A.transpose()
        high, low = np.linalg.svd(J.numpy(), compute_uv=False)[[0, -1]]
        for sign in (1, -1):
            shifted = arb_mat(G)
            for i in range(75):
                shifted[i, i] = shifted[i, i] - arb(float(low)) ** 2 * (1 - sign * arb(1e-11))
            assert is_semidefinite(shifted) is (sign == 1)
        assert high <= float(spectral_norm(A)) <= high * (1 + 1e-9)
        assert float(largest_eigenvalue(arb_mat(3, 3))) == 0.0
        assert not is_semidefinite(arb_mat([[arb.nan(), 0], [0, 1]]))
        assert not is_semidefinite(arb_mat([[1, arb.nan()], [arb.nan(), 1]]))
        assert not is_semidefinite(arb_mat([[1, 0], [0, arb(1, 2)]]))  # a ball that reaches below 0


@pytest.mark.parametrize("below", [True, False])
def test_the_sharp_example_is_decided_to_a_hair(below):
    # f = theta - theta^2/2 at 0: J = 1 - theta, Lambda = 1; y > 1/2 has no root
    rho = 0.5 * (1 - 1e-12 if below else 1 + 1e-12)
    alpha = math.sqrt(max(0.0, 1 - 2 * rho)) * (1 - 1e-9)
    path = 2 * rho / (1 + alpha)
    numbers = {
        "residual": rho,
        "sigma0": 1.0,
        "lipschitz": 1.0,
        "R": 1.0,
        "path": path,
        "alpha": alpha,
        "rate": alpha**2 * (1 - 1e-12),
        "h": rho,
    }
    claims = {name: arb(number) for name, number in numbers.items()}
    with precision(256):
        if below:
            hold_flow(claims)
        else:
            with pytest.raises(Exception, match="2 lipschitz residual < sigma0"):
                hold_flow(claims)


@pytest.mark.parametrize("share", [1 + 1e-12, 1 - 1e-9])
def test_the_stochastic_factor_is_the_printed_one(share):
    rho, sigma, beta0, lip, R, batch, samples = 1e-3, 1.0, 1.5, 0.2, 0.5, 3, 12  # every term counts
    beta, alpha, eta, ratio = beta0 + lip * R, sigma - lip * R, 0.01, samples / batch
    q = math.sqrt(1 - 2 * eta * alpha**2 + eta**2 * beta**4 * ratio) + lip / 2 * (eta * ratio * beta) ** 2 * (rho + beta * R)
    delta = eta * beta * math.sqrt(ratio) * rho / ((1 - q) * R)
    claims = {"residual": rho, "sigma0": sigma, "beta0": beta0}
    sgd = {"step": eta, "batch": batch, "R": R, "lipschitz": lip, "beta": beta * (1 + 1e-15), "alpha": alpha * (1 - 1e-15)}
    for name, numbers in (
        ("q", {"q": q * share, "delta": delta * 1.1}),
        ("delta", {"q": q * (1 + 1e-12), "delta": delta * share**3}),
    ):
        with precision(256):
            given = [{key: arb(value) for key, value in part.items()} for part in (claims, sgd | numbers)]
            if share > 1 and name == "q":
                hold_stochastic(*given, arb(samples))
            elif share < 1:
                with pytest.raises(RejectedError, match=f"Theorem 3: {name} is large enough"):
                    hold_stochastic(*given, arb(samples))


def test_precision_is_put_back(tmp_path):
    before = ctx.prec
    assert verify(small("relu").write(tmp_path)).accepted
    assert ctx.prec == before


def test_command_line(tmp_path, capsys):
    path = small("relu").write(tmp_path)
    assert main(["verify", str(path)]) == 0
    assert "ACCEPTED" in capsys.readouterr().out
    assert main(["verify", str(path.with_suffix("")), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accepted"] is True
    bad = small("relu").set(sigma0=10.0).write(tmp_path, "bad")
    assert main(["verify", str(bad), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["status"] == "REJECTED"
    assert main(["verify", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert "there is no certificate at" in error
    assert error.count("\n") == 1


def test_it_runs_alone(tmp_path):
    from zeroloss_verifier.__main__ import main as alone

    path = small("relu").write(tmp_path)
    assert alone([str(path)]) == 0
    assert alone([str(small("relu").set(beta0=1e-3).write(tmp_path, "bad"))]) == 1
    assert alone([str(tmp_path / "none.json")]) == 2
    assert alone([]) == 2


def test_a_callers_mistakes(tmp_path, monkeypatch):
    with pytest.raises(FileError, match="there is no certificate"):
        verify(tmp_path / "none")
    with pytest.raises(ArgumentError, match="pass the path"):
        verify("a\0b")
    path = small("relu").write(tmp_path)
    monkeypatch.setitem(sys.modules, "flint", None)
    for name in [name for name in sys.modules if name.startswith("zeroloss_verifier.") and not name.endswith("outcome")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ArgumentError, match="needs python-flint"):
        verify(path)

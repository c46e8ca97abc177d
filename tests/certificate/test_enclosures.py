"""Every enclosure contains what 50 digits give, and is not so wide that it would contain anything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mpmath import mpf

from tests.certificate.problems import dense, families, inputs
from tests.certificate.reference import array, evaluate, functions, norm, singular_values
from zeroloss.certificate.activations import sigma_of
from zeroloss.certificate.backward import enclose_backward
from zeroloss.certificate.chain import read_chain
from zeroloss.certificate.enclosure import enclose_forward
from zeroloss.certificate.facts import AffineFacts, gather
from zeroloss.certificate.jacobian_gram import enclose_gram
from zeroloss.certificate.spectral_bounds import (
    defect,
    largest_eigenvalue_bound,
    matrix_norm_bound,
    perron_bound,
    smallest_eigenvalue_bound,
)

FAMILIES = families()


def enclosed(name: str, n: int = 2, extended: bool = False):
    module, shape = FAMILIES[name]
    x = inputs(shape, n)
    chain = read_chain(module, x)
    return chain, x, enclose_forward(chain, x, extended)


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_forward_pass_contains_the_outputs(name, extended):
    chain, x, forward = enclosed(name, extended=extended)
    f, _ = evaluate(chain, x)
    ball = forward.outputs
    mid = array(ball.mid) if ball.low is None else array(ball.mid) + array(ball.low)
    for i in range(len(x)):
        gap = norm(f[i] - mid[i])
        assert gap <= float(ball.error[i])
        assert np.all(np.abs(f[i] - mid[i]) <= array(ball.radius[i]))
        assert float(ball.error[i]) < 1e-11 * (1 + float(ball.mid.norm()))


def test_an_enclosure_shrunk_to_nothing_is_noticed():
    """The control: the rounding that the enclosures allow for is really there."""
    missed = 0
    for name in FAMILIES:
        chain, x, forward = enclosed(name)
        f, _ = evaluate(chain, x)
        missed += any(norm(f[i] - array(forward.outputs.mid[i])) > float(forward.outputs.error[i]) * 1e-4 for i in range(len(x)))
    assert missed > len(FAMILIES) / 2


def test_extended_precision_is_that_much_narrower():
    chain = read_chain(dense((8, 16, 16, 16, 1)), x := inputs((8,), 3))
    plain, extended = enclose_forward(chain, x), enclose_forward(chain, x, extended=True)
    assert float(extended.outputs.error.max()) < 1e-12 * float(plain.outputs.error.max())


@pytest.mark.parametrize("weights", [(1, 1), (3, 2)])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_gram_contains_the_exact_one(name, weights):
    chain, x, forward = enclosed(name)
    roots = torch.tensor(weights, dtype=torch.float64).sqrt()
    gram = enclose_gram(chain, forward, enclose_backward(chain, forward), roots)
    _, J = evaluate(chain, x)
    k = len(J) // len(x)
    scale = np.repeat(np.array([mpf(w) ** mpf(0.5) for w in weights], dtype=object), k)
    J = J * scale[:, None]
    exact = J.dot(J.T)
    gap = norm(exact - array(gram.matrix))  # the Frobenius norm is above the spectral one, and still below the bound
    assert gap <= gram.error
    assert gram.error <= 1e-8 * float(gram.matrix.diagonal().sum()) + 1e-130
    lower, _ = smallest_eigenvalue_bound(gram.matrix, gram.error)
    values = singular_values(J)
    assert lower <= values[0] ** 2
    assert values[-1] ** 2 <= largest_eigenvalue_bound(gram.matrix, gram.error)
    if float(values[0]) > 1e-4:
        assert lower >= 0.99 * values[0] ** 2


@pytest.mark.parametrize("name", FAMILIES)
def test_norms_of_maps_are_bounds(name):
    """||z(h + d) - z(h)|| of every affine stage, for the worst direction d found by power iteration."""
    chain, _x, forward = enclosed(name)
    roots = torch.ones(2, dtype=torch.float64)
    facts = gather(chain, forward, enclose_backward(chain, forward), roots)
    from zeroloss.certificate.forward import convolved
    from zeroloss.certificate.stages import Linear

    for place, fact in enumerate(facts):
        if not isinstance(fact, AffineFacts):
            continue
        op, h = chain.tape[place], forward.inputs[place].mid[:1]

        def linear(v, op=op):
            if isinstance(op, Linear):
                return v @ chain.tensors[op.weight].T
            bias = 0 if op.bias is None else chain.tensors[op.bias][:, None, None]
            return convolved(v, op, chain) - bias

        full = torch.func.jacrev(lambda v: linear(v).flatten())(h).reshape(-1, h.numel())
        true = float(torch.linalg.matrix_norm(full, 2))
        assert true <= fact.weights.norm * (1 + 1e-12)
        assert fact.weights.norm <= 3.2 * true  # sqrt of the kernel's area at the worst
        if "weight" in fact.trained:
            weight = chain.tensors[op.weight]
            direction = torch.randn(weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
            chain.tensors[op.weight] = direction / direction.norm()
            moved = linear(forward.inputs[place].mid)
            chain.tensors[op.weight] = weight
            assert float(moved.norm()) <= fact.met * (1 + 1e-12)
            assert bool((moved.flatten(1).norm(dim=1) <= fact.met_rows * (1 + 1e-12)).all())


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "abs", "hard_tanh", "softplus", "tanh", "sigmoid", "erf", "gelu", "silu"])
def test_activations_against_fifty_digits(name):
    sigma = sigma_of(name, 0.3)
    z = torch.cat(
        (torch.linspace(-40, 40, 401, dtype=torch.float64), inputs((1,), 300)[:, 0], torch.tensor([1e-9, -1e-300, 700.0, -700.0]))
    )
    value, slope = functions(sigma)
    mine, theirs = sigma.value(z), value(array(z))
    assert np.all(np.abs(array(mine) - theirs) <= array(sigma.value_error(z, mine)) + mpf("1e-300"))
    away = z[torch.stack([(z - kink).abs() > 0 for kink in (*sigma.kinks, -1e6)]).all(0)]
    gap = np.abs(array(sigma.derivative(away)) - slope(array(away)))
    assert np.all(gap <= sigma.derivative_error + 1e-300)


@pytest.mark.parametrize("name", ["softplus", "tanh", "sigmoid", "erf", "gelu", "silu"])
def test_suprema_of_derivatives(name):
    sigma = sigma_of(name, 2.0)
    z = torch.linspace(-8, 8, 400_001, dtype=torch.float64).requires_grad_()
    (first,) = torch.autograd.grad(sigma.value(z).sum(), z, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), z)
    for found, bound in ((first, sigma.c1), (second, sigma.c2)):
        top = float(found.detach().abs().max())
        assert top <= bound * (1 + 1e-12)
        assert top >= bound * (1 - 1e-6)  # attained: a smaller constant would be wrong


@pytest.mark.parametrize("n", [1, 2, 7, 40])
@pytest.mark.parametrize("condition", [1.0, 1e6, 1e12])
def test_eigenvalue_bounds_hold_and_are_sharp(n, condition):
    generator = torch.Generator().manual_seed(n)
    q = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator))[0]
    values = torch.logspace(0, -float(np.log10(condition)), n, dtype=torch.float64)
    matrix = (q * values) @ q.T
    matrix = (matrix + matrix.T) / 2
    from mpmath import eigsy
    from mpmath import matrix as mp_matrix

    exact = eigsy(mp_matrix(array(matrix).tolist()), eigvals_only=True)
    low, _ = smallest_eigenvalue_bound(matrix, 0.0)
    assert low <= exact[0]
    assert low > 0.4 * exact[0]
    assert exact[len(exact) - 1] <= largest_eigenvalue_bound(matrix, 0.0) <= 1.01 * exact[len(exact) - 1] + 1e-14
    assert smallest_eigenvalue_bound(matrix, 1e-3)[0] <= exact[0] - 1e-3


def test_a_singular_matrix_is_never_positive():
    x = inputs((3,), 6)
    for shift in (0.0, 1e-17, 1e-16):
        gram = x @ x.T + shift * torch.eye(6, dtype=torch.float64)
        gram = (gram + gram.T) / 2
        low, _ = smallest_eigenvalue_bound(gram, 0.0)
        assert low <= shift + 1e-15


def test_a_wrong_factor_costs_the_bound_not_the_truth(monkeypatch):
    """The factor is never trusted: a factorisation that lies only makes the bound useless."""
    matrix = torch.diag(torch.tensor([1.0, -0.5], dtype=torch.float64))
    lie = (torch.eye(2, dtype=torch.float64), torch.tensor(0))
    monkeypatch.setattr(torch.linalg, "cholesky_ex", lambda *_: lie)
    assert defect(matrix) >= 0.5


@pytest.mark.parametrize("shape", [(1, 5), (4, 4), (30, 7), (3, 200)])
def test_norm_bounds(shape):
    m = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))
    true = float(torch.linalg.matrix_norm(m, 2))
    assert true * (1 - 1e-14) <= matrix_norm_bound(m) <= true * 1.001
    positive = (m @ m.T).abs()
    assert float(torch.linalg.matrix_norm(positive, 2)) * (1 - 1e-13) <= perron_bound(positive)

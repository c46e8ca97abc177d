"""The Lipschitz bound is never below what an optimiser finds, and not far above it; pieces that are said to be kept are kept."""

from __future__ import annotations

import math

import pytest
import torch

from tests.certificate.problems import KINKED, dense, families, inputs
from zeroloss.certificate import lipschitz as lipschitz_module
from zeroloss.certificate.backward import enclose_backward
from zeroloss.certificate.chain import read_chain
from zeroloss.certificate.enclosure import enclose_forward
from zeroloss.certificate.facts import gather
from zeroloss.certificate.forward import outputs
from zeroloss.certificate.lipschitz import cell_margin, lipschitz_bound
from zeroloss.certificate.stages import Chain

FAMILIES = families()
N = 3


def prepared(module, shape, weights=(1.0, 1.0, 1.0)):
    x = inputs(shape, N)
    chain = read_chain(module, x)
    forward = enclose_forward(chain, x)
    roots = torch.tensor(weights, dtype=torch.float64).sqrt()
    facts = gather(chain, forward, enclose_backward(chain, forward), roots)
    return chain, x, roots, facts


def flat(chain: Chain) -> torch.Tensor:
    return torch.cat([chain.tensors[name].reshape(-1) for name in chain.order])


def jacobian_at(chain: Chain, x: torch.Tensor, roots: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    def f(t: torch.Tensor) -> torch.Tensor:
        tensors, at = dict(chain.tensors), 0
        for name in chain.order:
            size = chain.tensors[name].numel()
            tensors[name] = t[at : at + size].reshape(chain.tensors[name].shape)
            at += size
        return (outputs(Chain(chain.stages, tensors, chain.order), x) * roots[:, None]).flatten()

    return torch.func.jacrev(f)(theta)


def steepest(chain, x, roots, radius: float, seed: int = 0, rounds: int = 12) -> float:
    """The largest ||D2f[u, v]|| found in the ball: alternating power iterations, at random places and at the centre."""
    generator = torch.Generator().manual_seed(seed)
    start, best = flat(chain), 0.0
    for place in range(4):
        shift = torch.randn(start.shape, dtype=torch.float64, generator=generator)
        theta = start + (0 if place == 0 else radius * 0.999) * shift / shift.norm()
        u = torch.randn(start.shape, dtype=torch.float64, generator=generator)
        for _ in range(rounds):
            u = u / u.norm()
            step = 1e-5 * max(radius, 1e-3)
            change = (jacobian_at(chain, x, roots, theta + step * u) - jacobian_at(chain, x, roots, theta - step * u)) / (
                2 * step
            )
            left, value, right = torch.linalg.svd(change, full_matrices=False)
            best = max(best, float(value[0]))
            # D2f is symmetric in its two arguments: the best v for this u is the next u
            u = right[0] + 0.1 * u
            del left
    return best


@pytest.mark.parametrize("name", FAMILIES)
def test_no_second_derivative_exceeds_the_bound(name):
    module, shape = FAMILIES[name]
    chain, x, roots, facts = prepared(module, shape)
    radius = 0.05
    if cell_margin(facts, N, radius) <= 1:  # the statement is about balls without kinks
        radius = 0.05 * 2.0 ** math.floor(math.log2(max(cell_margin(facts, N, 1e-6) * 1e-6 / 0.05, 1e-12)))
    while cell_margin(facts, N, radius) <= 1:
        radius /= 2
    assert radius > 1e-9
    bound = lipschitz_bound(facts, N, radius)
    found = steepest(chain, x, roots, radius)
    assert found <= bound * (1 + 1e-6)
    assert bound <= 60 * found  # looseness: a factor of 3 to 40 over these


def test_weights_of_rows_count():
    module, shape = FAMILIES["dense Tanh"]
    chain, x, roots, facts = prepared(module, shape, (4.0, 1.0, 9.0))
    bound = lipschitz_bound(facts, N, 0.05)
    assert steepest(chain, x, roots, 0.05) <= bound
    assert bound > lipschitz_bound(prepared(module, shape)[3], N, 0.05)


def test_two_linear_layers_and_one_row_are_exact():
    """D2f[u, v] = v2 U1 x + u2 V1 x has norm ||x|| for unit u and v: nothing is lost, and half of the bound would be false."""
    chain, x, roots, facts = prepared(dense((4, 6, 1), torch.nn.Identity, bias=False), (4,), (1.0, 1e-300, 1e-300))
    bound = lipschitz_bound(facts, N, 0.0)
    assert float(x[0].norm()) <= bound <= float(x[0].norm()) * 1.00001
    assert steepest(chain, x, roots, 1e-3) > bound / 2 * 1.9


def test_a_corrupted_bound_is_caught(monkeypatch):
    """The control of this file: with half the coefficients the search finds more than the bound allows."""
    chain, x, roots, _ = prepared(dense((4, 6, 1), torch.nn.Identity, bias=False), (4,), (1.0, 1e-300, 1e-300))
    facts = gather(chain, (f := enclose_forward(chain, x)), enclose_backward(chain, f), roots)
    honest = lipschitz_module.perron_bound
    monkeypatch.setattr(lipschitz_module, "perron_bound", lambda m: honest(m) / 2)
    assert steepest(chain, x, roots, 1e-3) > lipschitz_bound(facts, N, 1e-3)


def test_last_layer_alone_is_affine():
    module = dense((3, 5, 1))
    module[0].requires_grad_(False)
    _, _, _, facts = prepared(module, (3,))
    assert lipschitz_bound(facts, N, 1.0) == 0.0


def test_it_grows_with_the_radius():
    for name, (module, shape) in FAMILIES.items():
        _, _, _, facts = prepared(module, shape)
        values = [lipschitz_bound(facts, N, radius) for radius in (0.0, 1e-6, 1e-2, 1.0, 10.0)]
        assert values == sorted(values), name


def test_hidden_layer_alone_shrinks_like_one_over_root_width():
    from zeroloss import fully_connected

    found = []
    for width in (256, 1024, 4096):
        module = fully_connected(3, width, 1, scheme="du", activation="softplus", trained="W1")
        _, _, _, facts = prepared(module, (3,))
        found.append(lipschitz_bound(facts, N, 1e-3))
    assert found[0] / found[1] == pytest.approx(2, rel=0.5)
    assert found[1] / found[2] == pytest.approx(2, rel=0.5)


def signs_at(chain: Chain, x: torch.Tensor, theta: torch.Tensor) -> list[torch.Tensor]:
    from zeroloss.certificate.stages import Activation, Linear

    at, h, found = 0, x, []
    tensors = dict(chain.tensors)
    for name in chain.order:
        size = chain.tensors[name].numel()
        tensors[name] = theta[at : at + size].reshape(chain.tensors[name].shape)
        at += size
    for op in chain.tape:
        if isinstance(op, Linear):
            h = torch.nn.functional.linear(h, tensors[op.weight], tensors[op.bias])
        elif isinstance(op, Activation):
            found.append(torch.stack([h > kink for kink in op.sigma.kinks]))
            h = op.sigma.value(h)
    return found


@pytest.mark.parametrize("act", KINKED)
def test_no_piece_is_left_inside_a_cell_and_some_just_outside(act):
    module = dense((3, 4, 4, 1), act, seed=5)
    chain, x, _, facts = prepared(module, (3,))
    start = flat(chain)
    radius = 1.0
    while cell_margin(facts, N, radius) <= 1:
        radius /= 1.1
    before = signs_at(chain, x, start)
    generator = torch.Generator().manual_seed(0)
    left = 0
    for factor in (1.0, 60.0):
        for trial in range(300):
            d = torch.randn(start.shape, dtype=torch.float64, generator=generator)
            after = signs_at(chain, x, start + factor * radius * d / d.norm())
            changed = any(bool((a != b).any()) for a, b in zip(before, after, strict=True))
            assert not (changed and factor == 1.0), trial
            left += changed
    assert left > 0


def test_a_cell_is_tight_for_one_layer():
    """One layer, one unit: the pre-activation can move by exactly R times the norm of its input and the 1."""
    module = dense((2, 1, 1))
    module[2].requires_grad_(False)
    chain, x, _, facts = prepared(module, (2,))
    z = torch.nn.functional.linear(x, chain.tensors["0.weight"], chain.tensors["0.bias"])[:, 0]
    reach = torch.sqrt(x.square().sum(1) + 1)
    limit = float((z.abs() / reach).min())
    assert cell_margin(facts, N, limit * (1 - 1e-5)) > 1
    assert cell_margin(facts, N, limit * (1 + 1e-5)) < 1

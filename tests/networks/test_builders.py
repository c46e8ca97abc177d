"""Builders: the papers' forms written out by hand, variances, seeds, and refusals."""

from __future__ import annotations

import math

import pytest
import torch

from tests.cases import CASES, rows
from zeroloss import fully_connected, resnet
from zeroloss.networks import c_sigma, find_activation


def test_allen_zhu_forward_is_the_papers():
    net = fully_connected(5, [7, 6, 8], 2, outputs=3)
    x = rows(4, 5)
    weights = [p.detach() for p in net.parameters()]
    h = torch.relu(x @ weights[0].T)
    for w in weights[1:3]:
        h = torch.relu(h @ w.T)
    assert torch.allclose(net(x), h @ weights[3].T, rtol=1e-14)
    assert [p.requires_grad for p in net.parameters()] == [False, True, True, False]
    assert [tuple(w.shape) for w in weights] == [(7, 5), (6, 7), (8, 6), (3, 8)]


def test_du_forward_is_the_papers():
    net = fully_connected(5, [7, 6], 2, scheme="du", activation="softplus")
    x, c = rows(4, 5), c_sigma(find_activation("softplus"))
    w1, w2, a = (p.detach() for p in net.parameters())
    h = math.sqrt(c / 7) * torch.nn.functional.softplus(x @ w1.T)
    h = math.sqrt(c / 6) * torch.nn.functional.softplus(h @ w2.T)
    assert torch.allclose(net(x), h @ a.T, rtol=1e-14)
    assert all(p.requires_grad for p in net.parameters())


def test_du_resnet_forward_is_the_papers():
    net = resnet(5, 6, 3, scheme="du", activation="erf", c_res=0.7)
    x, c = rows(4, 5), c_sigma(find_activation("erf"))
    w1, w2, w3, a = (p.detach() for p in net.parameters())
    h = math.sqrt(c / 6) * torch.erf(x @ w1.T)
    for w in (w2, w3):
        h = h + 0.7 / (3 * math.sqrt(6)) * torch.erf(h @ w.T)
    assert torch.allclose(net(x), h @ a.T, rtol=1e-14)


def test_variances_are_variances():
    """Each weight matrix's mean square against its variance, with a z-score: 2/m is not the standard deviation."""
    net = fully_connected(50, [400, 300, 200], 2, outputs=4)
    for weight, variance in zip(net.parameters(), (2 / 400, 2 / 300, 2 / 200, 1 / 4), strict=True):
        z = (float(weight.detach().square().mean()) / variance - 1) / math.sqrt(2 / weight.numel())
        assert abs(z) < 4
    for weight in fully_connected(50, 300, 2, scheme="du", activation="erf").parameters():
        assert abs((float(weight.detach().square().mean()) - 1) / math.sqrt(2 / weight.numel())) < 4


def test_one_seed_is_one_draw_in_every_dtype():
    single = fully_connected(5, 30, 2, seed=3, dtype=torch.float32)
    double = fully_connected(5, 30, 2, seed=3)
    for a, b in zip(single.parameters(), double.parameters(), strict=True):
        assert torch.equal(a, b.to(torch.float32))
    assert not torch.equal(next(fully_connected(5, 30, 2, seed=4).parameters()), next(double.parameters()))


def test_builders_leave_the_global_generator_alone():
    before = torch.random.get_rng_state()
    fully_connected(5, 30, 2)
    resnet(5, 30, 2)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_allen_zhus_scale_is_one(case):
    """Wide networks give outputs of order one (AZ: variance 1/d_out; DU: ||x^(H)|| near 1), by the mean over seeds."""
    x = rows(3, 8)
    squares = torch.stack([case.build(8, 256, 2, seed=s)(x).detach().square().mean() for s in range(30)])
    assert 0.2 < float(squares.mean()) < 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fully_connected(0, 4, 1), "inputs is 0"),
        (lambda: fully_connected(3, 0, 1), "width contains 0"),
        (lambda: fully_connected(3, -4, 1), "width contains -4"),
        (lambda: fully_connected(3, 4, 0), "depth is 0"),
        (lambda: fully_connected(3, 4, 1, outputs=0), "outputs is 0"),
        (lambda: fully_connected(3, [4, 4], 3), "width has 2 entries, but L\\+1 = depth \\+ 1 = 4"),
        (lambda: fully_connected(3, [4, 4], 1, scheme="du"), "width has 2 entries, but H = depth = 1"),
        (lambda: fully_connected(3, 4, 1, scheme="dw"), "scheme is 'dw'"),
        (lambda: fully_connected(3, 4, 1, activation="rleu"), "activation is 'rleu'"),
        (lambda: resnet(3, [4, 5, 4], 2), "a skip adds layers of one width"),
        (lambda: resnet(3, [4, 5], 2, scheme="du"), "a skip adds layers of one width"),
        (lambda: resnet(3, 4, 2, scheme="du", c_res=1.0), "c_res is 1.0"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

"""Gradient flow against its closed form, against ever smaller steps of descent, and its own law that the loss never rises."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from tests.cases import rows
from zeroloss import Dataset, descend, extremes, fully_connected, gram
from zeroloss.training import gradient_flow


def test_one_linear_layer_has_its_closed_form():
    """r(t) = exp(-G t) r(0), a mixture of two exponentials."""
    x = torch.tensor([[1.0, 0.5], [0.0, 2.0]], dtype=torch.float64)
    data = Dataset(x, [1.0, -2.0])
    net = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        residual = (net(x) - data.y).clone()
    flow = gradient_flow(net, data, time=2.0, rtol=1e-9, atol=1e-12)
    values, vectors = torch.linalg.eigh(x @ x.T)
    parts = (vectors.T @ residual)[:, 0].square()
    expected = 0.5 * (torch.exp(-2 * values * flow.times[:, None]) * parts).sum(dim=1)
    assert flow.loss.tolist() == pytest.approx(expected.tolist(), rel=1e-7)
    assert (flow.status, float(flow.times[-1])) == ("MAX_STEPS", 2.0)
    with torch.no_grad():
        assert float(0.5 * (net(x) - data.y).square().sum()) == pytest.approx(float(flow.loss[-1]))
    wrong = 0.5 * (torch.exp(-values * flow.times[:, None]) * parts).sum(dim=1)
    assert abs(float(wrong[-1] / flow.loss[-1]) - 1) > 0.5


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_descent_approaches_the_flow_at_first_order(loss):
    data = Dataset(rows(6, 5), torch.tensor([1.0, -1.0] * 3, dtype=torch.float64))
    start = fully_connected(5, 16, 2, scheme="du", activation="erf")
    eta = 0.2 / extremes(gram(start, data.x)).largest
    exact = copy.deepcopy(start)
    flow = gradient_flow(exact, data, loss=loss, time=40 * eta, rtol=1e-9, atol=1e-12)
    assert bool((flow.loss.diff() < 0).all())
    errors = []
    for part in (1, 2, 4):
        net = copy.deepcopy(start)
        run = descend(net, data, loss=loss, step=eta / part, max_steps=40 * part, until=0.0)
        errors.append(abs(float(run.loss[-1] - flow.loss[-1])))
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.05)


def test_endings_and_float32():
    data = Dataset([[1.0]], [1.0])
    net = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        net.weight.fill_(0.0)
    flow = gradient_flow(net, data, time=100.0, until=1e-2)
    assert flow.status == "CONVERGED"
    assert float(flow.loss[-1]) <= 1e-2 * float(flow.loss[0]) < float(flow.loss[-2])
    assert net.weight.dtype == torch.float32
    assert float(net.weight.detach()) == pytest.approx(1 - math.sqrt(2 * float(flow.loss[-1])), rel=1e-6)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"time": 0.0}, r"time is 0\.0"),
        ({"time": 1.0, "until": 1.0}, r"until is 1\.0"),
        ({"time": 1.0, "rtol": -1.0}, r"rtol is -1\.0"),
    ],
)
def test_mistakes_are_named(keywords, message):
    with pytest.raises(ValueError, match=message):
        gradient_flow(nn.Linear(1, 1).double(), Dataset([[1.0]], [1.0]), **keywords)


def test_a_module_that_writes_into_its_inputs_flows_like_one_that_does_not():
    x, y = rows(6, 4).double(), rows(6, 1).double()
    ends = []
    for in_place in (False, True):
        torch.manual_seed(0)
        data = Dataset(x.clone(), y)
        ends.append(gradient_flow(nn.Sequential(nn.SiLU(inplace=in_place), nn.Linear(4, 1)).double(), data, time=1.0).loss)
        assert torch.equal(data.x, x)
    assert torch.equal(*ends)

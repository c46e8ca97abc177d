"""The bisected edge against the exact one of linear models, at trained networks, and the catapult from a fresh start."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from tests.cases import rows
from zeroloss import Dataset, descend, extremes, fully_connected, gram
from zeroloss.errors import ArgumentError
from zeroloss.training import StepVerdict, stability_edge, step_verdict

DATA = Dataset(rows(8, 5), [1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0, -1.0])


@pytest.mark.parametrize("seed", range(2))
def test_a_linear_model_has_its_edge_at_two_over_the_largest(seed):
    layer = nn.Linear(5, 2, bias=False).double()
    data = Dataset(rows(8, 5, seed), rows(8, 2, seed + 50))  # cannot be fitted: the rest of the residual stays
    with torch.no_grad():
        layer.weight.copy_(torch.linalg.lstsq(data.x, data.y).solution.T)
    edge = stability_edge(layer, data, seed=seed, perturbation=0.5)
    exact = 2 / float(torch.linalg.eigvalsh(data.x.T @ data.x)[-1])
    assert edge.predicted == pytest.approx(exact, rel=1e-7)
    assert edge.bracket[0] <= exact * (1 + 1e-6)  # below the edge nothing is mistaken
    assert edge.bracket[0] <= edge.step <= edge.bracket[1] <= edge.bracket[0] * 1.00501
    assert edge.ratio == pytest.approx(1, abs=0.006)
    assert edge.found


@pytest.mark.parametrize(("scheme", "activation"), [("du", "erf"), ("allen-zhu", "relu")])
def test_the_edge_of_a_trained_network_is_where_its_gram_says(scheme, activation):
    net = fully_connected(5, 512, 1, scheme=scheme, activation=activation, dtype=torch.float32)
    descend(net, DATA, until=1e-8, max_steps=20_000)
    before = copy.deepcopy(net.state_dict())
    edge = stability_edge(net, DATA, tolerance=0.02)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert edge.residual < 1e-5
    assert edge.ratio == pytest.approx(1, abs=0.03)
    largest = extremes(gram(net.double(), DATA.x)).largest
    assert edge.predicted == pytest.approx(2 / largest, rel=1e-2)
    assert stability_edge(net, DATA, tolerance=0.02) == edge


def test_a_fault_in_the_prediction_would_show():
    """The bisection does not know the prediction: with a wrong one it still finds the edge, further off."""
    from zeroloss.training.edge import _bracket

    for true in (0.3, 0.99, 1.0, 1.5, 20.0):
        low, high = _bracket(lambda eta, true=true: eta > true, 1.0)
        assert low <= true < high
    assert _bracket(lambda eta: True, 1.0)[0] == 0
    assert math.isinf(_bracket(lambda eta: False, 1.0)[1])


def test_beyond_the_edge_a_fresh_start_catapults_and_far_beyond_it_diverges():
    for scheme, activation in (("du", "erf"), ("allen-zhu", "relu")):
        seen = {}
        for times in (0.9, 1.5, 8.0):
            net = fully_connected(5, 512, 1, scheme=scheme, activation=activation)
            largest = extremes(gram(net, DATA.x)).largest
            run = descend(net, DATA, step=times * 2 / largest, max_steps=3000, until=1e-4)
            seen[times] = (step_verdict(times * 2 / largest, largest), run.status.value, float(run.loss.max() / run.loss[0]))
        assert seen[0.9][:2] == (StepVerdict.STABLE, "CONVERGED"), seen
        assert seen[0.9][2] == 1, seen
        assert seen[1.5][:2] == (StepVerdict.CATAPULT, "CONVERGED"), seen
        assert seen[1.5][2] > 1.5, seen
        assert seen[8.0][0] == StepVerdict.UNSTABLE, seen
        assert (seen[8.0][1] == "CONVERGED") == (activation == "relu"), seen  # which is known to survive more


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: stability_edge(net, DATA, perturbation=0.0), "perturbation is 0.0"),
        (lambda net: stability_edge(net, DATA, perturbation=1.5), "perturbation is 1.5"),
        (lambda net: stability_edge(net, DATA, tolerance=math.nan), "tolerance is nan"),
        (lambda net: stability_edge(net, DATA, tolerance=0.5), "tolerance is 0.5"),
        (lambda net: stability_edge(net, DATA, steps=1), "steps is 1"),
        (lambda net: stability_edge(net, DATA, seed=-1), "seed is -1"),
        (lambda net: stability_edge(net.requires_grad_(False), DATA), "no trainable parameter"),
        (lambda net: stability_edge(net, Dataset(rows(8, 5), rows(8, 2))), "returns 1 outputs"),
        (lambda net: stability_edge(nn.Sequential(net, nn.Threshold(1e9, 0.0)), DATA), "largest eigenvalue 0.0"),
        (lambda net: step_verdict(0.0, 1.0), "step is 0.0"),
        (lambda net: step_verdict(1.0, -1.0), "largest is -1.0"),
        (lambda net: step_verdict(1.0, math.inf), "largest is inf"),
    ],
)
def test_mistakes_take_one_line(call, message):
    with pytest.raises(ArgumentError, match=message):
        call(fully_connected(5, 8, 1))

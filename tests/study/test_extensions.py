"""Experiments on convolutional and residual networks: real evidence holds, that of networks built wrong is rejected."""

from __future__ import annotations

import math

import pytest
import torch

from zeroloss import gram, limit_kernel, load
from zeroloss.claims import Judgement, find_claim
from zeroloss.networks import GaussianConv2d, GaussianLinear, Residual, Scale
from zeroloss.study import NetworkSpec, extensions
from zeroloss.study.building import build_for
from zeroloss.study.experiments import EXPERIMENTS
from zeroloss.study.setting import Setting

CNN = NetworkSpec("AZ CNN", "cnn", "allen-zhu", "relu", 64, 2)
RESNET = NetworkSpec("AZ ResNet", "resnet", "allen-zhu", "relu", 64, 2)
DU = NetworkSpec("DU ResNet", "resnet", "du", "relu", 64, 4)
CONV = NetworkSpec("DU conv", "conv_resnet", "du", "relu", 64, 3)


@pytest.fixture(scope="module")
def data():
    return load("digits", n=40, classes=(3, 8))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Sizes that take a second."""
    monkeypatch.setattr(extensions, "GROWTH_DEPTHS", {"quick": (2, 8)})
    monkeypatch.setattr(extensions, "GROWTH_WIDTH", {"quick": 64})
    monkeypatch.setattr(extensions, "DEPTH_WIDTH", {"quick": 64})
    monkeypatch.setattr(extensions, "RIVAL_WIDTH", {"quick": 256})
    monkeypatch.setattr(extensions, "RIVAL_DRAWS", 48)


def judged(claim_id, data, spec):
    claim = find_claim(claim_id)
    evidence = EXPERIMENTS[claim.evidence](Setting(data, (spec,), ()))
    assert [e.subject for e in evidence] == [spec.name]
    return claim.judge(evidence[0])


def with_weights(monkeypatch, change):
    """Networks whose modules are changed after they are drawn."""

    def built(spec, few, *rest):
        net = build_for(spec, few, *rest)
        with torch.no_grad():
            for module in net.modules():
                change(module, net)
        return net

    monkeypatch.setattr(extensions, "build_for", built)


def test_each_experiment_speaks_only_of_its_own_networks(data):
    others = {
        "images": (NetworkSpec("a"), RESNET, CONV),
        "growth": (NetworkSpec("a", scheme="allen-zhu"), DU, CNN),
        "depths": (NetworkSpec("a"), RESNET, CONV),
        "printed": (
            NetworkSpec("a"),
            RESNET,
            CNN,
            NetworkSpec("b", "resnet", activation="erf"),
            NetworkSpec("c", "resnet", depth=1),
        ),
    }
    for name, networks in others.items():
        assert EXPERIMENTS[name](Setting(data, networks, ())) == []


@pytest.mark.parametrize("spec", [CNN, NetworkSpec("deeper", "cnn", "allen-zhu", "relu", 64, 3, kernel=(1, 3))])
def test_cnn_norms_are_kept(data, spec):
    verdict = judged("AZ-27", data, spec)
    assert verdict.status is Judgement.HOLDS, verdict.reason


@pytest.mark.parametrize(
    ("options", "low", "high"),
    [({"padding": "zeros"}, 0.5, 0.98), ({"variance": "kaiming"}, 1.5, 100.0), ({"activation": "erf"}, 2, 9)],
)
def test_a_cnn_without_the_hypothesis_is_measured_but_not_judged(data, options, low, high):
    verdict = judged("AZ-27", data, NetworkSpec("other", "cnn", "allen-zhu", width=64, **{"activation": "relu", **options}))
    assert verdict.status is Judgement.NOT_APPLICABLE
    assert low < verdict.observed < high
    assert f"{verdict.observed:.3f}" in verdict.reason


def test_a_cnn_with_its_variances_doubled_is_rejected(data, monkeypatch):
    with_weights(monkeypatch, lambda module, _: module.weight.mul_(2**0.5) if isinstance(module, GaussianConv2d) else None)
    verdict = judged("AZ-27", data, CNN)
    assert verdict.status is Judgement.VIOLATED
    assert verdict.observed == pytest.approx(2, abs=0.1)  # A and W_1


@pytest.mark.parametrize("block", [1, 2, 3])
@pytest.mark.parametrize("last_plain", [False, True])
def test_residual_norms_stay_in_their_bracket(data, block, last_plain):
    spec = NetworkSpec("AZ ResNet", "resnet", "allen-zhu", "relu", 64, 2, block=block, last_plain=last_plain)
    verdict = judged("AZ-28", data, spec)
    assert verdict.status is Judgement.HOLDS, verdict.reason


def test_residual_weights_of_twice_the_variance_are_rejected(data, monkeypatch):
    def double(module, _):
        if isinstance(module, Residual):
            [layer for layer in module if isinstance(layer, GaussianLinear)][-1].weight.mul_(2**0.5)

    with_weights(monkeypatch, double)
    assert judged("AZ-28", data, RESNET).status is Judgement.VIOLATED


def test_growth_is_the_square_of_a_ratio_of_norms(data):
    point = extensions.growth(Setting(data, (RESNET,), ()))[0].points[0]
    few = Setting(data, (RESNET,), ()).few
    net = build_for(NetworkSpec("twin", "resnet", "allen-zhu", "relu", 64, 2, tau="1/L"), few)
    h = first = torch.relu(few.x @ net.A.weight.T)
    for layer in (net.block1.W1, net.block2.W2):
        h = torch.relu(h + h @ layer.weight.T)
    assert (point.at, point.seed) == (2, 0)
    ratio = (h.norm(dim=1) / first.norm(dim=1)).square().mean()
    assert point.values["1/L"] == pytest.approx(ratio.item())


def test_steps_are_those_of_the_linear_recursion_at_the_theorems_step(data):
    few = Setting(data, (DU,), ()).few
    net = build_for(NetworkSpec("twin", "resnet", width=64, activation="relu", depth=2), few)
    smallest = float(torch.linalg.eigvalsh(limit_kernel(net, "last-hidden")(few.x))[0])
    eta = smallest * 2**2 / few.n**2
    values = extensions.depths(Setting(data, (DU,), ()))[0].points[0].values
    residual, steps = (net(few.x) - few.y).detach(), 0
    G, start = gram(net, few.x), float((net(few.x) - few.y).detach().square().sum())
    while float(residual.square().sum()) > 1e-6 * start:
        residual, steps = residual - eta * G @ residual, steps + 1
    assert values["steps"] == steps
    assert (1 - eta * smallest / 2) ** values["bound"] == pytest.approx(1e-6)


def test_the_bound_grows_like_the_depth_squared(data):
    verdict = judged("DU-11", data, DU)
    assert verdict.status is Judgement.HOLDS, verdict.reason
    assert abs(verdict.observed) < 0.3  # Theta as a whole hardly knows the depth
    assert "the bound's own slope is 1.9" in verdict.reason


def test_skips_that_lose_less_than_the_square_of_the_depth_are_rejected(data, monkeypatch):
    r"""With $c_{res}/\sqrt H$ the smallest eigenvalue falls like 1/H, and the text's $n^2$ would be right."""

    def louder(module, net):
        if isinstance(module, Residual):
            for layer in module:
                if isinstance(layer, Scale):
                    layer.factor *= math.sqrt(net.architecture.depth)

    with_weights(monkeypatch, louder)
    verdict = judged("DU-11", data, DU)
    assert verdict.status is Judgement.VIOLATED, verdict.reason


def test_repeated_rows_have_no_rate(data):
    from zeroloss.data import Dataset

    twice = Dataset(data.x[:1].repeat(10, 1), data.y[:10])
    assert judged("DU-11", twice, DU).status is Judgement.NOT_APPLICABLE


@pytest.mark.parametrize("spec", [DU, CONV])
def test_finite_networks_are_nearer_to_the_corrected_recursion(data, spec):
    verdict = judged("DU-02", data, spec)
    assert verdict.status is Judgement.HOLDS, verdict.reason
    assert verdict.observed > 3


@pytest.mark.parametrize("spec", [DU, CONV])
def test_the_two_recursions_exchanged_are_rejected(data, spec, monkeypatch):
    ours, resnet, conv = extensions.layer_kernels, extensions.printed_resnet, extensions.printed_conv_resnet

    def right(x, *_, **__):
        return torch.stack(list(ours(build_for(spec, Setting(data, (spec,), ()).few_for(spec)), x).values()))

    def wrong(net, x):
        a = net.architecture
        parts = conv(x, a.depth, a.kernel) if a.images else resnet(x, a.depth)
        return dict(enumerate(parts))

    monkeypatch.setattr(extensions, "layer_kernels", wrong)
    monkeypatch.setattr(extensions, "printed_resnet", right)
    monkeypatch.setattr(extensions, "printed_conv_resnet", right)
    assert judged("DU-02", data, spec).status is Judgement.VIOLATED

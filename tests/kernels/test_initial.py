"""Initial variances that the user gives: against finite networks, against layers built with them, and refusals."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.cases import rows
from tests.kernels.finite import tangents
from zeroloss import cnn, fully_connected, limit_kernel, resnet
from zeroloss.kernels import layer_kernels, measured_variances
from zeroloss.networks import GaussianLinear, Residual


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 512), nn.ReLU(), nn.Sequential(nn.Linear(512, 512), nn.Tanh()), nn.Linear(512, 1)).double()


def drawn(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    module = plain()
    for layer in (module[0], module[2][0], module[3]):
        nn.init.kaiming_normal_(layer.weight)
        nn.init.normal_(layer.bias, std=0.5)
    return module


KAIMING = {"0": (2 / 6, 0.25), "2.0": (2 / 512, 0.25), "3": (2 / 512, 0.25)}


def test_finite_networks_drawn_anew_tend_to_the_limit():
    """20 draws of width 512 within a few standard errors, and torch's own variances far outside."""
    x = rows(4, 6, unit=False)
    limits, own = layer_kernels(plain(), x, initial=KAIMING), layer_kernels(plain(), x)
    draws = [tangents(drawn(seed), x) for seed in range(20)]
    for name, limit in limits.items():
        values = torch.stack([draw[name] for draw in draws])
        error = (values.std(0) / 20**0.5).hypot(limit.abs().max() / 500)
        assert float(((values.mean(0) - limit).abs() / error).max()) < 4.5, name
        if name != "3" and name != "0":
            assert float(((values.mean(0) - own[name]).abs() / error).max()) > 8, name


@pytest.mark.parametrize("kind", ["ntk", "nngp", "last-hidden"])
def test_ours_are_torchs_with_a_variance(kind):
    """A network of ours, and the same one of plain layers that are told its variances: the very same kernel."""
    x = rows(5, 4, unit=False)
    ours = fully_connected(4, 32, 2, 3, scheme="du", activation="erf")
    layers = [
        nn.Linear(layer.in_features, layer.out_features, bias=False) if isinstance(layer, nn.Linear) else layer for layer in ours
    ]
    names = {str(i): float(layer.variance) for i, layer in enumerate(ours) if isinstance(layer, GaussianLinear)}
    assert torch.equal(limit_kernel(nn.Sequential(*layers), kind, initial=names)(x), limit_kernel(ours, kind)(x))


def test_sampled_and_convolutional_limits_hear_of_it_too():
    """Where every variance doubles, a homogeneous network's covariance doubles once a layer."""
    x = rows(4, 4)
    net = resnet(4, 16, 1)
    twice = {name: 2 * layer.variance for name, layer in net.named_modules() if name in ("A", "B")}
    kernel, doubled = (limit_kernel(net, "nngp", particles=4096, initial=given) for given in (None, twice))
    assert torch.allclose(doubled(x), 4 * kernel(x), rtol=1e-10)
    assert torch.allclose(doubled.standard_error(x), 4 * kernel.standard_error(x), rtol=1e-8)
    images = rows(3, 12).reshape(3, 2, 2, 3)
    net = cnn((2, 2, 3), 8, 1)
    twice = {name: 2 * layer.variance for name, layer in net.named_modules() if hasattr(layer, "variance")}
    powers = 2.0 ** len(twice)
    assert torch.allclose(
        limit_kernel(net, "nngp", initial=twice)(images), powers * limit_kernel(net, "nngp")(images), rtol=1e-12
    )


def test_a_layer_of_zeros_has_a_limit():
    """A last layer that starts at 0: the function is 0, and only that layer's own share is left of the tangent kernel."""
    module, x = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1)), rows(3, 6)
    assert float(limit_kernel(module, "nngp", initial={"2": 0.0})(x).abs().max()) == 0
    parts = layer_kernels(module, x, initial={"2": 0.0})
    assert float(parts["0"].abs().max()) == 0
    assert torch.allclose(parts["2"], layer_kernels(module, x)["2"])


def test_measured_variances_are_those_drawn():
    found = measured_variances(drawn(0))
    assert list(found) == list(KAIMING)
    assert found["2.0"] == pytest.approx(KAIMING["2.0"], rel=0.2)
    assert found["2.0"][0] == pytest.approx(KAIMING["2.0"][0], rel=0.02)
    x = rows(3, 6)
    near, exact = (limit_kernel(plain(), initial=given)(x) for given in (found, KAIMING))
    assert float((near - exact).norm() / exact.norm()) < 0.1
    inside = nn.Sequential(nn.Linear(2, 3), Residual(nn.Linear(3, 3, bias=False)))
    assert list(measured_variances(inside)) == ["0", "1.0"]


@pytest.mark.parametrize(
    ("initial", "message"),
    [
        ({"1": 1.0}, "initial is '1', which is not known; choose one of: 0, 2.0, 3"),
        ({"2.1": 1.0}, "did you mean '2.0'"),
        ({"0": -1.0}, r"initial\['0'\] is -1.0; pass the variance"),
        ({"0": (1.0, float("nan"))}, r"initial\['0'\] is \(1.0, nan\)"),
    ],
)
def test_what_is_no_variance_is_refused(initial, message):
    with pytest.raises(ValueError, match=message):
        limit_kernel(plain(), initial=initial)
    with pytest.raises(ValueError, match="to a bias that the layer does not have"):
        limit_kernel(nn.Linear(3, 2, bias=False), initial={"": (1.0, 1.0)})

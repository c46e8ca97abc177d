"""Residual and convolutional builders: the papers' forms written out by hand, norms, trained subsets, refusals."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.cases import rows
from zeroloss import cnn, conv_resnet, fully_connected, resnet
from zeroloss.networks import c_sigma, find_activation, weight_layers


def images(n: int, c: int, h: int, w: int, seed: int = 0) -> Tensor:
    return torch.randn(n, c, h, w, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def convolve(x: Tensor, weight: Tensor, padding: str) -> Tensor:
    """A convolution by its definition: loops over points and offsets, zero or wrapped beyond the border."""
    n, _, h, w = x.shape
    kh, kw = weight.shape[2:]
    out = torch.zeros(n, len(weight), h, w, dtype=x.dtype)
    for i in range(h):
        for j in range(w):
            for a in range(kh):
                for b in range(kw):
                    y, z = i + a - kh // 2, j + b - kw // 2
                    if padding == "circular":
                        y, z = y % h, z % w
                    elif not (0 <= y < h and 0 <= z < w):
                        continue
                    out[:, :, i, j] += x[:, :, y, z] @ weight[:, :, a, b].T
    return out


@pytest.mark.parametrize("block", [1, 2, 3])
@pytest.mark.parametrize("last_plain", [False, True])
def test_allen_zhu_resnet_is_the_papers(block, last_plain):
    net, x = resnet(5, 6, 3, 2, block=block, last_plain=last_plain), rows(4, 5)
    w = {name: layer.weight.detach() for name, layer in weight_layers(net).items()}
    h = torch.relu(x @ w["A"].T)
    for layer in (1, 2, 3):
        if last_plain and layer == 3:
            h = torch.relu(h @ w["W3"].T)
            continue
        branch = h
        for matrix in range(1, block + 1):
            branch = (torch.relu(branch) if matrix > 1 else branch) @ w[f"W{layer}" if block == 1 else f"W{layer}_{matrix}"].T
        h = torch.relu(h + branch)
    assert torch.allclose(net(x), h @ w["B"].T, rtol=1e-13)
    frozen = {name for name, layer in weight_layers(net).items() if not layer.weight.requires_grad}
    assert frozen == {"A", "B"}


@pytest.mark.parametrize("padding", ["circular", "zeros"])
def test_allen_zhu_cnn_is_the_papers(padding):
    net, x = cnn((2, 3, 4), [5, 4, 6], 2, 3, kernel=(1, 3), padding=padding), images(3, 2, 3, 4)
    w = {name: layer.weight.detach() for name, layer in weight_layers(net).items()}
    h = torch.relu(convolve(x, w["A"], padding))
    h = torch.relu(convolve(h, w["W1"], padding))
    h = torch.relu(h.flatten(1) @ w["W2"].T)
    assert torch.allclose(net(x), h @ w["B"].T, rtol=1e-13)
    assert [p.requires_grad for p in net.parameters()] == [False, True, True, False]


@pytest.mark.parametrize("padding", ["circular", "zeros"])
def test_du_conv_resnet_is_the_papers(padding):
    net = conv_resnet((2, 4, 3), 5, 3, 2, activation="erf", c_res=0.7, padding=padding)
    x, c = images(3, 2, 4, 3), c_sigma(find_activation("erf"))
    w = {name: layer.weight.detach() for name, layer in weight_layers(net).items()}
    h = math.sqrt(c / 5) * torch.erf(convolve(x, w["W1"], padding))
    for name in ("W2", "W3"):
        h = h + 0.7 / (3 * math.sqrt(5)) * torch.erf(convolve(h, w[name], padding))
    assert torch.allclose(net(x), h.flatten(1) @ w["a"].T, rtol=1e-13)
    assert all(p.requires_grad for p in net.parameters())


def test_variances_of_convolutions():
    """Mean squares by z-score: 2/(q m) for the convolutions, 2/m for W_L, 2 tau^2/m for a residual matrix, 1/k for B."""
    q, points = 9, 16
    checks = [
        (cnn((3, 4, 4), [200, 100, 300], 2, 4), {"A": 2 / (q * 200), "W1": 2 / (q * 100), "W2": 2 / 300, "B": 1 / 4}),
        (
            cnn((3, 4, 4), [200, 100, 300], 2, 4, variance="kaiming"),
            {"A": 2 / (q * 3), "W1": 2 / (q * 200), "W2": 2 / (100 * points), "B": 1 / 4},
        ),
        (resnet(50, 300, 4, tau="1/sqrt(L)"), {"A": 2 / 300, "W1": 2 / 300 / 4, "B": 1.0}),
        (resnet(50, 300, 4, block=2, tau=0.1), {"W1_1": 2 / 300, "W1_2": 0.02 / 300}),
        (conv_resnet((3, 4, 4), 100, 2), {"W1": 1.0, "W2": 1.0, "a": 1.0}),
        (conv_resnet((3, 4, 4), 100, 2, scheme="allen-zhu", tau=0.5), {"W1": 2 * 0.25 / (q * 100), "W2": 2 / 100}),
        (cnn((3, 4, 4), 100, 2, scheme="du"), {"W1": 1.0, "W2": 1.0, "a": 1.0}),
    ]
    for net, variances in checks:
        layers = weight_layers(net)
        for name, variance in variances.items():
            weight = layers[name].weight.detach()
            assert layers[name].variance == pytest.approx(variance)
            assert abs((float(weight.square().mean()) / variance - 1) / math.sqrt(2 / weight.numel())) < 4, name


def test_taus():
    assert resnet(3, 100, 8, tau="1/L").architecture.tau == 1 / 8
    assert resnet(3, 100, 8, tau="1/(L log m)").architecture.tau == pytest.approx(1 / (8 * math.log(100)))
    assert resnet(3, 100, 8, tau="1/sqrt(L)").architecture.tau == pytest.approx(8**-0.5)
    assert resnet(3, 100, 8, tau="1").architecture.tau == 1


def total_norms(net: torch.nn.Module, x: Tensor) -> list[float]:
    """Mean over samples of the squared norm, over all points, after each activation; the input's own first."""
    norms, h = [float(x.flatten(1).square().sum(1).mean())], x
    for layer in net:
        h = layer(h)
        if isinstance(layer, torch.nn.ReLU):
            norms.append(float(h.detach().flatten(1).square().sum(1).mean()))
    return norms


def test_circular_padding_keeps_norms_and_zeros_do_not():
    """AZ's CNN: total norms kept in the mean over draws, every layer, by z-score; with zero padding the borders lose theirs."""
    x = images(4, 3, 4, 4)
    draws = {
        p: torch.tensor([total_norms(cnn((3, 4, 4), 64, 3, padding=p, seed=s), x) for s in range(60)])
        for p in ("circular", "zeros")
    }
    ratios = draws["circular"] / draws["circular"][:, :1]
    assert ratios.shape[1] == 5
    z = (ratios.mean(0) - 1)[1:] / (ratios.std(0)[1:] / math.sqrt(60))
    assert float(z.abs().max()) < 4
    zeros = (draws["zeros"] / draws["zeros"][:, :1]).mean(0)
    assert float(zeros[1]) == pytest.approx((10 / 12) ** 2, abs=0.1)  # coverage: 3 offsets on 4 points, 10 of 12 inside, each way
    assert float(zeros[3]) < 0.6


def test_any_subset_of_layers_is_trained():
    def trained(net: torch.nn.Module) -> list[str]:
        return [name for name, layer in weight_layers(net).items() if layer.weight.requires_grad]

    assert trained(fully_connected(3, 4, 2, trained=["A", "B"])) == ["A", "B"]
    assert trained(fully_connected(3, 4, 2, trained="all")) == ["A", "W1", "W2", "B"]
    assert trained(fully_connected(3, 4, 2, scheme="du", trained="W2")) == ["W2"]
    assert trained(resnet(3, 4, 2, block=2, trained=["W1_2"])) == ["W1_2"]
    assert trained(resnet(3, 4, 2, scheme="du", trained=["a"])) == ["a"]
    assert trained(cnn((1, 4, 4), 4, 2, trained=["A", "W2"])) == ["A", "W2"]
    assert trained(conv_resnet((1, 4, 4), 4, 2, trained=["W1"])) == ["W1"]


def test_builders_agree_where_they_meet():
    """A 1x1 image is a row: AZ's CNN there is the fully connected network, draw for draw."""
    x = rows(4, 5)
    flat = fully_connected(5, 6, 2, seed=3)
    one = cnn((5, 1, 1), 6, 2, kernel=1, seed=3)
    assert torch.allclose(one(x[:, :, None, None]), flat(x), rtol=1e-14)
    again = conv_resnet((5, 1, 1), 6, 3, kernel=1, seed=3)
    assert torch.allclose(again(x[:, :, None, None]), resnet(5, 6, 3, scheme="du", seed=3)(x), rtol=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cnn((3, 4), 4, 1), "inputs is \\(3, 4\\)"),
        (lambda: cnn((3, 0, 4), 4, 1), "inputs is 0"),
        (lambda: cnn((3, 4, 4), 4, 1, kernel=2), "kernel is 2"),
        (lambda: cnn((3, 4, 4), 4, 1, kernel=(3, 3, 3)), "kernel is"),
        (lambda: cnn((3, 1, 1), 4, 1, kernel=5), "smaller one, or padding='zeros'"),
        (lambda: cnn((3, 4, 4), 4, 1, padding="same"), "padding is 'same'"),
        (lambda: cnn((3, 4, 4), 4, 1, variance="he"), "variance is 'he'"),
        (lambda: cnn((3, 4, 4), [4, 4], 3), "width has 2 entries"),
        (lambda: conv_resnet((3, 4, 4), [4, 5], 2), "a skip adds layers of one width"),
        (lambda: conv_resnet((3, 4, 4), 4, 2, c_res=0.0), "c_res is 0.0"),
        (lambda: resnet(3, 4, 2, scheme="du", block=77), "block is 77, but scheme='du' has none"),
        (lambda: resnet(3, 4, 2, c_res=0.5), "c_res is 0.5, but scheme='allen-zhu' has none"),
        (lambda: cnn((3, 4, 4), 4, 2, scheme="du", variance="kaiming"), "but scheme='du' has none"),
        (lambda: resnet(3, 4, 2, tau="1/l"), "did you mean '1/L'"),
        (lambda: resnet(3, 4, 2, tau=0.0), "tau is 0.0"),
        (lambda: resnet(3, 4, 2, tau=math.nan), "tau is nan"),
        (lambda: resnet(3, 4, 2, block=4), "block is 4"),
        (lambda: fully_connected(3, 4, 2, trained=["W9"]), "trained is 'W9'"),
        (lambda: fully_connected(3, 4, 2, trained=[]), "trained names no layer"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

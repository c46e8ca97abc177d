"""Grams of convolutions and token-wise layers against torch.func's per-sample Jacobians, by both ways, and in bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.gram.largest import Largest
from zeroloss.gram import gram, layer_grams, sample_blocks, shares, tangent_operator
from zeroloss.gram.positions import patches
from zeroloss.gram.shares import Factors
from zeroloss.networks.layers import GaussianConv2d, Residual


def images(n: int, channels: int = 2, height: int = 6, width: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, channels, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def jacobian(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """n×k×P by torch.func, one sample at a time."""
    parameters = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}

    def outputs(values, row):
        return torch.func.functional_call(module, values, (row[None],)).reshape(-1)

    each = [torch.func.jacrev(outputs)(parameters, row) for row in x]
    return torch.stack([torch.cat([part.flatten(1) for part in one.values()], dim=1) for one in each])


def gaussian(padding) -> nn.Module:
    return GaussianConv2d(4, 4, (3, 3), variance=0.1, generator=torch.Generator().manual_seed(1), padding=padding)


def freeze(module: nn.Module, *prefixes: str) -> nn.Module:
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(not name.startswith(prefixes))
    return module


def plain() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)
    )


class Twice(nn.Module):
    """One convolution on two sizes of image: its gradient is the sum over both."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(2, 2, 3), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.conv(torch.tanh(self.conv(x)))).flatten(1))


class Tokens(nn.Module):
    """Linear layers on n×c×h×w: the same map for every row of every channel."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(5, 7), nn.Linear(7, 3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(torch.tanh(self.one(x))).mean(dim=(1, 2))


MODULES = {
    "padding 1, then stride 2 and padding 0": plain,
    "circular": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"), nn.GELU(), gaussian("circular"), nn.Flatten(), nn.Linear(120, 3)
    ),
    "reflect and replicate, uneven": lambda: nn.Sequential(
        nn.Conv2d(2, 3, (3, 2), padding=(2, 1), padding_mode="reflect", stride=(2, 1)),
        nn.Tanh(),
        nn.Conv2d(3, 2, (1, 3), padding=(0, 2), padding_mode="replicate"),
    ),
    "dilated, same": lambda: nn.Sequential(
        nn.Conv2d(2, 3, (2, 3), padding="same", padding_mode="circular", dilation=(1, 2)),
        nn.Tanh(),
        nn.Conv2d(3, 2, 3, padding="valid"),
        nn.Flatten(1),
    ),
    "skips and pooling": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 1, bias=False),
        Residual(gaussian("zeros"), nn.ReLU()),
        nn.AvgPool2d(2),
        Residual(nn.Conv2d(4, 4, 3, padding=1), nn.Tanh()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    ),
    "called twice": Twice,
    "tokens": Tokens,
    "tokens, all outputs": lambda: nn.Sequential(nn.Flatten(2), nn.Linear(30, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6, 2)),
    "first frozen": lambda: freeze(plain(), "0"),
    "only a bias": lambda: freeze(plain(), "0.weight", "2", "5"),
    "only the readout": lambda: freeze(plain(), "0", "2"),
    "groups, frozen": lambda: freeze(nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.Tanh(), nn.Conv2d(4, 2, 3)), "0"),
    "kernel as large as the image": lambda: nn.Sequential(nn.Conv2d(2, 8, (6, 5)), nn.Tanh(), nn.Flatten(), nn.Linear(8, 2)),
}
WAYS = {
    "positions": (shares.by_positions, shares.blocks_by_positions),
    "gradients": (shares.by_gradients, shares.blocks_by_gradients),
    "cheaper": (Factors.share, Factors.blocks),
}


def by(way, monkeypatch) -> None:
    monkeypatch.setattr(Factors, "share", WAYS[way][0])
    monkeypatch.setattr(Factors, "blocks", WAYS[way][1])


@pytest.mark.parametrize("memory", [None, 2000])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODULES)
def test_equals_the_explicit_jacobian(name, way, memory, monkeypatch):
    by(way, monkeypatch)
    if memory is not None:  # so little that every loop over rows and channels takes several turns
        monkeypatch.setattr(shares, "BYTES", memory)
    net, x = MODULES[name]().double(), images(4)
    j = jacobian(net, x)
    n, k, _ = j.shape
    exact = torch.einsum("iap,jbp->iajb", j, j)
    near = {"rtol": 1e-10, "atol": 1e-13 * float(exact.abs().max())}
    assert torch.allclose(gram(net, x, "full"), exact.reshape(n * k, n * k), **near)
    assert torch.allclose(gram(net, x), exact.diagonal(dim1=1, dim2=3).mean(-1), **near)
    assert torch.allclose(gram(net, x, k - 1), exact[:, k - 1, :, k - 1], **near)
    assert torch.allclose(sample_blocks(net, x), exact.diagonal(dim1=0, dim2=2).permute(2, 0, 1), **near)


@pytest.mark.parametrize("name", MODULES)
def test_the_operator_is_the_gram(name):
    net, x = MODULES[name]().double(), images(3)
    whole = gram(net, x, "full")
    vector = np.random.default_rng(0).standard_normal(len(whole))
    product = whole.numpy() @ vector
    assert np.allclose(tangent_operator(net, x) @ vector, product, rtol=1e-9, atol=1e-12 * abs(product).max())
    single = tangent_operator(net.float(), x) @ vector
    assert np.linalg.norm(single - product) < 1e-5 * np.linalg.norm(whole.numpy()) * np.linalg.norm(vector)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [(5, 4, 4), (8, 9, 7)])
def test_float32_is_close_and_layers_add_up(way, size, monkeypatch):
    by(way, monkeypatch)
    net = nn.Sequential(nn.Conv2d(size[0], 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.AdaptiveAvgPool2d(1)).double()
    x = images(6, *size)
    exact = gram(net, x)
    parts = layer_grams(net, x)
    assert list(parts) == ["0", "2"]
    assert torch.allclose(sum(parts.values()), exact, rtol=1e-13)
    single = gram(net.float(), x)
    assert single.dtype == torch.float32
    assert float((single.double() - exact).norm() / exact.norm()) < 1e-5


def test_plausible_wrong_formulas_are_far_off():
    """Sums over positions taken before the product, equal positions only, and a forgotten bias: none passes for the Gram."""
    net, x = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Conv2d(4, 1, (4, 3))).double(), images(4)
    exact, share = gram(net, x), layer_grams(net, x)["0"]
    delta = torch.autograd.grad(net[1:](z := net[0](x).detach().requires_grad_()).sum(), z)[0].flatten(2)
    phi = patches(net[0], x)
    right = torch.einsum("ict,jcs,idt,jds->ij", delta, delta, phi, phi)
    assert torch.allclose(share, right, rtol=1e-12)
    wrong = {
        "equal positions": torch.einsum("ict,jct,idt,jdt->ij", delta, delta, phi, phi),
        "sums first": (delta.sum(2) @ delta.sum(2).T) * (phi.sum(2) @ phi.sum(2).T),
        "no bias": torch.einsum("ict,jcs,idt,jds->ij", delta, delta, phi[:, :-1], phi[:, :-1]),
    }
    for other in wrong.values():
        assert float((exact - share + other - exact).norm() / exact.norm()) > 1e-3


def test_the_way_with_fewer_operations_is_taken(monkeypatch):
    taken = []
    for name in ("by_positions", "by_gradients"):
        monkeypatch.setattr(shares, name, lambda factors, other, name=name: taken.append(name) or torch.zeros(2, 1, 2, 1))
    wide, image = nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(3, 8, 3, padding=1)
    Factors(nn.Linear(30, 20), (torch.ones(9, 30),), torch.ones(9, 1, 20, 1)).share()
    Factors(wide, (torch.ones(2, 64, 2, 2),), torch.ones(2, 1, 64, 4)).share()
    Factors(image, (torch.ones(9, 3, 16, 16),), torch.ones(9, 1, 8, 256)).share()
    assert taken == ["by_positions", "by_positions", "by_gradients"]


@pytest.mark.parametrize("way", ["positions", "gradients"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_memory_is_bounded(way, outputs, monkeypatch):
    """Patches of all samples take 598 kB, their gradients 75 kB a k, their products of positions 8 MB a k^2: no tensor comes near."""
    monkeypatch.setattr(shares, "BYTES", 2**17)
    n, layer = 16, nn.Conv2d(8, 8, 3, padding=1).double()
    factors = Factors(layer, (images(n, 8, 8, 8),), torch.randn(n, outputs, 8, 64, dtype=torch.float64))
    least = (64 * outputs) ** 2 * 8 if way == "positions" else 0  # one pair of samples
    for function in WAYS[way]:
        with Largest() as largest:
            function(factors)
        assert 2**12 < largest.bytes <= max(2**16, least)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, affine=False)), "mixes samples: '1'"),
        (lambda: nn.Conv2d(3, 4, 3), "does not fit the module"),
    ],
)
def test_refusals(build, message):
    with pytest.raises(ValueError, match=message):
        gram(build().double(), images(4), "mean")


class Mixing(nn.Module):
    """A normalisation over the batch that no layer's name gives away."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.conv(x)
        return (z / z.square().mean(dim=0).sqrt()).mean(dim=(2, 3))


class SequenceFirst(nn.Module):
    """Positions in the first dimension, and as many of them as samples there may be."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.layer(x[:, 0].transpose(0, 1))).sum(dim=0)


class Functional(nn.Module):
    """A kernel that is used a second time, without a call of its layer."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, bias=bias)
        if bias:
            self.conv.weight.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = torch.tanh(self.conv(x))
        again = z + self.conv.bias[:, None, None] if self.conv.bias is not None else nn.functional.conv2d(z, self.conv.weight)
        return torch.log_softmax(again.flatten(1), dim=1)


class Uncalled(nn.Module):
    """A trained layer whose weight acts only through the functional form."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(torch.tanh(self.conv(x)), self.other.weight)


class Scaled(nn.Conv2d):
    """A convolution whose weight is scaled inside it: the call shows another map than the weight's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * super().forward(x)


HIDDEN = {
    "rows are positions": SequenceFirst,
    "weight by a function": lambda: Functional(False),
    "bias by a function": lambda: Functional(True),
    "never called": Uncalled,
    "scaled inside": lambda: nn.Sequential(Scaled(2, 3, 3)),
    "computed weight": lambda: nn.utils.weight_norm(nn.Conv2d(2, 3, 3)),
    "samples and rows together": lambda: nn.Sequential(
        nn.Flatten(0, 2), nn.Linear(5, 1), nn.Tanh(), nn.Unflatten(0, (-1, 12)), nn.Flatten()
    ),
}


@pytest.mark.parametrize("build", HIDDEN.values(), ids=HIDDEN)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
def test_what_the_calls_do_not_show_is_found_and_differentiated(build):
    net, x = build().double(), images(5)
    if isinstance(net, SequenceFirst):
        x = x[:, :, :5]  # as many positions as samples
    j = jacobian(net, x)
    exact = torch.einsum("iap,jbp->iajb", j, j)
    near = {"rtol": 1e-10, "atol": 1e-13 * float(exact.abs().max())}
    assert torch.allclose(gram(net, x), exact.diagonal(dim1=1, dim2=3).mean(-1), **near)
    assert torch.allclose(sample_blocks(net, x), exact.diagonal(dim1=0, dim2=2).permute(2, 0, 1), **near)


@pytest.mark.parametrize("function", [gram, sample_blocks])
def test_samples_that_mix_are_refused(function):
    with pytest.raises(ValueError, match="mixes samples: one row's outputs change with the rows beside it"):
        function(Mixing().double(), images(5))


def test_outputs_that_sum_to_one_hide_nothing():
    """The gradient of a sum of probabilities is rounding alone; a fair module is not refused for it."""
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(48, 3), nn.Softmax(dim=1))
    assert gram(net.double(), images(4)).shape == (4, 4)
    assert gram(net.float(), images(4)).shape == (4, 4)

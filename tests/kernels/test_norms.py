"""Normalising layers: their limits layer by layer against finite networks, exact cases, near duplicates, and refusals."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.cases import rows
from tests.kernels.finite import gaussian, worst_z
from zeroloss import limit_kernel
from zeroloss.kernels import layer_kernels, recursion
from zeroloss.kernels.pairs import Pairs
from zeroloss.kernels.replicates import needs_particles
from zeroloss.networks import Residual, Scale

W = 512


def frozen(layer: nn.Module) -> nn.Module:
    return layer.requires_grad_(False)


MODULES = {
    "before activations": lambda: nn.Sequential(
        nn.Linear(6, W), nn.LayerNorm(W), nn.ReLU(), nn.Linear(W, W), nn.LayerNorm(W, eps=0.3), nn.Tanh(), nn.Linear(W, 1)
    ),
    "after activations": lambda: nn.Sequential(
        nn.Linear(6, W), nn.ReLU(), nn.LayerNorm(W), nn.Linear(W, W), nn.GELU(), nn.LayerNorm(W, bias=False), nn.Linear(W, 1)
    ),
    "twice, and scaled": lambda: nn.Sequential(
        nn.Linear(6, W), nn.LayerNorm(W, eps=0.3), Scale(1.7), nn.LayerNorm(W, eps=0.5), Scale(0.6), nn.ReLU(), nn.Linear(W, 1)
    ),
    "inside a skip": lambda: nn.Sequential(
        nn.Linear(6, W), Residual(nn.LayerNorm(W), nn.Linear(W, W), nn.ReLU(), nn.Linear(W, W)), nn.LayerNorm(W), nn.Linear(W, 1)
    ),
    "gain before a skip": lambda: nn.Sequential(
        nn.Linear(6, W), nn.LayerNorm(W), Residual(nn.Linear(W, W)), nn.ReLU(), nn.Linear(W, 1)
    ),
    "before a cut function": lambda: nn.Sequential(nn.Linear(6, W), nn.LayerNorm(W), nn.Hardtanh(), nn.Linear(W, 1)),
    "not trained": lambda: nn.Sequential(
        nn.Linear(6, W), frozen(nn.LayerNorm(W)), nn.Hardtanh(), nn.LayerNorm(W, elementwise_affine=False), nn.Linear(W, 1)
    ),
    "of a sampled sum": lambda: nn.Sequential(
        nn.Linear(6, W), nn.ReLU(), Residual(nn.Linear(W, W)), nn.LayerNorm(W), nn.ReLU(), nn.Linear(W, 1)
    ),
    "of the inputs": lambda: nn.Sequential(nn.LayerNorm(6), nn.Linear(6, W), nn.ReLU(), nn.Linear(W, 1)),
    "root mean square": lambda: nn.Sequential(
        nn.Linear(6, W), nn.ReLU(), nn.RMSNorm(W), nn.Linear(W, W), nn.RMSNorm(W), nn.SiLU(), nn.Linear(W, 1)
    ),
    "batch, unused": lambda: nn.Sequential(nn.Linear(6, W), nn.BatchNorm1d(W, eps=0.3), nn.Tanh(), nn.Linear(W, 1)).eval(),
}


def inputs() -> torch.Tensor:
    return rows(5, 6, unit=False) + 0.2  # means that do not vanish


@pytest.mark.parametrize("name", MODULES)
def test_finite_networks_tend_to_the_limit(name):
    """Every layer's share, gain and shift included: 30 draws at width 512, the worst of some 60 entries by a z-score."""
    build, x = MODULES[name], inputs()
    limits = layer_kernels(build(), x)
    assert worst_z(limits, build, x, draws=30) < 4.5
    total = limit_kernel(build())(x)
    assert torch.allclose(torch.stack(list(limits.values())).sum(0), total, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_many_finite_networks_tend_to_the_limit(name):
    """As above with 300 draws, and means of gains and shifts then lie within some 0.3 per cent."""
    build, x = MODULES[name], inputs()
    assert worst_z(layer_kernels(build(), x), build, x, draws=300) < 4.5


def test_wrong_rules_would_be_caught(monkeypatch):
    """The controls: a gain taken as independent of its coordinate's value, and statistics without the mean taken off."""
    build, x = MODULES["before activations"], inputs()
    right = layer_kernels(build(), x)

    def independent(sigma, pairs):
        return recursion.dual(sigma, pairs).slope * pairs.products

    monkeypatch.setattr(recursion, "gained_products", independent)
    wrong = layer_kernels(build(), x)
    assert worst_z({"1": wrong["1"]}, lambda: only(build(), "1"), x, draws=30) > 8
    assert torch.equal(wrong["3"], right["3"])
    uncentred = nn.Sequential(
        nn.Linear(6, W), nn.ReLU(), nn.RMSNorm(W), nn.Linear(W, W), nn.GELU(), nn.RMSNorm(W), nn.Linear(W, 1)
    )
    assert worst_z({"0": layer_kernels(uncentred, x)["0"]}, lambda: only(MODULES["after activations"](), "0"), x, draws=30) > 8


def only(module: nn.Sequential, name: str) -> nn.Module:
    """The module with one layer trained."""
    for other, layer in module.named_children():
        layer.requires_grad_(other == name)
    return module


IMAGES = {
    "whole images": lambda: nn.Sequential(
        nn.Conv2d(2, 96, (1, 3), padding=(0, 1)), nn.LayerNorm((96, 1, 5)), nn.ReLU(), nn.Conv2d(96, 96, (1, 3)),
        nn.ReLU(), nn.LayerNorm((96, 1, 3)), nn.Flatten(), nn.Linear(288, 1),
    ),
    "images as they come": lambda: nn.Sequential(
        nn.LayerNorm((2, 1, 5)), nn.Conv2d(2, 96, (1, 3), padding=(0, 1)), nn.BatchNorm2d(96, eps=0.1), nn.Tanh(), nn.Flatten(),
        nn.Linear(480, 1),
    ).eval(),
}  # fmt: skip


@pytest.mark.parametrize("name", IMAGES)
def test_images_tend_to_the_limit(name):
    x = (rows(4, 10, unit=False) * 3 + 0.5).reshape(4, 2, 1, 5)
    limits = layer_kernels(IMAGES[name](), x)
    assert worst_z(limits, IMAGES[name], x, draws=60) < 4.5


POOLED = {
    "plain images": lambda: [nn.LayerNorm((96, 2, 3), elementwise_affine=False), nn.ReLU(), nn.AvgPool2d((2, 3)), nn.Flatten()],
    "of pooled images": lambda: [
        nn.ReLU(), nn.AvgPool2d((2, 1)), frozen(nn.LayerNorm((96, 1, 3))), nn.AvgPool2d((1, 3)), nn.Flatten(), nn.LayerNorm(96)
    ],
    "batch": lambda: [nn.BatchNorm2d(96, eps=0.2), nn.ReLU(), nn.AvgPool2d((2, 3)), nn.BatchNorm2d(96), nn.Flatten()],
}  # fmt: skip


@pytest.mark.parametrize("name", POOLED)
def test_pooled_images_are_normalised_image_by_image(name):
    """Where pairs of different pixels are kept, one image's pixels share their statistics still, and a channel's gain meets them all."""
    x = (rows(4, 12, unit=False) * 3 + 0.5).reshape(4, 2, 2, 3)

    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(2, 96, (1, 3), padding=(0, 1)), *POOLED[name](), nn.Linear(96, 1)).eval()

    assert worst_z(layer_kernels(build(), x), build, x, draws=60) < 4.5


def test_gains_of_single_pixels_are_refused_where_pixels_are_pooled():
    x = rows(4, 12).reshape(4, 2, 2, 3)
    trained = nn.Sequential(
        nn.Conv2d(2, 4, 1), nn.LayerNorm((4, 2, 3)), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 1)
    )
    with pytest.raises(ValueError, match=r"for every pixel at '1' \(LayerNorm\) and pools pixels; freeze it"):
        limit_kernel(trained)(x)
    assert limit_kernel(trained, "nngp")(x).shape == (4, 4)


def test_rows_are_normalised_as_torch_does():
    """Straight on the inputs nothing is random: S is that of torch's own output, near duplicates and constant rows included."""
    x = inputs()
    x = torch.cat([x, x[:1] + 1e-7 * rows(1, 6, seed=3), 2 + 0 * x[:1], -3 * x[:1] + 5])
    for layer in (nn.LayerNorm(6), nn.LayerNorm(6, eps=0.5), nn.RMSNorm(6), nn.RMSNorm(6, eps=0.5)):
        y = layer.double()(x).detach()
        ours = limit_kernel(nn.Sequential(layer, nn.Linear(6, 1, bias=False)), "nngp", initial={"1": 1 / 6})(x)
        assert torch.allclose(ours, y @ y.T / 6, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("apart", [1e-4, 1e-7])
def test_near_duplicates_keep_their_digits(apart):
    x = inputs()[:1]
    x = torch.cat([x, x + apart * rows(1, 6, seed=3)])
    module = nn.Sequential(nn.LayerNorm(6, elementwise_affine=False), nn.Linear(6, 8, bias=False))
    pairs = recursion.walk(module, x, None, {}).pairs
    delta, centred = x[1] - x[0], x[0] - x[0].mean()
    delta = delta - delta.mean()
    along = (delta @ centred) ** 2 / (centred @ centred)
    exact = float((delta @ delta - along) / (2 * centred @ centred))  # to first order in the distance
    assert float(pairs.versine[0, 1]) == pytest.approx(exact, rel=max(20 * apart, 1e-6))


def test_blocks_of_two_sets_are_blocks_of_one():
    x = inputs()
    kernel = limit_kernel(MODULES["inside a skip"]())
    assert torch.allclose(kernel(x[:2], x[2:]), kernel(x)[:2, 2:], rtol=1e-11)
    assert torch.equal(kernel(x), kernel(x).T)


def test_a_skip_straight_on_the_inputs_meets_their_mean():
    """The branch ends in an activation, so its mean is not 0 and the inputs' own mean counts; many features stand for the limit."""
    d = 512
    x = torch.rand(4, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[0.5], [1.0], [1.5], [2.0]]
    )

    def build() -> nn.Module:
        return nn.Sequential(Residual(nn.Linear(d, d), nn.ReLU()), nn.Linear(d, d), nn.ReLU(), nn.Linear(d, 1))

    limits = layer_kernels(build(), x)
    assert worst_z(limits, build, x, draws=12) < 4.5
    module = gaussian(build())
    start = recursion.walk(nn.Sequential(module[0]), x, None, {})
    without = Pairs(start.pairs.left - 2 * x.mean(1) * (start.mean_left - x.mean(1)), start.pairs.right, start.pairs.versine)
    assert float((without.left / start.pairs.left - 1).abs().min()) > 0.1  # what leaving the mean out would change


def test_which_need_particles():
    assert {name for name, build in MODULES.items() if needs_particles(build())} == {
        "gain before a skip",
        "before a cut function",
        "of a sampled sum",
    }


def seen_a_batch() -> nn.Module:
    norm = nn.BatchNorm1d(8)
    norm(torch.randn(5, 8))
    return norm.eval()


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8)), r"by its own batch \(BatchNorm1d at '1'\).*LayerNorm"),
        (nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8, track_running_stats=False)).eval(), "by its own batch"),
        (nn.Sequential(nn.Linear(5, 8), seen_a_batch()), r"for every feature \(BatchNorm1d at '1'\).*reset_running_stats"),
        (nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(4)), r"over \(4,\) at '1' \(LayerNorm\).*become 8.*normalized_shape=8"),
        (nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(4).eval()), "expects 4 features"),
    ],
)
def test_what_has_no_limit_is_named(module, message):
    with pytest.raises(ValueError, match=message):
        limit_kernel(module)(rows(3, 5))

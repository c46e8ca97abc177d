"""Limits with average pooling: a twin over all pixels, finite networks, two sets and tiles, sequences, and bad input."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.kernels.conv_cases import finite_kernels, images
from tests.kernels.pixel_cases import he, in_torch, joint_kernels, readout, stack, worst
from zeroloss import gram, limit_kernel
from zeroloss.kernels import convolution, layer_kernels
from zeroloss.networks import Residual, Scale

SHAPE = (2, 4, 5)


CASES = {
    "global": [nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), he(8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), readout(8)],
    "valid": [
        *[nn.Conv2d(2, 8, (2, 3)), nn.ReLU(), nn.Conv2d(8, 8, 2), nn.ReLU()],
        *[nn.AvgPool2d((2, 2)), nn.Flatten(), readout(8)],
    ],
    "circular": [
        *[he(2, 8, padding="circular"), nn.ReLU(), he(8, 8, (1, 3), padding="circular"), nn.ReLU()],
        *[nn.AvgPool2d((4, 5)), nn.Flatten(), readout(8)],
    ],
    "stride": [
        *[nn.Conv2d(2, 8, 3, stride=(1, 2), padding=2), nn.ReLU(), nn.Conv2d(8, 8, 2, stride=2), nn.ReLU()],
        *[nn.AdaptiveAvgPool2d(1), nn.Flatten(), readout(8)],
    ],
    "local": [he(2, 8), nn.ReLU(), nn.AvgPool2d(2), he(8, 8), nn.ReLU(), nn.Flatten(), readout(32)],
    "overlapping": [
        *[he(2, 8), nn.ReLU(), nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)],
        *[he(8, 8, (3, 1)), nn.ReLU(), nn.AvgPool2d(3, 2, ceil_mode=True), nn.Flatten(), readout(32)],
    ],
    "first": [
        *[nn.AvgPool2d(2), he(2, 8), nn.ReLU(), nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten()],
        *[nn.Linear(16, 8), nn.ReLU(), readout(8)],
    ],
    "gaussian": [
        *[nn.Conv2d(2, 8, 3, padding=1), nn.AvgPool2d(2), nn.ReLU(), he(8, 8), nn.ReLU(), Scale(0.7)],
        *[nn.AdaptiveAvgPool2d(1), nn.Flatten(), readout(8)],
    ],
}
cases = pytest.mark.parametrize("layers", CASES.values(), ids=CASES.keys())


@cases
def test_the_recursion_on_all_pixels(layers):
    x, net = images(3, SHAPE), nn.Sequential(*layers)
    second, tangent = joint_kernels(layers, x)
    with in_torch():
        assert worst(limit_kernel(net)(x), tangent) < 1e-9  # the twin's arc cosine loses digits near 1
        assert worst(limit_kernel(net, "nngp")(x), second) < 1e-9
    assert worst(limit_kernel(net)(x), tangent) < 1e-9


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh], ids=["relu", "tanh"])
def test_finite_networks_tend_to_the_limit(act):
    """Local pooling, a residual block, an even kernel, a bias. Circular borders would be seen."""

    def build(m, seed=0, padding="zeros"):
        torch.manual_seed(seed)
        first, inside, last = (he(i, m, seed=10 * seed + k, padding=padding) for k, i in enumerate((2, m, m)))
        block, even = Residual(inside, act()), nn.Conv2d(m, m, (2, 3), padding="same")
        return nn.Sequential(
            first, act(), nn.AvgPool2d(2, padding=1), block, even, act(), last, act(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), readout(m, seed=10 * seed + 3),
        ).double()  # fmt: skip

    x = images(3, SHAPE)
    sample = torch.stack([gram(build(192, seed), x) for seed in range(48)])
    mean, error = sample.mean(0), sample.std(0) / len(sample) ** 0.5
    limit = limit_kernel(build(192))(x)
    assert float((error / limit.diagonal().max()).max()) < 0.05
    assert float(((mean - limit).abs() / error).max()) < 4
    wrong = limit_kernel(build(192, padding="circular"))(x)
    assert float(((mean - wrong).abs() / error).max()) > 6


@pytest.mark.slow
def test_finite_networks_with_global_pooling_layer_by_layer():
    """z < 4.5 for every entry of every layer's share; one with circular borders or without pooling's cross terms is far off."""
    x, draws, m = images(4, (3, 5, 6)), 48, 256
    samples: dict[str, list[torch.Tensor]] = {}
    for seed in range(draws):
        for name, share in finite_kernels(stack(3, m, seed=seed), x).items():
            samples.setdefault(name, []).append(share)
    shares = layer_kernels(stack(3, m), x)
    circular = nn.Sequential(*stack(3, m))
    for layer in circular:
        if isinstance(layer, nn.Conv2d):
            layer.padding_mode = "circular"
    wrong = layer_kernels(circular, x)
    assert list(samples) == list(shares)
    for name, found in samples.items():
        mean, error = torch.stack(found).mean(0), torch.stack(found).std(0) / draws**0.5
        assert float(((mean - shares[name]).abs() / error).max()) < 4.5, name
        assert float(((mean - wrong[name]).abs() / error).max()) > 8, name


@cases
def test_two_sets_tiles_and_operators_give_one_kernel(layers, monkeypatch):
    x, net = images(7, SHAPE), nn.Sequential(*layers)
    kernel = limit_kernel(net)
    whole = kernel(x)
    assert torch.equal(whole, whole.T)
    assert worst(kernel(x[:3], x[3:]), whole[:3, 3:]) < 1e-12
    monkeypatch.setattr(convolution, "BUDGET", 8 * (convolution.COPIES + 1) * (2 * 20) ** 2)  # tiles of two by two
    with in_torch():
        assert worst(kernel(x), whole) < 1e-12
        assert worst(kernel(x[:3], x[3:]), whole[:3, 3:]) < 1e-12
        assert worst(torch.from_numpy(kernel.operator(x) @ torch.eye(7).double().numpy()), whole) < 1e-12


def test_equal_images_are_equal_rows_and_near_ones_leave_no_negative_eigenvalue():
    x = images(4, SHAPE)
    for layers in (CASES["global"], CASES["overlapping"], CASES["gaussian"]):
        kernel = limit_kernel(nn.Sequential(*layers))
        twice = kernel(torch.cat([x, x]))
        assert worst(twice[:4], twice[4:]) < 1e-13
        near = kernel(torch.cat([x, x + 1e-6 * images(4, SHAPE, seed=1)]))
        assert float(torch.linalg.eigvalsh(near)[0]) > -1e-14 * float(near.trace())


def test_zero_images_and_zero_pixels():
    x = images(3, SHAPE)
    x[0] = 0
    x[1, :, :2] = 0
    for layers in CASES.values():
        assert torch.isfinite(limit_kernel(nn.Sequential(*layers))(x)).all()
    plain = limit_kernel(stack(2, 8, channels=2))(x)
    assert float(plain[0].abs().max()) == 0
    with in_torch():
        assert torch.allclose(limit_kernel(stack(2, 8, channels=2))(x), plain, rtol=1e-10, atol=0)


def test_pooling_one_pixel_changes_nothing():
    x = images(4, (3, 1, 1))
    pooled, plain = stack(2, 8), nn.Sequential(*[layer for layer in stack(2, 8) if not isinstance(layer, nn.AdaptiveAvgPool2d)])
    assert worst(limit_kernel(pooled)(x), limit_kernel(plain)(x)) < 1e-13


def test_skips_before_activations_are_sampled_with_pooling_too():
    """AZ's blocks, then global pooling: no closed form, within the reported standard error of finite networks."""

    def build(m, seed=0):
        block = nn.Sequential(Residual(he(m, m, seed=seed + 1)), nn.ReLU())
        return nn.Sequential(
            he(2, m, seed=seed), nn.ReLU(), block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), readout(m, seed=seed + 2)
        )

    x = images(3, (2, 3, 3))
    kernel = limit_kernel(build(192), particles=40_000)
    sample = torch.stack([gram(build(192, 10 * seed), x) for seed in range(16)])
    error = (sample.var(0) / 16 + kernel.standard_error(x) ** 2).sqrt()
    assert float(((sample.mean(0) - kernel(x)).abs() / error).max()) < 4


@pytest.mark.parametrize("pool", [[], [nn.AvgPool1d(2)], [nn.AdaptiveAvgPool1d(1)]], ids=["flatten", "local", "global"])
@pytest.mark.parametrize("kind", ["ntk", "nngp", "last-hidden"])
def test_sequences_are_images_of_height_one(pool, kind):
    x = images(5, (2, 1, 8))
    width = {0: 8, 1: 4}[len(pool)] if not pool or isinstance(pool[0], nn.AvgPool1d) else 1

    def build(conv, pools, one):
        first, second = conv(2, 8, one(3), padding=one(1, 0)), conv(8, 8, one(5), padding=one(2, 0), bias=False)
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), *pools, nn.Flatten(), readout(8 * width))

    flat = {nn.AvgPool1d: nn.AvgPool2d((1, 2)), nn.AdaptiveAvgPool1d: nn.AdaptiveAvgPool2d(1)}
    line = build(nn.Conv1d, pool, lambda k, _=0: k)
    image = build(nn.Conv2d, [flat[type(layer)] for layer in pool], lambda k, side=1: (side, k))
    expected = limit_kernel(image, kind)(x)
    assert worst(limit_kernel(line, kind)(x[:, :, 0]), expected) < 1e-12
    assert worst(limit_kernel(line, kind)(x[:2, :, 0], x[2:, :, 0]), expected[:2, 2:]) < 1e-12
    with in_torch():
        assert worst(limit_kernel(line, kind)(x[:, :, 0]), expected) < 1e-12
    with pytest.raises(ValueError, match="the module convolves sequences; pass an n×c×w tensor"):
        limit_kernel(line, kind)(x)

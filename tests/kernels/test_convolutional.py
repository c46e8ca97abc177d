"""Limit kernels of convolutional networks: wide finite ones (DU-01), the recursion pixel by pixel, exact cases, and bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.cases import rows
from tests.kernels.conv_cases import C_RES, cnn, conv_resnet, finite_kernels, images, mean_kernels, relative, relu_pair
from zeroloss import fully_connected, limit_kernel
from zeroloss.kernels import layer_kernels, tiles
from zeroloss.kernels.patches import patches_of
from zeroloss.networks import GaussianConv2d, GaussianLinear, Residual

NETS = {
    "conv_resnet-relu": lambda shape, m, seed=0: conv_resnet(shape, m, 3, (3, 3), "relu", seed),
    "conv_resnet-erf": lambda shape, m, seed=0: conv_resnet(shape, m, 3, (1, 3), "erf", seed),
    "cnn-zeros": lambda shape, m, seed=0: cnn(shape, m, 3, (3, 3), "zeros", seed=seed),
    "cnn-circular": lambda shape, m, seed=0: cnn(shape, m, 3, (1, 3), "circular", seed=seed),
}
nets = pytest.mark.parametrize("build", NETS.values(), ids=NETS.keys())


def twin(x: torch.Tensor, depth: int, kernel: tuple[int, int]) -> torch.Tensor:
    """THEORY 3.5 once more for ReLU, with a loop over pixels and every formula as it stands there: G^(1), ..., G^(H+1)."""
    n, _, height, width = x.shape
    alpha, pixels = C_RES / depth, [(r, c) for r in range(height) for c in range(width)]
    reach = (kernel[0] // 2, kernel[1] // 2)

    def near(p):
        return [r for r in pixels if abs(r[0] - p[0]) <= reach[0] and abs(r[1] - p[1]) <= reach[1]]

    def mu(s):
        return math.sqrt(s / (2 * math.pi))

    result = torch.zeros(depth + 1, n, n, dtype=torch.float64)
    for i in range(n):
        for j in range(n):
            pairs = ((i, i), (i, j), (j, j))
            S = [{p: float(x[a, :, p[0], p[1]] @ x[b, :, p[0], p[1]]) for p in pixels} for a, b in pairs]
            P, slope, mean = [], [], [dict.fromkeys(pixels, 0.0), dict.fromkeys(pixels, 0.0)]
            for h in range(1, depth + 1):
                P.append([{p: sum(s[r] for r in near(p)) for p in pixels} for s in S])
                ii, ij, jj = P[-1]
                slope.append({p: relu_pair(ii[p], ij[p], jj[p])[1] for p in pixels})
                moment = [
                    {p: relu_pair(a[p], c[p], b[p])[0] for p in pixels} for a, c, b in ((ii, ii, ii), (ii, ij, jj), (jj, jj, jj))
                ]
                if h == 1:
                    S = [{p: 2 * e[p] for p in pixels} for e in moment]
                    mean = [{p: math.sqrt(2) * mu(v[p]) for p in pixels} for v in (ii, jj)]
                    continue
                b_i, b_j = mean
                cross = (
                    {p: 2 * b_i[p] * mu(ii[p]) for p in pixels},
                    {p: b_i[p] * mu(jj[p]) + b_j[p] * mu(ii[p]) for p in pixels},
                    {p: 2 * b_j[p] * mu(jj[p]) for p in pixels},
                )
                S = [{p: s[p] + alpha * c[p] + alpha**2 * e[p] for p in pixels} for s, c, e in zip(S, cross, moment, strict=True)]
                mean = [{p: b[p] + alpha * mu(v[p]) for p in pixels} for b, v in ((b_i, ii), (b_j, jj))]
            beta = dict.fromkeys(pixels, 1.0)
            result[depth, i, j] = sum(S[1].values())
            for h in range(depth, 0, -1):
                gain = 2 if h == 1 else alpha**2
                result[h - 1, i, j] = gain * sum(P[h - 1][1][p] * slope[h - 1][p] * beta[p] for p in pixels)
                beta = {s: beta[s] + gain * sum(slope[h - 1][r] * beta[r] for r in near(s)) for s in pixels}
    return result


@pytest.mark.parametrize(("shape", "kernel"), [((2, 1, 6), (1, 3)), ((2, 4, 4), (3, 3)), ((3, 3, 5), (3, 5))])
def test_the_recursion_pixel_by_pixel(shape, kernel):
    x = images(3, shape)
    ours = torch.stack(list(layer_kernels(conv_resnet(shape, 8, 4, kernel), x).values()))
    assert torch.allclose(ours, twin(x, 4, kernel), rtol=1e-10, atol=0)
    assert not torch.allclose(ours, twin(x, 4, (1, 1)), rtol=0.1)  # the twin sees the patches


@pytest.mark.parametrize("shape", [(2, 1, 6), (2, 4, 4)], ids=str)
@nets
def test_du_01_finite_networks_tend_to_the_limit(build, shape):
    x = images(4, shape)
    found, limits = mean_kernels(lambda seed: build(shape, 256, seed), x, 24), layer_kernels(build(shape, 256), x)
    assert list(found) == list(limits)
    assert relative(sum(found.values()), sum(limits.values())) < 0.05
    for name, share in found.items():
        assert relative(share, limits[name]) < 0.1, name


@pytest.mark.slow
@pytest.mark.parametrize("family", ["conv_resnet", "cnn"])
def test_du_01_at_the_width_of_the_claim(family):
    """The mean of 4 draws at m = 4096 within 5 % of the limit."""
    shape = (2, 1, 6)

    def build(seed=0):
        if family == "cnn":
            return cnn(shape, 4096, 3, (1, 3), "circular", seed=seed, dtype=torch.float32)
        return conv_resnet(shape, 4096, 3, (1, 3), "relu", seed, dtype=torch.float32)

    x = images(4, shape)
    found, limits = mean_kernels(build, x, 4), layer_kernels(build(), x)
    assert relative(sum(found.values()), sum(limits.values())) < 0.05
    for name, share in found.items():
        assert relative(share, limits[name]) < 0.1, name


def test_the_finite_kernel_is_automatic_differentiations():
    net, x = cnn((2, 4, 4), 6, 2, (3, 3), "circular"), images(3, (2, 4, 4))
    shares = finite_kernels(net, x)
    for name, share in shares.items():
        weight = net.get_submodule(name).weight
        gradients = torch.stack([torch.autograd.grad(net(x[i : i + 1])[0, 0], weight)[0].flatten() for i in range(3)])
        assert torch.allclose(share, gradients @ gradients.T, rtol=1e-12)


@pytest.mark.parametrize(
    "geometry",
    [
        {"kernel_size": (3, 2), "stride": (2, 1)},
        {"kernel_size": 3, "padding": (0, 2), "stride": (1, 3)},
        {"kernel_size": (1, 3), "padding": "same"},
        {"kernel_size": (5, 3), "padding": (2, 1), "padding_mode": "circular"},
        {"kernel_size": (2, 3), "padding": (1, 2), "stride": 2, "padding_mode": "circular"},
        {"kernel_size": (7, 7), "padding": 3},
    ],
    ids=str,
)
def test_patch_sums_are_torchs_convolution_with_ones(geometry):
    layer = nn.Conv2d(1, 1, bias=False, dtype=torch.float64, **geometry)
    torch.nn.init.ones_(layer.weight)
    values = torch.rand(2, 3, 6, 5, dtype=torch.float64)
    exact = layer(values.reshape(6, 1, 6, 5)).reshape(2, 3, *layer(values[:1, :1]).shape[2:])
    patches = patches_of(layer, "0")
    assert torch.allclose(patches.sums(values), exact, rtol=1e-14)
    assert patches.out_size((6, 5)) == tuple(exact.shape[2:])


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_torchs_own_convolutions_with_bias_stride_and_padding():
    """Strides, one-sided borders, a branch inside a Residual; the uniform first layer is near enough to Gaussian at fan-in 27."""

    def build(m):
        return nn.Sequential(
            nn.Conv2d(3, m, 3, stride=2, padding=(1, 2)), nn.ReLU(), nn.Conv2d(m, m, (2, 3), padding="same"), nn.ReLU(),
            Residual(nn.Conv2d(m, m, 1), nn.ReLU()), nn.Conv2d(m, m, (2, 1)), nn.Tanh(), nn.Flatten(), nn.Linear(m * 2 * 4, 3),
        ).double()  # fmt: skip

    x = images(4, (3, 5, 6))
    total = torch.zeros(4, 4, dtype=torch.float64)
    for seed in range(12):
        torch.manual_seed(seed)
        net = build(192)
        gradients = [torch.autograd.grad(net(x[i : i + 1])[0, 0], list(net.parameters())) for i in range(4)]
        jacobian = torch.stack([torch.cat([g.flatten() for g in row]) for row in gradients])
        total += jacobian @ jacobian.T / 12
    assert relative(total, limit_kernel(build(192))(x)) < 0.06


def test_circular_cnn_keeps_total_norms_exactly():
    """Var 2/(q m) is made for it: sum over pixels of every hidden layer's second moment is the image's square norm."""
    shape, m = (2, 4, 4), 8
    x = images(5, shape)
    for depth in (1, 2, 4):
        net = cnn(shape, m, depth, (3, 3), "circular", outputs=3)
        second = limit_kernel(net, "nngp")(x).diagonal()  # B has variance 1/3
        assert torch.allclose(second * 3, (x**2).sum((1, 2, 3)), rtol=1e-13)
    zeros = limit_kernel(cnn(shape, m, 2, (3, 3), "zeros"), "nngp")(x).diagonal()
    assert bool((zeros < 0.9 * (x**2).sum((1, 2, 3))).all())


@pytest.mark.parametrize("kind", ["ntk", "nngp", "last-hidden"])
def test_one_pixel_is_the_fully_connected_kernel(kind):
    x, generator = rows(5, 4, unit=False), torch.Generator().manual_seed(0)
    dense = fully_connected(4, 16, 2, scheme="allen-zhu")
    one = cnn((4, 1, 1), 16, 2, (1, 1))
    assert torch.allclose(limit_kernel(one, kind)(x[:, :, None, None]), limit_kernel(dense, kind)(x), rtol=1e-14)
    drawn = {"variance": 0.5, "generator": generator}
    late = nn.Sequential(GaussianConv2d(4, 16, (1, 1), **drawn), nn.Flatten(), nn.ReLU(), GaussianLinear(16, 1, **drawn))
    early = nn.Sequential(GaussianLinear(4, 16, **drawn), nn.ReLU(), GaussianLinear(16, 1, **drawn))
    assert torch.allclose(limit_kernel(late, kind)(x[:, :, None, None]), limit_kernel(early, kind)(x), rtol=1e-14)


def test_images_still_reach_fully_connected_networks():
    x = images(4, (2, 3, 3))
    net = fully_connected(18, 8, 2, scheme="du")
    flat = limit_kernel(net)(x.flatten(1))
    assert torch.equal(limit_kernel(net)(x), flat)
    assert torch.equal(limit_kernel(nn.Sequential(nn.Flatten(), net))(x), flat)


def test_a_linear_convolution_has_its_kernel_at_any_width():
    """Without an activation the tangent kernel is sum over patches of inner products, exactly; an image as output is a mean over it."""
    x = images(4, (3, 5, 6))
    layer = nn.Conv2d(3, 7, (2, 3), stride=(1, 2), padding=(1, 0)).double()
    patches = functional.unfold(x, (2, 3), stride=(1, 2), padding=(1, 0))
    exact = torch.einsum("ial,jal->ij", patches, patches) / patches.shape[2] + 1
    assert torch.allclose(limit_kernel(layer)(x), exact, rtol=1e-13)


@nets
def test_kinds_fit_together(build):
    net, x = build((2, 2, 3), 8), images(5, (2, 2, 3))
    parts = layer_kernels(net, x)
    assert torch.allclose(sum(parts.values()), limit_kernel(net)(x), rtol=1e-13)
    last = next(share for name, share in parts.items() if name.endswith("W3"))
    assert torch.allclose(limit_kernel(net, "last-hidden")(x), last, rtol=1e-14)


@nets
def test_blocks_operators_and_tiles_give_one_kernel(build, monkeypatch):
    x = images(9, (2, 2, 3))
    kernel = limit_kernel(build((2, 2, 3), 8))
    whole = kernel(x)
    assert torch.equal(whole, whole.T)
    assert torch.allclose(kernel(x[:4], x[4:]), whole[:4, 4:], rtol=1e-12)
    vectors = np.random.default_rng(0).standard_normal((9, 3))
    assert np.allclose(kernel.operator(x) @ vectors, whole.numpy() @ vectors, rtol=1e-11)
    monkeypatch.setattr(tiles, "BUDGET", 8 * 6 * (tiles.COPIES + 1) * 36)  # tiles of six by six
    small = kernel(x)
    assert torch.allclose(small, whole, rtol=1e-12)
    assert torch.equal(small, small.T)
    assert torch.allclose(small.diagonal(), whole.diagonal(), rtol=1e-15)
    assert torch.allclose(kernel(x[:4], x[4:]), whole[:4, 4:], rtol=1e-12)
    assert np.allclose(kernel.operator(x) @ vectors, whole.numpy() @ vectors, rtol=1e-11)
    out = torch.empty(9, 9, dtype=torch.float32)
    assert torch.equal(kernel(x, out=out), whole.float())


def test_tiles_stay_within_the_budget(monkeypatch):
    """The arithmetic, and that a large set is cut by it."""
    monkeypatch.setattr(tiles, "BUDGET", 2**20)
    seen = []
    monkeypatch.setattr(
        tiles, "walk", lambda module, x1, x2, parts, initial: seen.append((len(x1), len(x1 if x2 is None else x2)))
    )
    x = torch.zeros(50, 3, 4, 4, dtype=torch.float64)
    shapes = [t for _, _, t in tiles.tiles(nn.Identity(), x, x[:7], {}, lambda _: torch.zeros(1, 1))]
    assert len(shapes) == len(seen) == 3
    assert all(a * b * 16 * 8 * tiles.COPIES <= 2**20 for a, b in seen)


@nets
def test_near_duplicate_images_leave_no_negative_eigenvalue(build):
    x = images(12, (2, 2, 3))
    x = torch.cat([x, x + 1e-7 * images(12, (2, 2, 3), seed=1)])
    kernel = limit_kernel(build((2, 2, 3), 8))(x)
    smallest = float(torch.linalg.eigvalsh(kernel)[0])
    assert smallest > -1e-13 * float(kernel.trace())


def test_near_duplicates_keep_digits_pixel_by_pixel():
    """Images that differ in one pixel by 1e-9: ReLU's distance in K is first order in it, K_ii + K_jj - 2 K_ij = c |delta|."""
    x = images(1, (2, 2, 3))
    kernel = limit_kernel(cnn((2, 2, 3), 8, 2, (3, 3)))
    gaps = []
    for size in (1e-6, 1e-9):
        y = x.clone()
        y[0, 0, 1, 1] += size
        K = kernel(torch.cat([x, y]))
        gaps.append(float(K[0, 0] + K[1, 1] - 2 * K[0, 1]) / size)
    assert gaps[1] == pytest.approx(gaps[0], rel=1e-3)
    assert gaps[0] > 0


def test_zero_pixels_and_zero_images():
    x = images(3, (2, 2, 3))
    x[0] = 0
    x[1, :, :2] = 0
    for build in NETS.values():
        whole = limit_kernel(build((2, 2, 3), 8))(x)
        assert torch.isfinite(whole).all()
        moved = x.clone()
        moved[x == 0] = 1e-150
        assert torch.allclose(limit_kernel(build((2, 2, 3), 8))(moved), whole, rtol=1e-10, atol=1e-12)
    assert float(limit_kernel(NETS["cnn-zeros"]((2, 2, 3), 8))(x)[0].abs().max()) == 0


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 3, 6, 6), "expects 2 channels at 'A' but gets 3"),
        ((4, 72), r"x1 has shape \(4, 72\), but the module convolves images; pass an n×c×h×w tensor"),
        ((4, 2, 4, 4), "expects 288 features at 'W2' but gets 128"),
        ((2,), "pass an n×c×h×w tensor of images"),
    ],
)
def test_bad_images_are_named(shape, message):
    with pytest.raises(ValueError, match=message):
        limit_kernel(cnn((2, 6, 6), 8, 2, (3, 3)))(torch.ones(shape, dtype=torch.float64))


def test_bad_second_sets_are_named():
    x = images(2, (2, 6, 6))
    with pytest.raises(ValueError, match=r"x2 has images of \(2, 6, 5\) where x1 has images of \(2, 6, 6\)"):
        limit_kernel(cnn((2, 6, 6), 8, 2, (3, 3)))(x, x[..., 1:])


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Conv2d(2, 8, 5)], "leaves nothing of images of 2×4×4 at '0'"),
        ([nn.Conv2d(2, 8, 3, dilation=2)], r"'0' with dilation=\(2, 2\).*gram\(module, x\)"),
        ([nn.Conv2d(2, 8, 3, groups=2)], "'0' with groups=2"),
        ([nn.Conv2d(2, 8, 3, padding=1, padding_mode="reflect")], "padding_mode='reflect'"),
        ([nn.Conv2d(2, 8, 3, padding=1), nn.AvgPool2d(5)], "leaves nothing of images of 4×4 pixels at '1'"),
        ([nn.Flatten(), nn.AdaptiveAvgPool2d(1)], "pools at '1' what is no image; put the pooling before nn.Flatten"),
        ([nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Linear(2, 3)], "applies Linear at '2' to images of 8×2×2; put nn.Flatten"),
        ([nn.Conv2d(2, 8, 3), nn.Flatten(), nn.ReLU()], "not a Gaussian pre-activation"),
        ([nn.Conv2d(2, 8, 3), nn.Flatten(2)], "flattens at '1' from 2"),
        ([nn.Flatten(), nn.Conv2d(2, 8, 3)], "applies Conv2d at '1' to rows"),
        ([nn.Conv2d(2, 8, 3), Residual(nn.Conv2d(8, 8, 2))], "skip at '1' from 8×2×2 to 8×1×1 features"),
        ([nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8)], "by its own batch .BatchNorm2d at '1'"),
    ],
)
def test_convolutions_without_a_limit_are_named(layers, message):
    with pytest.raises(ValueError, match=message):
        limit_kernel(nn.Sequential(*layers))(images(2, (2, 4, 4)))

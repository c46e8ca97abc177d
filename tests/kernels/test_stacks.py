"""Compiled limits of ReLU convolutions: the general walk in both precisions, and what they must keep or refuse."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.kernels.conv_cases import images
from tests.kernels.pixel_cases import he, in_torch, joint_kernels, readout, stack, worst
from zeroloss import limit_kernel
from zeroloss.kernels import layer_kernels, stack_tiles
from zeroloss.kernels.stacks import stack_of
from zeroloss.networks import Residual, Scale, cnn

SHAPE = (3, 5, 7)


def various(pooled: bool, bias: bool) -> nn.Sequential:
    """Kernels of all shapes, factors, a frozen layer, a deeper head."""
    frozen = he(8, 8, (1, 3), seed=1, trained=False)
    pixels, pool = (1, [nn.AvgPool2d((5, 7))]) if pooled else (35, [])
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=bias), Scale(1.5), nn.ReLU(), Scale(2.5),
        nn.Sequential(nn.Conv2d(8, 8, (5, 1), padding="same", bias=bias), nn.ReLU(), frozen, nn.Identity(), nn.ReLU()),
        he(8, 8, (7, 5)), nn.ReLU(), he(8, 8, (1, 1)), nn.ReLU(), *pool, nn.Flatten(),
        readout(8 * pixels), nn.ReLU(), readout(1),
    ).double()  # fmt: skip


NETS = {
    "pooled": stack(3, 8),
    "flat": stack(3, 8, pixels=35),
    "various-pooled": various(True, bias=False),
    "various-flat": various(False, bias=False),
    "bias-pooled": various(True, bias=True),
    "bias-flat": various(False, bias=True),
    "circular-pooled": stack(3, 8, padding="circular"),
    "circular-flat": stack(3, 8, (5, 3), pixels=35, padding="circular"),
}
KINKED = (NETS["various-pooled"], NETS["bias-pooled"])  # ReLU after pooling takes roots of what rounding adds to a distance
nets = pytest.mark.parametrize("net", NETS.values(), ids=NETS.keys())


@nets
@pytest.mark.parametrize("kind", ["ntk", "nngp", "last-hidden"])
def test_compiled_sums_are_the_general_walk(net, kind):
    x = images(19, SHAPE)  # more than the lanes, and no multiple of them
    assert stack_of(net, x.shape[1:]) is not None
    kernel = limit_kernel(net, kind)
    with in_torch():
        exact = kernel(x)
    double, single = kernel(x), kernel(x.float())
    loss = 1e4 if net in KINKED else 1
    assert worst(double, exact) < loss * 1e-13
    assert worst(single, exact) < 1e-6
    assert single.dtype == torch.float32
    for found in (double, single):
        assert torch.equal(found, found.T)
    assert worst(kernel(x[:2], x[2:]), exact[:2, 2:]) < loss * 1e-13
    assert worst(kernel(x[:17].float(), x[17:].float()), exact[:17, 17:]) < 1e-6


@nets
def test_layers_add_up_and_agree(net):
    x = images(5, SHAPE)
    ours = layer_kernels(net, x)
    with in_torch():
        exact = layer_kernels(net, x)
    assert list(ours) == list(exact)
    assert max(worst(ours[name], exact[name]) for name in ours) < 1e-12
    assert worst(sum(ours.values()), limit_kernel(net)(x)) < 1e-12


@pytest.mark.parametrize("size", [(3, 2, 7), (1, 1, 9), (2, 6, 1), (4, 2, 2)], ids=str)
def test_the_recursion_on_all_pixels_of_small_images(size):
    """Patches wider than the image too."""
    for kernel in ((3, 3), (5, 3), (1, 5)):
        net, x = stack(3, 8, kernel, channels=size[0]), images(3, size)
        assert worst(limit_kernel(net)(x), joint_kernels(list(net), x)[1]) < 1e-9
        flat = stack(3, 8, kernel, channels=size[0], pixels=size[1] * size[2])
        if size[1] * size[2] > 1:
            assert worst(limit_kernel(flat)(x), joint_kernels(list(flat), x)[1]) < 1e-9
        if kernel[0] // 2 <= size[1] and kernel[1] // 2 <= size[2]:
            around = stack(3, 8, kernel, channels=size[0], padding="circular")
            assert stack_of(around, torch.Size(size)) is not None
            assert worst(limit_kernel(around)(x), joint_kernels(list(around), x)[1]) < 1e-9


@nets
def test_tiles_threads_and_operators_give_one_kernel(net, monkeypatch):
    x = images(11, SHAPE)
    kernel = limit_kernel(net)
    whole, single = kernel(x), kernel(x.float())
    monkeypatch.setattr(stack_tiles, "SIDE", 2)
    assert worst(kernel(x), whole) < 1e-13
    assert worst(kernel(x[:3], x[3:]), whole[:3, 3:]) < 1e-13
    assert worst(torch.from_numpy(kernel.operator(x) @ torch.eye(11).double().numpy()), whole) < 1e-13
    monkeypatch.undo()
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    assert torch.equal(kernel(x), whole)
    assert torch.equal(kernel(x.float()), single)
    torch.set_num_threads(threads)


@nets
def test_zero_images_and_zero_pixels_are_finite_and_exact(net):
    x = images(4, SHAPE)
    x[0], x[1, :, :3] = 0, 0
    kernel = limit_kernel(net)
    with in_torch():
        exact = kernel(x)
    assert torch.allclose(kernel(x), exact, rtol=1e-9 if net in KINKED else 1e-12, atol=0)
    assert torch.allclose(kernel(x.float()).double(), exact, rtol=1e-6, atol=0)


@nets
def test_scale_of_inputs_and_widths_does_not_matter(net):
    """Units: images of norm 1e-12 or 1e12 in float32, and one net of both sizes in K(x1, x2)."""
    x = images(3, SHAPE)
    for size in (1e-12, 1e12):
        with in_torch():
            exact = limit_kernel(net)(x * size)
        assert worst(limit_kernel(net)(x.float() * size), exact) < 2e-6


def test_wide_and_deep_networks_do_not_overflow():
    """Moments grow by a factor of 1e4 a layer, as they do with weights of variance 1 at width 4096."""
    layers: list[nn.Module] = []
    for index in range(8):
        layer = he(3 if index == 0 else 16, 16)
        layer.variance = 256.0
        layers += [layer, nn.ReLU()]
    x = images(3, (3, 3, 3))
    for net in (
        nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), readout(16)),
        nn.Sequential(*layers, nn.Flatten(), readout(9 * 16)),
    ):
        with in_torch():
            exact = limit_kernel(net)(x)
        assert worst(limit_kernel(net)(x.float()), exact) < 1e-6


def test_images_that_are_nearly_one_colour():
    """Correlations near 1 at every pixel, where an arc cosine of a rounded number has lost half of its digits."""
    flat = 1 + 1e-4 * torch.randn(3, 3, 8, 8, dtype=torch.float64)
    smooth = 1 + functional.interpolate(torch.randn(3, 3, 2, 2, dtype=torch.float64), (8, 8), mode="bilinear") / 4
    same = torch.ones(3, 3, 8, 8, dtype=torch.float64)
    for x, depth in ((flat, 3), (smooth, 10), (same, 4)):
        for net in (stack(depth, 8), stack(depth, 8, pixels=64)):
            with in_torch():
                exact = limit_kernel(net)(x)
                rounded = limit_kernel(net)(x.float().double())
            assert worst(limit_kernel(net)(x), exact) < 1e-10
            assert worst(limit_kernel(net)(x.float()), rounded) < 3e-5


def test_near_duplicates_keep_digits_in_single_precision():
    """Flatten: the distance in the NTK of images that differ at one pixel is first order in it."""
    x = images(1, (3, 4, 4))
    y = x.clone()
    y[0, 0, 1, 1] += 1e-4
    net = stack(2, 8, pixels=16)
    double, single = (limit_kernel(net)(torch.cat([x, y]).to(dtype)).double() for dtype in (torch.float64, torch.float32))
    assert worst(single, double) < 1e-6
    K = limit_kernel(net)(torch.cat([x, x]).float())
    assert float(K.max() - K.min()) == 0


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Flatten()],
        [nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.ReLU(), nn.Flatten()],
        [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten()],
        [nn.Conv2d(3, 8, 2, padding="same"), nn.ReLU(), nn.Flatten()],
        [he(3, 8, padding="circular"), nn.ReLU(), he(8, 8), nn.ReLU(), nn.Flatten()],
        [nn.Conv2d(3, 8, 3, padding=1), nn.Flatten()],
        [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.ReLU(), nn.Flatten()],
        [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()],
        [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d((5, 7), padding=(2, 3)), nn.Flatten()],
        [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), Residual(nn.Conv2d(8, 8, 1), nn.ReLU()), nn.Flatten()],
        [nn.ReLU(), nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten()],
        [nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Flatten()],
        [nn.Flatten(), nn.Linear(105, 8)],
        [nn.Conv2d(3, 8, 3, padding=1), Scale(0.0), nn.ReLU(), nn.Flatten()],
    ],
)
def test_other_modules_are_left_to_the_general_walk(layers):
    assert stack_of(nn.Sequential(*layers), torch.Size(SHAPE)) is None


def test_the_builders_networks_run_compiled():
    net = cnn((2, 4, 4), 8, 3, padding="zeros")
    found = stack_of(net, torch.Size((2, 4, 4)))
    assert found is not None
    assert not found.pooled

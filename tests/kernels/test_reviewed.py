"""What reviews found, each as the user would meet it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian

from tests.cases import rows
from zeroloss import fully_connected, limit_kernel
from zeroloss.errors import FileError

BIASED = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 1))


@pytest.mark.parametrize("net", [BIASED, fully_connected(5, 16, 2), nn.Sequential(nn.Linear(5, 16), nn.LayerNorm(16), nn.ReLU())])
def test_an_overflowing_kernel_is_an_error(net):
    for size, dtype in ((1e160, torch.float64), (1e25, torch.float32)):
        for n in (3, 80):
            x = (rows(n, 5) * size).to(dtype)
            message, found = "", torch.zeros(1)
            try:
                found = limit_kernel(net, "nngp")(x)
            except ValueError as error:
                message = str(error)
            assert "divide" in message or (not message and torch.isfinite(found).all())


def test_an_out_that_is_the_input_changes_nothing():
    x = rows(600, 600)
    x[300:] = x[:300] + 1e-6 * rows(300, 600, seed=1)
    kernel = limit_kernel(fully_connected(600, 8, 2))
    right = kernel(x)
    assert torch.equal(kernel(x, out=x), right)


@pytest.mark.parametrize("bad", [torch.zeros(3, 3, dtype=torch.int64), torch.zeros(3, 3).half(), torch.zeros(1, 1).expand(3, 3)])
def test_an_out_of_another_kind_is_refused(bad):
    with pytest.raises(ValueError, match="out"):
        limit_kernel(BIASED)(rows(3, 5), out=bad)


def test_an_array_is_written_to(tmp_path):
    x = rows(70, 5)
    place = np.lib.format.open_memmap(tmp_path / "K.npy", mode="w+", dtype=np.float64, shape=(70, 70))
    limit_kernel(BIASED)(x, out=place)
    assert np.array_equal(place, limit_kernel(BIASED)(x).numpy())


def test_second_derivatives_are_refused():
    kernel = limit_kernel(fully_connected(5, 8, 1))
    with pytest.raises(ValueError, match="first derivatives only"):
        hessian(lambda x: kernel(x).sum(), rows(3, 5))


class Square(nn.Identity):
    def forward(self, input):
        return input**2


def test_a_forward_of_ones_own_is_refused_whatever_it_derives_from():
    hooked = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
    hooked[1].register_forward_hook(lambda module, inputs, output: 10 * output)
    for net in (nn.Sequential(nn.Linear(5, 8), Square(), nn.ReLU(), nn.Linear(8, 1)), hooked):
        with pytest.raises(ValueError, match=r"a forward of its own|a hook"):
            limit_kernel(net)(rows(3, 5))


def test_shared_weights_are_refused():
    net = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5))
    net[2].weight = net[0].weight
    with pytest.raises(ValueError, match="weights twice"):
        limit_kernel(net)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (nn.Conv1d(2, 8, 3, padding=1), nn.Conv1d(2, 8, 3, padding=1, padding_mode="circular")),
        (nn.AvgPool1d(3, 1, 1), nn.AvgPool1d(3, 1, 1, count_include_pad=False)),
    ],
)
def test_a_file_knows_every_option_of_a_layer(tmp_path, one, other):
    x = torch.randn(3, 2, 9, dtype=torch.float64)
    first, second = (
        nn.Sequential(nn.Conv1d(2, 2, 1), layer, nn.Flatten(), nn.Linear(72 if isinstance(layer, nn.Conv1d) else 18, 1))
        for layer in (one, other)
    )
    limit_kernel(first).write(tmp_path / "K.npy", x)
    with pytest.raises(FileError, match="another kernel"):
        limit_kernel(second).write(tmp_path / "K.npy", x)


def test_float32_pooling_stays_within_its_entry_error():
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 1))
    kernel = limit_kernel(net)
    for seed in range(5):
        draw = torch.Generator().manual_seed(seed)
        x = torch.randn(6, 3, 1, 1, generator=draw) + 1e-3 * torch.randn(6, 3, 8, 8, generator=draw)
        assert float((kernel(x) - kernel(x.double())).abs().max()) <= kernel.entry_error(x)


def test_complex_vectors_and_no_rows_are_refused_by_an_operator():
    with pytest.raises(ValueError, match="complex"):
        limit_kernel(BIASED).operator(rows(3, 5)) @ (1j * np.ones(3))
    with pytest.raises(ValueError, match="no rows"):
        limit_kernel(BIASED).operator(rows(0, 5))
    assert limit_kernel(BIASED).entry_error(rows(0, 5)) == 0

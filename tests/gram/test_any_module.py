"""The Gram of any module against the explicit Jacobian: a battery, by every way, in tiles, between two sets, and as operators."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from tests.gram.largest import Largest
from tests.gram.modules import MODULES, make, rows
from zeroloss import ArgumentError
from zeroloss.gram import (
    gram,
    jacobian_operator,
    layer_grams,
    make_plan,
    per_sample,
    sample_blocks,
    shares,
    structured,
    tangent_operator,
)


def jacobian(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The slow obvious twin: one backward pass an output and sample, n×k×P."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    outputs = module(x).reshape(len(x), -1)
    lines = []
    for value in outputs.reshape(-1):
        parts = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        lines.append(
            torch.cat(
                [torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in zip(parameters, parts, strict=True)]
            )
        )
    return torch.stack(lines).view(*outputs.shape, -1)


def near(ours: torch.Tensor, exact: torch.Tensor, tolerance: float = 1e-10) -> bool:
    assert ours.shape == exact.shape
    return float((ours.double() - exact).abs().max()) <= tolerance * float(exact.abs().max())


@pytest.mark.parametrize("memory", [None, 2000])
@pytest.mark.parametrize("name", MODULES)
def test_equals_the_explicit_jacobian(name, memory, monkeypatch):
    if memory is not None:  # so little that every loop over rows, channels, tiles and parameters takes several turns
        for place, word in ((shares, "BYTES"), (per_sample, "BYTES"), (structured, "TRACE_BYTES")):
            monkeypatch.setattr(place, word, memory)
    net, x = make(name, 5)
    j = jacobian(net, x)
    n, k, _ = j.shape
    exact = torch.einsum("iap,jbp->iajb", j, j)
    assert near(gram(net, x, "full"), exact.reshape(n * k, n * k))
    assert near(gram(net, x), exact.diagonal(dim1=1, dim2=3).mean(-1))
    assert near(gram(net, x, k - 1), exact[:, k - 1, :, k - 1])
    assert near(sample_blocks(net, x), exact.diagonal(dim1=0, dim2=2).permute(2, 0, 1))
    assert near(gram(net, x[:3], x2=x[2:]), exact.diagonal(dim1=1, dim2=3).mean(-1)[:3, 2:])
    assert near(gram(net, x[:3], "full", x[2:]), exact[:3, :, 2:].reshape(3 * k, 3 * k))
    parts = layer_grams(net, x)
    assert near(sum(parts.values()), exact.diagonal(dim1=1, dim2=3).mean(-1))
    assert near(gram(net.float(), x if not x.is_floating_point() else x.float()), exact.diagonal(dim1=1, dim2=3).mean(-1), 1e-5)


@pytest.mark.parametrize("few", [2, 4096])
@pytest.mark.parametrize("name", MODULES)
def test_operators_are_the_jacobian(name, few):
    net, x = make(name, 5)
    j = jacobian(net, x).flatten(0, 1).numpy()
    generator = np.random.default_rng(0)
    u, v = generator.standard_normal(j.shape[1]), generator.standard_normal(len(j))
    operator = jacobian_operator(net, x, few)
    assert operator.shape == j.shape
    assert np.allclose(operator @ u, j @ u, rtol=1e-9, atol=1e-11 * np.abs(j @ u).max())
    assert np.allclose(operator.T @ v, j.T @ v, rtol=1e-9, atol=1e-11 * np.abs(j.T @ v).max())
    assert np.allclose(tangent_operator(net, x, few) @ v, j @ (j.T @ v), rtol=1e-9, atol=1e-11 * np.abs(j @ (j.T @ v)).max())


RESTS = {
    "mlp": (),
    "twice": (),
    "attention": (),
    "residual block": (),
    "groups": (),
    "instance norm": (),
    "embedding bag of words": (),
    "tied": ("first.weight",),
    "functional use": ("scale", "e.weight", "e.bias"),
    "time first": ("a.weight", "a.bias", "b.weight", "b.bias"),
    "python branch": ("own", "a.weight", "a.bias", "b.weight", "b.bias"),
    "transformer, tied readout": ("tokens.weight", "places.weight", "block.self_attn.in_proj_weight", "block.self_attn.in_proj_bias",
                                  "block.self_attn.out_proj.weight", "block.self_attn.out_proj.bias"),
}  # fmt: skip


@pytest.mark.parametrize("name", RESTS)
def test_only_what_no_layer_speaks_for_goes_sample_by_sample(name):
    plan = make_plan(*make(name, 3))
    assert plan.rest == RESTS[name]
    assert plan.way == ("one_by_one" if name == "python branch" else "vectorised")


def test_a_layer_missed_is_far_outside_the_tolerance():
    """The control for the battery: it fails for a Gram that lacks any one layer, or one term of a tied weight."""
    for name in ("tied", "transformer", "residual block"):
        net, x = make(name, 4)
        parts = layer_grams(net, x)
        whole = sum(parts.values())
        for part in parts.values():
            assert not near(whole - part, whole)


class Centred(nn.Module):
    """Subtracts the mean over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(5, 2)

    def forward(self, x):
        return self.a(x - x.mean(dim=0))


class Summed(Centred):
    """Adds up the rows so far, as attention with a causal mask does over a batch that it takes for time: the first row is alone."""

    def forward(self, x):
        return self.a(x).cumsum(dim=0)


class Noisy(Centred):
    """Adds noise of its own."""

    def forward(self, x):
        return self.a(x + torch.randn_like(x))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Centred(), "mixes samples: one row's outputs change"),
        (Summed(), "mixes samples: one row's outputs change"),
        (Noisy(), "is random: two passes"),
        (nn.Sequential(nn.Linear(5, 2), nn.BatchNorm1d(2)), "mixes samples: '1' is BatchNorm1d in training mode"),
        (nn.Sequential(nn.Linear(5, 2), nn.Dropout(0.5)), "is random: '1' is Dropout"),
        (
            nn.Sequential(nn.Unflatten(1, (5, 1)), nn.InstanceNorm1d(5, affine=True, track_running_stats=True)),
            "changes as it runs",
        ),
        (nn.Sequential(nn.Embedding(3, 2), nn.Flatten()), "pass token numbers"),
    ],
)
def test_what_has_no_tangent_kernel_is_refused_by_name(module, message):
    x = (
        torch.full((3, 5), 9)
        if isinstance(module[0] if isinstance(module, nn.Sequential) else module, nn.Embedding)
        else torch.randn(3, 5)
    )
    with pytest.raises(ValueError, match=message):
        gram(module, x)


class Shaped(Centred):
    """Gives what a function makes of a layer's outputs."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(self.a(x))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (torch.detach, "cut off from its trained parameters"),
        (lambda z: z.argmax(dim=1), "gives torch.int64"),
        (torch.fft.fft, "gives torch.complex64"),
        (lambda z: z[:, :0], r"gives torch.float32 of shape \(3, 0\)"),
    ],
)
def test_outputs_that_have_no_gradient_are_refused(function, message):
    with pytest.raises(ArgumentError, match=message):
        gram(Shaped(function), torch.randn(3, 5))


def test_inside_no_grad_it_is_the_same():
    net, x = make("transformer", 3)
    wanted, blocks = gram(net, x, "full"), sample_blocks(net, x)
    with torch.no_grad():
        assert torch.equal(gram(net, x, "full"), wanted)
        assert torch.equal(sample_blocks(net, x), blocks)
        assert sum(layer_grams(net, x).values()).shape == (3, 3)


def test_threads_that_share_a_module_do_not_hear_each_other():
    net = nn.Sequential(nn.Linear(20, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 3)).double()
    xs = [rows(n, 20) for n in (30, 31, 32, 33)] * 6
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: gram(net, x), xs))
    assert all(torch.equal(one, gram(net, x)) for one, x in zip(found, xs, strict=True))


def test_a_second_set_without_rows():
    net, x = make("transformer", 2)
    with pytest.raises(ArgumentError, match=r"x2 is of shape \(0, "):
        gram(net, x, x2=x[:0])


def test_one_row_and_no_outputs():
    net, x = make("transformer", 1)
    assert near(gram(net, x), (jacobian(net, x) ** 2).sum(-1).mean(-1)[:, None])
    with pytest.raises(ValueError, match="at least one row"):
        gram(net, x[:0])


@pytest.mark.parametrize("name", ["residual block", "transformer", "functional use", "lstm"])
def test_the_module_is_left_as_it_was(name):
    net, x = make(name, 4)
    before, state = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    gram(net, x)
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert not any(layer._forward_hooks for layer in net.modules())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("n", [20, 40])
def test_no_jacobian_is_formed(n):
    """Of the size of the weights or of the activations, never of their product: the largest tensor is a layer's weight."""
    net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.LayerNorm(256), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1))
    with Largest() as largest:
        gram(net, rows(n, 64).float())
    assert largest.bytes == 4 * 256 * 256


def test_sample_gradients_stay_within_their_memory(monkeypatch):
    """Tied weights of 16 kB a sample with room for four samples: never more at once, and the same numbers."""
    net = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Tanh(), nn.Linear(64, 64, bias=False), nn.Tanh(), nn.Linear(64, 1))
    net[2].weight, x = net[0].weight, rows(20, 64).float()
    whole = gram(net, x)
    monkeypatch.setattr(per_sample, "BYTES", 4 * 4 * 64 * 64)
    with Largest() as largest:
        assert near(gram(net, x), whole.double(), 1e-5)
    assert largest.bytes <= 4 * 4 * 64 * 64


@pytest.mark.parametrize("start", [nn.SiLU(inplace=True), nn.ReLU(inplace=True)])
def test_inputs_that_a_module_writes_into_are_left_as_they_were(start):
    torch.manual_seed(0)
    net, x = nn.Sequential(start, nn.Linear(5, 4), nn.Tanh(), nn.PReLU(4), nn.Linear(4, 2)).double(), rows(7, 5)
    j = jacobian(net, x.clone()).flatten(0, 1)
    given = x.clone()
    assert near(gram(net, given, "full"), j @ j.T)
    assert near(torch.from_numpy(jacobian_operator(net, given, 3).T @ np.ones(14)), j.sum(dim=0))
    assert near(torch.from_numpy(tangent_operator(net, given) @ np.ones(14)), j @ j.sum(dim=0))
    assert near(per_sample.one_by_one(net, ["1.weight"], given, [0, 1], 7).flatten(0, 1), j[:, :20])
    assert torch.equal(given, x)

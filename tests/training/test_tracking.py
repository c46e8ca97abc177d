"""Both ends of the Gram's spectrum followed along a run: bounds at every step, equal at probes, and the same to the bit when resumed."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from tests.cases import rows
from zeroloss import Dataset, descend, fully_connected, gram
from zeroloss.errors import ArgumentError, FileError
from zeroloss.training.weights import Weights

DATA = Dataset(rows(6, 4), [1.0, -1.0, 1.0, 1.0, -1.0, 1.0])
WIDE = Dataset(rows(5, 4), rows(5, 2, 9))


def net(outputs: int = 1, dtype: torch.dtype = torch.float64) -> nn.Module:
    return fully_connected(4, 16, 2, outputs, scheme="du", activation="erf", dtype=dtype)


@pytest.mark.parametrize("data", [DATA, WIDE])
def test_the_quotients_bracket_the_spectrum_and_meet_it_at_probes(data):
    probes, ends = (0, 8), {}
    run = descend(net(data.outputs), data, step=0.03, max_steps=20, until=0.0, probes=probes, track=True)
    for k in range(21):  # the true ends, at the weights that a run of k steps ends at
        module = net(data.outputs)
        descend(module, data, step=0.03, max_steps=k, until=0.0)
        ends[k] = torch.linalg.eigvalsh(gram(module, data.x, "full"))[[0, -1]].tolist()
    assert run.tracked.steps.tolist() == list(range(21))
    gaps = []
    for k, low, high in zip(range(21), run.tracked.above_smallest.tolist(), run.tracked.below_largest.tolist(), strict=True):
        smallest, largest = ends[k]
        assert low >= smallest - 1e-10 * largest
        assert high <= largest * (1 + 1e-12)
        if k in (*probes, 20):
            assert (low, high) == (pytest.approx(smallest, rel=1e-8), pytest.approx(largest, rel=1e-12))
        else:
            gaps.append(low / smallest - 1)
    assert max(gaps) > 1e-6  # between probes it is a bound and not the eigenvalue itself
    assert max(gaps) < 0.5  # and a near one
    by_step = {p.step: p for p in run.probes}
    assert sorted(by_step) == [0, 8, 20]


def test_a_step_is_not_changed_by_tracking():
    plain, tracked = net(), net()
    a = descend(plain, DATA, step=0.03, max_steps=30, until=0.0)
    b = descend(tracked, DATA, step=0.03, max_steps=30, until=0.0, track=True)
    assert torch.equal(a.loss, b.loss)
    assert a.tracked is None
    assert all(torch.equal(p, q) for p, q in zip(plain.parameters(), tracked.parameters(), strict=True))


@pytest.mark.parametrize("options", [{}, {"batch": 2, "momentum": 0.5, "seed": 3}])
def test_a_resumed_run_tracks_the_same_to_the_bit(options, tmp_path):
    """With a budget that ends between probes: its own last probe must not lend its vectors to what comes after."""

    def run(steps: int, path=None):
        return descend(net(), DATA, step=0.01, max_steps=steps, until=0.0, probes=(0, 9), track=True, checkpoint=path, **options)

    whole, path = run(40), tmp_path / "run.safetensors"
    for steps in (5, 9, 17, 40, 40):
        resumed = run(steps, path)
    for name in ("steps", "above_smallest", "below_largest"):
        assert torch.equal(getattr(whole.tracked, name), getattr(resumed.tracked, name))
    assert torch.equal(whole.loss, resumed.loss)
    assert len(whole.tracked.steps) == len(whole.steps)


def test_a_tracked_run_is_another_run(tmp_path):
    path = tmp_path / "run.safetensors"
    descend(net(), DATA, step=0.01, max_steps=5, probes=(0,), checkpoint=path)
    with pytest.raises(FileError, match="belongs to a run with other"):
        descend(net(), DATA, step=0.01, max_steps=9, probes=(0,), track=True, checkpoint=path)


@pytest.mark.parametrize("harm", ["ends", "steps", "values"])
def test_damage_is_named(harm, tmp_path):
    path = tmp_path / "run.safetensors"
    descend(net(), DATA, step=0.01, max_steps=5, track=True, checkpoint=path)
    with safe_open(path, framework="pt") as file:
        header, tensors = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors[f"tracked:{harm}"] = tensors[f"tracked:{harm}"][..., :1].clone()
    save_file(tensors, path, header)
    with pytest.raises(FileError, match="is damaged"):
        descend(net(), DATA, step=0.01, max_steps=9, track=True, checkpoint=path)


def test_float32_is_near_float64():
    exact, rounded = (
        descend(net(dtype=dtype), DATA, step=0.03, max_steps=20, until=0.0, track=True).tracked
        for dtype in (torch.float64, torch.float32)
    )
    torch.testing.assert_close(rounded.above_smallest, exact.above_smallest, rtol=1e-4, atol=0)
    torch.testing.assert_close(rounded.below_largest, exact.below_largest, rtol=1e-5, atol=0)


def test_a_diverging_run_stops_being_tracked():
    run = descend(net(), DATA, step=50.0, max_steps=200, track=True)
    assert run.status == "DIVERGED"
    assert run.tracked.steps.tolist() == run.steps[:-1].tolist()


class Mixed(nn.Module):
    """Every way to be trained: a convolution, a layer called twice, biases, a bare parameter, one that is frozen and one unused."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.twice, self.head = nn.Conv1d(1, 3, 2), nn.Linear(9, 9), nn.Linear(9, 2)
        self.scale, self.spare = nn.Parameter(torch.ones(9)), nn.Parameter(torch.ones(3))
        self.frozen = nn.Linear(9, 9).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.patches(x[:, None])).flatten(1)
        return self.head(self.scale * torch.tanh(self.twice(torch.tanh(self.frozen(torch.tanh(self.twice(h)))))))


@pytest.mark.parametrize("n", [2, 40])  # few rows: no gradient is formed; many: it is
def test_the_norm_of_a_gradient_is_that_of_autograd(n):
    torch.manual_seed(1)
    module, x, v = Mixed().double(), rows(n, 4, 1), rows(n, 2, 2)
    weights = Weights(module, x)
    done = weights.forward(x)
    trained = [p for p in module.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(module(x), trained, v, allow_unused=True)
    slow = sum(float(g.square().sum()) for g in gradients if g is not None)
    assert weights.squared_norm(done, v) == pytest.approx(slow, rel=1e-12)
    assert weights.squared_norm(done, 2 * v) == pytest.approx(4 * slow, rel=1e-12)  # the pass can be used again


def test_too_many_rows_take_one_line():
    data = Dataset(rows(2501, 4), rows(2501, 1, 3))
    with pytest.raises(ArgumentError, match="track is True for 2501 outputs"):
        descend(net(), data, step=0.01, max_steps=1, track=True)

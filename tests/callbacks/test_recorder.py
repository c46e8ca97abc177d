"""A recorder measures what a prober would, goes on after an interruption, and leaves the training as it was to the bit."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.callbacks.loops import LABELS, Net, X, same, seeded, train
from zeroloss import ArgumentError, Dataset, FileError, gram
from zeroloss.callbacks import Recorder

ROOT = Path(__file__).parents[2]


def recorder_of(net: nn.Module, every: object = 3, **options: object) -> Recorder:
    return Recorder(net, (X, LABELS), every, **{"loss": "cross_entropy", "rows": 10, **options})


def test_training_is_untouched_to_the_bit():
    """In an interpreter of its own: the type checks of this one draw from Python's random numbers."""
    code = """
from tests.callbacks.loops import LABELS, X, same, seeded, train
from zeroloss.callbacks import Recorder
plain, net = train(seeded(), lambda step: None), seeded()
recorder = Recorder(net, (X, LABELS), 1, loss="cross_entropy", rows=10)
print(same(train(net, recorder), plain), [probe.step for probe in recorder.probes] == list(range(12)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["True", "True"]


@pytest.mark.parametrize(
    "rude",
    [
        lambda net: net.eval()(X[:2]),
        lambda net: net.eval(),
        lambda net: net.norm(net.first(X)),
        lambda net: net.zero_grad(),
        lambda net: torch.rand(1),
        lambda net: np.random.rand(),  # noqa: NPY002
        lambda net: random.random(),
    ],
    ids=["eval", "mode", "buffers", "gradients", "torch", "numpy", "python"],
)
def test_the_comparison_notices_a_careless_recorder(rude):
    """A control of the test above: each of these would be a trace."""
    plain = train(seeded(), lambda step: None)
    net = seeded()
    assert not same(train(net, lambda step: rude(net) if step == 10 else None), plain)


def test_a_probe_is_that_of_the_module_in_evaluation_mode_in_float64():
    net = seeded()
    recorder = recorder_of(net, 1, loss="squared")
    train(net, lambda step: None)
    probe = recorder(12)
    exact = copy.deepcopy(net).double().eval()
    chosen = torch.linspace(0, 39, 10).round().long()
    x, y = X[chosen].double(), nn.functional.one_hot(LABELS[chosen], 3).double()
    gradients = [torch.autograd.grad(value, list(exact.parameters()), retain_graph=True) for value in exact(x).reshape(-1)]
    jacobian = torch.stack([torch.cat([part.reshape(-1) for part in each]) for each in gradients])
    full = jacobian @ jacobian.T
    before = gram(seeded().double().eval(), x, "full")
    ends = torch.linalg.eigvalsh(full)
    assert probe.loss == pytest.approx((0.5 * (exact(x) - y).square().sum()).item(), rel=1e-12)
    assert (probe.smallest, probe.largest) == pytest.approx((float(ends[0]), float(ends[-1])), rel=1e-9)
    drift = torch.linalg.matrix_norm(full - before, 2) / torch.linalg.matrix_norm(before, 2)
    assert probe.gram_drift == pytest.approx(float(drift), rel=1e-9)
    assert probe.gram_drift > 0.01
    signs = [each.first(x) >= 0 for each in (exact, seeded().double().eval())]
    assert probe.sign_changes == pytest.approx(float((signs[0] != signs[1]).double().mean()))
    assert probe.whole
    moved = {name: (p - q).norm().item() for (name, p), q in zip(exact.named_parameters(), seeded().parameters(), strict=True)}
    assert probe.weight_drift_frobenius == pytest.approx(moved, rel=1e-9)


def test_only_due_steps_are_recorded_and_none_twice():
    net = seeded()
    recorder = recorder_of(net, (0, 1, 4))
    taken = [recorder(step) for step in (0, 0, 1, 2, 3, 4)]
    assert taken[0] is taken[1]
    assert [None if probe is None else probe.step for probe in taken] == [0, 0, 1, None, None, 4]
    recorder(1)
    assert [probe.step for probe in recorder.probes] == [0, 1]  # a loop that stepped back gives up what lay ahead


def test_an_interrupted_recording_goes_on_to_the_bit(tmp_path):
    whole = seeded()
    one = recorder_of(whole)
    train(whole, one)
    train(whole, one, start=12)

    net = seeded()
    first = recorder_of(net)
    train(net, first)
    first.save(tmp_path / "run" / "probes.jsonl")
    weights = copy.deepcopy(net.state_dict())
    again = Net()
    again.load_state_dict(weights)
    second = recorder_of(again)
    second.load(tmp_path / "run" / "probes.jsonl")
    torch.manual_seed(0)
    train(again, second, start=12)
    twin = seeded()
    train(twin, recorder := recorder_of(twin))
    torch.manual_seed(0)
    train(twin, recorder, start=12)
    assert second.probes == recorder.probes
    assert [probe.step for probe in second.probes] == [probe.step for probe in one.probes]
    fresh = recorder_of(again)  # one that starts anew measures from where it stands: not the same
    assert fresh(24).gram_drift == 0 != second.probes[-1].gram_drift
    assert second.seconds > 0
    assert 0 < second.share <= 1


def test_the_file_is_a_header_and_a_probe_a_line(tmp_path):
    recorder = recorder_of(seeded())
    recorder(0)
    recorder(3)
    path = tmp_path / "probes.jsonl"
    recorder.save(path)

    def strict(name: str) -> None:
        raise AssertionError(name)

    header, *lines = (json.loads(line, parse_constant=strict) for line in path.read_text().splitlines())
    assert header["format"] == "zeroloss-probes-1"
    assert lines == [dataclasses.asdict(probe) for probe in recorder.probes]


def test_infinite_numbers_survive_the_file(tmp_path):
    """A dead network's Gram is zero; when it comes alive its drift is infinite."""
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        net[0].bias.fill_(-100)
    recorder = Recorder(net, (X, X[:, 0]), 1)
    recorder(0)
    with torch.no_grad():
        net[0].bias.fill_(1)
    recorder(1)
    assert recorder.probes[1].gram_drift == math.inf
    recorder.save(tmp_path / "probes")
    other = Recorder(net, (X, X[:, 0]), 1)
    other.load(tmp_path / "probes")
    assert other.probes == recorder.probes


def test_a_foreign_or_damaged_file_is_refused(tmp_path):
    path = tmp_path / "probes"
    net = seeded()
    recorder = recorder_of(net)
    with pytest.raises(FileError, match="is missing"):
        recorder.load(path)
    recorder.save(path)
    with pytest.raises(FileError, match="other data"):
        recorder_of(net, rows=9).load(path)
    with pytest.raises(FileError, match="other data, another loss"):
        recorder_of(net, loss="squared").load(path)
    path.write_text("{}\n")
    with pytest.raises(FileError, match="not a zeroloss recording"):
        recorder.load(path)
    path.write_text("{\n")
    with pytest.raises(FileError, match="is damaged"):
        recorder.load(path)


def test_a_diverged_training_goes_on_and_is_noted():
    net = seeded()
    recorder = recorder_of(net, 1)
    recorder(0)
    with torch.no_grad():
        net.first.weight.mul_(1e30)
        net.last.weight.mul_(math.nan)
    assert recorder(1) is None
    assert recorder(2) is None
    assert (len(recorder.probes), recorder.diverged) == (1, 1)
    assert "step 1: weights or outputs are infinite or NaN" in recorder.table()


def test_outputs_that_overflow_are_a_divergence_too():
    net = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 1)).double()
    recorder = Recorder(net, (X, X[:, 0]), 1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1e200)
    assert recorder(1) is None
    assert recorder.diverged == 1


def test_the_table_says_what_it_cost():
    net = seeded()
    recorder = recorder_of(net, 4)
    train(net, recorder)
    lines = recorder.table().splitlines()
    assert lines[0].split("  ")[0].strip() == "step"
    assert [line.split()[0] for line in lines[1:4]] == ["0", "4", "8"]
    assert lines[-1].startswith("3 probes of 10 rows: ")
    assert lines[-1].endswith(" % of the time")


def test_token_numbers_and_masks_come_back_as_they_were():
    seen: list[tuple[torch.dtype, torch.dtype, tuple[int, ...]]] = []

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(70_000, 5), nn.Linear(5, 2)
            self.embed.requires_grad_(False)

        def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
            seen.append((ids.dtype, mask.dtype, tuple(ids.shape)))
            picked = self.embed(ids) * mask[:, :, None]
            return (self.head(picked.sum(dim=1)),)

    net = Reader().bfloat16()  # whose own precision holds no number above 256 exactly
    ids = torch.randint(69_000, 70_000, (12, 7))
    mask = torch.rand(12, 7) < 0.6
    recorder = Recorder(net, ({"ids": ids, "mask": mask}, torch.arange(12) % 2), 1, loss="cross_entropy", rows=12)
    probe = recorder(0)
    assert {(kind, truth) for kind, truth, _ in seen} == {(torch.int64, torch.bool)}
    features = (net.embed.weight.double()[ids] * mask[:, :, None]).sum(dim=1)
    largest = torch.linalg.eigvalsh(features @ features.T + 1)[-1]
    assert probe.largest == pytest.approx(float(largest), rel=1e-10)  # both outputs of a linear head have the same Gram


def test_hooks_of_the_user_are_not_set_off_and_weight_norm_still_works():
    net = seeded()
    with pytest.warns(FutureWarning, match="weight_norm"):
        nn.utils.weight_norm(net.first).requires_grad_(False)
    calls = []
    net.first.register_forward_hook(lambda *_: calls.append(1))
    recorder = Recorder(net, (X, LABELS), 1, loss="cross_entropy")
    recorder(0)
    assert calls == []
    net(X)
    assert calls == [1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler, by its own modules
def test_wrappers_are_seen_through():
    net = seeded()
    assert recorder_of(nn.DataParallel(net), 1)(0) == recorder_of(net, 1)(0)
    assert recorder_of(torch.compile(net), 1)(0) == recorder_of(net, 1)(0)


def test_it_works_without_gradients_and_in_inference_mode():
    net = seeded()
    recorder = recorder_of(net, 1)
    expected = recorder_of(net, 1)(0)
    for surrounding in (torch.no_grad(), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16)):
        with surrounding:
            assert dataclasses.replace(recorder(0), step=0) == expected
        recorder = recorder_of(net, 1)


def test_a_data_set_and_one_row_will_do():
    data = Dataset(X[:1].double(), [[1.0, 0.0, 0.0]])
    recorder = Recorder(seeded(), data, 1)
    assert recorder(0).smallest <= recorder(0).largest
    images = Dataset(torch.rand(5, 1, 3, 3), torch.ones(5, 1))
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 1))
    assert Recorder(net, images, 1)(0).largest > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"module": nn.Sequential(nn.LazyLinear(3))}, "has no values in"),
        ({"module": Net().requires_grad_(False)}, "no trainable parameter"),
        ({"data": (X, LABELS[:3])}, "pass as many targets as samples"),
        ({"data": (X[:0], LABELS[:0])}, "has no samples"),
        ({"data": ({"a": X, "b": X[:3]}, LABELS)}, "has inputs of"),
        ({"data": ({}, LABELS)}, "pass as many targets"),
        ({"data": (X * math.nan, LABELS)}, "NaN"),
        ({"data": (X, LABELS + 1)}, "has classes from 1 to 3"),
        ({"data": (X, X[:, :2])}, "has 2 targets a sample"),
        ({"data": (X, X[:, :3])}, "not one-hot"),
        ({"data": (X[:, :3], LABELS)}, "does not fit"),
        ({"every": 0}, "every is 0"),
        ({"every": True}, "every is True"),
        ({"every": (1, -2)}, "every is"),
        ({"rows": 0}, "rows is 0"),
        ({"loss": "cross"}, "loss is 'cross'"),
    ],
)
def test_mistakes_are_named(change, message):
    arguments = {"module": seeded(), "data": (X, LABELS), "every": 1, "rows": 10, "loss": "cross_entropy", **change}
    with pytest.raises(ArgumentError, match=message):
        Recorder(**arguments)


def test_mistakes_of_type_are_named_too():
    """In an interpreter of its own: here annotations are checked first."""
    code = """
import torch
from zeroloss.callbacks import Recorder
net, x, y = torch.nn.Linear(2, 1), torch.ones(3, 2), torch.ones(3)
recorder = Recorder(net, (x, y))
for call in (lambda: Recorder(3, (x, y)), lambda: Recorder(net, x), lambda: Recorder(net, (x, y), "abc"),
             lambda: Recorder(net, (x, y), rows=1.5), lambda: recorder(1.0), lambda: recorder(-1), lambda: recorder(True)):
    try:
        call()
    except ValueError as error:
        print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    words = ("module is int", "data is Tensor", "every is 'abc'", "rows is 1.5", "step is 1.0", "step is -1", "step is True")
    lines = done.stdout.splitlines()
    assert len(lines) == len(words)
    assert all(line.startswith(f"ArgumentError {word}") for line, word in zip(lines, words, strict=True))

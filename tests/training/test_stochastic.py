"""Mini-batches, momentum and schedules: orders, step sizes by enumeration, and the run against a plain loop and its forecast."""

from __future__ import annotations

import itertools
import math
import signal
import subprocess
import sys

import pytest
import torch
from torch import nn

from tests.cases import rows
from zeroloss import Dataset, descend, fully_connected, gram, load, predict_descent
from zeroloss.training import LOSSES, Batches, expected_smoothness, forecast_descent, make_batches, step_size


def labelled(n: int, d: int, seed: int = 0) -> Dataset:
    x = rows(n, d, seed)
    y = torch.where(torch.arange(n) % 2 == 0, 1.0, -1.0).double()
    return Dataset(x, y)


def build(dtype: torch.dtype = torch.float64) -> nn.Module:
    return fully_connected(6, 24, 2, scheme="du", activation="erf", dtype=dtype)


@pytest.mark.parametrize(("n", "b"), [(7, 3), (6, 2), (5, 1), (4, 4)])
def test_an_epoch_without_replacement_uses_every_row_once(n, b):
    batches = Batches(n, b, seed=2)
    for epoch in range(3):
        seen = [batches.rows(epoch * batches.epoch + i) for i in range(batches.epoch)]
        drawn = [torch.arange(n) if part is None else part for part in seen]
        assert sorted(torch.cat(drawn).tolist()) == list(range(n))
        assert tuple(len(part) for part in drawn) == batches.sizes
        assert all(bool((part.diff() > 0).all()) for part in drawn)


def test_the_order_is_a_function_of_seed_and_epoch():
    first = [Batches(9, 2, seed=5).rows(k).tolist() for k in (12, 3, 40)]
    assert first == [Batches(9, 2, seed=5).rows(k).tolist() for k in (12, 3, 40)]
    orders = {(s, e): tuple(Batches(9, 1, seed=s).rows(9 * e + i).item() for i in range(9)) for s in range(4) for e in range(4)}
    assert len(set(orders.values())) == 16  # no seed's epoch is another's


@pytest.mark.parametrize("replacement", [False, True])
def test_rows_are_drawn_uniformly(replacement):
    n, b, epochs = 6, 2, 3000
    batches = Batches(n, b, replacement, seed=1)
    first = torch.cat([batches.rows(e * batches.epoch) for e in range(epochs)])
    counts = torch.bincount(first, minlength=n).double()
    assert float((counts - b * epochs / n).abs().max()) < 5 * math.sqrt(b * epochs / n)
    pairs = sum(len(set(batches.rows(e * batches.epoch).tolist())) == 1 for e in range(epochs))
    assert pairs == 0 if not replacement else abs(pairs - epochs / n) < 5 * math.sqrt(epochs / n)


@pytest.mark.parametrize(("b", "replacement"), [(1, False), (2, False), (3, False), (6, False), (1, True), (2, True), (3, True)])
def test_expected_smoothness_bounds_the_enumerated_second_moment(b, replacement):
    """E[A_B^2] <= E A as matrices, over every batch; and an E smaller by one in a million fails for equal or for orthogonal rows."""
    n = 6
    draws = list(itertools.product(range(n), repeat=b) if replacement else itertools.combinations(range(n), b))

    def excess(parts: torch.Tensor, factor: float) -> float:
        sums = torch.stack([n / b * parts[list(draw)].sum(dim=0) for draw in draws])
        whole = parts.sum(dim=0)
        largest, block = float(torch.linalg.eigvalsh(whole)[-1]), float(torch.linalg.eigvalsh(parts).max())
        gap = (sums @ sums).mean(dim=0) - factor * expected_smoothness(largest, block, Batches(n, b, replacement)) * whole
        return float(torch.linalg.eigvalsh((gap + gap.T) / 2)[-1]) / largest**2

    for seed in range(10):
        jacobian = rows(n * 2, 6, seed, unit=False).reshape(n, 2, 6)
        assert excess(jacobian.transpose(1, 2) @ jacobian, 1.0) < 1e-12
    equal = torch.ones(n, 1, 1, dtype=torch.float64)
    apart = torch.diag_embed(torch.eye(n, dtype=torch.float64))
    assert max(excess(parts, 1 - 1e-6) for parts in (equal, apart)) > 0


def test_expected_smoothness_of_an_uneven_epoch_is_the_mean_over_its_batches():
    even = [expected_smoothness(5.0, 2.0, Batches(6, b)) for b in (1, 2, 3, 6)]
    assert even == pytest.approx([6 * 2.0, 6 / 10 * 5 + 24 / 10 * 2, 12 / 15 * 5 + 18 / 15 * 2, 5.0])
    four_and_two = (18 / 20 * 5 + 12 / 20 * 2 + even[1]) / 2
    assert expected_smoothness(5.0, 2.0, Batches(6, 4)) == pytest.approx(four_and_two)
    assert expected_smoothness(5.0, 2.0, Batches(6, 3, True)) == pytest.approx(2 / 3 * 5 + 2 * 2.0)
    assert expected_smoothness(5.0, 2.0, Batches(1, 1, True)) == 5.0


def test_auto_is_one_over_smoothness_and_expected_smoothness():
    data, net = labelled(8, 6), build()
    matrix = gram(net, data.x)
    largest, block = float(torch.linalg.eigvalsh(matrix)[-1]), float(matrix.diag().max())
    for name, smooth in (("squared", 1.0), ("logistic", 0.25), ("sine", 8.0)):
        full = step_size("auto", net, data, loss=name)
        assert full == pytest.approx(1 / (smooth * largest), rel=1e-6)
        assert step_size("auto", net, data, loss=name, batches=Batches(8, 8), momentum=0.9) == full
        single = step_size("auto", net, data, loss=name, batches=Batches(8, 1))
        assert single == pytest.approx(1 / (smooth * 8 * block), rel=1e-6)


def test_with_momentum_the_auto_step_keeps_the_second_moment_bounded():
    """The exact recursion of E[z z^T], z = (theta - theta*, v), for i.i.d. batches of one row: it contracts at the auto step;
    and without the momentum's factor, on orthogonal rows, it does not."""
    n = 4
    batches = Batches(n, 1, True)
    for seed in range(6):
        jacobian = torch.eye(n, dtype=torch.float64) if seed == 0 else rows(n, 5, seed, unit=False)
        dim = jacobian.shape[1]
        matrix = jacobian @ jacobian.T
        largest, block = float(torch.linalg.eigvalsh(matrix)[-1]), float(matrix.diag().max())
        for mu in (0.0, 0.5, 0.9, 0.99):
            radius = {}
            for rule in (mu, 0.0):
                eta = 1 / expected_smoothness(largest, block, batches, rule)
                eye, total = torch.eye(dim, dtype=torch.float64), 0.0
                for row in jacobian:
                    hessian = n * torch.outer(row, row)
                    top = torch.cat([eye - eta * hessian, mu * eye], dim=1)
                    bottom = torch.cat([-eta * hessian, mu * eye], dim=1)
                    move = torch.cat([top, bottom])
                    total = total + torch.kron(move, move) / n
                # directions that no row sees stay where they are, so the radius is 1 there and never above
                radius[rule] = float(torch.linalg.eigvals(total).abs().max())
            assert radius[mu] <= 1 + 1e-9
            if seed == 0 and mu >= 0.9:
                assert radius[0.0] > 1.001


def plain_loop(net, data, loss, batches, eta, momentum, schedule, steps):
    """The slow obvious twin: whole gradients by automatic differentiation, one velocity a parameter."""
    parameters = [p for p in net.parameters() if p.requires_grad]
    velocity = [torch.zeros_like(p) for p in parameters]
    losses = []
    for k in range(steps + 1):
        with torch.no_grad():
            losses.append(float(loss.value(net(data.x), data.y).sum()))
        chosen = batches.rows(k)
        chosen = torch.arange(data.n) if chosen is None else chosen
        value = loss.value(net(data.x[chosen]), data.y[chosen]).sum() * data.n / len(chosen)
        gradients = torch.autograd.grad(value, parameters)
        factor = ([1.0] + [f for first, f in schedule if first <= k])[-1]
        with torch.no_grad():
            for p, v, g in zip(parameters, velocity, gradients, strict=True):
                v.mul_(momentum).sub_(eta * factor * g)
                p.add_(v)
    return losses


@pytest.mark.parametrize("name", ["squared", "logistic", "sine", "log_cosh", "quartic", "welsch"])
@pytest.mark.parametrize("settings", [(None, False, 0.0, ()), (3, False, 0.9, ((5, 0.5), (9, 0.1))), (2, True, 0.0, ((0, 2.0),))])
def test_a_run_is_the_plain_loop(name, settings):
    batch, replacement, momentum, schedule = settings
    data = labelled(8, 6)
    batches = make_batches(8, batch, replacement, 4)
    keywords = {"batch": batch, "replacement": replacement, "momentum": momentum, "schedule": schedule, "seed": 4}
    run = descend(build(), data, loss=name, max_steps=13, until=0.0, **keywords)
    expected = plain_loop(build(), data, LOSSES[name], batches, run.step_size, momentum, schedule, 13)
    assert run.steps.tolist() == sorted({*range(0, 14, batches.epoch), 13})
    assert run.loss.tolist() == pytest.approx([expected[k] for k in run.steps.tolist()], rel=1e-9)


def test_cross_entropy_classifies_and_stops_when_fitted():
    data = Dataset(rows(9, 6), torch.eye(3, dtype=torch.float64).repeat(3, 1))
    settings = {"loss": "cross_entropy", "batch": 2, "max_steps": 300, "until": 0.0}
    whole = descend(fully_connected(6, 64, 1, outputs=3), data, **settings)
    assert whole.fitted is not None
    assert 0 < whole.fitted < 300
    run = descend(fully_connected(6, 64, 1, outputs=3), data, **settings, stop_when_fitted=True)
    assert (run.status, run.taken) == ("CONVERGED", whole.fitted)
    assert "classified right" in run.reason
    assert float(run.accuracy[-1]) == 1
    assert bool((run.accuracy[:-1] < 1).all())
    assert torch.equal(run.loss, whole.loss[: len(run.loss)])
    assert descend(nn.Linear(2, 1), Dataset(rows(3, 2), [0.1, 0.2, 0.3]), max_steps=1).accuracy is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_of_all_rows_is_full_batch_descent_to_the_bit(dtype):
    data = labelled(8, 6)
    whole, batch = build(dtype), build(dtype)
    runs = [descend(whole, data, max_steps=40, momentum=0.5), descend(batch, data, max_steps=40, batch=8, momentum=0.5, seed=7)]
    assert torch.equal(runs[0].loss, runs[1].loss)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), batch.parameters(), strict=True))


@pytest.mark.parametrize("name", ["squared", "sine", "logistic"])
@pytest.mark.parametrize("settings", [(None, 0.0, ()), (3, 0.8, ((10, 0.5),)), (1, 0.0, ())])
def test_the_forecast_is_exact_for_a_linear_module(name, settings):
    """The Gram of a linear module does not move, so the run in function space is the run."""
    batch, momentum, schedule = settings
    data = labelled(9, 5)
    net = nn.Linear(5, 1).double()
    with torch.no_grad():
        start = net(data.x)
    kernel = gram(net, data.x)
    keywords = {
        "loss": name,
        "batch": batch,
        "momentum": momentum,
        "schedule": schedule,
        "max_steps": 60,
        "until": 0.0,
        "seed": 3,
    }
    run = descend(net, data, **keywords)
    told = forecast_descent(kernel, start, data.y, run.step_size, **keywords)
    assert torch.equal(told.steps, run.steps)
    assert told.loss.tolist() == pytest.approx(run.loss.tolist(), rel=1e-9)
    other = forecast_descent(kernel, start, data.y, run.step_size, **{**keywords, "seed": 4})
    assert batch is None or float((other.loss[1:] / run.loss[1:] - 1).abs().max()) > 1e-3  # the batches matter


def test_the_forecast_takes_full_kernels_sample_major():
    data = load("iris", n=12)
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3)).double()
    with torch.no_grad():
        start = net(data.x)
    kernel = gram(net, data.x, "full")
    told = forecast_descent(kernel, start, data.y, 1e-4, loss="cross_entropy", batch=4, max_steps=9, until=0.0)
    f = start.clone().reshape(-1)
    for k in range(9):
        index = make_batches(12, 4).rows(k)
        change = torch.zeros(12, 3, dtype=torch.float64)
        change[index] = LOSSES["cross_entropy"].gradient(f.reshape(12, 3)[index], data.y[index])
        f = f - 1e-4 * 3 * kernel @ change.reshape(-1)
    assert float(told.loss[-1]) == pytest.approx(float(LOSSES["cross_entropy"].value(f.reshape(12, 3), data.y).sum()), rel=1e-12)


def test_the_forecast_of_plain_descent_is_the_linearised_prediction():
    data = labelled(10, 6)
    net = build()
    kernel, residual = gram(net, data.x), (net(data.x) - data.y).detach()
    told = forecast_descent(kernel, residual + data.y, data.y, 0.5, max_steps=80, until=0.0)
    assert (2 * told.loss).sqrt().tolist() == pytest.approx(predict_descent(kernel, residual, 0.5, told.steps).tolist(), rel=1e-9)


def test_one_expected_step_contracts_as_theorem_s_says():
    """THEORY 5.2 Theorem S on a linear module, by enumeration: E F_1 <= (1 - eta alpha^2) F_0 at its step, for every draw of b = 2."""
    n, b = 5, 2
    jacobian = rows(n, 7, 3)
    matrix = jacobian @ jacobian.T
    values = torch.linalg.eigvalsh(matrix)
    alpha, beta, kappa = float(values[0]) ** 0.5, float(values[-1]) ** 0.5, float(matrix.diag().max()) ** 0.5
    eta = min(1 / (2 * beta**2), alpha**2 * b / (2 * beta**2 * n * kappa**2))
    data = Dataset(jacobian, rows(1, n, 4)[0])
    residual = -data.y[:, 0]
    after = []
    for draw in itertools.product(range(n), repeat=b):
        chosen = list(draw)
        after.append(0.5 * float((residual - eta * n / b * matrix[:, chosen] @ residual[chosen]).square().sum()))
    expected = sum(after) / len(after)
    assert expected <= (1 - eta * alpha**2) * 0.5 * float(residual.square().sum())
    assert max(after) > expected * 1.001  # the draws do differ


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("replacement", [False, True])
def test_a_stochastic_run_cut_anywhere_resumes_to_the_bit(tmp_path, dtype, replacement):
    data = labelled(8, 6)
    keywords = {"batch": 3, "replacement": replacement, "momentum": 0.9, "schedule": ((7, 0.5),), "seed": 2, "until": 0.0}
    keywords |= {"probes": [0, 4, 5], "loss": "logistic"}
    whole = build(dtype)
    expected = descend(whole, data, max_steps=25, **keywords)
    for cut in (1, 3, 7, 8, 16):
        path = tmp_path / f"{cut}.safetensors"
        descend(build(dtype), data, max_steps=cut, checkpoint=path, **keywords)
        net = build(dtype)
        run = descend(net, data, max_steps=25, checkpoint=path, **keywords)
        assert torch.equal(run.loss, expected.loss)
        assert torch.equal(run.steps, expected.steps)
        assert torch.equal(run.accuracy, expected.accuracy)
        assert run.probes == expected.probes
        assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), net.parameters(), strict=True))


KILLED = {"step": 0.01, "batch": 3, "momentum": 0.9, "schedule": ((60, 0.5),), "max_steps": 400, "until": 0.0}
PROGRAM = """
import sys, zeroloss.training.descent as d
from tests.training.test_stochastic import KILLED, build, labelled, torch
d.CHECKPOINT_SECONDS = 0.0
d.descend(build(torch.float32), labelled(8, 6), checkpoint=sys.argv[1], progress=lambda k, _: print(k, flush=True), **KILLED)
"""


def test_kill_9_in_the_middle_of_a_stochastic_run_changes_nothing(tmp_path):
    whole, resumed, path = build(torch.float32), build(torch.float32), tmp_path / "run.safetensors"
    expected = descend(whole, labelled(8, 6), **KILLED)
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 48:
            break
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    seen: list[int] = []
    run = descend(resumed, labelled(8, 6), checkpoint=path, progress=lambda k, _: seen.append(k), **KILLED)
    assert seen[0] >= 48  # it went on; from the start the first would be 16
    assert torch.equal(run.loss, expected.loss)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"batch": 0}, "batch is 0"),
        ({"batch": 9}, "whole number from 1 to 8"),
        ({"batch": True}, "batch is True"),
        ({"replacement": True}, "without a batch size"),
        ({"momentum": 1.0}, r"momentum is 1\.0"),
        ({"schedule": ((5, 1.0), (5, 0.1))}, r"schedule contains \(5, 0\.1\)"),
        ({"schedule": ((0, -1.0),)}, "schedule contains"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_mistakes_are_named(keywords, message):
    with pytest.raises(ValueError, match=message):
        descend(build(), labelled(8, 6), **keywords)

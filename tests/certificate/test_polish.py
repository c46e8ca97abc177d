"""From user weights to weights at which the residual is rounding, and what stands in the way where it is not."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.cases import rows
from zeroloss import ArgumentError, Dataset, cnn, conv_resnet, descend, fully_connected, gram, load, resnet
from zeroloss.certificate import Polished, PolishStatus, polish
from zeroloss.certificate.polish_held import held_step
from zeroloss.certificate.polish_kinks import MARGIN, across, gradients, margin, narrow, pre_activations
from zeroloss.certificate.polish_newton import Budget, End, cholesky, run, state_of, trial
from zeroloss.certificate.polish_problem import Problem
from zeroloss.certificate.polish_starts import fit_last_layer

PAIR = load("digits", n=60, classes=(3, 8))
TEN = load("digits", n=40)
IMAGES = load("digits", n=30, classes=(3, 8), flat=False)


def mlp(*dims: int, act: type[nn.Module] = nn.ReLU, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(dims):
        layers += [nn.Linear(a, b, dtype=dtype), act()]
    return nn.Sequential(*layers[:-1])


def flat(module: nn.Module) -> np.ndarray:
    return np.concatenate([p.detach().double().numpy().ravel() for p in module.parameters() if p.requires_grad])


def check(done: Polished, module: nn.Module, data: Dataset) -> None:
    """What must hold however it ended."""
    assert all(after <= before for before, after in itertools.pairwise(done.history))
    assert done.moved == pytest.approx(float(np.linalg.norm(flat(done.module) - flat(module))), rel=1e-12, abs=1e-300)
    with torch.no_grad():
        plain = float((done.module(data.x).reshape(data.y.shape) - data.y).norm())
    assert done.float64_residual == pytest.approx(plain, rel=1e-6, abs=1e-12)
    assert abs(done.residual - plain) < 1e-12 + 1e-6 * plain
    assert all(p.dtype == torch.float64 for p in done.module.parameters())
    assert [p.requires_grad for p in done.module.parameters()] == [p.requires_grad for p in module.parameters()]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Softplus, nn.Tanh])
@pytest.mark.parametrize("data", [pytest.param(PAIR, id="one output"), pytest.param(TEN, id="ten outputs")])
def test_digits_are_fitted_to_rounding(activation, data):
    net = mlp(64, 128, data.outputs, act=activation)
    descend(net, data, max_steps=100, until=1e-2)
    done = polish(net, data)
    check(done, net, data)
    assert done.status is PolishStatus.REACHED
    assert done.residual < 1e-14
    assert done.extended
    assert done.history[0] > 1e-3 > 1e-12 > done.history[-1]


@pytest.mark.parametrize(
    ("net", "data"),
    [
        pytest.param(fully_connected(64, 64, 2), PAIR, id="AZ"),
        pytest.param(fully_connected(64, 64, 15, scheme="du"), PAIR, id="16 layers"),
        pytest.param(resnet(64, 48, 2), PAIR, id="AZ resnet"),
        pytest.param(resnet(64, 48, 2, 10, scheme="du", activation="erf"), TEN, id="DU resnet"),
        pytest.param(cnn((1, 8, 8), 8, 2, scheme="du"), IMAGES, id="DU cnn"),
        pytest.param(cnn((1, 8, 8), 8, 2), IMAGES, id="AZ cnn"),
        pytest.param(conv_resnet((1, 8, 8), 8, 2, scheme="du"), IMAGES, id="DU conv resnet"),
        pytest.param(nn.Sequential(nn.Linear(64, 32), nn.LayerNorm(32), nn.Mish(), nn.Linear(32, 1)), PAIR, id="no extended residual"),
    ],
)  # fmt: skip
def test_every_builder_and_a_module_of_ones_own_from_its_first_weights(net, data):
    done = polish(net, data)
    check(done, net, data)
    assert done.status is PolishStatus.REACHED, done.reason
    assert done.residual < 1e-12


def test_a_module_whose_exact_function_is_not_known_says_so():
    net = mlp(64, 64, 1, act=nn.Mish)
    done = polish(net, PAIR)
    assert not done.extended
    assert done.residual == done.float64_residual < 1e-12


def test_the_extended_residual_goes_below_what_float64_can_see():
    done = polish(fully_connected(64, 256, 1, scheme="du"), PAIR)
    assert done.residual < 0.5 * done.float64_residual


def test_the_users_module_stays_as_it_was_to_the_bit():
    net = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 1)).eval()
    before, mode = copy.deepcopy(net.state_dict()), [p.requires_grad for p in net.parameters()]
    threads = torch.random.get_rng_state()
    done = polish(net, PAIR)
    assert done.status is PolishStatus.REACHED
    assert all(torch.equal(before[name], value) and before[name].dtype == value.dtype for name, value in net.state_dict().items())
    assert [p.requires_grad for p in net.parameters()] == mode
    assert all(p.grad is None for p in net.parameters())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in [*net.modules(), *done.module.modules()])
    assert torch.equal(threads, torch.random.get_rng_state())


def test_frozen_layers_stay():
    net = fully_connected(64, 64, 2)
    done = polish(net, PAIR)
    assert torch.equal(done.module.A.weight, net.A.weight)
    assert torch.equal(done.module.B.weight, net.B.weight)
    assert not torch.equal(done.module.W1.weight, net.W1.weight)


def test_the_same_call_gives_the_same_weights():
    a, b = (polish(mlp(64, 32, 1), PAIR) for _ in range(2))
    assert np.array_equal(flat(a.module), flat(b.module))
    assert a.history == b.history


# ---- duplicates, N > P, dead networks ------------------------------------------------------------


def test_equal_rows_count_as_one_and_weigh_as_many():
    x, y = rows(6, 5), torch.arange(6, dtype=torch.float64)[:, None]
    data = Dataset(torch.cat([x, x[:2], x[:1]]), torch.cat([y, y[:2], y[:1]]))
    net = fully_connected(5, 32, 2, activation="relu", scheme="du")
    problem = Problem.of(copy.deepcopy(net), data)
    assert problem.root_weight.square().round().tolist() == [3, 2, 1, 1, 1, 1]
    outputs = net(data.x).detach()
    assert state_of(problem).norm == pytest.approx(float((outputs - data.y).norm()), rel=1e-13)
    full = gram(net, x, "full").detach()
    w = problem.root_weight
    assert torch.allclose(problem.gram(), w[:, None] * full * w, rtol=1e-12)
    assert polish(net, data).status is PolishStatus.REACHED


def test_weighted_products_are_those_of_the_jacobian():
    x, y = rows(4, 5), rows(4, 2, seed=1)
    data = Dataset(torch.cat([x, x[:1]]), torch.cat([y, y[1:2]]))
    problem = Problem.of(mlp(5, 6, 2, act=nn.Tanh, dtype=torch.float64), data)
    z = rows(1, 8)[0]
    loss = (problem.residual() * z).sum()
    assert not loss.requires_grad
    weights = problem.root_weight.repeat_interleave(2) * z
    slow = torch.autograd.grad((problem.module(problem.x).reshape(-1) * weights).sum(), list(problem.trained.values()))
    assert all(torch.allclose(a, b) for a, b in zip(problem.pull(z).values(), slow, strict=True))


def test_conflicting_duplicates_leave_their_floor_and_nothing_else():
    x = rows(8, 5)
    y = torch.arange(10, dtype=torch.float64)[:, None]
    data = Dataset(torch.cat([x, x[:2]]), y)
    net = fully_connected(5, 64, 2, scheme="du")
    done = polish(net, data)
    check(done, net, data)
    assert done.status is PolishStatus.FLOOR
    assert done.residual == pytest.approx(math.sqrt(2 * data.loss_floor), rel=1e-12)
    assert "different targets" in done.reason


def test_more_equations_than_parameters_is_said():
    data = Dataset(rows(30, 3), rows(30, 2, seed=1))
    done = polish(nn.Linear(3, 2), data)
    assert done.status is PolishStatus.STALLED
    assert "more equations (N = 60) than trained parameters (P = 8)" in done.reason
    design = torch.cat([data.x, torch.ones(30, 1, dtype=torch.float64)], dim=1)
    best = design @ torch.linalg.lstsq(design, data.y).solution
    assert done.residual == pytest.approx(float((best - data.y).norm()), rel=1e-6)


def test_dead_networks_stall():
    net = mlp(64, 8, 1)
    with torch.no_grad():
        net[0].bias.fill_(-100.0)
    net[2].requires_grad_(False)
    done = polish(net, PAIR)
    check(done, net, PAIR)
    assert done.status is PolishStatus.STALLED
    assert "dead units" in done.reason
    assert done.moved == 0


def test_one_sample_and_zero_targets():
    assert polish(mlp(2, 4, 1), Dataset([[1.0, 2.0]], [0.0])).status is PolishStatus.REACHED
    assert polish(mlp(2, 4, 1), Dataset([[1.0, 2.0]], [3e8])).status is PolishStatus.REACHED


def test_no_steps_change_nothing():
    net = mlp(64, 16, 1)
    done = polish(net, PAIR, max_steps=0)
    assert (done.status, done.moved, done.steps, len(done.history)) == (PolishStatus.MAX_STEPS, 0.0, 0, 1)


def test_the_budget_is_kept_and_progress_is_shown():
    seen = []
    done = polish(mlp(64, 3, 1, act=nn.Tanh), PAIR, max_steps=3, progress=lambda step, residual: seen.append((step, residual)))
    assert done.status is PolishStatus.MAX_STEPS
    assert done.steps == 3
    assert [step for step, _ in seen] == sorted(step for step, _ in seen)
    assert seen[-1][1] == pytest.approx(done.residual)


# ---- kinks -----------------------------------------------------------------------------------------


def test_plain_steps_stall_on_kinks_where_polish_does_not():
    net = mlp(64, 64, 64, 64, 1)
    data = load("digits", n=100, classes=(3, 8))
    problem = Problem.of(copy.deepcopy(net).double(), data)
    state, end = run(problem, state_of(problem), Budget(100, [math.inf]))
    assert end is End.STUCK
    assert state.norm > 1e-3
    assert polish(net, data).residual < 1e-14


def test_the_last_layers_fit_rescues_what_steps_do_not():
    generator = torch.Generator().manual_seed(0)
    data = Dataset(torch.randn(40, 2, generator=generator), torch.randn(40, 1, generator=generator))
    problem = Problem.of(mlp(2, 64, 1).double(), data)
    state, end = run(problem, state_of(problem), Budget(100, [math.inf]), across)
    assert end is End.STUCK
    before = [p.clone() for p in problem.module[0].parameters()]
    fitted = fit_last_layer(problem, state)
    assert fitted.norm < 1e-6 * state.norm
    assert all(torch.equal(a, b) for a, b in zip(before, problem.module[0].parameters(), strict=True))
    assert all(p.requires_grad for p in problem.module.parameters())


def test_the_last_layers_change_is_the_smallest():
    net, data = mlp(64, 100, 2, dtype=torch.float64), Dataset(PAIR.x[:20], rows(20, 2, seed=3))
    problem = Problem.of(copy.deepcopy(net), data)
    fit_last_layer(problem, state_of(problem))
    H = torch.cat([torch.relu(net[0](data.x)), torch.ones(20, 1, dtype=torch.float64)], dim=1).detach()
    wanted = torch.linalg.lstsq(H, data.y - net(data.x), driver="gelsd").solution.detach()
    got = torch.cat([problem.module[2].weight - net[2].weight, (problem.module[2].bias - net[2].bias)[:, None]], dim=1).detach().T
    assert torch.allclose(got, wanted, rtol=1e-6, atol=1e-9)


def test_gradients_of_pre_activations_are_those_of_each_row():
    net = mlp(5, 4, 3, 1, dtype=torch.float64)
    problem = Problem.of(net, Dataset(rows(6, 5), rows(6, 1)))
    with torch.no_grad():
        z = net[0](problem.x)
        net[0].bias[2] -= z[4, 2] - 1e-9
        w = net[2](torch.relu(net[0](problem.x)))
        net[2].bias[1] -= w[3, 1] + 1e-10
    units, moves = narrow(problem)
    assert sorted(zip(units.call.tolist(), units.row.tolist(), units.unit.tolist(), strict=True)) == [(0, 4, 2), (1, 3, 1)]
    assert sorted(torch.sign(moves).tolist()) == [-1, 1]  # each to the side on which it is
    for j in range(2):
        place = int(units.call[j])
        h = net[: 2 * place + 1](problem.x)[int(units.row[j]), int(units.unit[j])]
        slow = torch.autograd.grad(h, list(net.parameters()), allow_unused=True)
        wanted = torch.cat(
            [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(net.parameters(), slow, strict=True)]
        )
        assert torch.allclose(gradients(problem, units)[j], wanted)


def test_a_held_step_solves_the_whole_system():
    problem = Problem.of(mlp(5, 20, 2, dtype=torch.float64), Dataset(rows(6, 5), rows(6, 2)))
    params = list(problem.module.parameters())
    outputs = problem.module(problem.x).reshape(-1)
    J = torch.stack([torch.cat([g.flatten() for g in torch.autograd.grad(o, params, retain_graph=True)]) for o in outputs])
    g, t, r = rows(3, J.shape[1]), rows(1, 3)[0], problem.residual()
    step = held_step(problem, r, cholesky(problem.gram(), 0.0), g, t)
    delta = torch.cat([step[name].flatten() for name in problem.trained])
    wanted = torch.linalg.pinv(torch.cat([J, g])) @ torch.cat([-r, t])
    assert torch.allclose(delta, wanted, rtol=1e-7, atol=1e-9)


def test_units_on_their_kink_are_moved_off_it_and_the_residual_stays():
    net = polish(mlp(64, 64, 1), PAIR).module
    problem = Problem.of(net, PAIR)
    for _ in range(6):  # drive the unit that is nearest to its kink onto it, with the outputs held
        ((_, z),) = pre_activations(problem)
        row, unit = divmod(int(z.abs().argmin()), z.shape[1])
        h = problem.module[0](problem.x[row : row + 1])[0, unit]
        g = torch.cat([torch.zeros_like(p).flatten() if d is None else d.flatten() for p, d in
                       zip(net.parameters(), torch.autograd.grad(h, list(net.parameters()), allow_unused=True), strict=True)])  # fmt: skip
        state = state_of(problem, extended=True)
        step = held_step(problem, state.residual, cholesky(problem.gram(), 0.0), g[None], -h.detach()[None])
        trial(problem, state, step, 1.0)
    assert margin(problem) < 1e-14
    assert state_of(problem, extended=True).norm < 1e-13
    done = polish(net, PAIR)
    assert done.margin > MARGIN
    assert done.residual < 1e-13
    assert done.moved < 1e-5


# ---- callers' mistakes -------------------------------------------------------------------------------


def with_nan() -> nn.Module:
    net = mlp(64, 4, 1)
    with torch.no_grad():
        net[0].weight[0, 0] = math.nan
    return net


def overflowing() -> nn.Module:
    net = mlp(64, 4, 1, dtype=torch.float64)
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(1e200)
    return net


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"module": with_nan()}, "first: 0.weight"),
        ({"module": overflowing()}, "returns NaN or infinity for the data"),
        ({"module": nn.Sequential(nn.ReLU())}, "has no trainable parameter"),
        ({"module": mlp(64, 4, 1).requires_grad_(False)}, "has no trainable parameter"),
        ({"module": mlp(64, 4, 2)}, "returns 2 outputs for targets with 1"),
        ({"module": mlp(63, 4, 1)}, "does not fit the module"),
        ({"module": nn.Sequential(nn.Linear(64, 4), nn.Dropout(), nn.Linear(4, 1))}, "is random"),
        ({"module": nn.Sequential(nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))}, "mixes samples"),
        ({"until": -1.0}, "until is -1.0"),
        ({"until": math.nan}, "until is nan"),
        ({"max_steps": -1}, "max_steps is -1"),
        ({"max_steps": True}, "max_steps is True"),
    ],
)
def test_mistakes_get_one_line(arguments, message):
    call = {"module": mlp(64, 4, 1), "data": PAIR} | arguments
    with pytest.raises(ArgumentError, match=message) as caught:
        polish(call.pop("module"), call.pop("data"), **call)
    assert "\n" not in str(caught.value)

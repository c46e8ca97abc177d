"""What certify answers, what it refuses, and that descent does what the certificate says."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.certificate.problems import dense, families, inputs, interpolate
from tests.certificate.reference import evaluate, newton_root, singular_values
from zeroloss import ArgumentError, Dataset, certify, fully_connected
from zeroloss.certificate import Fails, Status, read_chain
from zeroloss.networks import Elementwise

FAMILIES = families()


def polished(dims=(4, 24, 1), act=nn.Tanh, n=5, seed=0, until=0.0):
    data = Dataset(inputs((dims[0],), n, seed), inputs((dims[-1],), n, seed + 1))
    module = dense(dims, act, seed=seed)
    interpolate(module, data, until=until)
    return module, data


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_proved_and_the_root_is_there(name):
    module, shape = FAMILIES[name]
    k = module(inputs(shape, 1)).shape[1]
    data = Dataset(inputs(shape, 2, 3), module(inputs(shape, 2, 3)).detach() + 1e-9)
    found = certify(module, data)
    if found.status is not Status.PROVED:
        assert name in ("az cnn",)  # its Jacobian is near singular on these inputs
        return
    chain = read_chain(module, data.x)
    moved, left = newton_root(chain, data.x, data.y)
    assert left < 1e-35
    assert moved <= found.radius * (1 + 1e-9)
    assert 2 * k == found.numbers.N
    _, J = evaluate(chain, data.x)
    values = singular_values(J)
    assert found.numbers.sigma0 <= values[0]
    assert values[-1] <= found.numbers.beta0
    assert found.numbers.sigma0 >= 0.99 * values[0]  # not vacuous
    assert found.numbers.residual <= 1.01e-9 * math.sqrt(2 * k)


@pytest.mark.parametrize("method", ["flow", "gd", "newton"])
def test_methods(method):
    module, data = polished()
    found = certify(module, data, method=method)
    assert found.status is Status.PROVED
    assert found.radius < 1e-9
    assert math.isnan(found.step) == (method != "gd")
    assert math.isnan(found.rate) == (method == "newton")
    assert "PROVED" in found.explain()
    assert "Theorem" in found.explain() or method == "newton"


def test_stochastic():
    module, data = polished()
    found = certify(module, data, method="sgd", batch=2)
    assert found.status is Status.PROVED
    assert found.sgd is not None
    assert not isinstance(found.sgd, Fails)
    assert 0 < found.sgd.delta < 1
    assert found.step > 0


@pytest.mark.parametrize("act", [nn.Tanh, nn.ReLU])
def test_descent_stays_in_the_ball_at_the_rate(act):
    """From weights with a visible residual, where rounding hides nothing: ten thousand steps."""
    module, data = polished((4, 64, 1), act, until=1e-5, seed=1)
    for trial in range(20):
        found = certify(module, data, method="gd")
        if found.status is Status.PROVED:
            break
        interpolate(module, data, steps=trial + 1)
    assert found.status is Status.PROVED
    assert found.gd is not None
    assert not isinstance(found.gd, Fails)
    start = [p.detach().clone() for p in module.parameters()]
    last, path, first = math.inf, 0.0, None
    for _ in range(10_000):
        r = module(data.x) - data.y
        norm = float(r.detach().norm())
        first = norm if first is None else first
        assert norm <= found.gd.q * last * (1 + 1e-9) + 1e-13
        last = norm
        steps = torch.autograd.grad(0.5 * r.square().sum(), list(module.parameters()))
        with torch.no_grad():
            for p, g in zip(module.parameters(), steps, strict=True):
                p.sub_(found.step * g)
        path += found.step * math.sqrt(sum(float(g.square().sum()) for g in steps))
    assert path <= found.gd.path * (1 + 1e-6) + 1e-12
    away = math.sqrt(sum(float((p.detach() - s).square().sum()) for p, s in zip(module.parameters(), start, strict=True)))
    assert away <= found.radius * (1 + 1e-6) + 1e-12
    assert last < 1e-3 * first


def test_conflicts_are_impossible():
    module, data = polished()
    twice = Dataset(torch.cat((data.x, data.x[:2])), torch.cat((data.y, data.y[:2] + torch.tensor([[2.0], [0.0]]))))
    found = certify(module, twice)
    assert found.status is Status.IMPOSSIBLE
    assert found.loss_floor == pytest.approx(1.0)
    assert "below 1" in found.reason
    assert "relabel" in found.explain()
    with pytest.raises(ArgumentError, match="IMPOSSIBLE"):
        found.save("nowhere")


def test_equal_rows_are_merged_and_the_weighted_system_is_the_original():
    module, data = polished()
    twice = Dataset(torch.cat((data.x, data.x[:2], data.x[:1])), torch.cat((data.y, data.y[:2], data.y[:1])))
    found = certify(module, twice)
    assert found.status is Status.PROVED
    assert (found.numbers.samples, found.numbers.rows) == (5, 8)
    whole = torch.func.functional_call(module, dict(module.named_parameters()), (twice.x,)) - twice.y
    assert float(whole.detach().norm()) <= found.numbers.residual
    separate = certify(module, twice, dedupe=False)
    assert separate.status is Status.REFUSED
    assert "not known to be positive" in separate.reason
    # its nonzero singular values are those of the Jacobian with every row as often as it was given
    names, values = zip(*module.named_parameters(), strict=True)
    jac = torch.func.jacrev(
        lambda *p: torch.func.functional_call(module, dict(zip(names, p, strict=True)), (twice.x,)).flatten(),
        argnums=tuple(range(len(values))),
    )(*values)
    J = torch.cat([part.detach().reshape(8, -1) for part in jac], 1)
    true = torch.linalg.svdvals(J)
    assert found.numbers.sigma0 <= float(true[4])
    assert found.numbers.sigma0 >= 0.99 * float(true[4])
    assert float(true[5]) < 1e-12


@pytest.mark.parametrize("spread", [1e-3, 1e-6, 1e-9, 1e-12, 1e-15])
def test_near_duplicates_with_far_labels_are_refused_or_true(spread):
    module, data = polished()
    near = Dataset(torch.cat((data.x, data.x[:1] + spread)), torch.cat((data.y, data.y[:1] + 1)))
    interpolate(module, near)
    found = certify(module, near)
    if found.status is Status.PROVED:
        moved, left = newton_root(read_chain(module, near.x), near.x, near.y)
        assert left < 1e-30
        assert moved <= found.radius
    if spread <= 1e-9:
        assert found.status is not Status.PROVED


def test_more_equations_than_unknowns_are_refused():
    found = certify(dense((2, 1, 1)), Dataset(inputs((2,), 9), inputs((1,), 9)))
    assert found.status is Status.REFUSED
    assert "N = 9 equations exceed P = 5" in found.reason
    assert "train more layers" in found.explain()


def test_a_far_residual_is_refused_and_says_how_far():
    module, data = polished(until=1e9)
    far = Dataset(data.x, data.y + 1e3)
    found = certify(module, far)
    assert found.status is Status.REFUSED
    assert "is not below σ0²" in found.reason
    assert "polish" in found.explain()


def test_a_kink_is_refused():
    module, data = polished(act=nn.ReLU)
    with torch.no_grad():
        module[0].bias[0] = -(data.x[0] @ module[0].weight[0])
    found = certify(module, data)
    assert found.status is Status.REFUSED
    assert "kink" in found.reason
    nudged = Dataset(data.x, module(data.x).detach())
    with torch.no_grad():
        module[0].bias[0] += 1e-13
    found = certify(module, nudged)
    assert found.status is Status.REFUSED
    assert "kink" in found.reason


def test_dead_networks_are_refused():
    module, data = polished(act=nn.ReLU)
    with torch.no_grad():
        module[0].bias.fill_(-1e3)
        module[2].bias.fill_(0.0)
    assert certify(module, data).status is Status.REFUSED


@pytest.mark.parametrize("size", [1e150, 1e250, 1e-150, 1e-310])
def test_extreme_weights_are_never_proved_wrongly(size):
    module, data = polished()
    with torch.no_grad():
        module[0].weight.mul_(size)
    found = certify(module, data)
    assert found.status is Status.REFUSED


def test_subnormal_weights_do_not_break_the_proof():
    module, data = polished(until=1e-13)
    with torch.no_grad():
        module[2].weight[0, 0] = 5e-324
        module[0].weight[0] = 1e-310
    interpolate(module, data)
    with torch.no_grad():
        module[0].weight[0, 0] = 3e-310
    found = certify(module, Dataset(data.x, module(data.x).detach()))
    assert found.status is Status.PROVED
    torch.set_flush_denormal(True)
    try:
        assert certify(module, Dataset(data.x, module(data.x).detach())).status is Status.PROVED
    finally:
        torch.set_flush_denormal(False)


def test_scale_is_a_factor_of_the_outputs():
    module = fully_connected(4, 64, 1, scheme="du", activation="softplus")
    data = Dataset(inputs((4,), 3), torch.tensor([1.0, -1.0, 1.0]))
    with torch.no_grad():
        module[0].weight[32:] = module[0].weight[:32]
        module[3].weight[0, 32:] = -module[3].weight[0, :32]  # outputs start at zero
    small, large = certify(module, data), certify(module, data, scale=1e3)
    assert small.status is Status.REFUSED
    assert large.status is Status.PROVED
    assert 900 < small.h / large.h < 1e4  # h shrinks like 1/scale, and the ball with it


def test_float32_modules_are_certified_as_they_are():
    module, data = polished()
    narrow = dense((4, 24, 1), nn.Tanh).float()
    narrow.load_state_dict({name: value.float() for name, value in module.state_dict().items()})
    before = {name: value.clone() for name, value in narrow.state_dict().items()}
    found = certify(narrow, data)
    assert found.status is Status.PROVED
    assert 1e-9 < found.radius < 1e-4
    assert all(bool((value == before[name]).all()) for name, value in narrow.state_dict().items())


def test_a_subset_of_layers():
    module, data = polished()
    everything, last = certify(module, data), certify(module, data, train=["2"])
    assert last.numbers.P == 25
    assert last.numbers.sigma0 < everything.numbers.sigma0
    assert last.lipschitz == 0.0
    with pytest.raises(ArgumentError, match="train"):
        certify(module, data, train=["head"])


def test_extended_precision_shrinks_the_ball():
    module, data = polished((4, 24, 24, 1), nn.ReLU)
    plain, extended = certify(module, data), certify(module, data, precision="extended")
    assert plain.status is extended.status is Status.PROVED
    assert extended.radius < plain.radius / 10
    assert extended.numbers.cell_margin > plain.numbers.cell_margin * 10


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"method": "adam"}, "method"),
        ({"precision": "float32"}, "precision"),
        ({"step": 0.1}, "step"),
        ({"method": "gd", "step": -1.0}, "step"),
        ({"method": "gd", "step": math.nan}, "step"),
        ({"batch": 2}, "batch"),
        ({"method": "sgd"}, "batch"),
        ({"method": "sgd", "batch": 99}, "batch"),
        ({"scale": 0.0}, "scale"),
    ],
)
def test_mistakes_are_one_line(arguments, match):
    module, data = polished(until=1e9)
    with pytest.raises(ArgumentError, match=match) as caught:
        certify(module, data, **arguments)
    assert "\n" not in str(caught.value)


class _Odd(nn.Sequential):
    def forward(self, x):
        return super().forward(x) * 2


def test_modules_that_are_not_chains_are_refused_by_name():
    data = Dataset(inputs((3,), 2), inputs((1,), 2))
    head = nn.Linear(4, 1)
    shared = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    shared[2].weight = shared[0].weight
    broken = dense((3, 4, 1))
    with torch.no_grad():
        broken[0].weight[0, 0] = math.nan
    cases = {
        "LayerNorm": nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), head),
        "BatchNorm1d": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), head),
        "Dropout": nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), head),
        "_Odd": _Odd(nn.Linear(3, 1)),
        "ELU": nn.Sequential(nn.Linear(3, 4), nn.ELU(), head),
        "Elementwise": nn.Sequential(nn.Linear(3, 4), Elementwise(torch.sin), head),
        "GELU": nn.Sequential(nn.Linear(3, 4), nn.GELU(approximate="tanh"), head),
        "share": shared,
        "NaN": broken,
        "outputs": nn.Sequential(nn.Linear(3, 2)),
        "rows": nn.Sequential(nn.Linear(4, 1)),
    }
    pictures = Dataset(inputs((1, 3, 3), 2), inputs((1,), 2))
    with pytest.raises(ArgumentError, match="Flatten"):
        certify(nn.Sequential(nn.Linear(3, 1), nn.Flatten(), nn.Linear(3, 1)), pictures)
    for word, module in cases.items():
        with pytest.raises(ArgumentError, match=word):
            certify(module, data)
    frozen = dense((3, 4, 1)).requires_grad_(False)
    with pytest.raises(ArgumentError, match="no trained"):
        certify(frozen, data)


def test_a_module_whose_forward_was_replaced_is_refused():
    data = Dataset(inputs((3,), 2), inputs((1,), 2))
    module = dense((3, 4, 1))
    honest = module[2].forward
    module[2].forward = lambda x: honest(x) + 1  # type: ignore[method-assign]
    with pytest.raises(ArgumentError, match="something else than its layers"):
        certify(module, data)
    hooked = dense((3, 4, 1))
    hooked[0].register_forward_hook(lambda *_: None)
    with pytest.raises(ArgumentError, match="hooks"):
        certify(hooked, data)


def test_layers_that_work_in_place_leave_the_data_alone():
    data = Dataset(inputs((3,), 2), inputs((1,), 2))
    before = data.x.clone()
    certify(nn.Sequential(nn.ReLU(inplace=True), *dense((3, 4, 1))), data)
    assert bool((data.x == before).all())


def test_one_row():
    module, data = polished(n=1)
    assert certify(module, data, method="gd").status is Status.PROVED


def test_saved_files_hold_exact_numbers(tmp_path):
    from hashlib import sha256

    from safetensors.torch import load_file

    module, data = polished()
    found = certify(module, data, method="gd")
    path = found.save(tmp_path / "proof")
    document = json.loads(path.read_text())
    assert path.name == "proof.json"
    assert document["tensors"]["sha256"] == sha256((tmp_path / "proof.safetensors").read_bytes()).hexdigest()
    assert float.fromhex(document["claims"]["residual"]) == found.numbers.residual
    assert found.gd is not None
    assert not isinstance(found.gd, Fails)
    assert float.fromhex(document["gd"]["q"]) == found.gd.q
    tensors = load_file(tmp_path / "proof.safetensors")
    assert bool((tensors["x"] == data.x).all())
    assert bool((tensors["0.weight"] == module[0].weight).all())
    assert [stage["kind"] for stage in document["network"]] == ["linear", "activation", "linear"]
    assert document["claims"]["N"] == 5


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_can_be_written_down(name, tmp_path):
    module, shape = FAMILIES[name]
    data = Dataset(inputs(shape, 2, 3), module(inputs(shape, 2, 3)).detach())
    found = certify(module, data)
    if found.status is Status.PROVED:
        document = json.loads(found.save(tmp_path / "x").read_text())
        assert document["network"]
        assert document["claims"]["P"] == found.numbers.P


def test_a_status_is_needed_for_a_proof():
    module, data = polished()
    found = certify(module, data)
    refused = replace(found, status=Status.REFUSED)
    assert refused.proof is None
    assert math.isnan(refused.radius)

"""Each formula beside a slow twin."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.cases import rows
from tests.doctor.patients import RowTransformer, convolutional, digits, mlp
from zeroloss import Dataset, diagnose
from zeroloss.doctor.layers import layer_health
from zeroloss.doctor.modes import ClosedForm, Simulated, decompose
from zeroloss.doctor.slow import slow_directions, slow_samples
from zeroloss.doctor.subject import admit
from zeroloss.doctor.tangent import full_gram, largest_over_rows
from zeroloss.doctor.trial import Movement, Regime, try_steps
from zeroloss.doctor.width import fit
from zeroloss.training import descend, find_loss


def jacobian(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Row by row, by the plainest automatic differentiation."""
    outputs = module(x).flatten()
    trained = [p for p in module.parameters() if p.requires_grad]
    found = []
    for value in outputs:
        parts = torch.autograd.grad(value, trained, retain_graph=True, allow_unused=True)
        found.append(
            torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in zip(trained, parts, strict=True)])
        )
    return torch.stack(found)


@pytest.mark.parametrize("make", [lambda: mlp(outputs=2), lambda: RowTransformer(2), lambda: convolutional(2)])
def test_the_gram_is_the_jacobians(make):
    network = make().double().eval()
    data = digits(6)
    x = data.as_images().x if isinstance(network, nn.Sequential) and isinstance(network[0], nn.Conv2d) else data.x
    J = jacobian(network, x)
    G = J @ J.T
    assert torch.allclose(full_gram(network, x), G, rtol=1e-10, atol=1e-10 * float(G.abs().max()))
    largest = float(torch.linalg.eigvalsh(G)[-1])
    assert largest_over_rows(network, x, 1.0, 3) == (pytest.approx(largest, rel=1e-6), True)


def test_too_many_rows_are_scaled(monkeypatch):
    monkeypatch.setattr("zeroloss.doctor.tangent.WORK", 10)
    assert largest_over_rows(mlp().double(), digits(6).x, 5.0, 3) == (10.0, False)


def test_both_forecasts_are_the_iteration():
    data = digits(15)
    G = full_gram(mlp().double(), data.x)
    f, y, squared = 0 * data.y, data.y, find_loss("squared")
    eta = 1.3 / float(torch.linalg.eigvalsh(G)[-1])
    closed, simulated = ClosedForm(decompose(G), f - y, eta), Simulated(G, f, y, squared, eta)
    r, losses = f - y, []
    for _ in range(40):
        losses.append(0.5 * float(r.square().sum()))
        r = r - eta * (G @ r)
    assert closed.losses(range(40)) == pytest.approx(losses, rel=1e-9)
    assert simulated.losses(range(40)) == pytest.approx(losses, rel=1e-9)
    assert torch.allclose(closed.signal(40), r, rtol=1e-8)
    assert torch.allclose(simulated.signal(40), r, rtol=1e-8)
    target = losses[20]
    assert closed.steps_to(target) == simulated.steps_to(target) == next(k for k, loss in enumerate(losses) if loss <= target)
    assert ClosedForm(decompose(G), f - y, 2.1 * eta).losses([39])[0] > losses[0]


def test_the_way_of_the_linearised_weights_is_that_of_a_linear_network():
    data, loss = digits(12), find_loss("squared")
    layer = nn.Linear(64, 1).double()
    G, f = full_gram(layer, data.x), layer(data.x).detach()
    eta, before = 1.3 / float(torch.linalg.eigvalsh(G)[-1]), torch.cat([p.detach().flatten() for p in layer.parameters()])
    descend(layer, data, step=eta, max_steps=30, until=0.0)
    way = float((torch.cat([p.detach().flatten() for p in layer.parameters()]) - before).norm())
    assert ClosedForm(decompose(G), f - data.y, eta).way(30) == pytest.approx(way, rel=1e-9)
    assert Simulated(G, f, data.y, loss, eta).way(30) == pytest.approx(way, rel=1e-9)


def test_a_part_of_the_residual_where_the_gram_is_zero_is_never_reached():
    G = torch.diag(torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64))
    run = ClosedForm(decompose(G), torch.ones(3, 1, dtype=torch.float64), 0.5)
    assert run.steps_to(0.51) is not None
    assert run.steps_to(0.49) is None


def test_the_slowest_rows_are_those_of_small_eigenvalues():
    x = torch.diag(torch.tensor([1.0, 0.1, 2.0, 0.01], dtype=torch.float64))
    layer = nn.Linear(4, 1, bias=False).double()
    with torch.no_grad():
        layer.weight.zero_()
    subject = admit(layer, Dataset(x, torch.ones(4, 1)), find_loss("squared"), 100, 0)
    modes = decompose(full_gram(subject.module, x))
    run = ClosedForm(modes, subject.outputs - subject.targets, 0.25)
    samples = slow_samples(subject, run, 100)
    assert [s.row for s in samples[:2]] == [3, 1]
    assert samples[0].residual == pytest.approx((1 - 0.25 * 1e-4) ** 100)
    assert sum(s.share for s in samples) == pytest.approx(1.0)
    directions = slow_directions(modes, subject, run, 0.25, 100)
    assert directions[0].eigenvalue == pytest.approx(1e-4)
    assert directions[0].rows == (3,)
    assert directions[0].share == pytest.approx(0.25)
    k = round(directions[0].steps_per_decade)
    assert (1 - 0.25 * 1e-4) ** (2 * k) == pytest.approx(0.1, rel=1e-3)


def test_a_copy_that_agrees_is_not_among_the_rows_that_never_fit():
    x = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0], [0.5, 0.5], [0.5, 0.5]])
    found = diagnose(nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 1)), Dataset(x, [1.0, 1.0, -1.0, 1.0, 1.0]))
    never = [d for d in found.directions if d.eigenvalue == 0]
    assert len(never) == 1
    assert set(never[0].rows) == {0, 2}
    assert never[0].share == pytest.approx(found.loss_floor / found.first_loss, rel=1e-9)


def test_labels_of_two_classes():
    data = digits(20)
    subject = admit(mlp(), data, find_loss("squared"), 100, 0)
    run = ClosedForm(decompose(full_gram(subject.module, subject.sample.x)), subject.outputs - subject.targets, 1e-3)
    assert data.labels is not None
    for sample in slow_samples(subject, run, 10):
        assert sample.label == str(int(data.labels[sample.row]))


def test_dead_and_constant_units_and_shares_by_hand():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    x = rows(20, 3)
    with torch.no_grad():
        network[0].bias[1] = -50.0
        network[0].weight[2].zero_()
        network[0].bias[2] = 1.0
    layers, _ = layer_health(network, x)
    z = network[0](x)
    assert layers[0].dead == int((z <= 0).all(dim=0).sum()) >= 1
    assert layers[0].constant == 1
    J = jacobian(network, x)
    share = float(J[:, :24].square().sum() / J.square().sum())
    assert layers[0].gradient == pytest.approx(share, rel=0.5)  # from eight random directions
    assert layers[0].gradient + layers[1].gradient == pytest.approx(1.0)


def test_a_linear_network_is_lazy_to_rounding():
    data = Dataset(rows(8, 12), torch.ones(8, 1))
    subject = admit(nn.Linear(12, 1), data, find_loss("squared"), 100, 0)
    G = full_gram(subject.module, data.x)
    modes = decompose(G)

    def foretold(eta: float, k: int) -> float:
        return ClosedForm(modes, subject.outputs - subject.targets, eta).losses([k])[0]

    trial = try_steps(subject, G, 1 / modes.largest, foretold, 10, 1.0)
    assert trial.movement.regime is Regime.LAZY
    assert trial.movement.gram_drift < 1e-12
    assert trial.movement.miss < 1e-9
    assert trial.movement.losses[-1] == pytest.approx(trial.movement.foretold, rel=1e-9)


def test_the_regime_weighs_drift_against_gain():
    def movement(drift: float, last: float, foretold: float, ahead: float = 0.0) -> Movement:
        return Movement(5, 1.0, 0, (1.0, last), foretold, 1 - last**0.5, drift, 0.0, 1.0, ahead)

    assert movement(0.02, 0.25, 0.25).regime is Regime.LAZY
    assert movement(0.2, 0.25, 0.25).regime is Regime.RICH  # two fifths a residual
    assert movement(0.02, 0.9, 0.9).regime is Regime.RICH  # the same drift for next to nothing
    assert movement(0.02, 0.25, 0.5).regime is Regime.RICH  # the forecast was wrong
    assert movement(0.02, 0.25, 0.25, 1.0).regime is Regime.RICH  # the weights have far to go


def test_the_fit_over_widths():
    limit, slope = fit((64, 256, 1024), [0.3 - 0.8 * m**-0.5 for m in (64, 256, 1024)])
    assert (limit, slope) == (pytest.approx(0.3), pytest.approx(0.8))


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("share", [0.1, 0.8, 0.97])
def test_at_another_step_than_the_real_ones_a_linear_network_takes_as_many_as_foretold_and_none_was_seen(loss, share):
    torch.manual_seed(0)
    x, layer = rows(12, 20), nn.Linear(20, 1).double()
    y = torch.where(rows(12, 1) > 0, 1.0, -1.0)
    stable = diagnose(layer, Dataset(x, y), loss=loss, trial_steps=1).stable_step
    result = diagnose(layer, Dataset(x, y), share * stable, loss=loss)
    losses = descend(layer, Dataset(x, y), loss=loss, step=share * stable, max_steps=500).loss
    for decade in result.decades[:2]:
        reached = (losses <= decade.ratio * losses[0]).nonzero()
        if len(reached):
            assert decade.steps == int(reached[0])
            assert decade.low < decade.steps < decade.high
    assert not any("seen, not predicted" in finding.sentence for finding in result.findings)


def test_of_a_loss_that_is_not_squared_nothing_is_out_of_reach_for_want_of_rank():
    """Separable rows in the plane: three parameters take the logistic loss of fifty rows as low as one likes."""
    x = rows(50, 2)
    x[:, 0] += 3 * x[:, 0].sign()
    data, layer = Dataset(x, x[:, :1].sign()), nn.Linear(2, 1).double()
    result = diagnose(layer, data, loss="logistic")
    said = {finding.title: finding.sentence for finding in result.findings}
    assert "Out of reach" not in said
    assert "never" not in said["Slowest directions"]
    assert "decade" not in said["Slowest directions"]
    assert "Out of reach" in {finding.title for finding in diagnose(layer, data).findings}
    run = descend(layer, data, loss="logistic", step=result.stable_step / 2, max_steps=2000)
    assert float(run.loss[-1] / run.loss[0]) < 2e-3


def test_the_learning_rate_of_a_mean_loss_makes_the_recommended_step():
    """One step of torch's own optimiser on its own mean moves the weights as one of the sum does."""
    layer, data = nn.Linear(4, 3).double(), Dataset(rows(6, 4), rows(6, 3))
    result = diagnose(layer, data, trial_steps=2)
    said = next(finding.sentence for finding in result.findings if finding.title == "Recommended step")
    rate = float(said.rpartition("lr = ")[2].rstrip("."))
    by_mean, by_sum = (torch.autograd.grad(loss, layer.weight)[0] for loss in (
        nn.functional.mse_loss(layer(data.x), data.y), 0.5 * (layer(data.x) - data.y).square().sum()))  # fmt: skip
    assert torch.allclose(rate * by_mean, result.recommended_step * by_sum, rtol=5e-3)

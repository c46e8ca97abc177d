"""The examination at its borders: what it refuses, what it leaves alone, and what it says where the theory does not reach."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.cases import rows
from tests.doctor.patients import RowTransformer, convolutional, digits, mlp, titles
from zeroloss import ArgumentError, Dataset, descend, diagnose, fully_connected, load, resnet
from zeroloss.doctor import Regime, Severity
from zeroloss.gram import tangent_operator
from zeroloss.spectrum import largest_eigenvalue


def small(n: int = 12, d: int = 5, k: int = 1) -> Dataset:
    generator = torch.Generator().manual_seed(1)
    return Dataset(rows(n, d), torch.randn(n, k, dtype=torch.float64, generator=generator))


def test_the_module_is_left_as_it_was_to_the_bit():
    network = nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))
    network(torch.ones(4, 64)).sum().backward()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    gradients = [p.grad.clone() for p in network.parameters()]
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002  (the global state is what is tested)
    wanted, drawn = torch.rand(3), np.random.rand()  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    found = diagnose(network, digits(20), 1e-6)
    assert torch.equal(torch.rand(3), wanted)
    assert np.random.rand() == drawn  # noqa: NPY002
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(network.parameters(), gradients, strict=True))
    assert all(layer.training for layer in network.modules())
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert {"BatchNorm at rest", "Dropout off"} <= set(titles(found))


def test_the_same_call_gives_the_same_diagnosis():
    assert diagnose(mlp(), digits(), trial_steps=4) == diagnose(mlp(), digits(), trial_steps=4)


def frozen() -> nn.Module:
    return mlp().requires_grad_(False)


def with_nan() -> nn.Module:
    network = mlp()
    with torch.no_grad():
        network[2].weight[3, 4] = math.nan
    return network


def overflowing() -> nn.Module:
    network = mlp().double()
    with torch.no_grad():
        network[4].weight.fill_(1e308)
    return network


class Random(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 1)

    def forward(self, x):
        return torch.nn.functional.dropout(self.layer(x), 0.5, training=True)


class Failing(Random):
    def forward(self, x):
        raise KeyError("nothing here")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (frozen, "module has no trainable parameter"),
        (with_nan, r"module has NaN or infinity in '2.weight' \(1 of 4096 entries\)"),
        (overflowing, "module gives NaN or infinity"),
        (Random, "module gives other outputs when it runs again"),
        (Failing, r"module fails on \(2, 64\) rows of the data \(KeyError: 'nothing here'\)"),
        (lambda: mlp(inputs=63), r"module fails on \(2, 64\)"),
        (lambda: mlp(outputs=3), "data has 1 target a row, but the module gives 3 outputs"),
        (lambda: nn.BatchNorm1d(64, track_running_stats=False), "data has 1 target a row|mixes samples"),
        (lambda: nn.Sequential(nn.LazyLinear(1)), "not initialised"),
    ],
)
def test_what_is_refused_in_one_line(network, message):
    with pytest.raises(ArgumentError, match=message) as caught:
        diagnose(network(), digits(10))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("step", [0, -1.0, math.nan, math.inf, True])
def test_a_step_that_is_none(step):
    with pytest.raises(ArgumentError, match="step is"):
        diagnose(mlp(), digits(10), step)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0}, "budget is 0"),
        ({"trial_steps": 0}, "trial_steps is 0"),
        ({"loss": "squred"}, "did you mean 'squared'"),
        ({"build": mlp}, "width is None"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ArgumentError, match=message):
        diagnose(mlp(), digits(10), **options)


def test_one_row():
    found = diagnose(mlp(5), Dataset(rows(1, 5), [[1.0]]))
    assert found.rows == 1
    assert found.slowest_samples == (0,)
    assert not titles(found, Severity.CRITICAL, Severity.SERIOUS)
    assert math.isinf(found.separation)


def test_a_network_without_any_gradient():
    network = mlp()
    with torch.no_grad():
        for p in network.parameters():
            p.zero_()
    network[4].bias.requires_grad_(False)
    found = diagnose(network, digits(), 0.1)
    assert "Zero gradient" in found.headline
    assert math.isinf(found.stable_step)
    assert found.recommended_step is None
    assert found.regime is Regime.UNDETERMINED
    assert set(found.predicted_steps.values()) == {None}
    assert found.text


def test_a_head_at_zero_is_asleep_not_dead():
    network = mlp()
    with torch.no_grad():
        network[4].weight.zero_()
    found = diagnose(network, digits())
    assert "Asleep at the start" in titles(found)
    assert not {"Dead layer", "Layers without gradient"} & set(titles(found))


def test_a_loss_of_zero():
    network, data = mlp(5).double(), small()
    with torch.no_grad():
        fitted = Dataset(data.x, network(data.x))
    found = diagnose(network, fitted)
    assert "Fitted" in titles(found)
    assert found.slowest_samples == ()
    assert found.predicted_steps[1e-8] == 0


def test_too_few_parameters():
    found = diagnose(nn.Linear(5, 1), small(20))
    assert titles(found)[0] == "Too few parameters"
    assert "Out of reach" in titles(found)
    assert found.smallest == 0


def test_saturated_units():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 30), nn.Tanh(), nn.Linear(30, 1))
    assert "Saturated units" not in titles(diagnose(network, digits()))
    with torch.no_grad():
        network[0].bias[:20].fill_(30.0)
    found = diagnose(network, digits())
    assert "20 of 30 units of '1' (Tanh) are saturated" in found.text
    assert "Saturated units" in titles(found, Severity.SERIOUS)


def test_dead_units_are_counted():
    network = mlp()
    before = {layer.name: layer.dead for layer in diagnose(network, digits()).layers}
    with torch.no_grad():
        network[2].bias[:40].fill_(-100.0)
    found = diagnose(network, digits())
    assert {layer.name: layer.dead for layer in found.layers}["2"] >= 40 > before["2"]
    assert "Dead units" in titles(found, Severity.SERIOUS)
    assert "Dead layer" not in titles(found)


def test_some_rows_of_many():
    data = digits(120)
    network = fully_connected(64, 64, 1)
    whole, part = diagnose(network, data, trial_steps=4), diagnose(network, data, trial_steps=4, budget=60)
    assert (part.measured, part.rows) == (60, 120)
    assert "Some rows only" in titles(part)
    assert part.stable_step == pytest.approx(whole.stable_step, rel=1e-3)  # over all rows, by Lanczos
    assert part.first_loss == pytest.approx(whole.first_loss, rel=0.3)
    assert set(part.slowest_samples) <= set(range(120))
    assert part.headline.startswith("Nothing to mend was found")


@pytest.mark.parametrize("loss", ["cross_entropy", "log_cosh"])
def test_other_losses(loss):
    data = digits(30, None)
    network = mlp(outputs=10)
    found = diagnose(network, data, loss=loss, trial_steps=8)
    smoothness = {"cross_entropy": 0.5, "log_cosh": 1.0}[loss]
    assert found.stable_step == pytest.approx(2 / (smoothness * found.largest))
    assert loss in found.text
    assert ("Loss" in titles(found)) == (loss != "squared")
    assert found.predicted_steps[1e-1] is None or found.predicted_steps[1e-1] > 0


def test_targets_that_a_loss_does_not_cover():
    with pytest.raises(ArgumentError, match="cross_entropy"):
        diagnose(mlp(), digits(10), loss="cross_entropy")


def test_images_and_rows_are_turned_into_each_other():
    data = digits(20)
    assert (
        diagnose(convolutional(), data, trial_steps=4).stable_step
        == diagnose(convolutional(), data.as_images(), trial_steps=4).stable_step
    )
    assert diagnose(mlp(), data.as_images(), trial_steps=4).stable_step == diagnose(mlp(), data, trial_steps=4).stable_step


def test_a_wide_network_is_lazy_and_its_forecast_holds():
    data = digits()
    network = fully_connected(64, 2048, 1)
    found = diagnose(network, data)
    assert found.regime is Regime.LAZY
    run = descend(network, data, step=found.forecast_step, until=1e-3)
    for ratio in (1e-1, 1e-2, 1e-3):
        seen = next(k for k, loss in enumerate(run.loss.tolist()) if loss <= ratio * float(run.loss[0]))
        low, high = found.step_intervals[ratio]
        assert low <= seen <= high
        assert found.predicted_steps[ratio] == pytest.approx(seen, rel=0.2, abs=1)


def test_a_narrow_network_is_rich_and_the_diagnosis_says_that_its_forecast_fails():
    found = diagnose(mlp(width=32), digits())
    assert found.regime is Regime.RICH
    assert "cannot be trusted" in found.text


def test_a_network_that_looks_lazy_while_its_large_directions_are_fitted():
    torch.manual_seed(0)  # a hundredth of the loss comes some 70 times sooner than the initial Gram says
    found = diagnose(nn.Sequential(nn.Linear(13, 128), nn.Tanh(), nn.Linear(128, 3)), load("wine"))
    assert found.movement.drift_per_gain < 0.25
    assert found.movement.miss < 0.25
    assert found.movement.ahead > 1
    assert found.regime is Regime.RICH
    assert "cannot be trusted" in found.text


def test_the_stable_step_is_the_largest_eigenvalues():
    data, network = digits(), RowTransformer()
    found = diagnose(network, data)
    largest = largest_eigenvalue(tangent_operator(network.double().eval(), data.x))
    assert found.stable_step == pytest.approx(2 / largest, rel=1e-6)


class Tokens(nn.Module):
    """Numbers of grey levels as tokens."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.embedding = nn.Embedding(17, width)
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, dropout=0.1, batch_first=True)
        self.head = nn.Linear(width, 1)

    def forward(self, x):
        h = self.norm(self.embedding(x))
        h = h + self.attention(h, h, h, need_weights=False)[0]
        return self.head(h.mean(dim=1))


def test_a_transformer_on_tokens():
    data = load("digits", n=20, classes=(3, 8), normalise="none")
    whole = Dataset((data.x * (16 if data.x.max() <= 1 else 1)).round(), data.y)
    torch.manual_seed(0)
    found = diagnose(Tokens(), whole, build=Tokens, width=8)
    assert {"embedding", "norm", "attention", "head"} <= {layer.name for layer in found.layers if layer.gradient > 0}
    assert "Dropout off" in titles(found)
    assert found.width is not None
    with pytest.raises(ArgumentError, match="module fails"):
        diagnose(Tokens(), Dataset(whole.x + 0.5, whole.y))


def test_a_module_that_mixes_samples():
    class Mixing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 1)

        def forward(self, x):
            return self.layer(x - x.mean(dim=0))

    with pytest.raises(ArgumentError, match="mixes samples"):
        diagnose(Mixing(), small())


@pytest.mark.parametrize("make", [lambda m: fully_connected(5, m, 1), lambda m: resnet(5, m, 2, scheme="du", activation="erf")])
def test_width_advice_for_a_builders_network(make):
    found = diagnose(make(32), small())
    assert found.width is not None
    assert found.width.widths[-1] == 64
    assert "at infinite width" in found.text or "no positive limit" in found.text
    assert found.width.smallest[0] < found.width.smallest[-1]


def test_width_advice_for_a_function_of_width():
    found = diagnose(mlp(5, 32), small(), build=lambda width: mlp(5, width), width=32)
    assert found.width is not None
    assert found.width.own == 32
    without = diagnose(mlp(5, 32), small())
    assert without.width is None
    assert "The width cannot be varied" in without.text
    wrong = diagnose(mlp(5, 32), small(), build=lambda width: width, width=32)
    assert wrong.width is None
    assert "The width was not varied: build gives int at width" in wrong.text

    def build(width):
        if width % 32:
            raise ValueError("heads must divide")
        return mlp(5, width)

    assert "build fails at width 8 (heads must divide)" in diagnose(mlp(5, 32), small(), build=build, width=32).text


def test_inside_no_grad():
    with torch.no_grad():
        assert diagnose(mlp(5), small(), trial_steps=4).largest > 0


def test_numbers_stand_behind_every_sentence():
    found = diagnose(mlp(), digits(), 0.001)
    assert all(any(c.isdigit() for c in f.sentence) for f in found.findings if f.title != "Width")
    assert [f.severity.rank for f in found.findings] == sorted(f.severity.rank for f in found.findings)
    assert len(found.text.splitlines()) < 40

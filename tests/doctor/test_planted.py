"""Every planted fault is named in the first lines, and a healthy network has none of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.doctor.patients import RowTransformer, convolutional, digits, first_lines, mlp, titles, with_row_again
from zeroloss import diagnose, fully_connected
from zeroloss.doctor import Severity, StepVerdict

FAULTS = ("Conflicting labels", "Dead layer", "Step too large", "Duplicated rows")
NETWORKS = {
    "builder": lambda: fully_connected(64, 128, 1),
    "mlp": mlp,
    "cnn": convolutional,
    "transformer": RowTransformer,
}


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param]()


def test_a_healthy_network_has_none_of_them(network):
    data = digits()
    found = diagnose(network, data, trial_steps=8)
    step = found.recommended_step
    again = diagnose(network, data, step, trial_steps=8)
    for result in (found, again):
        assert result.headline.startswith("Nothing to mend was found"), result.text
        assert not set(FAULTS) & set(titles(result))
        assert not titles(result, Severity.CRITICAL, Severity.SERIOUS)
    assert again.verdict is StepVerdict.STABLE


def test_a_conflict(network):
    data = digits()
    planted = with_row_again(data, 3, -data.y[3:4])
    found = diagnose(network, planted, trial_steps=8)
    assert titles(found)[0] == "Conflicting labels"
    assert "Rows 3 and 40 are identical" in first_lines(found, 4)
    assert found.conflicts[0].rows == (3, 40)
    assert found.loss_floor == pytest.approx(1.0)
    assert found.predicted_steps[1e-8] is None
    assert {3, 40} <= set(found.slowest_samples)


def test_a_duplicated_row(network):
    data = digits()
    found = diagnose(network, with_row_again(data, 5, data.y[5:6]), trial_steps=8)
    assert titles(found)[0] == "Duplicated rows"
    assert "rows 5 and 40" in first_lines(found, 4)
    assert "Conflicting labels" not in titles(found)
    assert found.duplicates == ((5, 40),)
    assert found.predicted_steps[1e-1] is not None
    assert "Out of reach" not in titles(found)


@pytest.mark.parametrize(("times", "verdict"), [(1.5, StepVerdict.CATAPULT), (3.0, StepVerdict.UNSTABLE)])
def test_a_step_too_large(network, times, verdict):
    data = digits()
    stable = diagnose(network, data, trial_steps=4).stable_step
    found = diagnose(network, data, times * stable, trial_steps=4)
    assert titles(found)[0] == "Step too large"
    assert f"{times:g} times the stable step" in first_lines(found, 4)
    assert found.verdict is verdict
    assert found.forecast_step == found.recommended_step < stable


def test_a_step_three_times_too_large_for_descent_at_one_over_the_largest_eigenvalue():
    data = digits()
    network = mlp()
    found = diagnose(network, data, 3 / diagnose(network, data).largest)
    assert "Step too large" in first_lines(found, 1)


def test_a_step_that_is_too_large_once_the_network_has_sharpened():
    data = digits()
    network = mlp(width=512)
    found = diagnose(network, data)
    assert found.movement.largest > 1.3 * found.largest
    again = diagnose(network, data, 1.9 / found.movement.largest)
    assert "Step too large" not in titles(again)
    again = diagnose(network, data, 0.95 * found.stable_step)
    assert again.verdict is StepVerdict.STABLE
    assert "Step too large" in titles(again, Severity.SERIOUS)


def test_a_dead_layer():
    network = mlp()
    with torch.no_grad():
        network[2].bias.fill_(-100.0)
    found = diagnose(network, digits())
    assert titles(found)[0] == "Dead layer"
    assert "Layer '2' (Linear) is dead: all 64 units" in first_lines(found, 4)
    assert "'0'" in first_lines(found, 4)  # which is starved by it
    by_name = {layer.name: layer for layer in found.layers}
    assert by_name["0"].gradient == by_name["2"].gradient == 0.0
    assert by_name["4"].gradient == pytest.approx(1.0)


def test_a_dead_convolution():
    network = convolutional()
    with torch.no_grad():
        network[0].bias.fill_(-100.0)
    found = diagnose(network, digits())
    assert "Layer '0' (Conv2d) is dead: all 8 units" in first_lines(found, 4)


def test_a_dead_layer_whose_activation_is_a_function():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second, self.last = nn.Linear(64, 20), nn.Linear(20, 20), nn.Linear(20, 1)

        def forward(self, x):
            h = torch.relu(self.first(x))
            return self.last(h + torch.relu(self.second(h)))

    network = Functional()
    assert "Dead layer" not in titles(diagnose(network, digits()))
    with torch.no_grad():
        network.second.bias.fill_(-100.0)
    found = diagnose(network, digits())
    assert "Layer 'second' (Linear) is dead" in first_lines(found, 4)
    assert {layer.name for layer in found.layers if layer.gradient == 0} == {"second"}


def test_all_faults_at_once_are_named_on_the_first_line():
    data = digits()
    planted = with_row_again(with_row_again(data, 3, -data.y[3:4]), 7, data.y[7:8])
    network = mlp()
    with torch.no_grad():
        network[0].bias.fill_(-100.0)
    stable = diagnose(network, planted).stable_step
    line = first_lines(diagnose(network, planted, 3 * stable), 1)
    for fault in FAULTS:
        assert fault in line


def test_many_outputs():
    data = digits(50, None)
    target = data.y[4:5].roll(1, dims=1)
    found = diagnose(mlp(outputs=10), with_row_again(data, 4, target), trial_steps=4)
    assert found.outputs == 10
    assert titles(found)[0] == "Conflicting labels"
    assert "Rows 4 and 50" in first_lines(found, 4)
    assert {4, 50} <= set(found.slowest_samples)

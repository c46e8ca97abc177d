"""Whose checkpoint it is, what is left of a damaged one, and runs that only look finished."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from tests.cases import rows
from zeroloss import Dataset, descend, fully_connected
from zeroloss.errors import ArgumentError, FileError
from zeroloss.training import theory_step

DATA = Dataset(rows(6, 4), [1.0, -1.0, 1.0, 1.0, -1.0, 1.0])


def du(activation: str = "erf") -> nn.Module:
    return fully_connected(4, 16, 2, scheme="du", activation=activation)


def test_another_activation_is_another_run(tmp_path):
    """Under DU's scheme all networks of one shape have the same weights: the layers between them tell the runs apart."""
    path = tmp_path / "run.safetensors"
    descend(du(), DATA, step=0.01, max_steps=20, checkpoint=path)
    with pytest.raises(FileError, match="belongs to a run with other weights"):
        descend(du("tanh"), DATA, step=0.01, max_steps=20, checkpoint=path)


@pytest.mark.parametrize("harm", ["mark", "velocity", "rows", "loss", "empty"])
def test_a_damaged_checkpoint_is_named(harm, tmp_path):
    path = tmp_path / "run.safetensors"

    def run(steps: int) -> None:
        descend(du(), DATA, step=0.01, batch=2, momentum=0.5, max_steps=steps, checkpoint=path, seed=1)

    run(7)
    with safe_open(path, framework="pt") as file:
        header, tensors = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if harm == "mark":
        del header["mark"]
    elif harm == "velocity":
        tensors = {name: t for name, t in tensors.items() if "velocity" not in name}
    elif harm == "rows":
        tensors = {name: t[:1].clone() if name.startswith("weights:") else t for name, t in tensors.items()}
    elif harm == "loss":
        tensors["loss"] = tensors["loss"][:1].clone()
    else:
        tensors |= {name: tensors[name][:0].clone() for name in ("steps", "loss", "accuracy")}
    save_file(tensors, path, header)
    with pytest.raises(FileError, match=r"is damaged|belongs to"):
        run(30)


def test_a_larger_budget_ends_where_an_uninterrupted_run_does(tmp_path):
    """A budget that ends within an epoch records a loss there; the target may be met there, but the long run does not look."""
    path = tmp_path / "run.safetensors"

    def run(steps: int, checkpoint=None):
        return descend(du(), DATA, step=0.005, batch=1, max_steps=steps, until=0.9, seed=3, checkpoint=checkpoint)

    whole = run(60)
    run(4, path)
    resumed = run(60, path)
    assert torch.equal(whole.steps, resumed.steps)
    assert torch.equal(whole.loss, resumed.loss)


def test_a_gradient_that_vanishes_over_all_rows_does_not_stop_single_ones():
    layer = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(layer.weight)
    run = descend(layer, Dataset([[1.0], [1.0]], [1.0, -1.0]), batch=2, replacement=True, step=0.1, max_steps=20, seed=1)
    assert run.taken == 20


class Twice(nn.Module):
    """A weight used by its layer and by a function, behind a head that starts at zero and hides both."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(4, 16, bias=False), nn.Linear(16, 1, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.hidden(x)) + torch.tanh(functional.linear(x, 2 * self.hidden.weight)))


def test_a_head_that_starts_at_zero_hides_nothing():
    torch.manual_seed(0)
    ours = Twice().double()
    plain = Twice().double()
    plain.load_state_dict(ours.state_dict())
    descend(ours, DATA, step=0.05, max_steps=30, until=0.0)
    for _ in range(30):
        loss = 0.5 * (plain(DATA.x) - DATA.y).square().sum()
        for p, g in zip(plain.parameters(), torch.autograd.grad(loss, list(plain.parameters())), strict=True):
            p.data -= 0.05 * g
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-10)


def test_the_theorems_step_is_small_at_unequal_widths_too():
    data = Dataset(torch.eye(2, dtype=torch.float64), [1.0, -1.0])
    net = fully_connected(2, (2, 4000), 1)
    run = descend(net, data, step="theory", max_steps=5, until=0.0)
    assert theory_step(net, data) < 1e-4
    assert float(run.loss[-1]) < float(run.loss[0])


@pytest.mark.parametrize("schedule", [(5, 0.5), None, [10, 20], "half", ((10, 0.5), (5, 0.1)), ((1, 2, 3),)])
def test_mistaken_schedules_take_one_line(schedule):
    with pytest.raises((ArgumentError, TypeError), match="schedule"):
        descend(du(), DATA, step=0.01, max_steps=3, schedule=schedule)


def test_a_schedule_may_be_lists():
    lists = descend(du(), DATA, step=0.01, max_steps=9, until=0.0, schedule=[[3, 0.5]])
    assert torch.equal(lists.loss, descend(du(), DATA, step=0.01, max_steps=9, until=0.0, schedule=((3, 0.5),)).loss)

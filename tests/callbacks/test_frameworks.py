"""The frameworks' callbacks: what they need, what their hooks do, and that nothing is loaded before it is asked for."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from tests.callbacks.loops import LABELS, X, seeded, train
from zeroloss.callbacks import LightningRecorder, Recorder, TrainerRecorder, lightning_recorder, trainer_recorder

SETTINGS = {"loss": "cross_entropy", "rows": 10}


@pytest.fixture
def _installed(monkeypatch):
    """The hooks can be called whether or not the frameworks are here."""
    monkeypatch.setattr(lightning_recorder, "_missing", None)
    monkeypatch.setattr(trainer_recorder, "_missing", None)


def test_importing_loads_neither_framework():
    code = (
        "import sys, zeroloss.callbacks as c; c.Recorder; "
        "print([m for m in sys.modules if m.split('.')[0] in ('lightning', 'pytorch_lightning', 'transformers')]); "
        "print(hasattr(c, 'nothing'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "False"]


@pytest.mark.parametrize(
    ("module", "name", "command"),
    [
        (lightning_recorder, "LightningRecorder", "pip install 'zeroloss[lightning]'"),
        (trainer_recorder, "TrainerRecorder", "pip install 'zeroloss[transformers]'"),
    ],
)
def test_what_is_missing_is_named_with_the_command(monkeypatch, module, name, command):
    monkeypatch.setattr(module, "_missing", ImportError("none"))
    with pytest.raises(ImportError) as caught:
        getattr(module, name)((X, LABELS))
    assert str(caught.value).endswith(command)
    assert "\n" not in str(caught.value)


def plain_probes(steps: int = 12) -> tuple[object, ...]:
    net = seeded()
    recorder = Recorder(net, (X, LABELS), 4, **SETTINGS)
    recorder(0)
    train(net, lambda step: recorder(step) if step else None, steps)
    return recorder.probes


@pytest.mark.usefixtures("_installed")
def test_lightnings_hooks_record_what_a_recorder_does(tmp_path):
    net, trainer = seeded(), SimpleNamespace(is_global_zero=True, global_step=0)
    callback = LightningRecorder((X, LABELS), 4, path=tmp_path / "probes", **SETTINGS)
    callback.on_train_start(trainer, net)

    def hook(step: int) -> None:
        trainer.global_step = step
        callback.on_train_batch_end(trainer, net, None, None, step)

    train(net, hook)
    assert callback.recorder.probes == plain_probes()
    callback.on_train_end(trainer, net)
    assert len((tmp_path / "probes").read_text().splitlines()) == 4

    again = LightningRecorder((X, LABELS), 4, **SETTINGS)
    again.load_state_dict(callback.state_dict())
    assert again.state_dict()["probes"] == callback.state_dict()["probes"]
    trainer.global_step = 12
    again.on_train_start(trainer, net)
    assert [probe.step for probe in again.recorder.probes] == [0, 4, 8, 12]
    assert again.recorder.probes[-1].gram_drift > 0  # measured from the first start, not from this one


@pytest.mark.usefixtures("_installed")
def test_the_trainers_hooks_record_what_a_recorder_does(tmp_path):
    net, arguments = seeded(), SimpleNamespace(output_dir=str(tmp_path))
    state = SimpleNamespace(is_world_process_zero=True, global_step=0)
    callback = TrainerRecorder((X, LABELS), 4, **SETTINGS)
    callback.on_train_begin(arguments, state, None, model=net)

    def hook(step: int) -> None:
        state.global_step = step
        callback.on_step_end(arguments, state, None, model=net)

    train(net, hook)
    assert callback.recorder.probes == plain_probes()
    callback.on_save(arguments, state, None)  # a Trainer that was told not to write leaves no folder
    state.global_step = 12
    (tmp_path / "checkpoint-12").mkdir()
    callback.on_save(arguments, state, None)
    again = TrainerRecorder((X, LABELS), 4, path=tmp_path / "last", **SETTINGS)
    again.on_train_begin(arguments, state, None, model=net)
    assert [probe.step for probe in again.recorder.probes] == [0, 4, 8, 12]
    assert again.recorder.probes[-1].gram_drift > 0
    again.on_train_end(arguments, state, None)
    assert (tmp_path / "last").exists()


@pytest.mark.usefixtures("_installed")
def test_only_the_main_process_records():
    callback = LightningRecorder((X, LABELS))
    callback.on_train_start(SimpleNamespace(is_global_zero=False), seeded())
    callback.on_train_batch_end(None, None, None, None, 0)
    callback.on_train_end(None, None)
    other = TrainerRecorder((X, LABELS))
    other.on_train_begin(None, SimpleNamespace(is_world_process_zero=False), None)
    other.on_step_end(None, None, None)
    other.on_save(None, None, None)
    other.on_train_end(None, None, None)
    assert callback.recorder is None is other.recorder
    assert callback.state_dict() == {}


@pytest.mark.usefixtures("_installed")
def test_a_part_of_the_module_can_be_picked():
    whole = torch.nn.ModuleDict({"net": seeded()})
    callback = LightningRecorder((X, LABELS), module=lambda each: each["net"], **SETTINGS)
    callback.on_train_start(SimpleNamespace(is_global_zero=True, global_step=0), whole)
    assert len(callback.recorder.probes) == 1

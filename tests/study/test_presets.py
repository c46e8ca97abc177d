"""Presets and the specifications behind them: every one builds, reads back, and is said on the command line."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from zeroloss.cli import main
from zeroloss.cli.main import _parser
from zeroloss.cli.study import study_of
from zeroloss.data import load
from zeroloss.errors import ArgumentError
from zeroloss.networks import ACTIVATIONS
from zeroloss.study import DataSpec, NetworkSpec, Study, TrainingSpec, run_study, study_from
from zeroloss.study.building import build_for, data_for, load_data
from zeroloss.study.presets import PRESETS, find_preset
from zeroloss.training import LOSSES


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: p.name)
def test_a_preset_builds_and_reads_back(preset):
    import tomllib

    assert study_from(tomllib.loads(preset.study.to_toml())) == preset.study
    data = load_data(preset.study.data)
    for spec in preset.study.networks:
        own = data_for(spec, data)
        net = build_for(dataclasses.replace(spec, width=4), own)
        assert net(own.x).shape == own.y.shape


def test_every_theorem_has_a_preset():
    names = {p.name for p in PRESETS}
    assert len(names) == len(PRESETS)
    assert {f"az-theorem-{i}" for i in (1, 2, 6, 7)} <= names
    assert {f"du-theorem-{i}" for i in ("5.1", "6.1", "7.1")} <= names
    with pytest.raises(ArgumentError, match="did you mean 'az-theorem-6'"):
        find_preset("az-theorem6")


def test_the_list_is_printed_and_nothing_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["study", "--list"]) == 0
    assert "az-theorem-6" in capsys.readouterr().out
    assert main(["study", "--list", "--json"]) == 0
    assert [p["name"] for p in json.loads(capsys.readouterr().out)] == [p.name for p in PRESETS]
    assert list(tmp_path.iterdir()) == []


def words(*flags: str) -> Study:
    return study_of(_parser().parse_args(["study", *flags]))


def test_flags_override_a_preset():
    study = words(
        "--preset", "az-theorem-6", "--width", "8", "--batch", "5", "--loss", "log_cosh", "--kernel", "1", "--labels", "random"
    )
    spec, training = study.networks[0], study.training
    assert (spec.family, spec.width, spec.kernel) == ("cnn", 8, 1)
    assert (training.batch, training.loss, study.data.labels) == (5, "log_cosh", "random")
    assert words("--network", "resnet", "--scheme", "allen-zhu", "--tau", "1/sqrt(L)", "--train", "A,W1").networks[0].options == {
        "tau": "1/sqrt(L)",
        "trained": ("A", "W1"),
    }
    assert words("--network", "conv_resnet", "--data", "cifar10", "-n", "100").data.size == 16
    assert words("--network", "conv_resnet", "--data", "cifar10", "--size", "32").data.size == 32
    assert words("--network", "fully_connected", "--data", "cifar10").data.size is None
    assert words("--preset", "az-theorem-6", "--data", "mnist").data.size == 14
    mixed = words("--network", "fully_connected", "--network", "resnet", "--scheme", "allen-zhu", "--tau", "0.5").networks
    assert [s.tau for s in mixed] == [None, 0.5]


def test_help_names_every_activation_and_loss(capsys):
    with pytest.raises(SystemExit):
        main(["study", "--help"])
    text = capsys.readouterr().out
    assert [name for name in [*ACTIVATIONS, *LOSSES] if name not in text] == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--preset", "az-theorem-9"], "preset is 'az-theorem-9'"),
        (["--preset", "default", "--from", "x.toml"], "start from one of them"),
        (["--network", "cnnn"], "did you mean 'cnn'"),
        (["--loss", "hinge"], "loss is 'hinge'"),
        (["--labels", "wrong"], "labels is 'wrong'"),
        (["--network", "fully_connected", "--tau", "1"], "--tau fits none of the networks"),
        (["--network", "resnet", "--tau", "1"], "--tau fits none of the networks"),
        (["--noise", "0.9"], "add --labels noisy"),
        (["--labels", "noisy", "--noise", "2"], "noise is 2.0"),
        (["--network", "cnn", "--data", "wine"], "not images"),
        (["--network", "cnn", "--train", "W9"], "W9"),
        (["--network", "cnn", "--kernel", "2"], "kernel is 2"),
        (["--data", "wine", "--size", "4"], "size is 4"),
        (["--network", "fully_connected", "--loss", "cross_entropy"], "cross_entropy|one-hot"),
        (["--network", "fully_connected", "--batch", "0"], "batch is 0"),
        (["--network", "fully_connected", "--momentum", "1"], "momentum is 1"),
    ],
)
def test_mistakes_take_one_line(flags, message, tmp_path, capsys):
    import re

    assert main(["study", *flags, "--no-claims", "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert re.search(message, error), error


@pytest.mark.parametrize("family", ["cnn", "conv_resnet"])
def test_a_convolutional_study_runs_and_foretells(family, tmp_path):
    scheme, activation = ("allen-zhu", "relu") if family == "cnn" else ("du", "erf")
    study = Study(
        DataSpec("digits", n=12, classes=(3, 8)),
        (NetworkSpec("net", family, scheme, activation, 128, 2),),
        TrainingSpec(max_steps=2000, until=1e-6, device="cpu"),
        claims=False,
    )
    result = run_study(study, tmp_path / "run").networks[0]
    assert result.status == "CONVERGED"
    assert result.forecast.steps == pytest.approx(result.steps, rel=0.5)
    assert result.accuracy == 1
    assert result.kernel_gap < 0.5


def test_sgd_is_foretold_over_its_own_batches(tmp_path):
    study = Study(
        DataSpec("digits", n=20, classes=(3, 8), labels="random"),
        (NetworkSpec("net", "fully_connected", "allen-zhu", "relu", 512, 2),),
        TrainingSpec(batch=5, max_steps=4000, until=1e-6, device="cpu"),
        claims=False,
    )
    result = run_study(study, tmp_path / "run").networks[0]
    assert result.status == "CONVERGED"
    assert result.forecast.bounded
    assert result.forecast.steps == pytest.approx(result.steps, rel=0.25)
    true = load("digits", n=20, classes=(3, 8))
    assert not torch.equal(load_data(study.data).y, true.y)

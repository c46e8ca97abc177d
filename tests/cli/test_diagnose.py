"""``zeroloss diagnose``: a user's file in, sentences, JSON and a page out; one line for every mistake in it."""

from __future__ import annotations

import json
import re

import pytest

from zeroloss.cli import main

NET = """
from torch import nn
print("a user's own words")
def build(width=16):
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 1))
"""
QUICK = ["--data", "digits", "--classes", "3,8", "-n", "20"]


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(NET)
    return path


def test_sentences_and_page(net, tmp_path, capsys):
    assert main(["diagnose", str(net), *QUICK, "--step", "10", "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "1 thing to mend: Step too large."
    assert "Predicted steps" in out
    page = (tmp_path / "out" / "diagnosis.html").read_text(encoding="utf-8")
    assert "Step too large" in page
    assert page.count("<svg") == 2
    assert page.count("data:image/png;base64,") == 10
    assert not re.search(r"<script|https?://|@import|url\(http", page)
    assert json.loads((tmp_path / "out" / "diagnosis.json").read_text())["verdict"] == "unstable"


def test_json_is_the_result_and_nothing_else(net, capsys):
    assert main(["diagnose", str(net), *QUICK, "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["rows"] == 20
    assert set(table["predicted_steps"]) == {f"1e-0{i}" for i in range(1, 9)}
    assert len(table["slowest_samples"]) == 10
    assert table["regime"] in ("lazy", "rich")
    assert table["width"]["own"] == 16  # the file's build takes a width
    assert table["text"].startswith(table["headline"])


def test_the_seed_draws_the_weights(net, capsys):
    losses = []
    for seed in ("0", "0", "1"):
        assert main(["diagnose", str(net), *QUICK, "--json", "--seed", seed]) == 0
        losses.append(json.loads(capsys.readouterr().out)["first_loss"])
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1 / 0", r"failed in line 1 \(ZeroDivisionError: division by zero\)"),
        ("def build(:", r"is not Python \(line 1"),
        ("import not_there_at_all", r"failed in line 1 \(ModuleNotFoundError"),
        ("raise SystemExit(3)", r"failed in line 1 \(SystemExit: 3\)"),
        ("x = 1", r"defines no function build\(\)"),
        ("build = 3", r"defines no function build\(\)"),
        ("def build():\n    return 3", r"has a build\(\) that gives int"),
        ("def build():\n    raise ValueError('a\\nb')", r"failed in line 2 \(ValueError: a\)"),
        ("def build(width):\n    return 3", r"without a whole number as default"),
        ("from torch import nn\ndef build(): return nn.Linear(3, 1)", r"module fails on \(2, 64\)"),
        (
            "from torch import nn\ndef build(): return nn.Linear(64, 2)",
            r"data has 1 target a row, but the module gives 2 outputs",
        ),
        ("from torch import nn\ndef build(): return nn.ReLU()", r"module has no trainable parameter"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(tmp_path, capsys, code, message):
    path = tmp_path / "net.py"
    path.write_text(code)
    assert main(["diagnose", str(path), *QUICK]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert len(error.strip().splitlines()) == 1
    assert error.startswith("zeroloss diagnose: ")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--step", "-1"], "step is -1.0"),
        (["--step", "nan"], "step is nan"),
        (["--loss", "squred"], "did you mean 'squared'"),
        (["--budget", "0"], "budget is 0"),
    ],
)
def test_a_mistake_in_a_flag_is_one_line(net, capsys, flags, message):
    assert main(["diagnose", str(net), *QUICK, *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len([line for line in error.splitlines() if "user's own words" not in line]) == 1


def test_a_missing_file(capsys):
    assert main(["diagnose", "nowhere.py", *QUICK]) == 2
    assert "nowhere.py: is not there" in capsys.readouterr().err


def test_help_says_that_the_file_is_executed(capsys):
    with pytest.raises(SystemExit):
        main(["diagnose", "--help"])
    assert "name only code you trust" in " ".join(capsys.readouterr().out.split())


def test_an_interruption_promises_nothing(capsys, monkeypatch, tmp_path):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("zeroloss.cli.diagnose.read_build", stop)
    assert main(["diagnose", str(tmp_path / "net.py"), "--data", "iris"]) == 130
    assert "the same command starts afresh" in capsys.readouterr().err

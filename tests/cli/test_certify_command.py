"""``zeroloss certify``: proved and saved, refused with exit code 1, a mistake with 2."""

from __future__ import annotations

import json

import pytest

from zeroloss.cli import main

SMALL = ("certify", "digits", "-n", "12", "--classes", "3,8", "--width", "48", "--depth", "1")


def test_proved_and_saved(tmp_path, capsys):
    assert main([*SMALL, "--out", str(tmp_path / "proof.json")]) == 0
    out = capsys.readouterr().out
    assert "PROVED" in out
    assert (tmp_path / "proof.json").exists()
    assert (tmp_path / "proof.safetensors").exists()


def test_json_has_the_output_to_itself(capsys):
    assert main([*SMALL, "--activation", "tanh", "--method", "gd", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["status"] == "PROVED"
    assert found["theorems"]["gd"]["holds"]
    assert 0 < found["rate"] < 1
    assert found["polish"]["residual"] < 1e-10


def test_refused_is_exit_code_one(capsys):
    assert main([*SMALL, "--max-steps", "0", "--no-polish"]) == 1
    assert "REFUSED" in capsys.readouterr().out


def test_a_module_of_ones_own(tmp_path, capsys):
    file = tmp_path / "mine.py"
    net = "nn.Sequential(nn.Linear(64, 40), nn.Tanh(), nn.Linear(40, 1)).double()"
    file.write_text(f"from torch import nn\ndef build():\n    return {net}\n")
    assert main(["certify", "digits", "-n", "8", "--classes", "3,8", "--module", str(file)]) == 0
    assert "PROVED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"), [(None, "is not there"), ("build = 3\n", "no function build()"), ("1 / 0\n", "ZeroDivisionError")]
)
def test_a_module_that_is_none(tmp_path, capsys, content, words):
    file = tmp_path / "mine.py"
    if content is not None:
        file.write_text(content)
    assert main(["certify", "digits", "-n", "8", "--classes", "3,8", "--module", str(file)]) == 2
    assert words in capsys.readouterr().err


def test_an_unknown_method(capsys):
    assert main([*SMALL, "--max-steps", "0", "--method", "magic"]) == 2
    assert "method" in capsys.readouterr().err

"""The command line: what a user types, what comes back, and one line for every mistake."""

from __future__ import annotations

import json

import numpy as np
import pytest

from zeroloss.cli import main
from zeroloss.cli.main import _parser
from zeroloss.cli.study import study_of

QUICK = [
    "--data",
    "digits",
    "--classes",
    "3,8",
    "-n",
    "12",
    "--network",
    "fully_connected",
    "--width",
    "64",
    "--depth",
    "1",
    "--no-claims",
]


def words(*flags: str):
    return study_of(_parser().parse_args(["study", *flags]))


def test_study_json_is_the_result_and_nothing_else(tmp_path, capsys):
    assert main(["study", *QUICK, "--out", str(tmp_path / "run"), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["networks"][0]["status"] == "CONVERGED"
    assert (tmp_path / "run" / "report.html").exists()
    assert main(["report", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"].endswith("report.html")


def test_study_prints_forecast_table_and_summary(tmp_path, capsys):
    assert main(["study", *QUICK, "--out", str(tmp_path / "run")]) == 0
    text = capsys.readouterr().out
    for part in ("forecast", "steps to the target", "CONVERGED", "Report:"):
        assert part in text
    assert "warning" not in text.lower()


def test_forecast_trains_nothing_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["study", *QUICK, "--forecast"]) == 0
    assert "steps to the target" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_flags_make_the_study_they_say():
    study = words(*QUICK, "--step", "0.5", "--until", "1e-4", "--dtype", "float64", "--seed", "7", "--normalise", "sphere")
    assert (study.data.source, study.data.n, study.data.classes, study.data.normalise) == ("digits", 12, (3, 8), "sphere")
    assert (study.training.step, study.training.until, study.training.dtype) == (0.5, 1e-4, "float64")
    assert [(s.name, s.width, s.depth, s.seed) for s in study.networks] == [("AZ fully connected, ReLU", 64, 1, 7)]
    assert study.data.seed == 7
    assert not study.claims
    two = words("--network", "resnet", "--network", "fully_connected", "--scheme", "du", "--activation", "gelu")
    assert [(s.family, s.scheme, s.activation) for s in two.networks] == [
        ("resnet", "du", "gelu"),
        ("fully_connected", "du", "gelu"),
    ]
    assert words("--data", "iris").data.classes is None
    assert words("--data", "iris").data.n is None
    assert words("--classes", "all").data.classes is None


def test_a_file_and_a_flag(tmp_path):
    (tmp_path / "s.toml").write_text('[data]\nsource = "iris"\nn = 9\n[[networks]]\nname = "one"\nwidth = 32\n')
    study = words("--from", str(tmp_path / "s.toml"), "-n", "6")
    assert (study.data.source, study.data.n, study.networks[0].width) == ("iris", 6, 32)


def test_claims_and_data(capsys):
    assert main(["claims", "--list", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 17
    assert main(["claims", "AZ-00", "AZ-01", "--json"]) == 0
    assert [v["status"] for v in json.loads(capsys.readouterr().out)] == ["HOLDS", "HOLDS"]
    assert main(["claims", "AZ-01"]) == 0
    assert "HOLDS" in capsys.readouterr().out
    assert main(["data", "iris"]) == 0
    assert "identical inputs" in capsys.readouterr().out
    assert main(["data", "digits", "-n", "10", "--classes", "3,8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == [5, 5]


def test_a_violated_claim_is_exit_code_one(capsys, monkeypatch):
    from zeroloss.claims import Judgement, Verdict

    bad = Verdict("AZ-01", Judgement.VIOLATED, 1.0, 0.0, None, "a planted violation")
    monkeypatch.setattr("zeroloss.cli.inspect.check", lambda *_: bad)
    assert main(["claims", "AZ-01"]) == 1
    assert "VIOLATED" in capsys.readouterr().out


def test_every_help_has_an_example(capsys):
    for command in ("study", "claims", "data", "report"):
        with pytest.raises(SystemExit) as end:
            main([command, "--help"])
        assert end.value.code == 0
        text = capsys.readouterr().out
        assert f"Example: zeroloss {command}" in text
        assert "--json" in text


@pytest.fixture
def files(tmp_path):
    good = np.random.default_rng(0).standard_normal((6, 3))
    np.savez(tmp_path / "good.npz", x=good, y=np.arange(6) % 2)
    np.savez(tmp_path / "nan.npz", x=np.where(good == good[2, 1], np.nan, good), y=np.arange(6) % 2)
    np.savez(tmp_path / "empty.npz", x=np.zeros((0, 3)), y=np.zeros(0, dtype=int))
    np.savez(tmp_path / "zero.npz", x=np.vstack([good[:5], np.zeros(3)]), y=np.arange(6) % 2)
    np.savez(tmp_path / "one.npz", x=good[:1], y=np.array([1.0]))
    np.savez(tmp_path / "short.npz", x=good, y=np.arange(5) % 2)
    np.savez(tmp_path / "object.npz", x=np.array([{}, {}, {}]), y=np.arange(3))
    (tmp_path / "truncated.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:200])
    (tmp_path / "ragged.csv").write_text("1,2,a\n1,b\n")
    return tmp_path


@pytest.mark.parametrize(
    "flags",
    [
        ["--data", "digitz"],
        ["--data", "nothing.npz"],
        ["--data", "nan.npz"],
        ["--data", "empty.npz"],
        ["--data", "zero.npz", "--normalise", "sphere"],
        ["--data", "one.npz"],
        ["--data", "short.npz"],
        ["--data", "object.npz"],
        ["--data", "truncated.npz"],
        ["--data", "ragged.csv"],
        ["-n", "0"],
        ["-n", "1"],
        ["-n", "1000000"],
        ["-n", "ten"],
        ["--classes", "3,x"],
        ["--classes", "3"],
        ["--classes", ""],
        ["--normalise", "cube"],
        ["--network", "transformer"],
        ["--scheme", "du"],
        ["--activation", "swish!"],
        ["--width", "0"],
        ["--width", "-3"],
        ["--depth", "0"],
        ["--step", "0"],
        ["--step", "nan"],
        ["--step", "quick"],
        ["--until", "2"],
        ["--until", "nan"],
        ["--max-steps", "-1"],
        ["--dtype", "float8"],
        ["--device", "abacus"],
        ["--seed", "x"],
        ["--seed", "99999999999999999999999"],
        ["--device", "meta"],
        ["--width", "100000000", "--network", "resnet"],
        ["--from", "missing.toml"],
        ["--frobnicate"],
    ],
    ids=" ".join,
)
def test_every_mistake_is_one_line_and_exit_code_two(flags, files, capsys, monkeypatch):
    monkeypatch.chdir(files)
    before = sorted(p.name for p in files.iterdir())
    try:
        code = main(["study", *flags, "--no-claims"])
    except SystemExit as end:
        code = end.code
    text = capsys.readouterr()
    assert code == 2, text
    lines = text.err.strip().splitlines()
    assert len(lines) == 1, text.err
    assert lines[0].startswith(("zeroloss study: ", "zeroloss: "))
    assert ";" in lines[0]
    assert "Traceback" not in text.err
    assert sorted(p.name for p in files.iterdir() if p.name != "runs") == before


@pytest.mark.parametrize(
    "arguments", [["claims", "XX-1"], ["claims", "AZ-01", "--budget", "huge"], ["data", "x.csv"], ["report", "nowhere"], []]
)
def test_other_commands_too(arguments, capsys):
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_full_disk_is_one_line(tmp_path, capsys, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr("zeroloss.study.run.write_table", full)
    assert main(["study", *QUICK, "--out", str(tmp_path / "run")]) == 2
    assert "No space left on device; free some space" in capsys.readouterr().err


def test_an_interruption_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("zeroloss.study.run.train", stop)
    assert main(["study", *QUICK, "--out", str(tmp_path / "run")]) == 130
    assert "goes on where it was" in capsys.readouterr().err

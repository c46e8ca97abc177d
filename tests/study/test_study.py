"""Studies: specification to result, resuming after kill -9, folders that refuse to be shared, and honest words."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from zeroloss import Study, ZerolossError, check, descend, gram, run_study
from zeroloss.study import DataSpec, NetworkSpec, TrainingSpec, Watch, default_folder, read_result, read_study, study_from
from zeroloss.study.network_run import thin

SMALL = Study(
    DataSpec("digits", n=20, classes=(3, 8)),
    (
        NetworkSpec("az", scheme="allen-zhu", activation="relu", width=128, depth=2),
        NetworkSpec("res", "resnet", width=128, depth=2),
    ),
    TrainingSpec(device="cpu"),
    claims=False,
)


def without_timings(folder: Path) -> dict:
    table = json.loads((folder / "result.json").read_text())
    del table["timings"]
    return table


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "run"
    return run_study(SMALL, folder), folder


def test_a_study_ends_with_what_it_promises(finished):
    result, folder = finished
    assert [n.status for n in result.networks] == ["CONVERGED", "CONVERGED"]
    for n in result.networks:
        assert n.loss_ratio <= 1e-8
        assert n.forecast.within_budget
        assert abs(n.steps / n.forecast.steps - 1) < 0.4  # width 128: the Gram moves
        assert abs(n.steps / n.probes[-2].forecast - 1) < 0.05  # forecast again with the Gram where it then stands
        assert n.curve_steps[0] == 0
        assert n.curve_steps[-1] == n.steps
        assert len(n.limit_spectrum) == len(n.finite_spectrum) == 20
        assert n.explanation.startswith("The loss fell")
    assert "drove all 2 networks" in result.summary
    assert sorted(p.name for p in folder.iterdir()) == [".lock", "checkpoints", "result.json", "study.toml", "trajectories"]
    rows = (folder / "trajectories" / "1-az.csv").read_text().splitlines()
    assert rows[0] == "step,loss,predicted_loss"
    assert len(rows) == result.networks[0].steps + 2


def test_reading_back_gives_the_same_values(finished):
    result, folder = finished
    assert read_result(folder) == result
    assert read_study(folder / "study.toml") == result.study
    assert run_study(SMALL, folder) == result  # finished: read, not trained again


def test_two_runs_agree_timings_aside(finished, tmp_path):
    run_study(SMALL, tmp_path / "again")
    assert without_timings(tmp_path / "again") == without_timings(finished[1])


def test_kill_9_and_the_same_command_give_the_same_result(tmp_path):
    """A real process, really killed, in the middle of its second network; then resumed by the same command."""
    flags = [
        "--data",
        "digits",
        "--classes",
        "3,8",
        "-n",
        "30",
        "--width",
        "256",
        "--max-steps",
        "1500",
        "--until",
        "0",
        "--no-claims",
    ]
    program = (
        "import sys, zeroloss.training.descent as d; d.CHECKPOINT_SECONDS = 0.2\n"
        "from zeroloss.cli import main; sys.exit(main(sys.argv[1:]))"
    )

    def command(folder: Path) -> list[str]:
        return [sys.executable, "-c", program, "study", *flags, "--device", "cpu", "--out", str(folder)]

    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(command(tmp_path / "whole"), check=True, **quiet)
    process = subprocess.Popen(command(tmp_path / "killed"), **quiet)
    second = tmp_path / "killed" / "checkpoints" / "2-du-fully-connected-erf.safetensors"
    until = time.monotonic() + 120
    while not second.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "result.json").exists()
    subprocess.run(command(tmp_path / "killed"), check=True, **quiet)
    assert without_timings(tmp_path / "killed") == without_timings(tmp_path / "whole")


def test_a_hopeless_case_is_foretold_and_reported(tmp_path):
    """Softplus on few features: condition 1e5 and more; the run goes to its budget and says so beside its prediction."""
    study = dataclasses.replace(
        SMALL,
        networks=(NetworkSpec("softplus", activation="softplus", width=64),),
        training=TrainingSpec(max_steps=60, device="cpu"),
    )
    told = []
    result = run_study(study, tmp_path / "run", Watch(prepared=lambda p: told.append(p.foresight.forecast)))
    network = result.networks[0]
    assert network.status == "MAX_STEPS"
    assert network.steps == 60
    assert not told[0].within_budget
    assert told[0].condition > 300
    assert network.loss_ratio == pytest.approx(told[0].loss_ratio, rel=0.3)
    assert "as foretold" in network.explanation
    assert "as foretold" in result.summary


def test_several_classes_and_regression(tmp_path):
    networks = (NetworkSpec("net", width=64, depth=1),)
    for source, outputs in (("iris", 3), ("diabetes", 1)):
        study = Study(DataSpec(source, n=15), networks, TrainingSpec(max_steps=30, device="cpu"), claims=False)
        result = run_study(study, tmp_path / source)
        assert result.data.outputs == outputs
        assert read_result(tmp_path / source) == result
    assert result.data.classes == ()


def test_conflicts_are_reported_with_the_loss_that_stays(tmp_path):
    (tmp_path / "data.csv").write_text("1,2,a\n1,2,b\n0,3,a\n2,2,b\n4,1,a\n")
    data = DataSpec(str(tmp_path / "data.csv"), normalise="sphere")
    study = Study(data, (NetworkSpec("net", width=64, depth=1),), TrainingSpec(max_steps=300, device="cpu"), claims=False)
    result = run_study(study, tmp_path / "run")
    assert result.data.conflicts == ((0, 1),)
    assert result.data.loss_floor == pytest.approx(1.0)
    assert "no network can get below a loss of 1" in result.summary
    assert result.networks[0].status == "MAX_STEPS"
    assert result.networks[0].curve_loss[-1] >= 1.0


def test_claims_are_judged_on_the_study(tmp_path):
    study = dataclasses.replace(
        SMALL, claims=True, networks=(NetworkSpec("du", width=512, depth=1),), training=TrainingSpec(device="cpu")
    )
    result = run_study(study, tmp_path / "run")
    judged = {v.claim: v.status.value for v in result.verdicts}
    assert judged.keys() == {"AZ-00", "AZ-01", "AZ-13", "AZ-16", "DU-01", "DU-03", "DU-06", "DU-07", "DU-08", "DU-09"}
    assert "VIOLATED" not in judged.values()
    assert judged["AZ-00"] == judged["AZ-13"] == judged["DU-03"] == "HOLDS"


@pytest.mark.parametrize("claim_id", ["AZ-00", "AZ-01", "AZ-02", "AZ-27", "DU-03"])
def test_check_one_claim(claim_id):
    verdict = check(claim_id)
    assert verdict.status == "HOLDS", verdict.reason


@pytest.mark.slow
@pytest.mark.parametrize(
    "claim_id", ["AZ-10", "AZ-13", "AZ-16", "AZ-20", "AZ-28", "DU-01", "DU-02", "DU-06", "DU-07", "DU-08", "DU-09", "DU-11"]
)
def test_check_the_other_claims(claim_id):
    verdict = check(claim_id)
    assert verdict.status == "HOLDS", verdict.reason


def test_folders_are_not_shared(finished, tmp_path):
    _, folder = finished
    other = dataclasses.replace(SMALL, training=TrainingSpec(until=1e-3, device="cpu"))
    with pytest.raises(ZerolossError, match="holds another study; name another folder"):
        run_study(other, folder)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"x")
    with pytest.raises(ZerolossError, match="holds files that are not a study's"):
        run_study(SMALL, tmp_path / "photos")
    with pytest.raises(ZerolossError, match="is a file"):
        run_study(SMALL, tmp_path / "photos" / "cat.png")
    assert os.listdir(tmp_path / "photos") == ["cat.png"]


def test_a_finished_study_is_not_read_back_for_changed_data(tmp_path):
    """A practitioner mends a file and runs the same command: the old answer must not come back."""
    file = tmp_path / "data.csv"
    file.write_text("1,2,a\n1,3,b\n0,3,a\n2,2,b\n")
    networks = (NetworkSpec("net", width=64, depth=1),)
    data = DataSpec(str(file), normalise="sphere")
    study = Study(data, networks, TrainingSpec(max_steps=5, device="cpu"), claims=False)
    run_study(study, tmp_path / "run")
    file.write_text("1,2,a\n1,3,b\n0,3,a\n2,2,a\n")
    with pytest.raises(ZerolossError, match="holds a study of other data"):
        run_study(study, tmp_path / "run")


@pytest.mark.parametrize("text", ["1,2,0\n2,5,1\n", "1,a\n2,b\n3,a\n", "1,2,a\n1,2,a\n0,3,b\n"])
@pytest.mark.parametrize("width", [1, 64])
def test_small_and_singular_data_end_in_words_not_in_a_traceback(text, width, tmp_path):
    """Two antipodal rows, one feature, duplicates, dead networks of width 1: a status and an explanation for each."""
    (tmp_path / "data.csv").write_text(text)
    networks = (
        NetworkSpec("az", scheme="allen-zhu", activation="relu", width=width, depth=1),
        NetworkSpec("du", width=width, depth=1),
        NetworkSpec("res", "resnet", width=width),
    )
    study = Study(
        DataSpec(str(tmp_path / "data.csv"), normalise="sphere"), networks, TrainingSpec(max_steps=40, device="cpu"), claims=False
    )
    result = run_study(study, tmp_path / "run")
    assert len(result.networks) == 3
    for n in result.networks:
        assert n.explanation
        assert "nan" not in n.explanation
        assert not re.search(r"-\d{4,}", n.explanation)
    assert read_result(tmp_path / "run").networks[0].status == result.networks[0].status


def test_experiments_measure_what_they_say(tmp_path):
    """The sweeps' quantities on one small network, against their definitions."""
    from zeroloss import limit_kernel, load
    from zeroloss.study.building import build
    from zeroloss.study.experiments import kernels, pairs, widths
    from zeroloss.study.network_run import prepare
    from zeroloss.study.setting import SEEDS, Setting

    data = load("digits", n=20, classes=(3, 8))
    spec = NetworkSpec("du", width=48, depth=2)
    setting = Setting(data, (spec,), ())
    few = setting.few
    net = build(spec, 64, 1)
    hidden = limit_kernel(net, "last-hidden")(data.x)
    smallest = float(torch.linalg.eigvalsh(hidden)[0])
    assert pairs(setting)[0].value == pytest.approx(smallest, rel=1e-9)
    assert pairs(setting)[0].trace == pytest.approx(float(hidden.trace()))
    assert prepare(spec, data, TrainingSpec(device="cpu")).last_hidden_limit == pytest.approx(smallest, rel=1e-9)

    sweep = widths(setting)[0]
    point = next(p for p in sweep.points if (p.at, p.seed) == (48, 0))
    twin, start = build(spec, 64, 1), build(spec, 64, 1)
    run = descend(twin, few, max_steps=32, until=0.0)
    norm = float((2 * run.loss[0]).sqrt())
    moved = [(b - a).detach() for a, b in zip(start.parameters(), twin.parameters(), strict=True)]
    # drifts grow along this run, so their supremum is at its end
    assert point.values["weight_drift"] == pytest.approx(
        max(float(torch.linalg.matrix_norm(m, 2)) for m in moved) / norm, rel=1e-4
    )
    assert point.values["scaled_drift"] == pytest.approx(max(float(m.norm()) for m in moved) / (48**0.5 * norm), rel=1e-4)
    assert 0 < sweep.facts["smallest_kept"] < 1.2
    # every seed's network at the widest keeps at least this share, so it is a minimum and not a maximum
    gaps = kernels(setting)[0]
    mean = torch.stack([gram(build(NetworkSpec("du", width=1536, depth=2, seed=s), 64, 1), few.x) for s in range(SEEDS)]).mean(0)
    limit = limit_kernel(build(NetworkSpec("du", width=1536, depth=2), 64, 1))(few.x)
    assert gaps.facts["mean_gap"] == pytest.approx(float((mean - limit).norm() / limit.norm()), rel=1e-6)


def test_two_at_once_in_one_folder_are_refused(tmp_path):
    from zeroloss.study.folder import claim_folder

    lock = claim_folder(tmp_path / "run", SMALL)
    try:
        with pytest.raises(ZerolossError, match="in use by another run"):
            claim_folder(tmp_path / "run", SMALL)
    finally:
        lock.release()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"dta": {}}, "study field is 'dta', which is not known; did you mean 'data'"),
        ({"data": {"rows": 3}}, "data field is 'rows'"),
        ({"data": {"n": "ten"}}, "data.n is 'ten'; write a int"),
        ({"data": 3}, r"data is int; write it as a \[data\] table"),
        ({"networks": []}, "networks is empty"),
        ({"networks": [{"width": 3}]}, "has a network without a name"),
        ({"networks": [{"name": "a"}, {"name": "a"}]}, "has two called 'a'"),
        ({"networks": [{"name": "a", "activation": "relo"}]}, "did you mean 'relu'"),
        ({"networks": [{"name": "a", "width": 2.5}]}, "networks.width is 2.5"),
        ({"training": {"dtype": "float16"}}, "dtype is 'float16'"),
        ({"claims": "yes"}, "claims is 'yes'"),
    ],
)
def test_specifications_name_what_is_wrong(table, message):
    with pytest.raises(ValueError, match=message):
        study_from(table)


def test_toml_round_trip_and_key(tmp_path):
    study = Study(DataSpec("iris"), (NetworkSpec("a b", width=(8, 9), depth=2),), TrainingSpec(step=0.25))
    (tmp_path / "s.toml").write_text(study.to_toml())
    assert read_study(tmp_path / "s.toml") == study
    assert read_study(tmp_path / "s.toml").key == study.key != Study().key
    assert default_folder(study).name.startswith("iris-")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe = [")
    with pytest.raises(ZerolossError, match=r"bad.toml: (is not TOML|cannot be read)"):
        read_study(tmp_path / "bad.toml")
    with pytest.raises(ZerolossError, match=r"none.toml: cannot be read \(No such file"):
        read_study(tmp_path / "none.toml")


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"study": {}}', b"\xff"])
def test_damaged_results_are_named(tmp_path, damage):
    (tmp_path / "result.json").write_bytes(damage)
    with pytest.raises(ZerolossError, match=r"result.json: is damaged"):
        read_result(tmp_path)


def test_networks_that_do_not_fit_are_named_before_any_step(tmp_path):
    study = dataclasses.replace(SMALL, networks=(NetworkSpec("odd one", width=(3, 4), depth=3),))
    with pytest.raises(ValueError, match="network 'odd one': width has 2 entries"):
        run_study(study, tmp_path / "run")


def test_thin_keeps_both_ends():
    assert thin(1) == [0]
    for count in (2, 17, 5000):
        kept = thin(count)
        assert kept[0] == 0
        assert kept[-1] == count - 1
        assert kept == sorted(set(kept))
        assert len(kept) <= 310
    assert torch.get_default_dtype() == torch.float32

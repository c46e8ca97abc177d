"""The benchmark of planted faults: each is really planted, verdicts follow their rule, and a tool that is not there is a row."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from bench.rivals import OURS, RIVALS, ask, ask_ours, faults, main, verdict

from bench import peer, rivals
from zeroloss import gram


@pytest.fixture(scope="module")
def planted():
    return {fault.name: fault for fault in faults()}


def test_each_fault_is_planted_and_the_control_has_none(planted):
    assert list(planted) == ["none", *rivals.WORDS]
    control = planted["none"]
    assert (control.data.conflicts, control.data.duplicates) == ((), ())
    assert len(planted["conflict"].data.conflicts) == 1
    assert (planted["duplicated row"].data.conflicts, len(planted["duplicated row"].data.duplicates)) == ((), 1)
    for fault in planted.values():
        hidden = fault.module[:4](fault.data.x.float())
        assert bool((hidden == 0).all()) == fault.dead
        largest = torch.linalg.eigvalsh(gram(fault.module, fault.data.x).double())[-1]
        assert fault.stable == pytest.approx(2 / float(largest), rel=1e-4)
    assert planted["step 3× too large"].step == pytest.approx(3 * planted["step 3× too large"].stable)
    assert control.step < control.stable


def test_verdicts_follow_the_rule(planted):
    control, dead, large, conflict = (planted[name] for name in ("none", "dead layer", "step 3× too large", "conflict"))
    assert verdict(control, {"said": "", "stable": control.stable}) == "quiet"
    assert "false alarm: dead layer" in verdict(control, {"said": "", "dead": ["2"]})
    assert "false alarm: step" in verdict(control, {"said": "", "stable": control.step / 2})
    assert verdict(dead, {"said": "", "dead": ["2"]}) == "a figure shows it"
    assert verdict(dead, {"said": "", "dead": []}) == "not seen"
    assert verdict(large, {"said": "", "alarmed": True}) == "a figure shows it"
    assert verdict(large, {"said": "", "stable": large.step / 3}) == "a figure shows it"
    assert verdict(large, {"said": "", "stable": 2 * large.step}) == "not seen"
    assert verdict(large, {"said": "", "suggested": large.stable}) == "a smaller step suggested"
    assert verdict(large, {"said": "", "suggested": 2 * large.step}) == "not seen"
    assert verdict(control, {"said": "", "suggested": control.step / 2}) == "quiet"
    assert verdict(conflict, {"said": "", "words": ["Rows 0 and 60 have conflicting labels."]}) == "named"
    assert verdict(conflict, {"said": "", "words": ["Nothing stands in the way."]}) == "not seen"
    assert verdict(conflict, {"said": "breaks", "broke": True}) == "–"


def test_ours_is_read_in_its_first_lines_and_may_be_missing_or_break(planted):
    fault = planted["conflict"]
    assert ask_ours(fault, None)["broke"]
    late = SimpleNamespace(text="fine\n\nfine\nfine\nfine\nconflict", stable_step=fault.stable)
    assert verdict(fault, ask_ours(fault, lambda *_: late)) == "not seen"

    def breaks(*_):
        raise RuntimeError("no")

    assert ask_ours(fault, breaks)["said"] == "breaks: RuntimeError: no"


def test_a_tool_that_does_not_install_is_a_row(monkeypatch, planted, capsys):
    monkeypatch.setattr(peer, "environment", lambda name: (None, "its environment could not be made: no such release"))
    assert ask("cockpit", planted["none"])["broke"]
    main(["--only", "cockpit"])
    assert capsys.readouterr().out.count("no such release") == 5
    assert OURS not in RIVALS


@pytest.mark.slow
@pytest.mark.parametrize("tool", RIVALS)
def test_rivals_answer(tool, planted):
    if not (peer.STORE / tool / "bin" / "python").exists():
        pytest.skip(f"{tool} is not installed; make bench-rivals installs it")
    answer = ask(tool, planted["dead layer"])
    assert not answer.get("broke"), answer
    assert answer["said"]

"""``make bench-rivals``: what other tools answer on planted faults, beside ``zeroloss.diagnose``; writes docs/results/rivals.md."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import zeroloss
from bench import peer
from bench.gram import machine
from bench.page import Page, digits
from bench.peers.rival_task import STEPS, build, kill
from zeroloss import Dataset, extremes, gram, load

OUT = Path(__file__).parents[1] / "docs" / "results" / "rivals.md"
ROWS = 60
HEALTHY = 0.25  # of the stable step at the start: λ_max doubles within the first steps of this network
RIVALS = {"lightning": "Lightning's learning-rate finder", "cockpit": "cockpit", "torchinstruments": "torchinstruments"}
OURS = "zeroloss.diagnose"
LINES = 4  # of our text, in which a fault must be named
WORDS = {  # any of which names the fault
    "conflict": ("conflict",),
    "dead layer": ("dead layer", "is dead"),
    "step 3× too large": ("too large", "unstable", "diverge"),
    "duplicated row": ("duplicate", "identical", "repeated", "twice"),
}


@dataclass(frozen=True, eq=False)
class Fault:
    """One planted fault.

    Args:
        name: in the table; ``"none"`` for the healthy control.
        module: with the fault.
        data: with the fault.
        stable: 2/λ_max of the module's Gram.
        step: the user's.
        dead: whether a layer was killed.
    """

    name: str
    module: nn.Sequential
    data: Dataset
    stable: float
    step: float
    dead: bool


def faults() -> tuple[Fault, ...]:
    """The healthy control and four faults, each alone: zeros and ones among the digits, a ReLU network of width 256, float32."""
    plain = load("digits", n=ROWS, classes=(0, 1))
    twice = torch.cat([plain.x, plain.x[:1]])
    conflict = Dataset(twice, torch.cat([plain.y, -plain.y[:1]]))
    repeated = Dataset(twice, torch.cat([plain.y, plain.y[:1]]))
    planted = (
        ("none", plain, HEALTHY, False),
        ("conflict", conflict, HEALTHY, False),
        ("dead layer", plain, HEALTHY, True),
        ("step 3× too large", plain, 3.0, False),
        ("duplicated row", repeated, HEALTHY, False),
    )
    made = []
    for name, data, times, dead in planted:
        module = build()
        if dead:
            kill(module)
        stable = 2 / extremes(gram(module.double(), data.x)).largest
        made.append(Fault(name, module.float(), data, stable, times * stable, dead))
    return tuple(made)


def ask(rival: str, fault: Fault, patience: float = 120) -> dict[str, Any]:
    """What a rival answers, in a process of its own.

    Args:
        rival: its name in :data:`RIVALS`.
        fault: what is planted.
        patience: seconds until it is stopped.

    Returns:
        As :func:`bench.peers.rival_task.serve` says; ``said`` alone where it cannot be installed, breaks or takes too long.
    """
    interpreter, missing = peer.environment(rival)
    if interpreter is None:
        return {"said": f"does not install: {missing}", "broke": True}
    with tempfile.TemporaryDirectory() as folder:
        rows = str(Path(folder) / "rows.npz")
        np.savez(rows, x=fault.data.x.numpy(), y=fault.data.y.numpy())
        request = json.dumps({"rows": rows, "dead": fault.dead, "step": fault.step})
        try:
            done = subprocess.run(
                [str(interpreter), str(peer.HERE / f"rival_{rival}.py")],
                input=request,
                capture_output=True,
                text=True,
                timeout=patience,
                env=peer.quiet(),
            )
        except subprocess.TimeoutExpired:
            return {"said": f"no answer in {patience:.0f} s", "broke": True}
    if done.returncode != 0:
        return {"said": (done.stderr.strip().splitlines() or ["no message"])[-1], "broke": True}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def ask_ours(fault: Fault, diagnose: Callable[..., Any] | None) -> dict[str, Any]:
    """What we answer: the first lines of the text, and the stable step.

    Args:
        fault: what is planted.
        diagnose: our function, None where this version has none.

    Returns:
        As :func:`ask`, with the lines in ``words``.
    """
    if diagnose is None:
        return {"said": "this version has no diagnose", "broke": True}
    try:
        found = diagnose(fault.module, fault.data, fault.step)
    except Exception as error:  # ours is held to the same rule as theirs
        return {"said": f"breaks: {type(error).__name__}: {error}", "broke": True}
    lines = [line.strip() for line in found.text.splitlines() if line.strip()][:LINES]
    return {"said": " ".join(lines), "stable": found.stable_step, "words": lines}


def verdict(fault: Fault, answer: dict[str, Any]) -> str:
    """Whether an answer names the fault, shows it in a figure, or passes it by; for the control, whether it stays quiet.

    A figure shows a dead layer where it is exactly zero for all of it, and a step too large where it is the tool's own sign of that or
    a stable step of the tool's below the step.

    Args:
        fault: what is planted.
        answer: of :func:`ask`.

    Returns:
        A few words.
    """
    if answer.get("broke"):
        return "–"
    stable = answer.get("stable")
    too_large = bool(answer.get("alarmed")) or (stable is not None and stable < fault.step)
    text = " ".join(answer.get("words", ())).lower()
    named = [name for name, words in WORDS.items() if any(word in text for word in words)]
    shown = [name for name, seen in (("dead layer", answer.get("dead")), ("step 3× too large", too_large)) if seen]
    if fault.name == "none":
        return f"**false alarm: {', '.join([*named, *shown])}**" if named or shown else "quiet"
    if fault.name in named:
        return "named"
    if fault.name == "step 3× too large" and (answer.get("suggested") or fault.step) < fault.step:
        return "a smaller step suggested"
    return "a figure shows it" if fault.name in shown else "not seen"


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask everybody about everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", choices=[*RIVALS, OURS], nargs="+", default=[*RIVALS, OURS], help="print these and write no file"
    )
    asked = parser.parse_args(arguments)
    page, versions, rows = Page(3600), {"zeroloss": zeroloss.__version__}, []
    planted = faults()
    for tool in asked.only:
        for fault in planted:
            ours = tool == OURS
            answer = ask_ours(fault, getattr(zeroloss, "diagnose", None)) if ours else ask(tool, fault)
            versions |= answer.get("versions", {})
            said = " ".join(str(answer["said"]).split()).replace("|", "\\|")
            steps, own = f"{fault.step:.3g} / {fault.stable:.3g}", answer.get("stable") or answer.get("suggested")
            rows.append([RIVALS.get(tool, tool), fault.name, steps, digits(own, ".3g"), verdict(fault, answer), said])
    page.write("# Planted faults: what each tool answers")
    page.write(
        f"Written by `make bench-rivals`. {ROWS} zeros and ones of the digits, a ReLU network 64-256-256-1 with torch's initial weights in "
        f"float32, full-batch gradient descent for {STEPS} steps where a tool watches training. One fault at a time: a row again with the "
        "other label; the second hidden layer dead (bias −100); a step three times the stable one, where the others have a quarter of it; "
        "a row again with its own label; and a control without any. Steps are those of the summed loss ½‖f−y‖²; *stable* is 2/λ_max of "
        "the Gram at the start. *Its step* is what the tool holds for stable or suggests. *Named*: its words name the fault (ours: in the "
        "first lines). *A figure shows it*: a reader who knows what to look for finds a zero or a warning sign in the tool's figures. "
        "Lightning's finder takes no step of the user's and suggests one whatever it is; what it says is for the mean squared error, *its "
        "step* in the sum's units. Each tool ran with its documented defaults in an environment of its own, with the newest release that "
        "installs."
    )
    page.write(machine(versions))
    page.table(["tool", "planted", "step / stable", "its step", "verdict", "what it says"], rows)
    if asked.only == [*RIVALS, OURS]:
        OUT.parent.mkdir(parents=True, exist_ok=True)
        OUT.write_text("\n".join(page.lines).rstrip() + "\n", encoding="utf-8")
        sys.stdout.write(f"{OUT}\n")


if __name__ == "__main__":
    main()

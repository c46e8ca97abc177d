"""``zeroloss study``: flags to a specification, a run with progress, a table at the end."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from zeroloss.claims import Judgement
from zeroloss.cli.show import console, show_data, show_forecast, show_networks, show_verdicts
from zeroloss.errors import ArgumentError
from zeroloss.report import write_report
from zeroloss.study import DataSpec, NetworkSpec, Study, Watch, default_folder, read_study, run_study, summarise
from zeroloss.study.building import load_data
from zeroloss.study.network_run import Prepared, prepare
from zeroloss.study.result import NetworkResult, plain
from zeroloss.study.specification import TrainingSpec

Spec = TypeVar("Spec", DataSpec, NetworkSpec, TrainingSpec)


def study_command(parsed: argparse.Namespace) -> int:
    """Run it.

    Args:
        parsed: the flags.

    Returns:
        0, or 1 where a claim was violated.
    """
    study = study_of(parsed)
    out = console(parsed.json)
    if parsed.forecast:
        return _forecast(study, out, parsed.json)
    folder = Path(parsed.out) if parsed.out else default_folder(study)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
        console=console(json=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bars:
        result = run_study(study, folder, _watch(out, bars, study))
    report = write_report(result, folder)
    if parsed.json:
        print(result.to_json(), end="")
    else:
        show_networks(out, result.networks)
        if result.verdicts:
            show_verdicts(out, result.verdicts)
        out.print(result.summary, markup=False)
        out.print(f"Report: {report}", markup=False, soft_wrap=True)
    return int(any(v.status is Judgement.VIOLATED for v in result.verdicts))


def _forecast(study: Study, out: Console, as_json: bool) -> int:
    data = load_data(study.data)
    show_data(out, summarise(data))
    rows = []
    for spec in study.networks:
        prepared = prepare(spec, data, study.training)
        show_forecast(out, prepared, study.training.max_steps)
        row = {
            **dataclasses.asdict(prepared.forecast),
            "step_size": prepared.step_size,
            "seconds_per_step": prepared.seconds_per_step,
        }
        rows.append({"network": spec.name, **row})
    if as_json:
        print(json.dumps(plain(rows), indent=1))
    return 0


def study_of(parsed: argparse.Namespace) -> Study:
    """The specification that the flags describe: a file's fields, or the default study's, each overridden by its flag."""
    study = read_study(parsed.file) if parsed.file else Study()
    if parsed.data is not None:
        # another source has other classes: start from all of them and every row
        study = dataclasses.replace(study, data=dataclasses.replace(study.data, source=parsed.data, n=None, classes=None))
    classes = study.data.classes if parsed.classes is None else class_list(parsed.classes)
    data = _override(study.data, n=parsed.n, normalise=parsed.normalise, root=parsed.root, seed=parsed.seed)
    data = dataclasses.replace(data, classes=classes)
    training = _override(
        study.training,
        step=_step(parsed.step),
        max_steps=parsed.max_steps,
        until=parsed.until,
        dtype=parsed.dtype,
        device=parsed.device,
    )
    networks = study.networks
    if parsed.network:
        networks = tuple(_named(family, parsed.scheme) for family in parsed.network)
    elif parsed.scheme:
        raise ArgumentError("--scheme", "is given without --network", "name the family with --network too")
    networks = tuple(
        _override(s, activation=parsed.activation, width=parsed.width, depth=parsed.depth, seed=parsed.seed) for s in networks
    )
    if parsed.network or parsed.activation:
        networks = tuple(dataclasses.replace(s, name=_title(s)) for s in networks)
    return dataclasses.replace(
        study, data=data, training=training, networks=networks, claims=study.claims and not parsed.no_claims
    )


def class_list(text: str) -> tuple[str | int, ...] | None:
    """``3,8`` as integers, ``cat,dog`` as names, ``all`` as None.

    Example:
        >>> class_list("3,8"), class_list("all")
        ((3, 8), None)
    """
    if text == "all":
        return None
    words = [word.strip() for word in text.split(",") if word.strip()]
    return tuple(int(word) if word.lstrip("-").isdigit() else word for word in words)


def _step(text: str | None) -> str | float | None:
    if text is None or text in ("auto", "theory"):
        return text
    try:
        return float(text)
    except ValueError:
        raise ArgumentError("--step", f"is {text!r}", "pass auto, theory or a positive number") from None


def _named(family: str, scheme: str | None) -> NetworkSpec:
    chosen = scheme or ("du" if family == "resnet" else "allen-zhu")
    activation, depth = ("relu", 3) if chosen == "allen-zhu" else ("erf", 3 if family == "resnet" else 2)
    return NetworkSpec(family, family, chosen, activation, depth=depth)


def _title(spec: NetworkSpec) -> str:
    paper = "AZ" if spec.scheme == "allen-zhu" else "DU"
    activation = "ReLU" if spec.activation == "relu" else spec.activation
    return f"{paper} {'ResNet' if spec.family == 'resnet' else 'fully connected'}, {activation}"


def _override(spec: Spec, **flags: object) -> Spec:
    given = {name: value for name, value in flags.items() if value is not None}
    return dataclasses.replace(spec, **given) if given else spec  # type: ignore[arg-type]


def _watch(out: Console, bars: Progress, study: Study) -> Watch:
    tasks: dict[str, TaskID] = {}
    text = bars.console if bars.live.is_started else out

    def prepared(p: Prepared) -> None:
        show_forecast(text, p, study.training.max_steps)
        told = p.forecast.steps
        total = study.training.max_steps if told is None else min(told, study.training.max_steps)
        tasks[p.spec.name] = bars.add_task(p.spec.name, total=total, state="")

    def step(name: str, k: int, loss: float) -> None:
        task = tasks[name]
        total = bars.tasks[bars.task_ids.index(task)].total or 0
        bars.update(task, completed=k, total=max(total, k + 1), state=f"step {k:,}, loss {loss:.2e}")

    def trained(result: NetworkResult) -> None:
        bars.remove_task(tasks[result.spec.name])

    def claim(name: str) -> None:
        if "claims" not in tasks:
            tasks["claims"] = bars.add_task("claims", total=None, state="")
        bars.update(tasks["claims"], state=name)

    return Watch(data=lambda d: show_data(text, d), prepared=prepared, step=step, trained=trained, claim=claim)

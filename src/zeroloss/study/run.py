"""A study from its specification to its result: load, prepare, train, judge, in this order, resumable at every point."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from zeroloss.claims import CLAIMS, Run
from zeroloss.data import Dataset
from zeroloss.errors import ArgumentError, FileError
from zeroloss.study.building import find_device, load_data
from zeroloss.study.explanation import explain_study
from zeroloss.study.folder import claim_folder, default_folder, slug, write_table
from zeroloss.study.judging import judge
from zeroloss.study.network_run import Prepared, prepare, train
from zeroloss.study.result import DataSummary, NetworkResult, StudyResult, read_result, write_result
from zeroloss.study.setting import Setting
from zeroloss.study.specification import NetworkSpec, Study
from zeroloss.training import Trajectory


def _quiet(*_: object) -> None:
    return None


@dataclass(frozen=True)
class Watch:
    """What wants to hear of a study's progress; the command line draws bars with it, a library call is silent.

    Args:
        data: called with the data's summary once it is loaded.
        prepared: called with each network's forecast before its run.
        step: called with network, step, and loss relative to the first, every few steps.
        trained: called with each network's result.
        claim: called with a claim's id before it is judged.
    """

    data: Callable[[DataSummary], None] = _quiet
    prepared: Callable[[Prepared], None] = _quiet
    step: Callable[[str, int, float], None] = _quiet
    trained: Callable[[NetworkResult], None] = _quiet
    claim: Callable[[str], None] = _quiet


def run_study(study: Study, folder: str | Path | None = None, watch: Watch | None = None) -> StudyResult:
    """Run a study, or finish one that was interrupted, or read one that is finished.

    The folder then holds ``study.toml``, ``result.json``, ``trajectories/*.csv`` and ``checkpoints/*.safetensors``. Run it again
    after a kill and it goes on where it was, to the same result, timings aside.

    Args:
        study: what to do.
        folder: the run folder; by default ``runs/`` and a name made from the study.
        watch: told of progress.

    Returns:
        The result.

    Raises:
        ArgumentError: for a specification that fits no network or data.
        FileError: for a folder that holds something else.
    """
    place = default_folder(study) if folder is None else Path(folder)
    watch = Watch() if watch is None else watch
    started = time.perf_counter()
    device = find_device(study.training.device)
    data = load_data(study.data)
    summary = summarise(data)
    lock = claim_folder(place, study)
    try:
        if (place / "result.json").exists():
            done = read_result(place)
            if done.data.sha256 != summary.sha256:
                raise FileError(
                    place, "holds a study of other data (the file has changed since)", "name another folder with --out"
                )
            return done
        watch.data(summary)
        networks: list[NetworkResult] = []
        runs: list[Run] = []
        timings: dict[str, float] = {}
        for index, spec in enumerate(study.networks, start=1):
            # the number keeps names apart that are the same as file names
            result, run, trajectory, prepared = _one(spec, f"{index}-{slug(spec.name)}", data, study, place, watch)
            networks.append(result)
            runs.append(run)
            timings[f"{spec.name}: training"] = trajectory.seconds
            timings[f"{spec.name}: a step, measured before"] = prepared.seconds_per_step
        begun = time.perf_counter()
        verdicts = judge(CLAIMS, Setting(data, study.networks, tuple(runs)), watch.claim) if study.claims else ()
        timings["claims"] = time.perf_counter() - begun
        timings["total"] = time.perf_counter() - started
        finished = StudyResult(
            study, summary, tuple(networks), verdicts, explain_study(summary, tuple(networks)), environment(device), timings
        )
        write_result(finished, place)
        return finished
    finally:
        lock.release()


def summarise(data: Dataset) -> DataSummary:
    """The data's geometry as plain values."""
    counts: tuple[int, ...] = ()
    if data.classes and data.outputs == 1:
        counts = (int((data.y < 0).sum()), int((data.y > 0).sum()))
    elif data.classes:
        counts = tuple(int(c) for c in data.y.sum(dim=0))
    nearest = tuple(sorted(data.nearest.tolist())) if data.n > 1 else ()
    return DataSummary(
        name=data.name,
        sha256=hashlib.sha256(data.x.cpu().numpy().tobytes() + data.y.cpu().numpy().tobytes()).hexdigest(),
        n=data.n,
        features=data.x[0].numel(),
        outputs=data.outputs,
        classes=data.classes,
        counts=counts,
        separation=data.separation,
        nearest=nearest,
        duplicates=data.duplicates,
        conflicts=tuple(c.rows for c in data.conflicts),
        loss_floor=data.loss_floor,
    )


def environment(device: torch.device) -> dict[str, str]:
    """What a number depends on beside the study: versions, device, threads."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    packages = {package: version(package) for package in ("zeroloss", "torch", "numpy", "scipy", "scikit-learn")}
    return {
        **packages,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": f"{device.type} ({name})",
        "threads": str(torch.get_num_threads()),
    }


def _one(
    spec: NetworkSpec, file: str, data: Dataset, study: Study, place: Path, watch: Watch
) -> tuple[NetworkResult, Run, Trajectory, Prepared]:
    try:
        prepared = prepare(spec, data, study.training)
    except ArgumentError as error:
        raise ArgumentError(f"network {spec.name!r}: {error.argument}", error.seen, error.remedy) from error
    watch.prepared(prepared)
    result, run, trajectory = train(
        prepared,
        study.training,
        place / "checkpoints" / f"{file}.safetensors",
        lambda step, loss: watch.step(spec.name, step, loss),
    )
    predicted = prepared.foresight.losses(trajectory.steps)
    write_table(
        place / "trajectories" / f"{file}.csv",
        ("step", "loss", "predicted_loss"),
        list(zip(trajectory.steps.tolist(), trajectory.loss.tolist(), predicted.tolist(), strict=True)),
    )
    watch.trained(result)
    return result, run, trajectory, prepared

"""One Gram in one process: started, watched for time and memory, and read back."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench import peer
from bench.peers.gram_networks import NETWORKS, network

MEMORY = 12_000  # MB; what needs more is stopped and says so
LOOK = 0.05  # seconds between two looks at a process's memory


@dataclass(frozen=True)
class Way:
    """A way to a Gram.

    Args:
        name: in the table.
        script: in :mod:`bench.peers`, or ours.
        environment: the peer whose interpreter runs it; empty for our own.
        method: for the script.
    """

    name: str
    script: str
    environment: str = ""
    method: str = ""


OURS = Way("ours", "../gram_ours.py")
RECIPE = Way("torch.func", "recipe_gram.py")
NNG = Way("nngeometry", "nng_gram.py", "nngeometry")
NT = Way("NT", "nt_gram.py", "neural-tangents", "default")
NT_STRUCTURED = Way("NT structured", "nt_gram.py", "neural-tangents", "structured")


@dataclass(frozen=True, eq=False)
class Measured:
    """What a process said.

    Args:
        seconds: CPU time of the best call, all threads; None where there is none.
        memory: the process's largest memory, its imports included, in MB.
        matrix: n×n.
        reason: why there is none, else empty.
        versions: of what took part.
    """

    seconds: float | None = None
    memory: float | None = None
    matrix: NDArray[np.float32] | None = None
    reason: str = ""
    versions: tuple[tuple[str, str], ...] = ()


def measure(way: Way, name: str, n: int, *, seconds: float, rounds: int = 5, patience: float = 120) -> Measured:
    """A Gram in a process of its own.

    Args:
        way: how.
        name: of the network.
        n: samples.
        seconds: no call begins after that many.
        rounds: calls at most, after the first.
        patience: seconds until the process is stopped.

    Returns:
        The best call, or why there is none.
    """
    interpreter, missing = (Path(sys.executable), "") if not way.environment else peer.environment(way.environment)
    if interpreter is None:
        return Measured(reason=missing)
    with tempfile.TemporaryDirectory() as folder:
        files = {key: str(Path(folder) / f"{key}.np{'z' if key == 'weights' else 'y'}") for key in ("weights", "inputs", "save")}
        np.savez(files["weights"], **{key: value.numpy() for key, value in network(name).state_dict().items()})
        np.save(files["inputs"], inputs(name, n))
        request = {**files, "network": name, "method": way.method}
        command = [str(interpreter), str(peer.HERE / way.script)]
        reason, out = _watched(
            command, json.dumps({**request, "seconds": seconds, "rounds": rounds}), patience, bool(way.environment)
        )
        if reason:
            return Measured(reason=reason)
        answer, matrix = json.loads(out.splitlines()[-1]), np.load(files["save"])
    return Measured(answer["best"], answer["rss_peak"], matrix, "", tuple(answer["versions"].items()))


def inputs(name: str, n: int) -> NDArray[np.float32]:
    """Random inputs, the first n of always the same."""
    shape = NETWORKS[name][1]
    return np.random.default_rng(0).standard_normal((n, *shape)).astype(np.float32)


def best(found: Iterable[Measured]) -> Measured:
    """The quickest of several measurements of one thing, with the largest memory of them; the first failure where all failed."""
    several = list(found)
    done = [each for each in several if each.seconds is not None]
    if not done:
        return several[0]
    quickest = min(done, key=lambda each: each.seconds or 0.0)
    memory = max(each.memory or 0.0 for each in done)
    return Measured(quickest.seconds, memory, quickest.matrix, "", quickest.versions)


def _watched(command: list[str], text: str, patience: float, foreign: bool) -> tuple[str, str]:
    """Why a process gave nothing, or nothing and what it printed."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err, tempfile.TemporaryFile("w+") as ask:
        ask.write(text)
        ask.seek(0)
        process = subprocess.Popen(command, stdin=ask, stdout=out, stderr=err, text=True, env=alone(foreign))
        pin(process.pid)
        begun, reason = time.perf_counter(), ""
        while process.poll() is None and not reason:
            time.sleep(LOOK)
            if time.perf_counter() - begun > patience:
                reason = f"stopped after {patience:.0f} s"
            elif _memory(process.pid) > MEMORY:
                reason = f"stopped above {MEMORY / 1000:g} GB"
        if reason:
            process.kill()
        process.wait()
        out.seek(0)
        err.seek(0)
        said = err.read().strip().splitlines() or [f"exit status {process.returncode}"]
        if not reason and process.returncode != 0:
            reason = next((line for line in reversed(said) if "Error" in line), said[-1])[:300]
        return reason, out.read()


def alone(foreign: bool) -> dict[str, str]:
    """The environment of a process that computes on one thread: threads that wait for one another spin, and that would count as work."""
    own = peer.quiet() if foreign else dict(os.environ)
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    return {**own, **counts, "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}


def pin(pid: int) -> None:
    """Keep a process on one core, so that libraries which count the cores make one thread; where the system can."""
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setaffinity(pid, {max(os.sched_getaffinity(0))})


def _memory(pid: int) -> float:
    """Of a running process, in MB; 0 where it cannot be told."""
    try:
        return float(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) / 1024
    except (OSError, IndexError, ValueError):
        return 0.0

"""One measurement in one process: a JSON request on standard input, a JSON answer on standard output, the matrix in a file."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable

import numpy as np


def peak() -> float:
    """This process's largest memory so far, in MB; on Linux not ru_maxrss, which a new process inherits from its parent."""
    try:
        with open("/proc/self/status") as status:
            return float(status.read().split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def serve(prepare: Callable[[dict, dict, np.ndarray], Callable[[], np.ndarray]], versions: Callable[[], dict]) -> None:
    """Answer one request: CPU seconds of all threads, and memory.

    The first call is kept apart, for it compiles or warms up; where no other fits into the time allowed, it is all there is.

    Args:
        prepare: from the request, the weights by name and the inputs, makes what is timed: a call that gives the n×n matrix.
        versions: what took part.
    """
    request = json.load(sys.stdin)
    with np.load(request["weights"]) as file:
        weights = dict(file)
    compute = prepare(request, weights, np.load(request["inputs"]))
    before, begun, seconds = peak(), time.perf_counter(), []
    while not seconds or (len(seconds) <= request["rounds"] and time.perf_counter() - begun < request["seconds"]):
        start = time.process_time()
        result = compute()
        seconds.append(time.process_time() - start)
    top = peak()
    np.save(request["save"], result)
    answer = {"first": seconds[0], "best": min(seconds[1:] or seconds), "rounds": len(seconds) - 1, "versions": versions()}
    sys.stdout.write(json.dumps({**answer, "rss_before": before, "rss_peak": top}) + "\n")

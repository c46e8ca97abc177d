"""neural-tangents beside us: run by the peer's own Python, a JSON request on standard input, a JSON answer on standard output.

A request is a list of jobs of one ``dtype``. A job names its rows by the ``path`` of an n×d ``.npy`` or by ``n``, ``d`` and ``seed``
(random rows of norm 1), and says ``activation``, ``depth`` (hidden layers), ``rounds`` (0: compute once and time nothing) and, where the
kernel is wanted, ``save``, a path to write it to. Answers come in the same order, one line each as soon as it is there, so that
whoever loses patience keeps those that were done.
"""

from __future__ import annotations

import json
import math
import resource
import statistics
import sys
import time

import jax

REQUEST = json.load(sys.stdin)
jax.config.update("jax_enable_x64", REQUEST[0]["dtype"] == "float64")  # as its users have it: off unless they ask

import neural_tangents  # noqa: E402
import numpy as np  # noqa: E402
from neural_tangents import stax  # noqa: E402

# c_sigma of DU, so that both libraries mean one network; those of the smooth ones are 1/E sigma(z)^2 to double precision
GAIN = {"relu": 2.0, "erf": math.pi / (2 * math.asin(2 / 3)), "gelu": 2.351715614073373}
LAYER = {"relu": stax.Relu, "erf": stax.Erf, "gelu": stax.Gelu}


def kernel(activation: str, depth: int, features: int):
    """DU's fully connected network as a jitted function of rows: variance 1 on the inputs, c_sigma/m after every activation."""
    layers = [stax.Dense(1, W_std=math.sqrt(features))]
    for _ in range(depth):
        layers += [LAYER[activation](), stax.Dense(1, W_std=math.sqrt(GAIN[activation]))]
    _, _, function = stax.serial(*layers)
    return jax.jit(lambda x: function(x, None, "ntk"))


def peak() -> float:
    """This process's largest memory so far, in MB; on Linux not ru_maxrss, which a new process inherits from its parent."""
    try:
        status = open("/proc/self/status").read()  # noqa: SIM115  # a short script
        return float(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def rows(job: dict) -> np.ndarray:
    if "path" in job:
        return np.load(job["path"]).astype(job["dtype"])
    x = np.random.default_rng(job["seed"]).standard_normal((job["n"], job["d"]))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(job["dtype"])


def answer(job: dict) -> dict:
    x = rows(job)
    function = kernel(job["activation"], job["depth"], x.shape[1])
    before, start = peak(), time.perf_counter()
    result = function(x).block_until_ready()
    first = time.perf_counter() - start
    seconds = []
    for _ in range(job.get("rounds", 0)):
        start = time.perf_counter()
        result = function(x).block_until_ready()
        seconds.append(time.perf_counter() - start)
    if "save" in job:
        np.save(job["save"], np.asarray(result))
    return {
        "first": first,
        "best": min(seconds, default=None),
        "median": statistics.median(seconds) if seconds else None,
        "dtype": str(result.dtype),
        "rss_before": before,
        "rss_peak": peak(),
        "versions": {"neural-tangents": neural_tangents.__version__, "jax": jax.__version__, "numpy": np.__version__},
    }


for one in REQUEST:
    sys.stdout.write(json.dumps(answer(one)) + "\n")
    sys.stdout.flush()

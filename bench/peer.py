"""Peers: their environments, made once, and requests to :mod:`bench.peers.nt_kernel` that runs in neural-tangents'.

Its pins (an old jax, numpy below 2) cannot live beside ours, so every peer has a virtual environment of its own under ``.venv-peers``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).parent / "peers"
STORE = ROOT / ".venv-peers"
NEURAL_TANGENTS = "neural-tangents"
REQUIREMENTS = HERE / "neural_tangents.txt"
PATIENCE = 900  # seconds for the installation; it brings tensorflow, which is large


@cache
def environment(name: str = NEURAL_TANGENTS) -> tuple[Path | None, str]:
    """A peer's interpreter; installs what ``bench/peers/<name>.txt`` lists on first use.

    An environment is made under a temporary name and renamed once it imports, so an interrupted or failed installation leaves none.
    A virtual environment's own scripts name the folder they were made in; its interpreter does not, and only that is used.

    Args:
        name: of the peer.

    Returns:
        The path of the interpreter and an empty string; or None and why there is none.
    """
    found = STORE / name / "bin" / "python"
    if found.exists():
        return found, ""
    STORE.mkdir(exist_ok=True)
    for stale in STORE.glob("making-*"):
        shutil.rmtree(stale, ignore_errors=True)
    making = Path(tempfile.mkdtemp(prefix="making-", dir=STORE))
    sys.stderr.write(f"installing {name} into {(STORE / name).relative_to(ROOT)} (once)\n")
    interpreter = shutil.which("python3.11") or sys.executable
    pip = [str(making / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    package = name.replace("-", "_")
    steps = (
        [interpreter, "-m", "venv", str(making)],
        [*pip, "-r", str(HERE / f"{package}.txt")],
        [str(making / "bin" / "python"), "-c", f"import {package}"],
    )
    try:
        for step in steps:
            subprocess.run(step, check=True, capture_output=True, text=True, timeout=PATIENCE, env=quiet())
        making.rename(STORE / name)
    except (subprocess.SubprocessError, OSError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines() or [type(error).__name__]
        reason = f"its environment could not be made: {said[-1]}"
        sys.stderr.write(f"no {name}: {reason}\n")
        return None, reason
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return found, ""


def ask(jobs: Sequence[dict[str, object]], timeout: float = 300) -> list[dict[str, object]] | None:
    """Answers of :mod:`bench.peers.nt_kernel`, in the order of the jobs.

    Args:
        jobs: what it documents.
        timeout: seconds for all of them together.

    Returns:
        One answer a job, fewer where the time ran out or it broke; None where there is no peer (:func:`environment` says why).
    """
    interpreter, _ = environment()
    if interpreter is None:
        return None
    process = subprocess.Popen(
        [str(interpreter), str(HERE / "nt_kernel.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=quiet(),
    )
    try:
        out, err = process.communicate(json.dumps(list(jobs)), timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
    answers = [json.loads(line) for line in out.splitlines() if line.endswith("}")]
    if process.returncode not in (0, -9):
        sys.stderr.write(f"neural-tangents stopped: {(err.strip().splitlines() or ['no message'])[-1]}\n")
    return answers


def quiet() -> dict[str, str]:
    """Our environment without what would lead the peer to our packages."""
    ours = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    return {**ours, "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}

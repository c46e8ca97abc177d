"""What ours and neural-tangents' kernels are worth in digits: against 40 of them, and by the eigenvalues of near duplicates."""

from __future__ import annotations

import tempfile

import numpy as np
import torch
from tests.kernels.long_double import long_double_ntk, near_duplicates
from tests.kernels.mp_reference import VERSINES, mp_errors, mp_kernel, others, rows_at

from bench import peer
from bench.page import Page
from zeroloss import fully_connected, limit_kernel

FEATURES, CROWD, DEPTHS = 50, 70, (1, 3, 10, 30)
NAMES = {"float32": torch.float32, "float64": torch.float64}
ALLOWED = {"float32": 4e-6, "float64": 1e-13}
PAIRS, GAP = 250, 1e-4


Job = tuple[str, int]  # an activation and a depth


def peer_kernels(page: Page, rows: dict[Job, np.ndarray], dtype: str) -> dict[Job, np.ndarray]:
    """neural-tangents' kernels, all in one process of it, whose start is slow.

    Args:
        page: knows the time left.
        rows: n×d rows of every kernel.
        dtype: in which it computes.

    Returns:
        The kernels that it finished.
    """
    if page.left < 30:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for k, ((activation, depth), x) in enumerate(rows.items()):
            np.save(f"{folder}/rows{k}.npy", x)
            files = {"path": f"{folder}/rows{k}.npy", "save": f"{folder}/kernel{k}.npy"}
            jobs.append({**files, "dtype": dtype, "activation": activation, "depth": depth, "rounds": 0})
        answers = peer.ask(jobs, timeout=min(90, 0.5 * page.left)) or []
        return {job: np.load(f"{folder}/kernel{k}.npy") for k, (job, _) in enumerate(zip(rows, answers, strict=False))}


def accuracy(page: Page) -> None:
    """Errors relative to the diagonal, the largest over angles from 0 to pi.

    Args:
        page: to write to.
    """
    page.write("## Accuracy")
    page.write(
        f"Largest error over {len(VERSINES)} pairs of rows, relative to the diagonal, against a recursion in 40 digits on the same rows: "
        f"1 − cos from 0 over 1e-14 to 1, and 1 + cos from 1 over 1e-14 to 0. *Diagonal*: the largest error of a diagonal entry."
    )
    n, jobs = len(VERSINES), [(activation, depth) for activation in ("relu", "erf") for depth in DEPTHS]
    found: dict[tuple[str, str, Job], tuple[float, float]] = {}
    for name, dtype in NAMES.items():
        x, y = rows_at(VERSINES, FEATURES, dtype)
        both = torch.cat([x, y])
        theirs = peer_kernels(page, dict.fromkeys(jobs, both.numpy()), name)
        for job in jobs:
            net = fully_connected(FEATURES, 1024, job[1], activation=job[0], scheme="du")
            exact = [mp_kernel(net, "ntk", x[i], y[i]) for i in range(n)]
            # among other rows, so many that the kernel goes through its curve
            ours = limit_kernel(net)(torch.cat([both, others(CROWD, both)]))[: len(both), : len(both)].numpy()
            for who, kernel in (("ours", ours), ("NT", theirs.get(job))):
                if kernel is not None:
                    found[who, name, job] = worst(kernel, exact)
            page.ask(f"{job[0]}, depth {job[1]}, {name}: error", max(found["ours", name, job]), ALLOWED[name])
    table = []
    for job in jobs:
        cells = [found.get((who, name, job)) for who in ("ours", "NT") for name in NAMES]
        table.append([*job, *(None if cell is None else f"{cell[which]:.1e}" for which in (0, 1) for cell in cells)])
    names = [f"{who} {name}" for who in ("ours", "NT") for name in NAMES]
    page.table(["activation", "depth", *names, *(f"{name}, diagonal" for name in names)], table)


def worst(kernel: np.ndarray, exact: list) -> tuple[float, float]:
    """The largest error of a pair, and of a diagonal entry; NaN where the kernel has one."""
    n = len(exact)
    if not np.isfinite(kernel).all():
        return float("nan"), float("nan")
    errors = [
        mp_errors(exact[i], (1, float(kernel[i, n + i])), (0, float(kernel[i, i])), (2, float(kernel[n + i, n + i])))
        for i in range(n)
    ]
    return max(e[0] for e in errors), max(max(e[1:]) for e in errors)


def duplicates(page: Page) -> None:
    """Eigenvalues on near duplicates.

    Args:
        page: to write to.
    """
    page.write(f"## Near duplicates: {PAIRS} pairs of rows {GAP:g} apart, 784 features")
    page.write("The reference is a recursion in long double on the same rows (rounded to float32 where the kernel's are).")
    table, jobs = [], [("relu", 3), ("relu", 10), ("erf", 3)]
    for name in NAMES:
        x = near_duplicates(PAIRS, 784, GAP, np.dtype(name).type)
        theirs = peer_kernels(page, dict.fromkeys(jobs, x), name)
        for activation, depth in jobs:
            reference = eigenvalues(long_double_ntk(x, depth, activation))[0]
            net = fully_connected(784, 1024, depth, activation=activation, scheme="du")
            kernels = {"ours": limit_kernel(net)(torch.from_numpy(x)).numpy(), "NT": theirs.get((activation, depth))}
            for who, kernel in kernels.items():
                if kernel is None:
                    continue
                values = eigenvalues(kernel)
                bound = len(x) * limit_kernel(net).entry_error(torch.from_numpy(x)) if who == "ours" else None
                negative = int((values < 0).sum())
                told = None if bound is None else f"{bound:.1e}"
                table.append([activation, depth, name, who, negative, f"{values[0]:.3e}", f"{reference:.3e}", told])
                if bound is not None:
                    page.ask(f"{activation}, depth {depth}, {name}: eigenvalues below -bound", int((values < -bound).sum()), 0)
                if who == "ours" and name == "float64":
                    page.ask(f"{activation}, depth {depth}, float64: λ_min, relative error", abs(values[0] / reference - 1), 1e-3)
    page.table(
        [
            "activation",
            "depth",
            "dtype",
            "whose",
            "negative eigenvalues",
            "λ_min",
            "λ_min of the reference",
            "bound: n × entry_error",
        ],
        table,
    )


def eigenvalues(kernel: np.ndarray) -> np.ndarray:
    """Ascending, in double precision; NaN for a kernel that has one."""
    values = np.asarray(kernel, dtype=np.float64)
    return np.linalg.eigvalsh(values) if np.isfinite(values).all() else np.full(len(values), np.nan)

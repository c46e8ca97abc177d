"""What ours and neural-tangents' kernels are worth in digits: against 40 of them, and by the eigenvalues of near duplicates."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from tests.kernels.long_double import long_double_ntk, near_duplicates
from tests.kernels.mp_reference import VERSINES, mp_errors, mp_kernel, rows_at

from bench import peer
from bench.page import Page
from zeroloss import fully_connected, limit_kernel

FEATURES, DEPTHS = 50, (1, 3, 10, 30)
NAMES = {"float32": torch.float32, "float64": torch.float64}
ALLOWED = {"float32": 4e-6, "float64": 1e-13}
PAIRS, GAP = 250, 1e-4


def peer_kernels(page: Page, x: np.ndarray, dtype: str, activation: str, depths: tuple[int, ...]) -> dict[int, np.ndarray]:
    """neural-tangents' kernels of these rows.

    Args:
        page: knows the time left.
        x: n×d rows.
        dtype: in which it computes.
        activation: its name.
        depths: of the networks.

    Returns:
        Kernels of the depths that it finished.
    """
    if page.left < 30:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.npy"
        np.save(rows, x)
        jobs = [
            {"path": str(rows), "dtype": dtype, "activation": activation, "depth": d, "rounds": 0, "save": f"{folder}/{d}.npy"}
            for d in depths
        ]
        answers = peer.ask(jobs, timeout=min(90, 0.5 * page.left)) or []
        return {d: np.load(f"{folder}/{d}.npy") for d, _ in zip(depths, answers, strict=False)}


def accuracy(page: Page) -> None:
    """Errors relative to the diagonal, the largest over angles from 0 to pi.

    Args:
        page: to write to.
    """
    page.write("## Accuracy", "")
    page.write(
        f"Largest error over {len(VERSINES)} pairs of rows, relative to the diagonal, against a recursion in 40 digits on the same rows: "
        f"1 − cos from 0 over 1e-14 to 1, and 1 + cos from 1 over 1e-14 to 0. *Diagonal*: the largest error of a diagonal entry."
    )
    n, table = len(VERSINES), []
    for activation in ("relu", "erf"):
        found: dict[tuple[str, str, int], tuple[float, float]] = {}
        for name, dtype in NAMES.items():
            x, y = rows_at(VERSINES, FEATURES, dtype)
            both = torch.cat([x, y])
            theirs = peer_kernels(page, both.numpy(), name, activation, DEPTHS)
            for depth in DEPTHS:
                net = fully_connected(FEATURES, 1024, depth, activation=activation, scheme="du")
                exact = [mp_kernel(net, "ntk", x[i], y[i]) for i in range(n)]
                for who, kernel in (("ours", limit_kernel(net)(both).numpy()), ("NT", theirs.get(depth))):
                    if kernel is not None:
                        found[who, name, depth] = worst(kernel, exact)
                page.ask(f"{activation}, depth {depth}, {name}: error", max(found["ours", name, depth]), ALLOWED[name])
        for depth in DEPTHS:
            cells = [found.get((who, name, depth)) for who in ("ours", "NT") for name in NAMES]
            pairs = [None if cell is None else f"{cell[0]:.1e}" for cell in cells]
            table.append([activation, depth, *pairs, *(None if cell is None else f"{cell[1]:.1e}" for cell in cells)])
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
    page.write(f"## Near duplicates: {PAIRS} pairs of rows {GAP:g} apart, 784 features", "")
    page.write("The reference is a recursion in long double on the same rows (rounded to float32 where the kernel's are).")
    table = []
    for activation, depth in (("relu", 3), ("relu", 10), ("erf", 3)):
        for name, dtype in NAMES.items():
            x = near_duplicates(PAIRS, 784, GAP, np.float32 if name == "float32" else np.float64)
            reference = eigenvalues(long_double_ntk(x, depth, activation))[0]
            net = fully_connected(784, 1024, depth, activation=activation, scheme="du")
            kernels = {"ours": limit_kernel(net)(torch.from_numpy(x).to(dtype)).numpy()}
            theirs = peer_kernels(page, x, name, activation, (depth,))
            if theirs:
                kernels["NT"] = theirs[depth]
            for who, kernel in kernels.items():
                values = eigenvalues(kernel)
                table.append([activation, depth, name, who, int((values < 0).sum()), f"{values[0]:.3e}", f"{reference:.3e}"])
                if who == "ours":
                    page.ask(f"{activation}, depth {depth}, {name}: negative eigenvalues", int((values < 0).sum()), 0)
                if who == "ours" and name == "float64":
                    page.ask(f"{activation}, depth {depth}, float64: λ_min, relative error", abs(values[0] / reference - 1), 1e-3)
    page.table(["activation", "depth", "dtype", "whose", "negative eigenvalues", "λ_min", "λ_min of the reference"], table)


def eigenvalues(kernel: np.ndarray) -> np.ndarray:
    """Ascending, in double precision; NaN for a kernel that has one."""
    values = np.asarray(kernel, dtype=np.float64)
    return np.linalg.eigvalsh(values) if np.isfinite(values).all() else np.full(len(values), np.nan)

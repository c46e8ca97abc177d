"""How long a fully connected limit kernel takes beside one matrix product of its shape and beside neural-tangents; growth in n."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench import peer
from bench.page import Page, digits, milliseconds, ratio
from bench.timing import within
from zeroloss import fully_connected, limit_kernel, load

FEATURES, DEPTHS = 784, (1, 3, 10, 30)
ACTIVATIONS = ("relu", "softplus", "erf", "gelu")
PEER = {"relu": DEPTHS, "erf": (1, 3, 10), "gelu": (1, 3)}  # deeper ones take a minute a call and up to 9 GB
PEER_ROUNDS = {1: 3, 3: 3, 10: 2, 30: 1}
AT_LEAST = {3: 12.0, 10: 50.0, 30: 150.0}  # how many times faster than neural-tangents, ReLU
PROBE = 200  # rows from which the time of many is guessed before they are begun


def unit_rows(n: int, d: int = FEATURES, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random rows of norm 1.

    Args:
        n: how many.
        d: features.
        dtype: of the result.

    Returns:
        n×d rows.
    """
    generator = np.random.default_rng(0)
    x = generator.standard_normal((n, d))
    return torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True)).to(dtype)


def kernel_of(activation: str, depth: int) -> Callable[..., Tensor]:
    """Our kernel of DU's network at width 1024."""
    return limit_kernel(fully_connected(FEATURES, 1024, depth, activation=activation, scheme="du", dtype=torch.float32))


def affordable(page: Page, call: Callable[[Tensor], object], x: Tensor, share: float) -> bool:
    """Whether a warm-up and one round fit into a share of the time left, judged by few rows.

    Args:
        page: knows the time left.
        call: what will be called.
        x: with all of these rows.
        share: of the time left.

    Returns:
        Whether to begin.
    """
    few = x[:PROBE]
    (one,) = within(2, lambda: call(few), rounds=3)
    return 2 * one * (len(x) / len(few)) ** 2 < share * page.left


def against_gemm(
    page: Page, x: Tensor, activation: str, depths: tuple[int, ...], seconds: float
) -> tuple[float, dict[int, float]]:
    """Our kernels at every depth and one full matrix product, in turns.

    Args:
        page: knows the time left.
        x: rows.
        activation: its name.
        depths: of the networks.
        seconds: until when rounds may begin.

    Returns:
        The product's seconds, and those of the depths for which there was time.
    """
    out = torch.empty(len(x), len(x), dtype=x.dtype)
    kernels = {depth: kernel_of(activation, depth) for depth in depths}
    chosen = [depth for depth, kernel in kernels.items() if affordable(page, kernel, x, 0.1)]
    ours = [lambda kernel=kernels[depth]: kernel(x, out=out) for depth in chosen]
    gemm, *rest = within(seconds, lambda: torch.mm(x, x.T, out=out), *ours)
    return gemm, dict(zip(chosen, rest, strict=True))


def peer_times(page: Page, n: int, activation: str) -> tuple[dict[int, float], float | None]:
    """neural-tangents on the same kind of rows, one depth after the other in one process.

    Args:
        page: knows the time left.
        n: rows.
        activation: its name.

    Returns:
        Seconds of the depths that it finished, and its peak memory in MB beyond its imports and n² floats.
    """
    depths = [depth for depth in PEER.get(activation, ()) if page.left > 60]
    shape = {"n": n, "d": FEATURES, "dtype": "float32", "seed": 0, "activation": activation}
    answers = (
        peer.ask([{**shape, "depth": d, "rounds": PEER_ROUNDS[d]} for d in depths], timeout=0.35 * page.left) if depths else None
    )
    if not answers:
        return {}, None
    times = {depth: answer["best"] for depth, answer in zip(depths, answers, strict=False)}
    return times, answers[-1]["rss_peak"] - answers[0]["rss_before"] - 4 * n * n / 2**20


def speed(page: Page, n: int) -> None:
    """The main table.

    Args:
        page: to write to.
        n: rows.
    """
    page.write(f"## Fully connected, float32, {n} rows of {FEATURES} features")
    missing = peer.environment()[1]
    page.write(
        "Random rows of norm 1. *GEMM* is `torch.mm(x, x.T, out=...)`, timed in turns with ours, which writes into the same `out`: best "
        "of up to 7 rounds. *NT* is neural-tangents' jitted kernel, compiled before it is timed, in the same run; its float32 without "
        "x64. It has no closed form for softplus; its erf at depth 30 and its gelu from 10 on take a minute a call and are not asked."
        + (f" There is no neural-tangents here: {missing}." if missing else "")
    )
    rows, memory = [], {}
    for activation in ACTIVATIONS:
        x = unit_rows(n)
        gemm, ours = against_gemm(page, x, activation, DEPTHS, seconds=12)
        theirs, memory[activation] = peer_times(page, n, activation)
        for depth in DEPTHS:
            mine, other = ours.get(depth), theirs.get(depth)
            cells = [milliseconds(gemm), milliseconds(mine), digits(ratio(mine, gemm)), milliseconds(other)]
            rows.append([activation, depth, *cells, digits(ratio(other, mine), ".3g")])
            page.ask(f"{activation}, depth {depth}: ours / GEMM", ratio(mine, gemm), 0.85)
            if activation == "relu" and depth in AT_LEAST:
                page.ask(f"relu, depth {depth}: NT / ours", ratio(other, mine), AT_LEAST[depth], at_least=True)
        page.ask(f"{activation}: depth 30 / depth 1", ratio(ours.get(30), ours.get(1)), 1.1)
    page.table(["activation", "depth", "GEMM, ms", "ours, ms", "ours / GEMM", "NT, ms", "NT / ours"], rows)
    said = ", ".join(f"{name} {value:.0f} MB" for name, value in memory.items() if value is not None)
    if said:
        page.write(f"Peak memory of neural-tangents beyond its imports and n² floats, all depths in one process: {said}.")


def growth(page: Page, n: int) -> None:
    """Half as many rows, and real images where there are any.

    Args:
        page: to write to.
        n: rows.
    """
    page.write("## Growth")
    rows = []
    for depth in (3, 30):
        whole, half = unit_rows(n), unit_rows(n)[: n // 2]
        kernel = kernel_of("relu", depth)
        if not affordable(page, kernel, whole, 0.1):
            rows.append(["random", depth, None, None, None])
            continue
        outs = [torch.empty(len(x), len(x)) for x in (half, whole)]
        few, many = within(6, lambda k=kernel, x=half, o=outs[0]: k(x, out=o), lambda k=kernel, x=whole, o=outs[1]: k(x, out=o))
        rows.append(["random", depth, milliseconds(few), milliseconds(many), digits(many / few)])
    page.table(["rows", "depth", f"n={n // 2}, ms", f"n={n}, ms", "ratio (4: quadratic)"], rows)
    images = mnist(n)
    if images is None:
        page.write("MNIST is not here (`ZEROLOSS_DATA`), so its rows are left out.")
        return
    gemm, ours = against_gemm(page, images, "relu", (3, 30), seconds=6)
    page.table(
        ["rows", "depth", "GEMM, ms", "ours, ms", "ours / GEMM"],
        [["MNIST", depth, milliseconds(gemm), milliseconds(t), digits(t / gemm)] for depth, t in ours.items()],
    )
    for depth, t in ours.items():
        page.ask(f"relu on MNIST, depth {depth}: ours / GEMM", t / gemm, 0.85)


def mnist(n: int) -> Tensor | None:
    """MNIST's first rows as :func:`zeroloss.load` gives them, or None without a data folder."""
    root = os.environ.get("ZEROLOSS_DATA")
    if not root or not Path(root).is_dir():
        return None
    try:
        return load("mnist", n=n, root=root).x.to(torch.float32)
    except (ValueError, OSError):
        return None


def matrix_free(page: Page, sizes: tuple[int, ...]) -> None:
    """Products with a kernel that is never stored, over the matrix products that nothing could avoid.

    Args:
        page: to write to.
        sizes: numbers of rows.
    """
    page.write("## Matrix-free products, ReLU, depth 3, float32")
    page.write(
        "`K.operator(x) @ V` over its GEMMs: half a Gram (n²d multiply-adds over two) and the stored kernel's product with V, in turns."
    )
    rows = []
    for n in sizes:
        x = unit_rows(n)
        limit = kernel_of("relu", 3)
        if not affordable(page, lambda few, limit=limit: limit.operator(few) @ np.ones((len(few), 1), np.float32), x, 0.1):
            rows += [[n, r, None, None, None] for r in (1, 16)]
            continue
        operator, gram, half = limit.operator(x), torch.empty(n, n), torch.empty(n, n // 2)
        torch.mm(x, x.T, out=gram)
        for r in (1, 16):
            v = torch.randn(n, r, generator=torch.Generator().manual_seed(0))
            product, wide = torch.empty(n, r), v.numpy()

            def gemms(x=x, half=half, gram=gram, v=v, product=product) -> None:
                torch.mm(x, x[: len(x) // 2].T, out=half)
                torch.mm(gram, v, out=product)

            floor, ours = within(6, gemms, lambda operator=operator, wide=wide: operator @ wide, rounds=5)
            rows.append([n, r, milliseconds(floor), milliseconds(ours), digits(ours / floor)])
            page.ask(f"matrix-free, n={n}, {r} right-hand sides: ours / GEMMs", ours / floor, 1.3)
    page.table(["n", "right-hand sides", "GEMMs, ms", "ours, ms", "ratio"], rows)

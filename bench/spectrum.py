"""The smallest eigenvalue of real kernels beside full decompositions, at two sizes: ratios in one run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import scipy.linalg
import torch

from zeroloss import extremes, fully_connected, limit_kernel, load
from zeroloss.spectrum import smallest_eigenvalue

SIZES = (2500, 5000)
ROUNDS = 1  # beside the calls that warm up
SECONDS, CPU = 0, 1


def kernels(n: int) -> dict[str, torch.Tensor]:
    """Limit kernels of MNIST where it is at hand (``ZEROLOSS_DATA``), of random rows where not, and a random Gram.

    Args:
        n: rows.

    Returns:
        Symmetric positive definite matrices by name.
    """
    generator = torch.Generator().manual_seed(0)
    if "ZEROLOSS_DATA" in os.environ:
        rows, x = "MNIST", load("mnist", n=n).x
    else:
        rows, x = "random rows", torch.nn.functional.normalize(torch.randn(n, 784, generator=generator, dtype=torch.float64))
    found = {
        f"{name}, {rows}": limit_kernel(fully_connected(784, 64, 3, activation=name))(x) for name in ("relu", "softplus", "erf")
    }
    factor = torch.randn(n, 8 * n // 5, generator=generator, dtype=torch.float64)
    return {**found, "random Gram": factor @ factor.T / factor.shape[1]}


def timed(*calls: Callable[[], object]) -> list[tuple[float, float]]:
    """Best seconds and best CPU seconds of each, by turns.

    Args:
        calls: what to time.

    Returns:
        A pair each. CPU seconds say more where something else runs on the machine.
    """
    best = [(float("inf"), float("inf"))] * len(calls)
    for _ in range(ROUNDS):
        for i, call in enumerate(calls):
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            best[i] = (min(best[i][0], time.perf_counter() - wall), min(best[i][1], time.process_time() - cpu))
    return best


def main() -> None:
    """Print the table."""
    print("\nSmallest eigenvalue: full decompositions over ours, in seconds (in CPU seconds)")
    for n in SIZES:
        for name, kernel in kernels(n).items():
            array = kernel.numpy()
            found, values = smallest_eigenvalue(kernel), torch.linalg.eigvalsh(kernel)
            low, high = float(values[0]), float(values[-1])
            ours, ends, proved, by_torch, by_scipy = timed(
                lambda k=kernel: smallest_eigenvalue(k),
                lambda k=kernel: extremes(k, bound=False),
                lambda k=kernel: extremes(k),
                lambda k=kernel: torch.linalg.eigvalsh(k),
                lambda a=array: scipy.linalg.eigvalsh(a),
            )
            both = extremes(kernel)
            print(
                f"  n={n} {name}: condition {high / low:.1e}, {found.steps} steps; "
                f"λ_min {found.value / low - 1:+.0e}, λ_max {both.largest / high - 1:+.0e}, bound {1 - both.smallest_bound / low:.0e} below"
            )
            for label, mine in (("λ_min", ours), ("both ends", ends), ("both and the bound", proved)):
                against = [
                    f"{other} {theirs[SECONDS] / mine[SECONDS]:.1f} ({theirs[CPU] / mine[CPU]:.1f})"
                    for other, theirs in (("torch", by_torch), ("scipy", by_scipy))
                ]
                print(f"    {label}: {mine[SECONDS]:.2f} s ({mine[CPU]:.2f}); " + ", ".join(against))


if __name__ == "__main__":
    main()

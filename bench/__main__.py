"""``make bench``: the benchmarks that write no page of their own, one after the other."""

from __future__ import annotations

import platform

import torch

from bench import descent


def main() -> None:
    """Print the machine and every table."""
    print(
        f"torch {torch.__version__}, python {platform.python_version()}, {torch.get_num_threads()} threads, {platform.machine()}"
    )
    descent.main()


if __name__ == "__main__":
    main()

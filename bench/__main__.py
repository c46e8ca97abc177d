"""``make bench``: all benchmarks but the kernels' own, one after the other, in about five minutes."""

from __future__ import annotations

import platform

import torch

from bench import descent, gram


def main() -> None:
    """Print the machine and every table."""
    print(
        f"torch {torch.__version__}, python {platform.python_version()}, {torch.get_num_threads()} threads, {platform.machine()}"
    )
    descent.main()
    gram.main()


if __name__ == "__main__":
    main()

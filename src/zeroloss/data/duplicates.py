"""Identical inputs, and the loss that no network can avoid when their targets differ."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

from zeroloss.typing import Rows, Targets


@dataclass(frozen=True)
class Conflict:
    r"""Identical inputs with different targets: whatever the network, it gives them one and the same output.

    Attributes:
        rows: the rows' numbers, ascending.
        unreachable_loss: $\min_c \tfrac12\sum_{i\in\text{rows}}\|c-y_i\|^2$, what these rows add at least to the summed loss.

    Example:
        >>> Conflict(rows=(0, 4), unreachable_loss=1.0).rows
        (0, 4)
    """

    rows: tuple[int, ...]
    unreachable_loss: float


def duplicate_groups(x: Rows) -> tuple[tuple[int, ...], ...]:
    r"""Groups of rows that are equal, $x_i = x_j$ exactly, found in $O(nd)$ by hashing each row's bytes.

    Args:
        x: n×d rows, finite.

    Returns:
        The groups of two rows or more, each ascending, in the order of their first row.

    References:
        AZ Assumption 2.1 ($\delta > 0$) forbids them; THEORY 1.1 asks to detect and report them.

    Example:
        >>> import torch
        >>> duplicate_groups(torch.tensor([[0.0, 1.0], [2.0, 3.0], [-0.0, 1.0]]))
        ((0, 2),)
    """
    # Adding zero turns -0.0 into +0.0; after that, finite floats are equal exactly when their bytes are.
    rows = (x.detach() + 0.0).cpu().contiguous().numpy()
    groups: dict[bytes, list[int]] = {}
    for i, row in enumerate(rows):
        # 32 bytes a row instead of a copy of the data; no two inputs with the same BLAKE2b digest are known.
        groups.setdefault(hashlib.blake2b(row.data, digest_size=32).digest(), []).append(i)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def find_conflicts(duplicates: tuple[tuple[int, ...], ...], y: Targets) -> tuple[Conflict, ...]:
    r"""Those groups of identical inputs whose targets differ, with the loss each makes unreachable.

    One prediction $c$ serves the whole group $R$, and $\tfrac12\sum_{i\in R}\|c-y_i\|^2$ is strictly convex in $c$ with gradient
    $\sum_i (c-y_i)$, so $c=\bar y$ and the floor is $\tfrac12\sum_{i\in R}\|y_i-\bar y\|^2$.

    Args:
        duplicates: groups of row numbers, as ``duplicate_groups`` gives them.
        y: n×k targets.

    Returns:
        One ``Conflict`` for every group that holds two different targets.

    Example:
        >>> import torch
        >>> find_conflicts(((0, 1), (2, 3)), torch.tensor([[1.0], [-1.0], [5.0], [5.0]]))
        (Conflict(rows=(0, 1), unreachable_loss=1.0),)
    """
    found = []
    for rows in duplicates:
        targets = y[list(rows)]
        if not bool((targets != targets[0]).any()):
            continue
        # Scaled, so that squares neither overflow nor vanish; measured from the first target, so that a large common part
        # (targets 1e9 and 1e9 + 1) costs no digits.
        largest = float(targets.abs().max())
        away = targets / largest - targets[0] / largest
        spread = math.fsum(((away - away.mean(0)) ** 2).flatten().tolist())
        found.append(Conflict(rows, 0.5 * spread * largest * largest))
    return tuple(found)

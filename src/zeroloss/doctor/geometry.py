"""What the data alone decide: conflicting targets, repeated rows, rows too near or on one line."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from zeroloss.data import Dataset
from zeroloss.doctor.finding import Finding, Severity, count, listed, percent
from zeroloss.doctor.slow import label_of
from zeroloss.doctor.subject import Subject

PAIRS = 5000  # rows up to which every pair is compared
CLOSE = 1e-3  # of the median distance to the nearest row


def data_findings(subject: Subject, first: float) -> Iterator[Finding]:
    """What is to be said of the data.

    Args:
        subject: whose data.
        first: the loss at the start over all rows, or an estimate of it.

    Yields:
        Findings; conflicts before all others.

    Example:
        >>> from torch import nn
        >>> from zeroloss.doctor.subject import admit
        >>> from zeroloss.training import find_loss
        >>> subject = admit(nn.Linear(1, 1), Dataset([[1.0], [1.0]], [1.0, -1.0]), find_loss("squared"), 10, 0)
        >>> next(data_findings(subject, 2.0)).sentence
        'Rows 0 and 1 are identical but have different targets (1 and -1): no network fits both, and the loss cannot fall below 1, ...'
    """
    data = subject.data
    yield from _conflicts(subject, first)
    plain = [group for group in data.duplicates if group not in {c.rows for c in data.conflicts}]
    if plain:
        extra = sum(len(group) - 1 for group in plain)
        groups = "; ".join(f"rows {listed(group)}" for group in plain[:3]) + ("; ..." if len(plain) > 3 else "")
        yield Finding(
            Severity.SERIOUS,
            "Duplicated rows",
            f"{count(len(plain), 'group')} of identical rows with one target ({groups}): {count(extra, 'row')} "
            f"add{'s' if extra == 1 else ''} "
            "nothing but weight, and the Gram has as many zero eigenvalues for each output (separation 0). Drop the copies.",
            {"groups": len(plain), "extra": extra},
        )
    if zero := int((data.x.flatten(1) == 0).all(dim=1).sum()):
        yield Finding(
            Severity.NOTICE,
            "Zero rows",
            f"{count(zero, 'row')} of x {'is' if zero == 1 else 'are'} zero throughout.",
            {"rows": zero},
        )
    if data.n == 1:
        yield Finding(Severity.INFO, "Separation", "There is 1 row, so nothing to be told apart.", {"rows": 1})
        return
    near = data if data.n <= PAIRS else subject.sample
    yield from _separation(near, subject)
    parallel = [pair for pair in near.parallel if near.nearest[pair[0]] > 0 or near.nearest[pair[1]] > 0]
    if parallel:
        i, j = (_number(near, subject, row) for row in parallel[0])
        yield Finding(
            Severity.NOTICE,
            "Parallel rows",
            f"{count(len(parallel), 'pair')} of rows on one line through the origin (first: rows {i} and {j}): DU's Theorem "
            "5.1 excludes them, "
            "and a ReLU network without biases cannot tell a row from its multiple.",
            {"pairs": len(parallel)},
        )


def _conflicts(subject: Subject, first: float) -> Iterator[Finding]:
    data = subject.data
    if not data.conflicts:
        return
    worst = max(data.conflicts, key=lambda conflict: conflict.unreachable_loss)
    targets = list(dict.fromkeys(label_of(data, row) for row in worst.rows))
    more = f", the first of {len(data.conflicts)} such groups" if len(data.conflicts) > 1 else ""
    if subject.loss.name == "squared":
        floor = f"the loss cannot fall below {data.loss_floor:.3g}, {percent(data.loss_floor / first)} of the first loss"
        if not first > 0:
            floor = f"the loss cannot fall below {data.loss_floor:.3g}"
    else:
        floor = f"the {subject.loss.name} loss cannot reach zero (the squared one not below {data.loss_floor:.3g})"
    yield Finding(
        Severity.CRITICAL,
        "Conflicting labels",
        f"Rows {listed(worst.rows)} are identical but have different targets ({listed(targets)}){more}: no network fits "
        f"both, and {floor}. "
        "Correct the labels, or drop the rows.",
        {
            "groups": len(data.conflicts),
            "unreachable_loss": data.loss_floor,
            "share": data.loss_floor / first if first > 0 else math.inf,
        },
    )


def _separation(near: Dataset, subject: Subject) -> Iterator[Finding]:
    apart = near.nearest[near.nearest > 0]
    finite = apart[torch.isfinite(apart)]
    if not len(finite):
        return
    least, median = float(finite.min()), float(finite.median())
    row = _number(near, subject, int((near.nearest == least).nonzero()[0]))
    whole = "" if near is subject.data or near.n == subject.data.n else f" among the {near.n:,} measured"
    if least < CLOSE * median:
        yield Finding(
            Severity.NOTICE,
            "Near duplicates",
            f"Row {row} is only {least:.3g} from another one{whole}, where the median is {median:.3g}: telling the two apart "
            "takes about "
            f"{(median / least) ** 2:.2g} times as many steps as an ordinary pair.",
            {"separation": least, "median": median},
        )
    else:
        yield Finding(
            Severity.INFO,
            "Separation",
            f"The nearest two different rows{whole} are {least:.3g} apart (the median row is {median:.3g} from its nearest).",
            {"separation": least, "median": median},
        )


def _number(near: Dataset, subject: Subject, row: int) -> int:
    return subject.rows[row] if near is subject.sample else row

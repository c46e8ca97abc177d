"""Plain words for what a study's specification holds in symbols: networks, statuses, judgements."""

from __future__ import annotations

from collections import Counter

from zeroloss.claims.verdict import Judgement, Verdict
from zeroloss.report.format import integer, number, plural
from zeroloss.study.result import NetworkResult, StudyResult

_FAMILIES = {
    "fully_connected": "fully connected network",
    "resnet": "residual network (ResNet)",
    "cnn": "convolutional network",
    "conv_resnet": "convolutional residual network",
}
_SCHEMES = {
    "allen-zhu": "Allen-Zhu, Li and Song",
    "du": "Du, Lee, Li, Wang and Zhai (all weights drawn from N(0, 1))",
}
_ACTIVATIONS = {"relu": "ReLU", "gelu": "GELU"}
_DEPTHS = {"allen-zhu": ("trained hidden layer", "L"), "du": ("hidden layer", "H")}

# a status is always written as a word beside its sign; colour only repeats it
STATUSES = {"CONVERGED": ("✓", "Converged"), "DIVERGED": ("✗", "Diverged"), "MAX_STEPS": ("…", "Budget ended")}
JUDGEMENTS = {
    Judgement.HOLDS: ("✓", "Holds"),
    Judgement.VIOLATED: ("✗", "Violated"),
    Judgement.NOT_APPLICABLE: ("–", "Not applicable"),
    Judgement.INCONCLUSIVE: ("?", "Inconclusive"),
}


def headline(result: StudyResult) -> str:
    """The study in one line.

    Args:
        result: a finished study.

    Returns:
        How many networks reached zero loss, and what that means here.
    """
    converged = sum(network.status == "CONVERGED" for network in result.networks)
    total = plural(len(result.networks), "network")
    return f"{converged} of {total} reached zero loss (below {number(result.study.training.until)} of the first loss)"


def tally(verdicts: tuple[Verdict, ...]) -> str:
    """How the claims came out, counted by judgement.

    Args:
        verdicts: any number of them.

    Returns:
        One line.

    Example:
        >>> tally((Verdict("DU-T1", Judgement.HOLDS, 0.1, 1.0, None, "below the bound"),))
        '1 claim judged: 1 holds'
    """
    if not verdicts:
        return "No claim was judged in this study"
    counts = Counter(verdict.status for verdict in verdicts)
    endings = {
        Judgement.HOLDS: ("holds", "hold"),
        Judgement.VIOLATED: ("is violated", "are violated"),
        Judgement.NOT_APPLICABLE: ("is not applicable", "are not applicable"),
        Judgement.INCONCLUSIVE: ("is inconclusive", "are inconclusive"),
    }
    parts = [f"{integer(counts[j])} {endings[j][counts[j] > 1]}" for j in Judgement if counts[j]]
    return f"{plural(len(verdicts), 'claim')} judged: {', '.join(parts)}"


def width(value: int | tuple[int, ...]) -> str:
    """A width, or one width a layer.

    Args:
        value: as in a network's specification.

    Returns:
        The text.

    Example:
        >>> width((1024, 512))
        '1,024 · 512'
    """
    return integer(value) if isinstance(value, int) else " · ".join(integer(m) for m in value)


def describe(network: NetworkResult) -> str:
    """What a network is: family, scheme, activation, depth, widths, parameters.

    Args:
        network: one network of a study.

    Returns:
        Two sentences.
    """
    spec = network.spec
    layer, letter = _DEPTHS.get(spec.scheme, ("hidden layer", "depth"))
    family, scheme = _FAMILIES.get(spec.family, spec.family), _SCHEMES.get(spec.scheme, spec.scheme)
    trained = (
        f"All {plural(network.parameters, 'parameter')} are trained"
        if network.trained == network.parameters
        else f"{integer(network.trained)} of {plural(network.parameters, 'parameter')} are trained"
    )
    return (
        f"A {family} in the set-up of {scheme}, with {_ACTIVATIONS.get(spec.activation, spec.activation)} activation, "
        f"{plural(spec.depth, layer)} ({letter} = {spec.depth}) and width {width(spec.width)}; drawn with seed {spec.seed}. {trained}."
    )

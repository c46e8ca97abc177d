"""The network as the certificate describes it: stages, one after another, with skips around some."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from zeroloss_verifier.outcome import RejectedError
from zeroloss_verifier.strict_json import a_count, a_list, a_real, a_string, an_object

PADDINGS = ("zeros", "circular")
PARAMETERS: dict[str, dict[str, float | None]] = {  # activation -> its parameters' values where the file leaves them out
    "relu": {},
    "leaky_relu": {"slope": None},
    "abs": {},
    "hard_tanh": {"low": -1.0, "high": 1.0},
    "softplus": {"beta": 1.0},
    "tanh": {},
    "sigmoid": {},
    "erf": {},
    "gelu": {},
    "silu": {},
}


@dataclass(frozen=True)
class Affine:
    """A linear layer, or a convolution where ``kind`` says so; names of its tensors, and which of them are trained."""

    kind: str
    weight: str
    bias: str | None
    trained: frozenset[str]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    padding_mode: str = "zeros"
    dilation: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Activation:
    """A function applied entry by entry."""

    name: str
    parameters: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Scale:
    """Multiplication by a fixed number."""

    factor: float


@dataclass(frozen=True)
class Pool:
    """Averages over windows that cover the image evenly, down to this height and width."""

    to: tuple[int, int]


@dataclass(frozen=True)
class Flatten:
    """An image's numbers in one row: channel by channel, row by row."""


@dataclass(frozen=True)
class Residual:
    """The input plus what the stages make of it."""

    stages: tuple[Stage, ...]


Stage = Affine | Activation | Scale | Pool | Flatten | Residual


def read_network(value: object, where: str = "network") -> tuple[Stage, ...]:
    """The stages of a certificate's ``network``.

    Raises:
        RejectedError: for an unknown kind, an unknown or missing key, or a value out of range.

    Example:
        >>> read_network([{"kind": "activation", "name": "relu"}, {"kind": "flatten"}])
        (Activation(name='relu', parameters=()), Flatten())
    """
    return tuple(_stage(entry, f"{where}[{index}]") for index, entry in enumerate(a_list(value, where)))


def affine_stages(stages: tuple[Stage, ...]) -> Iterator[Affine]:
    """Every layer with weights, in order, those inside skips too."""
    for stage in stages:
        if isinstance(stage, Residual):
            yield from affine_stages(stage.stages)
        elif isinstance(stage, Affine):
            yield stage


def _stage(value: object, where: str) -> Stage:
    if not isinstance(value, dict):
        raise RejectedError(f"{where} is not an object")
    kind = value.get("kind")
    if kind == "linear":
        fields = an_object(value, where, ("kind", "weight", "bias", "trained"))
        return Affine("linear", *_names(fields, where))
    if kind == "conv2d":
        numbers = ("stride", "padding", "dilation")
        fields = an_object(value, where, ("kind", "weight", "bias", "trained", "padding_mode", *numbers))
        mode = a_string(fields["padding_mode"], f"{where}.padding_mode")
        if mode not in PADDINGS:
            raise RejectedError(f"{where}.padding_mode is {mode[:40]!r}; known: {', '.join(PADDINGS)}")
        stride, padding, dilation = (_pair(fields[name], f"{where}.{name}", int(name != "padding")) for name in numbers)
        return Affine("conv2d", *_names(fields, where), stride, padding, mode, dilation)
    if kind == "activation":
        return _activation(value, where)
    if kind == "scale":
        return Scale(a_real(an_object(value, where, ("kind", "factor"))["factor"], f"{where}.factor"))
    if kind == "average_pool":
        return Pool(_pair(an_object(value, where, ("kind", "to"))["to"], f"{where}.to", 1))
    if kind == "flatten":
        an_object(value, where, ("kind",))
        return Flatten()
    if kind == "residual":
        return Residual(read_network(an_object(value, where, ("kind", "stages"))["stages"], f"{where}.stages"))
    raise RejectedError(f"{where} is of the unknown kind {str(kind)[:60]!r}")


def _names(fields: dict[str, object], where: str) -> tuple[str, str | None, frozenset[str]]:
    weight = a_string(fields["weight"], f"{where}.weight")
    bias = None if fields["bias"] is None else a_string(fields["bias"], f"{where}.bias")
    trained = [a_string(part, f"{where}.trained") for part in a_list(fields["trained"], f"{where}.trained")]
    if len(set(trained)) != len(trained) or not set(trained) <= ({"weight"} | ({"bias"} if bias else set())):
        raise RejectedError(f"{where}.trained is {trained}, which are not parts of this stage")
    return weight, bias, frozenset(trained)


def _pair(value: object, where: str, least: int) -> tuple[int, int]:
    pair = [a_count(side, where, least) for side in a_list(value, where)]
    if len(pair) != 2:
        raise RejectedError(f"{where} has {len(pair)} numbers, not 2")
    return pair[0], pair[1]


def _activation(value: dict[str, object], where: str) -> Activation:
    name = a_string(value.get("name"), f"{where}.name")
    if name not in PARAMETERS:
        raise RejectedError(f"{where} is the unknown activation {name[:60]!r}")
    default = PARAMETERS[name]
    required = [key for key, standard in default.items() if standard is None]
    fields = an_object(value, where, ("kind", "name", *required), default)
    numbers = {key: a_real(fields[key], f"{where}.{key}") if key in fields else default[key] for key in default}
    if name == "softplus" and not (numbers["beta"] or 0) > 0:
        raise RejectedError(f"{where}.beta is not positive")
    if name == "hard_tanh" and not (numbers["low"] or 0.0) < (numbers["high"] or 0.0):
        raise RejectedError(f"{where}: low is not below high")
    return Activation(name, tuple((key, number) for key, number in numbers.items() if number is not None))

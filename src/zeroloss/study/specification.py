"""What a study is asked to do: a typed value that a TOML file or flags fill in, and whose hash names the run folder."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from zeroloss.errors import ArgumentError, FileError, unknown_name
from zeroloss.networks import ACTIVATIONS, SCHEMES
from zeroloss.training import LOSSES, check_budget, check_momentum, check_schedule, check_step

FAMILIES = ("fully_connected", "resnet", "cnn", "conv_resnet")
LABELS = ("true", "random", "noisy")
DTYPES = ("float32", "float64")
T = TypeVar("T")


@dataclass(frozen=True)
class DataSpec:
    """Which rows to train on; the first fields are the arguments of :func:`zeroloss.load`.

    Args:
        labels: ``"true"``, ``"random"`` (drawn anew for every row), or ``"noisy"`` (a share ``noise`` of them replaced by another).
        noise: that share.
    """

    source: str = "digits"
    n: int | None = None
    classes: tuple[str | int, ...] | None = None
    normalise: str = "auto"
    size: int | None = None
    root: str | None = None
    seed: int = 0
    labels: str = "true"
    noise: float = 0.2

    def __post_init__(self) -> None:
        if self.labels not in LABELS:
            raise unknown_name("labels", self.labels, LABELS)
        if not 0 <= self.noise <= 1:
            raise ArgumentError("noise", f"is {self.noise!r}", "pass a share of the labels, 0 to 1")


@dataclass(frozen=True)
class NetworkSpec:
    """One network of a study; the fields are the arguments of its builder, None where the builder's own default stands."""

    name: str
    family: str = "fully_connected"
    scheme: str = "du"
    activation: str = "erf"
    width: int | tuple[int, ...] = 1024
    depth: int = 2
    seed: int = 0
    trained: str | tuple[str, ...] | None = None
    tau: float | str | None = None
    block: int | None = None
    last_plain: bool | None = None
    c_res: float | None = None
    kernel: int | tuple[int, ...] | None = None
    padding: str | None = None
    variance: str | None = None

    def __post_init__(self) -> None:
        for argument, value, known in (
            ("family", self.family, FAMILIES),
            ("scheme", self.scheme, SCHEMES),
            ("activation", self.activation, ACTIVATIONS),
        ):
            if value not in known:
                raise unknown_name(argument, value, known)

    @property
    def images(self) -> bool:
        """Whether the network takes images rather than rows."""
        return self.family in ("cnn", "conv_resnet")

    @property
    def options(self) -> dict[str, Any]:
        """The arguments that only some builders have, as far as they are given."""
        named = ("trained", "tau", "block", "last_plain", "c_res", "kernel", "padding", "variance")
        return {name: value for name in named if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class TrainingSpec:
    """How to train; the fields are the arguments of :func:`zeroloss.descend`."""

    loss: str = "squared"
    step: str | float = "auto"
    batch: int | None = None
    replacement: bool = False
    momentum: float = 0.0
    schedule: tuple[tuple[int, float], ...] = ()
    max_steps: int = 10_000
    until: float = 1e-8
    stop_when_fitted: bool = False
    seed: int = 0
    dtype: str = "float32"
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise unknown_name("dtype", self.dtype, DTYPES)
        if self.loss not in LOSSES:
            raise unknown_name("loss", self.loss, LOSSES)
        check_budget(self.max_steps, self.until)
        check_step(self.step)
        check_momentum(self.momentum)
        check_schedule(self.schedule)
        if self.batch is not None and self.batch < 1:
            raise ArgumentError("batch", f"is {self.batch}", "pass a whole number of at least 1")


# two digits that look alike, and few enough rows that the whole spectrum is at hand
DEFAULT_DATA = DataSpec("digits", n=100, classes=(3, 8))
# the three networks of the papers, at a width and depth with which 100 digits take seconds
DEFAULT_NETWORKS = (
    NetworkSpec("AZ fully connected, ReLU", "fully_connected", "allen-zhu", "relu", 1024, 3),
    NetworkSpec("DU fully connected, erf", "fully_connected", "du", "erf", 1024, 2),
    NetworkSpec("DU ResNet, erf", "resnet", "du", "erf", 1024, 3),
)


@dataclass(frozen=True)
class Study:
    """A whole study: data, networks, training, and whether to judge the claims.

    Example:
        >>> Study().data.source, len(Study().networks)
        ('digits', 3)
    """

    data: DataSpec = DEFAULT_DATA
    networks: tuple[NetworkSpec, ...] = DEFAULT_NETWORKS
    training: TrainingSpec = field(default_factory=TrainingSpec)
    claims: bool = True

    def __post_init__(self) -> None:
        if not self.networks:
            raise ArgumentError("networks", "is empty", "name at least one network")
        names = [network.name for network in self.networks]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ArgumentError("networks", f"has two called {repeated[0]!r}", "give each its own name")

    @property
    def key(self) -> str:
        """A hash of everything in the study: the same study has the same key on every machine."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:10]

    def to_toml(self) -> str:
        """The study as a TOML file that :func:`read_study` reads back."""
        return tomli_w.dumps(_without_none(asdict(self)))


def read_study(path: str | Path) -> Study:
    """Read a study from a TOML file.

    Args:
        path: the file; every field may be left out, and unknown fields are refused by name.

    Returns:
        The study.

    Raises:
        FileError: for a file that is missing or is not TOML.
        ArgumentError: for an unknown field or a value of the wrong type.
    """
    try:
        with Path(path).open("rb") as file:
            table = tomllib.load(file)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise FileError(path, f"cannot be read ({reason})", "check the path") from error
    except tomllib.TOMLDecodeError as error:
        raise FileError(path, f"is not TOML: {error}", "compare it with the study.toml of a run folder") from error
    return study_from(table)


def study_from(table: dict[str, Any]) -> Study:
    """A study from nested plain values, as TOML or JSON give them.

    Args:
        table: keys ``data``, ``networks``, ``training``, ``claims``, all optional.

    Returns:
        The study.

    Raises:
        ArgumentError: for an unknown field or a value of the wrong type.

    Example:
        >>> study_from({"data": {"n": 20}}).data.n
        20
    """
    _known("study", table, Study)
    networks = table.get("networks")
    if networks is not None and not isinstance(networks, list | tuple):
        raise ArgumentError("networks", f"is {type(networks).__name__}", "write one [[networks]] table a network")
    return Study(
        data=_build("data", table["data"], DataSpec) if "data" in table else DEFAULT_DATA,
        networks=DEFAULT_NETWORKS if networks is None else tuple(_build("networks", t, NetworkSpec) for t in networks),
        training=_build("training", table.get("training", {}), TrainingSpec),
        claims=_typed("claims", table.get("claims", True), bool),
    )


# what each field may hold; tuple means a list in TOML
_TYPES: dict[str, tuple[type, ...]] = {
    "source": (str,),
    "n": (int,),
    "classes": (tuple,),
    "normalise": (str,),
    "root": (str,),
    "size": (int,),
    "seed": (int,),
    "labels": (str,),
    "noise": (float, int),
    "name": (str,),
    "family": (str,),
    "scheme": (str,),
    "activation": (str,),
    "width": (int, tuple),
    "depth": (int,),
    "trained": (str, tuple),
    "tau": (str, float, int),
    "block": (int,),
    "last_plain": (bool,),
    "c_res": (float, int),
    "kernel": (int, tuple),
    "padding": (str,),
    "variance": (str,),
    "loss": (str,),
    "step": (str, int, float),
    "batch": (int,),
    "replacement": (bool,),
    "momentum": (float, int),
    "schedule": (tuple,),
    "stop_when_fitted": (bool,),
    "max_steps": (int,),
    "until": (float, int),
    "dtype": (str,),
    "device": (str,),
}


def _build(where: str, table: object, kind: type[T]) -> T:
    if not isinstance(table, dict):
        raise ArgumentError(where, f"is {type(table).__name__}", f"write it as a [{where}] table")
    _known(where, table, kind)
    if kind is NetworkSpec and "name" not in table:
        raise ArgumentError(where, "has a network without a name", "add name = '...'")
    optional = {f.name for f in fields(kind) if f.default is None}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, value in table.items():
        plain = _tuples(value)
        if plain is None and name in optional:
            values[name] = None
        else:
            values[name] = _typed(f"{where}.{name}", plain, *_TYPES[name])
    return kind(**values)


def _known(where: str, table: dict[str, Any], kind: type) -> None:
    names = {f.name for f in fields(kind)}
    for name in table:
        if name not in names:
            raise unknown_name(f"{where} field", name, names)


def _typed(name: str, value: Any, *types: type) -> Any:
    wrong_bool = isinstance(value, bool) and bool not in types
    if wrong_bool or not isinstance(value, types):
        wanted = " or ".join("list" if t is tuple else t.__name__ for t in types)
        raise ArgumentError(name, f"is {value!r}", f"write a {wanted}")
    if float in types and isinstance(value, int):
        try:
            return float(value)
        except OverflowError:
            raise ArgumentError(name, f"has {len(str(value))} digits", "write a number that float64 can hold") from None
    return value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def _without_none(value: Any) -> Any:
    """TOML has no null: a field that is None is left out, and every such field is None by default."""
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_without_none(v) for v in value]
    return value

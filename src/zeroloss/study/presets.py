"""Ready-made studies, one a theorem, at sizes that a laptop trains in seconds to minutes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from zeroloss.errors import unknown_name
from zeroloss.study.specification import DataSpec, NetworkSpec, Study, TrainingSpec

PAIR = DataSpec("digits", n=100, classes=(3, 8))
ALL_TEN = DataSpec("digits", n=100)


@dataclass(frozen=True)
class Preset:
    """A study with the theorem that it shows.

    Args:
        name: what ``zeroloss study --preset`` calls it.
        statement: the theorem in one sentence.
        study: what runs.
    """

    name: str
    statement: str
    study: Study


def _study(network: NetworkSpec, data: DataSpec = PAIR, **training: object) -> Study:
    return Study(data, (network,), replace(TrainingSpec(), **training))  # type: ignore[arg-type]


AZ_PLAIN = NetworkSpec("AZ fully connected, ReLU", "fully_connected", "allen-zhu", "relu", 1024, 3)
AZ_NARROW = replace(AZ_PLAIN, width=512)  # one step a batch: many steps, so each has to be cheap

PRESETS: tuple[Preset, ...] = (
    Preset("default", "Both papers' networks on one pair of digits.", Study()),
    Preset("az-theorem-1", "Gradient descent trains a wide ReLU network to zero loss at a linear rate.", _study(AZ_PLAIN)),
    Preset(
        "az-theorem-2", "So does stochastic gradient descent, here in batches of 10.", _study(AZ_NARROW, batch=10, until=1e-6)
    ),
    Preset(
        "az-theorem-5-dominant",
        "A gradient-dominant loss, even a non-convex one, is trained at a linear rate.",
        _study(AZ_PLAIN, loss="sine", until=1e-6),
    ),
    Preset(
        "az-theorem-5-convex",
        "A convex loss falls at least like 1/k.",
        _study(AZ_PLAIN, loss="quartic", until=1e-4),
    ),
    Preset(
        "az-theorem-5-nonconvex",
        "A bounded non-convex loss loses its gradient in the outputs.",
        _study(AZ_PLAIN, loss="welsch", until=1e-6),
    ),
    Preset(
        "az-theorem-5-cross-entropy",
        "Cross-entropy reaches 100 % training accuracy.",
        _study(AZ_PLAIN, ALL_TEN, loss="cross_entropy", stop_when_fitted=True),
    ),
    Preset(
        "az-theorem-6",
        "Theorem 1 for convolutional networks.",
        _study(NetworkSpec("AZ CNN, ReLU", "cnn", "allen-zhu", "relu", 128, 2)),
    ),
    Preset(
        "az-theorem-7",
        "Theorem 1 for residual networks.",
        _study(NetworkSpec("AZ ResNet, ReLU", "resnet", "allen-zhu", "relu", 1024, 3)),
    ),
    Preset(
        "du-theorem-5.1",
        "Gradient descent trains a wide network with a smooth activation to zero loss at a linear rate.",
        _study(NetworkSpec("DU fully connected, erf", "fully_connected", "du", "erf", 1024, 2)),
    ),
    Preset(
        "du-theorem-6.1",
        "So it does a residual network, whose width need not grow exponentially with its depth.",
        _study(NetworkSpec("DU ResNet, erf", "resnet", "du", "erf", 1024, 3)),
    ),
    Preset(
        "du-theorem-7.1",
        "So it does a convolutional residual network.",
        _study(NetworkSpec("DU conv ResNet, erf", "conv_resnet", "du", "erf", 128, 2)),
    ),
)


def find_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ArgumentError: for a name that is not in the list.

    Example:
        >>> find_preset("az-theorem-6").study.networks[0].family
        'cnn'
    """
    for preset in PRESETS:
        if preset.name == name:
            return preset
    raise unknown_name("preset", name, [preset.name for preset in PRESETS])

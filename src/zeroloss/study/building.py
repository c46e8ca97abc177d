"""From a specification to the thing itself: networks, data, devices."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable

import torch

from zeroloss.data import Dataset, load, with_noisy_labels, with_random_labels
from zeroloss.errors import ArgumentError
from zeroloss.networks import Network, cnn, conv_resnet, fully_connected, resnet
from zeroloss.study.specification import DataSpec, NetworkSpec

BUILDERS: dict[str, Callable[..., Network]] = {
    "fully_connected": fully_connected,
    "resnet": resnet,
    "cnn": cnn,
    "conv_resnet": conv_resnet,
}


def build(spec: NetworkSpec, inputs: int | tuple[int, int, int], outputs: int, dtype: torch.dtype = torch.float64) -> Network:
    """Build the network of a specification.

    Args:
        spec: what to build.
        inputs: d, or (c, h, w) for a convolutional one.
        outputs: k.
        dtype: of its weights.

    Returns:
        The network at its initial weights.

    Raises:
        ArgumentError: for an option that its builder does not have, or a value that it refuses.

    Example:
        >>> build(NetworkSpec("small", width=8, depth=1), inputs=3, outputs=1).architecture.family
        'fully_connected'
    """
    builder = BUILDERS[spec.family]
    for option in spec.options:
        if option not in inspect.signature(builder).parameters:
            raise ArgumentError(option, f"is given for a {spec.family} network, which has none", "leave it out")
    return builder(
        inputs,
        spec.width,
        spec.depth,
        outputs,
        activation=spec.activation,
        scheme=spec.scheme,
        seed=spec.seed,
        dtype=dtype,
        **spec.options,
    )


def build_for(spec: NetworkSpec, data: Dataset, dtype: torch.dtype = torch.float64) -> Network:
    """Build the network of a specification for the data that :func:`data_for` gives it."""
    shape = data.x.shape[1:]
    return build(spec, (shape[0], shape[1], shape[2]) if len(shape) == 3 else shape[0], data.outputs, dtype)


def data_for(spec: NetworkSpec, data: Dataset) -> Dataset:
    """The data as the network takes it: images for a convolutional one, rows for the others.

    Raises:
        ArgumentError: where a convolutional network meets rows that are no images.
    """
    return data.as_images() if spec.images else data.as_rows()


def with_width(spec: NetworkSpec, width: int, seed: int) -> NetworkSpec:
    """The same network at one width for all layers and another seed."""
    return dataclasses.replace(spec, width=width, seed=seed)


def load_data(spec: DataSpec) -> Dataset:
    """Load the rows of a specification, flat, with the labels that it asks for."""
    data = load(
        spec.source, n=spec.n, classes=spec.classes, normalise=spec.normalise, size=spec.size, root=spec.root, seed=spec.seed
    )
    match spec.labels:
        case "random":
            return with_random_labels(data, spec.seed)
        case "noisy":
            return with_noisy_labels(data, spec.noise, spec.seed)
        case _:
            return data


def find_device(name: str) -> torch.device:
    """The device of that name; ``"auto"`` is CUDA where there is one.

    Raises:
        ArgumentError: for a device that torch does not know or does not have.

    Example:
        >>> find_device("cpu").type
        'cpu'
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        if device.type == "meta":  # tensors without values
            raise RuntimeError("meta")
    except (RuntimeError, AssertionError) as error:
        raise ArgumentError("device", f"is {name!r}, which is not there", "pass 'cpu', or leave it at 'auto'") from error
    return device

"""From a specification to the thing itself: networks, data, devices."""

from __future__ import annotations

import dataclasses

import torch

from zeroloss.data import Dataset, load
from zeroloss.errors import ArgumentError
from zeroloss.networks import Network, fully_connected, resnet
from zeroloss.study.specification import DataSpec, NetworkSpec


def build(spec: NetworkSpec, inputs: int, outputs: int, dtype: torch.dtype = torch.float64) -> Network:
    """Build the network of a specification.

    Args:
        spec: what to build.
        inputs: d.
        outputs: k.
        dtype: of its weights.

    Returns:
        The network at its initial weights.

    Example:
        >>> build(NetworkSpec("small", width=8, depth=1), inputs=3, outputs=1).architecture.family
        'fully_connected'
    """
    builder = fully_connected if spec.family == "fully_connected" else resnet
    return builder(
        inputs, spec.width, spec.depth, outputs, activation=spec.activation, scheme=spec.scheme, seed=spec.seed, dtype=dtype
    )


def with_width(spec: NetworkSpec, width: int, seed: int) -> NetworkSpec:
    """The same network at one width for all layers and another seed."""
    return dataclasses.replace(spec, width=width, seed=seed)


def load_data(spec: DataSpec) -> Dataset:
    """Load the rows of a specification, flat."""
    return load(spec.source, n=spec.n, classes=spec.classes, normalise=spec.normalise, root=spec.root, seed=spec.seed)


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

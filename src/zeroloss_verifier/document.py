"""A certificate's two files, read and held to their format; the tensors are bound to the JSON by a sha256."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from zeroloss_verifier.network import Stage, affine_stages, read_network
from zeroloss_verifier.outcome import RejectedError, TooLargeError
from zeroloss_verifier.strict_json import a_count, a_list, a_real, a_string, an_object, read_json
from zeroloss_verifier.tensors import Tensor, read_tensors

METHODS = ("flow", "gd", "sgd", "newton")
LARGEST_JSON = 16_000_000
LARGEST_TENSORS = 2_000_000_000
COUNTS = ("samples", "outputs", "N", "P")
CONSTANTS = ("residual", "sigma0", "beta0", "lipschitz", "R")
FLOW = ("path", "alpha", "rate", "h")
SECTIONS = {
    "gd": ("step", "c", "R", "lipschitz", "beta", "alpha", "q", "path"),
    "sgd": ("step", "batch", "R", "lipschitz", "beta", "alpha", "q", "delta"),
    "newton": ("D0", "R", "lipschitz", "h", "radius"),
}


@dataclass(frozen=True)
class Certificate:
    """What the two files say, before anything of it is believed.

    Args:
        method: which theorem the certificate is about.
        network: its stages.
        tensors: parameters by name, ``x``, ``y`` and ``multiplicity``.
        counts: samples, outputs, N, P.
        constants: the bounds claimed at the weights and on the ball.
        flow: path, alpha, rate and h, or empty where gradient flow is not claimed.
        sections: of gd, sgd and newton, those that are claimed.
    """

    method: str
    network: tuple[Stage, ...]
    tensors: dict[str, Tensor]
    counts: dict[str, int]
    constants: dict[str, float]
    flow: dict[str, float]
    sections: dict[str, dict[str, float]] = field(default_factory=dict)


def read_certificate(path: str | os.PathLike[str]) -> Certificate:
    """Both files of a certificate.

    Args:
        path: of the JSON, with or without its ending.

    Returns:
        What they say.

    Raises:
        FileNotFoundError: where there is no such JSON.
        RejectedError: where they are not what the format says.
        TooLargeError: where one is longer than the verifier reads.
    """
    place = Path(path)
    if not place.is_file() and place.suffix != ".json":
        place = place.with_name(f"{place.name}.json")
    if not place.exists():
        raise FileNotFoundError(f"there is no certificate at {place}")
    document = an_object(
        read_json(_bytes(place, LARGEST_JSON), place.name),
        "the certificate",
        ("format", "version", "method", "status", "tensors", "network", "claims", *SECTIONS, "assumptions", "made_by"),
    )
    if document["format"] != "zeroloss-certificate":
        raise RejectedError(f"its format is {str(document['format'])[:60]!r}, not 'zeroloss-certificate'")
    if a_count(document["version"], "version") != 1:
        raise RejectedError(f"its version is {document['version']}; this verifier knows version 1")
    method = a_string(document["method"], "method")
    if method not in METHODS:
        raise RejectedError(f"its method is {method[:60]!r}; known: {', '.join(METHODS)}")
    if document["status"] != "PROVED":
        raise RejectedError(f"its status is {str(document['status'])[:60]!r}: it does not claim to prove anything")
    for line in a_list(document["assumptions"], "assumptions"):
        a_string(line, "an assumption")
    a_string(document["made_by"], "made_by")
    network = read_network(document["network"])
    claims = an_object(document["claims"], "claims", (*COUNTS, *CONSTANTS), FLOW)
    counts = {name: a_count(claims[name], f"claims.{name}", 1) for name in COUNTS}
    constants = {name: a_real(claims[name], f"claims.{name}", least=0.0) for name in CONSTANTS}
    flow = {name: a_real(claims[name], f"claims.{name}", least=0.0) for name in FLOW if name in claims}
    if (flow and len(flow) != len(FLOW)) or (method == "flow" and not flow):
        raise RejectedError(f"claims has {', '.join(flow) or 'none'} of {', '.join(FLOW)}")
    sections = {name: _section(document[name], name) for name in SECTIONS if document[name] is not None}
    if method != "flow" and method not in sections:
        raise RejectedError(f"its method is {method}, and {method} is null")
    return Certificate(method, network, _tensors(document["tensors"], place, network), counts, constants, flow, sections)


def _section(value: object, name: str) -> dict[str, float]:
    fields = an_object(value, name, SECTIONS[name])
    return {
        key: float(a_count(entry, f"{name}.{key}", 1)) if key == "batch" else a_real(entry, f"{name}.{key}", least=0.0)
        for key, entry in fields.items()
    }


def _tensors(value: object, place: Path, network: tuple[Stage, ...]) -> dict[str, Tensor]:
    fields = an_object(value, "tensors", ("file", "sha256"))
    name, digest = a_string(fields["file"], "tensors.file"), a_string(fields["sha256"], "tensors.sha256")
    if not re.fullmatch(r"(?!\.)[^/\\\x00:]{1,255}", name) or Path(name).name != name:
        raise RejectedError(f"tensors.file is {name[:60]!r}, not the plain name of a file beside the certificate")
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise RejectedError("tensors.sha256 is not 64 hexadecimal digits")
    beside = place.with_name(name)
    if not beside.exists():
        raise RejectedError(f"the tensors' file {name} is not beside the certificate")
    raw = _bytes(beside, LARGEST_TENSORS)
    if hashlib.sha256(raw).hexdigest() != digest:  # the same bytes are read below: nobody can swap the file in between
        raise RejectedError(f"the sha256 of {name} is not the certificate's: the weights or the data were changed")
    tensors = read_tensors(raw, name)
    used = [part for stage in affine_stages(network) for part in (stage.weight, stage.bias) if part is not None]
    if len(set(used)) != len(used):
        raise RejectedError("one parameter is used in two places; the bounds hold for parameters that are used once")
    wanted = {*used, "x", "y", "multiplicity"}
    if {"x", "y", "multiplicity"} & set(used):
        raise RejectedError("a parameter is named x, y or multiplicity")
    if wanted != set(tensors):
        odd = sorted(wanted ^ set(tensors))
        raise RejectedError(f"{name} and the network disagree about the tensor {odd[0][:60]!r}")
    return tensors


def _bytes(place: Path, most: int) -> bytes:
    about = place.stat()
    if not stat.S_ISREG(about.st_mode):  # opening a pipe would wait for ever
        raise RejectedError(f"{place.name} is not a regular file")
    if about.st_size > most:
        raise TooLargeError(f"{place.name} has {about.st_size} bytes, more than the {most} that are read")
    with place.open("rb") as file:
        return file.read(most)

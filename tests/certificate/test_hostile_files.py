"""Files that are no certificates: malformed, misleading, or no files at all; refused with a reason, without a crash."""

from __future__ import annotations

import json
import os
import struct

import pytest

from tests.certificate.networks import small
from tests.certificate.test_tampering import rejected, signed
from zeroloss_verifier import verify


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


ONE = b'"x":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}'


def entry(dtype="F64", shape=(1,), offsets=(0, 8)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


HOSTILE = {
    "empty": b"",
    "short": b"\1\0\0",
    "huge header": struct.pack("<Q", 2**63) + b"{}",
    "header beyond the end": struct.pack("<Q", 100) + b"{}      ",
    "not json": safetensors(b"{{{{{{{{"),
    "a list": safetensors([1, 2, 3]),
    "deep": safetensors(b"[" * 100_000),
    "twice": safetensors(b"{" + ONE + b"," + ONE + b"}", bytes(8)),
    "float32": safetensors({"x": entry("F32", (2,))}, bytes(8)),
    "overlap": safetensors({"x": entry(), "y": entry()}, bytes(8)),
    "gap": safetensors({"x": entry(), "y": entry(offsets=(16, 24))}, bytes(24)),
    "trailing": safetensors({"x": entry()}, bytes(16)),
    "beyond": safetensors({"x": entry(offsets=(8, 16))}, bytes(8)),
    "negative": safetensors({"x": entry(offsets=(-8, 0))}, bytes(8)),
    "backwards": safetensors({"x": entry(offsets=(8, 0))}, bytes(8)),
    "overflow": safetensors({"x": entry(shape=(2**40, 2**40))}, bytes(8)),
    "no rows": safetensors({"x": entry(shape=(0,), offsets=(0, 0))}),
    "fraction": safetensors(b'{"x":{"dtype":"F64","shape":[1.0],"data_offsets":[0,8]}}', bytes(8)),
    "a string": safetensors({"x": "F64"}, bytes(8)),
    "not utf8": safetensors(b'{"\xff":1}'),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tensors(name, tmp_path):
    assert rejected(signed(small("relu"), tmp_path, HOSTILE[name])).reason.startswith("net.safetensors")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'"x"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 5000,
        b'{"format": NaN}',
        b'{"format": 1e999}',
        b'{"format": ' + b"9" * 100_000 + b"}",
        b'{"format": "zeroloss-certificate", "format": "zeroloss-certificate"}',
        b"\0" * 1000,
        b'{"\\ud800": 1}',
    ],
)
def test_hostile_json(text, tmp_path):
    path = tmp_path / "net.json"
    path.write_bytes(text)
    assert rejected(path).reason.startswith(("net.json", "the certificate"))


ELSEWHERE = ["../net.safetensors", "/etc/passwd", "a/b", "..", ".", "", "net.json/../net.safetensors", "c:net", "a\\b", "x\0y"]


@pytest.mark.parametrize("name", [*ELSEWHERE, ".hidden", "n" * 300, "absent"])
def test_the_tensors_lie_beside_the_certificate(tmp_path, name):
    inner = tmp_path / "inner"
    inner.mkdir()
    small("relu").write(tmp_path)
    path = small("relu").write(inner)
    document = json.loads(path.read_text())
    document["tensors"]["file"] = name
    path.write_text(json.dumps(document))
    assert "file" in rejected(path).reason


def test_places_that_are_no_files(tmp_path):
    (tmp_path / "folder.json").mkdir()
    assert "regular file" in rejected(tmp_path / "folder.json").reason
    os.mkfifo(tmp_path / "pipe.json")
    assert "regular file" in rejected(tmp_path / "pipe.json").reason
    path = small("relu").write(tmp_path)
    (tmp_path / "net.safetensors").unlink()
    os.mkfifo(tmp_path / "net.safetensors")
    assert "regular file" in rejected(path).reason


def test_geometry_that_would_never_end(tmp_path):
    made = small("strided").copy()
    made.document["network"][0]["padding"] = [10**17, 0]
    assert not verify(made.write(tmp_path)).accepted
    made.document["network"][0]["padding"] = [9_000, 9_000]
    assert verify(made.write(tmp_path)).status == "TOO_LARGE"
    for key, value in (
        ("stride", [0, 1]),
        ("dilation", [10**17, 1]),
        ("padding", [-1, 0]),
        ("stride", [1]),
        ("padding_mode", "reflect"),
    ):
        made = small("strided").copy()
        made.document["network"][0][key] = value
        rejected(made.write(tmp_path))
    made = small("relu").copy()
    made.document["network"] += [{"kind": "scale", "factor": (1.0).hex()}] * 50_000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zeroloss_verifier.work.MOST_PRODUCTS", 10**8)
        assert verify(made.write(tmp_path)).status == "TOO_LARGE"

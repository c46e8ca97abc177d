"""The diagnosis page: whole, alone, escaped, and the same for the same diagnosis."""

from __future__ import annotations

import base64
import struct
import zlib

import pytest
import torch
from torch import nn

from tests.doctor.patients import digits, mlp
from zeroloss import Dataset, FileError, diagnose
from zeroloss.report.diagnosis_page import render_diagnosis, thumbnails, write_diagnosis
from zeroloss.report.picture import data_url


def test_a_picture_is_the_image():
    image = torch.arange(12, dtype=torch.float64).reshape(1, 3, 4)
    png = base64.b64decode(data_url(image).partition(",")[2])
    assert struct.unpack(">II", png[16:24]) == (4, 3)
    start = png.index(b"IDAT")
    (length,) = struct.unpack(">I", png[start - 4 : start])
    body = zlib.decompress(png[start + 4 : start + 4 + length])
    lines = [body[i * 5 + 1 : i * 5 + 5] for i in range(3)]
    assert [list(line) for line in lines] == [[round(255 * v / 11) for v in range(4 * i, 4 * i + 4)] for i in range(3)]
    assert struct.unpack(">I", png[start + 4 + length : start + 8 + length])[0] == zlib.crc32(png[start : start + 4 + length])


def test_colour_and_constant_pictures():
    assert data_url(torch.zeros(3, 2, 2)).startswith("data:image/png")
    assert data_url(torch.rand(5, 2, 2)).startswith("data:image/png")


def test_the_page_is_the_same_for_the_same_diagnosis(tmp_path):
    data = digits(20)
    found = diagnose(mlp(), data, trial_steps=4)
    path = write_diagnosis(found, data, tmp_path)
    first = path.read_bytes()
    assert write_diagnosis(found, data, tmp_path).read_bytes() == first
    assert [t.row for t in thumbnails(found, data)] == list(found.slowest_samples)


def test_names_are_escaped_and_rows_have_no_pictures():
    data = Dataset(torch.eye(4, dtype=torch.float64), torch.ones(4, 1), None, "<b>evil</b>")
    page = render_diagnosis(diagnose(mlp(4), data, trial_steps=4), data)
    assert "<b>evil</b>" not in page
    assert "&lt;b&gt;evil" in page
    assert "<img" not in page


def test_a_network_without_gradient_has_a_page():
    network = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        network.weight.zero_()
    data = Dataset(torch.zeros(3, 4), torch.ones(3, 1))
    page = render_diagnosis(diagnose(network, data), data)
    assert "Zero gradient" in page
    assert "Nothing to draw" in page


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    data = digits(10)
    with pytest.raises(FileError, match="cannot be written"):
        write_diagnosis(diagnose(mlp(), data, trial_steps=4), data, tmp_path / "file")

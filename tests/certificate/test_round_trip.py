"""What certify saves, the independent verifier accepts: every kind of network, every theorem."""

from __future__ import annotations

import pytest
import torch

from tests.certificate.problems import dense, families, inputs, interpolate
from zeroloss import Dataset, certify
from zeroloss.certificate import Status

verifier = pytest.importorskip("zeroloss_verifier")
FAMILIES = families()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_accepted(name, tmp_path):
    module, shape = FAMILIES[name]
    x = inputs(shape, 2, 3)
    found = certify(module, Dataset(x, module(x).detach()), method="gd")
    if found.status is Status.PROVED:
        verified = verifier.verify(found.save(tmp_path / "proof"))
        assert verified.status == "ACCEPTED", verified.reason


@pytest.mark.parametrize("method", ["flow", "gd", "sgd", "newton"])
def test_repeated_rows_and_every_theorem(method, tmp_path):
    module = dense((4, 24, 1), torch.nn.Tanh)
    x, y = inputs((4,), 5), inputs((1,), 5, 1)
    data = Dataset(torch.cat((x, x[:2], x[:1])), torch.cat((y, y[:2], y[:1])))
    interpolate(module, data)
    found = certify(module, data, method=method, batch=3 if method == "sgd" else None)
    assert found.status is Status.PROVED
    verified = verifier.verify(found.save(tmp_path / "proof"))
    assert verified.status == "ACCEPTED", verified.reason

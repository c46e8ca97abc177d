"""The benchmark of finite Grams: small networks go through it, peers where they are installed, and what fails is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bench.gram import Case, difference, marks, run
from bench.gram_process import NNG, NT, NT_STRUCTURED, OURS, RECIPE, Measured, Way, best, inputs, measure
from bench.page import Page
from bench.peers.gram_networks import network

from bench import gram as bench_gram
from bench import peer


def explicit(name: str, n: int) -> np.ndarray:
    """The Jacobian's product with itself, an output at a time, in float64."""
    net = network(name).double()
    outputs = net(torch.from_numpy(inputs(name, n)).double())
    parameters = list(net.parameters())
    total = np.zeros((n, n))
    for a in range(outputs.shape[1]):
        grads = [torch.autograd.grad(value, parameters, retain_graph=True) for value in outputs[:, a]]
        jacobian = torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in grads])
        total += (jacobian @ jacobian.T).numpy()
    return total / outputs.shape[1]


def installed(way: Way) -> bool:
    return not way.environment or (peer.STORE / way.environment / "bin" / "python").exists()


@pytest.mark.parametrize("name", ["small-dense", "small-dense-10", "small-convolutional", "small-resnet"])
def test_every_way_gives_the_explicit_gram(name):
    wanted = explicit(name, 5)
    for way in (OURS, RECIPE):
        found = measure(way, name, 5, seconds=1, rounds=1, patience=60)
        assert found.reason == ""
        assert np.linalg.norm(found.matrix - wanted) < 1e-5 * np.linalg.norm(wanted)
        assert found.seconds > 0
        assert 50 < found.memory < 2000


@pytest.mark.slow
@pytest.mark.parametrize("way", [NNG, NT, NT_STRUCTURED], ids=lambda way: way.name)
@pytest.mark.parametrize("name", ["small-dense-10", "small-convolutional"])
def test_peers_give_it_too(way, name):
    if not installed(way):
        pytest.skip(f"{way.environment} is not installed; make bench-gram installs it")
    found = measure(way, name, 5, seconds=1, rounds=1, patience=100)
    wanted = explicit(name, 5)
    assert found.reason == ""
    assert np.linalg.norm(found.matrix - wanted) < 1e-5 * np.linalg.norm(wanted)


def test_what_takes_too_long_or_breaks_is_a_reason():
    assert measure(RECIPE, "small-dense", 5, seconds=1, patience=0.2).reason == "stopped after 0 s"
    broken = Way("none", "no_such_script.py")
    assert "No such file" in measure(broken, "small-dense", 5, seconds=1).reason


def test_what_takes_too_much_memory_is_stopped(monkeypatch):
    monkeypatch.setattr("bench.gram_process.MEMORY", 50)
    assert measure(RECIPE, "small-dense", 5, seconds=1).reason == "stopped above 0.05 GB"


def test_the_quickest_of_several_counts_with_the_largest_memory():
    several = [Measured(2.0, 10.0), Measured(1.0, 5.0), Measured(reason="no")]
    assert (best(several).seconds, best(several).memory) == (1.0, 10.0)
    assert best([Measured(reason="no")]).reason == "no"


@pytest.mark.slow
def test_a_page_holds_the_table_and_the_marks(monkeypatch):
    case = Case("Small", "small-dense", (4, 8), ((RECIPE, 4),))
    monkeypatch.setitem(bench_gram.CASES, "dense", case)
    page = Page(300)
    found = run(page, case, turns=1)
    marks(page, "dense", found)
    text = "\n".join(page.lines)
    assert text.count("| ours |") == 2
    assert text.count("| torch.func |") == 1
    assert "Ours grows as n to the power" in text
    met = {what: answer for what, _, _, answer in page.marks}
    assert met["Small, n=4: torch.func differs from ours by"] == "yes"
    assert met["Small, n=4: ours / nngeometry"] == "–"
    assert "Small, n=4: torch.func / ours" in met


def test_a_wrong_matrix_is_noticed():
    ours, other = Measured(1.0, 1.0, np.eye(3, dtype=np.float32)), Measured(1.0, 1.0, 1.001 * np.eye(3, dtype=np.float32))
    assert difference(ours, other) == pytest.approx(1e-3, rel=1e-3)
    assert difference(ours, ours) is None

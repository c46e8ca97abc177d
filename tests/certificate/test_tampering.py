"""Nothing false, changed or malformed is accepted, and nothing crashes the verifier."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import struct

import pytest
import torch

from tests.certificate.bounds import own_bound
from tests.certificate.maker import Made, act, linear, make, with_gd, with_newton, with_sgd
from tests.certificate.networks import NETWORKS, rows, small
from zeroloss_verifier import verify
from zeroloss_verifier.outcome import Verified

HAIR = 1e-9


@pytest.fixture(scope="module")
def whole() -> Made:
    """One certificate with every section."""
    stages, shapes, x = NETWORKS["biases"]
    made = make(stages, shapes, x, lipschitz=own_bound, gap=3e-8, repeats=[1, 2, 1, 4, 3, 1])
    return with_newton(with_sgd(with_gd(made, own_bound), own_bound, reach=300.0), own_bound)


def paths(value, at=()):
    """The place of everything in the document, containers too."""
    if at:
        yield at
    if isinstance(value, dict):
        for key in value:
            yield from paths(value[key], (*at, key))
    if isinstance(value, list):
        for index, entry in enumerate(value):
            yield from paths(entry, (*at, index))


def put(document, at, value, *, delete=False):
    changed = copy.deepcopy(document)
    inner = changed
    for key in at[:-1]:
        inner = inner[key]
    if delete:
        del inner[at[-1]]
    else:
        inner[at[-1]] = value
    return changed


def rejected(path) -> Verified:
    answer = verify(path)
    assert answer.status == "REJECTED", answer
    assert answer.reason
    assert "\n" not in answer.reason
    return answer


def test_the_whole_one_is_accepted(whole, tmp_path):
    answer = verify(whole.write(tmp_path))
    assert answer.accepted, answer.reason
    assert sum("Theorem" in line for line in answer.covered) == 4


def test_every_field_matters(whole, tmp_path):
    """Every field but free text: removed, renamed, or of another type."""
    path = whole.write(tmp_path)
    document = json.loads(path.read_text())
    free = {("made_by",), ("assumptions", 0)}
    count = 0
    for at in paths(document):
        if isinstance(at[-1], str):
            path.write_text(json.dumps(put(document, at, None, delete=True)))
            rejected(path)
        for other in (None, 7, -1, True, "x", "", [], {}, [[]], {"x": 1}, "0x1.0000000000000p-4000", "nan", "0x1.8p+1", 1e400):
            old = document
            for key in at:
                old = old[key]
            # a bias, and gd, sgd and newton, may be absent; an empty list of assumptions or of trained parts is still a list
            if other == old or (other is None and at[0] in ("gd", "sgd")) or (other == [] and at == ("assumptions",)):
                continue
            if (at in free and isinstance(other, str)) or (at == ("sgd", "batch") and other == 7):  # true of larger batches too
                continue
            path.write_text(json.dumps(put(document, at, other)))
            assert not verify(path).accepted, (at, other)
            count += 1
    assert count > 800


def test_unknown_keys_are_refused_everywhere(whole, tmp_path):
    path = whole.write(tmp_path)
    document = json.loads(path.read_text())
    places = [at for at in paths(document) if isinstance(at[-1], str)]
    for at in places:
        path.write_text(json.dumps(put(document, (*at[:-1], "surprise"), 1)))
        assert "surprise" in rejected(path).reason


BETTER = {
    "claims": {"residual": -1, "sigma0": 1, "beta0": -1, "lipschitz": -1, "path": -1, "alpha": 1, "rate": 1, "h": -1},
    "gd": {"c": 1, "lipschitz": -1, "beta": -1, "alpha": 1, "q": -1, "path": -1, "step": 1},
    "sgd": {"lipschitz": -1, "beta": -1, "alpha": 1, "q": -1},
    "newton": {"lipschitz": -1, "h": -1},
}


@pytest.mark.parametrize(("section", "name"), [(section, name) for section, names in BETTER.items() for name in names])
def test_a_claim_better_by_a_hair_is_refused(whole, tmp_path, section, name):
    hair = 1e-6 if name == "residual" else HAIR  # float64, in which it was made, knows no more of its digits
    changed = whole.set(section, **{name: whole.claim(name, section) * (1 + BETTER[section][name] * hair)})
    if section == "claims" and name != "h":  # h is what follows from the others
        changed = changed.set(h=changed.claim("lipschitz") * changed.claim("residual") / changed.claim("sigma0") ** 2)
    if name == "sigma0" or (section == "newton" and name != "h"):
        changed = changed.set(
            "newton", h=changed.claim("lipschitz", "newton") * changed.claim("D0", "newton") / changed.claim("sigma0")
        )
    reason = rejected(changed.write(tmp_path)).reason
    expected = {
        "residual": "residual is",
        "sigma0": "singular value",
        "beta0": "norm of the",
        "lipschitz": "Lipschitz",
        "h": "h = ",
    }
    if section == "claims":
        assert expected.get(name, f"Theorem 1: {name}") in reason
    elif name == "lipschitz":
        assert f"larger than {section}.lipschitz" in reason
    else:
        assert "Theorem" in reason or "h = " in reason


@pytest.mark.parametrize(
    ("section", "changes"),
    [
        ("claims", {"R": 0.999}),  # below the path
        ("gd", {"R": 1e-3}),
        ("gd", {"step": 5.0}),
        ("sgd", {"delta": 0.99}),
        ("sgd", {"R": 2.0}),
        ("newton", {"D0": 1 - 1e-6}),
        ("newton", {"radius": 1 / 3.1}),
        ("newton", {"R": 0.999}),  # below the radius
        ("newton", {"radius": 1.001}),  # above R
    ],
)
def test_a_section_must_hold_together(whole, tmp_path, section, changes):
    if section == "claims":
        changed = whole.set(R=whole.claim("path") * changes["R"])
    else:
        changed = whole.set(section, **{name: whole.claim(name, section) * factor for name, factor in changes.items()})
    reason = rejected(changed.write(tmp_path)).reason
    theorem = {"claims": "Theorem 1: ", "gd": "Theorem 2: ", "sgd": "Theorem 3: ", "newton": "Theorem 4: "}[section]
    assert reason.startswith("h = lipschitz D0 / sigma0 " if "D0" in changes else theorem)


@pytest.mark.parametrize("name", ["samples", "outputs", "N", "P"])
def test_counts_are_those_of_the_tensors(whole, tmp_path, name):
    changed = whole.copy()
    changed.document["claims"][name] += 1
    assert f"claims.{name}" in rejected(changed.write(tmp_path)).reason


def regions(raw: bytes) -> list[int]:
    """Bytes to flip: of the length, of the header, and of every tensor its first, middle and last numbers' eight bytes."""
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    at = [*range(8), *range(8, 8 + length, 7)]
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, stop = (8 + length + offset for offset in entry["data_offsets"])
        for first in {start, start + 8 * ((stop - start) // 16), stop - 8}:
            at += range(first, first + 8)
    return at


def test_every_class_of_bytes_of_the_tensors_is_bound_by_the_digest(whole, tmp_path):
    path = whole.write(tmp_path)
    beside = tmp_path / "net.safetensors"
    raw = beside.read_bytes()
    for at in regions(raw):
        for bit in (0, 7):
            beside.write_bytes(raw[:at] + bytes([raw[at] ^ (1 << bit)]) + raw[at + 1 :])
            assert "sha256" in rejected(path).reason
    for changed in (raw[:-1], raw + b"\0", b"", raw[:8]):
        beside.write_bytes(changed)
        assert "sha256" in rejected(path).reason
    beside.write_bytes(raw)
    assert verify(path).accepted


def signed(made: Made, tmp_path, raw: bytes, name: str = "net"):
    """The certificate with these bytes for its tensors, and their digest: a forger's."""
    path = made.write(tmp_path, name)
    document = json.loads(path.read_text())
    (tmp_path / f"{name}.safetensors").write_bytes(raw)
    document["tensors"]["sha256"] = hashlib.sha256(raw).hexdigest()
    path.write_text(json.dumps(document))
    return path


def test_a_forger_who_signs_changed_bytes_is_refused_too(tmp_path):
    made = small("relu")
    made.write(tmp_path)
    raw = (tmp_path / "net.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    for at in [*range(8), *range(8, 8 + length, 3)]:
        if raw[at] == 0x20:
            continue  # padding of the header
        for bit in (1, 6):
            changed = raw[:at] + bytes([raw[at] ^ (1 << bit)]) + raw[at + 1 :]
            assert not verify(signed(made, tmp_path, changed)).accepted, at
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, stop = (8 + length + offset for offset in entry["data_offsets"])
        for first in {start, stop - 8}:
            for at, bit in ((7, 7), (7, 6), (7, 0), (6, 7), (5, 3)):  # sign, exponents, leading digits of a number
                place = first + at
                changed = raw[:place] + bytes([raw[place] ^ (1 << bit)]) + raw[place + 1 :]
                assert not verify(signed(made, tmp_path, changed)).accepted, (name, at, bit)


def two_layers(x: torch.Tensor, **options) -> Made:
    shapes = {"A.weight": (40, x.shape[1]), "B.weight": (1, 40)}
    return make([linear("A"), act(options.pop("sigma", "tanh")), linear("B")], shapes, x, lipschitz=own_bound, **options)


@pytest.mark.parametrize("distance", [1e-3, 1e-6, 1e-9, 1e-12, 0.0])
def test_near_duplicates_have_the_singular_value_they_have(distance, tmp_path):
    x = rows()
    x[1] = x[0]
    x[1, 0] += distance
    made = two_layers(x, gap=1e-30)
    sigma = max(made.claim("sigma0"), 1e-300)
    if distance >= 1e-6:
        assert verify(made.set(sigma0=sigma, rate=made.claim("rate") / 2).write(tmp_path)).accepted
    rejected(made.set(sigma0=sigma * (1.01 if distance >= 1e-9 else 1e9)).write(tmp_path))
    if distance == 0.0:
        rejected(made.set(sigma0=1e-200).write(tmp_path))


def test_conflicting_and_repeated_rows(tmp_path):
    made = small("relu")
    changed = made.copy()
    changed.tensors["multiplicity"][1] += 1
    assert "residual" in rejected(changed.write(tmp_path)).reason  # the weighted one is another
    for wrong in (0.0, -1.0, 1.5, math.nan, math.inf, 2.0**60):
        changed.tensors["multiplicity"][1] = wrong
        assert "multiplicity" in rejected(changed.write(tmp_path)).reason


@pytest.mark.parametrize(("trained", "words"), [(["bias"], "N = 12 exceeds P = 2"), ([], "claims.P is 0")])
def test_more_equations_than_unknowns(tmp_path, trained, words):
    made = small("biases").copy()  # 12 equations
    for stage in (made.stages[0], made.stages[2], made.stages[4]):
        stage["trained"] = []
    made.stages[4]["trained"] = trained
    made.document["claims"]["P"] = 2 * len(trained)
    assert words in rejected(made.write(tmp_path)).reason


def test_a_unit_on_its_kink_or_within_reach_of_it_is_refused(tmp_path):
    x = rows()
    for shift in (0.0, 1e-13):
        made = two_layers(x, sigma="relu")
        w = made.tensors["A.weight"]
        w[3] -= (w[3] @ x[2] - shift) * x[2] / (x[2] @ x[2])
        made.tensors["y"] = torch.relu(x @ w.T) @ made.tensors["B.weight"].T
        assert not verify(made.write(tmp_path)).accepted


def test_a_larger_ball_than_the_pieces_allow_is_refused(tmp_path):
    made = small("relu")
    far = made.set(R=10.0)
    assert "kink" in rejected(far.write(tmp_path)).reason


def test_a_parameter_used_twice_is_refused(tmp_path):
    stages = [linear("A"), act("tanh"), linear("C"), act("tanh"), linear("B")]
    shapes = {"A.weight": (5, 5), "C.weight": (5, 5), "B.weight": (4, 5)}
    made = make(stages, shapes, rows(3), lipschitz=own_bound)
    changed = made.copy()
    changed.document["network"][2]["weight"] = "A.weight"
    assert "two places" in rejected(changed.write(tmp_path)).reason


@pytest.mark.parametrize("method", ["gd", "sgd", "newton", "flow"])
def test_a_method_without_its_section_is_refused(method, tmp_path):
    made = small("relu").copy()
    made.document["method"] = method
    if method == "flow":
        for name in ("path", "alpha", "rate", "h"):
            del made.document["claims"][name]
    words = "claims has none of path" if method == "flow" else f"its method is {method}, and {method} is null"
    assert words in rejected(made.write(tmp_path)).reason


def test_overflow_and_subnormal_weights(tmp_path):
    for factor, words in ((1e300, "could not be decided"), (1e-310, "residual")):
        made = small("biases").copy()
        made.tensors["A.weight"] *= factor
        assert words in rejected(made.write(tmp_path)).reason


def test_what_is_too_large_is_never_accepted(tmp_path, monkeypatch):
    made = small("relu")
    for name, least in (("MOST_ROWS", 5), ("MOST_PRODUCTS", 1000), ("MOST_NUMBERS", 100)):
        with monkeypatch.context() as patch:
            patch.setattr(f"zeroloss_verifier.work.{name}", least)
            answer = verify(made.write(tmp_path))
        assert answer.status == "TOO_LARGE"
        assert not answer.accepted
    for name in ("LARGEST_JSON", "LARGEST_TENSORS"):
        with monkeypatch.context() as patch:
            patch.setattr(f"zeroloss_verifier.document.{name}", 100)
            assert verify(made.write(tmp_path)).status == "TOO_LARGE"
    assert verify(made.write(tmp_path)).accepted


def test_a_fault_of_the_verifier_is_no_acceptance(tmp_path, monkeypatch):
    path = small("relu").write(tmp_path)

    def fails(*_):
        raise ZeroDivisionError("somewhere")

    monkeypatch.setattr("zeroloss_verifier.checking.run_passes", fails)
    assert "ZeroDivisionError" in rejected(path).reason

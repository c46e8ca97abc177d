"""The figures one by one: what is thinned, what is left out and said to be, what is not drawn at all."""

import math
import re

import pytest

from tests.report.report_factory import PROBED, a_network, a_probe, some_data, spaced
from zeroloss.report.canvas import POINTS, draw, plain_label, thin
from zeroloss.report.figures import drift_figure, loss_figure, nearest_figure, rayleigh_figure, spectrum_figure


def points(svg):
    """Points of the longest path."""
    return max(path.count("L") + 1 for path in re.findall(r' d="([^"]*)"', svg))


@pytest.mark.parametrize("count", [0, 1, 2, 399, 400, 401, 10_000])
def test_thinning_keeps_both_ends_and_repeats_nothing(count):
    kept = thin(count)
    assert kept == sorted(set(kept))
    assert len(kept) == min(count, POINTS)
    assert not count or (kept[0], kept[-1]) == (0, count - 1)


def test_long_spectra_and_curves_are_thinned():
    long = tuple(range(10_000))
    network = a_network(
        limit_spectrum=spaced(1, 1e6, 1000),
        finite_spectrum=spaced(1, 1e6, 1000),
        curve_steps=long,
        curve_loss=spaced(40, 4e-7, 10_000),
        curve_predicted=spaced(40, 4e-7, 10_000),
    )
    assert points(spectrum_figure(network).svg) == POINTS
    assert points(loss_figure(network, 1e-8).svg) == POINTS


def test_eigenvalues_that_are_not_positive_are_counted():
    panel = spectrum_figure(a_network(limit_spectrum=(-1e-9, 0.0, 1.0), finite_spectrum=(0.5, 1.0, 2.0)))
    assert "2 values not above zero are not shown" in panel.caption
    assert "1 value not above zero is not shown" in spectrum_figure(a_network(limit_spectrum=(0.0, 1.0))).caption
    assert "not above zero" not in spectrum_figure(a_network()).caption
    assert not spectrum_figure(a_network(limit_spectrum=(0.0,), finite_spectrum=(-1.0,))).svg
    assert not spectrum_figure(a_network(limit_spectrum=(), finite_spectrum=())).svg


def test_the_target_is_drawn_where_it_was_reached():
    assert ">target<" in loss_figure(a_network(), 1e-8).svg
    assert ">target<" not in loss_figure(a_network(status="MAX_STEPS"), 1e-8).svg


@pytest.mark.parametrize("first", [0.0, math.nan, math.inf])
def test_a_first_loss_without_a_ratio_draws_nothing(first):
    panel = loss_figure(a_network(curve_steps=(0,), curve_loss=(first,), curve_predicted=(first,)), 1e-8)
    assert not panel.svg
    assert "no ratio" in panel.caption


def test_a_loss_of_one_step_is_a_mark():
    panel = loss_figure(a_network(curve_steps=(0,), curve_loss=(3.0,), curve_predicted=(3.0,)), 1e-8)
    assert "<use" in panel.svg
    assert not loss_figure(a_network(curve_steps=(), curve_loss=(), curve_predicted=()), 1e-8).svg


@pytest.mark.parametrize("extreme", [1e307, 1e-307, 5e-324, 1.7e308])
def test_extreme_values_do_not_break_an_axis(extreme):
    loss = (1.0, extreme)
    assert loss_figure(a_network(curve_steps=(0, 1), curve_loss=loss, curve_predicted=loss), 1e-8).svg
    assert spectrum_figure(a_network(limit_spectrum=(extreme,), finite_spectrum=(extreme,))).svg


def test_one_probe():
    network = a_network(probes=(a_probe(0),))
    assert not drift_figure(network).svg
    assert "no movement was measured" in drift_figure(network).caption
    assert rayleigh_figure(network).svg
    assert not rayleigh_figure(a_network(probes=())).svg


def test_a_probe_that_is_not_a_number():
    broken = a_probe(8, loss=math.nan, gradient_norm=math.nan, smallest=-1.0, largest=math.nan, gram_drift=math.nan)
    panel = rayleigh_figure(a_network(probes=(a_probe(0), broken)))
    assert panel.svg
    assert "At 1 probe" in panel.caption
    assert drift_figure(a_network(probes=(a_probe(0), a_probe(4), broken))).svg


def test_many_layers_are_drawn_in_part_and_it_says_so():
    layers = tuple(f"W{i}.weight" for i in range(1, 31))
    panel = drift_figure(a_network(probes=tuple(a_probe(k, layers) for k in PROBED)))
    assert "6 of 30 layers are drawn" in panel.caption
    drawn = re.findall(r">(W\d+)<", panel.svg)
    assert len(drawn) == 6
    assert {drawn[0], drawn[-1]} == {"W1", "W30"}


def test_a_layer_that_did_not_move_is_skipped_without_a_word_of_trouble():
    still = {"W1.weight": 0.0, "W2.weight": 1e-3}
    assert drift_figure(a_network(probes=tuple(a_probe(k, weight_drift=still) for k in PROBED))).svg
    assert not drift_figure(a_network(probes=(a_probe(1, weight_drift={"W1": 0.0}, gram_drift=0.0),))).svg


@pytest.mark.parametrize("nearest", [(0.0, 0.0), (0.5, 0.5), (1e-12, 3.0), (1e9, 1e9 + 1)])
def test_histograms_of_few_or_equal_distances(nearest):
    assert nearest_figure(some_data(n=2, nearest=nearest, separation=nearest[0])).svg


def test_colours_follow_the_page():
    svg = spectrum_figure(a_network()).svg
    assert "currentColor" in svg
    assert "var(--blue)" in svg
    assert not re.search(r"#[0-9a-f]{6}\b(?!\")", re.sub(r'(url\(|href=")#\w+', "", svg))


def test_lambda_is_set_with_a_lowered_index():
    assert re.search(r">λ<tspan[^>]*>min</tspan>", rayleigh_figure(a_network()).svg)


@pytest.mark.parametrize("name", ["$", "$$", "a$b$c", r"\alpha", "_", "x" * 200, "\x00", "\ud800", "数"])
def test_any_label_can_be_drawn(name):
    svg = draw("any", lambda axes: axes.plot([0, 1], [0, 1], label=plain_label(name)))
    assert "<text" in svg
    assert len(max(re.findall(r">([^<]*)</text>", svg), key=len)) <= 25

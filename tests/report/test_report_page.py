"""The page as a whole: everything is on it, nothing is fetched, nothing is let through unescaped."""

import functools
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib
import pytest

from tests.report.report_factory import PROBED, a_network, a_probe, a_result, a_verdict, some_data, spaced
from zeroloss.claims.verdict import Judgement
from zeroloss.errors import FileError
from zeroloss.report import write_report
from zeroloss.report.page import render
from zeroloss.study.result import Forecast, read_result, write_result
from zeroloss.study.specification import NetworkSpec, Study

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Collects tags, attributes, ids, headings and text, and insists that elements nest."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.attributes, self.ids, self.text, self.headings = [], [], [], [], "", []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


@functools.cache
def default_html():
    return render(a_result())


def page_of(**changes):
    return Page(render(a_result(**changes)))


def one(network, **changes):
    return page_of(networks=(network,), study=Study(networks=(network.spec,)), **changes)


def without_networks(**changes):
    return page_of(networks=(), **changes)


def test_the_file_is_written_whole_into_a_new_folder(tmp_path):
    path = write_report(a_result(), str(tmp_path / "run"))
    assert path == tmp_path / "run" / "report.html"
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    assert path.stat().st_size < 1_500_000


def test_a_folder_that_cannot_be_written_is_the_callers_mistake(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"report\.html: cannot be written .*; name a folder"):
        write_report(a_result(), tmp_path / "file")


def test_the_same_result_gives_the_same_bytes_and_leaves_matplotlib_as_it_was(tmp_path):
    result = a_result(networks=(a_network(),))
    write_result(result, tmp_path)
    first = write_report(result, tmp_path).read_bytes()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.hashsalt": None}):  # a user's own settings
        before = dict(matplotlib.rcParams)
        assert write_report(read_result(tmp_path), tmp_path).read_bytes() == first
        assert dict(matplotlib.rcParams) == before


def test_every_network_and_verdict_appears_in_order():
    result = a_result()
    html = default_html()
    for i, network in enumerate(result.networks, start=1):
        assert f'href="#network-{i}">{network.spec.name}</a>' in html
        assert f'id="network-{i}">{network.spec.name} ' in html
    assert re.findall(r'<th scope="row" role="rowheader">(AZ-\d+)', html) == [v.claim for v in result.verdicts]
    text = Page(html).text
    assert all(v.reason in text and v.regime in text for v in result.verdicts)
    assert result.summary in text
    assert "3 of 3 networks reached zero loss" in text
    assert "13 claims judged: 10 hold, 1 is violated, 1 is not applicable, 1 is inconclusive" in text
    order = ["at a glance", "geometry", *(f'id="network-{i}"' for i in (1, 2, 3)), 'id="claims"', 'id="limits"', 'id="making"']
    assert [html.index(mark) for mark in order] == sorted(html.index(mark) for mark in order)


def test_status_is_a_word_and_not_only_a_colour():
    networks = tuple(
        a_network(NetworkSpec(s.lower()), status=s, loss_ratio=0.5) for s in ("CONVERGED", "DIVERGED", "MAX_STEPS", "NEW")
    )
    verdicts = tuple(a_verdict(i, status=j) for i, j in enumerate(Judgement))
    html = render(a_result(networks=networks, verdicts=verdicts))
    chips = re.findall(r'class="chip ([\w-]+)"><span aria-hidden="true">.</span> ([^<]+)<', html)
    words = {"converged": "Converged", "diverged": "Diverged", "max-steps": "Budget ended", "new": "NEW"}
    claims = {
        "holds": "Holds",
        "violated": "Violated",
        "not-applicable": "Not applicable",
        "inconclusive": "Inconclusive",
    }
    assert dict(chips) == words | claims


def test_nothing_is_fetched():
    html = default_html()
    assert not re.search(r"https?:|//[a-z]|@import|\bsrc=|xmlns|xlink|<script|<iframe|<object|<embed|<base", html)
    assert set(re.findall(r"url\(([^)]*)\)", html)) == set(re.findall(r"url\((#[\w-]+)\)", html))
    assert all(target == "data:," or target.startswith("#") for target in re.findall(r'href="([^"]*)"', html))
    assert "default-src 'none'" in html


def test_the_page_is_well_formed_with_unique_ids_and_orderly_headings():
    page = Page(default_html())
    assert len(page.ids) == len(set(page.ids))
    assert page.headings[0] == 1
    assert all(later - earlier <= 1 for earlier, later in zip(page.headings, page.headings[1:], strict=False))
    assert page.headings.count(1) == 1
    assert ("lang", "en") in page.attributes
    assert page.tags.count("svg") == page.attributes.count(("role", "img")) == 13
    assert page.tags.count("figure") == page.tags.count("figcaption") == 13
    targets = {value[1:] for name, value in page.attributes if name == "href" and value.startswith("#")}
    clips = {value[5:-1] for name, value in page.attributes if name == "clip-path"}
    assert clips
    assert targets | clips <= set(page.ids)


HOSTILE = "<script>alert('x')</script> \"&amp;\" $x_1$ {{ 7*7 }} 数\x07"


def test_names_from_users_files_come_out_escaped():
    network = a_network(
        NetworkSpec(HOSTILE), explanation=HOSTILE, probes=tuple(a_probe(k, (HOSTILE, "_W$", "x$y$")) for k in PROBED)
    )
    page = one(
        network,
        data=some_data(name=HOSTILE, classes=(HOSTILE, "</style>")),
        verdicts=(a_verdict(claim=HOSTILE, subject=HOSTILE, reason=HOSTILE, regime=HOSTILE),),
        summary=HOSTILE,
        environment={HOSTILE: HOSTILE},
        timings={HOSTILE: 1.0},
    )
    assert "script" not in page.tags
    assert page.text.count("<script>alert('x')</script>") >= 12
    assert "{{ 7*7 }}" in page.text
    assert sum(HOSTILE.rstrip("\x07") in (value or "") for name, value in page.attributes if name == "aria-label") == 5
    assert "_W$" in page.text


def test_an_svg_escapes_a_layers_name():
    html = render(a_result(networks=(a_network(probes=tuple(a_probe(k, ("<script>1</script>",)) for k in PROBED)),)))
    assert re.search(r"<text[^>]*>&lt;script&gt;1&lt;/script&gt;</text>", html)
    assert "<script" not in html


def test_a_diverged_run_says_so():
    bad = (*(40 * 1.5**k for k in range(30)), math.inf, math.nan)
    network = a_network(
        status="DIVERGED",
        steps=31,
        loss_ratio=math.nan,
        curve_steps=tuple(range(32)),
        curve_loss=bad,
        curve_predicted=bad,
        forecast=Forecast(None, False, math.inf, math.inf),
        probes=(a_probe(0), a_probe(16, gradient_norm=1e200), a_probe(31, loss=math.nan, smallest=math.nan, gram_drift=math.inf)),
    )
    text = one(network).text
    for words in (
        "0 of 1 network reached",
        "Diverged",
        "never",
        "not a number",
        "∞",
        "2 recorded losses are infinite or not a number",
    ):
        assert words in text


def test_a_run_that_ended_with_its_budget():
    network = a_network(status="MAX_STEPS", loss_ratio=0.31, forecast=Forecast(123_456, False, 0.3, 2.4e9))
    assert "beyond the budget" in one(network).text
    assert "never" in one(replace(network, forecast=Forecast(None, False, 0.3, math.inf))).text


def test_one_row():
    data = some_data(n=1, nearest=(), separation=math.inf, classes=("3",), counts=(1,))
    network = a_network(limit_spectrum=(3.0,), finite_spectrum=(2.9,))
    text = one(network, data=data).text
    assert "none (one row)" in text
    assert "fewer than two rows" in text
    assert "fewer than two rows" in one(network, data=replace(data, nearest=(math.inf,))).text


def test_regression_has_no_classes():
    assert "The targets are numbers, not classes." in without_networks(data=some_data(classes=(), counts=())).text


def test_conflicts_name_rows_and_the_loss_they_cost():
    text = without_networks(
        data=some_data(conflicts=tuple((i, i + 20) for i in range(9)), duplicates=((1, 2),), loss_floor=4.5)
    ).text
    assert "9 groups" in text
    assert "(0, 20) (1, 21)" in text
    assert "and 3 more groups" in text
    assert "cannot fall below 4.50" in text


def test_no_verdicts_no_networks_no_environment():
    page = without_networks(verdicts=(), environment={}, timings={})
    assert "No claim was judged" in page.text
    assert "No network was trained" in page.text
    assert page.tags.count("table") == 0


def test_ten_networks_with_long_spectra_stay_small():
    networks = tuple(
        a_network(
            NetworkSpec(f"network {i}"),
            limit_spectrum=spaced(1, 1e6, 1000),
            finite_spectrum=spaced(1, 1e6, 1000),
            curve_steps=tuple(range(9000)),
            curve_loss=spaced(40, 4e-7, 9000),
            curve_predicted=spaced(40, 4e-7, 9000),
        )
        for i in range(10)
    )
    html = render(a_result(networks=networks))
    assert len(html.encode()) < 1_500_000
    assert html.count("<svg") == 41


def test_how_to_make_it_again():
    result = a_result()
    text = Page(default_html()).text
    assert result.study.to_toml() in text
    assert "zeroloss study --from study.toml" in text
    assert "seen outside the proven regime" in text
    assert "23.4 s" in text
    assert "2.13.0" in text

"""The doctor's report: one page that stands by itself, with headings in order and a text for every figure."""

import base64
import warnings
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from broken_networks import BROKEN, dead_channels

import qlearn as ql
from qlearn.analysis.doctor.faults import FAULTS
from qlearn.analysis.doctor.finding import Diagnosis, Finding, Gain, Remedy
from qlearn.report import html_report, write_report

EMPTY = {"img", "meta", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """Headings, pictures, text; refuses tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.headings, self.images, self.text, self.tags = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag in {"h1", "h2", "h3", "h4"}:
            self.headings.append(int(tag[1]))
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


@pytest.fixture(scope="module")
def ill():
    return dead_channels("tiny_mobilenet").diagnose(measure=True)


def test_the_page_says_what_the_diagnosis_says(ill, tmp_path):
    write_report(ill, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    words = " ".join(" ".join(page.text).split())
    (finding,) = ill.findings
    assert ill.headline in words
    assert finding.sentence in words
    assert all(str(remedy) in words for remedy in finding.remedies)
    assert all(row.site in words for row in ill.layers)
    assert text.count('<th scope="row">') == len(ill.layers)
    assert text.lower().count("http") == 0, "nothing is fetched"
    assert "script" not in page.tags


def test_headings_do_not_skip_and_every_figure_has_a_text(ill):
    page = Page(html_report(ill))
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    assert len(page.images) == 3
    for image in page.images:
        assert len(image["alt"]) > 40
        kind, data = image["src"].split(",", 1)
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data)[1:4] == b"PNG"


def test_healthy_networks_and_saved_ones():
    page = Page(html_report(Diagnosis("net", 3, ())))
    assert f"No finding ({len(FAULTS)} of {len(FAULTS)} kinds" in " ".join(page.text)
    make, network = BROKEN["logits saturate, no float network"]
    alone = Page(html_report(make(network).diagnose()))
    assert not alone.images
    assert "What could not be looked for" in " ".join(alone.text)


def test_what_people_write_is_escaped():
    odd = "<b>&\"'"
    finding = Finding(
        "few_bits", odd, odd, 0.5, {"x_y": float("nan")}, (1,), (Remedy(odd, gain=Gain("agreement", 0, 1)),)
    )
    page = Page(html_report(Diagnosis(odd, 1, (finding,), (finding,), {"raw_pixels": odd})))
    assert "b" not in page.tags
    assert odd in "".join(page.text)


def test_warnings_stand_above_the_findings(ill):
    page = html_report(replace(ill, warnings=("learned & kept",)))
    assert page.index("learned &amp; kept") < page.index("<h2>Findings")


def test_a_page_for_every_kind_of_finding():
    for what in ("batch norms not folded", "a layer in float", "range of one layer x100"):
        make, network = BROKEN[what]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            broken = make(network)
            assert Page(html_report(broken.diagnose())).headings[0] == 1
    assert isinstance(broken.diagnose(), ql.Diagnosis)

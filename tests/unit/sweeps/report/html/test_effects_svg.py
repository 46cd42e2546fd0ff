"""The pictures of what the axes do hold the numbers of the findings, at their places."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from sweeps.report import render_html, summarize
from sweeps.report.analysis.wording import number, percent
from sweeps.report.html.effects_svg import LEFT, RIGHT, WIDTH, effects_pictures
from sweeps.report.html.page_findings import effect_heads, effect_rows
from tests.support.report_journals import axes_of, crossed, definition, demo_stories, journal


@pytest.fixture(scope="module")
def summary():
    return summarize(journal(crossed(60)))


def test_each_metric_with_effects_has_a_picture_in_the_order_of_the_page(summary):
    fitted = {e.metric for e in summary.effects}
    assert [p.metric for p in effects_pictures(summary)] == [m for m in summary.panels if m in fitted]


def test_a_range_stands_at_its_numbers_and_is_hollow_where_nothing_is_told(summary):
    for picture in effects_pictures(summary):
        svg = ET.fromstring(picture.svg)
        effects = [e for e in summary.effects if e.metric == picture.metric]
        drawn = [g for g in svg.iter("g") if g.get("class", "").startswith("effect")]
        assert len(drawn) == len(effects)
        low, high = min(0, *(e.difference.low for e in effects)), max(0, *(e.difference.high for e in effects))
        scale = (WIDTH - LEFT - RIGHT - 12) / (high - low)
        zero = float(next(x for x in svg.iter("line") if x.get("class") == "base").get("x1"))
        for g, e in zip(drawn, effects, strict=True):
            line, dot = g.find("line"), g.find("circle")
            places = [float(line.get("x1")) - zero, float(dot.get("cx")) - zero, float(line.get("x2")) - zero]
            wanted = [scale * v for v in (e.difference.low, e.difference.value, e.difference.high)]
            assert places == pytest.approx(wanted, abs=0.2)
            assert ("open" in g.get("class")) == (not e.difference.real)
            assert number(e.difference.value, signed=True) in g.findall("text")[-1].text


def test_bars_are_as_long_as_the_shares_that_stand_beside_them_largest_first(summary):
    picture = effects_pictures(summary)[0]
    svg = ET.fromstring(picture.svg)
    shares = sorted((i for i in summary.importances if i.metric == picture.metric), key=lambda i: -i.share)
    bars = list(svg.iter("rect"))
    assert [float(r.get("width")) for r in bars] == pytest.approx(
        [max(i.share * (WIDTH - LEFT - RIGHT), 1) for i in shares], abs=0.1
    )
    texts = [t.text for t in svg.iter("text") if t.get("class") == "value"][: len(shares)]
    assert texts == [percent(i.share) for i in shares]
    assert [("open" in r.get("class")) for r in bars] == [not i.real for i in shares]


@pytest.mark.parametrize("goal", ["maximize", "minimize"])
def test_a_colour_says_better_or_worse_and_not_more_or_less(goal):
    stories = crossed(60)
    spec = definition(axes_of(stories), objective={"metric": "transfer/score", "goal": goal}, constraints=[])
    summary = summarize(journal(stories, spec=spec))
    effect = next(e for e in summary.effects if e.metric == "transfer/score" and e.difference.real)
    wanted = "up" if (effect.difference.value > 0) == (goal == "maximize") else "down"
    picture = next(p for p in effects_pictures(summary) if p.metric == "transfer/score")
    drawn = {
        g.find("title").text: g.get("class")
        for g in ET.fromstring(picture.svg).iter("g")
        if g.find("title") is not None
    }
    assert drawn[effect.sentence] == f"effect {wanted}"
    row = next(r for r in effect_rows(summary) if (r.axis, r.contrast) == (effect.axis, effect.contrast))
    assert row.cells[effect_heads(summary).index("transfer/score")].tone == wanted


def test_a_hostile_level_stays_text():
    stories = crossed(60)
    for story in stories:
        story.config = {**story.config, "data": story.config["data"].replace("answer-only", "<script>&\"'")}
    summary = summarize(journal(stories))
    for picture in effects_pictures(summary):
        assert "<script" not in picture.svg
        ET.fromstring(picture.svg)
    assert "<script>&amp;" not in render_html(summary)


def test_a_sweep_without_effects_has_no_pictures():
    assert effects_pictures(summarize(journal(demo_stories()[:2]))) == []


def test_where_nothing_varies_the_picture_has_no_empty_part(summary):
    """A metric that is the same in all trials has effects of zero, and no variation to share."""
    metric = summary.effects[0].metric
    bare = replace(summary, importances=[i for i in summary.importances if i.metric != metric])
    picture = next(p for p in effects_pictures(bare) if p.metric == metric)
    svg = ET.fromstring(picture.svg)
    headings = [t.text for t in svg.iter("text") if t.get("class") == "heading"]
    assert headings == ["Effect on the change from the base, with its 95 % range"]
    assert not list(svg.iter("rect"))

"""The page and the picture as text: complete, escaped, the same every time."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from sweeps.errors import InputError
from sweeps.journal.rows import TierRow, base_trial
from sweeps.report import curve_svg, render_html, summarize, write_html, write_json
from sweeps.report.analysis.findings.as_json import MAX_POINTS, thinned
from sweeps.report.analysis.shape import Measured
from sweeps.report.analysis.wording import number, seconds
from sweeps.report.html.chart_data import chart_data
from sweeps.report.html.page_parts import glossary, tiles
from tests.support.report_journals import crossed, definition, demo_stories, journal, story

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


class Tags(HTMLParser):
    """Every tag with its attributes, and the text of each script."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self._inside = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag == "script"

    def handle_endtag(self, tag):
        self._inside = False

    def handle_data(self, data):
        if self._inside:
            self.scripts.append(data)


@pytest.fixture(scope="module")
def demo():
    return summarize(journal(demo_stories()))


@pytest.fixture(scope="module")
def page(demo):
    return render_html(demo)


def test_the_page_holds_everything_and_asks_for_nothing(page):
    tags = Tags(page).tags
    assert not [a for _, a in tags if "src" in a or not a.get("href", "#").startswith("#")]
    assert not re.search(r"@import|url\(", page)
    policy = next(a["content"] for t, a in tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_the_same_journal_gives_the_same_page(page):
    assert render_html(summarize(journal(demo_stories()))) == page


def test_the_table_says_what_the_figures_draw(demo, page):
    data = json.loads(Tags(page).scripts[0])
    assert data["panels"] == ["math/in_domain", "transfer/score", "general/score", "safety/refusal"]
    drawn = {t["id"]: t["curves"]["general/score"] for t in data["trials"]}
    rows = re.findall(r'<tr data-trial="([^"]+)">(.*?)</tr>', page, re.S)
    assert len(rows) == len(demo.trials)
    for id, cells in rows:
        last, error = drawn[id]["value"][-1], drawn[id]["se"][-1]
        assert f"{number(last)} ± {number(error)}" in cells


def test_reasons_of_all_that_ended_early_are_on_the_page(page):
    assert "diverged: train/loss was nan at step 40" in page
    assert "cannot reach the top 3: P 0.004 at step 160" in page
    assert "P(top 3) 0.02 is below the price of a worker" in page


def test_what_users_write_stays_text():
    stories = [
        story(EVIL),
        story(data="answer-only", until=0.2, end="failed", reason=EVIL),
        story(config={"note": EVIL}),
    ]
    summary = summarize(journal(stories))
    tags = Tags(render_html(summary)).tags
    assert [a.get("type", "code") for t, a in tags if t == "script"] == ["application/json", "module"]
    assert not [t for t, a in tags if t == "img" or any(name.startswith("on") for name in a)]
    svg = curve_svg(summary, "general/score")
    assert [t for t, _ in Tags(svg).tags if t in ("script", "img")] == []


def test_pages_of_empty_unscored_and_baseless_sweeps_are_written():
    for rows in ([], journal([story()])[:3], journal([story()], base=False), journal(demo_stories())[1:]):
        text = render_html(summarize(rows))
        assert "</html>" in text
        assert "None" not in re.sub(r"None of", "", re.sub(r"<script.*", "", text, flags=re.S))


def test_two_hundred_trials_stay_below_a_megabyte():
    assert len(render_html(summarize(journal(crossed(200)))).encode()) < 1_000_000


def test_the_page_opens_with_the_best_trial(demo):
    assert chart_data(demo)["featured"] == demo.best[0]


def test_long_curves_are_thinned_with_both_ends_kept():
    points = [Measured(i, 1 / i) for i in range(1, 5001)]
    kept = thinned(points)
    assert len(kept) <= MAX_POINTS
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert thinned(points[:20]) == tuple(points[:20])


def test_files_are_written_where_asked(demo, tmp_path):
    path = write_html(demo, tmp_path / "report" / "index.html")
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert json.loads(write_json(demo, tmp_path / "report" / "report.json").read_text())["sweep"] == demo.sweep


def test_the_picture_shows_low_return_and_base(demo):
    svg = curve_svg(demo, "general/score", trials=[demo.trials[0].id, demo.trials[1].id])
    low = demo.trials[0].readings["general/score"].trough
    for text in (f"low {number(low.value)}", "back at 300", "base 0.98"):
        assert text in svg
    assert svg.count('opacity="0.16"') == 2, "one band for each trial"


def test_the_picture_of_an_unknown_trial_or_metric_says_what_would_do(demo):
    with pytest.raises(InputError, match="did you mean"):
        curve_svg(demo, "general/score", trials=[demo.trials[0].id[:-1] + "z"])
    with pytest.raises(InputError, match="scored: general/score"):
        curve_svg(demo, "math/aime")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (0.8349, "0.83"),
        (-0.05, "-0.050"),
        (412.3, "412"),
        (12.34, "12.3"),
        (0.00301, "0.0030"),
        (None, "–"),
    ],
)
def test_numbers_have_about_three_digits(value, text):
    assert number(value) == text


def test_durations_read_well():
    assert [seconds(v) for v in (0, 3.21, 59, 600, 10_000)] == ["0 s", "3.2 s", "59 s", "10.0 min", "2.8 h"]


def test_a_data_card_for_each_tier_says_what_to_look_at():
    rows = journal([story()])
    card = TierRow(
        rows[0].sweep, model="tiny-s", tier="ours|<b>", row_limit=256, long_rows="drop",
        counts={"conversations": 1200, "rows": 1100, "tokens": 90_000, "label_tokens": 40_000, "long": 60, "duplicates": 3},
        lengths={"50": 80, "100": 256}, evaluation={"prompts": 200, "seen": 7},
    )  # fmt: skip
    page = render_html(summarize([rows[0], replace(card, seq=1), *(r.at(i + 2) for i, r in enumerate(rows[1:]))]))
    assert "ours|&lt;b&gt;" in page
    assert "3 said twice; 60 too long (drop); 7 of 200 evaluation prompts stand in it" in page
    assert 'id="tiers"' not in render_html(summarize(rows))


def test_the_first_tile_says_what_the_best_setting_is_worth_and_not_what_one_of_its_seeds_is():
    curves = [{"transfer/score": lambda share, fall=fall: -fall} for fall in (0.1, 0.3)]
    stories = [story(seed=seed, curves=one) for seed, one in enumerate(curves)]
    summary = summarize(journal(stories, spec=definition({}, constraints=[])))
    value = summary.ranked()[0].metrics["transfer/score"].value
    assert number(value) != number(summary.trial(summary.best[0]).objective.value)
    assert next(t for t in tiles(summary) if t.what == "Best transfer/score").value == number(value)


def test_words_for_worse_are_explained_where_less_is_better():
    spec = definition({}, objective={"metric": "transfer/score", "goal": "minimize"}, constraints=[])
    for summary, told in ((summarize(journal([story()], spec=spec)), True), (summarize(journal([story()])), False)):
        assert any("of which less is better" in meaning for _, meaning in glossary(summary)) == told


def test_a_picture_of_two_models_begins_each_run_at_its_own_base():
    stories = [story(), story(config={"model": "tiny-m"})]
    rows = [
        replace(row, metrics={**row.metrics, "general/score": 0.5}) if row.trial == base_trial("tiny-m") else row
        for row in journal(stories)
    ]
    summary = summarize(rows)
    own = [curve_svg(summary, "general/score", trials=[t.id]) for t in summary.trials]
    both = curve_svg(summary, "general/score", trials=[t.id for t in summary.trials])
    assert ["base 0.98" in own[0], "base 0.50" in own[1]] == [True, True]
    for picture in own:
        line = re.search(r'<path d="(M[^"]*)" fill="none"', picture)
        assert f'd="{line[1]}" fill="none"' in both
    assert all(f"base {model} {value}" in both for model, value in (("tiny-s", "0.98"), ("tiny-m", "0.50")))

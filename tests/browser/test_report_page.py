"""The report in a real browser: what is drawn, what can be clicked, and that nothing leaves the file."""

import re

import pytest

from sweeps.replies import KeptReply, ReplyWriter
from sweeps.report import summarize, write_html
from sweeps.report.analysis.wording import number
from sweeps.report.html.reply_data import embedded
from tests.support.machines.chromium import IN_BROWSER
from tests.support.report_journals import crossed, demo_stories, journal

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install dipsweep[browser]")
pytestmark = IN_BROWSER
SCORED = 4  # figures with a metric of their own; a fifth shows the metric that the reader picks


class Opened:
    """A page with what it complained about and what it asked for."""

    def __init__(self, browser, path, width=1400, scheme="light", drawn=True):
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.complaints, self.requests = [], []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        if drawn:
            self.page.wait_for_selector("figure svg .axis", state="attached")


@pytest.fixture(scope="module")
def demo():
    return summarize(journal(demo_stories()))


@pytest.fixture(scope="module")
def path(demo, tmp_path_factory):
    return write_html(demo, tmp_path_factory.mktemp("report") / "index.html")


@pytest.fixture
def opened(browser, path):
    opened = Opened(browser, path)
    yield opened
    opened.page.close()


def test_the_page_loads_in_silence_and_asks_only_for_itself(opened, path):
    assert opened.complaints == []
    assert opened.requests == [path.as_uri()]


def test_every_figure_draws_every_trial(opened, demo):
    for metric in demo.panels:
        assert opened.page.locator(f'figure[data-metric="{metric}"] .runs .run').count() == len(demo.trials)
    assert opened.page.locator("figure[data-metric]").count() == SCORED + 1


def test_the_trial_in_focus_has_its_dip_shaded_and_its_numbers_in_a_table(opened, demo):
    page, trial = opened.page, demo.trial(demo.best[0])
    assert page.locator("#picked-title").inner_text() == trial.label
    assert page.locator('figure[data-metric="general/score"] .dip').count() == 1
    shown = [row.split("\t") for row in page.locator("#picked-scores tbody tr").all_inner_texts()]
    column = 1 + demo.panels.index("general/score")
    wanted = [f"{number(p.value)} ± {number(p.se)}" for p in trial.curves["general/score"]]
    assert [row[column] for row in shown[1:]] == wanted


def test_the_table_sorts_both_ways_with_unknown_last(opened, demo):
    page = opened.page
    first = page.locator("#trials tbody tr").first
    page.get_by_role("button", name="transfer/score").click()
    by_score = sorted(demo.trials, key=lambda t: -t.readings["transfer/score"].final.value)
    assert first.get_attribute("data-trial") == by_score[0].id
    page.get_by_role("button", name="transfer/score").click()
    assert first.get_attribute("data-trial") == by_score[-1].id
    page.get_by_role("button", name="Rank").click()
    assert first.get_attribute("data-trial") == demo.best[0]
    page.get_by_role("button", name="Rank").click()
    assert first.get_attribute("data-trial") == demo.best[1]


def test_picking_a_trial_in_the_table_moves_every_figure(opened, demo):
    lost = demo.trials[1]
    opened.page.locator(f'button.pick[data-trial="{lost.id}"]').click()
    opened.page.mouse.move(2, 2)
    reading = opened.page.locator('figure[data-metric="general/score"] .reading').text_content()
    assert reading.startswith("not-back")
    assert opened.page.locator("#picked-title").text_content() == lost.label


def test_pointing_at_a_curve_tells_its_score(opened):
    page = opened.page
    dot = page.locator('figure[data-metric="general/score"] .runs .dot').first
    dot.scroll_into_view_if_needed()
    box = dot.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert "step 5:" in page.locator("#tip").inner_text()


def test_levels_and_words_filter_figures_and_table_alike(opened, demo):
    page = opened.page
    page.select_option("#colour", "data")
    page.locator("#legend button", has_text="answer-only").click()
    left = [t for t in demo.trials if t.config["data"] != "answer-only"]
    assert page.locator("#trials tbody tr:visible").count() == len(left)
    assert page.locator('figure[data-metric="general/score"] .runs .run').count() == len(left)
    page.fill("#search", "failed")
    assert page.locator("#trials tbody tr:visible").count() == 1
    page.fill("#search", "nothing like it")
    assert page.locator("#count").inner_text() == f"0 of {len(demo.trials)} trials"
    assert opened.complaints == []


def test_a_linear_axis_and_any_other_metric_can_be_chosen(opened):
    page = opened.page
    page.select_option("#scale", "linear")
    axis = page.locator('figure[data-metric="general/score"] svg')
    assert "(log)" not in axis.text_content()
    page.select_option("#free-metric", "train/loss")
    assert page.locator("figure[data-metric]").last.locator(".runs .run").count() == 7
    assert opened.complaints == []


def overlap(a, b):
    """Whether two boxes share more than a hair: line boxes of text are taller than its ink."""
    return (
        min(a["x"] + a["width"], b["x"] + b["width"]) - max(a["x"], b["x"]) > 1
        and min(a["y"] + a["height"], b["y"] + b["height"]) - max(a["y"], b["y"]) > 3
    )


def test_a_page_that_reloads_comes_back_as_it_was_left(opened, demo):
    page, picked = opened.page, demo.trials[2]
    page.select_option("#colour", "data")
    page.locator("#legend button", has_text="corrupted-cot").click()
    page.select_option("#scale", "linear")
    page.locator(f'button.pick[data-trial="{picked.id}"]').click()
    page.reload()
    page.wait_for_selector("figure svg .axis", state="attached")
    assert page.input_value("#colour") == "data"
    assert page.input_value("#scale") == "linear"
    assert page.locator("#picked-title").text_content() == picked.label  # rendered when it comes into view
    assert page.locator("#trials tbody tr:visible").count() == 5
    assert opened.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_sticks_out_and_no_axis_labels_touch(browser, path, width, scheme):
    page = Opened(browser, path, width, scheme).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for figure in page.locator("figure").all():
        boxes = [text.bounding_box() for text in figure.locator("svg > text").all()]
        for i, a in enumerate(boxes):
            assert not any(overlap(a, b) for b in boxes[i + 1 :]), f"labels touch at {width} px"
    page.close()


@pytest.mark.parametrize("rows", [[], journal(demo_stories())[:3]], ids=["no rows", "no scores"])
def test_a_page_without_curves_is_silent_too(browser, tmp_path, rows):
    opened = Opened(browser, write_html(summarize(rows), tmp_path / "bare.html"), drawn=False)
    opened.page.wait_for_timeout(200)
    assert opened.complaints == []
    opened.page.close()


def test_two_hundred_trials_are_drawn(browser, tmp_path):
    opened = Opened(browser, write_html(summarize(journal(crossed(200))), tmp_path / "many.html"))
    canvas = opened.page.locator('figure[data-metric="transfer/score"] canvas')
    assert canvas.get_attribute("data-runs") == "200"
    inked = "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v)"
    assert canvas.evaluate(inked)
    assert opened.complaints == []
    opened.page.close()


def test_a_hostile_setting_runs_no_script(browser, tmp_path):
    stories = demo_stories()[:2]
    stories[0].config = {**stories[0].config, "note": "</script><script>alert(1)</script><img src=x onerror=alert(2)>"}
    page = browser.new_page()
    dialogs, requests = [], []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(write_html(summarize(journal(stories)), tmp_path / "evil.html").as_uri())
    page.wait_for_selector("figure svg .axis", state="attached")
    assert dialogs == []
    assert len(requests) == 1
    assert page.locator("#trials img").count() == 0
    page.close()


def kept(role="math", task="sums", item=0, right=True, answer="4", prompt="2 + 2 = ?"):
    name = f"{role}/{task}"
    return KeptReply(role, task, item, prompt, "so …", answer, 9, False, {name: float(right)})


def test_replies_stand_beside_the_bases_and_can_be_filtered(browser, demo, tmp_path):
    best, evil = demo.best[0], "</script><img src=x onerror=alert(1)>"
    ReplyWriter(tmp_path, "all", "base-tiny-s", 0, 1)([kept(item=i) for i in range(20)], 20, "mini@1")
    for step in (40, 400):
        replies = [kept(item=i, right=i % 2 == 0, answer=f"{evil} at {step}") for i in range(20)]
        ReplyWriter(tmp_path, "all", best, step, 1)(replies, 20, "mini@1")
    opened = Opened(browser, write_html(demo, tmp_path / "replies.html", embedded(tmp_path, demo)))
    page, cards = opened.page, opened.page.locator(".reply")
    page.locator("#replies").scroll_into_view_if_needed()
    assert (page.input_value("#reply-trial"), page.input_value("#reply-step")) == (best, "400")
    assert page.locator("#reply-count").text_content() == "20 replies"
    assert cards.first.locator(".side").all_text_contents()[1].endswith(f"{evil} at 400")
    assert cards.locator("img").count() == 0
    before = cards.count()
    page.get_by_role("button", name="Show more").click()
    assert before < cards.count() == 20
    page.select_option("#reply-show", "lost")
    assert page.locator("#reply-count").text_content() == "10 replies"
    page.select_option("#reply-step", "40")
    page.reload()
    page.wait_for_selector(".reply", state="attached")
    page.locator("#replies").scroll_into_view_if_needed()
    assert page.locator("#reply-count").text_content() == "10 replies"
    assert "at 40" in cards.first.text_content()
    page.fill("#reply-words", "nothing like it")
    assert cards.count() == 0
    assert opened.complaints == []
    page.close()


def test_safety_stands_against_skill_with_its_front(opened, demo):
    page = opened.page
    whole = [s for s in demo.settings if s.whole]
    page.locator("#parameters").scroll_into_view_if_needed()
    page.wait_for_selector("#front .setting", state="attached")
    assert page.locator("#front .setting").count() == len(whole)
    assert page.locator("#front .setting.front").count() == sum(bool(s.front) for s in whole)
    assert page.locator("#front .bar").count() == 2 * len(whole)
    other = next(s for s in whole if demo.best[0] not in s.trials)
    page.locator(f'#front .setting:has(title:text-matches("^{other.label}:")) circle').dispatch_event("click")
    assert page.locator("#picked-title").text_content() == demo.trial(other.counted[0]).label
    assert opened.complaints == []


def test_every_condition_has_a_small_figure_on_the_same_scale(opened, demo):
    page = opened.page
    page.select_option("#colour", "data")
    levels = next(a.levels for a in demo.axes if a.name == "data")
    page.locator("#small-title").scroll_into_view_if_needed()
    page.wait_for_selector("#small canvas", state="attached")
    said = [c.get_attribute("aria-label") for c in page.locator("#small canvas").all()]
    assert [f"data {level}" in text for level, text in zip(levels, said, strict=True)] == [True] * len(levels)
    page.locator("#legend button", has_text="answer-only").click()
    page.locator("#small-title").scroll_into_view_if_needed()  # drawn anew when it comes near again
    empty = page.locator("#small canvas").nth(levels.index("answer-only"))
    sync_api.expect(empty).to_have_attribute("aria-label", re.compile("of 0 trials"))
    assert opened.complaints == []


def test_the_phases_of_the_trial_in_focus_lie_along_the_axis(opened, demo):
    pruned = next(t for t in demo.trials if t.state == "pruned")
    opened.page.locator(f'button.pick[data-trial="{pruned.id}"]').click()
    strips = opened.page.locator('figure[data-metric="transfer/score"] .phase')
    assert [s.get_attribute("class") for s in strips.all()] == [f"phase {d.phase}" for d in pruned.decisions]

"""All of one trial on the page: by a link, by keys, alone, and on paper."""

import pytest

from sweeps.journal.notes import write_note
from sweeps.journal.rows import TierRow, VerdictRow
from sweeps.journal.writer import SweepJournal
from sweeps.replies import KeptReply, ReplyWriter
from sweeps.report import write_html
from sweeps.report.html.reply_data import embedded
from sweeps.results import load
from tests.support.machines.chromium import IN_BROWSER
from tests.support.report_journals import SWEEP, demo_stories, journal

pytestmark = IN_BROWSER
PHASES = [(5, "before"), (20, "dip"), (40, "dip"), (120, "recovery"), (300, "plateau")]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A sweep with a data card, replies, a note and verdicts of the stop rule on its first trial."""
    home = tmp_path_factory.mktemp("sweep") / SWEEP
    rows = journal(demo_stories())
    first = next(r.trial for r in rows if r.kind == "trial")
    tier = TierRow(SWEEP, model="tiny-s", tier="verified-long-cot", row_limit=256, counts={"rows": 480, "bad": 3})
    with SweepJournal(home) as log:
        for row in [rows[0], tier, *rows[1:]]:
            log.append(row)
        for step, phase in PHASES:
            log.append(VerdictRow(SWEEP, first, 1, step, action="CONTINUE", phase=phase, reason=f"seen at {step}"))
    write_note(home, who="ana", trial=first, text="a fine <dip>", tags={"odd": True})
    reply = KeptReply("math", "sums", 0, "2 + 2 = ?", "so", "4", 9, False, {"math/sums": 1.0})
    ReplyWriter(home, "all", first, 400, 1)([reply], 1, "mini@1")
    return load(home)


@pytest.fixture(scope="module")
def path(results, tmp_path_factory):
    replies = embedded(results.path, results.summary)
    return write_html(results.summary, tmp_path_factory.mktemp("report") / "index.html", replies)


@pytest.fixture
def visit(browser, path):
    """Opens the page at an address behind its #; ends with a look at what it complained about."""
    complaints, pages = [], []

    def at(address, width=1400):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{path.as_uri()}#{address}")
        page.wait_for_selector("#trial-section figure .run", state="attached")
        pages.append(page)
        return page

    yield at
    for page in pages:
        page.close()
    assert complaints == []


def test_a_link_leads_to_all_of_a_trial(visit, results):
    trial = results.summary.trials[0]
    page = visit(f"trial={trial.id}")
    assert page.locator("#trial-section").evaluate("e => Math.abs(e.getBoundingClientRect().top) < 60")
    assert page.locator("#trial-title").inner_text() == trial.label
    assert page.locator("#trial-about").inner_text() == f"{trial.id}, completed; tags: odd"
    shown = [m for m in (*results.summary.panels, "train/loss") if m in trial.curves]
    assert page.locator("#trial-section figure h3").all_inner_texts() == shown
    assert page.locator("#trial-decisions li").all_inner_texts() == [
        f"step {step}, {phase}: CONTINUE. seen at {step}" for step, phase in PHASES
    ]
    told = " ".join(page.locator("#trial-verdicts li").all_inner_texts())
    setting = results.summary.setting(trial.id)
    assert all(v.sentence in told for v in setting.verdicts)
    assert [n.split(" (ana, ")[0] for n in page.locator("#trial-notes li").all_inner_texts()] == ["a fine <dip>"]
    facts = page.locator("#trial-facts").inner_text()
    assert "Attempt 1\nfrom the beginning" in facts
    assert "400 of 400" in facts
    assert "3 bad" in page.locator("#trial-data").inner_text()
    assert "verified-long-cot" in page.locator("#trial-config").inner_text()


def test_a_phase_is_shaded_from_the_step_at_which_the_rule_saw_it_begin(visit, results):
    page = visit(f"trial={results.summary.trials[0].id}")
    areas = page.locator("#trial-section figure").first.locator(".phase.area")
    assert [a.locator("title").text_content() for a in areas.all()] == [
        "before from step 5 to 20",
        "dip from step 20 to 120",
        "recovery from step 120 to 300",
        "plateau from step 300 to 400",
    ]


def test_a_trial_alone_keeps_its_replies_and_comes_back_by_its_address_and_on_paper(visit, results):
    trial = results.summary.trials[0]
    page = visit(f"trial={trial.id}")
    page.get_by_role("button", name="This trial alone").click()
    assert page.locator("#trials").is_hidden()
    assert page.locator("#reply-section").is_visible()
    assert page.input_value("#reply-trial") == trial.id
    page.reload()
    page.wait_for_selector("#trial-section figure .run", state="attached")
    assert page.locator("#trials").is_hidden()
    page.emulate_media(media="print")
    assert page.locator("#trial-decisions").is_visible()
    page.emulate_media(media="screen")
    page.keyboard.press("Escape")
    assert page.locator("#trials").is_visible()
    assert page.locator("#trial-section").is_hidden()
    assert "only" not in page.url


def test_keys_and_links_go_from_trial_to_trial(visit, results):
    first, *_ = results.summary.trials
    page = visit(f"trial={first.id}")
    order = page.locator("#trials tbody tr").evaluate_all("rows => rows.map((r) => r.dataset.trial)")
    page.keyboard.press("n")
    after = order[(order.index(first.id) + 1) % len(order)]
    assert page.locator("#trial-about").inner_text().startswith(after)
    page.evaluate("id => { location.hash = `trial=${id}`; }", first.id)
    page.wait_for_function("id => document.querySelector('#trial-about').textContent.startsWith(id)", arg=first.id)
    page.locator(f'#trials a.permalink[href="#trial={after}"]').click()
    assert page.locator("#trial-about").inner_text().startswith(after)


def test_nothing_of_a_trial_sticks_out_on_a_phone(visit, results):
    page = visit(f"trial={results.summary.trials[0].id}&only=trial", width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390

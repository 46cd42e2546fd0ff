"""The pages under axe-core, the rules of its maker: nothing serious, in light and dark, on a wall and on a phone."""

from __future__ import annotations

import importlib.resources

import pytest

from sweeps.replies import KeptReply, ReplyWriter
from sweeps.report import summarize, write_html
from sweeps.report.html.reply_data import embedded
from tests.support.machines.chromium import IN_BROWSER
from tests.support.report_journals import demo_stories, journal

pytestmark = IN_BROWSER


@pytest.fixture(scope="module")
def axe():
    pytest.importorskip("axe_playwright_python", reason="no axe-core: pip install dipsweep[browser]")
    return (importlib.resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    summary, folder = summarize(journal(demo_stories())), tmp_path_factory.mktemp("report")
    for trial, step in (("base-tiny-s", 0), (summary.best[0], 400)):
        kept = [
            KeptReply(
                "safety", "harm", i, "how to …?", "hm\n" * 40, "REFUSE", 9, False, {"safety/harm": 1.0}, refused=True
            )
            for i in range(3)
        ]
        ReplyWriter(folder, "all", trial, step, 1)(kept, 3, "mini@1")
    return write_html(summary, folder / "index.html", embedded(folder, summary))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_report_has_no_serious_findings(browser, axe, report, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
    page.goto(report.as_uri())
    page.wait_for_selector("figure svg .axis", state="attached")
    page.add_style_tag(content="main section { content-visibility: visible !important; }")
    page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    page.close()
    serious = [
        f"{v['id']}: {v['help']}: {v['nodes'][0]['target']} ({len(v['nodes'])} times)"
        for v in found["violations"]
        if v["impact"] in ("serious", "critical")
    ]
    assert serious == []

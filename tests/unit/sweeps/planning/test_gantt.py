"""The picture of a plan: every trial has its bar, bars of one row never overlap, and names are text, not markup."""

import re
from xml.etree import ElementTree

import pytest

from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.planning.estimate import planned_timeline
from sweeps.planning.gantt import gantt_page
from sweeps.planning.speeds import Figure, Speed, key_of
from sweeps.planning.work import planned_work

SPACE = {"data": grid("verified-long-cot", "answer-only"), "replay": grid(0.0, 0.1), "steps": grid(100, 200)}


def page(nodes, text="in all <8> trials"):
    sweep = Sweep(name="s", space=SPACE, trainer={"lr_scheduler_type": "wsd", "warmup_steps": 5})
    plan, figure = Plan(sweep), Figure(1.0, 0.2, "a test")
    speeds = {key_of(w.config, w.workers): Speed(figure, figure, figure, w.step_tokens) for w in planned_work(plan)}
    spans = planned_timeline(plan, speeds, nodes)
    return gantt_page(plan, spans, nodes, text), spans


def rects(html):
    svg = ElementTree.fromstring(re.search(r"<svg.*</svg>", html, re.S)[0])
    found = svg.iter("{http://www.w3.org/2000/svg}rect")
    return [tuple(float(r.get(k)) for k in ("x", "y", "width")) for r in found]


def test_every_trial_has_a_bar_as_long_as_it_runs_and_no_two_overlap():
    html, spans = page([2.0, 1.0])
    bars = rects(html)
    assert len(bars) == len(spans) == 8
    longest = max(span.end - span.start for _, span in spans)
    shortest = min(span.end - span.start for _, span in spans)
    widths = sorted(width + 1 for _, _, width in bars)
    assert widths[-1] / widths[0] == pytest.approx(longest / shortest, rel=0.02)
    for i, (x, y, width) in enumerate(bars):
        for other_x, other_y, other_width in bars[:i]:
            assert y != other_y or x + width <= other_x or other_x + other_width <= x
    assert len({y for _, y, _ in bars}) == 3  # as many at once as there are machines


def test_text_is_escaped_and_nothing_is_loaded():
    html, _ = page([2.0])
    assert "&lt;8&gt;" in html
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")

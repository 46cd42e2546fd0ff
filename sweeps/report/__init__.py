"""The report: journal rows in, findings, a self-contained page and a picture out. It reads the journal only.

>>> summary = summarize(read_rows(folder))
>>> write_html(summary, folder / "report" / "index.html")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.report.analysis.findings.summary import Summary
    from sweeps.report.analysis.summarize import summarize
    from sweeps.report.html.curve_svg import curve_svg
    from sweeps.report.html.page import render_html, write_html, write_json

__all__ = ["Summary", "curve_svg", "render_html", "summarize", "write_html", "write_json"]

_MODULES = {
    "Summary": "sweeps.report.analysis.findings.summary",
    "summarize": "sweeps.report.analysis.summarize",
    "curve_svg": "sweeps.report.html.curve_svg",
    **dict.fromkeys(("render_html", "write_html", "write_json"), "sweeps.report.html.page"),
}


def __getattr__(name: str) -> Any:
    """Names are imported when they are asked for: whoever prints a line of progress needs no page."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'sweeps.report' has no attribute {name!r}")

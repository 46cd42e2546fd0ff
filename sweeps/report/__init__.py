"""The report: journal rows in, findings, a self-contained page and a picture out. It reads the journal only.

>>> summary = summarize(read_rows(folder))
>>> write_html(summary, folder / "report" / "index.html")
"""

from sweeps.report.analysis.findings import Summary
from sweeps.report.analysis.summarize import summarize
from sweeps.report.html.curve_svg import curve_svg
from sweeps.report.html.page import render_html, write_html, write_json

__all__ = ["Summary", "curve_svg", "render_html", "summarize", "write_html", "write_json"]

"""The report: journal rows in, findings, a self-contained page and a picture out. It reads the journal only.

>>> summary = summarize(read_rows(folder))
>>> write_html(summary, folder / "report" / "index.html")
"""

from sweeps.report.curve_svg import curve_svg
from sweeps.report.findings import Summary
from sweeps.report.page import html, write_html, write_json
from sweeps.report.summarize import summarize

__all__ = ["Summary", "curve_svg", "html", "summarize", "write_html", "write_json"]

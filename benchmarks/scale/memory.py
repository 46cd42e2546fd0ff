"""What this process has in memory."""

from __future__ import annotations

import os
from pathlib import Path


def rss_mib() -> float:
    """Returns the resident set, in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

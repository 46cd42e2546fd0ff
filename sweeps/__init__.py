"""The vocabulary and the decisions of dipsweep: plain Python, neither ray nor torch at import."""

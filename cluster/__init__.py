"""Everything Ray: the run loop on Tune and Train, the evaluator pool, the command line. Imports ray only when it runs."""

from cluster.guard import check_names

check_names()

from cluster.jobs.submit import submit  # noqa: E402 - the guard comes first, before any module that could be
from cluster.run import run  # noqa: E402 - somebody else's

__all__ = ["run", "submit"]

"""Tests leave the user's caches alone."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Tokenised rows of the tests go to a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIPSWEEP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield

"""The only place that touches what Ray does not publish: names with an underscore, modules called `_internal` or `_private`.

Ray is pinned to 2.60 for their sake (pyproject.toml). Each use has a test in tests/contract/test_ray_internals.py that
fails when Ray moves it, and each module says what the public way lacks.
"""

"""Garbage collection while much is loaded: off, and afterwards as it was."""

import gc

import pytest

from sweeps.garbage_collection import collection_paused


def test_collection_is_off_inside_and_on_again_after_an_error():
    assert gc.isenabled()
    with collection_paused():
        with collection_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()  # the outer one still pauses it
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), collection_paused():
        _ = 1 / 0
    assert gc.isenabled()


def test_a_user_who_turned_it_off_finds_it_off():
    gc.disable()
    try:
        with collection_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()

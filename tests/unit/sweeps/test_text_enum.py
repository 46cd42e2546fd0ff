from sweeps.failures import FailureKind
from sweeps.journal.vocabulary import Action, TrialStatus


def test_a_word_in_a_list_of_a_message_is_written_as_it_is():
    assert f"states {[TrialStatus.COMPLETED, TrialStatus.FAILED]}" == "states ['completed', 'failed']"
    assert f"got {Action.STOP!r}" == "got 'STOP'"
    assert str({FailureKind.STORAGE: 1}) == "{'storage': 1}"

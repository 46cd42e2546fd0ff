"""Lost attempts: judged at once where it is clear, and otherwise once Ray has had time to report a lost node."""

from __future__ import annotations

import pytest

from cluster.driver.failures import NODE_NEWS_S, LostAttempts
from cluster.resources.bundles import Attempt
from cluster.train.worker import CRASHED, OUT_OF_MEMORY, explain, lost_process
from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.controller.launch import Launch
from sweeps.errors import DamagedCheckpoint, TrialFailed
from sweeps.failures import Failure, FailureKind

SPEC = Plan(Sweep(name="f", space={"replay": grid(0.0)}, trainer={"steps": 2})).known_trials()[0]


class World:
    """A clock by hand, nodes that go, and what was judged."""

    def __init__(self) -> None:
        self.now, self.gone, self.judged = 0.0, set[str](), list[FailureKind]()
        self.lost = LostAttempts(lambda nodes: bool(self.gone & set(nodes)), self.fail, clock=lambda: self.now)

    def fail(self, attempt: Attempt, failure: Failure) -> None:
        self.judged.append(failure.kind)

    def lose(self, kind: FailureKind) -> None:
        self.lost.add(Attempt(Launch(SPEC, 1), "g", {"n0": 1}, 0.0, nodes={"n1"}), Failure(kind, "lost"))
        self.lost.judge()


@pytest.mark.parametrize("node", ["n0", "n1"])
def test_a_process_lost_with_its_node_was_preempted_as_soon_as_the_node_is_known_to_be_gone(node: str):
    world = World()
    world.lose(FailureKind.WORKER_LOST)
    assert (world.judged, bool(world.lost)) == ([], True)
    world.gone, world.now = {node}, NODE_NEWS_S / 2
    world.lost.judge()
    assert (world.judged, bool(world.lost)) == ([FailureKind.NODE_PREEMPTED], False)


def test_a_process_lost_on_a_node_that_stays_is_judged_after_the_wait():
    world = World()
    world.lose(FailureKind.WORKER_LOST)
    world.now = NODE_NEWS_S
    world.lost.judge()
    assert world.judged == [FailureKind.WORKER_LOST]


@pytest.mark.parametrize("kind", [FailureKind.WORKER_CRASHED, FailureKind.OUT_OF_MEMORY, FailureKind.NODE_PREEMPTED])
def test_what_is_clear_is_judged_at_once(kind: FailureKind):
    world = World()
    world.lose(kind)
    assert (world.judged, bool(world.lost)) == ([kind], False)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (f"the process that drives the trial died: {CRASHED} unexpectedly", FailureKind.WORKER_CRASHED),
        (f"Task was killed due to the node {OUT_OF_MEMORY}", FailureKind.OUT_OF_MEMORY),
        ("its node has died", FailureKind.WORKER_LOST),
        ("", FailureKind.WORKER_LOST),
    ],
)
def test_rays_words_on_a_process_that_is_gone_say_what_kind_of_loss_it_is(words: str, kind: FailureKind):
    failure = lost_process(words)
    assert failure.kind is kind
    assert failure.retryable
    assert failure.detail


def test_only_the_trials_own_errors_and_a_damaged_checkpoint_are_not_tried_again():
    assert explain(TrialFailed("diverged", "loss nan")) == Failure(FailureKind.USER, "diverged", "loss nan")
    assert explain(DamagedCheckpoint("step 4 is torn")).kind is FailureKind.BAD_CHECKPOINT
    assert {kind for kind in FailureKind if not Failure(kind, "x").retryable} == {
        FailureKind.USER,
        FailureKind.BAD_CHECKPOINT,
    }

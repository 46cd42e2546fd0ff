"""The control actor without Ray: messages in order, requests to one attempt, and what its processes do next."""

from __future__ import annotations

import asyncio

from cluster.mailbox import AttemptExited, AttemptId, ControlActor, GroupExited
from sweeps import Sweep, grid
from sweeps.config.plan import Plan
from sweeps.controller.launch import Launch

A, B = AttemptId("t-1", 1), AttemptId("t-2", 1)
SPEC = Plan(Sweep(name="m", space={"replay": grid(0.0)}, trainer={"steps": 2})).known_trials()[0]


async def answers(call, within_s: float = 0.05):
    """Returns what a call answers in that time; None when it still waits."""
    try:
        return await asyncio.wait_for(asyncio.shield(call), within_s)
    except TimeoutError:
        return None


def test_messages_come_in_order_and_once():
    async def play():
        actor = ControlActor()
        sent = [AttemptExited(A), GroupExited("g"), AttemptExited(B, reusable=True)]
        for message in sent:
            await actor.send(message)
        assert await actor.receive_all() == sent
        assert await actor.receive_all() == []

    asyncio.run(play())


def test_a_request_reaches_one_attempt_and_says_whether_to_save():
    async def play():
        actor = ControlActor()
        a, b = (asyncio.ensure_future(actor.wait_for_stop(x)) for x in (A, B))
        await actor.stop_gracefully(A, save=False)
        assert await answers(a) is False
        assert await answers(b) is None
        await actor.stop_all_gracefully()
        assert await answers(b) is True
        assert await actor.wait_for_stop(AttemptId("t-3", 1)) is True  # one that comes later too

    asyncio.run(play())


def test_a_stop_ends_the_processes_of_its_attempt_and_no_others():
    async def play():
        actor = ControlActor()
        waits = {g: asyncio.ensure_future(actor.wait_for_group_stop(g)) for g in ("one", "two")}
        await actor.stop(A, "one")
        await asyncio.sleep(0)
        assert (waits["one"].done(), waits["two"].done()) == (True, False)
        await actor.unregister("two", [B])  # whoever still waits is let go
        await asyncio.sleep(0)
        assert waits["two"].done()

    asyncio.run(play())


def test_processes_wait_for_what_to_run_next_and_all_of_them_hear_the_same():
    async def play():
        actor, launch = ControlActor(), Launch(SPEC, 2)
        ranks = [asyncio.ensure_future(actor.next_launch(A)) for _ in range(2)]
        assert await answers(ranks[0]) is None
        await actor.assign(A, launch)
        assert [await rank for rank in ranks] == [launch, launch]
        await actor.assign(B, None)
        assert await actor.next_launch(B) is None

    asyncio.run(play())

"""MemoryStorage: what it promises beyond the contract."""

import logging

import pytest
from storage_scene import NOON, SECOND, USER, birth, born, change, fact, task

from durable_effect_jobs.errors import StorageError
from durable_effect_jobs.instance import Alarm
from durable_effect_jobs.storage.memory import MemoryStorage


def test_is_ready_at_once() -> None:
    """Nothing waits: every call can be run without an asyncio loop."""
    storage = MemoryStorage()
    storage.commit(birth(born())).run_sync()
    assert storage.load(USER).run_sync() == born()


def test_the_outbox_drops_the_oldest(caplog: pytest.LogCaptureFixture) -> None:
    """A full outbox drops its oldest events, counts them, and warns for the first and each thousandth."""
    storage = MemoryStorage(outbox_limit=3)
    present = born()
    storage.commit(birth(present)).run_sync()
    with caplog.at_level(logging.WARNING):
        for n in range(1_504):
            after = present.evolve()
            storage.commit(change(present, after, events=(fact(f"event-{n}"),))).run_sync()
            present = after
    left = [event.event_id for event in storage.pending_events(10).run_sync()]
    assert left == ["event-1501", "event-1502", "event-1503"]
    assert storage.dropped_events == 1_501
    assert len(caplog.records) == 2


def test_an_event_id_is_used_once() -> None:
    """A commit that repeats the id of a waiting event fails, and changes nothing."""
    storage = MemoryStorage()
    storage.commit(birth(born(), events=(fact("e"),))).run_sync()
    for events in ((fact("e"),), (fact("f"), fact("f"))):
        error = storage.commit(birth(born(task("x")), events=events)).flip().run_sync()
        assert isinstance(error, StorageError)
    assert storage.jobs().run_sync() == {("continuous", "counter"): 1}


def test_needs_room_for_an_event() -> None:
    """An outbox without room is refused when the storage is made."""
    with pytest.raises(ValueError, match="outbox_limit"):
        MemoryStorage(outbox_limit=0)


def test_alarms_that_move_take_no_more_room_than_those_that_stay() -> None:
    """Moving one alarm thousands of times, to and fro, leaves a bounded number of former alarms behind."""
    storage = MemoryStorage()
    present = born(USER, NOON)
    storage.commit(birth(present)).run_sync()
    for n in range(5_000):
        after = present.evolve(alarm=Alarm(NOON - n * SECOND, "schedule"))
        storage.commit(change(present, after)).run_sync()
        present = after
    assert len(storage._jobs["continuous", "counter"].alarms._heap) < 100
    assert storage.due(NOON, 10, [("continuous", "counter")]).run_sync() == [USER]


def test_many_alarms_are_found_in_order() -> None:
    """Ten thousand instances, due in an order that is neither that of their keys nor of their commits."""
    storage = MemoryStorage()
    for n in range(10_000):
        storage.commit(birth(born(task(str(n)), NOON + (n * 7_919 % 10_000) * SECOND))).run_sync()
    due = storage.due(NOON + 4_999 * SECOND, 10_000, [("task", "t")]).run_sync()
    assert [int(key.id) * 7_919 % 10_000 for key in due] == list(range(5_000))

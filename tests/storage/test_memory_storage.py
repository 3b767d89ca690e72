"""MemoryStorage: what it promises beyond the contract."""

import logging

import pytest
from storage_scene import NOON, SECOND, USER, birth, born, change, fact, task

from durable_effect import Do, Effect
from durable_effect_jobs.errors import StorageError
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
    """Moving one alarm ten thousand times leaves a bounded number of former alarms behind."""
    storage = MemoryStorage()

    @Effect.gen
    def move() -> Do[int, StorageError]:
        present = born(USER, NOON)
        yield from storage.commit(birth(present)).or_die()
        for n in range(10_000):
            moved = born(USER, NOON + n * SECOND)
            after = present.evolve(alarm=moved.alarm)
            yield from storage.commit(change(present, after)).or_die()
            present = after
        due = yield from storage.due(NOON + 20_000 * SECOND, 10, [("continuous", "counter")])
        assert due == [USER]
        return len(storage._jobs["continuous", "counter"].alarms._heap)

    assert move().run_sync() < 100

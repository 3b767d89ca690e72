"""What a replay makes of a dead letter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from durable_effect_jobs.cli.remedies import Replay
from durable_effect_jobs.instance import Commit, DeadLetter, Instance, Key
from durable_effect_jobs.storage.memory import MemoryStorage

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_a_replay_begins_another_life() -> None:
    """What was read of the life that ended has another incarnation, so it can no longer be committed."""
    storage, key = MemoryStorage(), Key("task", "job", "a")
    record = Instance(key=key, incarnation="former", created_at=NOON, state=b"1")
    letter = DeadLetter(instance=record, reason="max_attempts", at=NOON, expires_at=NOON + timedelta(days=30))
    storage.commit(
        Commit(key=key, before=None, after=None, at=NOON, token="1", dead_letter=letter)
    ).run_sync()
    (found,) = storage.dead_letters().run_sync()

    Replay().apply(storage, found).run_sync()

    alive = storage.load(key).run_sync()
    assert alive is not None
    assert alive.incarnation not in ("", "former")
    assert (alive.state, alive.alarm is not None) == (b"1", True)
    assert storage.dead_letters().run_sync() == []

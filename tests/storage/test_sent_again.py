"""Writes that are sent again, marks that end and wake-ups by the handful, on both storages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
from storage_scene import DAY, NOON, SECOND, USER, birth, born, change, fact, letter, task

from durable_effect import Do, Effect
from durable_effect_jobs.instance import Mark
from durable_effect_jobs.storage import Conflict, JobName
from durable_effect_jobs.storage.memory import MemoryStorage
from durable_effect_jobs.storage.sqlite import SqliteStorage


@pytest.fixture(params=["memory", "sqlite", "sqlite without a cache"])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Effect[Any, Any, Any]:
    """Opens a storage."""
    if request.param == "memory":
        return Effect.sync(MemoryStorage)
    cache_size = 4096 if request.param == "sqlite" else 0
    return SqliteStorage.open(tmp_path / "jobs.db", cache_size=cache_size)


def test_a_step_that_leaves_the_record_happens_once(opening: Effect[Any, Any, Any]) -> None:
    """One that only remembers an event and reports it is known by its token, not by a new revision."""

    @Effect.gen
    def story(storage: Any) -> Do[None, Any]:
        yield from storage.commit(birth(born()))
        step = change(
            born(), born(), events=(fact("e"),), mark=Mark("m", NOON + DAY), dead_letter=letter(born())
        )
        assert (yield from storage.commit(step)) == 0
        assert (yield from storage.commit(step)) == 0
        assert len((yield from storage.dead_letters())) == 1
        assert [event.event_id for event in (yield from storage.pending_events(9))] == ["e"]
        assert (yield from storage.load(USER)) == born()

    opening.flat_map(story).scoped().run()


def test_a_step_that_was_the_last_before_the_removal_is_known(opening: Effect[Any, Any, Any]) -> None:
    """Sent again after the instance is gone, or lives again, it is neither refused nor done again."""

    @Effect.gen
    def story(storage: Any) -> Do[None, Any]:
        yield from storage.commit(birth(born()))
        last = change(born(), born().evolve(state=b"[2]"), events=(fact("e"),))
        yield from storage.commit(last)
        yield from storage.commit(change(born().evolve(state=b"[2]"), None))
        assert (yield from storage.commit(last)) == 0
        assert (yield from storage.load(USER)) is None
        next_life = attrs.evolve(born(), incarnation="second")
        yield from storage.commit(birth(next_life))
        assert (yield from storage.commit(last)) == 0
        assert (yield from storage.load(USER)) == next_life
        assert len((yield from storage.pending_events(9))) == 1

    opening.flat_map(story).scoped().run()


def test_a_step_before_the_last_one_is_refused(opening: Effect[Any, Any, Any]) -> None:
    """Only the last write of a record is known: an older one conflicts, and changes nothing."""

    @Effect.gen
    def story(storage: Any) -> Do[None, Any]:
        first = birth(born())
        yield from storage.commit(first)
        yield from storage.commit(change(born(), born().evolve()))
        assert isinstance((yield from storage.commit(first).flip()), Conflict)
        yield from storage.commit(change(born().evolve(), None))
        assert isinstance((yield from storage.commit(change(born(), born().evolve())).flip()), Conflict)
        assert (yield from storage.load(USER)) is None

    opening.flat_map(story).scoped().run()


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_the_longest_overdue_of_one_job_come_first(limit: int, opening: Effect[Any, Any, Any]) -> None:
    """However few are asked for: those that wait longest, not those that came last."""

    @Effect.gen
    def story(storage: Any) -> Do[None, Any]:
        for n in (3, 0, 4, 2, 1):
            yield from storage.commit(birth(born(task(f"{5 - n}"), NOON + n * SECOND)))
        jobs: list[JobName] = [("task", "t")]
        found = yield from storage.due(NOON + DAY, limit, jobs)
        assert [due.key.id for due in found] == ["5", "4", "3", "2", "1"][:limit]

    opening.flat_map(story).scoped().run()


def test_marks_that_are_over_take_no_room(opening: Effect[Any, Any, Any]) -> None:
    """Later commits take them along; one that was made anew meanwhile stays as long as it was made for."""

    @Effect.gen
    def story(storage: Any) -> Do[None, Any]:
        for event_id, until in (("over", NOON + SECOND), ("anew", NOON + SECOND), ("long", NOON + DAY)):
            yield from storage.commit(birth(born(task(event_id)), mark=Mark(event_id, until)))
        again = change(born(task("anew")), born(task("anew")).evolve(), mark=Mark("anew", NOON + DAY))
        yield from storage.commit(attrs.evolve(again, at=NOON + SECOND))
        yield from storage.commit(birth(born(), at=NOON + 2 * SECOND))
        assert (yield from storage.survey(NOON, lease=SECOND)).marks == 2
        assert (yield from storage.is_marked(task("anew"), "anew", NOON + DAY - SECOND)) is True
        yield from storage.commit(change(born(), None, at=NOON + DAY))
        assert (yield from storage.survey(NOON, lease=SECOND)).marks == 0

    opening.flat_map(story).scoped().run()

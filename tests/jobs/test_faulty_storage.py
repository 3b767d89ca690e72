"""A storage that fails: calls say so, nothing that was acknowledged is lost, and work resumes by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable_effect import Effect
from durable_effect_jobs import (
    Continuous,
    ContinuousContext,
    Debounce,
    DebounceExecuteContext,
    Task,
    TaskEventContext,
    create_durable_jobs,
)
from durable_effect_jobs.errors import DuplicateEventError, StorageError
from durable_effect_jobs.storage.memory import MemoryStorage
from durable_effect_jobs.testing import JobsTestKit

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

Fault = Literal["refuses", "raises", "loses the answer"]
OPERATIONS = ("load", "commit", "due", "next_due", "is_marked")


class FaultyStorage:
    """A memory storage whose calls fail as long as ``faults`` says so."""

    def __init__(self) -> None:
        self.memory = MemoryStorage()
        self.faults: dict[str, Fault] = {}
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        """What is never at fault."""
        return getattr(self.memory, name)

    def load(self, *given: Any) -> Effect[Any, Any]:
        return self._faulty("load", self.memory.load(*given))

    def commit(self, *given: Any) -> Effect[Any, Any]:
        return self._faulty("commit", self.memory.commit(*given))

    def is_marked(self, *given: Any) -> Effect[Any, Any]:
        return self._faulty("is_marked", self.memory.is_marked(*given))

    def due(self, *given: Any) -> Effect[Any, Any]:
        return self._faulty("due", self.memory.due(*given))

    def next_due(self, *given: Any, **named: Any) -> Effect[Any, Any]:
        return self._faulty("next_due", self.memory.next_due(*given, **named))

    def _faulty(self, operation: str, effect: Effect[Any, Any]) -> Effect[Any, Any]:
        def call() -> Effect[Any, Any]:
            self.calls += 1
            fault = self.faults.get(operation)
            failure = Effect.fail(StorageError(operation, "the disk is gone"))
            if fault == "refuses":
                return failure
            if fault == "raises":
                raise OSError(f"{operation}: the disk is gone")
            return effect if fault is None else effect.and_then(failure)

        return Effect.suspend(call)


def count(ctx: ContinuousContext[int]) -> Effect[None]:
    return ctx.update_state(lambda number: number + 1)


def remember(event: int, ctx: TaskEventContext[list[int]]) -> Effect[None]:
    return ctx.state.flat_map(lambda known: ctx.set_state([*(known or []), event]))


@attrs.define
class Scene:
    """A kit on a faulty storage, and what its batches were flushed with."""

    kit: JobsTestKit
    storage: FaultyStorage
    flushed: list[int]

    def call(self, job: str, method: str, *given: Any, **named: Any) -> Any:
        handles: dict[str, Callable[[str], Any]] = {
            "counter": self.kit.client.continuous,
            "memory": self.kit.client.task,
            "batch": self.kit.client.debounce,
        }
        return self.kit.run(getattr(handles[job](job), method)(*given, **named))

    def outage(self, operations: Iterable[str], fault: Fault, span: str) -> None:
        """For a while these operations fail."""
        self.storage.faults = dict.fromkeys(operations, fault)
        self.kit.advance(span)
        self.storage.faults = {}


def open_scene() -> Scene:
    flushed: list[int] = []
    storage = FaultyStorage()

    def flush(ctx: DebounceExecuteContext[int]) -> Effect[None]:
        return ctx.state.map(flushed.append)

    jobs = create_durable_jobs(
        {
            "counter": Continuous.make(
                state_schema=int,
                schedule=Continuous.every("1 minute"),
                start_immediately=False,
                execute=count,
            ),
            "memory": Task.make(
                state_schema=list[int],
                event_schema=int,
                on_event=remember,
                execute=lambda ctx: Effect.void,
            ),
            "batch": Debounce.make(
                event_schema=int,
                flush_after="90 seconds",
                state_schema=int,
                initial_state=0,
                on_event=lambda ctx: Effect.succeed(ctx.state + ctx.event),
                execute=flush,
            ),
        }
    )
    kit = JobsTestKit(jobs, now=NOON, storage=storage)  # type: ignore[arg-type]
    return Scene(kit, storage, flushed)


FAULTS = [
    *((operation, fault) for operation in OPERATIONS for fault in ("refuses", "raises")),
    ("commit", "loses the answer"),
]


@pytest.mark.parametrize(("operation", "fault"), FAULTS)
def test_alarms_go_on_when_the_storage_is_back(operation: str, fault: Fault) -> None:
    """A run that falls into an outage is done when it is over; no tick is lost, none counts twice."""
    scene = open_scene()
    with scene.kit as kit:
        scene.call("counter", "start", id="a", input=0)
        kit.advance("55 seconds")
        scene.outage([operation], fault, "20 seconds")
        kit.advance("45 seconds")
        assert scene.call("counter", "get_state", "a").state == 2
        status = scene.call("counter", "status", "a")
        assert (status.run_count, status.next_run_at) == (2, NOON + timedelta(minutes=3))


@pytest.mark.parametrize(("operation", "fault"), FAULTS)
def test_a_batch_is_flushed_when_the_storage_is_back(operation: str, fault: Fault) -> None:
    """A flush that falls into an outage is repeated until it is durable, with every event."""
    scene = open_scene()
    with scene.kit as kit:
        for event in (1, 2, 3):
            scene.call("batch", "add", id="a", event=event)
        kit.advance("85 seconds")
        scene.outage([operation], fault, "20 seconds")
        kit.advance("5 seconds")
        assert set(scene.flushed) == {6}
        assert scene.call("batch", "status", "a").status == "not_found"


@pytest.mark.parametrize("fault", ["refuses", "raises"])
def test_an_outage_makes_no_hot_loop(fault: Fault) -> None:
    """While nothing can be read or written the engine looks about once a second, whatever is due."""
    scene = open_scene()
    with scene.kit as kit:
        for number in range(20):
            scene.call("counter", "start", id=f"{number}", input=0)
        kit.advance("59 seconds")
        before = scene.storage.calls
        scene.outage(OPERATIONS, fault, "10 minutes")
        assert scene.storage.calls - before < 2 * 600 + 100
        kit.advance("62 seconds")
        assert {scene.call("counter", "status", f"{number}").run_count for number in range(20)} == {2}


@pytest.mark.parametrize("operation", ["load", "is_marked", "commit"])
def test_a_call_says_that_the_storage_failed(operation: str) -> None:
    """The caller gets the storage's error, nothing changed, and the same call works when it is back."""
    scene = open_scene()
    with scene.kit:
        scene.storage.faults = {operation: "refuses"}
        with pytest.raises(StorageError):
            scene.call("memory", "send", id="a", event=1, event_id="e1")
        scene.storage.faults = {}
        assert scene.call("memory", "status", "a").status == "not_found"
        assert scene.call("memory", "send", id="a", event=1, event_id="e1").created is True


@pytest.mark.parametrize("outage", [1, 3])
@pytest.mark.parametrize("lost", ["the statement", "the answer"])
def test_a_commit_whose_fate_is_unknown_is_sent_again(outage: int, lost: str) -> None:
    """A short outage in the middle of a call is not seen by its caller, and nothing happens twice."""
    scene = open_scene()
    with scene.kit as kit:
        scene.call("counter", "start", id="a", input=0)
        commits: list[int] = []
        memory_commit = scene.storage.memory.commit

        def some_fail(commit: Any) -> Effect[Any, Any]:
            commits.append(1)
            if not 2 <= len(commits) < 2 + outage:
                return memory_commit(commit)
            failure = Effect.fail(StorageError("commit", "full"))
            return failure if lost == "the statement" else memory_commit(commit).and_then(failure)

        scene.storage.commit = some_fail  # type: ignore[method-assign]
        scene.call("counter", "trigger", "a")
        kit.advance("2 seconds")
        assert scene.call("counter", "get_state", "a").state == 1
        assert len(commits) == 2 + outage


def test_a_run_whose_commit_failed_is_run_again() -> None:
    """A trigger that was committed is done later, although the call that ran it failed."""
    scene = open_scene()
    with scene.kit as kit:
        scene.call("counter", "start", id="a", input=0)
        commits: list[int] = []
        memory_commit = scene.storage.memory.commit

        def all_but_the_first_fail(commit: Any) -> Effect[Any, Any]:
            commits.append(1)
            return memory_commit(commit) if len(commits) == 1 else Effect.fail(StorageError("commit", "full"))

        scene.storage.commit = all_but_the_first_fail  # type: ignore[method-assign]
        with pytest.raises(StorageError):
            scene.call("counter", "trigger", "a")
        scene.storage.commit = memory_commit  # type: ignore[method-assign]
        kit.advance("2 seconds")
        assert scene.call("counter", "get_state", "a").state == 1


def test_an_engine_that_cannot_look_into_its_storage_does_not_open() -> None:
    """When the storage fails at once, connecting says so."""
    storage = FaultyStorage()
    storage.jobs = lambda: Effect.fail(StorageError("jobs", "the disk is gone"))  # type: ignore[attr-defined]
    job = Continuous.make(state_schema=int, schedule=Continuous.every("1 minute"), execute=count)
    with pytest.raises(StorageError):
        JobsTestKit(create_durable_jobs({"job": job}), now=NOON, storage=storage)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, *OPERATIONS]),
            st.sampled_from(["refuses", "raises", "loses the answer"]),
            st.integers(0, 100),
        ),
        max_size=30,
    )
)
def test_events_are_kept_exactly_once_by_callers_that_insist(
    faults: list[tuple[str | None, Fault, int]],
) -> None:
    """Whatever fails, an event that is sent again until it is answered is in the state once, in order."""
    scene = open_scene()
    with scene.kit as kit:
        scene.call("counter", "start", id="c", input=0)
        for number, (operation, fault, seconds) in enumerate(faults):
            scene.storage.faults = {} if operation is None else {operation: fault}
            accepted = _try_to_send(scene, number)
            kit.advance(timedelta(seconds=seconds))
            scene.storage.faults = {}
            if not accepted:
                assert _try_to_send(scene, number)
        kit.advance("2 seconds")
        state = scene.call("memory", "get_state", "m").state
        assert state == (list(range(len(faults))) or None)
        minutes = (kit.now - NOON) // timedelta(minutes=1)
        assert scene.call("counter", "status", "c").next_run_at == NOON + timedelta(minutes=minutes + 1)


def _try_to_send(scene: Scene, number: int) -> bool:
    try:
        scene.call("memory", "send", id="m", event=number, event_id=f"{number}")
    except DuplicateEventError:
        return True
    except (StorageError, OSError):
        return False
    return True

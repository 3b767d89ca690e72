"""Debounce: many events, one run; when it flushes, what a failed flush keeps, and that nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable_effect import Backoff, Do, Effect, TypedError
from durable_effect_jobs import (
    Debounce,
    DebounceEventContext,
    DebounceExecuteContext,
    Retry,
    create_durable_jobs,
)
from durable_effect_jobs.errors import ExecutionError, ValidationError
from durable_effect_jobs.testing import JobsTestKit

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
TEN_SECONDS_APART = Retry(max_attempts=3, delay=Backoff.fixed("10 seconds"), jitter=False)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


@attrs.frozen
class Ping:
    name: str


@attrs.frozen
class Batch:
    names: list[str] = attrs.field(factory=list)


@attrs.frozen
class Down(TypedError):
    service: str


@attrs.frozen
class Flush:
    """What one run of `execute` saw."""

    names: list[str]
    event_count: int
    reason: str
    attempt: int
    is_retry: bool
    started_at: datetime
    at: datetime


def collect(ctx: DebounceEventContext[Ping, Batch]) -> Effect[Batch]:
    return Effect.succeed(Batch([*ctx.state.names, ctx.event.name]))


class Scene:
    """One batcher on virtual time: its runs, its client calls, and how many runs shall fail from now on."""

    def __init__(self) -> None:
        self.kit: JobsTestKit
        self.runs: list[Flush] = []
        self.failures = 0
        self.run_time: str | None = None

    @Effect.gen
    def execute(self, ctx: DebounceExecuteContext[Batch]) -> Do[None, Down]:
        batch = yield from ctx.state
        count = yield from ctx.event_count
        started_at = yield from ctx.debounce_started_at
        self.runs.append(
            Flush(batch.names, count, ctx.flush_reason, ctx.attempt, ctx.is_retry, started_at, self.kit.now)
        )
        if self.run_time is not None:
            yield from Effect.sleep(self.run_time)
        if self.failures > 0:
            self.failures -= 1
            yield from Effect.fail(Down("hooks"))

    @property
    def client(self) -> Any:
        return self.kit.client.debounce("batcher")

    def add(self, name: str, key: str = "c1", **more: Any) -> Any:
        return self.kit.run(self.client.add(id=key, event=Ping(name), **more))

    def flush(self, key: str = "c1") -> Any:
        return self.kit.run(self.client.flush(key))

    def clear(self, key: str = "c1") -> Any:
        return self.kit.run(self.client.clear(key))

    def status(self, key: str = "c1") -> Any:
        return self.kit.run(self.client.status(key))

    def state(self, key: str = "c1") -> Any:
        return self.kit.run(self.client.get_state(key)).state

    def types(self) -> list[str]:
        return [event.type for event in self.kit.events]

    @property
    def delivered(self) -> list[list[str]]:
        return [run.names for run in self.runs]


Open = Callable[..., Scene]


def batcher(scene: Scene, **options: Any) -> Any:
    return Debounce.make(
        **{
            "event_schema": Ping,
            "state_schema": Batch,
            "initial_state": Batch,
            "flush_after": "5 seconds",
            "on_event": collect,
            "execute": scene.execute,
            **options,
        }
    )


@pytest.fixture
def open_scene() -> Iterator[Open]:
    """Opens a scene of one batcher; whatever is given replaces the batcher's usual options."""
    with ExitStack() as stack:

        def open_one(**options: Any) -> Scene:
            scene = Scene()
            jobs = create_durable_jobs({"batcher": batcher(scene, **options)})
            scene.kit = stack.enter_context(JobsTestKit(jobs, now=NOON))
            return scene

        yield open_one


# -- the window (rule 12) ----------------------------------------------------------------------------


def test_the_first_event_opens_a_window(open_scene: Open) -> None:
    """The first add creates the instance and says when its batch will be flushed."""
    added = open_scene().add("a")

    assert added.created is True
    assert added.instance_id == "debounce:batcher:c1"
    assert added.event_count == 1
    assert added.will_flush_at == after(5)
    assert not added.retry_scheduled


def test_a_later_event_joins_the_window_without_moving_it(open_scene: Open) -> None:
    """The window belongs to the first event; a second one three seconds later does not extend it."""
    scene = open_scene()
    scene.add("a")
    scene.kit.advance("3 seconds")

    added = scene.add("b")

    assert added.created is False
    assert added.event_count == 2
    assert added.will_flush_at == after(5)


def test_nothing_is_flushed_before_the_window_ends(open_scene: Open) -> None:
    """One millisecond before the end of the window nothing has run."""
    scene = open_scene()
    scene.add("a")

    scene.kit.advance("4999 ms")

    assert scene.runs == []
    assert scene.status().status == "debouncing"


def test_the_batch_is_flushed_when_the_window_ends(open_scene: Open) -> None:
    """At the end of the window one run gets all events, in the order they were added."""
    scene = open_scene()
    scene.add("a")
    scene.kit.advance("2 seconds")
    scene.add("b")

    scene.kit.advance("3 seconds")

    assert scene.runs == [Flush(["a", "b"], 2, "flushAfter", 1, False, NOON, after(5))]


def test_a_long_advance_flushes_at_the_windows_own_time(open_scene: Open) -> None:
    """The run happens at the end of the window, not at the end of the advance that covers it."""
    scene = open_scene()
    scene.add("a")

    scene.kit.advance("1 hour")

    assert [run.at for run in scene.runs] == [after(5)]


def test_the_status_shows_the_open_window(open_scene: Open) -> None:
    """While a batch is open its status has the count, the start and the end of the window."""
    scene = open_scene()
    scene.add("a")
    scene.kit.advance("1 second")
    scene.add("b")

    status = scene.status()

    assert status.status == "debouncing"
    assert status.event_count == 2
    assert status.started_at == NOON
    assert status.will_flush_at == after(5)


def test_the_state_of_an_open_window_is_what_was_collected(open_scene: Open) -> None:
    """`get_state` answers with the batch so far."""
    scene = open_scene()
    scene.add("a")
    scene.add("b")

    assert scene.state() == Batch(["a", "b"])


def test_an_instance_is_gone_after_its_flush(open_scene: Open) -> None:
    """After a flush neither a status nor a state is left."""
    scene = open_scene()
    scene.add("a")
    scene.kit.advance("5 seconds")

    status = scene.status()

    assert status.status == "not_found"
    assert status.started_at is None
    assert status.will_flush_at is None
    assert scene.state() is None


def test_an_unknown_id_is_not_found(open_scene: Open) -> None:
    """An id that never had an event has no window and no state."""
    scene = open_scene()

    assert scene.status("nobody").status == "not_found"
    assert scene.state("nobody") is None


def test_the_event_after_a_flush_opens_a_new_window(open_scene: Open) -> None:
    """The id is free after a flush: the next event starts at one, with a window of its own."""
    scene = open_scene()
    scene.add("a")
    scene.kit.advance("7 seconds")

    added = scene.add("b")
    scene.kit.advance("5 seconds")

    assert (added.created, added.event_count, added.will_flush_at) == (True, 1, after(12))
    assert scene.delivered == [["a"], ["b"]]
    assert scene.runs[1].started_at == after(7)


def test_ids_have_windows_of_their_own(open_scene: Open) -> None:
    """Events of different ids never share a batch."""
    scene = open_scene()
    scene.add("a", key="c1")
    scene.kit.advance("2 seconds")
    scene.add("b", key="c2")

    scene.kit.advance("5 seconds")

    assert [(run.names, run.at) for run in scene.runs] == [(["a"], after(5)), (["b"], after(7))]


def test_a_restart_does_not_move_the_window(open_scene: Open) -> None:
    """A process that dies in the middle of a window leaves the batch and its flush time."""
    scene = open_scene()
    scene.add("a")
    scene.kit.advance("3 seconds")
    scene.kit.restart()
    scene.add("b")

    scene.kit.advance("2 seconds")

    assert [(run.names, run.event_count, run.at) for run in scene.runs] == [(["a", "b"], 2, after(5))]


def test_a_trailing_window_moves_with_each_event(open_scene: Open) -> None:
    """In trailing mode every event puts the flush `flush_after` behind itself."""
    scene = open_scene(mode="trailing", max_wait="60 seconds")

    first = scene.add("a")
    scene.kit.advance("4 seconds")
    second = scene.add("b")
    scene.kit.advance("4 seconds")
    third = scene.add("c")
    scene.kit.advance("1 minute")

    ends = [first.will_flush_at, second.will_flush_at, third.will_flush_at]
    assert ends == [after(5), after(9), after(13)]
    assert [(run.names, run.at) for run in scene.runs] == [(["a", "b", "c"], after(13))]


def test_a_trailing_window_is_bounded_by_max_wait(open_scene: Open) -> None:
    """However often events arrive, a trailing window ends `max_wait` after the first one."""
    scene = open_scene(mode="trailing", max_wait="12 seconds")
    ends = []
    for name in "abc":
        ends.append(scene.add(name).will_flush_at)
        scene.kit.advance("4 seconds")

    assert ends == [after(5), after(9), after(12)]
    assert [(run.names, run.at) for run in scene.runs] == [(["a", "b", "c"], after(12))]


# -- on_event (rule 13) ------------------------------------------------------------------------------


def test_the_first_event_is_reduced_into_the_initial_state(open_scene: Open) -> None:
    """On the first event `on_event` sees `initial_state`, here given as a value."""
    scene = open_scene(initial_state=Batch(["head"]))

    scene.add("a")

    assert scene.state() == Batch(["head", "a"])


def test_an_initial_state_may_be_a_factory(open_scene: Open) -> None:
    """A zero-argument function is called for the state of every new batch."""
    made: list[Batch] = []

    def fresh() -> Batch:
        made.append(Batch([f"batch {len(made)}"]))
        return made[-1]

    scene = open_scene(initial_state=fresh)
    made.clear()  # a definition may try its factory
    scene.add("a")
    scene.add("b")
    first = scene.state()
    scene.flush()
    scene.add("c")

    assert first == Batch(["batch 0", "a", "b"])
    assert scene.state().names[-1] == "c"
    assert scene.state().names[0] != "batch 0"


def test_on_event_sees_the_event_the_state_and_the_count(open_scene: Open) -> None:
    """The event context holds plain values; the count includes the event at hand."""
    seen: list[tuple[str, list[str], int]] = []

    def note(ctx: DebounceEventContext[Ping, Batch]) -> Effect[Batch]:
        seen.append((ctx.event.name, ctx.state.names, ctx.event_count))
        return collect(ctx)

    scene = open_scene(on_event=note)
    scene.add("a")
    scene.add("b")

    assert seen == [("a", [], 1), ("b", ["a"], 2)]


def test_on_event_knows_its_instance(open_scene: Open) -> None:
    """The event context names the instance, the id and the job."""
    seen: list[tuple[str, str, str]] = []

    def note(ctx: DebounceEventContext[Ping, Batch]) -> Effect[Batch]:
        seen.append((ctx.instance_id, ctx.id, ctx.job_name))
        return collect(ctx)

    open_scene(on_event=note).add("a", key="team:7")

    assert seen == [("debounce:batcher:team:7", "team:7", "batcher")]


def test_execute_knows_its_instance(open_scene: Open) -> None:
    """The execute context names the instance, the id and the job."""
    seen: list[tuple[str, str, str]] = []

    def note(ctx: DebounceExecuteContext[Batch]) -> Effect[None]:
        return Effect.sync(lambda: seen.append((ctx.instance_id, ctx.id, ctx.job_name)))

    scene = open_scene(execute=note)
    scene.add("a", key="team:7")
    scene.flush("team:7")

    assert seen == [("debounce:batcher:team:7", "team:7", "batcher")]


def test_on_event_may_be_a_do_block(open_scene: Open) -> None:
    """A reducer may run effects of its own before it answers."""

    @Effect.gen
    def slowly(ctx: DebounceEventContext[Ping, Batch]) -> Do[Batch]:
        yield from Effect.sleep("1 second")
        return Batch([*ctx.state.names, ctx.event.name.upper()])

    scene = open_scene(on_event=slowly)
    scene.add("a")

    assert scene.state() == Batch(["A"])


def test_without_a_state_schema_the_latest_event_is_kept(open_scene: Open) -> None:
    """Without state and reducer a batch is its latest event, and the count still counts them all."""
    flushed: list[tuple[Ping, int]] = []

    @Effect.gen
    def execute(ctx: DebounceExecuteContext[Ping]) -> Do[None]:
        latest = yield from ctx.state
        count = yield from ctx.event_count
        flushed.append((latest, count))

    scene = Scene()
    job = Debounce.make(event_schema=Ping, flush_after="5 seconds", execute=execute)
    with JobsTestKit(create_durable_jobs({"batcher": job}), now=NOON) as scene.kit:
        scene.add("a")
        assert scene.state() == Ping("a")
        scene.add("b")
        assert scene.state() == Ping("b")
        scene.kit.advance("5 seconds")

    assert flushed == [(Ping("b"), 2)]


def test_without_a_state_schema_the_first_state_is_the_event_itself() -> None:
    """A reducer over events sees the first event as its own state, then what it returned before."""
    seen: list[tuple[Ping, Ping]] = []

    def longest(ctx: DebounceEventContext[Ping, Ping]) -> Effect[Ping]:
        seen.append((ctx.state, ctx.event))
        return Effect.succeed(max(ctx.state, ctx.event, key=lambda ping: len(ping.name)))

    job = Debounce.make(
        event_schema=Ping, flush_after="5 seconds", on_event=longest, execute=lambda ctx: Effect.void
    )
    scene = Scene()
    with JobsTestKit(create_durable_jobs({"batcher": job}), now=NOON) as scene.kit:
        scene.add("long name")
        scene.add("short")
        scene.add("mid")

    assert seen == [
        (Ping("long name"), Ping("long name")),
        (Ping("long name"), Ping("short")),
        (Ping("long name"), Ping("mid")),
    ]


def refuse_poison(ctx: DebounceEventContext[Ping, Batch]) -> Effect[Batch, Down]:
    if ctx.event.name == "poison":
        return Effect.fail(Down("reducer"))
    if ctx.event.name == "bug":
        raise ZeroDivisionError("reducer")
    return collect(ctx)


@pytest.mark.parametrize("name", ["poison", "bug"])
def test_a_failing_reducer_leaves_no_instance(open_scene: Open, name: str) -> None:
    """When the first event's reducer fails, or raises, the caller is told and nothing was created."""
    scene = open_scene(on_event=refuse_poison)

    with pytest.raises(ExecutionError):
        scene.add(name)

    assert scene.status().status == "not_found"
    assert "debounce.started" not in scene.types()


@pytest.mark.parametrize("name", ["poison", "bug"])
def test_a_failing_reducer_changes_nothing(open_scene: Open, name: str) -> None:
    """When a later event's reducer fails, state, count and window stay as they were."""
    scene = open_scene(on_event=refuse_poison)
    scene.add("a")
    before = scene.status()

    with pytest.raises(ExecutionError):
        scene.add(name)

    assert scene.status() == before
    assert scene.state() == Batch(["a"])


@pytest.mark.parametrize("answer", [None, "a", Ping("a"), {"names": "a"}], ids=str)
def test_a_reducer_must_answer_with_a_state(open_scene: Open, answer: Any) -> None:
    """A reducer that answers with something else has failed; nothing is written."""
    scene = open_scene(on_event=lambda ctx: Effect.succeed(answer))

    with pytest.raises(ExecutionError):
        scene.add("a")

    assert scene.status().status == "not_found"


# -- full batches (rule 14) --------------------------------------------------------------------------


def test_the_event_that_fills_a_batch_flushes_it_in_the_same_call(open_scene: Open) -> None:
    """The third of three events runs the flush before its add answers."""
    scene = open_scene(max_events=3)
    scene.add("a")
    scene.add("b")
    assert scene.runs == []

    added = scene.add("c")

    assert scene.runs == [Flush(["a", "b", "c"], 3, "maxEvents", 1, False, NOON, NOON)]
    assert (added.created, added.event_count, added.will_flush_at) == (False, 3, None)
    assert not added.retry_scheduled
    assert scene.status().status == "not_found"


def test_a_batch_of_one_is_flushed_at_once(open_scene: Open) -> None:
    """With `max_events=1` every add runs a flush of its own event."""
    scene = open_scene(max_events=1)

    first, second = scene.add("a"), scene.add("b")

    assert (first.created, second.created) == (True, True)
    assert (first.event_count, second.event_count) == (1, 1)
    assert scene.delivered == [["a"], ["b"]]


def test_a_full_batch_takes_its_alarm_with_it(open_scene: Open) -> None:
    """The window of a batch that was flushed early does not cut the next batch short."""
    scene = open_scene(max_events=2)
    scene.add("a")
    scene.add("b")
    scene.kit.advance("3 seconds")
    scene.add("c")

    scene.kit.advance("3 seconds")
    assert scene.delivered == [["a", "b"]]
    scene.kit.advance("2 seconds")

    assert [(run.names, run.reason, run.at) for run in scene.runs] == [
        (["a", "b"], "maxEvents", NOON),
        (["c"], "flushAfter", after(8)),
    ]


def test_events_accumulate_while_a_retry_waits(open_scene: Open) -> None:
    """After a failed flush a full batch waits for its retry; more events only join it."""
    scene = open_scene(max_events=2, retry=TEN_SECONDS_APART)
    scene.failures = 1
    scene.add("a")
    scene.add("b")
    scene.kit.advance("4 seconds")

    third, fourth = scene.add("c"), scene.add("d")

    assert len(scene.runs) == 1
    assert (third.created, third.event_count, fourth.event_count) == (False, 3, 4)
    assert scene.status().will_flush_at == after(10)
    scene.kit.advance("6 seconds")
    assert [(run.names, run.event_count, run.attempt, run.at) for run in scene.runs[1:]] == [
        (["a", "b", "c", "d"], 4, 2, after(10))
    ]


# -- adds that meet a flush (rule 15) ----------------------------------------------------------------


@Effect.gen
def during(slow: Effect[Any, Any], call: Effect[Any, Any]) -> Do[tuple[Any, Any], Any]:
    """Runs `call` one second after `slow` has begun, and waits for both."""
    fiber = yield from Effect.fork(slow)
    yield from Effect.sleep("1 second")
    other = yield from call
    first = yield from fiber.join()
    return first, other


def test_an_add_during_a_flush_opens_the_next_batch(open_scene: Open) -> None:
    """A flush takes what was there when it began; the event that arrives meanwhile is the next first."""
    scene = open_scene()
    scene.run_time = "3 seconds"
    scene.add("a")

    flushed, added = scene.kit.run(
        during(scene.client.flush("c1"), scene.client.add(id="c1", event=Ping("b")))
    )

    assert (flushed.flushed, flushed.event_count) == (True, 1)
    assert (added.created, added.event_count) == (True, 1)
    assert scene.delivered == [["a"]]
    assert scene.state() == Batch(["b"])
    scene.kit.advance("1 minute")
    assert scene.delivered == [["a"], ["b"]]


def test_an_add_during_a_failing_flush_joins_the_kept_batch(open_scene: Open) -> None:
    """When the flush it waited for fails, the event joins what the flush had to leave."""
    scene = open_scene(retry=TEN_SECONDS_APART)
    scene.run_time = "3 seconds"
    scene.failures = 1
    scene.add("a")

    flushed, added = scene.kit.run(
        during(scene.client.flush("c1"), scene.client.add(id="c1", event=Ping("b")))
    )

    assert flushed.flushed is False
    assert (added.created, added.event_count) == (False, 2)
    scene.kit.advance("1 minute")
    assert scene.delivered == [["a"], ["a", "b"]]


def test_a_read_during_a_flush_does_not_wait(open_scene: Open) -> None:
    """While a flush runs, status and state answer from the last commit."""
    scene = open_scene()
    scene.run_time = "3 seconds"
    scene.add("a")
    read_at: list[datetime] = []

    @Effect.gen
    def read() -> Do[tuple[Any, Any], Any]:
        status = yield from scene.client.status("c1")
        state = yield from scene.client.get_state("c1")
        read_at.append(scene.kit.now)
        return status, state

    _, (status, state) = scene.kit.run(during(scene.client.flush("c1"), read()))

    assert (status.status, status.event_count) == ("debouncing", 1)
    assert state.state == Batch(["a"])
    assert read_at == [after(1)]


# -- flush by hand -----------------------------------------------------------------------------------


def test_a_flush_by_hand_runs_now(open_scene: Open) -> None:
    """`flush` does not wait for the window and says how many events it took."""
    scene = open_scene()
    scene.add("a")
    scene.add("b")
    scene.kit.advance("1 second")

    flushed = scene.flush()

    assert (flushed.flushed, flushed.event_count, flushed.reason) == (True, 2, "manual")
    assert not flushed.retry_scheduled
    assert scene.runs == [Flush(["a", "b"], 2, "manual", 1, False, NOON, after(1))]


def test_a_flush_by_hand_takes_the_alarm_with_it(open_scene: Open) -> None:
    """After a flush by hand the old window does not run anything."""
    scene = open_scene()
    scene.add("a")
    scene.flush()

    scene.kit.advance("1 minute")

    assert scene.delivered == [["a"]]


def test_a_flush_of_nothing_is_empty(open_scene: Open) -> None:
    """Where there is no batch there is nothing to flush, and that is no error."""
    scene = open_scene()

    flushed = scene.flush("nobody")

    assert (flushed.flushed, flushed.event_count, flushed.reason) == (False, 0, "empty")
    assert scene.runs == []
    assert scene.kit.events == []


# -- failed flushes (rule 16) ------------------------------------------------------------------------


def test_a_failed_flush_keeps_its_batch_for_another_window(open_scene: Open) -> None:
    """Without `retry` a failed flush is tried again `flush_after` later, with everything it had."""
    scene = open_scene()
    scene.failures = 1
    scene.add("a")
    scene.kit.advance("5 seconds")

    status = scene.status()
    assert (status.status, status.event_count, status.will_flush_at) == ("debouncing", 1, after(10))
    assert scene.state() == Batch(["a"])
    scene.kit.advance("5 seconds")

    assert [(run.names, run.at) for run in scene.runs] == [(["a"], after(5)), (["a"], after(10))]
    assert scene.status().status == "not_found"


def test_a_failed_flush_collects_on(open_scene: Open) -> None:
    """Events that come after a failed flush are part of the next one."""
    scene = open_scene()
    scene.failures = 1
    scene.add("a")
    scene.kit.advance("7 seconds")

    added = scene.add("b")
    scene.kit.advance("3 seconds")

    assert (added.created, added.event_count, added.will_flush_at) == (False, 2, after(10))
    assert scene.delivered == [["a"], ["a", "b"]]


def test_a_flush_that_keeps_failing_is_tried_window_after_window(open_scene: Open) -> None:
    """There is no limit to a flush without `retry`: every window is another try."""
    scene = open_scene()
    scene.failures = 3
    scene.add("a")

    scene.kit.advance("1 minute")

    assert [run.at for run in scene.runs] == [after(5), after(10), after(15), after(20)]


def test_a_caller_whose_own_flush_fails_is_told(open_scene: Open) -> None:
    """A `flush` that fails raises `ExecutionError`, and the batch waits for another window."""
    scene = open_scene()
    scene.failures = 1
    scene.add("a")
    scene.kit.advance("2 seconds")

    with pytest.raises(ExecutionError) as caught:
        scene.flush()

    assert (caught.value.kind, caught.value.job) == ("debounce", "batcher")
    assert caught.value.instance_id == "debounce:batcher:c1"
    assert scene.state() == Batch(["a"])
    assert scene.status().will_flush_at == after(7)


def test_the_event_of_a_failing_full_batch_is_kept(open_scene: Open) -> None:
    """When the event that fills a batch runs a failing flush, the caller is told and the event is kept."""
    scene = open_scene(max_events=2)
    scene.failures = 1
    scene.add("a")

    with pytest.raises(ExecutionError):
        scene.add("b")

    status = scene.status()
    assert (status.status, status.event_count, status.will_flush_at) == ("debouncing", 2, after(5))
    assert scene.state() == Batch(["a", "b"])
    scene.kit.advance("5 seconds")
    assert scene.delivered == [["a", "b"], ["a", "b"]]


def test_the_only_event_of_a_failing_batch_of_one_is_kept(open_scene: Open) -> None:
    """Even the very first event survives the flush that it caused and that failed."""
    scene = open_scene(max_events=1)
    scene.failures = 1

    with pytest.raises(ExecutionError):
        scene.add("a")

    assert scene.state() == Batch(["a"])
    scene.kit.advance("5 seconds")
    assert scene.status().status == "not_found"


def test_a_raised_exception_is_a_failed_flush(open_scene: Open) -> None:
    """An exception in `execute` keeps the batch like a typed failure does."""

    def broken(ctx: DebounceExecuteContext[Batch]) -> Effect[None]:
        raise ZeroDivisionError("boom")

    scene = open_scene(execute=broken)
    scene.add("a")

    with pytest.raises(ExecutionError):
        scene.flush()

    assert scene.state() == Batch(["a"])
    assert scene.status().will_flush_at == after(5)


def test_a_failed_flush_survives_a_restart(open_scene: Open) -> None:
    """A restart after a failed flush keeps the batch and the time of its next try."""
    scene = open_scene()
    scene.failures = 1
    scene.add("a")
    scene.kit.advance("5 seconds")

    scene.kit.restart()
    scene.kit.advance("5 seconds")

    assert [(run.names, run.at) for run in scene.runs] == [(["a"], after(5)), (["a"], after(10))]


def test_a_crash_during_a_flush_repeats_the_flush(open_scene: Open) -> None:
    """A process that dies in the middle of a flush has lost nothing: the next one flushes the same batch."""
    scene = open_scene()
    scene.run_time = "10 seconds"
    scene.add("a")
    scene.kit.run(Effect.fork_detach(scene.client.flush("c1")))
    assert scene.delivered == [["a"]]

    scene.kit.restart()
    scene.kit.advance("1 minute")

    assert scene.delivered == [["a"], ["a"]]
    assert scene.status().status == "not_found"
    assert scene.types().count("debounce.flushed") == 1


def test_a_crash_during_the_flush_of_a_full_batch_keeps_its_event(open_scene: Open) -> None:
    """The event that filled the batch was committed before the flush began."""
    scene = open_scene(max_events=2)
    scene.run_time = "10 seconds"
    scene.add("a")
    scene.kit.run(Effect.fork_detach(scene.client.add(id="c1", event=Ping("b"))))

    scene.kit.restart()
    scene.kit.advance("1 minute")

    assert scene.delivered == [["a", "b"], ["a", "b"]]


# -- flushes with a retry ----------------------------------------------------------------------------


def test_a_flush_with_a_retry_is_tried_again_later(open_scene: Open) -> None:
    """With `retry` the caller hears that a retry is scheduled, and the retry knows that it is one."""
    scene = open_scene(retry=TEN_SECONDS_APART)
    scene.failures = 1
    scene.add("a")

    flushed = scene.flush()
    assert (flushed.flushed, flushed.retry_scheduled) == (False, True)
    assert scene.status().will_flush_at == after(10)
    scene.kit.advance("10 seconds")

    assert [(run.attempt, run.is_retry, run.at) for run in scene.runs] == [
        (1, False, NOON),
        (2, True, after(10)),
    ]
    assert scene.status().status == "not_found"


def test_an_add_that_starts_a_retry_says_so(open_scene: Open) -> None:
    """The add that filled a batch answers that its flush will be retried."""
    scene = open_scene(max_events=2, retry=TEN_SECONDS_APART)
    scene.failures = 1
    scene.add("a")

    added = scene.add("b")

    assert added.retry_scheduled is True
    assert added.event_count == 2
    assert scene.state() == Batch(["a", "b"])


def test_the_window_start_is_the_same_on_every_attempt(open_scene: Open) -> None:
    """A retry still knows when its batch began."""
    scene = open_scene(retry=TEN_SECONDS_APART)
    scene.failures = 2
    scene.add("a")

    scene.kit.advance("1 minute")

    assert [(run.started_at, run.at) for run in scene.runs] == [
        (NOON, after(5)),
        (NOON, after(15)),
        (NOON, after(25)),
    ]


def test_attempts_go_on_after_a_restart(open_scene: Open) -> None:
    """A restart between two attempts neither repeats nor skips one."""
    scene = open_scene(retry=TEN_SECONDS_APART)
    scene.failures = 2
    scene.add("a")
    scene.kit.advance("5 seconds")
    scene.kit.restart()
    scene.kit.advance("10 seconds")
    scene.kit.restart()
    scene.kit.advance("10 seconds")

    assert [(run.attempt, run.at) for run in scene.runs] == [(1, after(5)), (2, after(15)), (3, after(25))]


def test_a_run_has_one_key_for_all_its_attempts(open_scene: Open) -> None:
    """The key of a run is the same on every attempt and another one for the next batch."""
    keys: list[str] = []

    def execute(ctx: DebounceExecuteContext[Batch]) -> Effect[None, Down]:
        keys.append(ctx.run_key)
        return Effect.fail(Down("hooks")) if len(keys) < 3 else Effect.void

    scene = open_scene(execute=execute, retry=TEN_SECONDS_APART)
    scene.add("a")
    scene.kit.advance("15 seconds")
    scene.kit.restart()
    scene.kit.advance("1 minute")
    scene.add("b")
    scene.kit.advance("1 minute")

    assert len(keys) == 4
    assert keys[0] == keys[1] == keys[2] != keys[3]


def test_a_flush_while_a_retry_waits_runs_now_and_counts_anew(open_scene: Open) -> None:
    """A flush by hand does not wait for the retry and restarts the attempt count."""
    scene = open_scene(retry=TEN_SECONDS_APART)
    scene.failures = 1
    scene.add("a")
    scene.kit.advance("6 seconds")

    flushed = scene.flush()
    scene.kit.advance("1 minute")

    assert (flushed.flushed, flushed.event_count) == (True, 1)
    assert [(run.attempt, run.at) for run in scene.runs] == [(1, after(5)), (1, after(6))]


def test_an_exhausted_batch_is_gone(open_scene: Open) -> None:
    """After the last attempt the batch is terminated; the id is free for another one."""
    scene = open_scene(retry=TEN_SECONDS_APART)
    scene.failures = 3
    scene.add("a")

    scene.kit.advance("1 minute")

    assert [run.attempt for run in scene.runs] == [1, 2, 3]
    assert scene.status().status == "not_found"
    assert scene.add("b").created is True


def test_a_flush_that_exhausts_its_retries_does_not_fail(open_scene: Open) -> None:
    """The caller whose own flush was the last attempt hears `flushed=False`."""
    scene = open_scene(retry=Retry(max_attempts=1))
    scene.failures = 1
    scene.add("a")

    flushed = scene.flush()

    assert flushed.flushed is False
    assert not flushed.retry_scheduled
    assert scene.status().status == "not_found"


def test_an_add_that_exhausts_its_retries_does_not_fail(open_scene: Open) -> None:
    """The caller whose own event filled the batch gets an answer although the batch was given up."""
    scene = open_scene(max_events=1, retry=Retry(max_attempts=1))
    scene.failures = 1

    added = scene.add("a")

    assert added.event_count == 1
    assert not added.retry_scheduled
    assert scene.status().status == "not_found"


def test_an_exhausted_batch_may_be_kept_stopped(open_scene: Open) -> None:
    """With `on_exhausted="stop"` the batch stays, nothing runs by itself, and a flush revives it."""
    scene = open_scene(
        retry=Retry(max_attempts=2, delay=Backoff.fixed("10 seconds"), jitter=False, on_exhausted="stop")
    )
    scene.failures = 2
    scene.add("a")
    scene.kit.advance("1 day")
    assert [run.attempt for run in scene.runs] == [1, 2]
    assert scene.state() == Batch(["a"])
    assert scene.status().will_flush_at is None

    flushed = scene.flush()

    assert (flushed.flushed, flushed.event_count) == (True, 1)
    assert scene.runs[-1].attempt == 1


# -- invalid events and clear (rules 17 and 18) ------------------------------------------------------


@pytest.mark.parametrize("event", [{"name": 7}, {}, "a", None, Batch(["a"])])
def test_an_invalid_first_event_leaves_nothing_behind(open_scene: Open, event: Any) -> None:
    """An event that is not of the schema is refused before anything exists."""
    scene = open_scene()

    with pytest.raises(ValidationError):
        scene.kit.run(scene.client.add(id="c1", event=event))

    assert scene.status().status == "not_found"
    assert scene.kit.events == []
    assert scene.add("a").created is True


def test_an_invalid_later_event_changes_nothing(open_scene: Open) -> None:
    """An invalid event in an open window is refused and the window is as before."""
    scene = open_scene()
    scene.add("a")
    before = scene.status()

    with pytest.raises(ValidationError):
        scene.kit.run(scene.client.add(id="c1", event={"name": None}))

    assert scene.status() == before
    assert scene.state() == Batch(["a"])


def test_clear_discards_without_running(open_scene: Open) -> None:
    """`clear` drops the batch and its alarm and says how many events are gone."""
    scene = open_scene()
    scene.add("a")
    scene.add("b")

    cleared = scene.clear()
    scene.kit.advance("1 minute")

    assert (cleared.cleared, cleared.discarded_events) == (True, 2)
    assert scene.runs == []
    assert scene.status().status == "not_found"


def test_clear_ends_the_instance_in_telemetry(open_scene: Open) -> None:
    """A cleared batch is reported as terminated, reason `cleared`."""
    scene = open_scene()
    scene.add("a")
    scene.clear()

    assert scene.types() == ["debounce.started", "job.terminated"]
    assert scene.kit.events[-1].reason == "cleared"


def test_clear_of_nothing_clears_nothing(open_scene: Open) -> None:
    """Where there is no batch `clear` says so and reports nothing."""
    scene = open_scene()

    cleared = scene.clear("nobody")

    assert (cleared.cleared, cleared.discarded_events) == (False, 0)
    assert scene.kit.events == []


def test_clear_also_forgets_a_waiting_retry(open_scene: Open) -> None:
    """A batch that waits for a retry can be cleared; the retry never runs."""
    scene = open_scene(retry=TEN_SECONDS_APART)
    scene.failures = 1
    scene.add("a")
    scene.kit.advance("5 seconds")

    scene.clear()
    scene.kit.advance("1 minute")

    assert len(scene.runs) == 1


def test_the_id_is_free_after_a_clear(open_scene: Open) -> None:
    """A cleared id starts again at one, with a window of its own."""
    scene = open_scene()
    scene.add("a")
    scene.kit.advance("2 seconds")
    scene.clear()

    added = scene.add("b")

    assert (added.created, added.event_count, added.will_flush_at) == (True, 1, after(7))
    assert scene.state() == Batch(["b"])


# -- definitions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"flush_after": "0 seconds"},
        {"flush_after": timedelta(seconds=-1)},
        {"flush_after": "soon"},
        {"max_events": 0},
        {"max_events": -1},
        {"mode": "trailing", "max_wait": "0 seconds"},
        {"mode": "sideways"},
    ],
    ids=str,
)
def test_a_batcher_that_cannot_be_is_refused_when_it_is_made(options: dict[str, Any]) -> None:
    """Spans and counts of a definition are positive and finite, and its mode is one that exists."""
    with pytest.raises((ValueError, TypedError)):
        batcher(Scene(), **options)


# -- laws --------------------------------------------------------------------------------------------

ops = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(["c1", "c2"])),
        st.tuples(st.just("flush"), st.sampled_from(["c1", "c2"])),
        st.tuples(st.just("advance"), st.integers(min_value=1, max_value=8)),
        st.tuples(st.just("restart"), st.none()),
    ),
    max_size=25,
)


@attrs.define
class ModelWindow:
    names: list[str]
    ends_at: int


class Model:
    """A batcher in twenty lines: whole seconds, `flush_after` 5, `max_events` 4."""

    def __init__(self) -> None:
        self.now = 0
        self.windows: dict[str, ModelWindow] = {}
        self.delivered: list[tuple[int, list[str]]] = []

    def add(self, key: str, name: str) -> int:
        window = self.windows.setdefault(key, ModelWindow([], self.now + 5))
        window.names.append(name)
        if len(window.names) == 4:
            self.flush(key)
        return len(window.names)

    def flush(self, key: str) -> int:
        window = self.windows.pop(key, None)
        if window is None:
            return 0
        self.delivered.append((self.now, window.names))
        return len(window.names)

    def advance(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1
            for key in [key for key, window in self.windows.items() if window.ends_at == self.now]:
                self.flush(key)


@settings(max_examples=50, deadline=None)
@given(ops)
def test_a_batcher_does_what_its_model_does(steps: list[tuple[str, Any]]) -> None:
    """Under any sequence of adds, flushes, waits and restarts all counts and deliveries are the model's."""
    scene, model = Scene(), Model()
    jobs = create_durable_jobs({"batcher": batcher(scene, max_events=4)})
    with JobsTestKit(jobs, now=NOON) as scene.kit:
        for number, (op, argument) in enumerate(steps):
            if op == "add":
                assert scene.add(str(number), key=argument).event_count == model.add(argument, str(number))
            elif op == "flush":
                assert scene.flush(argument).event_count == model.flush(argument)
            elif op == "advance":
                scene.kit.advance(timedelta(seconds=argument))
                model.advance(argument)
            else:
                scene.kit.restart()
        for key in ["c1", "c2"]:
            window = model.windows.get(key)
            assert scene.state(key) == (Batch(window.names) if window else None)

    delivered = sorted((run.at, run.names) for run in scene.runs)
    assert delivered == sorted((after(at), names) for at, names in model.delivered)


@settings(max_examples=50, deadline=None)
@given(
    steps=st.lists(st.sampled_from(["add", "add", "flush", "advance", "restart"]), max_size=25),
    failing=st.lists(st.booleans(), max_size=25),
)
def test_no_acknowledged_event_is_lost_or_doubled(steps: list[str], failing: list[bool]) -> None:
    """However flushes fail, each event was delivered once, by a flush that succeeded, or is still kept."""
    outcomes, delivered = iter(failing), list[str]()

    @Effect.gen
    def execute(ctx: DebounceExecuteContext[Batch]) -> Do[None, Down]:
        batch = yield from ctx.state
        if next(outcomes, False):
            yield from Effect.fail(Down("hooks"))
        delivered.extend(batch.names)

    scene, added = Scene(), list[str]()
    jobs = create_durable_jobs({"batcher": batcher(scene, execute=execute, max_events=3)})
    with JobsTestKit(jobs, now=NOON) as scene.kit:
        for number, step in enumerate(steps):
            try:
                if step == "add":
                    added.append(str(number))
                    scene.add(str(number))
                elif step == "flush":
                    scene.flush()
                elif step == "advance":
                    scene.kit.advance("3 seconds")
                else:
                    scene.kit.restart()
            except ExecutionError:
                assert step in ("add", "flush")
        kept = scene.state()

    assert delivered + (kept.names if kept else []) == added

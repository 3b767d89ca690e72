"""Task: events change a state and decide when `execute` runs; idle, errors, retries and triggers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable_effect import Backoff, Defect, Do, Effect, TypedError
from durable_effect_jobs import (
    Retry,
    Task,
    TaskErrorContext,
    TaskEventContext,
    TaskExecuteContext,
    TaskIdleContext,
    create_durable_jobs,
)
from durable_effect_jobs.errors import ExecutionError, ValidationError
from durable_effect_jobs.testing import JobsTestKit

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


@attrs.frozen
class Note:
    text: str


@attrs.frozen
class Ledger:
    lines: list[str]


@attrs.frozen
class Refused(TypedError):
    what: str


class Scene:
    """One task on virtual time and the calls of its client."""

    def __init__(self, kit: JobsTestKit) -> None:
        self.kit = kit

    @property
    def client(self) -> Any:
        return self.kit.client.task("ledger")

    def send(self, text: str = "", key: str = "o1", **more: Any) -> Any:
        return self.kit.run(self.client.send(id=key, event=Note(text), **more))

    def trigger(self, key: str = "o1") -> Any:
        return self.kit.run(self.client.trigger(key))

    def terminate(self, key: str = "o1", **more: Any) -> Any:
        return self.kit.run(self.client.terminate(key, **more))

    def status(self, key: str = "o1") -> Any:
        return self.kit.run(self.client.status(key))

    def get_state(self, key: str = "o1") -> Any:
        return self.kit.run(self.client.get_state(key))

    def lines(self, key: str = "o1") -> list[str] | None:
        state = self.get_state(key).state
        return None if state is None else state.lines


Open = Callable[..., Scene]
AnyContext = Any


@Effect.gen
def write(ctx: AnyContext, line: str) -> Do[None]:
    """Adds a line to the ledger, or begins it."""
    state = yield from ctx.state
    yield from ctx.set_state(Ledger([*(state.lines if state else []), line]))


def on_note(event: Note, ctx: TaskEventContext[Ledger]) -> Effect[None]:
    """Keeps the text and does what its words say: schedule (`+5 seconds`), cancel, fail, raise or end."""
    return note(event.text, ctx)


@Effect.gen
def note(text: str, ctx: AnyContext) -> Do[None, Refused]:
    yield from write(ctx, text)
    for word in text.split(","):
        if word.startswith("+"):
            yield from ctx.schedule(word[1:])
        elif word == "cancel":
            yield from ctx.cancel_schedule()
        elif word == "fail":
            yield from Effect.fail(Refused(text))
        elif word == "raise":
            raise ZeroDivisionError(text)
        elif word == "end":
            yield from ctx.terminate()


def ran(ctx: TaskExecuteContext[Ledger]) -> Effect[None]:
    return write(ctx, "ran")


def ledger_job(**options: Any) -> Any:
    return Task.make(
        **{
            "state_schema": Ledger,
            "event_schema": Note,
            "on_event": on_note,
            "execute": ran,
            **options,
        }
    )


@pytest.fixture
def open_scene() -> Iterator[Open]:
    """Opens a scene of one task; whatever is given replaces the task's usual options."""
    with ExitStack() as stack:

        def open_one(**options: Any) -> Scene:
            jobs = create_durable_jobs({"ledger": ledger_job(**options)})
            return Scene(stack.enter_context(JobsTestKit(jobs, now=NOON)))

        yield open_one


class Failing:
    """An `execute` that writes a line and then fails as often as it is told to, noting each run."""

    def __init__(self, times: int, error: Exception | None = None) -> None:
        self.times, self.error, self.kit, self.runs = times, error, None, list[datetime]()

    def __call__(self, ctx: TaskExecuteContext[Ledger]) -> Effect[None, Refused]:
        return self.run(ctx)

    @Effect.gen
    def run(self, ctx: TaskExecuteContext[Ledger]) -> Do[None, Refused]:
        assert self.kit is not None
        self.runs.append(self.kit.now)
        yield from write(ctx, f"run {len(self.runs)}")
        if len(self.runs) <= self.times:
            if self.error is not None:
                raise self.error
            yield from Effect.fail(Refused("execute"))

    def gaps(self) -> list[timedelta]:
        return [later - earlier for earlier, later in pairwise(self.runs)]


def open_failing(open_scene: Open, times: int, error: Exception | None = None, **options: Any) -> Any:
    execute = Failing(times, error)
    scene = open_scene(execute=execute, **options)
    execute.kit = scene.kit
    return scene, execute


# -- send (rule 19) ----------------------------------------------------------------------------------


def test_the_first_send_creates_the_instance(open_scene: Open) -> None:
    """The answer names the new instance and when it will run."""
    sent = open_scene().send("+5 minutes")

    assert sent.created is True
    assert sent.instance_id == "task:ledger:o1"
    assert sent.scheduled_at == after(300)


def test_a_later_send_finds_the_instance(open_scene: Open) -> None:
    """A second event of the same id is of the same instance."""
    scene = open_scene()
    scene.send("a")

    sent = scene.send("b")

    assert sent.created is False
    assert sent.instance_id == "task:ledger:o1"
    assert scene.lines() == ["a", "b"]


def test_a_send_that_schedules_nothing_has_no_time(open_scene: Open) -> None:
    """Without a schedule the answer's time is absent."""
    assert open_scene().send("a").scheduled_at is None


def test_a_scheduled_task_is_active(open_scene: Open) -> None:
    """Status of a task that waits for its alarm."""
    scene = open_scene()
    scene.send("a")
    scene.kit.advance("1 second")
    scene.send("+5 minutes")

    status = scene.status()

    assert status.status == "active"
    assert status.scheduled_at == after(301)
    assert (status.event_count, status.execute_count) == (2, 0)
    assert status.created_at == NOON


def test_a_task_without_a_schedule_is_idle(open_scene: Open) -> None:
    """Status of a task that waits for an event."""
    scene = open_scene()
    scene.send("a")

    status = scene.status()

    assert (status.status, status.scheduled_at) == ("idle", None)
    assert (status.event_count, status.execute_count) == (1, 0)


def test_get_state_answers_state_schedule_and_birth(open_scene: Open) -> None:
    """The state comes with the two times a caller asks for."""
    scene = open_scene()
    scene.send("a")
    scene.kit.advance("1 minute")
    scene.send("+5 minutes")

    got = scene.get_state()

    assert got.state == Ledger(["a", "+5 minutes"])
    assert got.scheduled_at == after(360)
    assert got.created_at == NOON


def test_an_unknown_id_is_not_found(open_scene: Open) -> None:
    """An id that never had an event has no status, state or times."""
    scene = open_scene()

    status, got = scene.status("nobody"), scene.get_state("nobody")

    assert (status.status, status.scheduled_at, status.created_at) == ("not_found", None, None)
    assert (got.state, got.scheduled_at, got.created_at) == (None, None, None)


@pytest.mark.parametrize("event", [{"text": 7}, {}, "a", None, Ledger(["a"])])
def test_an_invalid_first_event_leaves_nothing_behind(open_scene: Open, event: Any) -> None:
    """An event that is not of the schema is refused before anything exists."""
    scene = open_scene()

    with pytest.raises(ValidationError):
        scene.kit.run(scene.client.send(id="o1", event=event))

    assert scene.status().status == "not_found"
    assert scene.kit.events == []
    assert scene.send("a").created is True


def test_an_invalid_later_event_changes_nothing_not_even_the_count(open_scene: Open) -> None:
    """A refused event is not counted."""
    scene = open_scene()
    scene.send("+5 minutes")
    before = scene.status()

    with pytest.raises(ValidationError):
        scene.kit.run(scene.client.send(id="o1", event={"text": None}))

    assert scene.status() == before
    assert scene.lines() == ["+5 minutes"]


@pytest.mark.parametrize("text", ["+5 minutes,fail", "+5 minutes,raise"])
def test_a_failing_first_event_leaves_nothing_behind(open_scene: Open, text: str) -> None:
    """When `on_event` fails its state, its schedule and the instance itself are dropped."""
    scene = open_scene()

    with pytest.raises(ExecutionError) as caught:
        scene.send(text)

    assert (caught.value.kind, caught.value.job) == ("task", "ledger")
    assert caught.value.instance_id == "task:ledger:o1"
    assert scene.status().status == "not_found"
    assert "job.started" not in [event.type for event in scene.kit.events]


@pytest.mark.parametrize("text", ["+1 minute,fail", "cancel,fail", "+1 minute,raise"])
def test_a_failing_event_changes_nothing_not_even_the_count(open_scene: Open, text: str) -> None:
    """State, count and schedule are what they were before the event that failed."""
    scene = open_scene()
    scene.send("+5 minutes")
    before = scene.status()

    with pytest.raises(ExecutionError):
        scene.send(text)

    assert scene.status() == before
    assert scene.lines() == ["+5 minutes"]


def test_ids_are_apart(open_scene: Open) -> None:
    """Two ids of one job share neither state nor schedule."""
    scene = open_scene()
    scene.send("a", key="o1")
    scene.send("+5 minutes", key="o2")

    assert (scene.lines("o1"), scene.lines("o2")) == (["a"], ["+5 minutes"])
    assert (scene.status("o1").status, scene.status("o2").status) == ("idle", "active")


def test_everything_survives_a_restart(open_scene: Open) -> None:
    """State, counts, birth and alarm are what they were before the process died."""
    scene = open_scene()
    scene.send("a")
    scene.kit.advance("1 minute")
    scene.send("+5 minutes")
    before, state = scene.status(), scene.get_state()

    scene.kit.restart()

    assert scene.status() == before
    assert scene.get_state() == state
    scene.kit.advance("5 minutes")
    assert scene.lines() == ["a", "+5 minutes", "ran"]


# -- the alarm (rule 20) -----------------------------------------------------------------------------


def test_execute_runs_at_its_time_and_not_before(open_scene: Open) -> None:
    """One millisecond before its time the task still waits."""
    scene = open_scene()
    scene.send("+5 minutes")

    scene.kit.advance("299999 ms")
    assert scene.lines() == ["+5 minutes"]
    scene.kit.advance("1 ms")

    assert scene.lines() == ["+5 minutes", "ran"]


def test_a_task_is_idle_after_a_run_that_scheduled_nothing(open_scene: Open) -> None:
    """The alarm is cleared when it fires; nothing runs again by itself."""
    scene = open_scene()
    scene.send("+5 minutes")
    scene.kit.advance("5 minutes")

    status = scene.status()
    scene.kit.advance("1 day")

    assert (status.status, status.scheduled_at, status.execute_count) == ("idle", None, 1)
    assert scene.lines() == ["+5 minutes", "ran"]


def test_a_run_may_schedule_the_next_one(open_scene: Open) -> None:
    """A span is counted from the time of the run that schedules."""

    @Effect.gen
    def again(ctx: TaskExecuteContext[Ledger]) -> Do[None]:
        count = yield from ctx.execute_count
        yield from write(ctx, f"run {count}")
        if count < 3:
            yield from ctx.schedule("10 minutes")

    scene = open_scene(execute=again)
    scene.send("+5 minutes")
    scene.kit.advance("5 minutes")
    assert scene.status().scheduled_at == after(900)
    scene.kit.advance("1 day")

    assert scene.lines() == ["+5 minutes", "run 1", "run 2", "run 3"]
    assert scene.status().execute_count == 3


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("+1 minute,+2 minutes", 120),
        ("+2 minutes,+1 minute", 60),
        ("cancel,+1 minute", 60),
        ("+1 minute,cancel", None),
        ("+1 minute,cancel,+3 minutes", 180),
    ],
)
def test_the_last_word_on_the_schedule_wins(open_scene: Open, text: str, seconds: int | None) -> None:
    """Of several `schedule` and `cancel_schedule` in one handler the last one counts."""
    sent = open_scene().send(text)

    assert sent.scheduled_at == (None if seconds is None else after(seconds))


def test_a_pending_schedule_stays_when_nothing_is_said(open_scene: Open) -> None:
    """An event that does not speak of the schedule leaves it alone."""
    scene = open_scene()
    scene.send("+5 minutes")
    scene.kit.advance("1 minute")

    assert scene.send("a").scheduled_at == after(300)


def test_a_later_event_may_move_the_schedule(open_scene: Open) -> None:
    """There is one alarm: a new time replaces the old one."""
    scene = open_scene()
    scene.send("+5 minutes")
    scene.kit.advance("1 minute")
    scene.send("+10 minutes")

    scene.kit.advance("599 seconds")
    assert scene.status().execute_count == 0
    scene.kit.advance("1 second")

    assert scene.status().execute_count == 1


def test_a_later_event_may_cancel_the_schedule(open_scene: Open) -> None:
    """A cancelled schedule leaves the task idle and never fires."""
    scene = open_scene()
    scene.send("+5 minutes")

    sent = scene.send("cancel")
    scene.kit.advance("1 hour")

    assert sent.scheduled_at is None
    assert scene.status().status == "idle"
    assert scene.lines() == ["+5 minutes", "cancel"]


def test_a_cancel_without_a_schedule_does_nothing(open_scene: Open) -> None:
    """Cancelling what is not there is no error."""
    scene = open_scene()

    assert scene.send("cancel").scheduled_at is None
    assert scene.status().status == "idle"


@pytest.mark.parametrize(
    "when",
    [after(-3600), int(after(-3600).timestamp() * 1000), NOON],
    ids=["an hour ago", "ms of an hour ago", "now"],
)
def test_a_past_time_fires_at_once(open_scene: Open, when: Any) -> None:
    """A task scheduled for a time that is over runs without any wait."""
    scene = open_scene(on_event=lambda event, ctx: ctx.schedule(when))

    scene.send("a")

    assert scene.lines() == ["ran"]
    assert scene.status().execute_count == 1


def in_berlin(seconds: float) -> datetime:
    return after(seconds).astimezone(timezone(timedelta(hours=1)))


@pytest.mark.parametrize(
    "when",
    [
        "90 seconds",
        "1.5 minutes",
        "90s",
        timedelta(seconds=90),
        after(90),
        in_berlin(90),
        int(after(90).timestamp() * 1000),
    ],
    ids=str,
)
def test_every_form_of_time_is_understood(open_scene: Open, when: Any) -> None:
    """A span as text or timedelta, an aware datetime of any zone, milliseconds since the epoch."""
    scene = open_scene(on_event=lambda event, ctx: ctx.schedule(when))

    assert scene.send("a").scheduled_at == after(90)


@pytest.mark.parametrize(
    "when",
    [
        datetime(2026, 1, 1, 13),
        int(after(90).timestamp()),
        90,
        "soon",
        "90",
        "-5 minutes",
        timedelta(seconds=-5),
        True,
        None,
    ],
    ids=str,
)
def test_a_time_that_means_nothing_is_an_error(open_scene: Open, when: Any) -> None:
    """A naive datetime, a number that can only be seconds or a malformed span fails; nothing is written."""
    scene = open_scene(on_event=lambda event, ctx: ctx.schedule(when))

    with pytest.raises(ExecutionError):
        scene.send("a")

    assert scene.status().status == "not_found"


def test_handlers_see_the_scheduled_time(open_scene: Open) -> None:
    """`get_scheduled_time` is live: it sees what the same handler just did."""
    seen: list[datetime | None] = []

    @Effect.gen
    def look(event: Note, ctx: TaskEventContext[Ledger]) -> Do[None]:
        seen.append((yield from ctx.get_scheduled_time()))
        yield from ctx.schedule("5 minutes")
        seen.append((yield from ctx.get_scheduled_time()))
        yield from ctx.cancel_schedule()
        seen.append((yield from ctx.get_scheduled_time()))
        yield from ctx.schedule("1 minute")

    scene = open_scene(on_event=look)
    scene.send("a")
    scene.send("b")

    assert seen == [None, after(300), None, after(60), after(300), None]


def test_an_alarm_is_cleared_when_it_fires(open_scene: Open) -> None:
    """Inside the run that the alarm caused nothing is scheduled any more."""
    seen: list[datetime | None] = []

    @Effect.gen
    def look(ctx: TaskExecuteContext[Ledger]) -> Do[None]:
        seen.append((yield from ctx.get_scheduled_time()))

    scene = open_scene(execute=look)
    scene.send("+5 minutes")
    scene.kit.advance("5 minutes")

    assert seen == [None]


def test_a_long_sleep_of_the_process_fires_late_but_once(open_scene: Open) -> None:
    """An alarm that fell due while no process was there fires when one is."""
    scene = open_scene()
    scene.send("+5 minutes")
    scene.kit.restart()

    scene.kit.advance("1 day")

    assert scene.lines() == ["+5 minutes", "ran"]


# -- contexts ----------------------------------------------------------------------------------------


def test_on_event_knows_its_instance(open_scene: Open) -> None:
    """The event context names the instance, the id and the job."""
    seen: list[tuple[str, str, str]] = []

    def look(event: Note, ctx: TaskEventContext[Ledger]) -> Effect[None]:
        return Effect.sync(lambda: seen.append((ctx.instance_id, ctx.id, ctx.job_name)))

    open_scene(on_event=look).send("a", key="shop:7")

    assert seen == [("task:ledger:shop:7", "shop:7", "ledger")]


def test_on_event_counts_the_event_at_hand(open_scene: Open) -> None:
    """The count that a handler sees includes its own event."""
    seen: list[int] = []

    @Effect.gen
    def look(event: Note, ctx: TaskEventContext[Ledger]) -> Do[None]:
        seen.append((yield from ctx.event_count))

    scene = open_scene(on_event=look)
    for text in "abc":
        scene.send(text)

    assert seen == [1, 2, 3]


def test_on_event_knows_the_first_event(open_scene: Open) -> None:
    """The first event sees no state and is told that it is the first."""
    seen: list[tuple[bool, Ledger | None]] = []

    @Effect.gen
    def look(event: Note, ctx: TaskEventContext[Ledger]) -> Do[None]:
        seen.append((ctx.is_first_event, (yield from ctx.state)))
        yield from write(ctx, event.text)

    scene = open_scene(on_event=look)
    scene.send("a")
    scene.send("b")

    assert seen == [(True, None), (False, Ledger(["a"]))]


def test_every_handler_knows_when_the_task_was_created(open_scene: Open) -> None:
    """The birth of a task is the time of its first event."""
    seen: list[datetime] = []

    @Effect.gen
    def on_event(event: Note, ctx: TaskEventContext[Ledger]) -> Do[None]:
        seen.append((yield from ctx.created_at))
        yield from ctx.schedule("5 minutes")

    @Effect.gen
    def execute(ctx: TaskExecuteContext[Ledger]) -> Do[None]:
        seen.append((yield from ctx.created_at))

    scene = open_scene(on_event=on_event, execute=execute)
    scene.send("a")
    scene.kit.advance("1 minute")
    scene.send("b")
    scene.kit.advance("1 hour")

    assert seen == [NOON, NOON, NOON]


def test_execute_sees_counts_that_include_itself(open_scene: Open) -> None:
    """`execute_count` counts the run at hand, `event_count` the events so far."""
    seen: list[tuple[int, int]] = []

    @Effect.gen
    def execute(ctx: TaskExecuteContext[Ledger]) -> Do[None]:
        events = yield from ctx.event_count
        runs = yield from ctx.execute_count
        seen.append((events, runs))

    scene = open_scene(execute=execute)
    scene.send("+5 seconds")
    scene.send("a")
    scene.kit.advance("5 seconds")
    scene.send("b")
    scene.trigger()

    assert seen == [(2, 1), (3, 2)]


def test_execute_knows_its_instance(open_scene: Open) -> None:
    """The execute context names the instance, the id and the job."""
    seen: list[tuple[str, str, str]] = []

    def look(ctx: TaskExecuteContext[Ledger]) -> Effect[None]:
        return Effect.sync(lambda: seen.append((ctx.instance_id, ctx.id, ctx.job_name)))

    scene = open_scene(execute=look)
    scene.send("a")
    scene.trigger()

    assert seen == [("task:ledger:o1", "o1", "ledger")]


def test_state_is_live_within_a_handler(open_scene: Open) -> None:
    """A read after a write in the same handler sees what was written."""
    seen: list[Ledger | None] = []

    @Effect.gen
    def look(event: Note, ctx: TaskEventContext[Ledger]) -> Do[None]:
        seen.append((yield from ctx.state))
        yield from ctx.set_state(Ledger(["a"]))
        seen.append((yield from ctx.state))
        yield from ctx.update_state(lambda ledger: Ledger([*ledger.lines, "b"]))
        seen.append((yield from ctx.state))

    open_scene(on_event=look).send()

    assert seen == [None, Ledger(["a"]), Ledger(["a", "b"])]


def test_update_state_without_a_state_does_nothing(open_scene: Open) -> None:
    """Where there is no state the function is not even called."""
    called: list[Any] = []

    def update(event: Note, ctx: TaskEventContext[Ledger]) -> Effect[None]:
        return ctx.update_state(lambda ledger: called.append(ledger) or Ledger([]))

    scene = open_scene(on_event=update)
    scene.send()

    assert called == []
    assert scene.get_state().state is None
    assert scene.status().event_count == 1


def test_execute_may_run_before_there_is_a_state(open_scene: Open) -> None:
    """A task that never set a state runs with none."""
    seen: list[Ledger | None] = []

    @Effect.gen
    def look(ctx: TaskExecuteContext[Ledger]) -> Do[None]:
        seen.append((yield from ctx.state))

    scene = open_scene(on_event=lambda event, ctx: ctx.schedule("1 minute"), execute=look)
    scene.send()
    scene.kit.advance("1 minute")

    assert seen == [None]


# -- idle (rule 21) ----------------------------------------------------------------------------------


def on_idle(ctx: TaskIdleContext[Ledger]) -> Effect[None]:
    return write(ctx, f"idle after {ctx.idle_reason}")


def test_on_idle_runs_after_an_event_that_scheduled_nothing(open_scene: Open) -> None:
    """When an event leaves nothing scheduled the task is told that it is idle."""
    scene = open_scene(on_idle=on_idle)
    scene.send("a")

    assert scene.lines() == ["a", "idle after onEvent"]


def test_on_idle_runs_after_a_run_that_scheduled_nothing(open_scene: Open) -> None:
    """When a run leaves nothing scheduled the task is told that it is idle."""
    scene = open_scene(on_idle=on_idle)
    scene.send("+5 minutes")
    scene.kit.advance("5 minutes")

    assert scene.lines() == ["+5 minutes", "ran", "idle after execute"]


def test_on_idle_does_not_run_while_something_is_scheduled(open_scene: Open) -> None:
    """A task that waits for its alarm is not idle."""
    scene = open_scene(on_idle=on_idle)
    scene.send("+5 minutes")
    scene.send("a")

    assert scene.lines() == ["+5 minutes", "a"]


def test_on_idle_runs_when_the_schedule_is_cancelled(open_scene: Open) -> None:
    """An event that cancels the schedule makes the task idle."""
    scene = open_scene(on_idle=on_idle)
    scene.send("+5 minutes")
    scene.send("cancel")

    assert scene.lines() == ["+5 minutes", "cancel", "idle after onEvent"]


def test_on_idle_runs_once_for_each_outcome(open_scene: Open) -> None:
    """It is not called again for its own outcome, but again for the next event's."""
    scene = open_scene(on_idle=on_idle)
    scene.send("a")
    scene.kit.advance("1 day")
    scene.send("b")

    assert scene.lines() == ["a", "idle after onEvent", "b", "idle after onEvent"]


def test_on_idle_may_schedule(open_scene: Open) -> None:
    """What `on_idle` schedules is the task's schedule; the answer of the call knows it."""
    scene = open_scene(on_idle=lambda ctx: ctx.schedule("1 hour"))

    sent = scene.send("a")

    assert sent.scheduled_at == after(3600)
    assert scene.status().status == "active"
    scene.kit.advance("1 hour")
    assert scene.lines() == ["a", "ran"]
    assert scene.status().scheduled_at == after(7200)


def test_on_idle_may_terminate(open_scene: Open) -> None:
    """An idle task may end itself."""
    scene = open_scene(on_idle=lambda ctx: ctx.terminate(reason="nothing to do"))
    scene.send("a")

    assert scene.status().status == "not_found"
    assert scene.kit.events[-1].type == "job.terminated"
    assert scene.kit.events[-1].reason == "nothing to do"


def test_on_idle_knows_its_instance(open_scene: Open) -> None:
    """The idle context names the instance, the id and the job, and sees the live state."""
    seen: list[Any] = []

    @Effect.gen
    def look(ctx: TaskIdleContext[Ledger]) -> Do[None]:
        state = yield from ctx.state
        seen.append((ctx.instance_id, ctx.id, ctx.job_name, state))

    open_scene(on_idle=look).send("a")

    assert seen == [("task:ledger:o1", "o1", "ledger", Ledger(["a"]))]


def test_a_failing_on_idle_fails_the_call_as_a_whole(open_scene: Open) -> None:
    """The caller is told, and state and count of the call are kept or dropped together."""
    scene = open_scene(on_idle=lambda ctx: Effect.fail(Refused("idle")))

    with pytest.raises(ExecutionError):
        scene.send("a")

    status = scene.status()
    kept = status.status == "idle" and status.event_count == 1 and scene.lines() == ["a"]
    dropped = status.status == "not_found" and scene.lines() is None
    assert kept or dropped


# -- errors that are handled (rule 22) ---------------------------------------------------------------


class Notes:
    """An `on_error` that notes what it was given and writes it down in the ledger."""

    def __init__(self, then: Callable[[Any], Effect[None, Any]] | None = None) -> None:
        self.seen: list[tuple[Any, str]] = []
        self.then = then

    def __call__(self, error: Any, ctx: TaskErrorContext[Ledger]) -> Effect[None, Any]:
        self.seen.append((error, ctx.error_source))
        return self.then(ctx) if self.then else write(ctx, "handled")


def test_on_error_gets_the_typed_error_of_an_event(open_scene: Open) -> None:
    """A typed failure arrives as itself, with where it came from."""
    notes = Notes()
    open_scene(on_error=notes).send("fail")

    assert notes.seen == [(Refused("fail"), "onEvent")]


def test_on_error_gets_a_raised_exception_as_a_defect(open_scene: Open) -> None:
    """An exception arrives as `Defect` around it."""
    notes = Notes()
    open_scene(on_error=notes).send("raise")

    ((error, source),) = notes.seen
    assert isinstance(error, Defect)
    assert isinstance(error.exception, ZeroDivisionError)
    assert source == "onEvent"


def test_on_error_gets_the_failure_of_a_run(open_scene: Open) -> None:
    """A failing alarm run is handled the same way, with `execute` as its source."""
    notes = Notes()
    scene, _ = open_failing(open_scene, times=1, on_error=notes)
    scene.send("+5 minutes")
    scene.kit.advance("5 minutes")

    assert notes.seen == [(Refused("execute"), "execute")]


def test_a_handled_event_counts(open_scene: Open) -> None:
    """An event whose failure was handled is answered, kept and counted."""
    scene = open_scene(on_error=Notes())

    sent = scene.send("fail")

    assert sent.created is True
    assert scene.status().event_count == 1


def test_on_error_keeps_what_the_failed_handler_changed(open_scene: Open) -> None:
    """It sees the changes made before the failure, and what it leaves is committed."""
    scene = open_scene(on_error=Notes())

    sent = scene.send("+5 minutes,fail")

    assert scene.lines() == ["+5 minutes,fail", "handled"]
    assert sent.scheduled_at == after(300)


def test_on_error_may_undo_what_the_failed_handler_changed(open_scene: Open) -> None:
    """It may set the state and the schedule to something else."""

    @Effect.gen
    def undo(ctx: TaskErrorContext[Ledger]) -> Do[None]:
        yield from ctx.set_state(Ledger(["undone"]))
        yield from ctx.schedule("30 seconds")

    scene = open_scene(on_error=Notes(undo))

    sent = scene.send("+5 minutes,fail")

    assert scene.lines() == ["undone"]
    assert sent.scheduled_at == after(30)


def test_a_handled_run_is_not_retried(open_scene: Open) -> None:
    """A run whose failure was handled is over: no retry, and the task is idle."""
    scene, execute = open_failing(open_scene, times=9, on_error=Notes())
    scene.send("+5 minutes")

    scene.kit.advance("1 day")

    assert execute.runs == [after(300)]
    assert scene.lines() == ["+5 minutes", "run 1", "handled"]
    assert scene.status().status == "idle"


def test_on_error_may_schedule_the_next_try(open_scene: Open) -> None:
    """The seed's way of retrying: the error handler schedules another run."""
    scene, execute = open_failing(open_scene, times=2, on_error=Notes(lambda ctx: ctx.schedule("30 s")))
    scene.send("+5 minutes")

    scene.kit.advance("1 day")

    assert execute.runs == [after(300), after(330), after(360)]


def test_on_error_may_terminate(open_scene: Open) -> None:
    """A failure may be the end of the task."""
    scene = open_scene(on_error=Notes(lambda ctx: ctx.terminate(reason="beyond repair")))
    scene.send("fail")

    assert scene.status().status == "not_found"
    assert scene.kit.events[-1].reason == "beyond repair"


def test_a_handled_trigger_does_not_fail(open_scene: Open) -> None:
    """When the failure of a triggered run is handled its caller is not bothered."""
    scene, _ = open_failing(open_scene, times=1, on_error=Notes())
    scene.send("a")

    triggered = scene.trigger()

    assert (triggered.triggered, bool(triggered.terminated)) == (True, False)
    assert scene.lines() == ["a", "run 1", "handled"]


@pytest.mark.parametrize("text", ["fail", "raise"])
def test_a_failing_on_error_drops_everything(open_scene: Open, text: str) -> None:
    """When the error handler fails itself the call changes nothing and its caller is told."""
    notes = Notes(lambda ctx: write(ctx, "half").flat_map(lambda _: Effect.fail(Refused("handler"))))
    scene = open_scene(on_error=notes)
    scene.send("+5 minutes")
    before = scene.status()

    with pytest.raises(ExecutionError):
        scene.send(text)

    assert len(notes.seen) == 1
    assert scene.status() == before
    assert scene.lines() == ["+5 minutes"]


def test_on_idle_runs_after_a_handled_error(open_scene: Open) -> None:
    """A handled failure that leaves nothing scheduled makes the task idle."""
    idle: list[str] = []
    scene = open_scene(
        on_error=Notes(), on_idle=lambda ctx: Effect.sync(lambda: idle.append(ctx.instance_id))
    )
    scene.send("fail")

    assert idle == ["task:ledger:o1"]


def test_on_error_knows_its_instance(open_scene: Open) -> None:
    """The error context names the instance, the id and the job."""
    seen: list[tuple[str, str, str]] = []

    def look(error: Any, ctx: TaskErrorContext[Ledger]) -> Effect[None]:
        return Effect.sync(lambda: seen.append((ctx.instance_id, ctx.id, ctx.job_name)))

    open_scene(on_error=look).send("fail")

    assert seen == [("task:ledger:o1", "o1", "ledger")]


# -- errors that are not handled (rule 23) -----------------------------------------------------------


@pytest.mark.parametrize("error", [None, ZeroDivisionError("boom")], ids=["typed", "raised"])
def test_a_failed_run_is_retried_with_the_state_as_before(open_scene: Open, error: Any) -> None:
    """Without `on_error` a failing alarm run drops its changes and runs again."""
    scene, execute = open_failing(open_scene, times=2, error=error)
    scene.send("+5 minutes")

    scene.kit.advance("5 minutes")
    assert scene.lines() == ["+5 minutes"]
    scene.kit.advance("1 hour")

    assert len(execute.runs) == 3
    assert scene.lines() == ["+5 minutes", "run 3"]
    assert scene.status().status == "idle"


def test_the_default_is_six_retries_doubling_from_two_seconds(open_scene: Open) -> None:
    """Seven runs in all, about 2, 4, 8 and 16 seconds apart at first; then the task is stopped."""
    scene, execute = open_failing(open_scene, times=99)
    scene.send("+5 minutes")

    scene.kit.advance("1 day")

    assert len(execute.runs) == 7
    for gap, seconds in zip(execute.gaps(), [2, 4, 8, 16], strict=False):
        assert timedelta(seconds=seconds * 0.9) <= gap <= timedelta(seconds=seconds * 1.1)
    status = scene.status()
    assert (status.status, status.scheduled_at) == ("stopped", None)
    assert scene.lines() == ["+5 minutes"]


def test_a_task_that_waits_for_its_retry_is_active(open_scene: Open) -> None:
    """Between two attempts the status shows the time of the next one."""
    scene, _ = open_failing(
        open_scene, times=1, retry=Retry(max_attempts=2, delay=Backoff.fixed("10 seconds"), jitter=False)
    )
    scene.send("+5 minutes")
    scene.kit.advance("5 minutes")

    status = scene.status()

    assert (status.status, status.scheduled_at) == ("active", after(310))


def test_a_retry_of_ones_own_is_followed(open_scene: Open) -> None:
    """Delays and attempts are those of the definition."""
    scene, execute = open_failing(
        open_scene,
        times=99,
        retry=Retry(
            max_attempts=4,
            delay=Backoff.linear("1 second", "2 seconds"),
            jitter=False,
            on_exhausted="stop",
        ),
    )
    scene.send("+5 minutes")

    scene.kit.advance("1 day")

    assert execute.runs == [after(300), after(301), after(304), after(309)]
    assert scene.status().status == "stopped"


def test_a_stopped_task_is_revived_by_a_trigger(open_scene: Open) -> None:
    """A trigger runs a stopped task again and it goes on as before."""
    scene, execute = open_failing(open_scene, times=7)
    scene.send("+5 minutes")
    scene.kit.advance("1 day")
    assert scene.status().status == "stopped"

    triggered = scene.trigger()

    assert triggered.triggered is True
    assert len(execute.runs) == 8
    assert scene.lines() == ["+5 minutes", "run 8"]
    assert scene.status().status == "idle"


def test_retries_go_on_after_a_restart(open_scene: Open) -> None:
    """A restart between two attempts neither repeats nor skips one."""
    scene, execute = open_failing(
        open_scene, times=2, retry=Retry(max_attempts=3, delay=Backoff.fixed("10 seconds"), jitter=False)
    )
    scene.send("+5 minutes")
    scene.kit.advance("305 seconds")
    scene.kit.restart()
    scene.kit.advance("1 minute")

    assert execute.runs == [after(300), after(310), after(320)]
    assert scene.lines() == ["+5 minutes", "run 3"]


def test_a_run_has_one_key_for_all_its_attempts(open_scene: Open) -> None:
    """The key of a run is the same on every attempt and another one for the next run."""
    keys: list[str] = []

    def execute(ctx: TaskExecuteContext[Ledger]) -> Effect[None, Refused]:
        keys.append(ctx.run_key)
        return Effect.fail(Refused("execute")) if len(keys) < 3 else Effect.void

    scene = open_scene(execute=execute)
    for _ in range(2):
        scene.send("+5 minutes")
        scene.kit.advance("1 hour")

    assert len(keys) == 4
    assert keys[0] == keys[1] == keys[2] != keys[3]


def test_a_failing_trigger_is_told_to_its_caller(open_scene: Open) -> None:
    """Without `on_error` a triggered run that fails raises, and the task is as before."""
    scene, _ = open_failing(open_scene, times=1)
    scene.send("+5 minutes")
    before = scene.get_state()

    with pytest.raises(ExecutionError) as caught:
        scene.trigger()

    assert caught.value.instance_id == "task:ledger:o1"
    assert scene.get_state() == before


# -- crashes in the middle of a handler --------------------------------------------------------------


@Effect.gen
def slow_write(ctx: AnyContext, line: str) -> Do[None]:
    yield from write(ctx, line)
    yield from Effect.sleep("10 seconds")


def test_a_crash_during_a_run_repeats_the_run(open_scene: Open) -> None:
    """A trigger is committed before its run begins; what a dead process left undone is done by the next."""
    scene = open_scene(execute=lambda ctx: slow_write(ctx, "ran"))
    scene.send("+5 minutes")
    scene.kit.run(Effect.fork_detach(scene.client.trigger("o1")))

    scene.kit.restart()
    scene.kit.advance("1 minute")

    assert scene.lines() == ["+5 minutes", "ran"]
    assert scene.status().scheduled_at == after(300)
    assert [event.type for event in scene.kit.events].count("job.executed") == 1


def test_a_crash_during_on_event_changes_nothing(open_scene: Open) -> None:
    """An event whose handler did not come to its end was never acknowledged and is not there."""
    scene = open_scene(on_event=lambda event, ctx: slow_write(ctx, event.text))
    scene.kit.run(Effect.fork_detach(scene.client.send(id="o1", event=Note("a"), event_id="e1")))

    scene.kit.restart()
    scene.kit.advance("1 minute")
    assert scene.status().status == "not_found"

    assert scene.send("a", event_id="e1").created is True
    assert scene.lines() == ["a"]


def test_a_caller_that_gives_up_does_not_block_the_instance(open_scene: Open) -> None:
    """A call that is interrupted in the middle of its handler leaves the instance free for the next."""
    scene = open_scene(on_event=lambda event, ctx: slow_write(ctx, event.text))
    given_up = scene.client.send(id="o1", event=Note("a")).timeout("1 second")

    with pytest.raises(TypedError):
        scene.kit.run(given_up)
    scene.send("b")

    assert scene.lines() in (["b"], ["a", "b"])


# -- trigger and terminate (rule 24) -----------------------------------------------------------------


def test_a_trigger_runs_now_and_leaves_the_schedule_alone(open_scene: Open) -> None:
    """The pending alarm still fires at its own time."""
    scene = open_scene()
    scene.send("+5 minutes")

    triggered = scene.trigger()

    assert (triggered.triggered, bool(triggered.terminated)) == (True, False)
    assert scene.lines() == ["+5 minutes", "ran"]
    assert scene.status().scheduled_at == after(300)
    scene.kit.advance("5 minutes")
    assert scene.lines() == ["+5 minutes", "ran", "ran"]


def test_a_trigger_runs_an_idle_task(open_scene: Open) -> None:
    """A task without a schedule can be run by hand and is idle again."""
    scene = open_scene()
    scene.send("a")

    scene.trigger()

    status = scene.status()
    assert (status.status, status.execute_count) == ("idle", 1)


def test_a_triggered_run_may_move_the_schedule(open_scene: Open) -> None:
    """What a triggered run schedules replaces the pending alarm."""
    scene = open_scene(execute=lambda ctx: ctx.schedule("1 minute"))
    scene.send("+5 minutes")

    scene.trigger()

    assert scene.status().scheduled_at == after(60)


def test_a_triggered_run_sees_the_pending_schedule(open_scene: Open) -> None:
    """The alarm has not fired, so the handler sees when it will."""
    seen: list[datetime | None] = []

    @Effect.gen
    def look(ctx: TaskExecuteContext[Ledger]) -> Do[None]:
        seen.append((yield from ctx.get_scheduled_time()))

    scene = open_scene(execute=look)
    scene.send("+5 minutes")
    scene.trigger()

    assert seen == [after(300)]


def test_a_trigger_of_a_scheduled_task_is_not_idle(open_scene: Open) -> None:
    """`on_idle` does not run after a trigger that left the pending schedule."""
    scene = open_scene(on_idle=on_idle)
    scene.send("+5 minutes")

    scene.trigger()

    assert scene.lines() == ["+5 minutes", "ran"]


def test_a_triggered_run_may_terminate(open_scene: Open) -> None:
    """The caller hears that the run was the last one."""
    scene = open_scene(execute=lambda ctx: ctx.terminate())
    scene.send("a")

    triggered = scene.trigger()

    assert (triggered.triggered, triggered.terminated) == (True, True)
    assert scene.status().status == "not_found"


def test_terminate_deletes_state_and_alarm(open_scene: Open) -> None:
    """A terminated task is gone, and its alarm with it."""
    scene = open_scene()
    scene.send("+5 minutes")

    ended = scene.terminate(reason="customer left")
    scene.kit.advance("1 hour")

    assert (ended.terminated, ended.reason) == (True, "customer left")
    assert scene.status().status == "not_found"
    assert scene.get_state().state is None
    assert "job.executed" not in [event.type for event in scene.kit.events]


def test_terminate_needs_no_reason(open_scene: Open) -> None:
    """Without a reason there is none in the answer."""
    scene = open_scene()
    scene.send("a")

    ended = scene.terminate()

    assert (ended.terminated, ended.reason) == (True, None)


def test_terminate_of_an_unknown_id_finds_nothing(open_scene: Open) -> None:
    """Nothing is terminated, nothing is reported, and the reason says why."""
    scene = open_scene()

    ended = scene.terminate("nobody", reason="cleanup")

    assert (ended.terminated, ended.reason) == (False, "not_found")
    assert scene.kit.events == []


def test_the_id_is_free_after_a_termination(open_scene: Open) -> None:
    """A new event of a terminated id starts from nothing."""
    scene = open_scene()
    scene.send("+5 minutes")
    scene.kit.advance("1 minute")
    scene.terminate()

    sent = scene.send("b")

    assert sent.created is True
    assert (scene.status().event_count, scene.status().created_at) == (1, after(60))
    assert scene.lines() == ["b"]


def test_terminate_in_on_event_ends_the_task(open_scene: Open) -> None:
    """An event may be the end; what the handler changed before is gone with the rest."""
    scene = open_scene()
    scene.send("+5 minutes")

    scene.send("b,end,fail")

    assert scene.status().status == "not_found"
    scene.kit.advance("1 hour")
    assert scene.status().status == "not_found"


def test_terminate_in_execute_ends_the_task(open_scene: Open) -> None:
    """A run may be the last one and give its reason."""
    scene = open_scene(execute=lambda ctx: ctx.terminate("delivered"))
    scene.send("+5 minutes")

    scene.kit.advance("5 minutes")

    assert scene.status().status == "not_found"
    last = scene.kit.events[-1]
    assert (last.type, last.reason) == ("job.terminated", "delivered")


def test_terminate_is_not_an_error(open_scene: Open) -> None:
    """Neither the handler's own error handling nor `on_error` can catch a termination."""
    notes = Notes()

    @Effect.gen
    def on_event(event: Note, ctx: TaskEventContext[Ledger]) -> Do[None]:
        yield from ctx.terminate().catch_all(lambda error: Effect.void)
        yield from write(ctx, "still here")

    scene = open_scene(on_event=on_event, on_error=notes)
    scene.send("a")

    assert scene.status().status == "not_found"
    assert notes.seen == []


# -- laws --------------------------------------------------------------------------------------------

steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("send"), st.sampled_from(["a", "+3 s", "+7 s", "cancel", "fail", "+1 s,cancel,+2 s"])
        ),
        st.tuples(st.just("trigger"), st.none()),
        st.tuples(st.just("advance"), st.integers(min_value=1, max_value=9)),
        st.tuples(st.just("restart"), st.none()),
        st.tuples(st.just("terminate"), st.none()),
    ),
    max_size=25,
)


class Model:
    """A task in thirty lines: whole seconds, one id."""

    def __init__(self) -> None:
        self.now = 0
        self.lines: list[str] | None = None
        self.alarm: int | None = None
        self.events = self.runs = 0

    def send(self, text: str) -> None:
        if text == "fail":
            return
        self.lines = [*(self.lines or []), text]
        self.events += 1
        for word in text.split(","):
            if word.startswith("+"):
                self.alarm = self.now + int(word[1:].split()[0])
            elif word == "cancel":
                self.alarm = None

    def run(self) -> None:
        self.lines = [*(self.lines or []), "ran"]
        self.runs += 1

    def advance(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1
            if self.alarm == self.now:
                self.alarm = None
                self.run()

    def terminate(self) -> None:
        self.lines, self.alarm, self.events, self.runs = None, None, 0, 0


@settings(max_examples=50, deadline=None)
@given(steps)
def test_a_task_does_what_its_model_does(story: list[tuple[str, Any]]) -> None:
    """Under any sequence of calls, waits and restarts the state, the counts and the alarm are the model's."""
    model = Model()
    with JobsTestKit(create_durable_jobs({"ledger": ledger_job()}), now=NOON) as kit:
        scene = Scene(kit)
        for step, argument in story:
            if step == "send":
                try:
                    scene.send(argument)
                except ExecutionError:
                    assert argument == "fail"
                model.send(argument)
            elif step == "trigger":
                if model.lines is not None:
                    scene.trigger()
                    model.run()
            elif step == "advance":
                kit.advance(timedelta(seconds=argument))
                model.advance(argument)
            elif step == "restart":
                kit.restart()
            else:
                assert scene.terminate().terminated is (model.lines is not None)
                model.terminate()

            status = scene.status()
            assert scene.lines() == model.lines
            assert status.scheduled_at == (None if model.alarm is None else after(model.alarm))
            if model.lines is None:
                assert status.status == "not_found"
            else:
                assert status.status == ("idle" if model.alarm is None else "active")
                assert (status.event_count, status.execute_count) == (model.events, model.runs)

"""JobsTestKit: a whole engine on virtual time and memory, driven by hand."""

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable_effect import Clock, Do, Effect, TypedError
from durable_effect_jobs import (
    Continuous,
    ContinuousContext,
    Debounce,
    DebounceExecuteContext,
    Task,
    TaskExecuteContext,
    Tracker,
    create_durable_jobs,
)
from durable_effect_jobs.errors import ExecutionError, JobNotFoundError, ValidationError
from durable_effect_jobs.testing import JobsTestKit

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def after(**span: float) -> datetime:
    """The instant that lies this far behind the start of every scene."""
    return NOW + timedelta(**span)


@attrs.frozen
class Counter:
    value: int


@attrs.frozen
class Boom(TypedError):
    reason: str


class Log(list[tuple[str, datetime]]):
    """Who ran when: every handler of a scene writes here."""

    @Effect.gen
    def enter(self, who: str) -> Do[None]:
        self.append((who, (yield from Clock.now())))


def ticking(log: Log, every: str, *, takes: str | None = None, **options: Any) -> Any:
    """A continuous job that enters its id into the log, and then may sleep."""

    @Effect.gen
    def execute(ctx: ContinuousContext[Counter]) -> Do[None]:
        yield from log.enter(ctx.id)
        if takes is not None:
            yield from Effect.sleep(takes)
        yield from ctx.update_state(lambda counter: Counter(counter.value + 1))

    return Continuous.make(state_schema=Counter, schedule=Continuous.every(every), execute=execute, **options)


def kit_of(**definitions: Any) -> JobsTestKit:
    """A kit whose clock stands at the start of every scene."""
    return JobsTestKit(create_durable_jobs(definitions), now=NOW)


def start(kit: JobsTestKit, job: str, name: str = "u1") -> Any:
    """Starts an instance of a continuous job at zero."""
    return kit.run(kit.client.continuous(job).start(id=name, input=Counter(0)))


class TestRun:
    """`run` runs an effect on the kit's time."""

    def test_it_answers_the_value(self) -> None:
        """What the effect yields is what `run` returns."""
        with kit_of(tick=ticking(Log(), "1 hour")) as kit:
            assert kit.run(Effect.succeed(42)) == 42

    def test_it_raises_a_typed_error_as_itself(self) -> None:
        """The error that the effect fails with is the error that `run` raises."""
        with kit_of(tick=ticking(Log(), "1 hour")) as kit, pytest.raises(Boom) as failure:
            kit.run(Effect.fail(Boom("no luck")))
        assert failure.value == Boom("no luck")

    def test_it_raises_a_defect_as_itself(self) -> None:
        """A bug in the effect is raised as the exception it is."""
        with kit_of(tick=ticking(Log(), "1 hour")) as kit, pytest.raises(ZeroDivisionError):
            kit.run(Effect.sync(lambda: 1 // 0))

    def test_it_goes_on_after_a_failure(self) -> None:
        """A failed call leaves the kit as usable as before."""
        with kit_of(tick=ticking(Log(), "1 hour")) as kit:
            with pytest.raises(ValidationError):
                kit.run(kit.client.continuous("tick").start(id="u1", input={}))
            assert start(kit, "tick").created is True

    def test_the_clock_stands_still(self) -> None:
        """A call that does not sleep takes no time."""
        with kit_of(tick=ticking(Log(), "1 hour")) as kit:
            start(kit, "tick")
            assert kit.now == NOW

    def test_it_moves_the_clock_for_a_sleeping_handler(self) -> None:
        """A handler that sleeps ten minutes has the clock moved by ten minutes."""
        with kit_of(tick=ticking(Log(), "1 hour", takes="10 minutes")) as kit:
            start(kit, "tick")
            assert kit.now == after(minutes=10)
            assert kit.run(kit.client.continuous("tick").get_state("u1")).state == Counter(1)

    def test_it_moves_the_clock_for_a_sleeping_effect(self) -> None:
        """An effect of the test itself may sleep too."""
        with kit_of(tick=ticking(Log(), "1 hour")) as kit:
            kit.run(Effect.sleep("90 seconds"))
            assert kit.now == after(seconds=90)

    def test_the_time_of_effects_is_the_time_of_the_kit(self) -> None:
        """`Clock` and `kit.now` agree, at the start and later."""
        with kit_of(tick=ticking(Log(), "1 hour")) as kit:
            assert kit.run(Clock.now()) == kit.now == NOW
            kit.advance("3 days")
            assert kit.run(Clock.now()) == kit.now == after(days=3)

    def test_an_unknown_job(self) -> None:
        """The kit's client knows the jobs of the registry and no others."""
        with kit_of(tick=ticking(Log(), "1 hour")) as kit, pytest.raises(JobNotFoundError):
            kit.run(kit.client.continuous("tock").status("u1"))


class TestAdvance:
    """`advance` lets time go by."""

    def test_it_moves_the_clock(self) -> None:
        """Time moves by exactly the span, given as text or as a `timedelta`."""
        with kit_of(tick=ticking(Log(), "1 hour")) as kit:
            kit.advance("90 seconds")
            assert kit.now == after(seconds=90)
            kit.advance(timedelta(days=1))
            assert kit.now == after(days=1, seconds=90)

    @pytest.mark.parametrize("span", ["-1 second", "soon", timedelta(seconds=-1)])
    def test_time_does_not_go_backwards(self, span: Any) -> None:
        """A span that is negative, or none, is refused, and the clock stays."""
        with kit_of(tick=ticking(Log(), "1 hour")) as kit:
            with pytest.raises(ValueError, match=r"."):
                kit.advance(span)
            assert kit.now == NOW

    def test_an_alarm_fires_at_its_own_time(self) -> None:
        """A handler that is due in the middle of the step sees the time that it was due at."""
        log = Log()
        with kit_of(tick=ticking(log, "1 hour")) as kit:
            start(kit, "tick")
            kit.advance("150 minutes")
            assert kit.now == after(minutes=150)
        assert log == [("u1", NOW), ("u1", after(hours=1)), ("u1", after(hours=2))]

    def test_an_alarm_on_the_last_instant_fires(self) -> None:
        """What is due exactly at the end of the step is due in it."""
        log = Log()
        with kit_of(tick=ticking(log, "1 hour")) as kit:
            start(kit, "tick")
            kit.advance(timedelta(hours=1) - timedelta(microseconds=1))
            assert len(log) == 1
            kit.advance(timedelta(microseconds=1))
            assert len(log) == 2

    def test_alarms_of_all_instances_fire_in_order(self) -> None:
        """Alarms of different jobs and instances fire in the order of their times."""
        log = Log()
        with kit_of(fast=ticking(log, "20 minutes"), slow=ticking(log, "30 minutes")) as kit:
            start(kit, "fast", "f")
            start(kit, "slow", "s")
            log.clear()
            kit.advance("50 minutes")
        assert log == [
            ("f", after(minutes=20)),
            ("s", after(minutes=30)),
            ("f", after(minutes=40)),
        ]

    def test_alarms_of_one_instant_all_fire(self) -> None:
        """Instances that are due at the same instant all run at it."""
        log = Log()
        names = [f"u{number}" for number in range(20)]
        with kit_of(tick=ticking(log, "1 hour")) as kit:
            for name in names:
                start(kit, "tick", name)
            log.clear()
            kit.advance("1 hour")
        assert sorted(log) == sorted((name, after(hours=1)) for name in names)

    def test_an_alarm_set_by_an_alarm_fires_in_the_same_step(self) -> None:
        """What becomes due while time goes by is honoured in the same step."""
        seconds: list[float] = []

        @Effect.gen
        def execute(ctx: TaskExecuteContext[int]) -> Do[None]:
            seconds.append(((yield from Clock.now()) - NOW).total_seconds())
            if len(seconds) < 5:
                yield from ctx.schedule("1 second")

        chain = Task.make(
            state_schema=int,
            event_schema=str,
            on_event=lambda event, ctx: ctx.schedule("1 second"),
            execute=execute,
        )
        with kit_of(chain=chain) as kit:
            kit.run(kit.client.task("chain").send(id="t1", event="go"))
            kit.advance("1 minute")
        assert seconds == [1, 2, 3, 4, 5]

    def test_it_waits_for_a_sleeping_handler(self) -> None:
        """A handler that begins in the step and sleeps beyond it moves the clock that far."""
        with kit_of(tick=ticking(Log(), "1 hour", takes="10 minutes")) as kit:
            start(kit, "tick")
            kit.advance("50 minutes")
            assert kit.now == after(minutes=70)
            assert kit.run(kit.client.continuous("tick").get_state("u1")).state == Counter(2)

    def test_a_sleeping_handler_holds_up_nobody(self) -> None:
        """While one instance sleeps in its handler the alarms of others fire on time."""
        log = Log()
        slow = ticking(log, "10 minutes", takes="9 minutes", start_immediately=False)
        with kit_of(slow=slow, fast=ticking(log, "3 minutes")) as kit:
            start(kit, "slow", "s")
            start(kit, "fast", "f")
            kit.advance("19 minutes")
            assert kit.now == after(minutes=19)
        assert ("s", after(minutes=10)) in log
        assert [when for who, when in log if who == "f"] == [
            after(minutes=minute) for minute in (0, 3, 6, 9, 12, 15, 18)
        ]

    def test_two_sleeping_ticks_overlap(self) -> None:
        """Two instances that are due together and sleep are both done after one sleep."""
        log = Log()
        with kit_of(tick=ticking(log, "1 hour", takes="10 minutes")) as kit:
            both = [kit.client.continuous("tick").start(id=name, input=Counter(0)) for name in "ab"]
            kit.run(Effect.all(both, concurrency="unbounded"))
            log.clear()
            kit.advance("50 minutes")
            assert kit.now == after(minutes=70)
        assert sorted(log) == [("a", after(hours=1)), ("b", after(hours=1))]

    def test_a_failing_alarm_does_not_fail_the_step(self) -> None:
        """What goes wrong in a due alarm is recorded, not raised at the test."""
        job = Continuous.make(
            state_schema=Counter,
            schedule=Continuous.every("1 hour"),
            start_immediately=False,
            execute=lambda ctx: Effect.fail(Boom("no luck")),
        )
        with kit_of(tick=job) as kit:
            start(kit, "tick")
            kit.advance("1 hour")
            assert kit.now == after(hours=1)
            assert "no luck" in str(kit.run(kit.client.continuous("tick").status("u1")).last_error)

    @given(st.lists(st.integers(1, 5000), min_size=1, max_size=8))
    @settings(max_examples=30, deadline=None)
    def test_steps_add_up(self, steps: list[int]) -> None:
        """Any steps are the same as one step of their sum."""
        stepping, leaping = Log(), Log()
        with kit_of(tick=ticking(stepping, "7 minutes")) as kit:
            start(kit, "tick")
            for seconds in steps:
                kit.advance(timedelta(seconds=seconds))
        with kit_of(tick=ticking(leaping, "7 minutes")) as kit:
            start(kit, "tick")
            kit.advance(timedelta(seconds=sum(steps)))
        assert stepping == leaping


class TestNow:
    """`now` is where the kit's clock stands."""

    def test_it_is_where_it_was_set(self) -> None:
        """A kit begins at the instant it was given."""
        with kit_of(tick=ticking(Log(), "1 hour")) as kit:
            assert kit.now == NOW
            assert kit.now.utcoffset() == timedelta(0)

    def test_it_survives_a_restart(self) -> None:
        """A crash takes no time."""
        with kit_of(tick=ticking(Log(), "1 hour")) as kit:
            kit.advance("5 minutes")
            kit.restart()
            assert kit.now == after(minutes=5)

    def test_two_kits_have_two_clocks(self) -> None:
        """Time in one kit is no time in another."""
        with kit_of(tick=ticking(Log(), "1 hour")) as one, kit_of(tick=ticking(Log(), "1 hour")) as other:
            one.advance("1 hour")
            assert other.now == NOW


class TestIsolation:
    """A kit is a world of its own."""

    def test_kits_share_nothing(self) -> None:
        """Two kits of the same jobs do not see each other's instances or events."""
        jobs = create_durable_jobs({"tick": ticking(Log(), "1 hour")})
        with JobsTestKit(jobs, now=NOW) as one, JobsTestKit(jobs, now=NOW) as other:
            start(one, "tick")
            assert other.run(other.client.continuous("tick").status("u1")).status == "not_found"
            assert list(other.events) == []

    def test_the_same_scene_twice_is_the_same(self) -> None:
        """Two kits that live through the same scene tell the same events at the same times."""

        def scene() -> list[tuple[str, datetime]]:
            with kit_of(tick=ticking(Log(), "1 hour")) as kit:
                start(kit, "tick")
                kit.advance("3 hours")
                kit.run(kit.client.continuous("tick").terminate("u1"))
                return [(event.type, event.timestamp) for event in kit.events]

        assert scene() == scene()


class TestEvents:
    """`events` is the telemetry so far."""

    def test_at_first_there_are_none(self) -> None:
        """A kit in which nothing happened has nothing to tell."""
        with kit_of(tick=ticking(Log(), "1 hour")) as kit:
            assert list(kit.events) == []

    def test_they_come_without_a_tracker(self) -> None:
        """The kit sees events also of a registry that sends none."""
        with kit_of(tick=ticking(Log(), "1 hour")) as kit:
            start(kit, "tick")
            assert [event.type for event in kit.events] == ["job.started", "job.executed"]

    def test_they_come_in_the_order_of_time(self) -> None:
        """Events of several instances stand in the order in which they happened."""
        with kit_of(fast=ticking(Log(), "20 minutes"), slow=ticking(Log(), "30 minutes")) as kit:
            start(kit, "fast", "f")
            start(kit, "slow", "s")
            kit.advance("2 hours")
            timestamps = [event.timestamp for event in kit.events]
            executed = [(event.id, event.timestamp) for event in kit.events if event.type == "job.executed"]
        assert timestamps == sorted(timestamps)
        assert executed[2:5] == [("f", after(minutes=20)), ("s", after(minutes=30)), ("f", after(minutes=40))]

    def test_they_are_frozen(self) -> None:
        """An event is a fact: nobody changes it."""
        with kit_of(tick=ticking(Log(), "1 hour")) as kit:
            start(kit, "tick")
            event: Any = kit.events[0]
        with pytest.raises(AttributeError):
            event.type = "job.executed"

    def test_a_refused_call_leaves_none(self) -> None:
        """A call that changed nothing tells nothing."""
        with kit_of(tick=ticking(Log(), "1 hour")) as kit:
            with pytest.raises(ValidationError):
                kit.run(kit.client.continuous("tick").start(id="u1", input={"value": "x"}))
            assert list(kit.events) == []

    def test_a_restart_neither_loses_nor_repeats_them(self) -> None:
        """Every event is there once, however often the process dies."""
        with kit_of(tick=ticking(Log(), "1 hour")) as kit:
            start(kit, "tick")
            for _ in range(3):
                kit.restart()
                kit.advance("1 hour")
            kit.restart()
            types = [event.type for event in kit.events]
            ids = {event.event_id for event in kit.events}
        assert types == ["job.started"] + ["job.executed"] * 4
        assert len(ids) == 5

    def test_state_is_shown_when_asked_for(self) -> None:
        """With `Tracker(include_state=True)` events carry the encoded input and the state before each run."""
        tracker = Tracker(
            endpoint="http://127.0.0.1:9/ingest", env="test", service_key="kit", include_state=True
        )
        jobs = create_durable_jobs({"tick": ticking(Log(), "1 hour")}, tracker=tracker)
        with JobsTestKit(jobs, now=NOW) as kit:
            kit.run(kit.client.continuous("tick").start(id="u1", input=Counter(7)))
            kit.advance("1 hour")
            started, first, second = kit.events
        assert started.input == {"value": 7}
        assert first.pre_execution_state == {"value": 7}
        assert second.pre_execution_state == {"value": 8}

    def test_a_tracker_keeps_state_back_by_default(self) -> None:
        """A tracker that was not told otherwise shows neither input nor state."""
        tracker = Tracker(endpoint="http://127.0.0.1:9/ingest", env="test", service_key="kit")
        jobs = create_durable_jobs({"tick": ticking(Log(), "1 hour")}, tracker=tracker)
        with JobsTestKit(jobs, now=NOW) as kit:
            start(kit, "tick")
            started, executed = kit.events
        assert (started.input, executed.pre_execution_state) == (None, None)


class TestRestart:
    """`restart` leaves what a crash leaves: the storage."""

    def test_a_client_after_it(self) -> None:
        """The kit's client serves after a restart as before it."""
        with kit_of(tick=ticking(Log(), "1 hour")) as kit:
            start(kit, "tick")
            kit.restart()
            assert kit.run(kit.client.continuous("tick").trigger("u1")).triggered is True

    def test_of_an_empty_kit(self) -> None:
        """A kit in which nothing has happened restarts into the same."""
        with kit_of(tick=ticking(Log(), "1 hour")) as kit:
            kit.restart()
            kit.advance("1 day")
            assert start(kit, "tick").created is True

    def test_several_in_a_row(self) -> None:
        """Restarting twice is restarting."""
        log = Log()
        with kit_of(tick=ticking(log, "1 hour")) as kit:
            start(kit, "tick")
            kit.restart()
            kit.restart()
            kit.advance("1 hour")
        assert log == [("u1", NOW), ("u1", after(hours=1))]

    def test_right_before_an_alarm(self) -> None:
        """A process that dies a microsecond before an alarm has its alarm fired by the next, on time."""
        log = Log()
        with kit_of(tick=ticking(log, "1 hour")) as kit:
            start(kit, "tick")
            kit.advance(timedelta(hours=1) - timedelta(microseconds=1))
            kit.restart()
            kit.advance(timedelta(microseconds=1))
        assert log[-1] == ("u1", after(hours=1))

    def test_all_kinds_survive(self) -> None:
        """Continuous instances, open batches and scheduled tasks are all there afterwards."""
        log = Log()

        @Effect.gen
        def flush(ctx: DebounceExecuteContext[str]) -> Do[None]:
            yield from log.enter(ctx.id)

        @Effect.gen
        def check(ctx: TaskExecuteContext[str]) -> Do[None]:
            yield from log.enter(ctx.id)

        with kit_of(
            tick=ticking(log, "30 seconds"),
            batch=Debounce.make(event_schema=str, flush_after="10 seconds", execute=flush),
            order=Task.make(
                state_schema=str,
                event_schema=str,
                on_event=lambda event, ctx: ctx.schedule("20 seconds"),
                execute=check,
            ),
        ) as kit:
            start(kit, "tick", "c1")
            kit.run(kit.client.debounce("batch").add(id="d1", event="hello"))
            kit.run(kit.client.task("order").send(id="t1", event="placed"))
            kit.restart()
            kit.advance("30 seconds")
        assert log == [
            ("c1", NOW),
            ("d1", after(seconds=10)),
            ("t1", after(seconds=20)),
            ("c1", after(seconds=30)),
        ]

    def test_memory_of_the_process_is_not_state(self) -> None:
        """What a failed call had done is not there after a restart either."""
        job = Continuous.make(
            state_schema=Counter,
            schedule=Continuous.every("1 hour"),
            execute=lambda ctx: ctx.set_state(Counter(99)).flat_map(lambda _: Effect.fail(Boom("no luck"))),
        )
        with kit_of(tick=job) as kit:
            with pytest.raises(ExecutionError):
                start(kit, "tick")
            kit.restart()
            assert kit.run(kit.client.continuous("tick").get_state("u1")).state == Counter(0)

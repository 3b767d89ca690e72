"""Retry: a failed execution is tried again, at its time, until it succeeds or has used up its policy."""

from collections.abc import Callable, Container
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from threading import Lock
from typing import Any, Self

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable_effect import Backoff, Clock, Do, Effect, Schema, TypedError
from durable_effect_jobs import (
    Continuous,
    ContinuousContext,
    Debounce,
    DebounceExecuteContext,
    Retry,
    Task,
    TaskExecuteContext,
    create_durable_jobs,
)
from durable_effect_jobs.errors import ExecutionError
from durable_effect_jobs.testing import JobsTestKit

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REFUSED = (ValueError, TypedError)
ALWAYS = range(1, 1000)


def after(**span: float) -> datetime:
    """The instant that lies this far behind the start of every scene."""
    return NOW + timedelta(**span)


@attrs.frozen
class Counter:
    value: int


@attrs.frozen
class Boom(TypedError):
    reason: str


@attrs.frozen
class Fatal(TypedError):
    reason: str


@attrs.frozen
class Attempt:
    """What one execution saw."""

    seconds: float
    attempt: int
    is_retry: bool
    run_count: int
    run_key: str
    value: int
    scheduled_for: datetime


class Flaky:
    """A continuous job whose executions fail as told, after having written to their state."""

    def __init__(
        self,
        retry: Retry | None,
        *,
        fails: Container[int] = ALWAYS,
        error: Callable[[int], TypedError] = lambda execution: Boom(f"failure {execution}"),
        raises: Callable[[], BaseException] | None = None,
        takes: timedelta = timedelta(0),
        **options: Any,
    ) -> None:
        self.attempts: list[Attempt] = []
        self.fails, self.error, self.raises, self.takes = fails, error, raises, takes
        options.setdefault("schedule", Continuous.every("1 hour"))
        self.definition = Continuous.make(state_schema=Counter, retry=retry, execute=self.execute, **options)

    @Effect.gen
    def execute(self, ctx: ContinuousContext[Counter]) -> Do[None, TypedError]:
        now = yield from Clock.now()
        state = yield from ctx.state
        self.attempts.append(
            Attempt(
                seconds=(now - NOW).total_seconds(),
                attempt=ctx.attempt,
                is_retry=ctx.is_retry,
                run_count=ctx.run_count,
                run_key=ctx.run_key,
                value=state.value,
                scheduled_for=ctx.scheduled_for,
            )
        )
        execution = len(self.attempts)
        yield from ctx.set_state(Counter(state.value + 1))
        yield from Effect.sleep(self.takes)
        if execution in self.fails:
            if self.raises is not None:
                raise self.raises()
            yield from Effect.fail(self.error(execution))

    @property
    def seconds(self) -> list[float]:
        return [attempt.seconds for attempt in self.attempts]


class Scene:
    """A test kit with the one job `flaky`, and the calls on its continuous instance `u1`."""

    def __init__(self, definition: Any) -> None:
        self.kit = JobsTestKit(create_durable_jobs({"flaky": definition}), now=NOW)
        self.run, self.advance, self.restart = self.kit.run, self.kit.advance, self.kit.restart

    def __enter__(self) -> Self:
        self.kit.__enter__()
        return self

    def __exit__(self, *failure: Any) -> None:
        self.kit.__exit__(*failure)

    @property
    def flaky(self) -> Any:
        return self.kit.client.continuous("flaky")

    def start(self, value: int = 0) -> Any:
        return self.run(self.flaky.start(id="u1", input=Counter(value)))

    def trigger(self) -> Any:
        return self.run(self.flaky.trigger("u1"))

    def status(self) -> Any:
        return self.run(self.flaky.status("u1"))

    def value(self) -> int:
        return self.run(self.flaky.get_state("u1")).state.value

    @property
    def events(self) -> list[Any]:
        return list(self.kit.events)

    def events_of(self, type: str) -> list[Any]:
        return [event for event in self.kit.events if event.type == type]


def exactly(max_attempts: int, delay: Any, **options: Any) -> Retry:
    """A policy without jitter, for exact figures."""
    return Retry(max_attempts=max_attempts, delay=delay, jitter=False, **options)


class TestAttempts:
    """A run is tried again until it succeeds."""

    def test_a_failed_start_is_not_a_failed_call(self) -> None:
        """With a retry ahead, `start` answers that the instance is running."""
        job = Flaky(exactly(3, "5 seconds"), fails={1})
        with Scene(job.definition) as scene:
            started = scene.start()
            assert (started.created, started.status) == (True, "running")
        assert job.seconds == [0]

    def test_the_retry_waits_as_an_alarm(self) -> None:
        """While a retry waits, the instance is running and its next run is the retry."""
        with Scene(Flaky(exactly(3, "5 seconds"), fails={1}).definition) as scene:
            scene.start()
            status = scene.status()
            assert status.status == "running"
            assert status.next_run_at == after(seconds=5)
            assert "failure 1" in str(status.last_error)

    def test_the_retry_comes_at_its_time(self) -> None:
        """The second attempt runs when its delay is over, not a microsecond before."""
        job = Flaky(exactly(3, "5 seconds"), fails={1})
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance(timedelta(seconds=5) - timedelta(microseconds=1))
            assert job.seconds == [0]
            scene.advance(timedelta(microseconds=1))
        assert job.seconds == [0, 5]

    def test_what_an_attempt_sees(self) -> None:
        """Attempts are numbered from one, a retry knows itself, and both are the same run."""
        job = Flaky(exactly(3, "5 seconds"), fails={1, 2})
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("1 minute")
        assert [attempt.attempt for attempt in job.attempts] == [1, 2, 3]
        assert [attempt.is_retry for attempt in job.attempts] == [False, True, True]
        assert [attempt.run_count for attempt in job.attempts] == [1, 1, 1]
        assert len({attempt.run_key for attempt in job.attempts}) == 1
        assert {attempt.scheduled_for for attempt in job.attempts} == {NOW}

    def test_each_attempt_begins_with_the_state_before_the_run(self) -> None:
        """What a failed attempt had written is dropped."""
        job = Flaky(exactly(3, "5 seconds"), fails={1, 2})
        with Scene(job.definition) as scene:
            scene.start(value=10)
            assert scene.value() == 10
            scene.advance("1 minute")
            assert scene.value() == 11
        assert [attempt.value for attempt in job.attempts] == [10, 10, 10]

    def test_a_run_is_counted_once(self) -> None:
        """However many attempts it took, a run that succeeded is one run."""
        job = Flaky(exactly(3, "5 seconds"), fails={1, 2})
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("1 minute")
            assert scene.status().run_count == 1
            scene.advance("1 hour")
        assert job.attempts[-1].run_count == 2
        assert job.attempts[-1].attempt == 1

    def test_the_schedule_is_anchored_to_the_run_not_to_its_retries(self) -> None:
        """After a run that succeeded late the next tick comes as if it had succeeded at once."""
        job = Flaky(exactly(3, "5 minutes"), fails={1, 2})
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("10 minutes")
            assert scene.status().next_run_at == after(hours=1)
            scene.advance("2 hours")
        assert job.seconds == [0, 300, 600, 3600, 7200]

    def test_each_run_has_all_its_attempts(self) -> None:
        """A run that needed a retry takes none from the next."""
        job = Flaky(exactly(2, "5 seconds"), fails={1, 3, 5})
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance(timedelta(hours=2, seconds=5))
            assert scene.status().status == "running"
        assert [attempt.attempt for attempt in job.attempts] == [1, 2, 1, 2, 1, 2]
        assert job.seconds == [0, 5, 3600, 3605, 7200, 7205]

    def test_ticks_missed_by_retrying_collapse(self) -> None:
        """Ticks that fall due while a run is retried are one late run afterwards."""
        job = Flaky(exactly(2, "25 minutes"), fails={1}, schedule=Continuous.every("10 minutes"))
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("30 minutes")
        assert job.seconds == [0, 25 * 60, 25 * 60, 30 * 60]
        assert job.attempts[2].scheduled_for == after(minutes=10)
        assert job.attempts[2].run_count == 2

    def test_the_delay_counts_from_the_start_of_the_attempt(self) -> None:
        """An attempt that fails after two seconds is tried again five seconds after it began."""
        job = Flaky(exactly(3, "5 seconds"), fails={1, 2}, takes=timedelta(seconds=2))
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("1 minute")
        assert job.seconds == [0, 5, 10]

    def test_a_delay_that_is_already_over_is_no_delay(self) -> None:
        """An attempt that took longer than its delay is tried again as soon as it has failed."""
        job = Flaky(exactly(3, "5 seconds"), fails={1}, takes=timedelta(seconds=12))
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("1 minute")
        assert job.seconds == [0, 12]

    @pytest.mark.parametrize(
        "make",
        [
            pytest.param(lambda: ValueError("raised"), id="an exception"),
            pytest.param(lambda: KeyError("raised"), id="an exception with an odd text"),
            pytest.param(lambda: RuntimeError("raised", Lock()), id="one that cannot be pickled"),
            pytest.param(lambda: ExceptionGroup("raised", [ValueError("a")]), id="a group"),
        ],
    )
    def test_a_raised_exception_is_retried_like_a_typed_error(self, make: Any) -> None:
        """Any failure is retried, and what is kept of it is text."""
        job = Flaky(exactly(2, "5 seconds"), fails={1}, raises=make)
        with Scene(job.definition) as scene:
            assert scene.start().status == "running"
            assert "raised" in str(scene.status().last_error)
            scene.restart()
            assert "raised" in str(scene.status().last_error)
            scene.advance("5 seconds")
            assert scene.value() == 1
        assert job.seconds == [0, 5]

    def test_a_tick_is_retried_too(self) -> None:
        """A run that no caller waits for is retried like any other."""
        job = Flaky(exactly(3, "5 seconds"), fails={2, 3})
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance(timedelta(hours=1, minutes=1))
        assert job.seconds == [0, 3600, 3605, 3610]
        assert [attempt.attempt for attempt in job.attempts] == [1, 1, 2, 3]

    def test_the_events_of_a_retried_run(self) -> None:
        """Each failed attempt is a `job.failed` that says whether it will be retried."""
        job = Flaky(exactly(3, "5 seconds"), fails={1, 2})
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("1 minute")
            started, first, second, executed = scene.events
        assert [started.type, first.type, second.type] == ["job.started", "job.failed", "job.failed"]
        assert [(event.attempt, event.run_count, event.will_retry) for event in (first, second)] == [
            (1, 1, True),
            (2, 1, True),
        ]
        assert first.error.type.endswith("Boom")
        assert "failure 1" in first.error.message
        assert "failure 2" in second.error.message
        assert (executed.type, executed.attempt, executed.run_count) == ("job.executed", 3, 1)
        assert [event.timestamp for event in (first, second, executed)] == [
            NOW,
            after(seconds=5),
            after(seconds=10),
        ]

    def test_instances_are_retried_apart(self) -> None:
        """Each instance has its own attempts."""
        job = Flaky(exactly(2, "5 seconds"), fails={1, 2})
        with Scene(job.definition) as scene:
            scene.run(scene.flaky.start(id="u1", input=Counter(0)))
            scene.run(scene.flaky.start(id="u2", input=Counter(0)))
            scene.advance("1 minute")
            assert scene.run(scene.flaky.status("u1")).run_count == 1
            assert scene.run(scene.flaky.status("u2")).run_count == 1
        assert [attempt.attempt for attempt in job.attempts] == [1, 1, 2, 2]

    def test_terminating_while_a_retry_waits(self) -> None:
        """An instance that is terminated is not retried."""
        job = Flaky(exactly(3, "5 seconds"))
        with Scene(job.definition) as scene:
            scene.start()
            assert scene.run(scene.flaky.terminate("u1")).terminated is True
            scene.advance("1 day")
        assert job.seconds == [0]

    def test_a_second_start_while_a_retry_waits(self) -> None:
        """Starting an instance whose retry waits changes nothing."""
        job = Flaky(exactly(3, "5 seconds"), fails={1})
        with Scene(job.definition) as scene:
            scene.start()
            again = scene.start()
            assert (again.created, again.status) == (False, "running")
            assert scene.status().next_run_at == after(seconds=5)
        assert job.seconds == [0]

    def test_terminating_is_not_a_failure(self) -> None:
        """A handler that ends its instance on a retry has not failed."""

        @Effect.gen
        def execute(ctx: ContinuousContext[Counter]) -> Do[None, Boom]:
            if ctx.is_retry:
                yield from ctx.terminate("done")
            yield from Effect.fail(Boom("first"))

        job = Continuous.make(
            state_schema=Counter,
            schedule=Continuous.every("1 hour"),
            retry=exactly(3, "5 seconds"),
            execute=execute,
        )
        with Scene(job) as scene:
            scene.start()
            scene.advance("1 minute")
            assert scene.status().status == "not_found"
            assert [event.type for event in scene.events] == ["job.started", "job.failed", "job.terminated"]


class TestDelays:
    """How long a retry waits."""

    @pytest.mark.parametrize(
        ("delay", "gaps"),
        [
            pytest.param("5 seconds", [5, 5, 5, 5, 5], id="text"),
            pytest.param(timedelta(minutes=1), [60] * 5, id="span"),
            pytest.param(Backoff.fixed("5 seconds"), [5] * 5, id="fixed"),
            pytest.param(Backoff.constant("5 seconds"), [5] * 5, id="constant"),
            pytest.param(Backoff.exponential("1 second"), [1, 2, 4, 8, 16], id="exponential"),
            pytest.param(
                Backoff.exponential("1 second", max="5 seconds"), [1, 2, 4, 5, 5], id="exponential, capped"
            ),
            pytest.param(
                Backoff.exponential("2 seconds", factor=3.0), [2, 6, 18, 54, 162], id="exponential by three"
            ),
            pytest.param(
                Backoff.exponential("8 seconds", factor=1.5),
                [8, 12, 18, 27, 40.5],
                id="exponential by a half",
            ),
            pytest.param(
                Backoff.exponential("10 seconds", max="3 seconds"), [3] * 5, id="a cap below the base"
            ),
            pytest.param(Backoff.linear("1 second", "2 seconds"), [1, 3, 5, 7, 9], id="linear"),
            pytest.param(
                Backoff.linear("1 second", "2 seconds", max="4 seconds"), [1, 3, 4, 4, 4], id="linear, capped"
            ),
            pytest.param(lambda attempt: timedelta(seconds=attempt**2), [1, 4, 9, 16, 25], id="function"),
        ],
    )
    def test_the_delay_after_each_attempt(self, delay: Any, gaps: list[float]) -> None:
        """The k-th delay follows the k-th attempt."""
        job = Flaky(exactly(6, delay), fails=range(1, 6))
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("10 minutes")
        assert [later - earlier for earlier, later in pairwise(job.seconds)] == gaps

    @pytest.mark.parametrize(
        "backoff",
        [
            Backoff.presets.standard,
            Backoff.presets.aggressive,
            Backoff.presets.patient,
            Backoff.presets.simple,
        ],
    )
    def test_a_preset_is_a_backoff(self, backoff: Backoff) -> None:
        """A preset serves as a delay, and the retries keep to what `delay` says."""
        job = Flaky(exactly(4, backoff), fails=range(1, 4), schedule=Continuous.every("1 day"))
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("1 hour")
        gaps = [timedelta(seconds=later - earlier) for earlier, later in pairwise(job.seconds)]
        assert gaps == [backoff.delay(attempt) for attempt in (1, 2, 3)]

    def test_the_default_delay(self) -> None:
        """Without a delay of its own a policy waits 1 s, doubling, at most 30 s."""
        job = Flaky(Retry(max_attempts=8, jitter=False), fails=range(1, 8))
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("10 minutes")
        assert [later - earlier for earlier, later in pairwise(job.seconds)] == [1, 2, 4, 8, 16, 30, 30]

    def test_jitter_is_ten_percent_either_way(self) -> None:
        """By default a delay is off by at most a tenth, and not always by the same amount."""
        job = Flaky(Retry(max_attempts=41, delay="100 seconds"), fails=range(1, 41))
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("2 hours")
        gaps = [later - earlier for earlier, later in pairwise(job.seconds)][:40]
        assert len(gaps) == 40
        assert all(90 <= gap <= 110 for gap in gaps)
        assert min(gaps) < 100 < max(gaps)
        assert len(set(gaps)) > 20

    def test_the_cap_holds_after_the_jitter(self) -> None:
        """Jitter never pushes a delay over the backoff's maximum."""
        delay = Backoff.exponential("100 seconds", max="100 seconds")
        job = Flaky(Retry(max_attempts=31, delay=delay, jitter=True), fails=range(1, 31))
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("55 minutes")
        gaps = [later - earlier for earlier, later in pairwise(job.seconds)][:30]
        assert len(gaps) == 30
        assert all(90 <= gap <= 100 for gap in gaps)
        assert min(gaps) < 100

    def test_a_jittered_delay_is_drawn_once(self) -> None:
        """The time of a retry is decided when the attempt fails, and a restart does not move it."""
        job = Flaky(Retry(max_attempts=2, delay="100 seconds"), fails={1})
        with Scene(job.definition) as scene:
            scene.start()
            decided = scene.status().next_run_at
            scene.restart()
            assert scene.status().next_run_at == decided
            scene.advance("2 minutes")
        assert job.seconds[1] == (decided - NOW).total_seconds()

    @given(
        first=st.integers(1, 500),
        increment=st.integers(1, 500),
        cap=st.none() | st.integers(1, 2000),
        failures=st.integers(0, 7),
    )
    @settings(max_examples=40, deadline=None)
    def test_linear_delays_add_up(self, first: int, increment: int, cap: int | None, failures: int) -> None:
        """Whatever the figures, attempt k+1 begins initial + increment*(k-1), capped, after attempt k."""
        maximum = None if cap is None else timedelta(seconds=cap)
        delay = Backoff.linear(timedelta(seconds=first), timedelta(seconds=increment), max=maximum)
        job = Flaky(exactly(8, delay), fails=range(1, failures + 1), schedule=Continuous.every("52 weeks"))
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("1 day")
        expected = [0]
        for k in range(1, failures + 1):
            wait = first + increment * (k - 1)
            expected.append(expected[-1] + (wait if cap is None else min(wait, cap)))
        assert job.seconds == expected


class TestMaxAttempts:
    """`max_attempts` is the total number of executions."""

    @pytest.mark.parametrize("max_attempts", [1, 2, 3, 7])
    def test_it_counts_the_first_attempt(self, max_attempts: int) -> None:
        """A job that always fails is executed exactly `max_attempts` times."""
        job = Flaky(exactly(max_attempts, "1 second"))
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("1 day")
        assert job.seconds == list(range(max_attempts))

    def test_a_success_on_the_last_attempt(self) -> None:
        """The last attempt is as good as the first."""
        job = Flaky(exactly(3, "1 second"), fails={1, 2})
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("1 minute")
            assert scene.status().status == "running"
            assert scene.events_of("job.retryExhausted") == []

    def test_the_events_of_exhaustion(self) -> None:
        """The last failure, the exhaustion and the end are told in this order, with their causes."""
        with Scene(Flaky(exactly(3, "1 second")).definition) as scene:
            scene.start()
            scene.advance("1 minute")
            failed, exhausted, terminated = scene.events[-3:]
            assert [event.type for event in scene.events] == [
                "job.started",
                "job.failed",
                "job.failed",
                "job.failed",
                "job.retryExhausted",
                "job.terminated",
            ]
        assert (failed.attempt, failed.will_retry) == (3, False)
        assert failed.error.type.endswith("Boom")
        assert "failure 3" in failed.error.message
        assert (exhausted.attempts, exhausted.reason) == (3, "max_attempts")
        assert terminated.run_count == 1
        assert [event.timestamp for event in (failed, exhausted, terminated)] == [after(seconds=2)] * 3

    def test_what_is_exhausted_is_purged(self) -> None:
        """An instance whose retries are used up is gone: no status, no state, no alarm."""
        job = Flaky(exactly(2, "1 second"))
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("1 second")
            assert scene.status().status == "not_found"
            assert scene.run(scene.flaky.get_state("u1")).state is None
            scene.advance("1 day")
        assert len(job.attempts) == 2

    def test_the_id_is_free_again(self) -> None:
        """After an exhaustion the id starts from nothing, with all its attempts."""
        job = Flaky(exactly(2, "1 second"))
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("1 minute")
            assert scene.start(value=50).created is True
            scene.advance("1 minute")
        assert [(attempt.attempt, attempt.value) for attempt in job.attempts] == [
            (1, 0),
            (2, 0),
            (1, 50),
            (2, 50),
        ]

    def test_a_start_that_exhausts_answers_terminated(self) -> None:
        """A start whose own run uses up its only attempt does not fail: it answers `terminated`."""
        with Scene(Flaky(exactly(1, "1 second")).definition) as scene:
            assert scene.start().status == "terminated"
            assert scene.status().status == "not_found"

    def test_a_trigger_that_exhausts_answers_terminated(self) -> None:
        """A trigger whose own run uses up its only attempt answers `triggered` and `terminated`."""
        job = Flaky(exactly(1, "1 second"), start_immediately=False)
        with Scene(job.definition) as scene:
            scene.start()
            triggered = scene.trigger()
            assert (triggered.triggered, triggered.terminated) == (True, True)
            assert not triggered.retry_scheduled
            assert scene.status().status == "not_found"

    def test_attempts_survive_restarts(self) -> None:
        """A process that dies between all attempts neither loses nor gains one."""
        job = Flaky(exactly(4, Backoff.exponential("1 second")))
        with Scene(job.definition) as scene:
            scene.start()
            for _ in range(40):
                scene.restart()
                scene.advance("500 ms")
            assert scene.status().status == "not_found"
            assert scene.events_of("job.retryExhausted")[0].attempts == 4
        assert job.seconds == [0, 1, 3, 7]
        assert [attempt.attempt for attempt in job.attempts] == [1, 2, 3, 4]


class TestMaxDuration:
    """`max_duration` bounds the time from the first attempt to the begin of the last."""

    @pytest.mark.parametrize(
        ("max_duration", "seconds"),
        [
            ("5 seconds", [0]),
            ("9999 ms", [0]),
            ("10 seconds", [0, 10]),
            ("19 seconds", [0, 10]),
            ("20 seconds", [0, 10, 20]),
            (timedelta(seconds=25), [0, 10, 20]),
        ],
    )
    def test_no_attempt_begins_later(self, max_duration: Any, seconds: list[float]) -> None:
        """An attempt that would begin after the bound is not made; one exactly on it is."""
        job = Flaky(exactly(10, "10 seconds", max_duration=max_duration))
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("1 hour")
        assert job.seconds == seconds

    def test_an_attempt_that_outlasts_it_is_the_last(self) -> None:
        """When this attempt took so long that the next could only begin after the bound, it is over."""
        policy = exactly(10, "5 seconds", max_duration="20 seconds")
        job = Flaky(policy, takes=timedelta(seconds=30))
        with Scene(job.definition) as scene:
            assert scene.start().status == "terminated"
            assert scene.events_of("job.retryExhausted")[0].reason == "max_duration"
            scene.advance("1 hour")
        assert job.seconds == [0]

    def test_it_is_exhausted_at_once(self) -> None:
        """The exhaustion does not wait for the attempt that will not be made."""
        with Scene(Flaky(exactly(10, "10 seconds", max_duration="25 seconds")).definition) as scene:
            scene.start()
            scene.advance("20 seconds")
            assert scene.status().status == "not_found"
            (exhausted,) = scene.events_of("job.retryExhausted")
        assert (exhausted.attempts, exhausted.reason) == (3, "max_duration")
        assert exhausted.timestamp == after(seconds=20)

    def test_attempts_may_end_it_first(self) -> None:
        """When the attempts are used up before the time, that is the reason."""
        with Scene(Flaky(exactly(2, "10 seconds", max_duration="1 hour")).definition) as scene:
            scene.start()
            scene.advance("1 minute")
            (exhausted,) = scene.events_of("job.retryExhausted")
        assert (exhausted.attempts, exhausted.reason) == (2, "max_attempts")

    def test_the_time_is_counted_from_the_first_attempt_of_the_run(self) -> None:
        """Each run has the whole duration for itself, however old its instance is."""
        job = Flaky(exactly(3, "10 seconds", max_duration="15 seconds"), fails={2})
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance(timedelta(hours=1, minutes=1))
            assert scene.status().status == "running"
        assert job.seconds == [0, 3600, 3610]

    def test_it_holds_across_restarts(self) -> None:
        """The time of the first attempt is remembered by the record, not by the process."""
        job = Flaky(exactly(10, "10 seconds", max_duration="25 seconds"))
        with Scene(job.definition) as scene:
            scene.start()
            for _ in range(10):
                scene.restart()
                scene.advance("5 seconds")
        assert job.seconds == [0, 10, 20]

    def test_a_start_that_exhausts_by_time_answers_terminated(self) -> None:
        """A first delay that is longer than the bound ends the instance inside `start`."""
        with Scene(Flaky(exactly(10, "1 minute", max_duration="30 seconds")).definition) as scene:
            assert scene.start().status == "terminated"


class TestRetryable:
    """`retryable` says which failures are worth another attempt."""

    def policy(self, **options: Any) -> Retry:
        return exactly(5, "1 second", retryable=lambda error: not isinstance(error, Fatal), **options)

    def test_a_refused_failure_is_exhausted_at_once(self) -> None:
        """A failure that the predicate refuses is not tried again."""
        job = Flaky(self.policy(), error=lambda execution: Fatal("give up"))
        with Scene(job.definition) as scene:
            assert scene.start().status == "terminated"
            failed, exhausted, terminated = scene.events[-3:]
        assert (failed.type, failed.will_retry) == ("job.failed", False)
        assert (exhausted.type, exhausted.attempts) == ("job.retryExhausted", 1)
        assert terminated.type == "job.terminated"
        assert job.seconds == [0]

    def test_an_accepted_failure_is_retried(self) -> None:
        """A failure that the predicate accepts is tried again."""
        job = Flaky(self.policy(), fails={1, 2})
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("1 minute")
            assert scene.status().run_count == 1
        assert job.seconds == [0, 1, 2]

    def test_each_failure_is_judged_by_itself(self) -> None:
        """A later failure may be refused after earlier ones were retried."""
        job = Flaky(
            self.policy(), error=lambda execution: Fatal("give up") if execution == 3 else Boom("again")
        )
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("1 minute")
            assert scene.status().status == "not_found"
            assert scene.events_of("job.retryExhausted")[0].attempts == 3
        assert job.seconds == [0, 1, 2]

    def test_refused_and_kept(self) -> None:
        """Together with `on_exhausted="stop"` a refused failure stops the instance."""
        job = Flaky(self.policy(on_exhausted="stop"), error=lambda execution: Fatal("give up"), fails={2})
        with Scene(job.definition) as scene:
            scene.start()
            scene.trigger()
            assert scene.status().status == "stopped"
            assert "give up" in str(scene.status().last_error)


class TestStopping:
    """`on_exhausted="stop"` keeps the record."""

    def policy(self, max_attempts: int = 2) -> Retry:
        return exactly(max_attempts, "1 second", on_exhausted="stop")

    def test_a_stopped_instance(self) -> None:
        """An exhausted instance that is kept is stopped: with its state and last error, without alarm."""
        job = Flaky(self.policy())
        with Scene(job.definition) as scene:
            scene.start(value=5)
            scene.advance("1 minute")
            status = scene.status()
            assert (status.status, status.next_run_at) == ("stopped", None)
            assert "failure 2" in str(status.last_error)
            assert scene.value() == 5
            scene.advance("1 day")
        assert job.seconds == [0, 1]

    def test_its_events(self) -> None:
        """A stop is an exhaustion, but no end."""
        with Scene(Flaky(self.policy()).definition) as scene:
            scene.start()
            scene.advance("1 minute")
            assert [event.type for event in scene.events] == [
                "job.started",
                "job.failed",
                "job.failed",
                "job.retryExhausted",
            ]
            exhausted = scene.events[-1]
        assert (exhausted.attempts, exhausted.reason) == (2, "max_attempts")

    def test_a_second_start_finds_it(self) -> None:
        """A stopped instance still has its id."""
        job = Flaky(self.policy())
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("1 minute")
            assert scene.start().created is False
            assert scene.status().status == "stopped"
        assert len(job.attempts) == 2

    def test_it_survives_a_restart(self) -> None:
        """Stopped is stopped in the next process too."""
        job = Flaky(self.policy())
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("1 minute")
            before = scene.status()
            scene.restart()
            scene.advance("1 day")
            assert scene.status() == before
        assert len(job.attempts) == 2

    def test_trigger_revives_it(self) -> None:
        """A trigger runs a stopped instance, with a fresh attempt count, and its schedule goes on."""
        job = Flaky(self.policy(), fails={1, 2})
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("1 minute")
            triggered = scene.trigger()
            assert (triggered.triggered, triggered.terminated) == (True, False)
            assert scene.status().status == "running"
            assert scene.status().next_run_at == after(hours=1, minutes=1)
            assert scene.value() == 1
        assert [attempt.attempt for attempt in job.attempts] == [1, 2, 1]

    def test_a_revived_instance_has_all_its_attempts(self) -> None:
        """A revival that fails is retried as often as the first run was."""
        job = Flaky(self.policy(3))
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("1 minute")
            triggered = scene.trigger()
            assert triggered.triggered is True
            assert triggered.retry_scheduled
            assert scene.status().next_run_at == after(minutes=1, seconds=1)
            scene.advance("1 minute")
            assert scene.status().status == "stopped"
        assert [attempt.attempt for attempt in job.attempts] == [1, 2, 3, 1, 2, 3]

    def test_a_trigger_that_stops_does_not_fail(self) -> None:
        """A trigger whose own run uses up its only attempt answers, and nothing was terminated."""
        job = Flaky(self.policy(1), fails={2})
        with Scene(job.definition) as scene:
            scene.start()
            triggered = scene.trigger()
            assert (triggered.triggered, triggered.terminated) == (True, False)
            assert scene.status().status == "stopped"

    def test_a_stopped_instance_can_be_terminated(self) -> None:
        """What was stopped can be ended like anything else."""
        with Scene(Flaky(self.policy()).definition) as scene:
            scene.start()
            scene.advance("1 minute")
            assert scene.run(scene.flaky.terminate("u1", reason="clean up")).terminated is True
            assert scene.status().status == "not_found"
            assert scene.start().created is True


class TestTriggeringWhileARetryWaits:
    """A trigger does not wait for the retry."""

    def test_it_runs_now_as_a_new_run(self) -> None:
        """The attempt count begins anew, under a new key and number."""
        job = Flaky(exactly(3, "1 minute"), fails={1})
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("10 seconds")
            assert scene.trigger().triggered is True
            assert scene.value() == 1
        first, second = job.attempts
        assert (second.seconds, second.attempt, second.is_retry) == (10, 1, False)
        assert second.run_key != first.run_key
        assert (first.run_count, second.run_count) == (1, 2)
        assert second.scheduled_for == after(seconds=10)

    def test_the_waiting_retry_is_replaced(self) -> None:
        """After a trigger that succeeded the old retry does not come any more."""
        job = Flaky(exactly(3, "1 minute"), fails={1})
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("10 seconds")
            scene.trigger()
            assert scene.status().next_run_at == after(hours=1, seconds=10)
            scene.advance("30 minutes")
        assert job.seconds == [0, 10]

    def test_a_trigger_that_fails_schedules_its_own_retry(self) -> None:
        """A failing trigger answers that a retry is scheduled, and all attempts are ahead again."""
        job = Flaky(exactly(3, "1 minute"))
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("70 seconds")
            triggered = scene.trigger()
            assert (triggered.triggered, triggered.terminated) == (True, False)
            assert triggered.retry_scheduled
            assert scene.status().next_run_at == after(seconds=130)
            scene.advance("1 hour")
            assert scene.status().status == "not_found"
        assert job.seconds == [0, 60, 70, 130, 190]
        assert [attempt.attempt for attempt in job.attempts] == [1, 2, 1, 2, 3]

    def test_the_duration_begins_anew(self) -> None:
        """A trigger restarts the clock of `max_duration` as well."""
        job = Flaky(exactly(10, "10 seconds", max_duration="15 seconds"))
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("5 seconds")
            scene.trigger()
            scene.advance("1 hour")
        assert job.seconds == [0, 5, 15]


class Ledger:
    """The simplest model of one instance under a policy of three attempts, ten seconds apart."""

    def __init__(self, outcomes: list[bool]) -> None:
        self.outcomes = list(outcomes)
        self.now = 0
        self.executions: list[tuple[int, int]] = []
        self.value = 0
        self.begin_run()

    def begin_run(self) -> None:
        self.nominal, self.attempt = self.now, 1
        self.execute()

    def execute(self) -> None:
        self.executions.append((self.now, self.attempt))
        self.next: int | None
        if self.outcomes.pop(0) if self.outcomes else True:
            self.value += 1
            self.next, self.attempt = self.nominal + 3600, 1
        elif self.attempt < 3:
            self.next, self.attempt = self.now + 10, self.attempt + 1
        else:
            self.next = None

    def advance(self, seconds: int) -> None:
        target = self.now + seconds
        while self.next is not None and self.next <= target:
            self.now = self.next
            if self.attempt == 1:
                self.begin_run()
            else:
                self.execute()
        self.now = target


history = st.lists(
    st.one_of(
        st.integers(1, 30).map(lambda seconds: ("advance", seconds)),
        st.sampled_from([("advance", 3600), ("trigger", 0), ("restart", 0)]),
    ),
    max_size=20,
)


@given(history, st.lists(st.booleans(), max_size=20))
@settings(max_examples=60, deadline=None)
def test_no_history_loses_or_invents_an_attempt(
    commands: list[tuple[str, int]], outcomes: list[bool]
) -> None:
    """Whatever is done in whatever order, attempts come exactly as the simplest model says."""
    fails = {execution for execution, succeeds in enumerate(outcomes, start=1) if not succeeds}
    job = Flaky(exactly(3, "10 seconds", on_exhausted="stop"), fails=fails)
    ledger = Ledger(outcomes)
    with Scene(job.definition) as scene:
        scene.start()
        for command, seconds in commands:
            match command:
                case "advance":
                    scene.advance(timedelta(seconds=seconds))
                    ledger.advance(seconds)
                case "restart":
                    scene.restart()
                case "trigger":
                    scene.trigger()
                    ledger.begin_run()
            assert [(attempt.seconds, attempt.attempt) for attempt in job.attempts] == ledger.executions
            assert scene.value() == ledger.value
            status = scene.status()
            if ledger.next is None:
                assert (status.status, status.next_run_at) == ("stopped", None)
            else:
                assert (status.status, status.next_run_at) == ("running", after(seconds=ledger.next))


@attrs.frozen
class Note:
    text: str


class Batches:
    """A debounce job that keeps the texts of its events and whose flushes fail as told."""

    def __init__(self, retry: Retry | None, *, fails: Container[int] = ALWAYS, **options: Any) -> None:
        self.flushes: list[tuple[float, list[str], int, bool, str]] = []
        self.fails = fails
        self.definition = Debounce.make(
            event_schema=Note,
            state_schema=Schema.array(Schema.string),
            initial_state=list,
            flush_after="10 seconds",
            on_event=lambda ctx: Effect.succeed([*ctx.state, ctx.event.text]),
            retry=retry,
            execute=self.execute,
            **options,
        )

    @Effect.gen
    def execute(self, ctx: DebounceExecuteContext[list[str]]) -> Do[None, Boom]:
        now = yield from Clock.now()
        state = yield from ctx.state
        self.flushes.append(((now - NOW).total_seconds(), state, ctx.attempt, ctx.is_retry, ctx.flush_reason))
        if len(self.flushes) in self.fails:
            yield from Effect.fail(Boom("no luck"))

    @property
    def seconds(self) -> list[float]:
        return [flush[0] for flush in self.flushes]

    @property
    def attempts(self) -> list[tuple[int, bool]]:
        return [flush[2:4] for flush in self.flushes]


class TestDebounce:
    """Flushes are retried like runs."""

    @staticmethod
    def add(scene: Scene, text: str) -> Any:
        return scene.run(scene.kit.client.debounce("flaky").add(id="u1", event=Note(text)))

    @staticmethod
    def flush(scene: Scene) -> Any:
        return scene.run(scene.kit.client.debounce("flaky").flush("u1"))

    @staticmethod
    def status(scene: Scene) -> Any:
        return scene.run(scene.kit.client.debounce("flaky").status("u1"))

    def test_a_failed_flush_is_retried(self) -> None:
        """A flush that fails is tried again with its batch, until it succeeds."""
        job = Batches(exactly(3, "5 seconds"), fails={1, 2})
        with Scene(job.definition) as scene:
            self.add(scene, "a")
            self.add(scene, "b")
            scene.advance("1 minute")
            assert self.status(scene).status == "not_found"
        assert job.seconds == [10, 15, 20]
        assert [flush[1] for flush in job.flushes] == [["a", "b"]] * 3
        assert job.attempts == [(1, False), (2, True), (3, True)]
        assert {flush[4] for flush in job.flushes} == {"flushAfter"}

    def test_its_events(self) -> None:
        """Failed attempts are told, then the flush."""
        with Scene(Batches(exactly(3, "5 seconds"), fails={1}).definition) as scene:
            self.add(scene, "a")
            scene.advance("1 minute")
            (failed,) = scene.events_of("job.failed")
            (flushed,) = scene.events_of("debounce.flushed")
            assert scene.events.index(failed) < scene.events.index(flushed)
        assert (failed.attempt, failed.will_retry) == (1, True)
        assert (flushed.event_count, flushed.timestamp) == (1, after(seconds=15))

    def test_exhausted(self) -> None:
        """A flush that never succeeds is executed `max_attempts` times, then its instance is purged."""
        job = Batches(exactly(2, "5 seconds"))
        with Scene(job.definition) as scene:
            self.add(scene, "a")
            scene.advance("1 day")
            assert self.status(scene).status == "not_found"
            assert [event.type for event in scene.events] == [
                "debounce.started",
                "job.failed",
                "job.failed",
                "job.retryExhausted",
                "job.terminated",
            ]
        assert job.seconds == [10, 15]

    def test_the_id_starts_anew_after_an_exhaustion(self) -> None:
        """The next event after an exhaustion opens a new batch."""
        job = Batches(exactly(1, "5 seconds"), fails={1})
        with Scene(job.definition) as scene:
            self.add(scene, "a")
            scene.advance("1 minute")
            added = self.add(scene, "b")
            assert (added.created, added.event_count) == (True, 1)
            scene.advance("1 minute")
        assert [flush[1] for flush in job.flushes] == [["a"], ["b"]]

    def test_a_manual_flush_that_fails_is_not_a_failed_call(self) -> None:
        """With a retry ahead `flush` answers that it has not flushed and that it will be retried."""
        with Scene(Batches(exactly(3, "5 seconds"), fails={1}).definition) as scene:
            self.add(scene, "a")
            flushed = self.flush(scene)
            assert flushed.flushed is False
            assert flushed.retry_scheduled
            scene.advance("5 seconds")
            assert self.status(scene).status == "not_found"

    def test_a_manual_flush_that_exhausts(self) -> None:
        """A flush that uses up its only attempt answers that it has not flushed."""
        with Scene(Batches(exactly(1, "5 seconds")).definition) as scene:
            self.add(scene, "a")
            flushed = self.flush(scene)
            assert flushed.flushed is False
            assert not flushed.retry_scheduled
            assert self.status(scene).status == "not_found"

    def test_a_full_batch_that_fails_is_not_a_failed_call(self) -> None:
        """The add that fills a batch whose flush fails is accepted, and told of the retry."""
        job = Batches(exactly(3, "5 seconds"), fails={1}, max_events=2)
        with Scene(job.definition) as scene:
            self.add(scene, "a")
            filled = self.add(scene, "b")
            assert filled.event_count == 2
            assert filled.retry_scheduled
            scene.advance("5 seconds")
        assert job.seconds == [0, 5]
        assert [flush[1] for flush in job.flushes] == [["a", "b"]] * 2

    def test_while_a_retry_waits_adds_only_accumulate(self) -> None:
        """A batch that is full and waits for its retry is not flushed by further events."""
        job = Batches(exactly(3, "5 seconds"), fails={1}, max_events=2)
        with Scene(job.definition) as scene:
            for text in "abcd":
                self.add(scene, text)
            assert self.status(scene).event_count == 4
            assert job.seconds == [0]
            scene.advance("5 seconds")
            assert self.status(scene).status == "not_found"
        assert job.seconds == [0, 5]
        assert job.flushes[1][1] == ["a", "b", "c", "d"]

    def test_a_manual_flush_while_a_retry_waits(self) -> None:
        """A flush does not wait for the retry and begins with attempt one."""
        job = Batches(exactly(3, "5 seconds"), fails={1, 2})
        with Scene(job.definition) as scene:
            self.add(scene, "a")
            scene.advance("12 seconds")
            self.flush(scene)
            scene.advance("1 minute")
        assert job.seconds == [10, 12, 17]
        assert job.attempts == [(1, False), (1, False), (2, True)]

    def test_a_kept_batch_is_revived_by_a_flush(self) -> None:
        """With `on_exhausted="stop"` the batch is kept, waits for nobody, and a flush sends it."""
        job = Batches(exactly(2, "5 seconds", on_exhausted="stop"), fails={1, 2})
        with Scene(job.definition) as scene:
            self.add(scene, "a")
            scene.advance("1 day")
            assert job.seconds == [10, 15]
            assert self.status(scene).event_count == 1
            assert self.status(scene).will_flush_at is None
            flushed = self.flush(scene)
            assert (flushed.flushed, flushed.event_count) == (True, 1)
        assert job.attempts[-1] == (1, False)

    def test_a_retried_batch_survives_restarts(self) -> None:
        """Neither the batch nor its attempts are lost with the process."""
        job = Batches(exactly(3, "5 seconds"), fails={1, 2})
        with Scene(job.definition) as scene:
            self.add(scene, "a")
            for _ in range(10):
                scene.restart()
                scene.advance("3 seconds")
        assert job.seconds == [10, 15, 20]
        assert job.attempts == [(1, False), (2, True), (3, True)]


class Steps:
    """A task whose execution is scheduled by its event and fails as told."""

    def __init__(self, *, fails: Container[int] = ALWAYS, **options: Any) -> None:
        self.seconds: list[float] = []
        self.run_keys: list[str] = []
        self.fails = fails
        self.definition = Task.make(
            event_schema=Note,
            state_schema=Counter,
            on_event=lambda event, ctx: ctx.set_state(Counter(0)).flat_map(
                lambda _: ctx.schedule("10 seconds")
            ),
            execute=self.execute,
            **options,
        )

    @Effect.gen
    def execute(self, ctx: TaskExecuteContext[Counter]) -> Do[None, Boom]:
        now = yield from Clock.now()
        self.seconds.append((now - NOW).total_seconds())
        yield from ctx.update_state(lambda counter: Counter(counter.value + 1))
        if len(self.seconds) in self.fails:
            yield from Effect.fail(Boom("no luck"))


class TestTask:
    """Scheduled executions of a task are retried, by default six times."""

    @staticmethod
    def send(scene: Scene) -> Any:
        return scene.run(scene.kit.client.task("flaky").send(id="u1", event=Note("go")))

    @staticmethod
    def status(scene: Scene) -> Any:
        return scene.run(scene.kit.client.task("flaky").status("u1"))

    @staticmethod
    def state(scene: Scene) -> Any:
        return scene.run(scene.kit.client.task("flaky").get_state("u1")).state

    def test_a_failed_execution_is_retried(self) -> None:
        """An execution that fails is tried again on the state before it."""
        job = Steps(retry=exactly(3, "5 seconds"), fails={1, 2})
        with Scene(job.definition) as scene:
            self.send(scene)
            scene.advance("1 minute")
            assert self.state(scene) == Counter(1)
            assert self.status(scene).status == "idle"
        assert job.seconds == [10, 15, 20]

    def test_the_default_is_six_retries(self) -> None:
        """Without a policy of its own a task is tried seven times, from 2 s doubling, then stopped."""
        job = Steps()
        with Scene(job.definition) as scene:
            self.send(scene)
            scene.advance("1 hour")
            assert self.status(scene).status == "stopped"
            assert self.state(scene) == Counter(0)
            scene.advance("1 day")
        gaps = [later - earlier for earlier, later in pairwise(job.seconds)]
        assert len(gaps) == 6
        for gap, nominal in zip(gaps, [2, 4, 8, 16, 32, 64], strict=True):
            assert nominal * 0.9 <= gap <= nominal * 1.1

    def test_the_events_of_a_stopped_task(self) -> None:
        """A task that is stopped has failed seven times and was exhausted, not terminated."""
        with Scene(Steps().definition) as scene:
            self.send(scene)
            scene.advance("1 hour")
            types = [event.type for event in scene.events]
            (exhausted,) = scene.events_of("job.retryExhausted")
        assert types.count("job.failed") == 7
        assert "job.terminated" not in types
        assert (exhausted.attempts, exhausted.reason) == (7, "max_attempts")

    def test_a_policy_of_its_own_purges(self) -> None:
        """A task with a policy of its own is terminated when that is used up."""
        job = Steps(retry=exactly(2, "5 seconds"))
        with Scene(job.definition) as scene:
            self.send(scene)
            scene.advance("1 hour")
            assert self.status(scene).status == "not_found"
            assert scene.events[-1].type == "job.terminated"
        assert job.seconds == [10, 15]

    def test_trigger_revives_a_stopped_task(self) -> None:
        """A trigger executes a stopped task, and it is stopped no more."""
        job = Steps(retry=exactly(2, "5 seconds", on_exhausted="stop"), fails={1, 2})
        with Scene(job.definition) as scene:
            self.send(scene)
            scene.advance("1 minute")
            assert self.status(scene).status == "stopped"
            assert scene.run(scene.kit.client.task("flaky").trigger("u1")).triggered is True
            assert self.status(scene).status == "idle"
            assert self.state(scene) == Counter(1)

    def test_the_retry_survives_restarts(self) -> None:
        """A task that waits for its retry waits in the next process as well."""
        job = Steps(retry=exactly(3, "5 seconds"), fails={1})
        with Scene(job.definition) as scene:
            self.send(scene)
            for _ in range(10):
                scene.restart()
                scene.advance("2 seconds")
            assert self.state(scene) == Counter(1)
        assert job.seconds == [10, 15]


class TestWithoutRetry:
    """What a policy changes is seen best where there is none."""

    def test_the_call_fails(self) -> None:
        """Without a policy the caller's own failing run fails the call."""
        with Scene(Flaky(None).definition) as scene, pytest.raises(ExecutionError):
            scene.start()

    def test_it_is_not_tried_again_before_its_tick(self) -> None:
        """Without a policy the next execution is the next tick, again as attempt one."""
        job = Flaky(None, fails={1})
        with Scene(job.definition) as scene:
            with pytest.raises(ExecutionError):
                scene.start()
            scene.advance("1 hour")
        assert job.seconds == [0, 3600]
        assert [attempt.attempt for attempt in job.attempts] == [1, 1]
        assert job.attempts[0].run_key != job.attempts[1].run_key


class TestDefinitions:
    """A policy that cannot be is refused when it is made."""

    @pytest.mark.parametrize("max_attempts", [0, -1])
    def test_at_least_one_attempt(self, max_attempts: int) -> None:
        """A policy without a single execution is refused."""
        with pytest.raises(REFUSED):
            Retry(max_attempts=max_attempts)

    @pytest.mark.parametrize("delay", ["0 seconds", "-1 second", "soon", timedelta(0), timedelta(seconds=-1)])
    def test_a_positive_delay(self, delay: Any) -> None:
        """A delay that is not a positive span is refused."""
        with pytest.raises(REFUSED):
            Retry(max_attempts=3, delay=delay)

    @pytest.mark.parametrize("max_duration", ["0 seconds", "-1 second", "soon", timedelta(seconds=-1)])
    def test_a_positive_duration(self, max_duration: Any) -> None:
        """A bound that is not a positive span is refused."""
        with pytest.raises(REFUSED):
            Retry(max_attempts=3, max_duration=max_duration)

    def test_exhaustion_ends_or_stops(self) -> None:
        """What happens on exhaustion is one of the known words."""
        wrong: Any = "explode"
        with pytest.raises(REFUSED):
            Retry(max_attempts=3, on_exhausted=wrong)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: Backoff.fixed("0 seconds"),
            lambda: Backoff.exponential("0 seconds"),
            lambda: Backoff.exponential("1 second", factor=float("nan")),
            lambda: Backoff.exponential("1 second", factor=float("inf")),
            lambda: Backoff.exponential("1 second", max="0 seconds"),
            lambda: Backoff.linear("-1 second", "1 second"),
        ],
    )
    def test_a_backoff_that_cannot_be(self, make: Callable[[], Backoff]) -> None:
        """A backoff of spans or factors that are not positive and finite is refused."""
        with pytest.raises(REFUSED):
            make()

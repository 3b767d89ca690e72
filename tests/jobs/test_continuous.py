"""Continuous jobs: started once, run on a schedule until somebody ends them."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable_effect import Clock, Do, Effect, Schema, TypedError
from durable_effect_jobs import Continuous, ContinuousContext, create_durable_jobs
from durable_effect_jobs.errors import (
    ExecutionError,
    InstanceNotFoundError,
    InvalidStateError,
    JobNotFoundError,
    ValidationError,
)
from durable_effect_jobs.testing import JobsTestKit

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REFUSED = (ValueError, TypedError)
NO_TIME = timedelta(0)


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
class Run:
    """What one execution saw."""

    ran_at: datetime
    scheduled_for: datetime
    missed_count: int
    run_count: int
    attempt: int
    is_retry: bool
    run_key: str
    id: str


class Counting:
    """A job that counts its runs in its state and writes down what each of them saw."""

    def __init__(
        self,
        *,
        takes: Sequence[timedelta] = (),
        fails: Container[int] = (),
        raises: Container[int] = (),
        ends: Container[int] = (),
        **options: Any,
    ) -> None:
        self.runs: list[Run] = []
        self.takes = takes
        self.fails, self.raises, self.ends = fails, raises, ends
        options.setdefault("schedule", Continuous.every("30 minutes"))
        self.definition = Continuous.make(state_schema=Counter, execute=self.execute, **options)

    @Effect.gen
    def execute(self, ctx: ContinuousContext[Counter]) -> Do[None, Boom]:
        self.runs.append(
            Run(
                ran_at=(yield from Clock.now()),
                scheduled_for=ctx.scheduled_for,
                missed_count=ctx.missed_count,
                run_count=ctx.run_count,
                attempt=ctx.attempt,
                is_retry=ctx.is_retry,
                run_key=ctx.run_key,
                id=ctx.id,
            )
        )
        execution = len(self.runs)
        yield from ctx.update_state(lambda counter: Counter(counter.value + 1))
        if execution <= len(self.takes):
            yield from Effect.sleep(self.takes[execution - 1])
        if execution in self.fails:
            yield from Effect.fail(Boom("no luck"))
        if execution in self.raises:
            raise ZeroDivisionError("a bug")
        if execution in self.ends:
            yield from ctx.terminate("had enough")

    @property
    def ran_at(self) -> list[datetime]:
        return [run.ran_at for run in self.runs]


class Scene:
    """A test kit with the one job `counter`, and the calls on its instance `u1`."""

    def __init__(self, definition: Any) -> None:
        self.kit = JobsTestKit(create_durable_jobs({"counter": definition}), now=NOW)
        self.run, self.advance, self.restart = self.kit.run, self.kit.advance, self.kit.restart

    def __enter__(self) -> Self:
        self.kit.__enter__()
        return self

    def __exit__(self, *failure: Any) -> None:
        self.kit.__exit__(*failure)

    @property
    def now(self) -> datetime:
        return self.kit.now

    @property
    def counter(self) -> Any:
        return self.kit.client.continuous("counter")

    def start(self, value: int = 0, name: str = "u1") -> Any:
        return self.run(self.counter.start(id=name, input=Counter(value)))

    def trigger(self) -> Any:
        return self.run(self.counter.trigger("u1"))

    def terminate(self, reason: str | None = None) -> Any:
        return self.run(self.counter.terminate("u1", reason=reason))

    def status(self, name: str = "u1") -> Any:
        return self.run(self.counter.status(name))

    def value(self) -> int:
        return self.run(self.counter.get_state("u1")).state.value

    @property
    def events(self) -> list[Any]:
        return list(self.kit.events)

    @property
    def event_types(self) -> list[str]:
        return [event.type for event in self.events]


class TestStarting:
    """`start` brings an instance into being, and runs it."""

    def test_a_new_id_is_created(self) -> None:
        """The first start of an id answers that it was created, under its full name, and runs."""
        with Scene(Counting().definition) as scene:
            started = scene.start()
        assert started.created is True
        assert started.instance_id == "continuous:counter:u1"
        assert started.status == "running"

    def test_the_typed_and_the_named_client_reach_the_same_instance(self) -> None:
        """A job may be named by its definition or by the name it was registered with."""
        job = Counting()
        with Scene(job.definition) as scene:
            scene.run(scene.kit.client.continuous(job.definition).start(id="u1", input=Counter(5)))
            assert scene.value() == 6

    def test_the_first_run_is_at_once(self) -> None:
        """Unless told otherwise the first run happens inside `start`, on time."""
        job = Counting()
        with Scene(job.definition) as scene:
            scene.start()
        (run,) = job.runs
        assert (run.ran_at, run.scheduled_for, run.missed_count) == (NOW, NOW, 0)
        assert (run.run_count, run.attempt, run.is_retry) == (1, 1, False)

    def test_the_reply_comes_after_the_run_was_committed(self) -> None:
        """When `start` has answered, the state that the first run left is there."""
        with Scene(Counting().definition) as scene:
            scene.start(value=41)
            assert scene.value() == 42

    def test_status_of_a_started_instance(self) -> None:
        """A started instance is running, has counted its run and knows its next."""
        with Scene(Counting().definition) as scene:
            scene.start()
            status = scene.status()
        assert status.status == "running"
        assert status.run_count == 1
        assert status.next_run_at == after(minutes=30)
        assert status.last_error is None

    def test_instants_are_aware_and_utc(self) -> None:
        """Every instant in a result or a context is an aware UTC datetime."""
        job = Counting()
        with Scene(job.definition) as scene:
            scene.start()
            next_run_at = scene.status().next_run_at
        assert next_run_at.utcoffset() == NO_TIME
        assert job.runs[0].scheduled_for.utcoffset() == NO_TIME

    def test_not_immediately_waits_for_the_first_tick(self) -> None:
        """With `start_immediately=False` nothing runs before the first tick."""
        job = Counting(start_immediately=False)
        with Scene(job.definition) as scene:
            started = scene.start(value=7)
            assert (started.created, started.status) == (True, "running")
            status = scene.status()
            assert (status.run_count, status.next_run_at) == (0, after(minutes=30))
            assert scene.value() == 7
            scene.advance(timedelta(minutes=30) - timedelta(microseconds=1))
            assert job.runs == []
            scene.advance(timedelta(microseconds=1))
        (run,) = job.runs
        assert (run.ran_at, run.scheduled_for, run.run_count) == (after(minutes=30), after(minutes=30), 1)

    def test_not_immediately_on_a_cron_schedule(self) -> None:
        """A cron job that does not start at once first runs on the clock face."""
        job = Counting(schedule=Continuous.cron("15 9 * * *"), start_immediately=False)
        with Scene(job.definition) as scene:
            scene.start()
            assert scene.status().next_run_at == after(hours=9, minutes=15)
            scene.advance("2 days")
        assert job.ran_at == [after(hours=9, minutes=15), after(days=1, hours=9, minutes=15)]

    def test_immediately_on_a_cron_schedule(self) -> None:
        """A cron job that starts at once runs now, and then on the clock face."""
        job = Counting(schedule=Continuous.cron("*/20 * * * *"))
        with Scene(job.definition) as scene:
            scene.advance("5 minutes")
            scene.start()
            scene.advance("40 minutes")
        assert job.ran_at == [after(minutes=5), after(minutes=20), after(minutes=40)]
        assert [run.scheduled_for for run in job.runs] == job.ran_at

    def test_input_may_come_in_encoded_form(self) -> None:
        """A start takes the JSON form of the state as well as the state itself."""
        with Scene(Counting().definition) as scene:
            scene.run(scene.counter.start(id="u1", input={"value": 3}))
            assert scene.run(scene.counter.get_state("u1")).state == Counter(4)

    @pytest.mark.parametrize(
        ("wrong", "path"),
        [
            ({"value": "three"}, "$.value"),
            ({"value": None}, "$.value"),
            ({"value": 1.5}, "$.value"),
            ({"value": True}, "$.value"),
            ({}, "$.value"),
            ([], "$"),
            ("three", "$"),
            (None, "$"),
        ],
    )
    def test_input_that_does_not_fit_is_refused(self, wrong: object, path: str) -> None:
        """An input that the schema refuses is a `ValidationError` with its path, and leaves nothing."""
        job = Counting()
        with Scene(job.definition) as scene:
            with pytest.raises(ValidationError) as refusal:
                scene.run(scene.counter.start(id="u1", input=wrong))
            assert path in str(refusal.value.problems)
            assert scene.status().status == "not_found"
            assert scene.event_types == []
        assert job.runs == []

    def test_a_value_with_a_wrong_field_is_refused(self) -> None:
        """A value of the right class is validated too: its fields may still be wrong."""
        with Scene(Counting().definition) as scene:
            wrong: Any = Counter("three")  # type: ignore[arg-type]
            with pytest.raises(ValidationError, match=r"\$\.value"):
                scene.run(scene.counter.start(id="u1", input=wrong))

    def test_every_problem_is_listed(self) -> None:
        """A refusal names all fields that are wrong, not only the first."""

        @attrs.frozen
        class Token:
            access: str
            expires: int

        job = Continuous.make(
            state_schema=Token, schedule=Continuous.every("1 hour"), execute=lambda ctx: Effect.void
        )
        with Scene(job) as scene, pytest.raises(ValidationError) as refusal:
            scene.run(scene.counter.start(id="u1", input={"access": 1, "expires": "soon"}))
        assert len(refusal.value.problems) == 2
        assert "$.access" in str(refusal.value.problems)
        assert "$.expires" in str(refusal.value.problems)

    def test_the_id_is_free_after_a_refusal(self) -> None:
        """After a refused start the same id can be started as new."""
        with Scene(Counting().definition) as scene:
            with pytest.raises(ValidationError):
                scene.run(scene.counter.start(id="u1", input={}))
            assert scene.start().created is True

    def test_a_second_start_creates_nothing(self) -> None:
        """Starting an id that exists answers so, and moves neither state, nor count, nor alarm."""
        job = Counting()
        with Scene(job.definition) as scene:
            scene.start(value=0)
            scene.advance("10 minutes")
            before = scene.status()
            again = scene.start(value=100)
            assert (again.created, again.instance_id, again.status) == (
                False,
                "continuous:counter:u1",
                "running",
            )
            assert scene.status() == before
            assert scene.value() == 1
        assert len(job.runs) == 1

    def test_a_second_start_is_no_event(self) -> None:
        """Starting an id that exists leaves no trace in the telemetry."""
        with Scene(Counting().definition) as scene:
            scene.start()
            before = scene.events
            scene.start()
            assert scene.events == before

    @pytest.mark.parametrize("nonsense", [None, {}, {"value": "three"}, "text", object()])
    def test_a_second_start_does_not_look_at_its_input(self, nonsense: object) -> None:
        """Whatever the input of a second start is, it is not even validated."""
        with Scene(Counting().definition) as scene:
            scene.start()
            again = scene.run(scene.counter.start(id="u1", input=nonsense))
            assert again.created is False
            assert scene.value() == 1

    def test_nothing_happens_before_the_call_is_run(self) -> None:
        """A call is a value: making it does nothing."""
        with Scene(Counting().definition) as scene:
            scene.counter.start(id="u1", input=Counter(0))
            assert scene.status().status == "not_found"

    def test_a_call_can_be_run_again(self) -> None:
        """The same call value can be run twice, and is two calls."""
        with Scene(Counting().definition) as scene:
            start = scene.counter.start(id="u1", input=Counter(0))
            assert scene.run(start).created is True
            assert scene.run(start).created is False

    def test_a_result_is_frozen(self) -> None:
        """Results are values: nobody changes them."""
        with Scene(Counting().definition) as scene:
            started = scene.start()
        with pytest.raises(AttributeError):
            started.created = False


class TestNames:
    """Ids and job names."""

    @pytest.mark.parametrize("name", ["a:b", ":", "ümläut", "with space", "x/y?z", "n" * 512, "\N{SNOWMAN}"])
    def test_any_text_is_an_id(self, name: str) -> None:
        """An id is any text of up to 512 characters, colons included."""
        with Scene(Counting().definition) as scene:
            started = scene.start(name=name)
            assert started.instance_id == f"continuous:counter:{name}"
            assert scene.status(name).run_count == 1

    @pytest.mark.parametrize("name", ["", "n" * 513])
    def test_no_id_and_a_huge_id_are_refused(self, name: str) -> None:
        """An empty id, or one of more than 512 characters, is refused and nothing runs."""
        job = Counting()
        with Scene(job.definition) as scene, pytest.raises(REFUSED):
            scene.start(name=name)
        assert job.runs == []

    def test_ids_are_apart(self) -> None:
        """Two ids of one job have nothing in common."""
        with Scene(Counting().definition) as scene:
            scene.start(name="u1", value=0)
            scene.start(name="u2", value=10)
            scene.trigger()
            assert scene.value() == 2
            assert scene.run(scene.counter.get_state("u2")).state == Counter(11)

    def test_jobs_are_apart(self) -> None:
        """The same id in two jobs names two instances."""
        jobs = create_durable_jobs({"left": Counting().definition, "right": Counting().definition})
        with JobsTestKit(jobs, now=NOW) as kit:
            kit.run(kit.client.continuous("left").start(id="u1", input=Counter(0)))
            assert kit.run(kit.client.continuous("right").status("u1")).status == "not_found"

    @pytest.mark.parametrize("name", ["", "a:b", ":"])
    def test_a_job_name_is_not_empty_and_has_no_colon(self, name: str) -> None:
        """A registry refuses a job name that could not be told apart in an instance id."""
        with pytest.raises(REFUSED):
            create_durable_jobs({name: Counting().definition})

    def test_an_unknown_job_names_the_known_ones(self) -> None:
        """Asking for a job that is not registered says which ones are."""
        with Scene(Counting().definition) as scene, pytest.raises(JobNotFoundError) as missing:
            scene.run(scene.kit.client.continuous("conter").status("u1"))
        assert (missing.value.kind, missing.value.name) == ("continuous", "conter")
        assert "counter" in missing.value.known
        assert "counter" in str(missing.value)

    def test_a_definition_that_is_not_registered_is_unknown(self) -> None:
        """A definition of another registry is not known to this one, whatever it looks like."""
        with Scene(Counting().definition) as scene, pytest.raises(JobNotFoundError):
            scene.run(scene.kit.client.continuous(Counting().definition).status("u1"))

    def test_a_job_of_another_kind_is_unknown(self) -> None:
        """A continuous job cannot be addressed as a task."""
        with Scene(Counting().definition) as scene, pytest.raises(JobNotFoundError) as missing:
            scene.run(scene.kit.client.task("counter").status("u1"))
        assert (missing.value.kind, missing.value.name) == ("task", "counter")


class TestAbsence:
    """Questions about an instance that is not there."""

    def test_status_of_nothing(self) -> None:
        """An unknown id has the status `not_found`, and nothing else to tell."""
        with Scene(Counting().definition) as scene:
            status = scene.status()
        assert status.status == "not_found"
        assert (status.next_run_at, status.last_error) == (None, None)

    def test_state_of_nothing(self) -> None:
        """An unknown id has no state."""
        with Scene(Counting().definition) as scene:
            assert scene.run(scene.counter.get_state("u1")).state is None

    def test_terminating_nothing(self) -> None:
        """Terminating an unknown id answers that there was none, and is no event."""
        with Scene(Counting().definition) as scene:
            ended = scene.terminate("whatever")
            assert (ended.terminated, ended.reason) == (False, "not_found")
            assert scene.event_types == []

    def test_triggering_nothing(self) -> None:
        """Triggering an unknown id fails with its name and creates nothing."""
        with Scene(Counting().definition) as scene:
            with pytest.raises(InstanceNotFoundError) as missing:
                scene.trigger()
            assert missing.value.instance_id == "continuous:counter:u1"
            assert scene.status().status == "not_found"


class TestTicks:
    """Ticks are anchored to the first run, never to how long runs take."""

    def test_every_tick_at_its_own_time(self) -> None:
        """Runs follow each other at exactly the interval, each on time and counted."""
        job = Counting()
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("90 minutes")
            assert scene.status().run_count == 4
            assert scene.value() == 4
        assert job.ran_at == [after(minutes=30 * tick) for tick in range(4)]
        assert [run.scheduled_for for run in job.runs] == job.ran_at
        assert [run.run_count for run in job.runs] == [1, 2, 3, 4]
        assert {run.missed_count for run in job.runs} == {0}

    def test_small_steps_and_one_big_step_are_the_same(self) -> None:
        """It does not matter in how many steps time goes by."""
        steps, leap = Counting(), Counting()
        with Scene(steps.definition) as scene:
            scene.start()
            for _ in range(20):
                scene.advance("7 minutes")
        with Scene(leap.definition) as scene:
            scene.start()
            scene.advance("140 minutes")
        assert steps.ran_at == leap.ran_at

    def test_no_drift_from_run_time(self) -> None:
        """A run that takes ten minutes does not push the following ticks."""
        job = Counting(takes=[timedelta(minutes=10)] * 3)
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("70 minutes")
        assert job.ran_at == [NOW, after(minutes=30), after(minutes=60)]

    def test_missed_ticks_collapse_into_one_run(self) -> None:
        """A run that outlasts two ticks is followed by one late run for both, then by the next tick."""
        job = Counting(takes=[timedelta(minutes=25)], schedule=Continuous.every("10 minutes"))
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("15 minutes")
        first, late, third, fourth = job.runs
        assert (first.scheduled_for, first.missed_count) == (NOW, 0)
        assert (late.ran_at, late.scheduled_for, late.missed_count) == (
            after(minutes=25),
            after(minutes=10),
            1,
        )
        assert (third.ran_at, third.scheduled_for, third.missed_count) == (
            after(minutes=30),
            after(minutes=30),
            0,
        )
        assert (fourth.ran_at, fourth.missed_count) == (after(minutes=40), 0)
        assert [run.run_count for run in job.runs] == [1, 2, 3, 4]

    def test_one_missed_tick_stands_for_itself_alone(self) -> None:
        """A late run that stands for one tick only has missed none besides it."""
        job = Counting(takes=[timedelta(minutes=13)], schedule=Continuous.every("10 minutes"))
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("7 minutes")
        _, late, third = job.runs
        assert (late.ran_at, late.scheduled_for, late.missed_count) == (
            after(minutes=13),
            after(minutes=10),
            0,
        )
        assert third.ran_at == after(minutes=20)

    def test_never_a_burst(self) -> None:
        """A thousand missed ticks are one run."""
        job = Counting(takes=[timedelta(minutes=1000, seconds=30)], schedule=Continuous.every("1 minute"))
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("1 second")
        assert len(job.runs) == 2
        assert job.runs[1].scheduled_for == after(minutes=1)
        assert job.runs[1].missed_count == 999

    def test_missed_cron_ticks_collapse_too(self) -> None:
        """Cron ticks that a long run covers are one late run as well."""
        job = Counting(takes=[timedelta(hours=2, minutes=30)], schedule=Continuous.cron("0 * * * *"))
        with Scene(job.definition) as scene:
            scene.advance("5 minutes")
            scene.start()
            scene.advance("30 minutes")
        assert [(run.ran_at, run.scheduled_for, run.missed_count) for run in job.runs] == [
            (after(minutes=5), after(minutes=5), 0),
            (after(hours=2, minutes=35), after(hours=1), 1),
            (after(hours=3), after(hours=3), 0),
        ]

    def test_every_missed_cron_tick_is_counted(self) -> None:
        """Ten days without a run of a job that is due each minute are one run that stands for them all."""
        minutes = 10 * 24 * 60
        job = Counting(takes=[timedelta(minutes=minutes, seconds=30)], schedule=Continuous.cron("* * * * *"))
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("1 second")
        assert job.runs[1].scheduled_for == after(minutes=1)
        assert job.runs[1].missed_count == minutes - 1

    @given(
        interval=st.integers(1, 60),
        takes=st.lists(st.integers(0, 300), min_size=1, max_size=6),
    )
    @settings(max_examples=60, deadline=None)
    def test_every_tick_is_stood_for_exactly_once(self, interval: int, takes: list[int]) -> None:
        """However long runs take, each tick belongs to one run, and a run begins when it can."""
        job = Counting(
            takes=[timedelta(minutes=minutes) for minutes in takes],
            schedule=Continuous.every(timedelta(minutes=interval)),
        )
        with Scene(job.definition) as scene:
            scene.start()
            while len(job.runs) < len(takes) + 2:
                scene.advance(timedelta(minutes=interval))
        tick, free_at = 0, 0
        for run, minutes in zip(job.runs, [*takes, 0, 0], strict=False):
            begins = max(tick * interval, free_at)
            missed = begins // interval - tick
            assert run.ran_at == after(minutes=begins)
            assert run.scheduled_for == after(minutes=tick * interval)
            assert run.missed_count == missed
            tick, free_at = tick + missed + 1, begins + minutes

    def test_each_run_has_its_own_key(self) -> None:
        """No two runs share a run key, of one instance or of two."""
        job = Counting()
        with Scene(job.definition) as scene:
            scene.start(name="u1")
            scene.start(name="u2")
            scene.advance("60 minutes")
        assert len({run.run_key for run in job.runs}) == len(job.runs) == 6


class TestTriggering:
    """`trigger` runs an instance now."""

    def test_it_runs_now(self) -> None:
        """A trigger runs inside the call, on time, as a run of its own."""
        job = Counting()
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("10 minutes")
            triggered = scene.trigger()
            assert (triggered.triggered, triggered.terminated) == (True, False)
            assert not triggered.retry_scheduled
            assert scene.value() == 2
        run = job.runs[1]
        assert (run.ran_at, run.scheduled_for) == (after(minutes=10), after(minutes=10))
        assert (run.missed_count, run.run_count, run.attempt) == (0, 2, 1)

    def test_the_anchor_moves(self) -> None:
        """After a trigger the ticks are counted from its time."""
        job = Counting()
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("10 minutes")
            scene.trigger()
            assert scene.status().next_run_at == after(minutes=40)
            scene.advance("60 minutes")
        assert job.ran_at == [NOW, after(minutes=10), after(minutes=40), after(minutes=70)]

    def test_the_anchor_is_the_begin_of_the_triggered_run(self) -> None:
        """A triggered run that takes long does not push the ticks behind it."""
        job = Counting(takes=[NO_TIME, timedelta(minutes=5)])
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("10 minutes")
            scene.trigger()
            assert scene.now == after(minutes=15)
            assert scene.status().next_run_at == after(minutes=40)

    def test_a_failing_trigger_moves_the_anchor_too(self) -> None:
        """Whether the triggered run succeeds makes no difference to the ticks after it."""
        job = Counting(fails={2})
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("10 minutes")
            with pytest.raises(ExecutionError):
                scene.trigger()
            assert scene.status().next_run_at == after(minutes=40)

    def test_cron_stays_on_the_clock_face(self) -> None:
        """After a trigger a cron job goes on with the next time of its expression."""
        job = Counting(schedule=Continuous.cron("0 * * * *"), start_immediately=False)
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("10 minutes")
            scene.trigger()
            assert scene.status().next_run_at == after(hours=1)

    def test_before_the_first_tick(self) -> None:
        """An instance that waits for its first tick can be triggered."""
        job = Counting(start_immediately=False)
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("10 minutes")
            scene.trigger()
            assert scene.status().run_count == 1
        assert job.runs[0].run_count == 1

    def test_a_trigger_that_fails_tells_its_caller(self) -> None:
        """The caller whose own run failed gets an `ExecutionError` that says which job and why."""
        with Scene(Counting(fails={2}).definition) as scene:
            scene.start()
            with pytest.raises(ExecutionError) as failure:
                scene.trigger()
        assert (failure.value.kind, failure.value.job) == ("continuous", "counter")
        assert failure.value.instance_id == "continuous:counter:u1"
        assert "no luck" in str(failure.value.cause)

    def test_a_trigger_that_terminates(self) -> None:
        """A triggered run that ends its instance says so in the answer."""
        with Scene(Counting(ends={2}).definition) as scene:
            scene.start()
            triggered = scene.trigger()
            assert (triggered.triggered, triggered.terminated) == (True, True)
            assert scene.status().status == "not_found"


class TestState:
    """What a handler reads and writes."""

    def scene(self, body: Any, **options: Any) -> Scene:
        options.setdefault("state_schema", Counter)
        return Scene(Continuous.make(schedule=Continuous.every("30 minutes"), execute=body, **options))

    def test_a_read_after_a_write_sees_it(self) -> None:
        """State is live: what the handler has set is what it reads next."""
        seen: list[int] = []

        @Effect.gen
        def body(ctx: ContinuousContext[Counter]) -> Do[None]:
            seen.append((yield from ctx.state).value)
            yield from ctx.set_state(Counter(10))
            seen.append((yield from ctx.state).value)
            yield from ctx.update_state(lambda counter: Counter(counter.value * 2))
            seen.append((yield from ctx.state).value)

        with self.scene(body) as scene:
            scene.start(value=1)
            assert scene.value() == 20
        assert seen == [1, 10, 20]

    def test_a_state_effect_reads_when_it_is_run(self) -> None:
        """`ctx.state` kept from before a write still reads the present."""
        seen: list[int] = []

        @Effect.gen
        def body(ctx: ContinuousContext[Counter]) -> Do[None]:
            state = ctx.state
            yield from ctx.set_state(Counter(10))
            seen.append((yield from state).value)

        with self.scene(body) as scene:
            scene.start()
        assert seen == [10]

    def test_the_last_write_wins(self) -> None:
        """Of several writes in a run the last is what stays."""

        @Effect.gen
        def body(ctx: ContinuousContext[Counter]) -> Do[None]:
            for value in (5, 6, 7):
                yield from ctx.set_state(Counter(value))

        with self.scene(body) as scene:
            scene.start()
            assert scene.value() == 7

    def test_a_handler_need_not_touch_its_state(self) -> None:
        """A run that writes nothing leaves the state as it was."""
        with self.scene(lambda ctx: Effect.void) as scene:
            scene.start(value=3)
            scene.advance("30 minutes")
            assert scene.value() == 3
            assert scene.status().run_count == 2

    def test_a_plain_function_that_returns_an_effect_is_a_handler(self) -> None:
        """A handler need not be a do-block."""
        with self.scene(lambda ctx: ctx.set_state(Counter(ctx.run_count * 100))) as scene:
            scene.start()
            assert scene.value() == 100

    def test_who_am_i(self) -> None:
        """A handler knows its instance, its id and its job."""
        names: list[str] = []

        @Effect.gen
        def body(ctx: ContinuousContext[Counter]) -> Do[None]:
            names.extend([ctx.instance_id, ctx.id, ctx.job_name])
            yield from Effect.void

        with self.scene(body) as scene:
            scene.start()
        assert names == ["continuous:counter:u1", "u1", "counter"]

    def test_state_that_does_not_fit_fails_the_run(self) -> None:
        """A handler that sets a state which its schema refuses has failed; the old state stays."""

        def body(ctx: ContinuousContext[Any]) -> Any:
            return ctx.set_state(Counter("three"))  # type: ignore[arg-type]

        with self.scene(body) as scene:
            with pytest.raises(TypedError):
                scene.start(value=3)
            assert scene.value() == 3
            assert scene.status().last_error is not None

    def test_input_larger_than_the_limit_is_refused(self) -> None:
        """State of more than 1 MiB is refused with a typed error, and nothing is created."""
        with self.scene(lambda ctx: Effect.void, state_schema=str) as scene:
            with pytest.raises(TypedError):
                scene.run(scene.counter.start(id="u1", input="x" * (1024 * 1024 + 1)))
            assert scene.status().status == "not_found"

    def test_a_run_that_grows_its_state_over_the_limit_has_failed(self) -> None:
        """A handler that sets more than 1 MiB has failed: its caller is told, its old state stays."""
        with self.scene(lambda ctx: ctx.set_state("x" * (1024 * 1024 + 1)), state_schema=str) as scene:
            with pytest.raises(TypedError):
                scene.run(scene.counter.start(id="u1", input="small"))
            assert scene.run(scene.counter.get_state("u1")).state == "small"

    @pytest.mark.parametrize(
        ("schema", "value"),
        [
            (int, 3),
            (str, "three"),
            (Schema.integer, 3),
            (Schema.array(Schema.string), ["a", "b"]),
            (Schema.optional(Schema.integer), None),
            (
                Schema.struct({"name": Schema.string, "tags": Schema.array(Schema.string)}),
                {"name": "n", "tags": []},
            ),
            (Schema.datetime, datetime(2026, 2, 3, 4, 5, 6, 789000, tzinfo=UTC)),
            (Schema.of(dict[str, int]), {"a": 1}),
        ],
    )
    def test_any_schema_will_do(self, schema: Any, value: object) -> None:
        """The state may be of any schema, and comes back from storage as it went in."""
        with self.scene(lambda ctx: Effect.void, state_schema=schema) as scene:
            scene.run(scene.counter.start(id="u1", input=value))
            scene.restart()
            assert scene.run(scene.counter.get_state("u1")).state == value

    def test_a_dataclass_is_a_schema(self) -> None:
        """A dataclass serves as a state as an attrs class does."""

        @dataclass(frozen=True)
        class Point:
            x: int
            y: int

        with self.scene(lambda ctx: Effect.void, state_schema=Point) as scene:
            scene.run(scene.counter.start(id="u1", input={"x": 1, "y": 2}))
            assert scene.run(scene.counter.get_state("u1")).state == Point(1, 2)


class TestFailingWithoutRetry:
    """A failed run is reported, and the schedule goes on."""

    @pytest.mark.parametrize("how", ["fails", "raises"])
    def test_the_caller_of_start_is_told(self, how: str) -> None:
        """A start whose own first run fails, typed or raised, fails with `ExecutionError`."""
        with Scene(Counting(**{how: {1}}).definition) as scene, pytest.raises(ExecutionError) as failure:
            scene.start()
        assert (failure.value.kind, failure.value.job) == ("continuous", "counter")
        assert failure.value.instance_id == "continuous:counter:u1"

    def test_the_instance_exists_all_the_same(self) -> None:
        """After a failed first run the instance is there, and a second start says so."""
        job = Counting(fails={1})
        with Scene(job.definition) as scene:
            with pytest.raises(ExecutionError):
                scene.start()
            assert scene.start().created is False
            assert scene.status().status == "running"
        assert len(job.runs) == 1

    def test_the_schedule_goes_on(self) -> None:
        """The tick after a failed run comes when it would have come."""
        job = Counting(fails={1, 3})
        with Scene(job.definition) as scene:
            with pytest.raises(ExecutionError):
                scene.start()
            assert scene.status().next_run_at == after(minutes=30)
            scene.advance("90 minutes")
            assert scene.status().status == "running"
        assert job.ran_at == [after(minutes=30 * tick) for tick in range(4)]

    def test_failed_runs_are_counted(self) -> None:
        """A failed run is a run: the next has the next number."""
        job = Counting(fails={1})
        with Scene(job.definition) as scene:
            with pytest.raises(ExecutionError):
                scene.start()
            assert scene.status().run_count == 1
            scene.advance("30 minutes")
        assert [run.run_count for run in job.runs] == [1, 2]

    @pytest.mark.parametrize("how", ["fails", "raises"])
    def test_state_is_as_before_the_run(self, how: str) -> None:
        """What a failed run had written is dropped."""
        with Scene(Counting(**{how: {1, 2}}).definition) as scene:
            with pytest.raises(ExecutionError):
                scene.start(value=7)
            assert scene.value() == 7
            scene.advance("30 minutes")
            assert scene.value() == 7
            scene.advance("30 minutes")
            assert scene.value() == 8

    @pytest.mark.parametrize(("how", "text"), [("fails", "no luck"), ("raises", "a bug")])
    def test_status_tells_the_last_error(self, how: str, text: str) -> None:
        """After a failed run the status shows what went wrong."""
        with Scene(Counting(**{how: {2}}).definition) as scene:
            scene.start()
            assert scene.status().last_error is None
            scene.advance("30 minutes")
            assert text in str(scene.status().last_error)

    @pytest.mark.parametrize(
        ("how", "type_name", "text"),
        [("fails", "Boom", "no luck"), ("raises", "ZeroDivisionError", "a bug")],
    )
    def test_the_event_tells_the_error(self, how: str, type_name: str, text: str) -> None:
        """`job.failed` carries the type and message of the failure, and that nothing will retry it."""
        with Scene(Counting(**{how: {2}}).definition) as scene:
            scene.start()
            scene.advance("30 minutes")
            failed = scene.events[-1]
        assert failed.type == "job.failed"
        assert failed.error.type.endswith(type_name)
        assert text in failed.error.message
        assert (failed.run_count, failed.attempt, failed.will_retry) == (2, 1, False)

    def test_a_failing_tick_disturbs_nobody(self) -> None:
        """A tick that fails has no caller: time goes on and other instances run."""
        job = Counting(fails={3})
        with Scene(job.definition) as scene:
            scene.start(name="u1")
            scene.start(name="u2")
            scene.advance("60 minutes")
            assert scene.status("u1").run_count == 3
            assert scene.status("u2").run_count == 3


@Effect.gen
def caught(eff: Effect[Any]) -> Do[None]:
    """Runs an effect and shrugs off whatever exception it raises."""
    try:
        yield from eff
    except Exception:
        return


@Effect.gen
def caught_whatever_it_is(eff: Effect[Any]) -> Do[None]:
    """Runs an effect and shrugs off even what should never be caught."""
    try:
        yield from eff
    except BaseException:
        return


class TestTerminating:
    """An end, from outside or from inside."""

    def test_the_answer(self) -> None:
        """Terminating an instance answers that it was, and why."""
        with Scene(Counting().definition) as scene:
            scene.start()
            ended = scene.terminate("User requested")
        assert (ended.terminated, ended.reason) == (True, "User requested")

    def test_nothing_is_left(self) -> None:
        """After its end an instance has neither status, nor state, nor alarm."""
        job = Counting()
        with Scene(job.definition) as scene:
            scene.start()
            scene.terminate()
            assert scene.status().status == "not_found"
            assert scene.run(scene.counter.get_state("u1")).state is None
            scene.advance("1 day")
        assert len(job.runs) == 1

    def test_the_event(self) -> None:
        """`job.terminated` carries the reason and how often the instance had run."""
        with Scene(Counting().definition) as scene:
            scene.start()
            scene.advance("30 minutes")
            scene.terminate("User requested")
            ended = scene.events[-1]
        assert ended.type == "job.terminated"
        assert (ended.reason, ended.run_count) == ("User requested", 2)
        assert ended.timestamp == after(minutes=30)

    def test_without_a_reason(self) -> None:
        """No reason given is no reason told."""
        with Scene(Counting().definition) as scene:
            scene.start()
            ended = scene.terminate()
            assert (ended.terminated, ended.reason) == (True, None)
            assert scene.events[-1].reason is None

    def test_twice(self) -> None:
        """What was terminated cannot be terminated again."""
        with Scene(Counting().definition) as scene:
            scene.start()
            scene.terminate()
            ended = scene.terminate()
            assert (ended.terminated, ended.reason) == (False, "not_found")
            assert scene.event_types.count("job.terminated") == 1

    def test_the_id_is_free_again(self) -> None:
        """An id whose instance has ended starts from nothing."""
        job = Counting()
        with Scene(job.definition) as scene:
            scene.start(value=5)
            scene.advance("40 minutes")
            scene.terminate()
            assert scene.start(value=0).created is True
            assert scene.value() == 1
            assert scene.status().run_count == 1
            assert scene.status().next_run_at == after(minutes=70)
        assert job.runs[-1].run_count == 1

    def test_from_the_handler(self) -> None:
        """A handler that terminates ends its instance at once: record, state and alarm."""
        job = Counting(ends={2})
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("1 day")
            assert scene.status().status == "not_found"
            assert scene.events[-1].type == "job.terminated"
            assert scene.events[-1].reason == "had enough"
            assert scene.events[-1].run_count == 2
            assert "job.failed" not in scene.event_types
        assert len(job.runs) == 2

    def test_a_first_run_that_terminates(self) -> None:
        """A start whose first run ends the instance answers `terminated`, and leaves the id free."""
        with Scene(Counting(ends={1}).definition) as scene:
            assert scene.start().status == "terminated"
            assert scene.status().status == "not_found"
            again = scene.start()
            assert (again.created, again.status) == (True, "running")

    def test_nothing_of_the_handler_runs_after_it(self) -> None:
        """What stands behind `terminate` in a handler is not reached; its finalizers are."""
        reached: list[str] = []

        @Effect.gen
        def body(ctx: ContinuousContext[Counter]) -> Do[None]:
            try:
                yield from ctx.terminate()
                reached.append("behind")
            finally:
                reached.append("finally")

        job = Continuous.make(state_schema=Counter, schedule=Continuous.every("1 hour"), execute=body)
        with Scene(job) as scene:
            assert scene.start().status == "terminated"
        assert reached == ["finally"]

    @pytest.mark.parametrize(
        "swallow",
        [
            pytest.param(lambda eff: eff.catch_all(lambda error: Effect.void), id="catch_all"),
            pytest.param(lambda eff: eff.exit(), id="exit"),
            pytest.param(lambda eff: eff.result(), id="result"),
            pytest.param(lambda eff: eff.option(), id="option"),
            pytest.param(lambda eff: eff.timeout("1 minute"), id="timeout"),
            pytest.param(lambda eff: Effect.all([eff, Effect.void], concurrency=2), id="beside another"),
            pytest.param(lambda eff: eff.zip(Effect.void), id="zip"),
            pytest.param(caught, id="except"),
            pytest.param(caught_whatever_it_is, id="except BaseException"),
        ],
    )
    def test_it_cannot_be_caught(self, swallow: Any) -> None:
        """No error handling of the user stops a termination."""

        @Effect.gen
        def body(ctx: ContinuousContext[Counter]) -> Do[None]:
            yield from swallow(ctx.terminate("for good"))
            yield from ctx.set_state(Counter(100))

        job = Continuous.make(state_schema=Counter, schedule=Continuous.every("1 hour"), execute=body)
        with Scene(job) as scene:
            assert scene.start().status == "terminated"
            assert scene.status().status == "not_found"
            assert scene.events[-1].reason == "for good"


class TestEvents:
    """What a continuous job tells the outside."""

    def test_a_start_and_its_run(self) -> None:
        """A start is `job.started`, then `job.executed` of its first run."""
        with Scene(Counting().definition) as scene:
            scene.start()
            assert scene.event_types == ["job.started", "job.executed"]

    def test_a_start_that_does_not_run(self) -> None:
        """A start that waits for its tick is `job.started` alone."""
        with Scene(Counting(start_immediately=False).definition) as scene:
            scene.start()
            assert scene.event_types == ["job.started"]

    def test_a_start_whose_run_fails(self) -> None:
        """The events of a failing call are told like any other."""
        with Scene(Counting(fails={1}).definition) as scene:
            with pytest.raises(ExecutionError):
                scene.start()
            assert scene.event_types == ["job.started", "job.failed"]

    def test_every_event_says_whose_it_is(self) -> None:
        """Each event carries the instance, the kind, the job and the id."""
        with Scene(Counting(fails={2}).definition) as scene:
            scene.start()
            scene.advance("30 minutes")
            scene.terminate()
            events = scene.events
        assert len(events) == 4
        for event in events:
            assert event.instance_id == "continuous:counter:u1"
            assert (event.kind, event.job, event.id) == ("continuous", "counter", "u1")

    def test_every_event_has_its_own_id_and_time(self) -> None:
        """Event ids are UUIDs of version 7, all different; timestamps are the step's own."""
        with Scene(Counting().definition) as scene:
            scene.start()
            scene.advance("60 minutes")
            events = scene.events
        assert len({event.event_id for event in events}) == len(events)
        assert {UUID(str(event.event_id)).version for event in events} == {7}
        assert [event.timestamp for event in events] == [NOW, NOW, after(minutes=30), after(minutes=60)]

    def test_job_executed(self) -> None:
        """`job.executed` tells the run, the attempt and how long it took."""
        with Scene(Counting(takes=[timedelta(seconds=2.5)]).definition) as scene:
            scene.start()
            executed = scene.events[-1]
        assert executed.type == "job.executed"
        assert (executed.run_count, executed.attempt, executed.duration_ms) == (1, 1, 2500)

    def test_state_and_input_are_kept_back(self) -> None:
        """Without `include_state` no event shows what the state holds."""
        with Scene(Counting().definition) as scene:
            scene.start()
            started, executed = scene.events
        assert started.input is None
        assert executed.pre_execution_state is None

    def test_reading_is_no_event(self) -> None:
        """Questions leave no trace."""
        with Scene(Counting().definition) as scene:
            scene.start()
            before = scene.events
            scene.status()
            scene.value()
            assert scene.events == before


class TestOrder:
    """One step at a time per instance; different instances side by side."""

    def test_triggers_of_one_instance_wait_for_each_other(self) -> None:
        """Three triggers at once run one after the other and lose no update."""
        job = Counting(takes=[NO_TIME, *[timedelta(minutes=1)] * 3])
        with Scene(job.definition) as scene:
            scene.start()
            trigger = scene.counter.trigger("u1")
            scene.run(Effect.all([trigger, trigger, trigger], concurrency="unbounded"))
            assert scene.value() == 4
            assert scene.status().run_count == 4
        assert job.ran_at[1:] == [NOW, after(minutes=1), after(minutes=2)]
        assert [run.run_count for run in job.runs] == [1, 2, 3, 4]

    def test_instances_run_side_by_side(self) -> None:
        """Two instances whose runs take a minute are done after one minute, not two."""
        job = Counting(takes=[timedelta(minutes=1)] * 2)
        with Scene(job.definition) as scene:
            starts = [scene.counter.start(id=name, input=Counter(0)) for name in ("u1", "u2")]
            scene.run(Effect.all(starts, concurrency="unbounded"))
            assert scene.now == after(minutes=1)
        assert job.ran_at == [NOW, NOW]

    def test_two_starts_at_once_create_once(self) -> None:
        """Of two simultaneous starts of one id exactly one creates."""
        job = Counting(takes=[timedelta(minutes=1)])
        with Scene(job.definition) as scene:
            start = scene.counter.start(id="u1", input=Counter(0))
            both = scene.run(Effect.all([start, start], concurrency="unbounded"))
        assert sorted(started.created for started in both) == [False, True]
        assert len(job.runs) == 1

    def test_reads_never_wait(self) -> None:
        """While a handler runs, questions are answered at once from the last commit."""
        job = Counting(takes=[NO_TIME, timedelta(minutes=10)])

        @Effect.gen
        def ask(scene: Scene) -> Do[tuple[datetime, int, int]]:
            running = yield from Effect.fork(scene.counter.trigger("u1"))
            yield from Effect.sleep("1 minute")
            status = yield from scene.counter.status("u1")
            state = yield from scene.counter.get_state("u1")
            asked_at = yield from Clock.now()
            yield from running.join()
            return asked_at, status.run_count, state.state.value

        with Scene(job.definition) as scene:
            scene.start()
            assert scene.run(ask(scene)) == (after(minutes=1), 1, 1)
            assert scene.value() == 2

    @pytest.mark.parametrize("operation", ["trigger", "terminate"])
    def test_a_handler_cannot_command_itself(self, operation: str) -> None:
        """A handler that calls its own instance is told so instead of waiting for itself."""
        refused: list[InvalidStateError] = []

        @Effect.gen
        def body(ctx: ContinuousContext[Counter]) -> Do[None]:
            try:
                yield from getattr(scene.counter, operation)(ctx.id)
            except InvalidStateError as error:
                refused.append(error)

        job = Continuous.make(state_schema=Counter, schedule=Continuous.every("1 hour"), execute=body)
        with Scene(job) as scene:
            scene.start()
            assert scene.status().run_count == 1
        (error,) = refused
        assert operation in error.operation
        assert error.expected != error.actual

    def test_a_handler_may_read_itself(self) -> None:
        """A handler that asks about its own instance sees the last commit."""
        seen: list[tuple[int, int]] = []

        @Effect.gen
        def body(ctx: ContinuousContext[Counter]) -> Do[None]:
            yield from ctx.set_state(Counter(100 * ctx.run_count))
            status = yield from scene.counter.status(ctx.id)
            state = yield from scene.counter.get_state(ctx.id)
            seen.append((status.run_count, state.state.value))

        job = Continuous.make(state_schema=Counter, schedule=Continuous.every("1 hour"), execute=body)
        with Scene(job) as scene:
            scene.start(value=7)
            scene.advance("1 hour")
        assert seen == [(0, 7), (1, 100)]

    def test_a_handler_may_command_another(self) -> None:
        """A handler may start and trigger other instances of its own job."""

        @Effect.gen
        def body(ctx: ContinuousContext[Counter]) -> Do[None]:
            if ctx.id == "u1":
                yield from scene.counter.start(id="child", input=Counter(50)).or_die()

        job = Continuous.make(state_schema=Counter, schedule=Continuous.every("1 hour"), execute=body)
        with Scene(job) as scene:
            scene.start()
            assert scene.status("child").run_count == 1


class TestRestart:
    """What a crash leaves."""

    def test_everything_is_still_there(self) -> None:
        """State, count and next run survive; a second start still finds the instance."""
        with Scene(Counting().definition) as scene:
            scene.start(value=5)
            before = scene.status()
            scene.restart()
            assert scene.status() == before
            assert scene.value() == 6
            assert scene.start().created is False

    def test_the_next_tick_comes(self) -> None:
        """The alarm survives, and the run after it has the next number."""
        job = Counting()
        with Scene(job.definition) as scene:
            scene.start()
            scene.advance("20 minutes")
            scene.restart()
            scene.advance("10 minutes")
            assert scene.value() == 2
        assert job.ran_at == [NOW, after(minutes=30)]
        assert job.runs[1].run_count == 2

    def test_between_every_two_ticks(self) -> None:
        """A process that dies all the time runs the same ticks as one that never does."""
        job = Counting()
        with Scene(job.definition) as scene:
            scene.restart()
            scene.start()
            for _ in range(12):
                scene.restart()
                scene.advance("10 minutes")
            scene.restart()
            assert scene.value() == 5
        assert job.ran_at == [after(minutes=30 * tick) for tick in range(5)]
        assert {run.missed_count for run in job.runs} == {0}

    def test_before_the_first_tick(self) -> None:
        """An instance that has not run yet survives as well."""
        job = Counting(start_immediately=False)
        with Scene(job.definition) as scene:
            scene.start()
            scene.restart()
            scene.advance("30 minutes")
        assert [run.run_count for run in job.runs] == [1]

    def test_with_an_overdue_tick(self) -> None:
        """Ticks that a long run delayed are still one late run after a restart."""
        job = Counting(takes=[timedelta(minutes=25)], schedule=Continuous.every("10 minutes"))
        with Scene(job.definition) as scene:
            scene.start()
            scene.restart()
            scene.advance("1 minute")
        assert job.runs[1].scheduled_for == after(minutes=10)
        assert job.runs[1].missed_count == 1

    def test_what_was_terminated_stays_so(self) -> None:
        """A restart brings nothing back."""
        job = Counting()
        with Scene(job.definition) as scene:
            scene.start()
            scene.terminate()
            scene.restart()
            assert scene.status().status == "not_found"
            scene.advance("1 day")
        assert len(job.runs) == 1

    def test_after_a_failure(self) -> None:
        """The last error survives a restart, and so does the schedule."""
        job = Counting(fails={1})
        with Scene(job.definition) as scene:
            with pytest.raises(ExecutionError):
                scene.start()
            scene.restart()
            assert "no luck" in str(scene.status().last_error)
            scene.advance("30 minutes")
        assert len(job.runs) == 2


commands = st.one_of(
    st.integers(1, 90).map(lambda minutes: ("advance", minutes)),
    st.sampled_from([("start", 0), ("trigger", 0), ("terminate", 0), ("restart", 0)]),
)


class Ledger:
    """The simplest model of one instance: is it there, how often has it run, when does it run next."""

    def __init__(self) -> None:
        self.now = 0
        self.runs: int | None = None
        self.next = 0

    def run(self) -> None:
        self.runs = (self.runs or 0) + 1
        self.next = self.now + 30

    def advance(self, minutes: int) -> None:
        target = self.now + minutes
        while self.runs is not None and self.next <= target:
            self.now = self.next
            self.run()
        self.now = target


@given(st.lists(commands, max_size=25))
@settings(max_examples=60, deadline=None)
def test_no_history_loses_or_invents_a_run(history: list[tuple[str, int]]) -> None:
    """Whatever is done in whatever order, an instance runs exactly as the simplest model says."""
    ledger = Ledger()
    with Scene(Counting().definition) as scene:
        for command, minutes in history:
            exists = ledger.runs is not None
            match command:
                case "advance":
                    scene.advance(timedelta(minutes=minutes))
                    ledger.advance(minutes)
                case "restart":
                    scene.restart()
                case "start":
                    assert scene.start().created is not exists
                    if not exists:
                        ledger.run()
                case "trigger" if exists:
                    assert scene.trigger().triggered is True
                    ledger.run()
                case "terminate":
                    assert scene.terminate().terminated is exists
                    ledger.runs = None
            assert scene.now == after(minutes=ledger.now)
            status = scene.status()
            if ledger.runs is None:
                assert status.status == "not_found"
            else:
                assert status.run_count == ledger.runs
                assert status.next_run_at == after(minutes=ledger.next)
                assert scene.value() == ledger.runs


class TestSchedules:
    """Schedules are values that know when they are next due."""

    def test_every(self) -> None:
        """An interval is next due one interval later."""
        assert Continuous.every("30 minutes").next_after(NOW) == after(minutes=30)
        assert Continuous.every(timedelta(days=2)).next_after(NOW) == after(days=2)

    @pytest.mark.parametrize(
        ("text", "span"),
        [
            ("500 ms", timedelta(milliseconds=500)),
            ("5s", timedelta(seconds=5)),
            ("5 sec", timedelta(seconds=5)),
            ("1 second", timedelta(seconds=1)),
            ("2 seconds", timedelta(seconds=2)),
            ("10m", timedelta(minutes=10)),
            ("10 min", timedelta(minutes=10)),
            ("1 minute", timedelta(minutes=1)),
            ("3h", timedelta(hours=3)),
            ("3 hr", timedelta(hours=3)),
            ("1.5 hours", timedelta(minutes=90)),
            ("1 d", timedelta(days=1)),
            ("7 days", timedelta(days=7)),
            ("2 w", timedelta(weeks=2)),
            ("1 week", timedelta(weeks=1)),
        ],
    )
    def test_an_interval_may_be_written(self, text: str, span: timedelta) -> None:
        """An interval is a span, or the text of one."""
        assert Continuous.every(text).next_after(NOW) == NOW + span

    def test_a_schedule_is_pure(self) -> None:
        """Asking a schedule twice gives the same answer twice."""
        schedule = Continuous.cron("*/5 * * * *")
        assert schedule.next_after(NOW) == schedule.next_after(NOW) == after(minutes=5)

    @pytest.mark.parametrize(
        ("expression", "expected"),
        [
            ("* * * * *", after(minutes=1)),
            ("*/5 * * * *", after(minutes=5)),
            ("0 0 * * *", after(days=1)),
            ("0 9 * * MON", datetime(2026, 1, 5, 9, tzinfo=UTC)),
            ("0 9 * * mon-fri", datetime(2026, 1, 1, 9, tzinfo=UTC)),
            ("0 0 1 FEB *", datetime(2026, 2, 1, tzinfo=UTC)),
            ("30 0 0 * * *", after(seconds=30)),
            ("*/10 * * * * *", after(seconds=10)),
            ("0 0 29 2 *", datetime(2028, 2, 29, tzinfo=UTC)),
            ("0 0 13 * FRI", datetime(2026, 1, 2, tzinfo=UTC)),
        ],
    )
    def test_cron(self, expression: str, expected: datetime) -> None:
        """A cron expression has five fields, or six with seconds first, and is strictly in the future."""
        answer = Continuous.cron(expression).next_after(NOW)
        assert answer == expected
        assert answer.utcoffset() == NO_TIME

    def test_cron_in_a_zone(self) -> None:
        """A zone's clock decides, and the answer is in UTC."""
        answer = Continuous.cron("0 9 * * *", tz="Europe/Berlin").next_after(NOW)
        assert answer == datetime(2026, 1, 1, 8, tzinfo=UTC)
        assert answer.utcoffset() == NO_TIME

    def test_the_question_may_come_from_any_zone(self) -> None:
        """An instant is an instant, whatever zone it is written in."""
        berlin = NOW.astimezone(ZoneInfo("Europe/Berlin"))
        for schedule in (Continuous.cron("*/5 * * * *"), Continuous.every("5 minutes")):
            assert schedule.next_after(berlin) == after(minutes=5)

    def test_a_time_skipped_in_spring_fires_once_after_the_gap(self) -> None:
        """02:30 does not exist in Berlin on 29 March 2026: it fires at 03:30 local, once."""
        schedule = Continuous.cron("30 2 * * *", tz="Europe/Berlin")
        first = schedule.next_after(datetime(2026, 3, 28, 12, tzinfo=UTC))
        assert first == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
        assert schedule.next_after(first) == datetime(2026, 3, 30, 0, 30, tzinfo=UTC)

    def test_a_time_repeated_in_autumn_fires_once(self) -> None:
        """02:30 comes twice in Berlin on 25 October 2026: it fires the first time only."""
        schedule = Continuous.cron("30 2 * * *", tz="Europe/Berlin")
        first = schedule.next_after(datetime(2026, 10, 24, 12, tzinfo=UTC))
        assert first == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
        assert schedule.next_after(first) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)

    def test_a_cron_job_runs_through_a_clock_change(self) -> None:
        """A job at 02:30 Berlin time runs once each day, also over the night of the change."""
        job = Counting(schedule=Continuous.cron("30 2 * * *", tz="Europe/Berlin"), start_immediately=False)
        jobs = create_durable_jobs({"counter": job.definition})
        with JobsTestKit(jobs, now=datetime(2026, 3, 27, 12, tzinfo=UTC)) as kit:
            kit.run(kit.client.continuous("counter").start(id="u1", input=Counter(0)))
            kit.advance("3 days")
        assert job.ran_at == [
            datetime(2026, 3, 28, 1, 30, tzinfo=UTC),
            datetime(2026, 3, 29, 1, 30, tzinfo=UTC),
            datetime(2026, 3, 30, 0, 30, tzinfo=UTC),
        ]

    @given(
        st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
        st.timedeltas(timedelta(microseconds=1), timedelta(days=400)),
    )
    def test_every_is_exactly_one_interval_later(self, moment: datetime, span: timedelta) -> None:
        """`every` adds its interval, whatever both are."""
        assert Continuous.every(span).next_after(moment) == moment + span


class TestDefinitions:
    """A definition that cannot be is refused when it is made."""

    @pytest.mark.parametrize(
        "interval",
        [
            "0 seconds",
            "-5 seconds",
            "soon",
            "",
            "5",
            "5 fortnights",
            "nan seconds",
            "inf seconds",
            timedelta(0),
            timedelta(seconds=-1),
        ],
    )
    def test_an_interval_is_a_positive_span(self, interval: Any) -> None:
        """An interval that is not a positive, finite span is refused."""
        with pytest.raises(REFUSED):
            Continuous.every(interval)

    def test_a_bad_interval_shows_the_grammar(self) -> None:
        """The refusal of an unreadable span says how one is written."""
        with pytest.raises(ValueError, match="minute"):
            Continuous.every("half an eternity")

    @pytest.mark.parametrize(
        "expression",
        [
            "",
            "nonsense",
            "* * * *",
            "* * * * * * *",
            "61 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * 32 * *",
            "* * * 13 *",
            "*/100 * * * *",
            "*/0 * * * *",
            "0 0 30 2 *",
            "0 0 31 4 *",
            "60 * * * * *",
            "* * * * FOO",
        ],
    )
    def test_a_cron_expression_must_be_one_that_matches(self, expression: str) -> None:
        """A cron expression that is wrong, or never matches, is refused."""
        with pytest.raises(REFUSED):
            Continuous.cron(expression)

    @pytest.mark.parametrize("zone", ["Europe/Atlantis", "", "Mars"])
    def test_a_zone_must_exist(self, zone: str) -> None:
        """An unknown zone is refused."""
        with pytest.raises(REFUSED):
            Continuous.cron("0 9 * * *", tz=zone)

    def test_a_registry_holds_definitions(self) -> None:
        """A registry refuses what is not a definition."""
        wrong: Any = {"counter": object()}
        with pytest.raises(REFUSED):
            create_durable_jobs(wrong)

    def test_a_handler_must_be_callable(self) -> None:
        """A handler that nobody can call is refused."""
        wrong: Any = "not a function"
        with pytest.raises(REFUSED):
            Continuous.make(state_schema=Counter, schedule=Continuous.every("1 hour"), execute=wrong)

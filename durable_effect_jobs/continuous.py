"""Continuous jobs: recurring work on a schedule.

    (none) --start--> running --tick, trigger--> running
                         | attempt failed, retry waits --> running (retry)
                         | retries exhausted, on_exhausted="stop" --> stopped --trigger--> running
                         | terminate, ctx.terminate, retries exhausted --> (none)

Ticks are anchored: the next one counts from the nominal time of the last, not from when it ran. Ticks
that passed unseen collapse into one run, which is told how many it stands for.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Generic, Literal, Protocol, cast

import attrs
from typing_extensions import Never, TypeVar

from durable_effect import Clock, Do, Effect, Random, Schema
from durable_effect.cron import Cron
from durable_effect.duration import Span, to_timedelta
from durable_effect_jobs.attempt import Draft, Failed, Finished, Terminated, attempt
from durable_effect_jobs.errors import InstanceNotFoundError, Kind, SchedulerError, ValidationError
from durable_effect_jobs.events import Failure, JobExecuted, JobStarted, JobTerminated
from durable_effect_jobs.failure import SETTLED, after_failure
from durable_effect_jobs.instance import Alarm, Instance, idempotency_key
from durable_effect_jobs.retry import A_RETRY, Retry
from durable_effect_jobs.step import (
    Codec,
    Command,
    Fired,
    Job,
    JobLogging,
    Program,
    Step,
    StepError,
    Turn,
    check_handler,
    check_option,
    checked,
    logging_level,
    park,
)

__all__ = [
    "Continuous",
    "ContinuousContext",
    "ContinuousJob",
    "ContinuousState",
    "ContinuousStatus",
    "CronSchedule",
    "Every",
    "Schedule",
    "StartResult",
    "TriggerResult",
]

S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)
E_co = TypeVar("E_co", covariant=True, default=Any)
R_co = TypeVar("R_co", covariant=True, default=Any)
E1 = TypeVar("E1")
R1 = TypeVar("R1")

_LONGEST_INTERVAL = timedelta(days=36_525)
_MOST_WALKED = 100_000
"""A run that stands for more ticks of a schedule of the user's own than this is told this many."""


# -- schedules -----------------------------------------------------------------------------------


class Schedule(Protocol):
    """When a continuous job runs. Anything with a pure ``next_after`` will do."""

    def next_after(self, after: datetime) -> datetime:
        """The first tick after ``after``: an aware datetime, strictly later."""
        ...


@attrs.frozen
class Every:
    """A fixed interval, counted from the tick before."""

    interval: timedelta

    def next_after(self, after: datetime) -> datetime:
        """One interval later."""
        return _aware(after) + self.interval


@attrs.frozen
class CronSchedule:
    """The times that a cron expression matches in a time zone."""

    cron: Cron

    def next_after(self, after: datetime) -> datetime:
        """The first match after ``after``, in UTC."""
        return self.cron.next_after(_aware(after))


def _aware(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise ValueError("a schedule needs an aware datetime, such as datetime(2026, 1, 1, tzinfo=UTC)")
    return instant.astimezone(UTC)


def _next_tick(schedule: Schedule, after: datetime) -> datetime:
    try:
        tick = schedule.next_after(after)
        if tick.tzinfo is None or tick <= after:
            raise ValueError(f"next_after({after}) answered {tick}, which is not later")
        return tick.astimezone(UTC)
    except Exception as error:
        raise SchedulerError("work out the next tick", error) from error


def _catch_up(schedule: Schedule, tick: datetime, now: datetime) -> tuple[int, datetime]:
    """How many ticks after ``tick`` have passed at ``now``, and the first that has not."""
    if isinstance(schedule, Every):
        missed = max(0, (now - tick) // schedule.interval)
        return missed, _next_tick(schedule, tick + missed * schedule.interval)
    if isinstance(schedule, CronSchedule):
        try:
            return schedule.cron.catch_up(tick, now)
        except OverflowError as error:
            raise SchedulerError("work out the next tick", error) from error
    missed, coming = 0, _next_tick(schedule, tick)
    while coming <= now:
        missed += 1
        if missed == _MOST_WALKED:
            return missed, _next_tick(schedule, now)
        coming = _next_tick(schedule, coming)
    return missed, coming


# -- what the handler sees -------------------------------------------------------------------------


class ContinuousContext(Generic[S]):
    """What ``execute`` sees of its instance."""

    __slots__ = (
        "_draft",
        "attempt",
        "fence",
        "id",
        "instance_id",
        "job_name",
        "missed_count",
        "run_count",
        "run_key",
        "scheduled_for",
    )

    def __init__(self, draft: Draft[S], before: Instance, run: _Run) -> None:
        self._draft = draft
        self.id: str = before.key.id
        self.instance_id: str = before.key.instance_id
        self.job_name: str = before.key.job
        self.run_count: int = run.number
        """Which run this is, from 1; attempts of the same run share it."""
        self.attempt: int = run.attempt
        """Which attempt of this run, from 1."""
        self.scheduled_for: datetime = run.tick
        """The tick that this run stands for: the earliest, when several were missed."""
        self.missed_count: int = run.missed
        """How many further ticks this run stands for; 0 when it is on time."""
        self.run_key: str = f"{before.incarnation}:{run.number}"
        """The same for every attempt of this run: the idempotency key to hand to other services."""
        self.fence: int = before.fence
        """Greater than that of every run before, for others to refuse one that has been overtaken."""

    @property
    def is_retry(self) -> bool:
        """Whether an earlier attempt of this run failed."""
        return self.attempt > 1

    def idempotency_key(self, step: str) -> str:
        """A key for one of several requests of this run, the same on every attempt and after a crash."""
        return idempotency_key(self.run_key, step)

    @property
    def state(self) -> Effect[S]:
        """The current state, this handler's own changes included."""
        return self._draft.read()

    def set_state(self, state: S, /) -> Effect[None]:
        """Replace the state. It is written when the handler ends well."""
        return self._draft.set(state)

    def update_state(self, change: Callable[[S], S], /) -> Effect[None]:
        """Replace the state by what ``change`` makes of it."""
        return self._draft.update(change)

    def terminate(self, reason: str | None = None) -> Effect[Never]:
        """End the instance: state and alarm are deleted, the id is free again. Nothing can catch this."""
        return self._draft.terminate(reason)


# -- results -----------------------------------------------------------------------------------------


@attrs.frozen
class StartResult:
    """``created`` is ``False`` when there was such an instance already: then nothing was changed."""

    created: bool
    instance_id: str
    status: Literal["running", "stopped", "terminated"]


@attrs.frozen
class TriggerResult:
    """What became of the run."""

    triggered: bool
    terminated: bool
    retry_scheduled: bool


@attrs.frozen
class ContinuousStatus:
    """Where an instance stands, as of its last commit."""

    status: Literal["running", "stopped", "not_found"]
    run_count: int | None = None
    next_run_at: datetime | None = None
    last_error: Failure | None = None


@attrs.frozen
class ContinuousState(Generic[S_co]):
    """The state as of the last commit; ``None`` when there is no such instance."""

    state: S_co | None


# -- the definition -------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class _Run:
    number: int
    attempt: int
    tick: datetime
    missed: int
    next_tick: datetime


@attrs.frozen(kw_only=True, eq=False)
class ContinuousJob(Job[E_co, R_co], Generic[S_co, E_co, R_co]):
    """A definition made by :meth:`Continuous.make`. Its ``schedule`` can be asked for ticks."""

    kind: ClassVar[Kind] = "continuous"

    state_schema: Schema[S_co]
    schedule: Schedule
    execute: Callable[[ContinuousContext[S_co]], Any]
    start_immediately: bool
    retry: Retry | None
    log_level: int

    @property
    def codec(self) -> Codec[S_co]:
        """How states are stored."""
        return Codec(self.state_schema)

    def handlers(self) -> tuple[Callable[..., Any], ...]:
        """The user's functions."""
        return (self.execute,)

    def status(self, before: Instance | None) -> ContinuousStatus:
        """What ``status`` answers."""
        if before is None:
            return ContinuousStatus("not_found")
        alarm = before.alarm
        return ContinuousStatus(
            "stopped" if before.halted else "running",
            before.run_count,
            None if alarm is None else alarm.at,
            before.last_error,
        )

    def read(
        self, before: Instance | None
    ) -> Effect[ContinuousState[S_co], ValidationError | SchedulerError]:
        """What ``get_state`` answers."""
        if before is None:
            return Effect.succeed(ContinuousState(None))
        return checked(lambda: ContinuousState(self.codec.decode(before.state)))

    def fire(self, before: Instance, turn: Turn) -> Effect[Step, Never, Any]:
        """Run ``execute`` once and decide what follows."""
        return self._fire(before, turn)

    @Effect.gen
    def _fire(self, before: Instance, turn: Turn) -> Do[Step, Never, Any]:
        try:
            run = self._run(before, turn.now)
            state = self.codec.decode(before.state)
        except (ValidationError, SchedulerError) as error:
            return park(before, turn, error)
        draft = Draft(self.codec, turn.limits, state, before.state)
        context = ContinuousContext(draft, before, run)
        ended = yield from attempt(
            lambda: self.execute(context),
            draft,
            before.key,
            self.log_level,
            run_count=run.number,
            attempt=run.attempt,
        )
        now = yield from Clock.now()
        match ended:
            case Finished():
                return self._executed(before, turn, run, draft, now)
            case Terminated(reason):
                fact = turn.fact(JobTerminated, run_count=run.number, reason=reason)
                return Step(before=before, after=None, events=(fact,), fired=Fired(result="terminated"))
            case Failed():
                roll = yield from Random.uniform(-1.0, 1.0)
                return self._failed(before, turn, run, ended, now, roll)

    def _run(self, before: Instance, now: datetime) -> _Run:
        if before.failed_attempts:
            return _Run(
                number=before.run_count,
                attempt=before.failed_attempts + 1,
                tick=cast("datetime", before.scheduled_for),
                missed=before.missed_count,
                next_tick=cast("datetime", before.next_tick),
            )
        tick = cast("datetime", before.scheduled_for)
        missed, coming = _catch_up(self.schedule, tick, now)
        return _Run(number=before.run_count + 1, attempt=1, tick=tick, missed=missed, next_tick=coming)

    def _executed(self, before: Instance, turn: Turn, run: _Run, draft: Draft[S_co], now: datetime) -> Step:
        fact = turn.fact(
            JobExecuted,
            run_count=run.number,
            duration_ms=(now - turn.now) / timedelta(milliseconds=1),
            attempt=run.attempt,
            pre_execution_state=turn.shown(before.state),
        )
        after = before.evolve(**_until_next(run), state=draft.encoded, last_error=None)
        return Step(before=before, after=after, events=(fact,), fired=Fired(result="done"))

    def _failed(
        self, before: Instance, turn: Turn, run: _Run, failed: Failed, now: datetime, roll: float
    ) -> Step:
        return after_failure(
            before,
            turn,
            failed,
            retry=self.retry,
            number=run.number,
            attempt=run.attempt,
            now=now,
            roll=roll,
            counted={
                "run_count": run.number,
                "scheduled_for": run.tick,
                "missed_count": run.missed,
                "next_tick": run.next_tick,
            },
            resting=_until_next(run),
        )


def _until_next(run: _Run) -> dict[str, Any]:
    """What the record looks like between this run and the tick after it."""
    return {
        **SETTLED,
        "alarm": Alarm(run.next_tick, "schedule"),
        "run_count": run.number,
        "scheduled_for": run.next_tick,
        "missed_count": 0,
        "next_tick": None,
    }


# -- commands -----------------------------------------------------------------------------------


@attrs.frozen
class Start(Command[StartResult]):
    """Bring an instance to life, unless there is one."""

    input: object

    def decide(
        self, job: ContinuousJob[Any, Any, Any], before: Instance | None, turn: Turn
    ) -> Effect[Step, StepError, Any]:
        """Write the record with its first alarm: now, or the first tick."""
        return Effect.succeed(Step.nothing(before)) if before else self._create(job, turn)

    @Effect.gen
    def _create(self, job: ContinuousJob[Any, Any, Any], turn: Turn) -> Do[Step, StepError]:
        state = yield from checked(lambda: job.codec.accept(self.input))
        encoded = yield from checked(lambda: job.codec.encode(state, turn.limits))
        first = turn.now
        if not job.start_immediately:
            first = yield from checked(lambda: _next_tick(job.schedule, turn.now))
        incarnation = yield from Random.uuid7()
        fact = turn.fact(JobStarted, input=turn.shown(encoded))
        after = Instance(
            key=turn.key,
            incarnation=incarnation.hex,
            created_at=turn.now,
            state=encoded,
            alarm=Alarm(first, "start" if job.start_immediately else "schedule"),
            scheduled_for=first,
        )
        return Step(before=None, after=after, events=(fact,))

    def answer(self, turn: Turn, step: Step, fired: Step | None) -> StartResult:
        """``terminated`` when the first run ended the instance."""
        after = step.after if fired is None else fired.after
        status: Literal["running", "stopped", "terminated"] = "terminated"
        if after is not None:
            status = "stopped" if after.stopped else "running"
        return StartResult(step.before is None, turn.key.instance_id, status)


@attrs.frozen
class Trigger(Command[TriggerResult]):
    """Run now. The anchor of the schedule moves to this moment; a retry that waits is superseded."""

    runs: ClassVar[bool] = True

    def decide(
        self, job: ContinuousJob[Any, Any, Any], before: Instance | None, turn: Turn
    ) -> Effect[Step, StepError, Any]:
        """Set the alarm to now."""
        if before is None:
            return Effect.fail(InstanceNotFoundError(turn.key.instance_id))
        after = before.evolve(
            **SETTLED,
            alarm=Alarm(turn.now, "trigger"),
            scheduled_for=turn.now,
            missed_count=0,
            next_tick=None,
            stopped=False,
        )
        step = Step(before=before, after=after)
        return job.read(before).as_(step)

    def answer(self, turn: Turn, step: Step, fired: Step | None) -> TriggerResult:
        """What became of the run."""
        result = fired.fired.result if fired is not None and fired.fired is not None else None
        return TriggerResult(
            triggered=True,
            terminated=result in ("terminated", "exhausted"),
            retry_scheduled=result == "retrying",
        )


# -- what the user writes ----------------------------------------------------------------------------


class Continuous:
    """Recurring work: ``Continuous.make(state_schema=..., schedule=..., execute=...)``."""

    @staticmethod
    def every(interval: Span) -> Every:
        """A run every ``interval`` (up to 100 years), anchored at the start."""
        span = to_timedelta(interval, positive=True, name="interval")
        if span > _LONGEST_INTERVAL:
            raise ValueError("an interval is at most 100 years")
        return Every(span)

    @staticmethod
    def cron(expression: str, tz: str = "UTC") -> CronSchedule:
        """Runs at the times that a cron expression (5 fields, or 6 with seconds first) matches in ``tz``."""
        return CronSchedule(Cron.parse(expression, tz))

    @staticmethod
    def make(
        *,
        state_schema: Schema[S] | type[S],
        schedule: Schedule,
        execute: Callable[[ContinuousContext[S]], Program[Any, E1, R1]],
        start_immediately: bool = True,
        retry: Retry | None = None,
        logging: JobLogging = False,
    ) -> ContinuousJob[S, E1, R1]:
        """Define a continuous job.

        ``execute`` gets a :class:`ContinuousContext` and returns an effect, or is a do-block. It first runs
        when the instance starts, or at the first tick with ``start_immediately=False``. Without ``retry``
        a failed run is reported and the schedule goes on.
        """
        check_handler("execute", execute)
        check_option("retry", retry, Retry, A_RETRY)
        if not callable(getattr(schedule, "next_after", None)):
            raise ValueError(
                'schedule= takes Continuous.every("30 minutes") or Continuous.cron("*/5 * * * *")'
            )
        return ContinuousJob(
            state_schema=Schema.ensure(state_schema),
            schedule=schedule,
            execute=execute,
            start_immediately=start_immediately,
            retry=retry,
            log_level=logging_level(logging),
        )

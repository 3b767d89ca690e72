"""Task jobs: event-driven state machines that decide themselves when to run.

    (none) --send--> idle | active          active: an execution is scheduled or waits for its retry
    idle --a handler schedules--> active --alarm--> idle | active
    active --retries exhausted--> stopped   (or purged, with Retry(on_exhausted="terminate"))
    any --terminate, ctx.terminate--> (none)

``on_event`` runs inside the ``send`` that brings the event; state, count and schedule commit together
or not at all. ``on_error`` may handle what failed, ``on_idle`` runs when nothing is left scheduled.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Generic, Literal, TypeAlias, overload

import attrs
from typing_extensions import Never, TypeVar

from durable_effect import Backoff, Clock, Do, Effect, Random, Schema
from durable_effect.duration import to_timedelta
from durable_effect_jobs.attempt import Draft, Ended, Failed, Terminated, attempt
from durable_effect_jobs.errors import InstanceNotFoundError, Kind, SchedulerError, ValidationError
from durable_effect_jobs.events import (
    Failure,
    JobExecuted,
    JobFailed,
    JobStarted,
    JobTerminated,
    TaskScheduled,
)
from durable_effect_jobs.failure import SETTLED, after_failure, execution_error
from durable_effect_jobs.instance import Alarm, Instance, Mark, idempotency_key
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
    "SendResult",
    "Task",
    "TaskContext",
    "TaskErrorContext",
    "TaskEventContext",
    "TaskExecuteContext",
    "TaskIdleContext",
    "TaskJob",
    "TaskState",
    "TaskStatus",
    "TaskTriggerResult",
    "When",
]

S = TypeVar("S")
T = TypeVar("T")
S_co = TypeVar("S_co", covariant=True)
T_co = TypeVar("T_co", covariant=True)
E_co = TypeVar("E_co", covariant=True, default=Any)
R_co = TypeVar("R_co", covariant=True, default=Any)
R1 = TypeVar("R1", default=Never)
R2 = TypeVar("R2", default=Never)
R3 = TypeVar("R3", default=Never)
R4 = TypeVar("R4", default=Never)

When: TypeAlias = timedelta | str | datetime | int
"""A span from now, an aware instant, or milliseconds since the epoch."""

_Source: TypeAlias = Literal["event", "execute", "idle", "error"]
_Handler: TypeAlias = Literal["onEvent", "execute"]

_DEFAULT_RETRY = Retry(max_attempts=7, delay=Backoff.exponential("2 seconds"), on_exhausted="stop")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FEWEST_MILLISECONDS = 100_000_000_000
"""As milliseconds this is March 1973, as seconds the year 5138: a smaller number can only be seconds."""


# -- what the handlers see -------------------------------------------------------------------------


class _Plan(Draft[S]):
    """A draft that can also change the schedule. The last change wins."""

    __slots__ = ("before", "changed_by", "schedule", "source")

    def __init__(
        self, codec: Codec[S], turn: Turn, before: Instance | None, state: S | None, schedule: Alarm | None
    ) -> None:
        super().__init__(codec, turn.limits, state, None if before is None else before.state)
        self.schedule = schedule
        self.source: _Source = "event"
        self.changed_by: _Source | None = None

    def put(self, at: datetime | None) -> None:
        self.check_running("cancel_schedule" if at is None else "schedule")
        self.schedule = None if at is None else Alarm(at, "schedule")
        self.changed_by = self.source


class TaskContext(Generic[S]):
    """What every handler of a task sees."""

    __slots__ = ("_plan", "id", "instance_id", "job_name")

    def __init__(self, plan: _Plan[S], turn: Turn) -> None:
        self._plan = plan
        self.id: str = turn.key.id
        self.instance_id: str = turn.key.instance_id
        self.job_name: str = turn.key.job

    @property
    def state(self) -> Effect[S | None]:
        """The current state, this call's own changes included; ``None`` before the first ``set_state``."""
        return self._plan.read()

    def set_state(self, state: S, /) -> Effect[None]:
        """Replace the state. It is written when the call ends well."""
        return self._plan.set(state)

    def update_state(self, change: Callable[[S], S], /) -> Effect[None]:
        """Replace the state by what ``change`` makes of it; without a state, do nothing."""
        return self._plan.update(change)

    def schedule(self, when: When, /) -> Effect[None]:
        """Execute at ``when``, in place of what was scheduled. A time that has passed means at once."""
        at = _instant(when)
        return Clock.now().map(lambda now: self._plan.put(at(now)))

    def cancel_schedule(self) -> Effect[None]:
        """Forget what was scheduled."""
        return Effect.sync(lambda: self._plan.put(None))

    def get_scheduled_time(self) -> Effect[datetime | None]:
        """When the next execution is due, this call's own changes included."""
        return Effect.sync(lambda: None if self._plan.schedule is None else self._plan.schedule.at)

    def terminate(self, reason: str | None = None) -> Effect[Never]:
        """End the instance: state and schedule are deleted, the id is free again. Nothing can catch this."""
        return self._plan.terminate(reason)


class TaskEventContext(TaskContext[S]):
    """What ``on_event`` sees beside the event."""

    __slots__ = ("_created_at", "_event_count", "is_first_event")

    def __init__(self, plan: _Plan[S], turn: Turn, before: Instance | None) -> None:
        super().__init__(plan, turn)
        self.is_first_event: bool = before is None
        self._event_count = 1 if before is None else before.event_count + 1
        self._created_at = turn.now if before is None else before.created_at

    @property
    def event_count(self) -> Effect[int]:
        """Events accepted so far, this one included."""
        return Effect.succeed(self._event_count)

    @property
    def created_at(self) -> Effect[datetime]:
        """When the first event arrived."""
        return Effect.succeed(self._created_at)


class TaskExecuteContext(TaskContext[S]):
    """What ``execute`` sees."""

    __slots__ = ("_before", "fence", "run_key")

    def __init__(self, plan: _Plan[S], turn: Turn, before: Instance) -> None:
        super().__init__(plan, turn)
        self._before = before
        self.run_key: str = f"{before.incarnation}:{before.run_count + (0 if before.failed_attempts else 1)}"
        """The same for every attempt of this execution: the idempotency key to hand to other services."""
        self.fence: int = before.fence
        """Greater than that of every run before, for others to refuse one that has been overtaken."""

    def idempotency_key(self, step: str) -> str:
        """A key for one of several requests of this run, the same on every attempt and after a crash."""
        return idempotency_key(self.run_key, step)

    @property
    def event_count(self) -> Effect[int]:
        """Events accepted so far."""
        return Effect.succeed(self._before.event_count)

    @property
    def execute_count(self) -> Effect[int]:
        """How often ``execute`` has run, this time included."""
        return Effect.succeed(self._before.execute_count + 1)

    @property
    def created_at(self) -> Effect[datetime]:
        """When the first event arrived."""
        return Effect.succeed(self._before.created_at)


class TaskIdleContext(TaskContext[S]):
    """What ``on_idle`` sees: nothing is scheduled any more."""

    __slots__ = ("idle_reason",)

    def __init__(self, plan: _Plan[S], turn: Turn, reason: _Handler) -> None:
        super().__init__(plan, turn)
        self.idle_reason: _Handler = reason
        """Which handler left the task idle."""


class TaskErrorContext(TaskContext[S]):
    """What ``on_error`` sees, with everything that the failed handler had changed."""

    __slots__ = ("error_source",)

    def __init__(self, plan: _Plan[S], turn: Turn, source: _Handler) -> None:
        super().__init__(plan, turn)
        self.error_source: _Handler = source
        """Which handler failed."""


def _instant(when: object) -> Callable[[datetime], datetime]:
    """From the time of the call to the time that was meant; what cannot be meant is refused right here."""
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise ValueError(
                "schedule() needs an aware datetime, such as datetime(2026, 1, 1, tzinfo=UTC), no naive one"
            )
        at = when.astimezone(UTC)
        return lambda _: at
    if isinstance(when, str | timedelta):
        span = to_timedelta(when, name="when")
        return lambda now: now + span
    if isinstance(when, bool) or not isinstance(when, int):
        raise ValueError(
            'schedule() takes a span ("5 minutes" or a timedelta), an aware datetime, or an int of '
            f"milliseconds since the epoch, got {type(when).__name__}"
        )
    if when < _FEWEST_MILLISECONDS:
        raise ValueError(
            f"schedule({when}) can only be seconds: give milliseconds since the epoch, or a span such as "
            f'"{when} seconds"'
        )
    at = _EPOCH + timedelta(milliseconds=when)
    return lambda _: at


# -- results -----------------------------------------------------------------------------------------


@attrs.frozen
class SendResult:
    """The event is handled; ``scheduled_at`` is when the task will execute next, if at all."""

    created: bool
    instance_id: str
    scheduled_at: datetime | None


@attrs.frozen
class TaskTriggerResult:
    """What became of the execution."""

    triggered: bool
    terminated: bool


@attrs.frozen
class TaskStatus:
    """Where a task stands, as of its last commit."""

    status: Literal["active", "idle", "stopped", "not_found"]
    scheduled_at: datetime | None = None
    event_count: int | None = None
    execute_count: int | None = None
    created_at: datetime | None = None


@attrs.frozen
class TaskState(Generic[S_co]):
    """The state as of the last commit; all ``None`` when there is no such instance."""

    state: S_co | None
    scheduled_at: datetime | None = None
    created_at: datetime | None = None


# -- the definition -------------------------------------------------------------------------------


@attrs.frozen(kw_only=True, eq=False)
class TaskJob(Job[E_co, R_co], Generic[S_co, T_co, E_co, R_co]):
    """A definition made by :meth:`Task.make`."""

    kind: ClassVar[Kind] = "task"

    state_schema: Schema[S_co]
    event_schema: Schema[T_co]
    on_event: Callable[[T_co, TaskEventContext[S_co]], Any]
    execute: Callable[[TaskExecuteContext[S_co]], Any]
    on_idle: Callable[[TaskIdleContext[S_co]], Any] | None
    on_error: Callable[[Any, TaskErrorContext[S_co]], Any] | None
    retry: Retry
    log_level: int

    @property
    def codec(self) -> Codec[S_co]:
        """How states are stored."""
        return Codec(self.state_schema)

    def handlers(self) -> tuple[Callable[..., Any], ...]:
        """The user's functions."""
        optional = (handler for handler in (self.on_idle, self.on_error) if handler is not None)
        return (self.on_event, self.execute, *optional)

    def status(self, before: Instance | None) -> TaskStatus:
        """What ``status`` answers."""
        if before is None:
            return TaskStatus("not_found")
        status: Literal["active", "idle", "stopped"] = "active" if before.alarm is not None else "idle"
        return TaskStatus(
            "stopped" if before.halted else status,
            _at(before.alarm),
            before.event_count,
            before.execute_count,
            before.created_at,
        )

    def read(self, before: Instance | None) -> Effect[TaskState[S_co], ValidationError | SchedulerError]:
        """What ``get_state`` answers."""
        if before is None:
            return Effect.succeed(TaskState(None))
        return self.load(before).map(lambda state: TaskState(state, _at(before.alarm), before.created_at))

    def load(self, before: Instance | None) -> Effect[S_co | None, ValidationError | SchedulerError]:
        """The stored state, decoded; ``None`` while there is none."""
        if before is None or before.state is None:
            return Effect.succeed(None)
        encoded = before.state
        return checked(lambda: self.codec.decode(encoded))

    # -- one call: the handler, then on_error if it failed, then on_idle if nothing is scheduled

    @Effect.gen
    def call(
        self, plan: _Plan[S_co], turn: Turn, source: _Handler, run: Callable[[], Any]
    ) -> Do[Ended, Never, Any]:
        """Run a handler and what follows from how it ended, all against one draft."""
        plan.source = "event" if source == "onEvent" else "execute"
        ended = yield from self._attempt(plan, turn, source, run)
        on_error, on_idle = self.on_error, self.on_idle
        if isinstance(ended, Failed) and on_error is not None:
            plan.source = "error"
            error, context = ended.as_argument, TaskErrorContext(plan, turn, source)
            ended = yield from self._attempt(plan, turn, "onError", lambda: on_error(error, context))
        if isinstance(ended, Failed | Terminated) or on_idle is None or plan.schedule is not None:
            return ended
        plan.source = "idle"
        idle = TaskIdleContext(plan, turn, source)
        return (yield from self._attempt(plan, turn, "onIdle", lambda: on_idle(idle)))

    def _attempt(
        self, plan: _Plan[S_co], turn: Turn, handler: str, run: Callable[[], Any]
    ) -> Effect[Ended, Never, Any]:
        return attempt(run, plan, turn.key, self.log_level, handler=handler)

    # -- the alarm

    def fire(self, before: Instance, turn: Turn) -> Effect[Step, Never, Any]:
        """Run ``execute`` and decide what follows."""
        return self._fire(before, turn)

    @Effect.gen
    def _fire(self, before: Instance, turn: Turn) -> Do[Step, Never, Any]:
        try:
            state = None if before.state is None else self.codec.decode(before.state)
        except ValidationError as error:
            return park(before, turn, error)
        plan = _Plan(self.codec, turn, before, state, before.pending)
        context = TaskExecuteContext(plan, turn, before)
        ended = yield from self.call(plan, turn, "execute", lambda: self.execute(context))
        now = yield from Clock.now()
        count = before.execute_count + 1
        if isinstance(ended, Failed):
            roll = yield from Random.uniform(-1.0, 1.0)
            return self._failed(before, turn, ended, now, roll)
        executed = turn.fact(
            JobExecuted,
            run_count=count,
            duration_ms=(now - turn.now) / timedelta(milliseconds=1),
            attempt=before.failed_attempts + 1,
            pre_execution_state=turn.shown(before.state),
        )
        if isinstance(ended, Terminated):
            gone = turn.fact(JobTerminated, run_count=count, reason=ended.reason)
            return Step(before=before, after=None, events=(gone,), fired=Fired(result="terminated"))
        after = before.evolve(
            **SETTLED,
            state=plan.encoded,
            alarm=_kept(plan),
            pending=None,
            run_count=_run_number(before),
            execute_count=count,
            stopped=False,
            last_error=None,
        )
        events = (executed, *_scheduled(plan, turn))
        return Step(before=before, after=after, events=events, fired=Fired(result="done"))

    def _failed(self, before: Instance, turn: Turn, failed: Failed, now: datetime, roll: float) -> Step:
        counted = {"run_count": _run_number(before), "execute_count": before.execute_count + 1}
        asked_for = turn.own and before.alarm is not None and before.alarm.reason == "trigger"
        if asked_for:
            return self._refused(before, turn, failed, counted)
        return after_failure(
            before,
            turn,
            failed,
            retry=self.retry,
            number=before.execute_count + 1,
            attempt=before.failed_attempts + 1,
            now=now,
            roll=roll,
            counted=counted,
            resting={},
        )

    def _refused(self, before: Instance, turn: Turn, failed: Failed, counted: dict[str, Any]) -> Step:
        """A trigger that failed: its caller is told, and what was scheduled stays."""
        failure = Failure.of(failed.error)
        fact = turn.fact(
            JobFailed, error=failure, run_count=before.execute_count + 1, attempt=1, will_retry=False
        )
        after = before.evolve(**counted, **SETTLED, alarm=before.pending, pending=None, last_error=failure)
        fired = Fired(result="failed", error=execution_error(turn, failed), defect=failed.defect)
        return Step(before=before, after=after, events=(fact,), fired=fired)


def _at(alarm: Alarm | None) -> datetime | None:
    return None if alarm is None else alarm.at


def _run_number(before: Instance) -> int:
    """Which execution this is: attempts of the same one share the number."""
    return before.run_count + (0 if before.failed_attempts else 1)


def _kept(plan: _Plan[Any]) -> Alarm | None:
    """What stays scheduled after a trigger that ended well. It stands for the run whose retry was waiting."""
    alarm = plan.schedule
    return None if plan.changed_by is None and alarm is not None and alarm.reason == "retry" else alarm


def _scheduled(plan: _Plan[Any], turn: Turn) -> tuple[Any, ...]:
    if plan.changed_by is None or plan.schedule is None:
        return ()
    return (turn.fact(TaskScheduled, scheduled_at=plan.schedule.at, trigger=plan.changed_by),)


# -- commands -----------------------------------------------------------------------------------


@attrs.frozen
class Send(Command[SendResult]):
    """Give the task an event, bringing it to life if need be."""

    brings_event: ClassVar[bool] = True

    event: object
    event_id: str | None = None

    def decide(
        self, job: TaskJob[Any, Any, Any, Any], before: Instance | None, turn: Turn
    ) -> Effect[Step, StepError, Any]:
        """Run ``on_event`` and write what it left: state, count and schedule together."""
        return self._decide(job, before, turn)

    @Effect.gen
    def _decide(
        self, job: TaskJob[Any, Any, Any, Any], before: Instance | None, turn: Turn
    ) -> Do[Step, StepError, Any]:
        event = yield from checked(lambda: Codec(job.event_schema).accept(self.event))
        shown = yield from checked(lambda: self._input(job, event, turn))
        state = yield from job.load(before)
        plan = _Plan(job.codec, turn, before, state, None if before is None else before.alarm)
        context = TaskEventContext(plan, turn, before)
        ended = yield from job.call(plan, turn, "onEvent", lambda: job.on_event(event, context))
        if isinstance(ended, Failed):
            return (yield from Effect.fail(execution_error(turn, ended)))
        born = () if before else (turn.fact(JobStarted, input=shown),)
        if isinstance(ended, Terminated):
            count = 0 if before is None else before.execute_count
            gone = turn.fact(JobTerminated, run_count=count, reason=ended.reason)
            return Step(before=before, after=None, events=(*born, gone), mark=self._mark(turn))
        if before is None:
            incarnation = yield from Random.uuid7()
            after = Instance(
                key=turn.key,
                incarnation=incarnation.hex,
                created_at=turn.now,
                state=plan.encoded,
                event_count=1,
                alarm=plan.schedule,
            )
        else:
            after = _taken(before, plan)
        events = (*born, *_scheduled(plan, turn))
        return Step(before=before, after=after, events=events, mark=self._mark(turn))

    def _input(self, job: TaskJob[Any, Any, Any, Any], event: Any, turn: Turn) -> Any:
        """The event as it came: its handler may change it in place."""
        return turn.shown(Codec(job.event_schema).encode(event, turn.limits)) if turn.include_state else None

    def _mark(self, turn: Turn) -> Mark | None:
        return None if self.event_id is None else Mark(self.event_id, turn.now + turn.limits.event_id_window)

    def answer(self, turn: Turn, step: Step, fired: Step | None) -> SendResult:
        """When the task will execute next; a time that had passed was executed within the call."""
        after = step.after if fired is None else fired.after
        return SendResult(
            created=step.before is None,
            instance_id=turn.key.instance_id,
            scheduled_at=None if after is None else _at(after.alarm),
        )


def _taken(before: Instance, plan: _Plan[Any]) -> Instance:
    """The record after an event. A new schedule is a new run: it takes the place of a retry and revives."""
    after = before.evolve(state=plan.encoded, event_count=before.event_count + 1, alarm=plan.schedule)
    if plan.changed_by is None:
        return after
    return attrs.evolve(after, **SETTLED, pending=None, stopped=before.stopped and plan.schedule is None)


@attrs.frozen
class TriggerTask(Command[TaskTriggerResult]):
    """Execute now, leaving what is scheduled alone."""

    runs: ClassVar[bool] = True

    def decide(
        self, job: TaskJob[Any, Any, Any, Any], before: Instance | None, turn: Turn
    ) -> Effect[Step, StepError, Any]:
        """Set the alarm to now, and keep what was scheduled aside."""
        if before is None:
            return Effect.fail(InstanceNotFoundError(turn.key.instance_id))
        triggered = before.alarm is not None and before.alarm.reason == "trigger"
        # A trigger that died waits as a retry, with the schedule still aside.
        pending = before.pending if triggered or before.pending is not None else before.alarm
        after = before.evolve(**SETTLED, alarm=Alarm(turn.now, "trigger"), pending=pending)
        return job.load(before).as_(Step(before=before, after=after))

    def answer(self, turn: Turn, step: Step, fired: Step | None) -> TaskTriggerResult:
        """Whether the execution ended the task."""
        result = fired.fired.result if fired is not None and fired.fired is not None else None
        return TaskTriggerResult(triggered=True, terminated=result in ("terminated", "exhausted"))


# -- what the user writes ----------------------------------------------------------------------------


class Task:
    """State machines: ``Task.make(state_schema=..., event_schema=..., on_event=..., execute=...)``."""

    # First for handlers that need no service, because pyright cannot solve `R1 | R2` when both are Never.
    @overload
    @staticmethod
    def make(
        *,
        state_schema: Schema[S] | type[S],
        event_schema: Schema[T] | type[T],
        on_event: Callable[[T, TaskEventContext[S]], Program[Any, Any, Never]],
        execute: Callable[[TaskExecuteContext[S]], Program[Any, Any, Never]],
        on_idle: Callable[[TaskIdleContext[S]], Program[Any, Any, Never]] | None = ...,
        on_error: Callable[[Any, TaskErrorContext[S]], Program[Any, Any, Never]] | None = ...,
        retry: Retry | None = ...,
        logging: JobLogging = ...,
    ) -> TaskJob[S, T, Any, Never]: ...
    @overload
    @staticmethod
    def make(
        *,
        state_schema: Schema[S] | type[S],
        event_schema: Schema[T] | type[T],
        on_event: Callable[[T, TaskEventContext[S]], Program[Any, Any, R1]],
        execute: Callable[[TaskExecuteContext[S]], Program[Any, Any, R2]],
        on_idle: Callable[
            [TaskIdleContext[S]],
            Program[Any, Any, R3],  # pyright: ignore[reportInvalidTypeVarUse] - without on_idle it is Never
        ]
        | None = ...,
        on_error: Callable[
            [Any, TaskErrorContext[S]],
            Program[Any, Any, R4],  # pyright: ignore[reportInvalidTypeVarUse] - without on_error it is Never
        ]
        | None = ...,
        retry: Retry | None = ...,
        logging: JobLogging = ...,
    ) -> TaskJob[S, T, Any, R1 | R2 | R3 | R4]: ...
    @staticmethod
    def make(
        *,
        state_schema: Schema[Any] | type[Any],
        event_schema: Schema[Any] | type[Any],
        on_event: Callable[[Any, TaskEventContext[Any]], Any],
        execute: Callable[[TaskExecuteContext[Any]], Any],
        on_idle: Callable[[TaskIdleContext[Any]], Any] | None = None,
        on_error: Callable[[Any, TaskErrorContext[Any]], Any] | None = None,
        retry: Retry | None = None,
        logging: JobLogging = False,
    ) -> TaskJob[Any, Any, Any, Any]:
        """Define a task.

        ``on_event`` gets the event and a :class:`TaskEventContext`, ``execute`` a :class:`TaskExecuteContext`
        when a schedule is due or the client triggers it. ``on_error`` gets the typed error, or a ``Defect``
        for a raised exception; what it leaves is committed. ``on_idle`` runs when nothing is left scheduled.
        Without ``retry`` an execution that fails on its alarm is tried 6 more times, from 2 seconds doubling,
        and then the task is stopped.
        """
        check_handler("on_event", on_event)
        check_handler("execute", execute)
        check_option("retry", retry, Retry, A_RETRY)
        check_handler("on_idle", on_idle, optional=True)
        check_handler("on_error", on_error, optional=True)
        return TaskJob(
            state_schema=Schema.ensure(state_schema),
            event_schema=Schema.ensure(event_schema),
            on_event=on_event,
            execute=execute,
            on_idle=on_idle,
            on_error=on_error,
            retry=_DEFAULT_RETRY if retry is None else retry,
            log_level=logging_level(logging),
        )

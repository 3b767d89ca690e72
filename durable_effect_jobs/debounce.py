"""Debounce jobs: collect events, then process them once.

    (none) --add--> debouncing --window over, max_events, flush--> (none)
                       | flush failed --> debouncing (again after flush_after, or when its retry is due)
                       | retries exhausted, on_exhausted="stop" --> stopped --flush--> (none)
                       | clear, retries exhausted --> (none)

``on_event`` runs inside the ``add`` that brings the event: if it fails nothing is written, and the caller
still holds the event. The first event fixes the window, or with ``mode="trailing"`` each event moves it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, ClassVar, Generic, Literal, TypeAlias, cast, overload

import attrs
from typing_extensions import Never, TypeVar

from durable_effect import Clock, Do, Effect, Random, Schema, SchemaError
from durable_effect.canonical_json import from_json_bytes, to_json_bytes
from durable_effect.duration import Span
from durable_effect_jobs.attempt import Draft, Failed, Finished, attempt
from durable_effect_jobs.errors import Kind, SchedulerError, ValidationError
from durable_effect_jobs.events import DebounceFlushed, DebounceStarted, JobExecuted, JobTerminated
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
    bounded,
    check_handler,
    check_option,
    checked,
    logging_level,
    park,
)

__all__ = [
    "AddResult",
    "ClearResult",
    "Debounce",
    "DebounceEventContext",
    "DebounceExecuteContext",
    "DebounceJob",
    "DebounceState",
    "DebounceStatus",
    "FlushReason",
    "FlushResult",
]

I = TypeVar("I")  # noqa: E741 - the event, beside S for the state
S = TypeVar("S")
I_co = TypeVar("I_co", covariant=True)
S_co = TypeVar("S_co", covariant=True)
E_co = TypeVar("E_co", covariant=True, default=Any)
R_co = TypeVar("R_co", covariant=True, default=Any)
E1 = TypeVar("E1", default=Never)
R1 = TypeVar("R1", default=Never)
R2 = TypeVar("R2", default=Never)

FlushReason: TypeAlias = Literal["maxEvents", "flushAfter", "manual"]


# -- what the handlers see -------------------------------------------------------------------------


class DebounceEventContext(Generic[I, S]):
    """What ``on_event`` sees; it returns the new state."""

    __slots__ = ("event", "event_count", "id", "instance_id", "job_name", "state")

    def __init__(self, turn: Turn, event: I, state: S, event_count: int) -> None:
        self.event: I = event
        self.state: S = state
        """What was collected so far; at first the initial state, or without a state schema the event."""
        self.event_count: int = event_count
        """Events of this batch, this one included."""
        self.id: str = turn.key.id
        self.instance_id: str = turn.key.instance_id
        self.job_name: str = turn.key.job


class DebounceExecuteContext(Generic[S]):
    """What ``execute`` sees of the batch."""

    __slots__ = (
        "_before",
        "_draft",
        "attempt",
        "fence",
        "flush_reason",
        "id",
        "instance_id",
        "job_name",
        "run_key",
    )

    def __init__(self, draft: Draft[S], before: Instance, attempt: int) -> None:
        self._draft = draft
        self._before = before
        self.attempt: int = attempt
        """Which attempt at this flush, from 1."""
        self.flush_reason: FlushReason = _flush_reason(before)
        self.id: str = before.key.id
        self.instance_id: str = before.key.instance_id
        self.job_name: str = before.key.job
        self.run_key: str = f"{before.incarnation}:{_number(before, attempt)}"
        """The same for every attempt of this flush: the idempotency key to hand to other services."""
        self.fence: int = before.fence
        """Greater than that of every run before, for others to refuse one that has been overtaken."""

    @property
    def is_retry(self) -> bool:
        """Whether an earlier attempt at this flush failed."""
        return self.attempt > 1

    def idempotency_key(self, step: str) -> str:
        """A key for one of several requests of this run, the same on every attempt and after a crash."""
        return idempotency_key(self.run_key, step)

    @property
    def state(self) -> Effect[S]:
        """What was collected."""
        return self._draft.read()

    @property
    def event_count(self) -> Effect[int]:
        """How many events the batch holds."""
        return Effect.succeed(self._before.event_count)

    @property
    def debounce_started_at(self) -> Effect[datetime]:
        """When the first event of the batch arrived."""
        return Effect.succeed(self._before.created_at)


# -- results -----------------------------------------------------------------------------------------


@attrs.frozen
class AddResult:
    """The event is kept; ``event_count`` includes it. ``will_flush_at`` is ``None`` once it is processed."""

    created: bool
    instance_id: str
    event_count: int
    will_flush_at: datetime | None
    retry_scheduled: bool


@attrs.frozen
class FlushResult:
    """What became of the flush; the reason is ``"empty"`` when there was nothing to flush."""

    flushed: bool
    event_count: int
    reason: Literal["manual", "empty"]
    retry_scheduled: bool


@attrs.frozen
class ClearResult:
    """How many events were thrown away."""

    cleared: bool
    discarded_events: int


@attrs.frozen
class DebounceStatus:
    """Where a batch stands, as of its last commit."""

    status: Literal["debouncing", "idle", "stopped", "not_found"]
    event_count: int | None = None
    started_at: datetime | None = None
    will_flush_at: datetime | None = None


@attrs.frozen
class DebounceState(Generic[S_co]):
    """What was collected, as of the last commit; ``None`` when there is no such instance."""

    state: S_co | None


# -- the definition -------------------------------------------------------------------------------


@attrs.frozen(kw_only=True, eq=False)
class DebounceJob(Job[E_co, R_co], Generic[I_co, S_co, E_co, R_co]):
    """A definition made by :meth:`Debounce.make`."""

    kind: ClassVar[Kind] = "debounce"

    event_schema: Schema[I_co]
    state_schema: Schema[S_co]
    first_state: Callable[[I_co], S_co]
    flush_after: timedelta
    max_events: int | None
    mode: Literal["fixed", "trailing"]
    max_wait: timedelta | None
    on_event: Callable[[DebounceEventContext[I_co, S_co]], Any]
    execute: Callable[[DebounceExecuteContext[S_co]], Any]
    retry: Retry | None
    log_level: int

    @property
    def codec(self) -> Codec[S_co]:
        """How what is collected is stored."""
        return Codec(self.state_schema)

    def handlers(self) -> tuple[Callable[..., Any], ...]:
        """The user's functions."""
        return (self.on_event, self.execute)

    def status(self, before: Instance | None) -> DebounceStatus:
        """What ``status`` answers."""
        if before is None:
            return DebounceStatus("not_found")
        return DebounceStatus(
            "stopped" if before.halted else "debouncing",
            before.event_count,
            before.created_at,
            None if before.alarm is None else before.alarm.at,
        )

    def read(self, before: Instance | None) -> Effect[DebounceState[S_co], ValidationError | SchedulerError]:
        """What ``get_state`` answers."""
        if before is None:
            return Effect.succeed(DebounceState(None))
        return checked(lambda: DebounceState(self.codec.decode(before.state)))

    def window_end(self, started_at: datetime, now: datetime) -> datetime:
        """When a batch that began at ``started_at`` and got an event ``now`` is to be flushed."""
        if self.mode == "fixed":
            return started_at + self.flush_after
        end = now + self.flush_after
        return end if self.max_wait is None else min(end, started_at + self.max_wait)

    def fire(self, before: Instance, turn: Turn) -> Effect[Step, Never, Any]:
        """Run ``execute`` over the batch and decide what follows."""
        return self._fire(before, turn)

    @Effect.gen
    def _fire(self, before: Instance, turn: Turn) -> Do[Step, Never, Any]:
        try:
            state = self.codec.decode(before.state)
        except ValidationError as error:
            return park(before, turn, error)
        draft = Draft(self.codec, turn.limits, state, before.state)
        number = before.failed_attempts + 1
        context = DebounceExecuteContext(draft, before, number)
        ended = yield from attempt(
            lambda: self.execute(context),
            draft,
            before.key,
            self.log_level,
            flush_reason=context.flush_reason,
            attempt=number,
        )
        now = yield from Clock.now()
        if isinstance(ended, Failed):
            roll = yield from Random.uniform(-1.0, 1.0)
            return self._failed(before, turn, number, ended, now, roll)
        return self._flushed(before, turn, number, now)

    def _flushed(self, before: Instance, turn: Turn, number: int, now: datetime) -> Step:
        executed = turn.fact(
            JobExecuted,
            run_count=_number(before, number),
            duration_ms=(now - turn.now) / timedelta(milliseconds=1),
            attempt=number,
            pre_execution_state=turn.shown(before.state),
        )
        reason = _flush_reason(before)
        flushed = turn.fact(
            DebounceFlushed,
            event_count=before.event_count,
            reason="timeout" if reason == "flushAfter" else reason,
            duration_ms=(turn.now - before.created_at) / timedelta(milliseconds=1),
        )
        return Step(before=before, after=None, events=(executed, flushed), fired=Fired(result="done"))

    def _failed(
        self, before: Instance, turn: Turn, number: int, failed: Failed, now: datetime, roll: float
    ) -> Step:
        return after_failure(
            before,
            turn,
            failed,
            retry=self.retry,
            number=_number(before, number),
            attempt=number,
            now=now,
            roll=roll,
            counted={"run_count": _number(before, number), "flush_reason": _flush_reason(before)},
            resting={"alarm": Alarm(now + self.flush_after, "flushAfter"), "flush_reason": "flushAfter"},
        )


def _number(before: Instance, attempt: int) -> int:
    """Which flush this is: attempts of the same one share the number."""
    return before.run_count + (1 if attempt == 1 else 0)


def _flush_reason(before: Instance) -> FlushReason:
    return before.flush_reason or "flushAfter"


# -- commands -----------------------------------------------------------------------------------


@attrs.frozen
class Add(Command[AddResult]):
    """Reduce one event into the batch, opening one if need be; the event that fills it flushes it."""

    event: object
    event_id: str | None = None

    def decide(
        self, job: DebounceJob[Any, Any, Any, Any], before: Instance | None, turn: Turn
    ) -> Effect[Step, StepError, Any]:
        """Write the reduced state, the count and the alarm together."""
        return self._decide(job, before, turn)

    @Effect.gen
    def _decide(
        self, job: DebounceJob[Any, Any, Any, Any], before: Instance | None, turn: Turn
    ) -> Do[Step, StepError, Any]:
        event = yield from checked(lambda: Codec(job.event_schema).accept(self.event))
        if before is None:
            collected = yield from checked(lambda: job.first_state(event))
        else:
            collected = yield from checked(lambda: job.codec.decode(before.state))
        count = (before.event_count if before else 0) + 1
        context = DebounceEventContext(turn, event, collected, count)
        draft: Draft[Any] = Draft(job.codec, turn.limits, None, None)
        ended = yield from attempt(
            lambda: job.on_event(context), draft, turn.key, job.log_level, event_count=count
        )
        if isinstance(ended, Finished):
            ended = _written(draft, ended)
        if isinstance(ended, Failed):
            return (yield from Effect.fail(execution_error(turn, ended)))
        if before is None:
            incarnation = yield from Random.uuid7()
            return self._opened(job, turn, draft, incarnation.hex)
        return self._grown(job, before, turn, draft)

    def _opened(
        self, job: DebounceJob[Any, Any, Any, Any], turn: Turn, draft: Draft[Any], incarnation: str
    ) -> Step:
        window = Alarm(job.window_end(turn.now, turn.now), "flushAfter")
        alarm = Alarm(turn.now, "maxEvents") if job.max_events == 1 else window
        after = Instance(
            key=turn.key,
            incarnation=incarnation,
            created_at=turn.now,
            state=draft.encoded,
            event_count=1,
            alarm=alarm,
            flush_reason="maxEvents" if job.max_events == 1 else "flushAfter",
        )
        fact = turn.fact(DebounceStarted, flush_at=alarm.at)
        return Step(before=None, after=after, events=(fact,), mark=self._mark(turn))

    def _grown(
        self, job: DebounceJob[Any, Any, Any, Any], before: Instance, turn: Turn, draft: Draft[Any]
    ) -> Step:
        count = before.event_count + 1
        after = before.evolve(state=draft.encoded, event_count=count)
        # While a retry waits, and once retries are exhausted, events only accumulate.
        if not before.failed_attempts and not before.stopped:
            if job.max_events is not None and count >= job.max_events:
                after = attrs.evolve(after, alarm=Alarm(turn.now, "maxEvents"), flush_reason="maxEvents")
            elif job.mode == "trailing" and not before.run_count:  # after a failed flush the next one is set
                end = job.window_end(before.created_at, turn.now)
                after = attrs.evolve(after, alarm=Alarm(end, "flushAfter"))
        return Step(before=before, after=after, mark=self._mark(turn))

    def _mark(self, turn: Turn) -> Mark | None:
        return None if self.event_id is None else Mark(self.event_id, turn.now + turn.limits.event_id_window)

    def answer(self, turn: Turn, step: Step, fired: Step | None) -> AddResult:
        """The count with this event, and when it will be processed if it was not yet."""
        added = cast("Instance", step.after)
        after = added if fired is None else fired.after
        return AddResult(
            created=step.before is None,
            instance_id=turn.key.instance_id,
            event_count=added.event_count,
            will_flush_at=after.alarm.at if after is not None and after.alarm is not None else None,
            retry_scheduled=after is not None and after.failed_attempts > 0,
        )


def _written(draft: Draft[Any], finished: Finished) -> Finished | Failed:
    """The state that ``on_event`` returned, put into the draft; one that does not fit is its failure."""
    try:
        draft.write(finished.value)
    except ValidationError as error:
        return Failed(error, raised=True)
    return finished


@attrs.frozen
class Flush(Command[FlushResult]):
    """Process the batch now; a retry that waits is superseded."""

    runs: ClassVar[bool] = True

    def decide(
        self, job: DebounceJob[Any, Any, Any, Any], before: Instance | None, turn: Turn
    ) -> Effect[Step, StepError, Any]:
        """Set the alarm to now."""
        if before is None:
            return Effect.succeed(Step.nothing(None))
        after = before.evolve(
            **SETTLED, alarm=Alarm(turn.now, "manual"), flush_reason="manual", stopped=False
        )
        return job.read(before).as_(Step(before=before, after=after))

    def answer(self, turn: Turn, step: Step, fired: Step | None) -> FlushResult:
        """What became of the flush."""
        if step.before is None:
            return FlushResult(False, 0, "empty", False)
        result = fired.fired.result if fired is not None and fired.fired is not None else None
        return FlushResult(result == "done", step.before.event_count, "manual", result == "retrying")


@attrs.frozen
class Clear(Command[ClearResult]):
    """Throw the batch away without processing it."""

    preempts: ClassVar[bool] = True

    def decide(
        self, job: DebounceJob[Any, Any, Any, Any], before: Instance | None, turn: Turn
    ) -> Effect[Step, StepError, Any]:
        """Remove the record."""
        if before is None:
            return Effect.succeed(Step.nothing(None))
        fact = turn.fact(JobTerminated, run_count=before.run_count, reason="cleared")
        return Effect.succeed(Step(before=before, after=None, events=(fact,)))

    def answer(self, turn: Turn, step: Step, fired: Step | None) -> ClearResult:
        """How many events went."""
        return ClearResult(step.before is not None, step.before.event_count if step.before else 0)


# -- what the user writes ----------------------------------------------------------------------------


def _keep_latest(context: DebounceEventContext[Any, Any]) -> Effect[Any]:
    return Effect.succeed(context.event)


def _first_states(state_schema: Schema[Any], initial_state: object) -> Callable[[Any], Any]:
    if callable(initial_state):
        make = cast("Callable[[], Any]", initial_state)
        state_schema.accept(make())  # what cannot begin a batch is refused here, not at the first event
        return lambda _: Codec(state_schema).accept(make())
    # Each batch begins with a value of its own, which its handlers may change in place.
    encoded = to_json_bytes(state_schema.encode_sync(state_schema.accept(initial_state)))
    return lambda _: state_schema.decode_sync(from_json_bytes(encoded, max_bytes=len(encoded)))


class Debounce:
    """Batches: ``Debounce.make(event_schema=..., flush_after="5 seconds", execute=...)``."""

    # Without a state_schema, then with one. Each first for handlers that need no service, because pyright
    # cannot solve `R1 | R2` when both are Never; then for an on_event that answers an Effect, because mypy
    # cannot solve a lambda's R1 inside a Program whose value is given too; then for any other.
    @overload
    @staticmethod
    def make(
        *,
        event_schema: Schema[I] | type[I],
        flush_after: Span,
        on_event: Callable[[DebounceEventContext[I, I]], Program[I, Any, Never]] | None = ...,
        execute: Callable[[DebounceExecuteContext[I]], Program[Any, E1, Never]],
        max_events: int | None = ...,
        mode: Literal["fixed", "trailing"] = ...,
        max_wait: Span | None = ...,
        retry: Retry | None = ...,
        logging: JobLogging = ...,
    ) -> DebounceJob[I, I, E1, Never]: ...
    @overload
    @staticmethod
    def make(
        *,
        event_schema: Schema[I] | type[I],
        flush_after: Span,
        on_event: Callable[[DebounceEventContext[I, I]], Effect[I, Any, R1]],
        execute: Callable[[DebounceExecuteContext[I]], Program[Any, E1, R2]],
        max_events: int | None = ...,
        mode: Literal["fixed", "trailing"] = ...,
        max_wait: Span | None = ...,
        retry: Retry | None = ...,
        logging: JobLogging = ...,
    ) -> DebounceJob[I, I, E1, R1 | R2]: ...
    @overload
    @staticmethod
    def make(
        *,
        event_schema: Schema[I] | type[I],
        flush_after: Span,
        on_event: Callable[
            [DebounceEventContext[I, I]],
            Program[I, Any, R1],  # pyright: ignore[reportInvalidTypeVarUse] - without on_event it is Never
        ]
        | None = ...,
        execute: Callable[[DebounceExecuteContext[I]], Program[Any, E1, R2]],
        max_events: int | None = ...,
        mode: Literal["fixed", "trailing"] = ...,
        max_wait: Span | None = ...,
        retry: Retry | None = ...,
        logging: JobLogging = ...,
    ) -> DebounceJob[I, I, E1, R1 | R2]: ...
    @overload
    @staticmethod
    def make(
        *,
        event_schema: Schema[I] | type[I],
        state_schema: Schema[S] | type[S],
        initial_state: S | Callable[[], S],
        flush_after: Span,
        on_event: Callable[[DebounceEventContext[I, S]], Program[S, Any, Never]],
        execute: Callable[[DebounceExecuteContext[S]], Program[Any, E1, Never]],
        max_events: int | None = ...,
        mode: Literal["fixed", "trailing"] = ...,
        max_wait: Span | None = ...,
        retry: Retry | None = ...,
        logging: JobLogging = ...,
    ) -> DebounceJob[I, S, E1, Never]: ...
    @overload
    @staticmethod
    def make(
        *,
        event_schema: Schema[I] | type[I],
        state_schema: Schema[S] | type[S],
        initial_state: S | Callable[[], S],
        flush_after: Span,
        on_event: Callable[[DebounceEventContext[I, S]], Effect[S, Any, R1]],
        execute: Callable[[DebounceExecuteContext[S]], Program[Any, E1, R2]],
        max_events: int | None = ...,
        mode: Literal["fixed", "trailing"] = ...,
        max_wait: Span | None = ...,
        retry: Retry | None = ...,
        logging: JobLogging = ...,
    ) -> DebounceJob[I, S, E1, R1 | R2]: ...
    @overload
    @staticmethod
    def make(
        *,
        event_schema: Schema[I] | type[I],
        state_schema: Schema[S] | type[S],
        initial_state: S | Callable[[], S],
        flush_after: Span,
        on_event: Callable[[DebounceEventContext[I, S]], Program[S, Any, R1]],
        execute: Callable[[DebounceExecuteContext[S]], Program[Any, E1, R2]],
        max_events: int | None = ...,
        mode: Literal["fixed", "trailing"] = ...,
        max_wait: Span | None = ...,
        retry: Retry | None = ...,
        logging: JobLogging = ...,
    ) -> DebounceJob[I, S, E1, R1 | R2]: ...
    @staticmethod
    def make(
        *,
        event_schema: Schema[Any] | type[Any],
        flush_after: Span,
        execute: Callable[[DebounceExecuteContext[Any]], Any],
        state_schema: Schema[Any] | type[Any] | None = None,
        initial_state: Any = None,
        on_event: Callable[[DebounceEventContext[Any, Any]], Any] | None = None,
        max_events: int | None = None,
        mode: Literal["fixed", "trailing"] = "fixed",
        max_wait: Span | None = None,
        retry: Retry | None = None,
        logging: JobLogging = False,
    ) -> DebounceJob[Any, Any, Any, Any]:
        """Define a debounce job.

        A batch is flushed ``flush_after`` its first event, or with ``mode="trailing"`` after its latest one
        but no later than ``max_wait`` after the first; or at once when it holds ``max_events``. ``on_event``
        returns the state with the event in it; without it the latest event is kept. ``initial_state`` is a
        value or a function that makes one; without a ``state_schema`` the state is the event's own type
        and begins as the first event.
        """
        check_handler("execute", execute)
        check_option("retry", retry, Retry, A_RETRY)
        check_handler("on_event", on_event, optional=True)
        if mode not in ("fixed", "trailing"):
            raise ValueError(f'mode= takes "fixed" or "trailing", got {mode!r}')
        if max_wait is not None and mode != "trailing":
            raise ValueError(
                'max_wait= bounds mode="trailing"; a fixed window ends flush_after its first event'
            )
        check_option("max_events", max_events, int, "a number")
        if max_events is not None and (isinstance(max_events, bool) or max_events < 1):
            raise ValueError(f"max_events is 1 or more, got {max_events!r}")
        events = Schema.ensure(event_schema)
        first: Callable[[Any], Any] = _itself
        if state_schema is None:
            if initial_state is not None:
                raise ValueError("initial_state= needs a state_schema=")
            states = events
        else:
            if on_event is None:
                raise ValueError("state_schema= needs an on_event= that makes states out of events")
            states = Schema.ensure(state_schema)
            try:
                first = _first_states(states, initial_state)
            except SchemaError as error:
                raise ValueError(f"initial_state= is {ValidationError.of(error)}") from error
        return DebounceJob(
            event_schema=events,
            state_schema=states,
            first_state=first,
            flush_after=bounded(flush_after, "flush_after"),
            max_events=max_events,
            mode=mode,
            max_wait=None if max_wait is None else bounded(max_wait, "max_wait"),
            on_event=on_event or _keep_latest,
            execute=execute,
            retry=retry,
            log_level=logging_level(logging),
        )


def _itself(event: Any) -> Any:
    return event

"""Typed handles on jobs. Every method returns an effect: lazy, repeatable, awaitable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeAlias, TypeVar, overload

from durable_effect import Effect
from durable_effect_jobs.continuous import (
    ContinuousJob,
    ContinuousState,
    ContinuousStatus,
    Start,
    StartResult,
    Trigger,
    TriggerResult,
)
from durable_effect_jobs.debounce import (
    Add,
    AddResult,
    Clear,
    ClearResult,
    DebounceJob,
    DebounceState,
    DebounceStatus,
    Flush,
    FlushResult,
)
from durable_effect_jobs.engine import Engine
from durable_effect_jobs.errors import (
    DuplicateEventError,
    ExecutionError,
    InstanceNotFoundError,
    InvalidStateError,
    JobNotFoundError,
    Kind,
    SchedulerError,
    StorageError,
    ValidationError,
)
from durable_effect_jobs.instance import Instance, Key
from durable_effect_jobs.step import Command, Job
from durable_effect_jobs.task import (
    Send,
    SendResult,
    TaskJob,
    TaskState,
    TaskStatus,
    TaskTriggerResult,
    TriggerTask,
)
from durable_effect_jobs.terminate import Terminate, TerminateResult

__all__ = ["ContinuousClient", "DebounceClient", "JobsClient", "TaskClient"]

A = TypeVar("A")
S = TypeVar("S")
T = TypeVar("T")

ReadError: TypeAlias = JobNotFoundError | ValidationError | InvalidStateError | StorageError
"""What a read can fail with: unknown job, bad id, state that no longer fits, closed connection, storage."""
EndError: TypeAlias = ReadError
"""What ending an instance can fail with."""
RunError: TypeAlias = ReadError | InstanceNotFoundError | ExecutionError | SchedulerError
"""What a call that runs a handler can fail with."""
EventError: TypeAlias = ReadError | ExecutionError | SchedulerError | DuplicateEventError
"""What a call that brings an event can fail with."""


class _Handle:
    """A job as its clients know it."""

    __slots__ = ("_engine", "_kind", "_name")

    def __init__(self, engine: Engine, kind: Kind, name: str) -> None:
        self._engine = engine
        self._kind: Kind = kind
        self._name = name

    def _call(self, id: str, operation: str, command: Command[A]) -> Effect[A, Any]:
        """Each method below says which of the errors of a call its own command can meet."""
        return self._engine.call(Key(self._kind, self._name, id), operation, command)

    def _status(self, id: str) -> Effect[Any, Any]:
        def look(job: Any, before: Instance | None) -> Effect[Any]:
            return Effect.succeed(job.status(before))

        return self._engine.read(Key(self._kind, self._name, id), "status", look)

    def _state(self, id: str) -> Effect[Any, Any]:
        def look(job: Any, before: Instance | None) -> Effect[Any, Any]:
            state: Effect[Any, Any] = job.read(before)
            return state

        return self._engine.read(Key(self._kind, self._name, id), "get_state", look)


class ContinuousClient(_Handle, Generic[S]):
    """The instances of one continuous job."""

    __slots__ = ()

    def start(self, *, id: str, input: S | Mapping[str, Any]) -> Effect[StartResult, RunError]:
        """Bring an instance to life with ``input`` as its state; if there is one, change nothing."""
        return self._call(id, "start", Start(input))

    def trigger(self, id: str, /) -> Effect[TriggerResult, RunError]:
        """Run now, instead of waiting for the next tick."""
        return self._call(id, "trigger", Trigger())

    def status(self, id: str, /) -> Effect[ContinuousStatus, ReadError]:
        """Where the instance stands, as of its last commit."""
        return self._status(id)

    def get_state(self, id: str, /) -> Effect[ContinuousState[S], ReadError]:
        """The state, as of the last commit."""
        return self._state(id)

    def terminate(self, id: str, /, reason: str | None = None) -> Effect[TerminateResult, EndError]:
        """End the instance: its alarm and state are deleted, and its id is free again."""
        return self._call(id, "terminate", Terminate(reason))


class DebounceClient(_Handle, Generic[T, S]):
    """The batches of one debounce job."""

    __slots__ = ()

    def add(
        self, *, id: str, event: T | Mapping[str, Any], event_id: str | None = None
    ) -> Effect[AddResult, EventError]:
        """Put an event into the batch. A second one with the same ``event_id`` is refused."""
        return self._call(id, "add", Add(event, event_id))

    def flush(self, id: str, /) -> Effect[FlushResult, RunError]:
        """Process the batch now."""
        return self._call(id, "flush", Flush())

    def clear(self, id: str, /) -> Effect[ClearResult, EndError]:
        """Throw the batch away without processing it."""
        return self._call(id, "clear", Clear())

    def status(self, id: str, /) -> Effect[DebounceStatus, ReadError]:
        """Where the batch stands, as of its last commit."""
        return self._status(id)

    def get_state(self, id: str, /) -> Effect[DebounceState[S], ReadError]:
        """What was collected, as of the last commit."""
        return self._state(id)


class TaskClient(_Handle, Generic[S, T]):
    """The instances of one task."""

    __slots__ = ()

    def send(
        self, *, id: str, event: T | Mapping[str, Any], event_id: str | None = None
    ) -> Effect[SendResult, EventError]:
        """Give the task an event. A second one with the same ``event_id`` is refused."""
        return self._call(id, "send", Send(event, event_id))

    def trigger(self, id: str, /) -> Effect[TaskTriggerResult, RunError]:
        """Execute now, leaving what is scheduled alone."""
        return self._call(id, "trigger", TriggerTask())

    def status(self, id: str, /) -> Effect[TaskStatus, ReadError]:
        """Where the task stands, as of its last commit."""
        return self._status(id)

    def get_state(self, id: str, /) -> Effect[TaskState[S], ReadError]:
        """The state, as of the last commit."""
        return self._state(id)

    def terminate(self, id: str, /, reason: str | None = None) -> Effect[TerminateResult, EndError]:
        """End the instance: its schedule and state are deleted, and its id is free again."""
        return self._call(id, "terminate", Terminate(reason))


class JobsClient:
    """The way to all jobs of an application: by definition, typed by it, or by name."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @overload
    def continuous(self, job: ContinuousJob[S, Any, Any], /) -> ContinuousClient[S]: ...
    @overload
    def continuous(self, job: str, /) -> ContinuousClient[Any]: ...
    def continuous(self, job: Any, /) -> ContinuousClient[Any]:
        """The instances of a continuous job."""
        return ContinuousClient(self._engine, "continuous", self._name("continuous", job))

    @overload
    def debounce(self, job: DebounceJob[T, S, Any, Any], /) -> DebounceClient[T, S]: ...
    @overload
    def debounce(self, job: str, /) -> DebounceClient[Any, Any]: ...
    def debounce(self, job: Any, /) -> DebounceClient[Any, Any]:
        """The batches of a debounce job."""
        return DebounceClient(self._engine, "debounce", self._name("debounce", job))

    @overload
    def task(self, job: TaskJob[S, T, Any, Any], /) -> TaskClient[S, T]: ...
    @overload
    def task(self, job: str, /) -> TaskClient[Any, Any]: ...
    def task(self, job: Any, /) -> TaskClient[Any, Any]:
        """The instances of a task."""
        return TaskClient(self._engine, "task", self._name("task", job))

    def _name(self, kind: Kind, job: Job[Any, Any] | str) -> str:
        """The registered name; an unknown one fails when a call is run, naming those that there are."""
        if isinstance(job, str):
            return job
        known = self._engine.registry.name_of(job) if isinstance(job, Job) else None  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        return f"<unregistered {kind} definition>" if known is None else known

"""The host-free part: a command, or a due alarm, against one instance. Load, step, commit.

This is what other services embed. Provide a ``Storage`` and an ``Alarms`` (and, in tests, a ``Clock`` and
a ``Random``), keep the steps of one instance in order, and call :func:`fire_if_due` for every instance
whose alarm has come. Handlers see the services of the fiber that they are run in.

    dispatch(registry, key, command)         fire_if_due(registry, key)
        load                                     load
        decide -> Step                           fire -> Step
        commit                                   commit
        fire, if the alarm just written is due
        answer
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol, TypeAlias, cast

import attrs
from typing_extensions import Never, TypeVar

from durable_effect import Cause, Clock, Do, Effect, Need, Random, Restore
from durable_effect_jobs.attempt import inside, job_logger
from durable_effect_jobs.errors import (
    DuplicateEventError,
    InvalidStateError,
    JobNotFoundError,
    SchedulerError,
    StorageError,
    described,
)
from durable_effect_jobs.instance import Alarm, Commit, Instance, Key, text_problem
from durable_effect_jobs.registry import Registry
from durable_effect_jobs.step import Command, Fired, Job, Step, StepError, Turn, park
from durable_effect_jobs.storage import Conflict, Storage

__all__ = ["Alarms", "CallError", "dispatch", "fire_if_due", "inspect"]

A = TypeVar("A")

CallError: TypeAlias = StepError | JobNotFoundError | DuplicateEventError | StorageError

_MOST_CONFLICTS = 8
"""Hosts keep steps in order, so a conflict means that somebody else writes here: try again a few times."""


class Alarms(Protocol):
    """The port to waking: a hint that an instance is to be looked at. Losing one costs time, not work."""

    def wake(self, key: Key, at: datetime) -> Effect[None]:
        """``key`` has an alarm at ``at``."""
        ...


@Effect.gen
def dispatch(
    registry: Registry, key: Key, operation: str, command: Command[A]
) -> Do[A, CallError, Need[Storage] | Need[Alarms]]:
    """Run a command against its instance, and the alarm that it set to now; answer when all is durable."""
    job = yield from _job(registry, key)
    yield from _refuse_bad_calls(key, operation, command)
    for _ in range(_MOST_CONFLICTS):
        answered = yield from _dispatch(registry, job, key, command)
        if answered is not None:
            return answered[0]
    return (yield from Effect.fail(StorageError(operation, Conflict(key))))


@Effect.gen
def _dispatch(
    registry: Registry, job: Job[Any, Any], key: Key, command: Command[A]
) -> Do[tuple[A] | None, CallError, Any]:
    storage = yield from Effect.service(Storage)
    now = yield from Clock.now()
    turn = Turn(key=key, now=now, limits=registry.limits, include_state=registry.include_state)
    before = yield from storage.load(key)
    if command.event_id is not None and (yield from storage.is_marked(key, command.event_id, now)):
        return (yield from Effect.fail(DuplicateEventError(command.event_id)))
    step: Step = yield from command.decide(job, before, turn)
    decided_at = yield from Clock.now()  # a handler that schedules "now" means a moment after this call began
    if step.after is before or step.after is None or not step.after.is_due(decided_at):
        written = (
            yield from _commit(registry, key, step, now).tap(lambda _: _wake(key, step)).uninterruptible()
        )
        return (command.answer(turn, step, None),) if written else None
    return (
        yield from Effect.uninterruptible_mask(
            lambda restore: _commit_and_fire(restore, registry, job, command, turn, step)
        )
    )


@Effect.gen
def _commit_and_fire(
    restore: Restore, registry: Registry, job: Job[Any, Any], command: Command[A], turn: Turn, step: Step
) -> Do[tuple[A] | None, CallError, Any]:
    """The alarm that was set to now fires within the call; whoever calls that off leaves it to the alarms."""
    if not (yield from _commit(registry, turn.key, step, turn.now)):
        return None
    due = cast("Instance", step.after)
    # What was set to the call's own time is not late, however long the commit took.
    began = max(turn.now, cast("Alarm", due.alarm).at)
    run = _fire(registry, job, due, began, own=True)
    fired = yield from restore(run).on_error(lambda _: _wake(turn.key, step))
    if fired is None:
        return (command.answer(turn, step, None),)
    error = cast("Fired", fired.fired).error
    if error is not None:
        return (yield from Effect.fail(error))
    return (command.answer(turn, step, fired),)


@Effect.gen
def fire_if_due(
    registry: Registry, key: Key
) -> Do[Fired | None, StorageError | JobNotFoundError, Need[Storage] | Need[Alarms]]:
    """Run the alarm of an instance if its time has come; ``None`` if not, or if it was changed meanwhile."""
    job = yield from _job(registry, key)
    storage = yield from Effect.service(Storage)
    before = yield from storage.load(key)
    now = yield from Clock.now()
    if before is None or not before.is_due(now):
        return None
    step = yield from _fire(registry, job, before, now, own=False)
    return None if step is None else step.fired


@Effect.gen
def inspect(
    registry: Registry, key: Key, operation: str, look: Callable[[Any, Instance | None], Effect[A, StepError]]
) -> Do[A, CallError, Need[Storage]]:
    """Answer a read from the last commit, without waiting for a running handler."""
    job = yield from _job(registry, key)
    problem = key.problem()
    if problem is not None:
        return (yield from Effect.fail(problem))
    storage = yield from Effect.service(Storage)
    before = yield from storage.load(key)
    return (yield from look(job, before))


@Effect.gen
def _fire(
    registry: Registry, job: Job[Any, Any], before: Instance, now: datetime, *, own: bool
) -> Do[Step | None, StorageError, Any]:
    """One run, committed. ``None`` when the record changed under it: then the run never happened."""
    turn = Turn(
        key=before.key, now=now, limits=registry.limits, include_state=registry.include_state, own=own
    )
    step: Step = yield from job.fire(before, turn).catch_cause(lambda cause: _undecided(before, turn, cause))
    ended = yield from Clock.now()
    commit = _no_duplicate(_commit(registry, before.key, step, ended))
    if not (yield from commit.tap(lambda _: _wake(before.key, step)).uninterruptible()):
        return None
    _report(job, before, cast("Fired", step.fired), step)
    return step


def _undecided(before: Instance, turn: Turn, cause: Cause[Never]) -> Effect[Step]:
    """A bug beside the handler, as in a schema of one's own: keep the record, and look again later."""
    if cause.is_interrupted_only:
        return Effect.fail_cause(cause)
    return Effect.succeed(park(before, turn, SchedulerError("decide what follows", cause.squash())))


def _no_duplicate(
    commit: Effect[bool, StorageError | DuplicateEventError, Any],
) -> Effect[bool, StorageError, Any]:
    """A run marks no event."""
    return commit.catch_all(
        lambda error: Effect.fail(error) if isinstance(error, StorageError) else Effect.die(error)
    )


@Effect.gen
def _commit(
    registry: Registry, key: Key, step: Step, at: datetime
) -> Do[bool, StorageError | DuplicateEventError, Need[Storage]]:
    """Write a step, if there is anything to write; ``False`` on a conflict. Run it uninterruptibly."""
    if not step.writes:
        return True
    storage = yield from Effect.service(Storage)
    stamped: list[Any] = []
    for event in step.events if registry.telemetry else ():
        number = yield from Random.uuid7()
        stamped.append(attrs.evolve(event, event_id=str(number)))
    commit = Commit(
        key=key,
        before=step.before,
        after=step.after,
        at=at,
        events=tuple(stamped),
        mark=step.mark,
        dead_letter=step.dead_letter,
    )
    written: Effect[bool, StorageError | DuplicateEventError] = (
        storage.commit(commit)
        .as_(True)
        .catch_all(lambda error: Effect.succeed(False) if isinstance(error, Conflict) else Effect.fail(error))
    )
    return (yield from written)


def _wake(key: Key, step: Step) -> Effect[None, Never, Need[Alarms]]:
    """Tell the host of the alarm that a step left."""
    alarm = step.after.alarm if step.writes and step.after is not None else None
    if alarm is None:
        return Effect.void
    return Effect.service(Alarms).flat_map(lambda alarms: alarms.wake(key, alarm.at))


def _job(registry: Registry, key: Key) -> Effect[Job[Any, Any], JobNotFoundError]:
    job = registry.find(key.kind, key.job)
    if job is None:
        return Effect.fail(JobNotFoundError(key.kind, key.job, registry.names(key.kind)))
    return Effect.succeed(job)


@Effect.gen
def _refuse_bad_calls(key: Key, operation: str, command: Command[Any]) -> Do[None, StepError]:
    problem = key.problem()
    if problem is None and command.event_id is not None:
        problem = text_problem("event_id", command.event_id)
    if problem is not None:
        yield from Effect.fail(problem)
    around = yield from inside()
    if key in around.keys:
        yield from Effect.fail(
            InvalidStateError(
                expected="another instance, or the handler to have ended",
                actual=f"it was called from the handler of {key.instance_id} itself",
                operation=operation,
            )
        )


def _report(job: Job[Any, Any], before: Instance, fired: Fired, step: Step) -> None:
    """Say in the job's log what became of a run: failures as errors, the rest as information."""
    level, text = _REPORTS[fired.result]
    if level < job.log_level:
        return
    error = None if step.after is None else step.after.last_error
    if error is None and step.dead_letter is not None:
        error = step.dead_letter.instance.last_error
    detail = "" if error is None or fired.result == "done" else f": {described(error.type, error.message)}"
    job_logger(before.key.kind, before.key.job).log(
        level,
        "%s %s%s",
        before.key.instance_id,
        text,
        detail,
        exc_info=fired.defect,
        extra={"instance_id": before.key.instance_id, "run_count": step.run_count, "result": fired.result},
    )


_REPORTS: dict[str, tuple[int, str]] = {
    "done": (20, "ran"),
    "terminated": (20, "terminated itself"),
    "retrying": (40, "failed and will be tried again"),
    "failed": (40, "failed"),
    "stopped": (40, "failed for the last time and is stopped"),
    "exhausted": (40, "failed for the last time and is kept as a dead letter"),
    "parked": (40, "cannot run with what is stored, and is kept"),
}

"""The host-free part: a command, or a due alarm, against one instance. Load, step, commit.

This is what other services embed. Provide a ``Storage`` and an ``Alarms`` (and, in tests, a ``Clock`` and
a ``Random``), keep the steps of one instance in order, and call :func:`fire_if_due` for every instance
whose alarm has come. Handlers see the services of the fiber that they are run in.

    dispatch(registry, key, command)              fire_if_due(registry, key)
        load                                          claim: lease and fence
        decide -> Step                                fire -> Step
        commit, with a lease if its alarm is due      commit: gives the lease back
        fire -> Step, commit
        answer

A run holds a lease from before its handler begins until its outcome is committed. A lease that ends in any
other way is the trace of a crash: the next claim counts it, and a run that keeps taking its process down is
put off, then quarantined.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeAlias, cast

import attrs
from typing_extensions import Never, TypeVar

from durable_effect import Cause, Clock, Do, Effect, Need, Random, Restore
from durable_effect_jobs.attempt import inside, job_logger
from durable_effect_jobs.errors import (
    DuplicateEventError,
    InstanceBusy,
    InvalidStateError,
    JobNotFoundError,
    Overloaded,
    SchedulerError,
    StorageError,
    described,
)
from durable_effect_jobs.events import Failure, JobFailed
from durable_effect_jobs.instance import Alarm, Claim, Commit, Instance, Key, Lease, text_problem
from durable_effect_jobs.registry import Registry
from durable_effect_jobs.step import Command, Fired, Job, Step, StepError, Turn, park
from durable_effect_jobs.storage import Closed, Conflict, Storage
from durable_effect_jobs.worker import WORKER, Worker

__all__ = ["Alarms", "CallError", "dispatch", "fire_if_due", "inspect"]

A = TypeVar("A")

CallError: TypeAlias = (
    StepError | JobNotFoundError | DuplicateEventError | StorageError | InstanceBusy | Overloaded
)

_MOST_CONFLICTS = 8
"""Hosts keep steps in order, so a conflict means that somebody else writes here: try again a few times."""

_SOON, _LATER = timedelta(milliseconds=5), timedelta(milliseconds=200)
"""How often a call looks whether another process is done with its instance."""

_CALL_RESENDS = tuple(timedelta(milliseconds=ms) for ms in (10, 50, 250, 1_000))
_RUN_RESENDS = (*_CALL_RESENDS, *(timedelta(seconds=seconds) for seconds in (2, 4, 8)))
"""When a commit whose fate is unknown is sent again. What a handler did outside is worth more patience."""

_LONGEST_DELAY = timedelta(seconds=60)


class Alarms(Protocol):
    """The port to waking: a hint that an instance is to be looked at. Losing one costs time, not work."""

    def wake(self, key: Key, at: datetime) -> Effect[None]:
        """``key`` has an alarm at ``at``."""
        ...


@Effect.gen
def dispatch(
    registry: Registry, key: Key, operation: str, command: Command[A]
) -> Do[A, CallError, Need[Storage] | Need[Alarms]]:
    """Run a command against its instance, and the alarm that it set to now; answer when all is durable.

    An instance that another process runs is waited for, up to the limit ``call_timeout``.
    """
    job = yield from _job(registry, key)
    yield from _refuse_bad_calls(key, operation, command)
    worker = yield from Effect.service(WORKER)
    conflicts, wait, began = 0, _SOON, None
    known: Instance | None = None
    while command.preempts or conflicts < _MOST_CONFLICTS:
        now = yield from Clock.now()
        answered = yield from _dispatch(registry, job, key, operation, command, worker, now, known)
        if isinstance(answered, tuple):
            return answered[0]
        if isinstance(answered, _Conflicted):
            conflicts += 1
            known = answered.before
            continue
        began = began or now
        if now - began >= registry.limits.call_timeout:
            yield from Effect.fail(InstanceBusy(key.instance_id, now - began))
        part = yield from Random.uniform(0.5, 1.0)
        yield from Effect.sleep(wait * part)
        wait = min(wait * 2, _LATER)
    return (yield from Effect.fail(StorageError(operation, Conflict(key))))


@Effect.gen
def _dispatch(
    registry: Registry,
    job: Job[Any, Any],
    key: Key,
    operation: str,
    command: Command[A],
    worker: Worker,
    now: datetime,
    known: Instance | None,
) -> Do[tuple[A] | _Conflicted | _Busy, CallError, Any]:
    storage = yield from Effect.service(Storage)
    turn = Turn(key=key, now=now, limits=registry.limits, include_state=registry.include_state)
    before = yield from storage.load(key)
    if (
        known is not None
        and command.brings_event
        and (before is None or before.incarnation != known.incarnation)
    ):
        yield from Effect.fail(_ended(key, operation))
    if before is not None and before.lease is not None and not command.preempts:
        if worker.holds(before) or (before.lease.owner != worker.owner and before.lease.until > now):
            return _Busy()
        before = _left(before, worker)
    if command.event_id is not None and (yield from storage.is_marked(key, command.event_id, now)):
        return (yield from Effect.fail(DuplicateEventError(command.event_id)))
    step: Step = yield from command.decide(job, before, turn)
    after = step.after
    decided_at = yield from Clock.now()  # a handler that schedules "now" means a moment after this call began
    banned = after is not None and (after.quarantined or after.crashes >= registry.limits.quarantine_after)
    if after is before or after is None or banned or not after.is_due(decided_at):
        if after is not None and banned and command.runs:
            yield from Effect.fail(_in_quarantine(after, operation))
        written = yield from _written(registry, command, step, turn, worker).uninterruptible()
        return (command.answer(turn, step, None),) if written else _Conflicted(before)
    own = Effect.uninterruptible_mask(
        lambda restore: _commit_and_fire(restore, registry, job, operation, command, turn, step, worker)
    )
    return (yield from worker.admit(after.crashes > 0, own))


@attrs.frozen
class _Busy:
    """Somebody runs the instance: another process, or a call that is done with its place in the order."""


@attrs.frozen
class _Conflicted:
    """Somebody else wrote since ``before`` was loaded."""

    before: Instance | None


def _ended(key: Key, operation: str) -> InvalidStateError:
    return InvalidStateError(
        "an instance that goes on", f"{key.instance_id} was ended while its handler ran", operation
    )


def _called_off(key: Key, operation: str) -> InvalidStateError:
    return InvalidStateError(
        "a run that ends", f"that of {key.instance_id} was called off: its alarm runs again", operation
    )


def _left(before: Instance, worker: Worker) -> Instance:
    """The record whose lease is over. A step that follows keeps its revision and fence to compare with."""
    lease = cast("Lease", before.lease)
    died = lease.owner != worker.owner
    return before.replace(lease=None, crashes=before.crashes + died)


def _in_quarantine(instance: Instance, operation: str) -> InvalidStateError:
    return InvalidStateError(
        "an instance that is not quarantined",
        f"{instance.key.instance_id} took its process down {instance.crashes} times in a row: resume it",
        operation,
    )


@Effect.gen
def _written(
    registry: Registry, command: Command[Any], step: Step, turn: Turn, worker: Worker
) -> Do[bool, StorageError | DuplicateEventError, Any]:
    fence = yield from _commit(registry, turn.key, step, turn.now, _CALL_RESENDS)
    if fence is None:
        return False
    if command.preempts and step.before is not None:
        yield from worker.preempt(step.before)
    yield from _wake(turn.key, step)
    return True


@Effect.gen
def _commit_and_fire(
    restore: Restore,
    registry: Registry,
    job: Job[Any, Any],
    operation: str,
    command: Command[A],
    turn: Turn,
    step: Step,
    worker: Worker,
) -> Do[tuple[A] | _Conflicted, CallError, Any]:
    """The alarm that was set to now fires within the call; whoever calls that off leaves it to the alarms."""
    committed_at = yield from Clock.now()
    lease = Lease(worker.owner, committed_at + registry.limits.lease)
    leased = cast("Instance", step.after).replace(lease=lease)
    commit = _commit(registry, turn.key, attrs.evolve(step, after=leased), turn.now, _CALL_RESENDS)
    fence = yield from commit.on_error(lambda _: _release(turn.key, worker))
    if fence is None:
        return _Conflicted(step.before)
    due = leased.replace(fence=fence)
    # What was set to the call's own time is not late, however long the commit took.
    began = max(turn.now, cast("Alarm", due.alarm).at)
    fired: Step | None = None
    if fence:  # without one the write was sent again after somebody had ended what it wrote
        fired = yield from _fire(restore, registry, job, due, began, worker, own=True)
    if fired is None:
        fired = yield from _ended_meanwhile(due)
    if fired is None:
        if command.runs:
            yield from Effect.fail(_called_off(turn.key, operation))
        return (command.answer(turn, step, None),)
    error = cast("Fired", fired.fired).error
    if error is not None:
        return (yield from Effect.fail(error))
    return (command.answer(turn, step, fired),)


@Effect.gen
def _ended_meanwhile(due: Instance) -> Do[Step | None, StorageError, Any]:
    """What became of a run that was called off: somebody terminated the instance, or took it over."""
    storage = yield from Effect.service(Storage)
    stored = yield from storage.load(due.key)
    if stored is not None and stored.incarnation == due.incarnation:
        return None
    return Step(before=due, after=None, fired=Fired(result="terminated"))


@Effect.gen
def fire_if_due(
    registry: Registry, key: Key, *, alone: bool = True
) -> Do[Fired | None, StorageError | JobNotFoundError, Need[Storage] | Need[Alarms]]:
    """Run the alarm of an instance if its time has come; ``None`` if not, or if it was changed meanwhile.

    ``alone`` says that no other run is in progress in this process: only then a suspect is run.
    """
    job = yield from _job(registry, key)
    worker = yield from Effect.service(WORKER)
    return (
        yield from Effect.uninterruptible_mask(
            lambda restore: _claim_and_fire(restore, registry, job, key, worker, alone)
        )
    )


@Effect.gen
def _claim_and_fire(
    restore: Restore, registry: Registry, job: Job[Any, Any], key: Key, worker: Worker, alone: bool
) -> Do[Fired | None, StorageError, Any]:
    storage = yield from Effect.service(Storage)
    now = yield from Clock.now()
    claim = storage.claim(Claim(key, worker.owner, now, now + registry.limits.lease))
    claimed = yield from claim.on_error(lambda _: _release(key, worker))  # it may have happened all the same
    if claimed is None:
        return None
    held = claimed.instance
    step = yield from _instead_of_a_run(registry, held, claimed.recovered, now)
    if step is not None:
        commit = _no_duplicate(_commit(registry, key, step, now, _RUN_RESENDS))
        if (yield from commit.on_error(lambda _: _give_back(held, worker))) is not None:
            yield from _wake(key, step)
            if step.fired is not None:
                _report(job, held, step.fired, step)
        return step.fired
    if not held.is_due(now) or (held.crashes and not alone):
        yield from _give_back(held, worker)
        return None
    step = yield from _fire(restore, registry, job, held, now, worker, own=False)
    return None if step is None else step.fired


@Effect.gen
def _instead_of_a_run(registry: Registry, held: Instance, recovered: bool, now: datetime) -> Do[Step | None]:
    """The step for what must not run now: it died again and is put off, ever longer, or quarantined."""
    if held.alarm is None:
        return None
    if held.crashes >= registry.limits.quarantine_after:
        return _quarantine(registry, held, now)
    if not recovered:
        # The storage found an alarm that the record does not have: what it has takes its place.
        return None if held.is_due(now) else Step(before=held, after=held.evolve())
    if held.crashes < 2:
        return None
    part = yield from Random.uniform(0.9, 1.1)
    delay = min(timedelta(seconds=2 ** (held.crashes - 1) - 1), _LONGEST_DELAY) * part
    after = held.evolve(alarm=Alarm(now + delay, held.alarm.reason))
    return Step(before=held, after=after, fired=Fired(result="put off"))


def _quarantine(registry: Registry, held: Instance, now: datetime) -> Step:
    failure = Failure(
        "Quarantined", f"its run ended {held.crashes} times in a row with the death of the process"
    )
    turn = Turn(key=held.key, now=now, limits=registry.limits)
    fact = turn.fact(
        JobFailed,
        error=failure,
        run_count=held.run_count,
        attempt=held.failed_attempts + 1,
        will_retry=False,
    )
    after = held.evolve(quarantined=True, last_error=failure)
    return Step(before=held, after=after, events=(fact,), fired=Fired(result="quarantined"))


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
    restore: Restore,
    registry: Registry,
    job: Job[Any, Any],
    held: Instance,
    now: datetime,
    worker: Worker,
    *,
    own: bool,
) -> Do[Step | None, StorageError, Any]:
    """One run, committed. ``None`` when its lease was lost, or the record is gone: then it never happened."""
    turn = Turn(key=held.key, now=now, limits=registry.limits, include_state=registry.include_state, own=own)
    run = job.fire(held, turn).catch_cause(lambda cause: _undecided(held, turn, cause))
    ran = restore(worker.supervise(held, run))
    step = yield from ran.on_error(lambda _: _give_back(held, worker))
    if step is None:
        return None
    if held.crashes and step.after is not None and cast("Fired", step.fired).result != "parked":
        step = attrs.evolve(step, after=step.after.replace(crashes=0))
    ended = yield from Clock.now()
    commit = _no_duplicate(_commit(registry, held.key, step, ended, _RUN_RESENDS))
    if (yield from commit.on_error(lambda _: _give_back(held, worker))) is None:
        return None
    yield from _wake(held.key, step)
    _report(job, held, cast("Fired", step.fired), step)
    return step


@Effect.gen
def _release(key: Key, worker: Worker) -> Do[None, Never, Any]:
    storage = yield from Effect.service(Storage)
    yield from storage.release(worker.owner, [key]).ignore()


@Effect.gen
def _give_back(held: Instance, worker: Worker) -> Do[None, Never, Any]:
    """A run that will not be committed leaves its alarm to the next one, as if it had not begun."""
    yield from _release(held.key, worker)
    alarms = yield from Effect.service(Alarms)
    if held.alarm is not None:
        yield from alarms.wake(held.key, held.alarm.at)


def _undecided(before: Instance, turn: Turn, cause: Cause[Never]) -> Effect[Step]:
    """A bug beside the handler, as in a schema of one's own: keep the record, and look again later."""
    if cause.is_interrupted_only:
        return Effect.fail_cause(cause)
    return Effect.succeed(park(before, turn, SchedulerError("decide what follows", cause.squash())))


def _no_duplicate(
    commit: Effect[int | None, StorageError | DuplicateEventError, Any],
) -> Effect[int | None, StorageError, Any]:
    """A run marks no event."""
    return commit.catch_all(
        lambda error: Effect.fail(error) if isinstance(error, StorageError) else Effect.die(error)
    )


@Effect.gen
def _commit(
    registry: Registry, key: Key, step: Step, at: datetime, resends: tuple[timedelta, ...]
) -> Do[int | None, StorageError | DuplicateEventError, Need[Storage]]:
    """Write a step, if there is anything to write; ``None`` on a conflict. Run it uninterruptibly."""
    if not step.writes:
        return 0
    storage = yield from Effect.service(Storage)
    stamped: list[Any] = []
    for event in step.events if registry.telemetry else ():
        number = yield from Random.uuid7()
        stamped.append(attrs.evolve(event, event_id=str(number)))
    token = yield from Random.uuid7()
    commit = Commit(
        key=key,
        before=step.before,
        after=step.after,
        at=at,
        token=token.hex,
        events=tuple(stamped),
        mark=step.mark,
        dead_letter=step.dead_letter,
    )
    sent: Effect[int | None, StorageError | DuplicateEventError] = storage.commit(commit).catch_all(
        lambda error: _not_written(storage, commit, resends, error)
    )
    return (yield from sent)


def _not_written(
    storage: Storage,
    commit: Commit,
    resends: tuple[timedelta, ...],
    error: StorageError | Conflict | DuplicateEventError,
) -> Effect[int | None, StorageError | DuplicateEventError]:
    if isinstance(error, Conflict):
        return Effect.succeed(None)
    if isinstance(error, DuplicateEventError):
        return Effect.fail(error)
    return _resent(storage, commit, resends, error)


@Effect.gen
def _resent(
    storage: Storage, commit: Commit, resends: tuple[timedelta, ...], error: StorageError
) -> Do[int | None, StorageError]:
    """Find out what became of a write, by sending the same one again.

    If the record has changed by then, nobody can tell any more: the handler is not run a second time.
    """
    for wait in resends:
        if isinstance(error.cause, Closed):
            break
        yield from Effect.sleep(wait)
        answer = yield from storage.commit(commit).catch_all(lambda again: Effect.succeed(again))
        if isinstance(answer, int):
            return answer
        if not isinstance(answer, StorageError) or isinstance(answer.cause, Closed):
            break
    return (yield from Effect.fail(error))


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
    "put off": (40, "took its process down again, and is put off"),
    "quarantined": (40, "took its process down too often, and is quarantined until it is resumed"),
}

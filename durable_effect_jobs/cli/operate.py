"""Looking at stored instances, and reaching for them, with the user's code or without.

A look opens a SQLite file only to read, which a host that has the file does not mind. A change needs the
file for itself. Commands decide their step from the record alone, so without the user's code a trigger is
the alarm set to now: the next host runs it.
"""

from __future__ import annotations

from typing import Any, cast

import attrs

from durable_effect import Clock, Do, Effect, Need, Schema, Scope, TypedError
from durable_effect_jobs.cli.arguments import storage_from
from durable_effect_jobs.client import JobsClient
from durable_effect_jobs.continuous import Continuous, Trigger, TriggerResult
from durable_effect_jobs.debounce import Debounce, Flush, FlushResult
from durable_effect_jobs.errors import InstanceNotFoundError, InvalidStateError, Kind, StorageError
from durable_effect_jobs.instance import Commit, DeadLetter, Instance, Key
from durable_effect_jobs.jobs import DurableJobs
from durable_effect_jobs.step import Command, Job, Limits, Turn
from durable_effect_jobs.storage import Conflict, Storage
from durable_effect_jobs.task import Task, TaskTriggerResult, TriggerTask
from durable_effect_jobs.terminate import Terminate

__all__ = [
    "dead_letters",
    "find",
    "instances",
    "purge",
    "replay",
    "terminate",
    "terminate_here",
    "trigger",
    "trigger_here",
]


# -- looking ---------------------------------------------------------------------------------------


@Effect.gen
def find(url: str, key: Key) -> Do[Instance, StorageError | InstanceNotFoundError, Need[Scope]]:
    """The record, as of its last commit."""
    storage = yield from storage_from(url, read_only=True)
    found = yield from storage.load(key)
    return (yield from Effect.from_optional(found, lambda: InstanceNotFoundError(key.instance_id)))


@Effect.gen
def instances(
    url: str, *, kind: Kind | None, job: str | None, limit: int
) -> Do[tuple[Instance, ...], StorageError, Need[Scope]]:
    """The first ``limit`` records, of one kind or one job if these are given."""
    storage = yield from storage_from(url, read_only=True)
    if kind is None and job is None:
        return tuple((yield from storage.instances(limit=limit)))
    found: list[Instance] = []
    for name in sorted((yield from storage.jobs())):
        if kind in (None, name[0]) and job in (None, name[1]) and len(found) < limit:
            found += yield from storage.instances(job=name, limit=limit - len(found))
    return tuple(found)


@Effect.gen
def dead_letters(url: str, *, limit: int) -> Do[tuple[DeadLetter, ...], StorageError, Need[Scope]]:
    """The first ``limit`` dead letters."""
    storage = yield from storage_from(url, read_only=True)
    return tuple((yield from storage.dead_letters(limit=limit)))


# -- reaching for one, with its code ---------------------------------------------------------------


@Effect.gen
def trigger_here(
    jobs: DurableJobs[Any], url: str, key: Key
) -> Do[TriggerResult | FlushResult | TaskTriggerResult, TypedError, Need[Scope]]:
    """Run it now, in this process, and answer what its client answers."""
    client = yield from _client(jobs, url, key)
    match key.kind:
        case "continuous":
            return (yield from client.continuous(key.job).trigger(key.id))
        case "debounce":
            return (yield from client.debounce(key.job).flush(key.id))
        case "task":
            return (yield from client.task(key.job).trigger(key.id))


@Effect.gen
def terminate_here(
    jobs: DurableJobs[Any], url: str, key: Key, reason: str | None
) -> Do[None, TypedError, Need[Scope]]:
    """Delete the record, and report its end when the jobs have a tracker."""
    client = yield from _client(jobs, url, key)
    match key.kind:
        case "continuous":
            yield from client.continuous(key.job).terminate(key.id, reason)
        case "debounce":
            yield from client.debounce(key.job).clear(key.id)
        case "task":
            yield from client.task(key.job).terminate(key.id, reason)


@Effect.gen
def _client(jobs: DurableJobs[Any], url: str, key: Key) -> Do[JobsClient, TypedError, Need[Scope]]:
    yield from find(url, key).scoped()  # a storage that is not there is not made, and an instance neither
    storage = yield from storage_from(url)
    return (yield from jobs.open(storage, alarms=False))


# -- and without -----------------------------------------------------------------------------------


def trigger(url: str, key: Key) -> Effect[None, TypedError, Need[Scope]]:
    """Set the alarm to now: who hosts the job next runs it."""
    return _replace(url, key, _TRIGGERS[key.kind])


def terminate(url: str, key: Key, reason: str | None) -> Effect[None, TypedError, Need[Scope]]:
    """Delete the record. Nothing is reported: only the code can tell whether there is a tracker."""
    return _replace(url, key, Terminate(reason))


@Effect.gen
def _replace(url: str, key: Key, command: Command[Any]) -> Do[None, TypedError, Need[Scope]]:
    yield from find(url, key).scoped()
    storage = yield from storage_from(url)
    before = yield from storage.load(key)
    now = yield from Clock.now()
    turn = Turn(key=key, now=now, limits=Limits())
    step = yield from command.decide(_STAND_INS[key.kind], before, turn)
    if step.writes:
        yield from storage.commit(Commit(key=key, before=step.before, after=step.after, at=now))


# -- dead letters ----------------------------------------------------------------------------------


@Effect.gen
def replay(url: str, number: int) -> Do[Key, TypedError, Need[Scope]]:
    """Bring the instance of a dead letter back to life, due now, with a fresh attempt count."""
    storage = yield from storage_from(url)
    letter = yield from _dead_letter(storage, number)
    now = yield from Clock.now()
    key = letter.instance.key
    turn = Turn(key=key, now=now, limits=Limits())
    step = yield from _TRIGGERS[key.kind].decide(_STAND_INS[key.kind], letter.instance, turn)
    alive = attrs.evolve(cast("Instance", step.after), stopped=False)
    birth = storage.commit(Commit(key=key, before=None, after=alive, at=now, replays=number))
    in_use = InvalidStateError(
        "an id that is free", f"there is an instance {key.instance_id} again", "replay"
    )
    yield from birth.catch_all(lambda error: Effect.fail(in_use if isinstance(error, Conflict) else error))
    return key


@Effect.gen
def purge(url: str, number: int) -> Do[Key, TypedError, Need[Scope]]:
    """Remove a dead letter for good."""
    storage = yield from storage_from(url)
    letter = yield from _dead_letter(storage, number)
    yield from storage.remove_dead_letter(number)
    return letter.instance.key


@Effect.gen
def _dead_letter(storage: Storage, number: int) -> Do[DeadLetter, StorageError | InvalidStateError]:
    page = yield from storage.dead_letters(after=number - 1, limit=1)
    if page and page[0].number == number:
        return page[0]
    missing = InvalidStateError("a dead letter that is there", f"there is no dead letter {number}", "find")
    return (yield from Effect.fail(missing))


def _never_run(*_: object) -> Effect[None]:
    raise AssertionError("a stand-in decides steps, and runs nothing")


_TRIGGERS: dict[Kind, Command[Any]] = {"continuous": Trigger(), "debounce": Flush(), "task": TriggerTask()}
_STAND_INS: dict[Kind, Job[Any, Any]] = {
    "continuous": Continuous.make(
        state_schema=Schema.unknown, schedule=Continuous.every("1 day"), execute=_never_run
    ),
    "debounce": Debounce.make(event_schema=Schema.unknown, flush_after="1 day", execute=_never_run),
    "task": Task.make(
        state_schema=Schema.unknown, event_schema=Schema.unknown, on_event=_never_run, execute=_never_run
    ),
}
"""Definitions that accept any state: what a trigger decides depends on nothing else of the job."""

"""Looking at stored instances, and reaching for one, with the user's code or without.

A look opens a SQLite file only to read, which a host that has the file does not mind. A change needs the
file for itself. Commands decide their step from the record alone, so without the user's code a trigger is
the alarm set to now: the next host runs it.
"""

from __future__ import annotations

from typing import Any

from durable_effect import Clock, Do, Effect, Need, Random, Schema, Scope, TypedError
from durable_effect_jobs.cli.arguments import storage_from, storage_to_change
from durable_effect_jobs.client import JobsClient
from durable_effect_jobs.continuous import Continuous, Trigger, TriggerResult
from durable_effect_jobs.debounce import Debounce, Flush, FlushResult
from durable_effect_jobs.errors import InstanceNotFoundError, Kind, StorageError
from durable_effect_jobs.instance import Commit, Instance, Key
from durable_effect_jobs.jobs import DurableJobs
from durable_effect_jobs.step import Command, Job, Limits, Step, StepError, Turn
from durable_effect_jobs.task import Task, TaskTriggerResult, TriggerTask
from durable_effect_jobs.terminate import Terminate

__all__ = ["TRIGGERS", "decide", "find", "terminate", "terminate_here", "trigger", "trigger_here"]


@Effect.gen
def find(url: str, key: Key) -> Do[Instance, StorageError | InstanceNotFoundError, Need[Scope]]:
    """The record, as of its last commit."""
    storage = yield from storage_from(url, read_only=True)
    found = yield from storage.load(key)
    return (yield from Effect.from_optional(found, lambda: InstanceNotFoundError(key.instance_id)))


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
    storage = yield from storage_to_change(url)
    return (yield from jobs.open(storage, alarms=False))


# -- and without -----------------------------------------------------------------------------------


def trigger(url: str, key: Key) -> Effect[None, TypedError, Need[Scope]]:
    """Set the alarm to now: who hosts the job next runs it."""
    return _replace(url, key, TRIGGERS[key.kind])


def terminate(url: str, key: Key, reason: str | None) -> Effect[None, TypedError, Need[Scope]]:
    """Delete the record. Nothing is reported: only the code can tell whether there is a tracker."""
    return _replace(url, key, Terminate(reason))


@Effect.gen
def _replace(url: str, key: Key, command: Command[Any]) -> Do[None, TypedError, Need[Scope]]:
    yield from find(url, key).scoped()
    storage = yield from storage_to_change(url)
    before = yield from storage.load(key)
    step = yield from decide(command, key, before)
    if step.writes:
        now, token = yield from Clock.now().zip(Random.uuid7())
        commit = Commit(key=key, before=step.before, after=step.after, at=now, token=token.hex)
        yield from storage.commit(commit)


@Effect.gen
def decide(command: Command[Any], key: Key, before: Instance | None) -> Do[Step, StepError, Any]:
    """The step of a command, without the definition of its job."""
    now = yield from Clock.now()
    turn = Turn(key=key, now=now, limits=Limits())
    return (yield from command.decide(_STAND_INS[key.kind], before, turn))


def _never_run(*_: object) -> Effect[None]:
    raise AssertionError("a stand-in decides steps, and runs nothing")


TRIGGERS: dict[Kind, Command[Any]] = {"continuous": Trigger(), "debounce": Flush(), "task": TriggerTask()}
"""The command that sets the alarm of each kind to now."""
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

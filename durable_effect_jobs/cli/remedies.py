"""What an operator does to instances that wait for somebody, without the user's code.

Each remedy is one atomic commit per instance, compared with what was seen before: what was changed meanwhile
is left as it is. Nothing runs here: the alarm is set to now, and the next host runs it.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, TypeAlias, cast

import attrs

from durable_effect import Clock, Do, Effect, Random, TypedError
from durable_effect_jobs.cli.operate import TRIGGERS, decide
from durable_effect_jobs.cli.selection import State
from durable_effect_jobs.errors import InvalidStateError
from durable_effect_jobs.events import Event
from durable_effect_jobs.instance import Commit, DeadLetter, Instance
from durable_effect_jobs.storage import Conflict, Storage
from durable_effect_jobs.terminate import Terminate

__all__ = ["Changed", "Found", "Purge", "Remedy", "Replay", "Resume", "RetryNow", "name_of"]

Found: TypeAlias = Instance | DeadLetter


@attrs.frozen
class Changed(TypedError):
    """It is not any more what was seen before; nothing was written."""

    name: str

    def __str__(self) -> str:
        return f"{self.name} was changed meanwhile, and is left as it is: look again"


class Remedy(Protocol):
    """One thing that can be done to instances, or to dead letters."""

    verb: ClassVar[str]
    states: ClassVar[tuple[State, ...]]
    """The states that can be asked for. What is in the first one is meant when nothing is asked for."""

    def refusal(self, found: Found) -> str | None:
        """Why it is not for this one."""
        ...

    def apply(self, storage: Storage, found: Found) -> Effect[str, TypedError]:
        """Do it, if ``found`` still is what is stored; answers what there is to say."""
        ...


def name_of(found: Found) -> str:
    """What an operator calls it."""
    if isinstance(found, Instance):
        return found.key.instance_id
    return f"dead letter {found.number} of {found.instance.key.instance_id}"


# -- instances -------------------------------------------------------------------------------------


class RetryNow:
    """Run what is stopped, parked or failed now, with a fresh attempt count."""

    verb: ClassVar[str] = "retry"
    states: ClassVar[tuple[State, ...]] = ("stopped", "parked", "retrying")

    def refusal(self, found: Found) -> str | None:
        """What is well is triggered, and what is quarantined is resumed."""
        if isinstance(found, DeadLetter):
            return "is none of the living: replay brings it back"
        if found.quarantined:
            return "is quarantined: resume lifts that"
        if found.stopped or found.parked or found.failed_attempts or found.last_error is not None:
            return None
        return "has not failed: trigger runs it"

    def apply(self, storage: Storage, found: Found) -> Effect[str, TypedError]:
        """Set its alarm to now."""
        return _due_now(_living(found), storage).as_(f"{name_of(found)} is due now")


class Resume:
    """Lift a quarantine."""

    verb: ClassVar[str] = "resume"
    states: ClassVar[tuple[State, ...]] = ("quarantined",)

    def refusal(self, found: Found) -> str | None:
        """Only what is quarantined."""
        return None if isinstance(found, Instance) and found.quarantined else "is not quarantined"

    def apply(self, storage: Storage, found: Found) -> Effect[str, TypedError]:
        """Forget the crashes; the alarm is as it was, or due now if there was none."""
        return _resumed(_living(found), storage)


@Effect.gen
def _resumed(instance: Instance, storage: Storage) -> Do[str, TypedError]:
    after = instance.evolve(quarantined=False, crashes=0)
    if after.alarm is None:
        after = attrs.evolve((yield from _alarmed(after)), revision=after.revision)
    yield from _commit(storage, instance, after)
    return f"{name_of(instance)} is resumed"


@Effect.gen
def _due_now(instance: Instance, storage: Storage) -> Do[None, TypedError]:
    yield from _commit(storage, instance, (yield from _alarmed(instance)))


@Effect.gen
def _alarmed(instance: Instance) -> Do[Instance, TypedError]:
    """What a trigger makes of it, whatever its job is. A retry that waited is superseded."""
    step = yield from decide(TRIGGERS[instance.key.kind], instance.key, instance)
    after = _living(step.after)
    waited = instance.failed_attempts > 0 or instance.parked
    return attrs.evolve(after, stopped=False, pending=instance.pending if waited else after.pending)


# -- and the dead ----------------------------------------------------------------------------------


@attrs.frozen
class Purge:
    """Remove dead letters for good, and instances that are stopped or quarantined."""

    verb: ClassVar[str] = "purge"
    states: ClassVar[tuple[State, ...]] = ("dead", "stopped", "quarantined")

    reason: str | None = None
    reports: bool = False
    """Whether the end of an instance is to be reported: its jobs have a tracker."""

    def refusal(self, found: Found) -> str | None:
        """What still works is terminated."""
        if isinstance(found, DeadLetter) or found.halted:
            return None
        return "is neither stopped nor quarantined: terminate ends it"

    def apply(self, storage: Storage, found: Found) -> Effect[str, TypedError]:
        """Remove it."""
        done = f"{name_of(found)} is gone"
        if isinstance(found, Instance):
            return self._end(storage, found).as_(done)
        return storage.remove_dead_letter(found.number).flat_map(
            lambda was_there: Effect.succeed(done) if was_there else Effect.fail(_changed(found))
        )

    @Effect.gen
    def _end(self, storage: Storage, instance: Instance) -> Do[None, TypedError]:
        step = yield from decide(Terminate(self.reason), instance.key, instance)
        events: list[Event] = []
        for event in step.events if self.reports else ():
            number = yield from Random.uuid7()
            events.append(attrs.evolve(event, event_id=str(number)))
        yield from _commit(storage, instance, None, events=tuple(events))


class Replay:
    """Bring dead letters back to life, due now and with a fresh attempt count."""

    verb: ClassVar[str] = "replay"
    states: ClassVar[tuple[State, ...]] = ("dead",)

    def refusal(self, found: Found) -> str | None:
        """Only the dead."""
        return None if isinstance(found, DeadLetter) else "is alive"

    def apply(self, storage: Storage, found: Found) -> Effect[str, TypedError]:
        """Its state and counts are as they were. An id that is in use again is not overwritten."""
        return _replayed(cast("DeadLetter", found), storage)


@Effect.gen
def _replayed(found: DeadLetter, storage: Storage) -> Do[str, TypedError]:
    key = found.instance.key
    if (yield from storage.load(key)) is not None:
        yield from Effect.fail(
            InvalidStateError("an id that is free", f"there is an instance {key.instance_id} again", "replay")
        )
    after = yield from _alarmed(found.instance)
    # Another life: what was read of the one that ended can no longer be committed.
    incarnation = yield from Random.uuid7()
    alive = after.replace(incarnation=incarnation.hex, lease=None, crashes=0, quarantined=False)
    now, token = yield from Clock.now().zip(Random.uuid7())
    birth = Commit(key=key, before=None, after=alive, at=now, token=token.hex, replays=found.number)
    yield from storage.commit(birth).map_error(lambda error: _told(error, found))
    return f"{key.instance_id} lives again and is due now"


# -- writing ---------------------------------------------------------------------------------------


def _living(found: Found | None) -> Instance:
    return cast("Instance", found)


@Effect.gen
def _commit(
    storage: Storage, before: Instance, after: Instance | None, *, events: tuple[Event, ...] = ()
) -> Do[None, TypedError]:
    now, token = yield from Clock.now().zip(Random.uuid7())
    commit = Commit(key=before.key, before=before, after=after, at=now, token=token.hex, events=events)
    yield from storage.commit(commit).map_error(lambda error: _told(error, before))


def _told(error: TypedError, found: Found) -> TypedError:
    return _changed(found) if isinstance(error, Conflict) else error


def _changed(found: Found) -> Changed:
    return Changed(name_of(found))

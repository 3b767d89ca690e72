"""Which instances are meant: the states that somebody may ask for, and the filters of the command line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, TypeAlias

import attrs
from cyclopts import Parameter

from durable_effect import Do, Duration, Effect
from durable_effect_jobs.errors import Kind, StorageError
from durable_effect_jobs.instance import DeadLetter, Instance, Key
from durable_effect_jobs.storage import JobName, Storage

__all__ = [
    "EVERYTHING",
    "Filter",
    "State",
    "condition",
    "dead_letters",
    "instances",
    "span",
    "status",
    "tally",
]

State: TypeAlias = Literal[
    "quarantined", "stopped", "executing", "suspect", "parked", "retrying", "due", "dead"
]

_PAGE = 1_000


# -- what an instance is in ------------------------------------------------------------------------


def status(instance: Instance) -> str:
    """The word that the client's ``status`` has for it."""
    if instance.halted:
        return "stopped"
    if instance.key.kind == "task":
        return "idle" if instance.alarm is None else "active"
    return "running" if instance.key.kind == "continuous" else "debouncing"


def condition(instance: Instance, now: datetime) -> str:
    """The word for what is most remarkable about it; the client's word when nothing is."""
    return next((state for state, is_in in _STATES.items() if is_in(instance, now)), status(instance))


def _executing(instance: Instance, now: datetime) -> bool:
    return instance.lease is not None and instance.lease.until > now


def _due(instance: Instance, now: datetime) -> bool:
    return instance.wake_at is not None and instance.wake_at <= now


_STATES: dict[State, Callable[[Instance, datetime], bool]] = {
    "quarantined": lambda instance, _: instance.quarantined,
    "stopped": lambda instance, _: instance.stopped,
    "executing": _executing,
    "suspect": lambda instance, _: instance.crashes > 0,
    "parked": lambda instance, _: instance.parked,
    "retrying": lambda instance, _: instance.failed_attempts > 0,
    "due": _due,
}
"""In the order in which they matter to an operator. An instance can be in several."""


# -- filters ---------------------------------------------------------------------------------------


def span(_type: Any, tokens: Any) -> timedelta:
    """A span, as the command line takes it."""
    return Duration.parse(tokens[0].value)


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Filter:
    """What instances or dead letters have in common; each member that is given narrows it."""

    kind: Annotated[Kind | None, Parameter(help="Only instances of this kind of job.")] = None
    job: Annotated[str | None, Parameter(help="Only instances of jobs with this name.")] = None
    state: Annotated[State | None, Parameter(help="Only instances in this state.")] = None
    error: Annotated[
        str | None, Parameter(help="Only those whose last error is of this type, such as ConnectionError.")
    ] = None
    older_than: Annotated[
        timedelta | None,
        Parameter(
            converter=span,
            n_tokens=1,
            accepts_keys=False,
            help='Only those made before that, or dead for longer, such as "2 days".',
        ),
    ] = None

    @property
    def is_given(self) -> bool:
        """Whether it narrows anything."""
        return any(value is not None for value in attrs.astuple(self, recurse=False))

    def takes_job(self, name: JobName) -> bool:
        """Whether instances of this job may pass."""
        return self.kind in (None, name[0]) and self.job in (None, name[1])

    def takes(self, instance: Instance, now: datetime) -> bool:
        """Whether this instance passes."""
        return (
            (self.state is None or (self.state in _STATES and _STATES[self.state](instance, now)))
            and self._takes_error(instance)
            and (self.older_than is None or instance.created_at < now - self.older_than)
        )

    def takes_letter(self, letter: DeadLetter, now: datetime) -> bool:
        """Whether this dead letter passes: its age is the time since the instance died."""
        key = letter.instance.key
        return (
            self.takes_job((key.kind, key.job))
            and self._takes_error(letter.instance)
            and (self.older_than is None or letter.at < now - self.older_than)
        )

    def _takes_error(self, instance: Instance) -> bool:
        error = instance.last_error
        return self.error is None or (error is not None and error.type == self.error)


EVERYTHING = Filter()


# -- looking for them ------------------------------------------------------------------------------


@Effect.gen
def instances(
    storage: Storage,
    which: Filter,
    now: datetime,
    *,
    limit: int | None = None,
    looked_at: Callable[[int], object] = lambda number: None,
) -> Do[tuple[Instance, ...], StorageError]:
    """The instances that pass, in the order of their keys; ``looked_at`` is told of every page."""
    found: list[Instance] = []
    names: list[JobName | None] = [None]
    if which.kind is not None or which.job is not None:
        names = [*sorted(filter(which.takes_job, (yield from storage.jobs())))]
    for name in names:
        after: Key | None = None
        while limit is None or len(found) < limit:
            page = yield from storage.instances(job=name, after=after, limit=_PAGE)
            found += (instance for instance in page if which.takes(instance, now))
            looked_at(len(page))
            if len(page) < _PAGE:
                break
            after = page[-1].key
    return tuple(found[:limit])


@Effect.gen
def tally(
    storage: Storage, now: datetime, looked_at: Callable[[int], object]
) -> Do[Counter[State], StorageError]:
    """How many instances are in each state; one may be in several."""
    counted: Counter[State] = Counter()
    after: Key | None = None
    while True:
        page = yield from storage.instances(after=after, limit=_PAGE)
        for instance in page:
            counted.update(state for state, is_in in _STATES.items() if is_in(instance, now))
        looked_at(len(page))
        if len(page) < _PAGE:
            return counted
        after = page[-1].key


@Effect.gen
def dead_letters(
    storage: Storage, which: Filter, now: datetime, *, limit: int | None = None
) -> Do[tuple[DeadLetter, ...], StorageError]:
    """The dead letters that pass, in the order of their numbers."""
    found: list[DeadLetter] = []
    after = 0
    while limit is None or len(found) < limit:
        page = yield from storage.dead_letters(after=after, limit=_PAGE)
        found += (letter for letter in page if which.takes_letter(letter, now))
        if len(page) < _PAGE:
            break
        after = page[-1].number
    return tuple(found[:limit])

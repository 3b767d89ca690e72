"""Which instances a remedy is for, and carrying it out on each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeAlias

import attrs

from durable_effect import Clock, Do, Effect, Need, Scope, TypedError
from durable_effect_jobs.cli.arguments import storage_from, storage_to_change
from durable_effect_jobs.cli.remedies import Found, Remedy, Replay, name_of
from durable_effect_jobs.cli.selection import Filter, dead_letters, instances
from durable_effect_jobs.errors import StorageError
from durable_effect_jobs.instance import DeadLetter, Instance, Key
from durable_effect_jobs.storage import Storage

__all__ = ["Outcome", "Plan", "Target", "carry_out", "find_all", "find_each"]

Target: TypeAlias = Key | int
"""An instance, or a dead letter by its number."""

_AT_ONCE = 64  # commits that wait at the same time share one write to the disk


@attrs.frozen(kw_only=True)
class Outcome:
    """What became of one instance or dead letter."""

    instance_id: str | None
    number: int | None
    done: bool
    """Whether it was changed."""
    message: str | None = None
    """What was done, or would be."""
    problem: str | None = None
    """Why it was not."""


@attrs.frozen
class Plan:
    """What is to be done, as far as a look can tell."""

    found: tuple[Found, ...]
    refused: tuple[Outcome, ...] = ()
    at: datetime = attrs.field(kw_only=True)

    def intended(self, verb: str) -> tuple[Outcome, ...]:
        """What a dry run says."""
        return tuple(_outcome(one, done=False, message=f"would {verb} {name_of(one)}") for one in self.found)


# -- looking ---------------------------------------------------------------------------------------


@Effect.gen
def find_all(
    url: str, remedy: Remedy, which: Filter, looked_at: Callable[[int], object]
) -> Do[Plan, StorageError, Need[Scope]]:
    """All that pass the filter and that the remedy is for."""
    storage = yield from storage_from(url, read_only=True)
    now = yield from Clock.now()
    found: Sequence[Found]
    if (which.state or remedy.states[0]) == "dead":
        found = yield from dead_letters(storage, which, now)
    else:
        found = yield from instances(storage, which, now, looked_at=looked_at)
    return Plan(tuple(one for one in found if remedy.refusal(one) is None), at=now)


@Effect.gen
def find_each(url: str, remedy: Remedy, targets: Sequence[Target]) -> Do[Plan, StorageError, Need[Scope]]:
    """Those that are named, and why others that are named cannot be meant."""
    storage = yield from storage_from(url, read_only=True)
    now = yield from Clock.now()
    found: list[Found] = []
    refused: list[Outcome] = []
    for target in dict.fromkeys(targets):
        one = yield from _find(storage, remedy, target)
        reason = _missing(target, remedy) if one is None else remedy.refusal(one)
        if one is not None and reason is None:
            found.append(one)
        else:
            name = reason if one is None else f"{name_of(one)} {reason}"
            refused.append(_outcome(one if one is not None else target, done=False, problem=name))
    return Plan(tuple(found), tuple(refused), at=now)


@Effect.gen
def _find(storage: Storage, remedy: Remedy, target: Target) -> Do[Found | None, StorageError]:
    if isinstance(target, int):
        page = yield from storage.dead_letters(after=target - 1, limit=1)
        return page[0] if page and page[0].number == target else None
    if not isinstance(remedy, Replay):
        return (yield from storage.load(target))
    now = yield from Clock.now()
    letters = yield from dead_letters(storage, Filter(kind=target.kind, job=target.job), now)
    return next((letter for letter in reversed(letters) if letter.instance.key == target), None)


def _missing(target: Target, remedy: Remedy) -> str:
    if isinstance(target, int):
        return f"there is no dead letter {target}"
    what = "dead letter of" if isinstance(remedy, Replay) else "instance"
    return f"there is no {what} {target.instance_id}"


# -- doing -----------------------------------------------------------------------------------------


@Effect.gen
def carry_out(
    url: str, remedy: Remedy, found: Sequence[Found], told: Callable[[int], object]
) -> Do[list[Outcome], StorageError, Need[Scope]]:
    """Apply the remedy to each; one that fails does not keep the others from it."""
    storage = yield from storage_to_change(url)

    def apply(one: Found) -> Effect[Outcome]:
        return (
            remedy.apply(storage, one)
            .map(lambda message: _outcome(one, done=True, message=message))
            .catch_all(lambda error: Effect.succeed(_outcome(one, done=False, problem=_why(one, error))))
            .tap(lambda _: Effect.sync(lambda: told(1)))
        )

    return (yield from Effect.for_each(found, apply, concurrency=_AT_ONCE))


def _why(found: Found, error: TypedError) -> str:
    text = str(error)
    return text if name_of(found) in text else f"{name_of(found)}: {text}"


def _outcome(
    about: Found | Target, *, done: bool, message: str | None = None, problem: str | None = None
) -> Outcome:
    key, number = _identity(about)
    instance_id = None if key is None else key.instance_id
    return Outcome(instance_id=instance_id, number=number, done=done, message=message, problem=problem)


def _identity(about: Found | Target) -> tuple[Key | None, int | None]:
    match about:
        case Instance():
            return about.key, None
        case DeadLetter():
            return about.instance.key, about.number
        case Key():
            return about, None
        case _:
            return None, about

"""The storage as a process of the simulation sees it: every call is a statement on the wire."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any

from durable_effect import Effect
from durable_effect.ops import Wait
from durable_effect.runtime import Waiter
from durable_effect_jobs.instance import Claim, Commit, Instance, Key
from durable_effect_jobs.storage import JobName, Storage

__all__ = ["SimulatedStorage", "Statement"]


class Statement:
    """One call of the port, to be made of the real storage when it arrives there."""

    __slots__ = ("arguments", "key", "keywords", "name")

    def __init__(self, name: str, key: Key | None, *arguments: Any, **keywords: Any) -> None:
        self.name = name
        self.key = key
        self.arguments = arguments
        self.keywords = keywords

    def of(self, storage: Storage) -> Effect[Any, Any]:
        """The call itself."""
        call: Effect[Any, Any] = getattr(storage, self.name)(*self.arguments, **self.keywords)
        return call

    def __str__(self) -> str:
        return self.name if self.key is None else f"{self.name}({self.key.instance_id})"


class SimulatedStorage:
    """The port, with ``send(waiter, statement)`` between it and the real storage."""

    __slots__ = ("_send",)

    def __init__(self, send: Callable[[Waiter, Statement], None]) -> None:
        self._send = send

    def _ask(self, name: str, key: Key | None, *arguments: Any, **keywords: Any) -> Effect[Any, Any]:
        statement = Statement(name, key, *arguments, **keywords)
        return Wait(lambda waiter: self._send(waiter, statement))

    def load(self, key: Key) -> Effect[Instance | None, Any]:
        return self._ask("load", key, key)

    def commit(self, commit: Commit) -> Effect[int, Any]:
        return self._ask("commit", commit.key, commit)

    def is_marked(self, key: Key, event_id: str, now: datetime) -> Effect[bool, Any]:
        return self._ask("is_marked", key, key, event_id, now)

    def claim(self, claim: Claim) -> Effect[Any, Any]:
        return self._ask("claim", claim.key, claim)

    def renew(self, owner: str, held: Collection[tuple[Key, int]], until: datetime) -> Effect[Any, Any]:
        return self._ask("renew", None, owner, tuple(held), until)

    def release(self, owner: str, keys: Collection[Key] | None = None) -> Effect[None, Any]:
        return self._ask("release", None, owner, None if keys is None else tuple(keys))

    def due(self, now: datetime, limit: int, jobs: Collection[JobName]) -> Effect[Any, Any]:
        return self._ask("due", None, now, limit, tuple(jobs))

    def next_due(
        self, jobs: Collection[JobName], *, after: datetime | None = None
    ) -> Effect[datetime | None, Any]:
        return self._ask("next_due", None, tuple(jobs), after=after)

    def survey(self, now: datetime, *, lease: timedelta) -> Effect[Any, Any]:
        return self._ask("survey", None, now, lease=lease)

    def jobs(self) -> Effect[dict[JobName, int], Any]:
        return self._ask("jobs", None)

    def instances(
        self, *, job: JobName | None = None, after: Key | None = None, limit: int = 100
    ) -> Effect[list[Instance], Any]:
        return self._ask("instances", None, job=job, after=after, limit=limit)

    def dead_letters(self, *, after: int = 0, limit: int = 100) -> Effect[Any, Any]:
        return self._ask("dead_letters", None, after=after, limit=limit)

    def remove_dead_letter(self, number: int) -> Effect[bool, Any]:
        return self._ask("remove_dead_letter", None, number)

    def pending_events(self, limit: int) -> Effect[Any, Any]:
        return self._ask("pending_events", None, limit)

    def events_sent(self, event_ids: Collection[str]) -> Effect[None, Any]:
        return self._ask("events_sent", None, tuple(event_ids))

"""A look at a storage through a filter, which reads only and which a host does not mind."""

from __future__ import annotations

from datetime import datetime

import attrs

from durable_effect import Do, Effect, Need, Scope
from durable_effect_jobs.cli.app import finish
from durable_effect_jobs.cli.arguments import storage_from
from durable_effect_jobs.cli.progress import progress
from durable_effect_jobs.cli.selection import Filter, dead_letters, instances
from durable_effect_jobs.errors import StorageError
from durable_effect_jobs.instance import DeadLetter, Instance

__all__ = ["Seen", "look"]


@attrs.frozen(kw_only=True)
class Seen:
    """What passed the filter: instances, or dead letters if these were asked for."""

    instances: tuple[Instance, ...] = ()
    letters: tuple[DeadLetter, ...] = ()
    other_letters: int = 0
    """How many dead letters there are beside the instances that were asked for."""

    @property
    def found(self) -> tuple[Instance, ...] | tuple[DeadLetter, ...]:
        """The one or the other."""
        return self.instances or self.letters


def look(url: str, which: Filter, now: datetime, *, limit: int) -> Seen:
    """The first ``limit`` that pass."""
    return finish(_look(url, which, now, limit))


@Effect.gen
def _look(url: str, which: Filter, now: datetime, limit: int) -> Do[Seen, StorageError, Need[Scope]]:
    storage = yield from storage_from(url, read_only=True)
    if which.state == "dead":
        return Seen(letters=(yield from dead_letters(storage, which, now, limit=limit)))
    with progress("looking at instances") as looked_at:
        found = yield from instances(storage, which, now, limit=limit, looked_at=looked_at)
    others = () if which.state is not None else (yield from dead_letters(storage, which, now))
    return Seen(instances=found, other_letters=len(others))

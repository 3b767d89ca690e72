"""Who runs instances: the part of a host that the interpreter speaks to while a run is in progress.

Without one, runs are leased to a worker that watches over nothing: enough for a host of one process that
keeps its own order.
"""

from __future__ import annotations

from typing import Protocol

from typing_extensions import TypeVar

from durable_effect import Effect
from durable_effect.context import Reference
from durable_effect_jobs.instance import Instance

__all__ = ["WORKER", "Unsupervised", "Worker"]

A = TypeVar("A")
E = TypeVar("E")
R = TypeVar("R")


class Worker(Protocol):
    """One start of one process, as far as runs are concerned."""

    @property
    def owner(self) -> str:
        """The name on its leases. Never used again after a restart, or crashes would not be counted."""
        ...

    def admit(self, suspect: bool, run: Effect[A, E, R]) -> Effect[A, E, R]:
        """Begin a run when there is room: a suspect, whose last run died, with nothing else beside it."""
        ...

    def supervise(self, held: Instance, run: Effect[A, E, R]) -> Effect[A | None, E, R]:
        """Keep the lease of ``held`` alive during the run; ``None`` when it was lost or called off."""
        ...

    def holds(self, held: Instance) -> bool:
        """Whether the run that this lease was given to is in progress here."""
        ...

    def preempt(self, ended: Instance) -> Effect[None]:
        """The instance is gone: call off its run, if there is one here, and let nobody wait for that."""
        ...


class Unsupervised:
    """A worker that begins everything at once and renews nothing."""

    def __init__(self, owner: str) -> None:
        self.owner = owner

    def admit(self, suspect: bool, run: Effect[A, E, R]) -> Effect[A, E, R]:
        return run

    def supervise(self, held: Instance, run: Effect[A, E, R]) -> Effect[A | None, E, R]:
        return run

    def holds(self, held: Instance) -> bool:
        return False

    def preempt(self, ended: Instance) -> Effect[None]:
        return Effect.void


WORKER: Reference[Worker] = Reference("Worker", Unsupervised("unsupervised"))
"""The worker of this fiber."""

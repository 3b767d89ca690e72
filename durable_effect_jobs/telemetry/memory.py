"""Events to a list."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from durable_effect import Effect
from durable_effect_jobs.events import Event

__all__ = ["MemorySink"]


class MemorySink:
    """Keep the latest events in memory, to be looked at: ``Tracker(sink=MemorySink())``.

    It keeps ``limit`` of them (10,000) and forgets the oldest beyond that.
    """

    def __init__(self, limit: int = 10_000) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}")
        self._events: deque[Event] = deque(maxlen=limit)

    @property
    def events(self) -> list[Event]:
        """What was sent so far, oldest first."""
        return list(self._events)

    def send(self, events: Sequence[Event]) -> Effect[None]:
        """Keep the events in their order."""
        return Effect.sync(lambda: self._events.extend(events))

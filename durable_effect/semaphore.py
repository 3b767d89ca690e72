"""Semaphore: a number of permits, given in the order in which they were asked for."""

from __future__ import annotations

from collections import deque
from typing import TypeVar

from durable_effect.effect import Effect, Restore
from durable_effect.ops import VOID, Suspend, Wait
from durable_effect.runtime import Waiter

__all__ = ["Semaphore"]

A = TypeVar("A")
E = TypeVar("E")
R = TypeVar("R")


class Semaphore:
    """At most ``permits`` fibers at a time do what needs a permit."""

    __slots__ = ("_free", "_queue")

    def __init__(self, permits: int) -> None:
        if permits < 1:
            raise ValueError(f"a semaphore has at least one permit, got {permits}")
        self._free = permits
        self._queue: deque[_Ticket] = deque()

    def with_permit(self, effect: Effect[A, E, R]) -> Effect[A, E, R]:
        """Wait for a permit, run the effect with it, and give it back however that ends."""

        def run(restore: Restore) -> Effect[A, E, R]:
            ticket = _Ticket()
            taken = restore(self._take(ticket)).on_interrupt(lambda: Effect.sync(lambda: self._called_off(ticket)))
            return taken.flat_map(lambda _: restore(effect).ensuring(Effect.sync(self._give_back)))

        return Effect.uninterruptible_mask(run)

    def _take(self, ticket: _Ticket) -> Effect[None]:
        def run() -> Effect[None]:
            if self._free:
                self._free -= 1
                ticket.granted = True
                return VOID
            return Wait(lambda waiter: self._queue_up(ticket, waiter))

        return Suspend(run)

    def _queue_up(self, ticket: _Ticket, waiter: Waiter) -> None:
        ticket.waiter = waiter
        self._queue.append(ticket)

    def _called_off(self, ticket: _Ticket) -> None:
        """Leave the queue, or hand on a permit that came in the same moment as the interruption."""
        if ticket.granted:
            self._give_back()
        elif ticket in self._queue:
            self._queue.remove(ticket)

    def _give_back(self) -> None:
        """Hand the permit to the first who still waits."""
        while self._queue:
            ticket = self._queue.popleft()
            if ticket.waiter is not None and not ticket.waiter.gone:
                ticket.granted = True
                ticket.waiter.resume(VOID)
                return
        self._free += 1


class _Ticket:
    """One place in the queue."""

    __slots__ = ("granted", "waiter")

    def __init__(self) -> None:
        self.granted = False
        self.waiter: Waiter | None = None

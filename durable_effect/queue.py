"""Queue: values on their way from fibers that offer them to fibers that take them, first in, first out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Any, Generic, Literal, Never

from returns.maybe import Maybe, Nothing, Some
from typing_extensions import TypeVar

from durable_effect.effect import Effect
from durable_effect.errors import TypedError
from durable_effect.ops import AnyEffect, Gen, Succeed, Suspend, Sync, Wait
from durable_effect.runtime import Waiter

A = TypeVar("A")
E = TypeVar("E", default=Never)
When = Literal["wait", "drop", "slide"]


class QueueEnded(TypedError):
    """The queue was ended, and all that was in it has been taken."""


class Queue(Generic[A, E]):
    """A queue, with room for so many values or any number.

    After `end` or `fail`, what is in it can still be taken; then takers fail. Later offers answer False.
    No value is lost: one that was handed to a taker which was interrupted just then goes back to the front.
    """

    __slots__ = ("_capacity", "_end", "_full", "_items", "_offers", "_takers")

    def __init__(self, capacity: int | None, full: When) -> None:
        if capacity is not None and capacity < 0:
            raise ValueError(f"a queue has room for 0 values or more, got {capacity}")
        self._capacity = capacity
        self._full = full
        self._items: deque[A] = deque()
        self._takers: deque[_Taker] = deque()
        self._offers: deque[tuple[Waiter, A]] = deque()
        self._end: AnyEffect | None = None

    @staticmethod
    def bounded(capacity: int) -> Effect[Queue[Any, Any]]:
        """Make a queue whose `offer` waits for room; with capacity 0 until the value is taken."""
        return Sync(lambda: Queue[Any, Any](capacity, "wait"))

    @staticmethod
    def dropping(capacity: int) -> Effect[Queue[Any, Any]]:
        """Make a queue that refuses new values when it is full."""
        return Sync(lambda: Queue[Any, Any](capacity, "drop"))

    @staticmethod
    def sliding(capacity: int) -> Effect[Queue[Any, Any]]:
        """Make a queue that drops its oldest value when it is full."""
        return Sync(lambda: Queue[Any, Any](capacity, "slide"))

    @staticmethod
    def unbounded() -> Effect[Queue[Any, Any]]:
        """Make a queue that always has room."""
        return Sync(lambda: Queue[Any, Any](None, "wait"))

    def size(self) -> Effect[int]:
        """Answer how many values are in the queue, those of waiting offers included."""
        return Sync(lambda: len(self._items) + len(self._offers))

    # ---- offering ------------------------------------------------------------------------------------------

    def offer(self, value: A) -> Effect[bool]:
        """Put a value in; answers False if it was refused."""
        return Suspend(lambda: self._offer(value))

    def offer_all(self, values: Iterable[A]) -> Effect[list[A]]:
        """Put values in, one after the other; answers those that were refused."""
        return Gen(self._offer_all, (values,))

    def _offer_all(self, values: Iterable[A]) -> Generator[Any, Any, list[A]]:
        refused: list[A] = []
        for value in values:
            if not (yield from self.offer(value)):
                refused.append(value)
        return refused

    def _offer(self, value: A) -> AnyEffect:
        if self._end is not None:
            return Succeed(False)
        if self._takers:
            self._takers.popleft().hand(value)
        elif self._has_room():
            self._items.append(value)
        elif self._full == "wait":
            return Wait(lambda waiter: self._wait_for_room(waiter, value))
        elif self._full == "drop" or not self._items:
            return Succeed(False)
        else:
            self._items.popleft()
            self._items.append(value)
        return Succeed(True)

    def _has_room(self) -> bool:
        return self._capacity is None or len(self._items) < self._capacity

    def _wait_for_room(self, waiter: Waiter, value: A) -> Callable[[], object]:
        offer = (waiter, value)
        self._offers.append(offer)
        return lambda: self._offers.remove(offer) if offer in self._offers else None

    # ---- taking --------------------------------------------------------------------------------------------

    def take(self) -> Effect[A, E | QueueEnded]:
        """Take the oldest value, or wait for one."""
        return Suspend(self._take)

    def take_all(self) -> Effect[list[A]]:
        """Take everything that is there, without waiting."""

        def take() -> list[A]:
            taken: list[A] = []
            while self._items or self._offers:
                taken.append(self._next())
            return taken

        return Sync(take)

    def take_n(self, n: int) -> Effect[list[A], E | QueueEnded]:
        """Take so many values, waiting for each; if the queue ends before, those taken are gone."""
        return Effect.for_each(range(n), lambda _: self.take())

    def poll(self) -> Effect[Maybe[A]]:
        """Take the oldest value as `Some`, or answer `Nothing` at once."""
        return Sync(lambda: Some(self._next()) if self._items or self._offers else Nothing)

    def _take(self) -> AnyEffect:
        if self._items or self._offers:
            return Succeed(self._next())
        return Wait(self._wait_for_value) if self._end is None else self._end

    def _next(self) -> A:
        """Take the oldest value and let the oldest waiting offer in."""
        if not self._items:
            return self._accept()
        value = self._items.popleft()
        if self._offers:
            self._items.append(self._accept())
        return value

    def _accept(self) -> A:
        waiter, value = self._offers.popleft()
        waiter.resume(Succeed(True))
        return value

    def _wait_for_value(self, waiter: Waiter) -> Callable[[], object]:
        taker = _Taker(waiter)
        self._takers.append(taker)
        return lambda: self._called_off(taker)

    def _called_off(self, taker: _Taker) -> None:
        if taker in self._takers:
            self._takers.remove(taker)
        for value in taker.handed:
            if self._takers:
                self._takers.popleft().hand(value)
            else:
                self._items.appendleft(value)

    # ---- ending --------------------------------------------------------------------------------------------

    def end(self) -> Effect[bool]:
        """Take nothing more in; when all is taken, takers fail with `QueueEnded`. False if it had ended."""
        return Sync(lambda: self._close(Effect.fail(QueueEnded())))

    def fail(self, error: E) -> Effect[bool]:
        """Take nothing more in; when all is taken, takers fail with this error. False if it had ended."""
        return Sync(lambda: self._close(Effect.fail(error)))

    def interrupt(self) -> Effect[bool]:
        """Take nothing more in; when all is taken, takers are interrupted. False if it had ended."""
        return Sync(lambda: self._close(Effect.interrupt()))

    def shutdown(self) -> Effect[bool]:
        """Drop everything; takers are interrupted, offers answer False. False if it had ended."""

        def close() -> bool:
            self._items.clear()
            while self._offers:
                self._offers.popleft()[0].resume(Succeed(False))
            return self._close(Effect.interrupt())

        return Sync(close)

    def _close(self, end: AnyEffect) -> bool:
        if self._end is not None:
            return False
        self._end = end
        while self._takers:
            self._takers.popleft().waiter.resume(end)
        return True


class _Taker:
    """A fiber that waits for a value, and the value it was handed."""

    __slots__ = ("handed", "waiter")

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.handed: tuple[Any, ...] = ()

    def hand(self, value: Any) -> None:
        self.handed = (value,)
        self.waiter.resume(Succeed(value))

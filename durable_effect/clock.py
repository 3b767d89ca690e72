"""Clock: the only one who knows the time. `TestClock` moves only when it is told to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator
from datetime import UTC, datetime, timedelta
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, ClassVar, TypeVar

from durable_effect.duration import Span, to_timedelta
from durable_effect.effect import Effect
from durable_effect.ops import VOID, AnyEffect, Gen, Look, Provide, Settle, Wait, WithFiber
from durable_effect.runtime import Fiber, Waiter

A = TypeVar("A")
E = TypeVar("E")
R = TypeVar("R")
ZERO = timedelta()


class Clock(ABC):
    """The time, and waiting for it. A service that always exists: it adds nothing to `R`.

    Provide another one with `provide_service(Clock, clock)`.
    """

    @abstractmethod
    def current(self) -> datetime:
        """Answer the time now, as an aware UTC datetime."""

    @abstractmethod
    def sleep(self, span: timedelta) -> Effect[None]:
        """Wait for so long."""

    @staticmethod
    def now() -> Effect[datetime]:
        """Answer the time by the clock of this program, as an aware UTC datetime."""
        return Look(lambda fiber: clock_of(fiber).current())


class LiveClock(Clock):
    """The computer's clock.

    It sleeps on the asyncio loop, so a change of the wall clock does not change a sleep.
    """

    def current(self) -> datetime:
        """Answer the computer's time."""
        return datetime.now(UTC)  # noqa: TID251 - this is the clock that everybody else asks

    def sleep(self, span: timedelta) -> Effect[None]:
        """Wait on the asyncio loop."""
        seconds = span.total_seconds()

        def register(waiter: Waiter) -> Callable[[], object] | None:
            loop = waiter.fiber.runtime.loop
            return None if loop is None else loop.call_later(seconds, waiter.resume, VOID).cancel

        return Wait(register) if seconds > 0 else VOID


LIVE_CLOCK = LiveClock()


def clock_of(fiber: Fiber[Any, Any]) -> Clock:
    """Answer the clock that a fiber sees."""
    clock: Clock = fiber.env.services.get(Clock, LIVE_CLOCK)
    return clock


def sleep(span: timedelta) -> AnyEffect:
    """Wait by the clock of the fiber."""
    return WithFiber(lambda fiber: clock_of(fiber).sleep(span))


def timed(effect: AnyEffect) -> AnyEffect:
    """Run and measure by the clock of the fiber."""
    return Gen(_timed, (effect,))


def _timed(effect: AnyEffect) -> Generator[Any, Any, tuple[timedelta, Any]]:
    started_at = yield from Clock.now()
    value = yield from effect
    ended_at = yield from Clock.now()
    return ended_at - started_at, value


class TestClock(Clock):
    """A clock for tests: time stands still until `adjust` or `set_time`, which wake sleepers in order, each
    at its time.

    `start` must be aware. Sleeps of nothing return at once.
    """

    __test__: ClassVar[bool] = False

    def __init__(self, start: datetime) -> None:
        self._now = _aware(start)
        self._sleepers: list[tuple[datetime, int, Waiter]] = []
        self._called_off = 0
        self._next_number = count().__next__

    def current(self) -> datetime:
        """Answer the time at which the clock stands."""
        return self._now

    def sleep(self, span: timedelta) -> Effect[None]:
        """Wait until the clock was moved that far."""
        return Wait(lambda waiter: self._register(waiter, span)) if span > ZERO else VOID

    def _register(self, waiter: Waiter, span: timedelta) -> Callable[[], None]:
        heappush(self._sleepers, (self._now + span, self._next_number(), waiter))
        return self._call_off

    def _call_off(self) -> None:
        """Clear up now and then, or sleepers that were interrupted would be kept until their time."""
        self._called_off += 1
        if self._called_off * 2 > len(self._sleepers):
            self._called_off = 0
            self._sleepers = [sleeper for sleeper in self._sleepers if not sleeper[2].gone]
            heapify(self._sleepers)

    def adjust(self, span: Span) -> Effect[None]:
        """Move on by so much: everything ready goes on, then sleepers on the way wake, each at its time."""
        return Gen(self._move, (lambda: self._now + to_timedelta(span),))

    def set_time(self, time: datetime) -> Effect[None]:
        """Move to this time, which may be earlier; sleepers on the way are woken as by `adjust`."""
        target = _aware(time)
        return Gen(self._move, (lambda: target,))

    def _move(self, to: Callable[[], datetime]) -> Generator[Any, Any, None]:
        target = to()
        yield from Settle()
        while self.wake_next(target):
            yield from Settle()
        self._now = target

    @staticmethod
    def with_live(effect: Effect[A, E, R]) -> Effect[A, E, R]:
        """Run an effect by the computer's clock in the middle of a test."""
        return Provide(effect, lambda env: env.add(Clock, LIVE_CLOCK))

    def next_sleeper(self, among: Collection[Fiber[Any, Any]] | None = None) -> datetime | None:
        """Answer when the next sleeper wakes, or None when nobody sleeps.

        With `among`, only these fibers and the children that they forked count.
        """
        self._drop_gone()
        if among is None:
            return self._sleepers[0][0] if self._sleepers else None
        return min((due for due, _, waiter in self._sleepers if _belongs(waiter, among)), default=None)

    def wake_next(self, until: datetime) -> bool:
        """Move to the next sleeper, if it wakes by `until`, and wake it; answer whether there was one."""
        due = self.next_sleeper()
        if due is None or due > until:
            return False
        self._now = max(self._now, due)
        heappop(self._sleepers)[2].resume(VOID)
        return True

    def jump(self, time: datetime) -> None:
        """Stand at this time, without waking anybody."""
        self._now = _aware(time)

    def _drop_gone(self) -> None:
        """Forget sleepers that were interrupted: their fibers wait for something else by now."""
        while self._sleepers and self._sleepers[0][2].gone:
            heappop(self._sleepers)


def _belongs(waiter: Waiter, fibers: Collection[Fiber[Any, Any]]) -> bool:
    """Whether one of these fibers, or a descendant of one, still waits here."""
    fiber: Fiber[Any, Any] | None = None if waiter.gone else waiter.fiber
    while fiber is not None and fiber not in fibers:
        fiber = fiber.parent
    return fiber is not None


def _aware(time: datetime) -> datetime:
    if time.tzinfo is None:
        raise ValueError(f"expected an aware datetime, got {time!r}: say datetime(..., tzinfo=UTC)")
    return time.astimezone(UTC)

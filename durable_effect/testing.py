"""Running effects in tests: synchronously, on time that only moves when the test says so."""

from __future__ import annotations

import asyncio
import ctypes
from collections import deque
from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from types import GeneratorType, TracebackType
from typing import Any, ClassVar, Self, TypeVar

from durable_effect.clock import Clock, TestClock
from durable_effect.context import Env
from durable_effect.duration import Span, to_timedelta
from durable_effect.effect import Effect
from durable_effect.errors import DeadlockError
from durable_effect.exit import Exit
from durable_effect.runtime import Fiber, Runtime, interrupt_all

__all__ = ["TestClock", "TestRuntime"]

A = TypeVar("A")
E = TypeVar("E")


class TestRuntime:
    """Runs effects on virtual time: `run` finishes a program at once, however long it sleeps.

    `start` is the time at first, aware. `env` holds further services; its clock is always this runtime's.
    Asyncio work started by `from_async` is really waited for. Close it at the end, or use it in a `with`
    block.
    """

    __test__: ClassVar[bool] = False

    def __init__(self, start: datetime, env: Env | None = None) -> None:
        self.clock = TestClock(start)
        self._env = (env or Env()).add(Clock, self.clock)
        self._runtime = _StandingRuntime()

    @property
    def now(self) -> datetime:
        """The virtual time."""
        return self.clock.current()

    def fork(self, effect: Effect[A, E, Any]) -> Fiber[A, E]:
        """Start a fiber; it first runs in the next `settle`, `run`, `jump_to` or `advance`."""
        return self._runtime.start(effect, self._env)

    def settle(self) -> None:
        """Let all fibers go on until each is done, sleeps, or waits for another one. Time stands still."""
        self._runtime.settle()

    def run(self, effect: Effect[A, Any, Any]) -> A:
        """Run to the end and answer the value, or raise as `Effect.run_sync` does; see `run_exit`."""
        return self.run_exit(effect).get()

    def run_exit(self, effect: Effect[A, E, Any]) -> Exit[A, E]:
        """Run to the end and answer how it ended. While it is not done, time jumps from one sleeper to the
        next.

        Raises `DeadlockError` when nobody sleeps either.
        """
        fiber = self.fork(effect)
        self._finish([fiber])
        assert fiber.exit is not None  # noqa: S101 - `_finish` raises otherwise
        return fiber.exit

    def _finish(self, fibers: list[Fiber[Any, Any]]) -> None:
        self.settle()
        while waiting := [fiber for fiber in fibers if fiber.exit is None]:
            due = self.next_sleeper()
            if due is None:
                raise DeadlockError(f"{waiting[0]} waits for what nobody will do, and nobody sleeps")
            self.jump_to(due)

    def next_sleeper(self, among: Collection[Fiber[Any, Any]] | None = None) -> datetime | None:
        """Answer when the next sleeping fiber wakes, or None; with `among`, of these and their children."""
        return self.clock.next_sleeper(among)

    def jump_to(self, time: datetime) -> None:
        """Move to this time; on the way wake every sleeper at its own time, and settle after each."""
        if time < self.now:
            raise ValueError(f"time does not run backwards: it is {self.now}, asked for {time}")
        self.settle()
        while self.clock.wake_next(time):
            self.settle()
        self.clock.jump(time)

    def advance(self, span: Span) -> None:
        """Move on by so much, as `jump_to` does."""
        self.jump_to(self.now + to_timedelta(span))

    def close(self) -> None:
        """Interrupt what still runs and let its finalizers finish, however long they sleep.

        Raises `DeadlockError` when one of them waits for what nobody will do; then the rest is abandoned.
        """
        try:
            while left := list(self._runtime.roots):
                self.fork(interrupt_all(left))
                self._finish(left)
        except DeadlockError:
            self.abandon()
            raise
        self._runtime.close_loop()

    def abandon(self) -> None:
        """Forget all fibers where they stand, as a crash does: no finalizer runs, no `finally`."""
        self._runtime.abandon()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _StandingRuntime(Runtime):
    """A runtime that runs only inside `settle`. It has an asyncio loop as soon as somebody needs one."""

    def __init__(self) -> None:
        super().__init__()
        self._posted: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop

    def poke(self) -> None:
        if self._loop is not None:
            self._loop.call_soon(self._loop.stop)

    def post(self, f: Callable[..., object], *args: object) -> None:
        self._posted.append((f, args))
        if self._loop is not None:
            super().post(self._loop.stop)

    def flush(self) -> None:
        self.run_ready()

    def run_ready(self, slices: int | None = None) -> None:
        while self._posted:
            f, args = self._posted.popleft()
            f(*args)
        super().run_ready(slices)

    def settle(self) -> None:
        self.run_ready()
        while self.operations:
            quiet = self.quiet
            if quiet:
                self.poke()  # one turn of the loop, for what is ready there
            self.loop.run_forever()
            self.run_ready()
            if quiet and self.quiet:
                return

    def close_loop(self) -> None:
        if self._loop is not None:
            self.poke()  # take the stops that are left, or one of them would end what follows
            self._loop.run_forever()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()
            self._loop = None

    def abandon(self) -> None:
        for left in self._left():
            # Python would run the `finally` of a suspended generator when it frees it. A crash does not, so
            # these are never freed.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(left))
        self.ready.clear()
        self.idle.clear()
        self.roots.clear()
        self.operations.clear()
        if self._loop is not None:
            self._loop.close()
            self._loop = None

    def _left(self) -> Iterator[object]:
        """All suspended do-blocks and coroutines."""
        if self._loop is not None:
            yield from asyncio.all_tasks(self._loop)
        fibers = list(self.roots)
        while fibers:
            fiber = fibers.pop()
            fibers.extend(fiber.children or ())
            yield from (frame for frame in fiber.stack if isinstance(frame, GeneratorType))

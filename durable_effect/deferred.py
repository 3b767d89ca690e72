"""Deferred: a value that somebody will bring, and that any number of fibers can wait for."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from durable_effect.effect import Effect
from durable_effect.exit import Cause
from durable_effect.ops import Suspend, Wait
from durable_effect.runtime import Waiter

__all__ = ["Deferred"]

A = TypeVar("A")
E = TypeVar("E")
_Any = Effect[Any, Any, Any]


class Deferred(Generic[A, E]):
    """A value, or a failure, that is brought once."""

    __slots__ = ("_outcome", "_waiters")

    def __init__(self) -> None:
        self._outcome: _Any | None = None
        self._waiters: dict[Waiter, None] = {}

    @staticmethod
    def make() -> Effect[Deferred[Any, Any]]:
        """Make one that nobody has completed."""
        return Effect.sync(lambda: Deferred[Any, Any]())

    def await_(self) -> Effect[A, E]:
        """Wait for the outcome, and have it."""

        def run() -> _Any:
            if self._outcome is not None:
                return self._outcome
            return Wait(self._register)

        return Suspend(run)

    def _register(self, waiter: Waiter) -> Any:
        self._waiters[waiter] = None
        return lambda: self._waiters.pop(waiter, None)

    def complete_with(self, outcome: Effect[A, E]) -> Effect[bool]:
        """Let everybody who waits go on with this effect; ``False`` when somebody did that before."""

        def run() -> bool:
            if self._outcome is not None:
                return False
            self._outcome = outcome
            waiters, self._waiters = self._waiters, {}
            for waiter in waiters:
                waiter.resume(outcome)
            return True

        return Effect.sync(run)

    def complete(self, effect: Effect[A, E]) -> Effect[bool]:
        """Run an effect and bring what it ended with; ``False`` when there was an outcome before."""
        return effect.exit().flat_map(lambda ended: self.complete_with(Effect.from_exit(ended)))

    def succeed(self, value: A) -> Effect[bool]:
        """Bring the value; ``False`` when there was an outcome before."""
        return self.complete_with(Effect.succeed(value))

    def fail(self, error: E) -> Effect[bool]:
        """Bring a failure; ``False`` when there was an outcome before."""
        return self.complete_with(Effect.fail(error))

    def fail_cause(self, cause: Cause[E]) -> Effect[bool]:
        """Bring a failure with all its reasons; ``False`` when there was an outcome before."""
        return self.complete_with(Effect.fail_cause(cause))

    def die(self, defect: object) -> Effect[bool]:
        """Bring a defect; ``False`` when there was an outcome before."""
        return self.complete_with(Effect.die(defect))

    def interrupt(self) -> Effect[bool]:
        """Interrupt those who wait, and those who come; ``False`` when there was an outcome before."""
        return Effect.with_fiber(lambda me: self.fail_cause(Cause.interrupt(me.id)))

    @property
    def is_done(self) -> bool:
        """Whether there is an outcome."""
        return self._outcome is not None

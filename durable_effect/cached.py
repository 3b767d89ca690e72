"""Cached: an effect whose outcome is kept, for ever or for a time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from durable_effect.clock import clock_of
from durable_effect.deferred import Deferred
from durable_effect.effect import Effect
from durable_effect.exit import Exit, Failure
from durable_effect.ops import AnyEffect, OnExit, Suspend, Sync, WithFiber
from durable_effect.runtime import Fiber, from_exit


def cached(effect: AnyEffect, ttl: timedelta | None) -> Effect[tuple[AnyEffect, Effect[None]]]:
    """Answer the effect that keeps an outcome, and the one that forgets it."""

    def make() -> tuple[AnyEffect, Effect[None]]:
        outcome = _Outcome(effect, ttl)
        return WithFiber(outcome.ask), Sync(outcome.forget)

    return Sync(make)


class _Outcome:
    """Nothing yet, a run under way that others wait for, or an exit with the time until which it holds."""

    __slots__ = ("effect", "exit", "expires_at", "run", "ttl")

    def __init__(self, effect: AnyEffect, ttl: timedelta | None) -> None:
        self.effect = effect
        self.ttl = ttl
        self.run: Deferred[None, Any] | None = None
        self.exit: Exit[Any, Any] | None = None
        self.expires_at: datetime | None = None

    def ask(self, fiber: Fiber[Any, Any]) -> AnyEffect:
        """Answer the outcome that is there, wait for the run under way, or run."""
        if self.exit is not None and (self.expires_at is None or clock_of(fiber).current() < self.expires_at):
            return from_exit(self.exit)
        if self.run is not None:
            return self.run.await_().flat_map(lambda _: WithFiber(self.ask))
        run = self.run = Deferred[None, Any]()
        return OnExit(self.effect, lambda outcome: WithFiber(lambda me: self._ended(run, outcome, me)))

    def _ended(self, run: Deferred[None, Any], outcome: Exit[Any, Any], fiber: Fiber[Any, Any]) -> AnyEffect:
        if self.run is run:
            self.run = None
            if not (isinstance(outcome, Failure) and outcome.cause.has_interrupts):
                self.exit = outcome
                self.expires_at = None if self.ttl is None else clock_of(fiber).current() + self.ttl
        return Suspend(lambda: run.succeed(None))

    def forget(self) -> None:
        """Have the next one who asks run the effect anew."""
        self.run = None
        self.exit = None

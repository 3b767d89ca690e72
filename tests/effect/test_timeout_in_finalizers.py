"""Time limits where nothing is interrupted, such as in finalizers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from returns.maybe import Nothing, Some

from durable_effect import Deferred, Do, Effect
from durable_effect.testing import TestRuntime

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_a_limit_that_is_not_needed_is_not_waited_for() -> None:
    """The effect's end is the end, although neither side of the race may be called off from outside."""

    @Effect.gen
    def program() -> Do[object]:
        news = yield from Deferred.make()
        yield from news.succeed("news").delay("1 second").fork()
        return (yield from news.await_().timeout_option("1 hour").uninterruptible())

    with TestRuntime(NOON) as runtime:
        assert runtime.run(program()) == Some("news")
        assert runtime.now == NOON + timedelta(seconds=1)


def test_an_effect_that_may_be_interrupted_is_bounded_there_too() -> None:
    """What says that it may be called off is, when its time is up."""
    limited = Effect.never.interruptible().timeout_option("1 minute").uninterruptible()

    with TestRuntime(NOON) as runtime:
        assert runtime.run(limited) == Nothing
        assert runtime.now == NOON + timedelta(minutes=1)

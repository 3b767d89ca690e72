"""Durable retries: what becomes of a run whose attempt failed.

A verdict is a value worked out from (attempt, started, now), so it survives restarts: the next attempt
is the instance's alarm, and how often it failed is in its record.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias

import attrs

from durable_effect.backoff import Backoff
from durable_effect.duration import Span, to_timedelta

__all__ = ["Again", "Exhausted", "ExhaustedReason", "Retry", "Verdict"]

ExhaustedReason: TypeAlias = Literal["max_attempts", "max_duration", "not_retryable"]

_DEFAULT_DELAY = Backoff.exponential("1 second", max="30 seconds")

_logger = logging.getLogger("durable_effect_jobs.retry")


@attrs.frozen
class Again:
    """Try again at this instant."""

    at: datetime


@attrs.frozen
class Exhausted:
    """Give up, and why."""

    reason: ExhaustedReason


Verdict: TypeAlias = Again | Exhausted


def _delays(value: Backoff | Span | Callable[[int], Span]) -> Backoff:
    if isinstance(value, Backoff):
        return value
    return Backoff.from_function(value) if callable(value) else Backoff.fixed(value)


def _longest(value: Span | None) -> timedelta | None:
    return None if value is None else to_timedelta(value, positive=True, name="max_duration")


A_RETRY = "a Retry, such as Retry(max_attempts=3)"


def _predicate(_: object, __: object, value: Any) -> None:
    if value is not None and (
        isinstance(value, type) or not callable(value)
    ):  # a class would accept everything
        raise ValueError(
            f"retryable= takes a predicate, such as lambda error: isinstance(error, OSError), got {value!r}"
        )


def _an_end(_: object, __: object, value: str) -> None:
    if value not in ("terminate", "stop"):
        raise ValueError(f'on_exhausted= takes "terminate" or "stop", got {value!r}')


def _at_least_one(_: object, __: object, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise ValueError(f"max_attempts is the total number of executions, 1 or more: got {value!r}")


@attrs.frozen
class Retry:
    """How failed runs are tried again: ``Retry(max_attempts=3, delay=Backoff.exponential("1 second"))``.

    ``max_attempts`` counts all executions of a run, the first included. ``delay`` is a :class:`Backoff`, a
    span, or a function from the number of the attempt that failed (1, 2, ...) to a span; it counts from the
    start of that attempt. ``jitter`` spreads delays by up to 10 % either way, after which the backoff's
    ``max`` still holds. No attempt begins later than ``max_duration`` after the first.

    Every failure is retried, typed or raised, unless ``retryable`` refuses it: it gets the typed error or the
    exception. When no attempt is left the instance is terminated and kept as a dead letter, or with
    ``on_exhausted="stop"`` kept as it is, without an alarm, until ``trigger`` or ``flush`` revives it.
    """

    max_attempts: int = attrs.field(default=3, validator=_at_least_one)
    delay: Backoff = attrs.field(default=_DEFAULT_DELAY, converter=_delays, kw_only=True)
    jitter: bool = attrs.field(default=True, kw_only=True)
    max_duration: timedelta | None = attrs.field(default=None, converter=_longest, kw_only=True)
    retryable: Callable[[object], bool] | None = attrs.field(default=None, validator=_predicate, kw_only=True)
    on_exhausted: Literal["terminate", "stop"] = attrs.field(
        default="terminate", validator=_an_end, kw_only=True
    )

    def verdict(
        self,
        error: object,
        *,
        attempt: int,
        started_at: datetime,
        first_attempt_at: datetime,
        now: datetime,
        roll: float,
    ) -> Verdict:
        """What follows when ``attempt`` (1, 2, ...), begun at ``started_at``, failed; -1 <= ``roll`` <= 1."""
        if not self._accepts(error):
            return Exhausted("not_retryable")
        if attempt >= self.max_attempts:
            return Exhausted("max_attempts")
        try:
            at = started_at + self._wait(attempt, roll)
        except OverflowError:
            return Exhausted("max_duration")
        if self.max_duration is not None and max(at, now) - first_attempt_at > self.max_duration:
            return Exhausted("max_duration")
        return Again(at)

    def _wait(self, attempt: int, roll: float) -> timedelta:
        try:
            return self.delay.jittered(attempt, roll) if self.jitter else self.delay.delay(attempt)
        except Exception:
            _logger.exception("delay= raised; the failure is retried after the default delay")
            return _DEFAULT_DELAY.delay(attempt)

    def _accepts(self, error: object) -> bool:
        if self.retryable is None:
            return True
        try:
            return bool(self.retryable(error))
        except Exception:
            _logger.exception("retryable= raised; the failure is retried")
            return True

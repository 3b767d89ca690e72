"""How long to wait before trying again.

    Backoff.exponential("1 second", max="30 seconds")    1 s, 2 s, 4 s, ... 30 s, 30 s
    Backoff.linear("1 second", "500ms")                  1 s, 1.5 s, 2 s, ...
    Backoff.fixed("5 seconds")                           5 s, 5 s, 5 s, ...
    Backoff.from_function(lambda attempt: f"{attempt}m") anything else

A backoff is a value: it knows no clock and rolls no dice. `backoff.delay(3)` is the wait after the third
attempt has failed, and always the same. `backoff.jittered(3, u)` spreads it by a tenth either way, for a `u`
that the caller has drawn; the cap holds after the spreading too.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from datetime import timedelta
from typing import ClassVar, Final, Protocol, final, overload

import attrs

from durable_effect.duration import Duration, Span, to_timedelta

__all__ = ["Backoff", "BackoffPresets"]

_MICROSECOND: Final = timedelta(microseconds=1)
_JITTER: Final = 0.1


def _factor(value: object) -> float:
    if isinstance(value, int | float):
        with contextlib.suppress(OverflowError):
            factor = float(value)
            if 1 <= factor < math.inf:
                return factor
    raise ValueError(f"factor must be a finite number of at least 1, not {value!r}")


@attrs.frozen(repr=False)
class Backoff:
    """The waits between attempts: `Backoff.exponential("1 second", max="30 seconds")`.

    Equal when made from equal parts. `max` is the longest wait, or None when nothing bounds it but
    `timedelta.max`, about 2.7 million years. A span that is not positive, or a factor below 1, is a
    `ValueError` when the backoff is made.
    """

    _growth: _Growth
    max: timedelta | None = None

    presets: ClassVar[type[BackoffPresets]]

    @staticmethod
    def exponential(base: Span, *, factor: float = 2.0, max: Span | None = None) -> Backoff:
        """Wait `base`, then `factor` times as long after each further attempt, never longer than `max`."""
        growth = _factor(factor)
        return Backoff(_Exponential(to_timedelta(base, positive=True, name="base"), growth), _cap(max))

    @overload
    @staticmethod
    def linear(initial: Span, increment: Span, max: Span | None = None) -> Backoff: ...

    @overload
    @staticmethod
    def linear(*, base: Span, increment: Span, max: Span | None = None) -> Backoff: ...

    @staticmethod
    def linear(
        initial: Span | None = None,
        increment: Span | None = None,
        max: Span | None = None,
        *,
        base: Span | None = None,
    ) -> Backoff:
        """Wait `initial` (also spelled `base`), then `increment` longer after each attempt, at most `max`."""
        first = initial if base is None else base
        if first is None or increment is None or (initial is not None and base is not None):
            raise TypeError("linear takes initial= (or base=, not both) and increment=")
        return Backoff(
            _Linear(
                to_timedelta(first, positive=True, name="initial" if base is None else "base"),
                to_timedelta(increment, name="increment"),
            ),
            _cap(max),
        )

    @staticmethod
    def fixed(delay: Span) -> Backoff:
        """Wait equally long every time."""
        return Backoff(_Fixed(to_timedelta(delay, positive=True, name="delay")))

    @staticmethod
    def constant(delay: Span) -> Backoff:
        """The same as `Backoff.fixed`."""
        return Backoff.fixed(delay)

    @staticmethod
    def from_function(delay: Callable[[int], Span], *, max: Span | None = None) -> Backoff:
        """Wait what `delay(attempt)` says; attempts count from 1. It must be pure, and zero is allowed.

        What it returns is checked each time: anything but a span is a `ValueError` out of `Backoff.delay`.
        """
        return Backoff(_Function(delay), _cap(max))

    def delay(self, attempt: int) -> timedelta:
        """How long to wait after `attempt` has failed; the first attempt is 1.

        Any attempt has an answer: growth ends at `max`, or at `timedelta.max` where there is none. An attempt
        below 1 is a `ValueError`.
        """
        if attempt < 1:
            raise ValueError(f"attempts count from 1, not from {attempt!r}")
        return self._capped(self._growth.microseconds(attempt))

    def jittered(self, attempt: int, u: float) -> timedelta:
        """`delay(attempt)` spread by up to 10 % either way, and capped again.

        `u` says where in the spread: -1 is a tenth shorter, 0 the delay itself, 1 a tenth longer.
        """
        if not -1 <= u <= 1:
            raise ValueError(f"u must be within -1 and 1, not {u!r}")
        return self._capped(self.delay(attempt) / _MICROSECOND * (1 + _JITTER * u))

    def _capped(self, microseconds: float) -> timedelta:
        longest = timedelta.max if self.max is None else self.max
        # Compared before it is rounded: it may be beyond what timedelta holds, even infinite.
        return longest if microseconds >= longest // _MICROSECOND else round(microseconds) * _MICROSECOND

    def __repr__(self) -> str:
        cap = () if self.max is None else (f"max={Duration.format(self.max)!r}",)
        name, *arguments = self._growth.call()
        return f"Backoff.{name}({', '.join((*arguments, *cap))})"


class _Growth(Protocol):
    def microseconds(self, attempt: int) -> float:
        """The wait before any cap; it may be infinite."""
        ...

    def call(self) -> tuple[str, ...]:
        """The name and arguments that make it, for the repr."""
        ...


@attrs.frozen
class _Exponential:
    base: timedelta
    factor: float

    def microseconds(self, attempt: int) -> float:
        try:
            return self.base // _MICROSECOND * self.factor ** (attempt - 1)
        except OverflowError:
            return math.inf

    def call(self) -> tuple[str, ...]:
        return ("exponential", repr(Duration.format(self.base)), f"factor={self.factor!r}")


@attrs.frozen
class _Linear:
    initial: timedelta
    increment: timedelta

    def microseconds(self, attempt: int) -> float:
        return self.initial // _MICROSECOND + self.increment // _MICROSECOND * (attempt - 1)

    def call(self) -> tuple[str, ...]:
        return ("linear", repr(Duration.format(self.initial)), repr(Duration.format(self.increment)))


@attrs.frozen
class _Fixed:
    span: timedelta

    def microseconds(self, attempt: int) -> float:
        return self.span // _MICROSECOND

    def call(self) -> tuple[str, ...]:
        return ("fixed", repr(Duration.format(self.span)))


@attrs.frozen
class _Function:
    delay: Callable[[int], Span]

    def microseconds(self, attempt: int) -> float:
        return to_timedelta(self.delay(attempt), name=f"the delay of attempt {attempt}") // _MICROSECOND

    def call(self) -> tuple[str, ...]:
        return ("from_function", repr(self.delay))


def _cap(longest: Span | None) -> timedelta | None:
    return None if longest is None else to_timedelta(longest, positive=True, name="max")


@final
class BackoffPresets:
    """Backoffs for the usual cases, as `Backoff.presets`."""

    __slots__ = ()

    standard: Final = Backoff.exponential("1 second", max="30 seconds")
    """1 s, doubling, at most 30 s: for most jobs."""
    aggressive: Final = Backoff.exponential("100ms", max="5 seconds")
    """100 ms, doubling, at most 5 s: for what is usually back in a moment."""
    patient: Final = Backoff.exponential("5 seconds", max="5 minutes")
    """5 s, doubling, at most 5 min: for a service that must not be pressed."""
    simple: Final = Backoff.fixed("1 second")
    """1 s every time."""


Backoff.presets = BackoffPresets

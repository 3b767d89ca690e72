"""Schedule: when to do something again, as a pure state machine.

A schedule is asked after every run: `next(state, tick)` answers `Again(output, delay, state)` or
`Done(output)`. It holds no state of its own, so that one schedule serves many runs and the state between two
steps can be stored.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from datetime import datetime, timedelta
from typing import Any, Generic

import attrs
from typing_extensions import TypeVar

from durable_effect.clock import ZERO, clock_of
from durable_effect.cron import Cron
from durable_effect.duration import Span, to_timedelta
from durable_effect.effect import Effect
from durable_effect.ops import AnyEffect, CatchAll, FailWith, Gen, Succeed, WithFiber
from durable_effect.random import random_of

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
In1 = TypeVar("In1")
Out1 = TypeVar("Out1")
Out2 = TypeVar("Out2")
B = TypeVar("B")


@attrs.define
class Tick:
    """What a schedule knows at a step.

    `attempt` counts the runs so far, from 1; `input` is what the last run ended with: the error for `retry`,
    the value for `repeat`. `dice(low, high)` is the only source of chance.
    """

    input: Any
    attempt: int
    started_at: datetime
    now: datetime
    dice: Callable[[float, float], float]


@attrs.define
class Again(Generic[Out]):
    """Once more, after `delay`."""

    output: Out
    delay: timedelta
    state: Any = None


@attrs.define
class Done(Generic[Out]):
    """No more."""

    output: Out


Step = Again[Any] | Done[Any]


class Schedule(Generic[In, Out]):
    """When to do something again. Takes the errors or values of the runs, answers outputs of its own."""

    __slots__ = ("_next", "initial")

    def __init__(self, next: Callable[[Any, Tick], Step], initial: Any = None) -> None:  # noqa: A002
        self._next = next
        self.initial = initial

    def next(self, state: Any, tick: Tick) -> Again[Out] | Done[Out]:
        """Decide, from the state before (`initial` at first)."""
        return self._next(state, tick)

    # ---- schedules -----------------------------------------------------------------------------------------

    @staticmethod
    def forever() -> Schedule[object, int]:
        """Always again, at once; answers the number of repetitions so far, from 0."""
        return Schedule(lambda state, tick: Again(tick.attempt - 1, ZERO))

    @staticmethod
    def recurs(times: int) -> Schedule[object, int]:
        """Again so many times, at once."""

        def step(state: Any, tick: Tick) -> Step:
            return Again(tick.attempt - 1, ZERO) if tick.attempt <= times else Done(times)

        return Schedule(step)

    @staticmethod
    def spaced(span: Span) -> Schedule[object, int]:
        """Always again, so long after the end of each run."""
        delay = to_timedelta(span)
        return Schedule(lambda state, tick: Again(tick.attempt - 1, delay))

    @staticmethod
    def fixed(interval: Span) -> Schedule[object, int]:
        """Always again, at multiples of the interval from the start; at once if a run took longer."""
        width = to_timedelta(interval, positive=True)

        def step(last: Any, tick: Tick) -> Step:
            due = (tick.started_at if last is None else last) + width
            if tick.now < due:
                return Again(tick.attempt - 1, due - tick.now, due)
            grid = tick.started_at + (tick.now - tick.started_at) // width * width
            return Again(tick.attempt - 1, ZERO, grid)

        return Schedule(step)

    @staticmethod
    def exponential(base: Span, factor: float = 2.0) -> Schedule[object, timedelta]:
        """Always again, after base, base * factor, base * factor ** 2 and so on; answers the delay."""
        first = to_timedelta(base)

        def step(state: Any, tick: Tick) -> Step:
            delay = _times(first, factor, tick.attempt - 1)
            return Again(delay, delay)

        return Schedule(step)

    @staticmethod
    def duration(span: Span) -> Schedule[object, timedelta]:
        """Once again, after so long."""
        delay = to_timedelta(span)
        return Schedule(lambda state, tick: Again(delay, delay) if tick.attempt == 1 else Done(delay))

    @staticmethod
    def cron(expression: str, tz: str = "UTC") -> Schedule[object, datetime]:
        """Always again, at the times of a cron expression; answers them."""
        cron = Cron.parse(expression, tz=tz)

        def step(state: Any, tick: Tick) -> Step:
            due = cron.next_after(tick.now)
            return Again(due, due - tick.now)

        return Schedule(step)

    @staticmethod
    def unfold(initial: B, f: Callable[[B], B]) -> Schedule[object, B]:
        """Always again, at once; answers initial, f(initial), f(f(initial)) and so on."""
        return Schedule(lambda state, tick: Again(state, ZERO, f(state)), initial)

    # ---- made of schedules ---------------------------------------------------------------------------------

    def map(self, f: Callable[[Out], B]) -> Schedule[In, B]:
        """Change the output."""

        def step(state: Any, tick: Tick) -> Step:
            match self._next(state, tick):
                case Again(output, delay, after):
                    return Again(f(output), delay, after)
                case Done(output):
                    return Done(f(output))

        return Schedule(step, self.initial)

    def modify_delay(self, f: Callable[[Out, timedelta], Span]) -> Schedule[In, Out]:
        """Change the delay, from output and delay."""
        return self._delayed(lambda tick, output, delay: to_timedelta(f(output, delay)))

    def add_delay(self, f: Callable[[Out], Span]) -> Schedule[In, Out]:
        """Wait longer, by what `f` answers for the output."""
        return self._delayed(lambda tick, output, delay: delay + to_timedelta(f(output)))

    def jittered(self, low: float = 0.8, high: float = 1.2) -> Schedule[In, Out]:
        """Multiply each delay by a number between `low` and `high`, rolled by `Random`."""
        return self._delayed(lambda tick, output, delay: delay * tick.dice(low, high))

    def _delayed(self, f: Callable[[Tick, Any, timedelta], timedelta]) -> Schedule[In, Out]:
        def step(state: Any, tick: Tick) -> Step:
            decided = self._next(state, tick)
            if isinstance(decided, Again):
                return Again(decided.output, f(tick, decided.output, decided.delay), decided.state)
            return decided

        return Schedule(step, self.initial)

    def up_to(self, *, times: int | None = None, span: Span | None = None) -> Schedule[In, Out]:
        """Stop after so many repetitions, or once so much time has passed since the start (inclusive)."""
        limit = None if span is None else to_timedelta(span)

        def step(state: Any, tick: Tick) -> Step:
            decided = self._next(state, tick)
            over = times is not None and tick.attempt > times
            late = limit is not None and tick.now - tick.started_at > limit
            return Done(decided.output) if over or late else decided

        return Schedule(step, self.initial)

    def while_(self, predicate: Callable[[Any], bool]) -> Schedule[In, Out]:
        """Go on only while the input (the error or value of the last run) is such a one."""

        def step(state: Any, tick: Tick) -> Step:
            decided = self._next(state, tick)
            return decided if predicate(tick.input) else Done(decided.output)

        return Schedule(step, self.initial)

    def until(self, predicate: Callable[[Any], bool]) -> Schedule[In, Out]:
        """Go on until the input (the error or value of the last run) is such a one."""
        return self.while_(lambda value: not predicate(value))

    def passthrough(self: Schedule[In1, Any]) -> Schedule[In1, In1]:
        """Answer the inputs in place of the outputs."""

        def step(state: Any, tick: Tick) -> Step:
            match self._next(state, tick):
                case Again(_, delay, after):
                    return Again(tick.input, delay, after)
                case Done():
                    return Done(tick.input)

        return Schedule(step, self.initial)

    def concat(self: Schedule[In1, Out1], after: Schedule[In1, Out2]) -> Schedule[In1, Out1 | Out2]:
        """Follow this schedule to its end and then the other one, from its own beginning."""

        def step(state: Any, tick: Tick) -> Step:
            begun, inner = state
            if begun is None:
                decided = self._next(inner, tick)
                if isinstance(decided, Again):
                    return Again(decided.output, decided.delay, (None, decided.state))
                begun, inner = (tick.attempt - 1, tick.now), after.initial
            runs, since = begun
            own = attrs.evolve(tick, attempt=tick.attempt - runs, started_at=since)
            decided = after._next(inner, own)
            if isinstance(decided, Again):
                return Again(decided.output, decided.delay, (begun, decided.state))
            return decided

        return Schedule(step, (None, self.initial))


def _times(base: timedelta, factor: float, power: int) -> timedelta:
    try:
        return base * factor**power
    except OverflowError:
        return timedelta.max


# ---- driving a schedule ------------------------------------------------------------------------------------


class _Run:
    """A schedule at work."""

    __slots__ = ("attempt", "schedule", "started_at", "state")

    def __init__(self, schedule: Schedule[Any, Any], started_at: datetime) -> None:
        self.schedule = schedule
        self.state = schedule.initial
        self.attempt = 0
        self.started_at = started_at

    def step(self, input: Any) -> Effect[Step]:  # noqa: A002
        """Ask the schedule what comes next."""

        def ask(fiber: Any) -> AnyEffect:
            self.attempt += 1
            now, dice = clock_of(fiber).current(), random_of(fiber).source.uniform
            decided = self.schedule.next(self.state, Tick(input, self.attempt, self.started_at, now, dice))
            if isinstance(decided, Again):
                self.state = decided.state
            return Succeed(decided)

        return WithFiber(ask)


def _begin(schedule: Schedule[Any, Any]) -> Effect[_Run]:
    return WithFiber(lambda fiber: Succeed(_Run(schedule, clock_of(fiber).current())))


class _Failed:
    __slots__ = ("error",)

    def __init__(self, error: Any) -> None:
        self.error = error


def retry(effect: AnyEffect, schedule: Schedule[Any, Any]) -> AnyEffect:
    """Run again after typed errors, as the schedule says."""
    attempt = CatchAll(effect, lambda error: Succeed(_Failed(error)))
    return Gen(_retry, (attempt, schedule), {})


def _retry(attempt: AnyEffect, schedule: Schedule[Any, Any]) -> Generator[Any, Any, Any]:
    run = yield from _begin(schedule)
    while True:
        outcome = yield from attempt
        if type(outcome) is not _Failed:
            return outcome
        decided = yield from run.step(outcome.error)
        if isinstance(decided, Done):
            return (yield from FailWith(outcome.error))
        yield from Effect.sleep(decided.delay)


def repeat(effect: AnyEffect, schedule: Schedule[Any, Any]) -> AnyEffect:
    """Run again after successes, as the schedule says."""
    return Gen(_repeat, (effect, schedule), {})


def _repeat(effect: AnyEffect, schedule: Schedule[Any, Any]) -> Generator[Any, Any, Any]:
    run = yield from _begin(schedule)
    while True:
        value = yield from effect
        decided = yield from run.step(value)
        if isinstance(decided, Done):
            return decided.output
        yield from Effect.sleep(decided.delay)

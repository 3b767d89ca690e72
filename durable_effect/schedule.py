"""Schedule: when to do something again, as a pure state machine.

A schedule is asked after every run: `next(state, tick)` answers `Again(output, delay, state)` or
`Done(output)`. It holds no state of its own, so that one schedule serves many runs and the state between two
steps can be stored.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from datetime import datetime, timedelta
from typing import Any, Generic, cast

import attrs
from returns.maybe import Maybe, Nothing, Some
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
    previous_at: datetime | None = None

    @property
    def elapsed(self) -> timedelta:
        """The time since the schedule began."""
        return self.now - self.started_at

    @property
    def elapsed_since_previous(self) -> timedelta:
        """The time since the step before; nothing at the first one."""
        return ZERO if self.previous_at is None else self.now - self.previous_at


@attrs.define
class Again(Generic[Out]):
    """Once more, after `delay`. `taps` are run before that."""

    output: Out
    delay: timedelta
    state: Any = None
    taps: tuple[Effect[object], ...] = ()


@attrs.define
class Done(Generic[Out]):
    """No more. `taps` are run at the end."""

    output: Out
    taps: tuple[Effect[object], ...] = ()


Step = Again[Any] | Done[Any]


class Schedule(Generic[In, Out]):
    """When to do something again. Takes the errors or values of the runs, answers outputs of its own."""

    __slots__ = ("_next", "initial")

    def __init__(self, next: Callable[[Any, Tick], Step], initial: Any = None) -> None:
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
    def windowed(interval: Span) -> Schedule[object, int]:
        """Always again, at the next multiple of the interval from the start, however long the run took."""
        width = to_timedelta(interval, positive=True)
        return Schedule(lambda state, tick: Again(tick.attempt - 1, width - tick.elapsed % width))

    @staticmethod
    def fibonacci(one: Span) -> Schedule[object, timedelta]:
        """Always again, after one, one, two, three, five and so on times this span; answers the delay."""
        first = to_timedelta(one)

        def step(state: tuple[timedelta, timedelta], tick: Tick) -> Step:
            delay, after = state
            return Again(delay, delay, (after, _sum(delay, after)))

        return Schedule(step, (first, first))

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
            decided = self._next(state, tick)
            return attrs.evolve(decided, output=f(decided.output))

        return Schedule(step, self.initial)

    def tap(self, f: Callable[[Out], Effect[object]]) -> Schedule[In, Out]:
        """Run an effect made of the output at every step, before the delay."""

        def step(state: Any, tick: Tick) -> Step:
            decided = self._next(state, tick)
            return attrs.evolve(decided, taps=(*decided.taps, f(decided.output)))

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
                return attrs.evolve(decided, delay=f(tick, decided.output, decided.delay))
            return decided

        return Schedule(step, self.initial)

    def up_to(self, *, times: int | None = None, span: Span | None = None) -> Schedule[In, Out]:
        """Stop after so many repetitions, or once so much time has passed since the start (inclusive)."""
        limit = None if span is None else to_timedelta(span)

        def step(state: Any, tick: Tick) -> Step:
            decided = self._next(state, tick)
            over = times is not None and tick.attempt > times
            late = limit is not None and tick.now - tick.started_at > limit
            return Done(decided.output, decided.taps) if over or late else decided

        return Schedule(step, self.initial)

    def while_(self, predicate: Callable[[Any], bool]) -> Schedule[In, Out]:
        """Go on only while the input (the error or value of the last run) is such a one."""

        def step(state: Any, tick: Tick) -> Step:
            decided = self._next(state, tick)
            return decided if predicate(tick.input) else Done(decided.output, decided.taps)

        return Schedule(step, self.initial)

    def until(self, predicate: Callable[[Any], bool]) -> Schedule[In, Out]:
        """Go on until the input (the error or value of the last run) is such a one."""
        return self.while_(lambda value: not predicate(value))

    def passthrough(self: Schedule[In1, Any]) -> Schedule[In1, In1]:
        """Answer the inputs in place of the outputs."""

        def step(state: Any, tick: Tick) -> Step:
            return attrs.evolve(self._next(state, tick), output=tick.input)

        return Schedule(step, self.initial)

    def max(self: Schedule[In1, Out1], other: Schedule[In1, Out2]) -> Schedule[In1, tuple[Out1, Out2]]:
        """Follow both schedules, the slower delay each time, until the first of them ends; answers both
        outputs.
        """

        def step(state: Any, tick: Tick) -> Step:
            one, two = self._next(state[0], tick), other._next(state[1], tick)
            output, taps = (one.output, two.output), one.taps + two.taps
            if isinstance(one, Again) and isinstance(two, Again):
                return Again(output, max(one.delay, two.delay), (one.state, two.state), taps)
            return Done(output, taps)

        return Schedule(step, (self.initial, other.initial))

    def min(self: Schedule[In1, Out1], other: Schedule[In1, Out2]) -> Schedule[In1, tuple[Out1, Out2]]:
        """Follow both schedules, the faster delay each time, until both have ended; answers both outputs.

        The one that ended first keeps its last output.
        """

        def step(state: Any, tick: Tick) -> Step:
            one, two = _unless_done(self, state[0], tick), _unless_done(other, state[1], tick)
            output, taps = (one.output, two.output), one.taps + two.taps
            delays = [decided.delay for decided in (one, two) if isinstance(decided, Again)]
            after = tuple(d.state if isinstance(d, Again) else Done(d.output) for d in (one, two))
            return Again(output, min(delays), after, taps) if delays else Done(output, taps)

        return Schedule(step, (self.initial, other.initial))

    intersect = max  # noqa: A003 - the method above
    """Another name of `max`: both must want to go on."""

    union = min  # noqa: A003 - the method above
    """Another name of `min`: one must want to go on."""

    def concat(self: Schedule[In1, Out1], after: Schedule[In1, Out2]) -> Schedule[In1, Out1 | Out2]:
        """Follow this schedule to its end and then the other one, from its own beginning."""

        def step(state: Any, tick: Tick) -> Step:
            begun, inner = state
            if begun is None:
                decided = self._next(inner, tick)
                if isinstance(decided, Again):
                    return attrs.evolve(decided, state=(None, decided.state))
                begun, inner = (tick.attempt - 1, tick.now), after.initial
            runs, since = begun
            own = attrs.evolve(tick, attempt=tick.attempt - runs, started_at=since)
            decided = after._next(inner, own)
            if isinstance(decided, Again):
                return attrs.evolve(decided, state=(begun, decided.state))
            return decided

        return Schedule(step, (None, self.initial))


def _unless_done(schedule: Schedule[Any, Any], state: Any, tick: Tick) -> Step:
    return cast("Step", state) if isinstance(state, Done) else schedule.next(state, tick)


def _sum(one: timedelta, two: timedelta) -> timedelta:
    try:
        return one + two
    except OverflowError:
        return timedelta.max


def limited(
    schedule: Schedule[Any, Any] | None,
    times: int | None,
    while_: Callable[[Any], bool] | None,
    until: Callable[[Any], bool] | None,
) -> Schedule[Any, Any]:
    """Answer the schedule with these limits; without one, that of going on at once."""
    if schedule is None and times is None and while_ is None and until is None:
        raise TypeError("say how often: a schedule, or times=, while_= or until=")
    limited = Schedule.forever() if schedule is None else schedule
    if times is not None:
        limited = limited.up_to(times=times)
    if while_ is not None:
        limited = limited.while_(while_)
    return limited if until is None else limited.until(until)


def _times(base: timedelta, factor: float, power: int) -> timedelta:
    try:
        return base * factor**power
    except OverflowError:
        return timedelta.max


# ---- driving a schedule ------------------------------------------------------------------------------------


class _Run:
    """A schedule at work."""

    __slots__ = ("attempt", "previous_at", "schedule", "started_at", "state")

    def __init__(self, schedule: Schedule[Any, Any], started_at: datetime) -> None:
        self.schedule = schedule
        self.state = schedule.initial
        self.attempt = 0
        self.started_at = started_at
        self.previous_at: datetime | None = None

    def step(self, input: Any) -> Effect[Step]:
        """Ask the schedule what comes next."""

        def ask(fiber: Any) -> AnyEffect:
            self.attempt += 1
            now, dice = clock_of(fiber).current(), random_of(fiber).source.uniform
            tick = Tick(input, self.attempt, self.started_at, now, dice, self.previous_at)
            decided = self.schedule.next(self.state, tick)
            self.previous_at = now
            if isinstance(decided, Again):
                self.state = decided.state
            return Effect.all(iter(decided.taps)).as_(decided) if decided.taps else Succeed(decided)

        return WithFiber(ask)


def _begin(schedule: Schedule[Any, Any]) -> Effect[_Run]:
    return WithFiber(lambda fiber: Succeed(_Run(schedule, clock_of(fiber).current())))


class _Failed:
    __slots__ = ("error",)

    def __init__(self, error: Any) -> None:
        self.error = error


def retry(effect: AnyEffect, schedule: Schedule[Any, Any]) -> AnyEffect:
    """Run again after typed errors, as the schedule says."""
    return retry_or_else(effect, schedule, lambda error, _: FailWith(error))


def retry_or_else(
    effect: AnyEffect, schedule: Schedule[Any, Any], f: Callable[[Any, Any], AnyEffect]
) -> AnyEffect:
    """Run again after typed errors, as the schedule says; then go on with `f(error, output)`."""
    attempt = CatchAll(effect, lambda error: Succeed(_Failed(error)))
    return Gen(_retry, (attempt, schedule, f))


def _retry(
    attempt: AnyEffect, schedule: Schedule[Any, Any], f: Callable[[Any, Any], AnyEffect]
) -> Generator[Any, Any, Any]:
    run = yield from _begin(schedule)
    while True:
        outcome = yield from attempt
        if type(outcome) is not _Failed:
            return outcome
        decided = yield from run.step(outcome.error)
        if isinstance(decided, Done):
            return (yield from f(outcome.error, decided.output))
        yield from Effect.sleep(decided.delay)


def repeat(effect: AnyEffect, schedule: Schedule[Any, Any]) -> AnyEffect:
    """Run again after successes, as the schedule says."""
    return Gen(_repeat, (effect, schedule))


def _repeat(effect: AnyEffect, schedule: Schedule[Any, Any]) -> Generator[Any, Any, Any]:
    run = yield from _begin(schedule)
    while True:
        value = yield from effect
        decided = yield from run.step(value)
        if isinstance(decided, Done):
            return decided.output
        yield from Effect.sleep(decided.delay)


def repeat_or_else(
    effect: AnyEffect, schedule: Schedule[Any, Any], f: Callable[[Any, Maybe[Any]], AnyEffect]
) -> AnyEffect:
    """Run again after successes, as the schedule says; after a typed error go on with `f(error, output)`."""
    attempt = CatchAll(effect, lambda error: Succeed(_Failed(error)))
    return Gen(_repeat_or_else, (attempt, schedule, f))


def _repeat_or_else(
    attempt: AnyEffect, schedule: Schedule[Any, Any], f: Callable[[Any, Maybe[Any]], AnyEffect]
) -> Generator[Any, Any, Any]:
    run = yield from _begin(schedule)
    output: Maybe[Any] = Nothing
    while True:
        value = yield from attempt
        if type(value) is _Failed:
            return (yield from f(value.error, output))
        decided = yield from run.step(value)
        if isinstance(decided, Done):
            return decided.output
        output = Some(decided.output)
        yield from Effect.sleep(decided.delay)


def on_schedule(effect: AnyEffect, schedule: Schedule[Any, Any]) -> AnyEffect:
    """Run whenever the schedule says so, which is asked before the first run too."""
    return Gen(_on_schedule, (effect, schedule))


def _on_schedule(effect: AnyEffect, schedule: Schedule[Any, Any]) -> Generator[Any, Any, Any]:
    run = yield from _begin(schedule)
    value: Any = None
    while isinstance(decided := (yield from run.step(value)), Again):
        yield from Effect.sleep(decided.delay)
        value = yield from effect
    return decided.output

"""Many effects: one after the other, or as child fibers at once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from datetime import timedelta
from typing import Any, Literal

from returns.maybe import Maybe, Nothing, Some
from returns.result import Failure as ResultFailure
from returns.result import Result
from returns.result import Success as ResultSuccess

from durable_effect.effect import Concurrency, Effect
from durable_effect.exit import Cause, Exit, Failure, Interrupt, Success
from durable_effect.ops import (
    VOID,
    AnyEffect,
    FailCause,
    FailWith,
    FlatMap,
    Gen,
    Map,
    OnExit,
    Succeed,
    Wait,
    WithFiber,
)
from durable_effect.runtime import Fiber, Waiter, from_exit, interrupt_all


def all_of(
    effects: Any, concurrency: Concurrency, discard: bool, mode: Literal["result"] | None
) -> AnyEffect:
    """Run effects and answer their values, or what came of each, in the shape of what was given."""
    run: Callable[[AnyEffect], AnyEffect] = _itself if mode is None else _result
    if isinstance(effects, Mapping):
        keys: list[Any] = list(effects)  # pyright: ignore[reportUnknownArgumentType]
        values: list[Any] = list(effects.values())  # pyright: ignore
        each = for_each(values, run, concurrency, discard)
        return each if discard else Map(each, lambda out: dict(zip(keys, out, strict=True)))
    many = for_each(list(effects), run, concurrency, discard)
    return Map(many, tuple) if isinstance(effects, tuple) and not discard else many


def for_each(
    items: Iterable[Any], f: Callable[[Any], AnyEffect], concurrency: Concurrency, discard: bool
) -> AnyEffect:
    """Run an effect for each item; answer the values in the items' order."""
    if concurrency == "unbounded":
        return Gen(_spread, (items, f, None, discard))
    if concurrency < 1:
        raise ValueError(f'concurrency must be at least 1, or "unbounded"; got {concurrency}')
    if concurrency > 1:
        return Gen(_spread, (items, f, concurrency, discard))
    return Gen(_in_turn_discarding if discard else _in_turn, (items, f))


def _result(effect: AnyEffect) -> AnyEffect:
    return effect.result()


def _itself(effect: AnyEffect) -> AnyEffect:
    return effect


def _in_turn(items: Iterable[Any], f: Callable[[Any], AnyEffect]) -> Generator[Any, Any, list[Any]]:
    out: list[Any] = []
    for item in items:
        out.append((yield from f(item)))
    return out


def _in_turn_discarding(items: Iterable[Any], f: Callable[[Any], AnyEffect]) -> Generator[Any, Any, None]:
    for item in items:
        yield from f(item)


def _spread(
    items: Iterable[Any], f: Callable[[Any], AnyEffect], limit: int | None, discard: bool
) -> Generator[Any, Any, list[Any] | None]:
    """Let workers take the items in order; with no limit each item has its own."""
    todo = list(items)
    out: list[Any] = [None] * len(todo)
    rest = iter(enumerate(todo))

    def work() -> Generator[Any, Any, None]:
        for index, item in rest:
            out[index] = yield from f(item)

    workers = len(todo) if limit is None else min(limit, len(todo))
    yield from together([Gen(work, ())] * workers)
    return None if discard else out


# ---- many, and failures are no end -------------------------------------------------------------------------


def results(
    items: Iterable[Any], f: Callable[[Any], AnyEffect], concurrency: Concurrency
) -> Effect[list[Result[Any, Any]], Any, Any]:
    """Run an effect for each item and answer what came of each, typed errors included."""
    return for_each(items, lambda item: f(item).result(), concurrency, False)


def partition(items: Iterable[Any], f: Callable[[Any], AnyEffect], concurrency: Concurrency) -> AnyEffect:
    """Run an effect for each item and answer values and errors apart."""
    return Map(results(items, f, concurrency), _apart)


def validate(
    items: Iterable[Any], f: Callable[[Any], AnyEffect], concurrency: Concurrency, discard: bool
) -> AnyEffect:
    """Run an effect for each item, and fail with all errors if there are any."""

    def verdict(both: tuple[list[Any], list[Any]]) -> AnyEffect:
        values, errors = both
        return FailWith(errors) if errors else Succeed(None if discard else values)

    return FlatMap(partition(items, f, concurrency), verdict)


def _apart(ended: list[Result[Any, Any]]) -> tuple[list[Any], list[Any]]:
    values = [one.unwrap() for one in ended if isinstance(one, ResultSuccess)]
    return values, [one.failure() for one in ended if isinstance(one, ResultFailure)]


def first_success_of(effects: Iterable[AnyEffect]) -> AnyEffect:
    """Run effects in turn until one succeeds."""
    return Gen(_first_success_of, (effects,))


def _first_success_of(effects: Iterable[AnyEffect]) -> Generator[Any, Any, Any]:
    outcome: Result[Any, Any] | None = None
    for effect in effects:
        outcome = yield from effect.result()
        if isinstance(outcome, ResultSuccess):
            return outcome.unwrap()
    if outcome is None:
        raise ValueError("first_success_of needs at least one effect")
    return (yield from FailWith(outcome.failure()))


def while_loop(
    condition: Callable[[], bool], body: Callable[[], AnyEffect], step: Callable[[Any], object]
) -> Generator[Any, Any, None]:
    """Run what `body` makes, again and again."""
    while condition():
        step((yield from body()))


def find_first(items: Iterable[Any], predicate: Callable[[Any], AnyEffect]) -> AnyEffect:
    """Ask for each item in turn, until the answer is yes."""
    return Gen(_find_first, (items, predicate))


def _find_first(
    items: Iterable[Any], predicate: Callable[[Any], AnyEffect]
) -> Generator[Any, Any, Maybe[Any]]:
    for item in items:
        if (yield from predicate(item)):
            return Some(item)
    return Nothing


# ---- at once -----------------------------------------------------------------------------------------------


def together(effects: list[AnyEffect]) -> AnyEffect:
    """Run effects as children and wait for all; the first failure, or an interruption, ends the others."""
    return WithFiber(lambda me: _together(_start(me, effects)))


def _together(fibers: list[Fiber[Any, Any]]) -> AnyEffect:
    exits: list[Exit[Any, Any]] = []

    def register(waiter: Waiter) -> None:
        def ended(outcome: Exit[Any, Any]) -> None:
            exits.append(outcome)
            if len(exits) == len(fibers) or isinstance(outcome, Failure):
                waiter.resume(VOID)

        _observe(fibers, ended, waiter)

    return OnExit(Wait(register), lambda _: FlatMap(interrupt_all(fibers), lambda _: _verdict(exits)))


def _verdict(exits: list[Exit[Any, Any]]) -> AnyEffect:
    cause = _why(exits)
    return FailCause(cause) if cause.reasons else VOID


def _why(exits: list[Exit[Any, Any]]) -> Cause[Any]:
    """Join the causes; that some were called off because others failed is no reason of its own."""
    joined: Cause[Any] = Cause.combine_all(out.cause for out in exits if isinstance(out, Failure))
    real: Cause[Any] = Cause(reason for reason in joined.reasons if not isinstance(reason, Interrupt))
    return real if real.reasons else joined


def _start(me: Fiber[Any, Any], effects: list[AnyEffect]) -> list[Fiber[Any, Any]]:
    fibers: list[Fiber[Any, Any]] = []
    for effect in effects:
        fiber: Fiber[Any, Any] = Fiber(me.runtime, effect, me.env)
        fiber.interruptible = me.interruptible
        me.adopt(fiber)
        me.runtime.ready.append(fiber)
        fibers.append(fiber)
    return fibers


def _observe(fibers: list[Fiber[Any, Any]], ended: Callable[[Exit[Any, Any]], None], waiter: Waiter) -> None:
    for fiber in fibers:
        fiber.observe(ended)
    if not fibers:
        waiter.resume(VOID)


def race_all(effects: Iterable[AnyEffect]) -> AnyEffect:
    """Take the first success of all; fail only if all fail."""
    return WithFiber(lambda me: _race(_start(me, _some(effects)), first_end=False))


def race_all_first(effects: Iterable[AnyEffect]) -> AnyEffect:
    """Take the first end of all, success or failure."""
    return WithFiber(lambda me: _race(_start(me, _some(effects)), first_end=True))


def _some(effects: Iterable[AnyEffect]) -> list[AnyEffect]:
    racers = list(effects)
    if not racers:
        raise ValueError("a race needs at least one effect")
    return racers


def timeout(effect: AnyEffect, limit: timedelta, otherwise: AnyEffect) -> AnyEffect:
    """Take the effect's own end, or `otherwise` when the time is up first."""
    # The timer can be called off even where the effect cannot, or finalizers would wait for the whole limit.
    timer = Map(Effect.sleep(limit).interruptible(), lambda _: otherwise)
    return FlatMap(
        WithFiber(lambda me: _race(_start(me, [Map(effect, Succeed), timer]), first_end=True)), _itself
    )


def _race(fibers: list[Fiber[Any, Any]], *, first_end: bool) -> AnyEffect:
    exits: list[Exit[Any, Any]] = []

    def register(waiter: Waiter) -> None:
        def ended(outcome: Exit[Any, Any]) -> None:
            exits.append(outcome)
            if first_end or isinstance(outcome, Success):
                waiter.resume(from_exit(outcome))
            elif len(exits) == len(fibers):
                waiter.resume(_verdict(exits))

        _observe(fibers, ended, waiter)

    return OnExit(Wait(register), lambda _: interrupt_all(fibers))

"""The laws of effects, for generated programs: what may be written in another way means the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from programs import FINAL, MIXED, NEW_YEAR, SEQUENTIAL, Builder, Oops, plain, programs
from returns.maybe import Nothing, Some
from returns.result import Failure as Err
from returns.result import Success as Ok

from durable_effect import Effect, Failure, Success
from durable_effect.testing import TestRuntime

AnyEffect = Effect[Any, Any, Any]
parts = programs(FINAL, 8)
simple = programs(SEQUENTIAL, 8)  # these fail for one reason at a time
values = st.one_of(st.integers(), st.text(max_size=2), st.none())


def observed(make: Callable[[Builder], AnyEffect]) -> tuple[Any, list[Any], float]:
    """Run what was made, and answer everything that can be seen of it."""
    builder = Builder(MIXED, apart=False)
    with TestRuntime(NEW_YEAR) as world:
        end = plain(world.run_exit(builder.around(lambda: make(builder))), builder.first)
        log = [plain(entry, builder.first) for entry in builder.log]
        return end, log, (world.now - NEW_YEAR).total_seconds()


def same(one: Callable[[Builder], AnyEffect], other: Callable[[Builder], AnyEffect]) -> None:
    assert observed(one) == observed(other)


def after(builder: Builder, program: Any) -> Callable[[Any], AnyEffect]:
    """A function that answers an effect: it notes what it was given, and runs a program."""

    def go_on(value: Any) -> AnyEffect:
        return builder.note(("given", value)).and_then(builder.build(program, ())).map(lambda v: (value, v))

    return go_on


def one(value: Any) -> Any:
    return "one", value


def two(value: Any) -> Any:
    return value, "two"


@given(values, parts)
def test_left_identity(value: Any, f: Any) -> None:
    """Going on from a plain value is calling the function."""
    same(lambda b: Effect.succeed(value).flat_map(after(b, f)), lambda b: after(b, f)(value))


@given(parts)
def test_right_identity(p: Any) -> None:
    """Going on with nothing but the value changes nothing."""
    same(lambda b: b.build(p, ()).flat_map(Effect.succeed), lambda b: b.build(p, ()))


@given(parts, parts, parts)
def test_associativity(p: Any, f: Any, g: Any) -> None:
    """It does not matter how a sequence is bracketed."""
    same(
        lambda b: b.build(p, ()).flat_map(after(b, f)).flat_map(after(b, g)),
        lambda b: b.build(p, ()).flat_map(lambda value: after(b, f)(value).flat_map(after(b, g))),
    )


@given(parts)
def test_functor(p: Any) -> None:
    """Mapping nothing changes nothing; mapping twice is mapping once by both; `map` is `flat_map`."""
    same(lambda b: b.build(p, ()).map(lambda v: v), lambda b: b.build(p, ()))
    same(lambda b: b.build(p, ()).map(one).map(two), lambda b: b.build(p, ()).map(lambda v: two(one(v))))
    same(
        lambda b: b.build(p, ()).map(one),
        lambda b: b.build(p, ()).flat_map(lambda value: Effect.succeed(one(value))),
    )


@given(simple, parts)
def test_the_error_channel_is_a_monad_too(p: Any, f: Any) -> None:
    """`fail` and `catch_all` are to errors what `succeed` and `flat_map` are to values."""
    error = Oops("e3")
    same(lambda b: Effect.fail(error).catch_all(after(b, f)), lambda b: after(b, f)(error))
    same(lambda b: b.build(p, ()).catch_all(Effect.fail), lambda b: b.build(p, ()))
    same(
        lambda b: b.build(p, ()).map_error(lambda _: error),
        lambda b: b.build(p, ()).catch_all(lambda _: Effect.fail(error)),
    )


@given(values, parts)
def test_handlers_leave_successes_alone(value: Any, f: Any) -> None:
    """A success passes every handler."""
    for handled in (
        lambda b: Effect.succeed(value).catch_all(after(b, f)),
        lambda b: Effect.succeed(value).catch_cause(after(b, f)),
        lambda b: Effect.succeed(value).or_die().map_error(repr),
    ):
        same(handled, lambda b: Effect.succeed(value))


@given(simple)
def test_flip_twice_and_exit_and_back(p: Any) -> None:
    """Swapping the channels twice, and looking at the exit and going on as it was, change nothing."""
    same(lambda b: b.build(p, ()).flip().flip(), lambda b: b.build(p, ()))
    same(lambda b: b.build(p, ()).exit().flat_map(Effect.from_exit), lambda b: b.build(p, ()))


@given(parts, st.lists(st.booleans(), max_size=4))
def test_finalizers_run_from_the_inside_out(p: Any, fails: list[bool]) -> None:
    """Each runs once, before those around it, also when others fail; a scope runs them in reverse."""

    def finalizer(b: Builder, number: int) -> AnyEffect:
        noted = b.note(("finalizer", number))
        return noted.and_then(Effect.die(Oops(f"d{number}"))) if fails[number] else noted

    def nested(b: Builder) -> AnyEffect:
        effect = b.build(p, ())
        for number in range(len(fails)):
            effect = effect.ensuring(finalizer(b, number))
        return effect

    def in_a_scope(b: Builder) -> AnyEffect:
        effect = b.build(p, ())
        for number in range(len(fails)):
            added: AnyEffect = Effect.add_finalizer(lambda _, number=number: finalizer(b, number))
            effect = added.and_then(effect)
        return effect.scoped()

    same(nested, in_a_scope)
    assert [entry for entry in observed(nested)[1] if entry[0] == "finalizer"] == [
        ("finalizer", number) for number in range(len(fails))
    ]


@given(values)
def test_results_and_maybes_are_round_trips(value: Any) -> None:
    """Values of `returns` go into effects and come out as they were."""
    for result in (Ok(value), Err(value)):
        assert Effect.run_sync(Effect.from_result(result).result()) == result
        assert Effect.run_sync_exit(Effect.from_result(result)).to_maybe() == (
            Some(value) if isinstance(result, Ok) else Nothing
        )
    for maybe in (Some(value), Nothing):
        assert Effect.run_sync(Effect.from_maybe(maybe, lambda: "absent").option()) == maybe
    assert Effect.run_sync(Effect.from_exit(Success(value)).exit()) == Success(value)
    ended: Any = Effect.run_sync_exit(Effect.from_result(Err(value)))
    assert isinstance(ended, Failure)
    assert ended.cause.failures == (value,)

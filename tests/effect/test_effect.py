"""Effects as values: how they are made, chained and recovered from."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.future import FutureResult
from returns.io import IOFailure, IOResult, IOSuccess
from returns.maybe import Nothing, Some
from returns.result import Failure as Err
from returns.result import Success as Ok

from durable_effect import (
    Cause,
    Defect,
    Die,
    Do,
    Effect,
    Fail,
    Failure,
    Interrupt,
    Interrupted,
    NotSynchronousError,
    Success,
    TypedError,
    catch,
    on,
)
from durable_effect.testing import TestRuntime


async def turn() -> None:
    """Give the asyncio loop a turn."""
    await asyncio.sleep(0)  # noqa: TID251 - takes no time


@attrs.frozen
class NotFound(TypedError):
    """No such thing."""

    key: str


class Denied(TypedError):
    """Not allowed."""


def boom() -> Any:
    """Raise what nobody expects."""
    raise ZeroDivisionError("boom")


def run(effect: Effect[Any, Any, Any]) -> Any:
    return Effect.run_sync_exit(effect)


# ---- laws --------------------------------------------------------------------------------------------------

numbers = st.integers(-1000, 1000)


def _effects() -> st.SearchStrategy[Effect[Any, Any]]:
    return st.one_of(
        numbers.map(Effect.succeed),
        st.text(max_size=3).map(lambda key: Effect.fail(NotFound(key))),
        numbers.map(lambda n: Effect.sync(lambda: n)),
        numbers.map(lambda n: Effect.yield_now().as_(n)),
        st.just(Effect.die(ZeroDivisionError("same"))).map(
            lambda e: e.catch_cause(lambda c: Effect.fail(Denied()))
        ),
    )


def _functions() -> st.SearchStrategy[Callable[[Any], Effect[Any, Any]]]:
    return st.one_of(
        numbers.map(lambda n: lambda x: Effect.succeed((x, n))),
        st.just(lambda x: Effect.fail(NotFound(str(x)))),
        numbers.map(lambda n: lambda x: Effect.yield_now().map(lambda _: [x, n])),
    )


@given(numbers, _functions())
def test_left_identity(value: int, f: Callable[[Any], Effect[Any, Any]]) -> None:
    """Succeeding and going on with a function is the function."""
    assert run(Effect.succeed(value).flat_map(f)) == run(f(value))


@given(_effects())
def test_right_identity(effect: Effect[Any, Any]) -> None:
    """Going on with success changes nothing."""
    assert run(effect.flat_map(Effect.succeed)) == run(effect)


@given(_effects(), _functions(), _functions())
def test_associativity(effect: Effect[Any, Any], f: Any, g: Any) -> None:
    """It does not matter how a chain is put in brackets."""
    assert run(effect.flat_map(f).flat_map(g)) == run(effect.flat_map(lambda x: f(x).flat_map(g)))


@given(_effects())
def test_map_identity(effect: Effect[Any, Any]) -> None:
    """Changing nothing about the value changes nothing."""
    assert run(effect.map(lambda x: x)) == run(effect)


@given(_effects())
def test_flip_twice(effect: Effect[Any, Any]) -> None:
    """Swapping error and value twice changes nothing."""
    assert run(effect.flip().flip()) == run(effect)


@given(_effects())
def test_do_block_is_transparent(effect: Effect[Any, Any]) -> None:
    """A do-block around an effect ends as the effect does."""

    @Effect.gen
    def block() -> Do[Any, Any]:
        return (yield from effect)

    assert run(block()) == run(effect)


@given(_effects())
def test_effects_can_be_run_again(effect: Effect[Any, Any]) -> None:
    """A second run ends as the first."""
    assert run(effect) == run(effect)


@given(_effects(), st.lists(st.sampled_from("abc"), max_size=5))
def test_finalizers_run_from_the_inside_out(effect: Effect[Any, Any], names: list[str]) -> None:
    """Each of several finalizers runs once, the innermost first, however the effect ends."""
    seen: list[str] = []
    wrapped = effect
    for name in names:
        wrapped = wrapped.ensuring(Effect.sync(lambda name=name: seen.append(name)))
    assert run(wrapped) == run(effect)
    assert seen == names


# ---- making effects ----------------------------------------------------------------------------------------


def test_nothing_happens_until_it_is_run() -> None:
    """Making an effect does nothing; each run does it once."""
    done: list[int] = []
    effect = Effect.sync(lambda: done.append(1))
    assert done == []
    effect.run_sync()
    effect.run_sync()
    assert done == [1, 1]


def test_a_raised_exception_is_a_defect() -> None:
    """What a function of the user raises is a Die, wherever the function was given."""
    for effect in (
        Effect.sync(boom),
        Effect.suspend(boom),
        Effect.void.map(lambda _: boom()),
        Effect.void.flat_map(lambda _: boom()),
        Effect.fail(1).catch_all(lambda _: boom()),
        Effect.fail(1).map_error(lambda _: boom()),
        Effect.attempt(boom, catch=lambda _: boom()),
    ):
        match run(effect):
            case Failure(Cause((Die(ZeroDivisionError()),))):
                pass
            case other:
                pytest.fail(f"{other}")


def test_a_raised_typed_error_is_a_defect_too() -> None:
    """Only `Effect.fail` makes a typed failure; raising one in a do-block is a bug."""

    @Effect.gen
    def block() -> Do[None]:
        yield from Effect.void
        raise NotFound("k")

    assert run(block()) == Failure(Cause.die(NotFound("k")))


def test_stop_iteration_is_a_defect_like_any_other() -> None:
    """StopIteration from a callback does not end a loop of ours."""

    def stop(_: object) -> Any:
        raise StopIteration(5)

    assert isinstance(run(Effect.void.map(stop)).cause.defects[0], StopIteration)


def test_attempt_turns_exceptions_into_errors() -> None:
    """The error is what `catch` makes of the exception, and has it as its cause."""
    ended = run(Effect.attempt(boom, catch=lambda _: Denied()))
    assert ended == Failure(Cause.fail(Denied()))
    assert isinstance(ended.cause.failures[0].__cause__, ZeroDivisionError)


def test_attempt_without_catch_fails_with_the_exception() -> None:
    """The exception itself is the typed error then."""
    assert isinstance(run(Effect.attempt(boom)).cause.failures[0], ZeroDivisionError)
    assert run(Effect.attempt(lambda: 3)) == Success(3)


def test_results_maybes_and_optionals_become_effects() -> None:
    """Values of `returns`, and None, are understood."""
    assert run(Effect.from_result(Ok(1))) == Success(1)
    assert run(Effect.from_result(Err("e"))) == Failure(Cause.fail("e"))
    assert run(Effect.from_maybe(Some(1), Denied)) == Success(1)
    assert run(Effect.from_maybe(Nothing, Denied)) == Failure(Cause.fail(Denied()))
    assert run(Effect.from_optional(0, Denied)) == Success(0)
    assert run(Effect.from_optional(None, Denied)) == Failure(Cause.fail(Denied()))
    assert run(Effect.from_exit(Success(4))) == Success(4)
    assert run(Effect.from_exit(Failure(Cause.fail("e")))) == Failure(Cause.fail("e"))


def test_io_results_become_effects() -> None:
    """What an `IOResult` holds is taken out."""
    assert run(Effect.from_io_result(IOSuccess(1))) == Success(1)
    assert run(Effect.from_io_result(IOFailure("e"))) == Failure(Cause.fail("e"))


def test_future_results_become_effects_that_run_again() -> None:
    """Every run awaits a `FutureResult` of its own, and what it raises is a defect."""
    made: list[int] = []

    def make() -> FutureResult[int, str]:
        made.append(1)
        return FutureResult.from_value(len(made)) if len(made) < 3 else FutureResult.from_failure("e")

    async def broken() -> Any:
        boom()

    effect = Effect.from_future_result(make)
    assert [Effect.run(effect.result()) for _ in range(3)] == [Ok(1), Ok(2), Err("e")]
    with pytest.raises(ZeroDivisionError):
        Effect.run(Effect.from_future_result(lambda: FutureResult(broken())).catch_all(Effect.succeed))


def test_effects_become_future_results_and_come_back() -> None:
    """`to_future_result` waits to be awaited, keeps values and typed errors, and raises defects."""
    log: list[str] = []
    logged = Effect.sync(lambda: log.append("ran")).as_(1)
    failing = Effect.fail(NotFound("k"))

    async def scene() -> None:
        future = logged.to_future_result()
        assert log == []
        assert await future == IOResult.from_value(1)
        assert log == ["ran"]
        assert await failing.to_future_result() == IOResult.from_failure(NotFound("k"))
        assert await Effect.from_future_result(logged.to_future_result) == 1
        assert await Effect.from_future_result(failing.to_future_result).flip() == NotFound("k")
        with pytest.raises(ZeroDivisionError):
            await Effect.sync(boom).to_future_result()

    asyncio.run(scene())


def test_a_class_in_place_of_an_error_is_refused() -> None:
    """`Effect.fail(Denied)` says to write `Effect.fail(Denied(...))`; classes that cannot be raised pass."""
    with pytest.raises(TypeError, match=r"Effect\.fail\(Denied\(\.\.\.\)\)"):
        Effect.fail(Denied)
    assert run(Effect.fail(int)) == Failure(Cause.fail(int))


def test_void_and_never_are_effects_and_functions() -> None:
    """`Effect.void` and `Effect.void()` are the same effect."""
    assert Effect.void() is Effect.void
    assert Effect.never() is Effect.never
    assert run(Effect.void()) == Success(None)


def test_die_takes_a_message() -> None:
    """A message becomes a RuntimeError."""
    assert str(run(Effect.die("no way")).cause.squash()) == "no way"


def test_an_effect_is_not_its_value() -> None:
    """What only the value has is missed with a hint at what was forgotten; a probe just misses it."""
    made: Any = Effect.succeed(NotFound("a"))
    with pytest.raises(AttributeError, match="no attribute 'key': did you forget `yield from`"):
        _ = made.key
    assert not hasattr(made, "key")


def test_run_on_a_running_loop_says_what_to_write() -> None:
    """There is one loop per thread, and whoever is on it awaits the effect; no coroutine is left behind."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match="use `await effect`"):
            Effect.run(Effect.succeed(1))

    asyncio.run(main())


def test_an_effect_has_no_truth_value() -> None:
    """`if effect:` is a forgotten `yield from`."""
    with pytest.raises(TypeError, match="yield from"):
        bool(Effect.void)


def test_what_is_no_effect_is_refused_with_advice() -> None:
    """A callback that answers a plain value is told to wrap it."""
    defect = run(Effect.void.flat_map(lambda _: 5)).cause.squash()  # type: ignore[arg-type, return-value]
    assert isinstance(defect, TypeError)
    assert "Effect.succeed" in str(defect)


# ---- do-blocks ---------------------------------------------------------------------------------------------


def test_a_do_block_keeps_its_name_and_documentation() -> None:
    """`Effect.gen` wraps the function as decorators should."""

    @Effect.gen
    def greet(name: str) -> Do[str]:
        """Say hello."""
        yield from Effect.void
        return name

    assert (greet.__name__, greet.__doc__) == ("greet", "Say hello.")
    assert inspect.isgeneratorfunction(inspect.unwrap(greet))


def test_typed_errors_can_be_caught_in_a_do_block() -> None:
    """`except` sees the typed error itself."""

    @Effect.gen
    def block() -> Do[str]:
        try:
            yield from Effect.fail(NotFound("k"))
        except NotFound as error:
            return error.key
        return ""

    assert run(block()) == Success("k")


def test_an_error_that_leaves_a_do_block_is_still_typed() -> None:
    """Re-raising keeps the failure a failure, through `finally` and other failures meanwhile."""

    @Effect.gen
    def block() -> Do[None, NotFound]:
        try:
            yield from Effect.fail(NotFound("k"))
        finally:
            with suppress(Denied):
                yield from Effect.fail(Denied())

    assert run(block()) == Failure(Cause.fail(NotFound("k")))


def test_an_error_that_was_kept_can_be_raised_later() -> None:
    """The last error of a loop, raised after it, is the typed failure that it was."""

    @Effect.gen
    def block() -> Do[None, NotFound]:
        last: NotFound | None = None
        for key in "ab":
            try:
                yield from Effect.fail(NotFound(key))
            except NotFound as error:
                last = error
        assert last is not None
        raise last

    assert run(block()) == Failure(Cause.fail(NotFound("b")))


def test_errors_that_are_no_exceptions_come_as_effect_failure() -> None:
    """Any value may be an error; `except` sees it wrapped, and callers see the value."""

    @Effect.gen
    def block() -> Do[None, str]:
        yield from Effect.fail("plain")

    assert run(block()) == Failure(Cause.fail("plain"))


def test_defects_can_be_caught_where_they_fly_by() -> None:
    """`except` sees the exception that was raised, and letting it pass keeps it a defect."""

    @Effect.gen
    def catching() -> Do[str]:
        try:
            yield from Effect.sync(boom).flat_map(Effect.succeed).uninterruptible()
        except ZeroDivisionError:
            return "caught"
        return ""

    @Effect.gen
    def passing() -> Do[None]:
        yield from Effect.sync(boom).uninterruptible()

    assert run(catching()) == Success("caught")
    assert isinstance(run(passing()).cause.reasons[0], Die)


def test_a_failure_as_defect_stays_a_defect() -> None:
    """What `or_die` made a defect is not typed again by passing a do-block, though it was typed before."""
    error = NotFound("k")

    @Effect.gen
    def typed() -> Do[None, NotFound]:
        yield from Effect.fail(error)

    @Effect.gen
    def defect() -> Do[None]:
        yield from typed().or_die()

    assert run(defect()) == Failure(Cause.die(error))


def test_a_block_without_yield_from_is_told_so() -> None:
    """A plain function under `Effect.gen` is a defect that names it."""

    def plain() -> int:
        return 3

    for effect in (Effect.gen(plain)(), Effect.void.flat_map(lambda _: Effect.gen(plain)())):  # type: ignore[arg-type]
        defect = run(effect).cause.squash()
        assert isinstance(defect, TypeError)
        assert "plain" in str(defect)
        assert "yield from" in str(defect)


def test_an_async_def_is_no_do_block() -> None:
    """Coroutines and async generators under `Effect.gen` and `Effect.fn` are refused, with advice."""

    async def coroutine() -> int:
        return 1

    async def generator() -> AsyncIterator[Effect[int]]:
        yield Effect.succeed(1)

    for decorate in (Effect.gen, Effect.fn("name")):
        for function in (coroutine, generator):
            advice = rf"Effect\.from_async\(lambda: {function.__name__}\(\.\.\.\)\)"
            with pytest.raises(TypeError, match=advice):
                decorate(function)  # type: ignore[arg-type]


def test_a_block_that_returns_an_effect_is_told_so() -> None:
    """Forgetting that a do-block runs its effects is a defect with advice."""

    def lazy() -> Effect[int]:
        return Effect.succeed(1)

    assert "return (yield from ...)" in str(run(Effect.gen(lazy)()).cause.squash())  # type: ignore[arg-type]


def test_a_bare_yield_is_told_so() -> None:
    """`yield effect` is a defect that says what to write."""

    @Effect.gen
    def block() -> Any:
        yield Effect.succeed(1)

    @Effect.gen
    def outer() -> Do[Any]:
        return (yield from block())

    for effect in (block(), outer()):
        defect = run(effect).cause.squash()
        assert isinstance(defect, TypeError)
        assert "yield from" in str(defect)


def test_methods_can_be_do_blocks() -> None:
    """`Effect.gen` works on methods, with their own state."""

    class Counter:
        def __init__(self) -> None:
            self.n = 0

        @Effect.gen
        def add(self, by: int) -> Do[int]:
            self.n += yield from Effect.succeed(by)
            return self.n

    counter = Counter()
    assert run(counter.add(2).and_then(counter.add(3))) == Success(5)


def test_a_prebuilt_failure_does_not_grow_its_traceback() -> None:
    """Running the same failing effect again and again does not pile up frames on its error."""
    error = NotFound("k")
    failing = Effect.fail(error)

    @Effect.gen
    def block() -> Do[None]:
        for _ in range(20):
            with suppress(NotFound):
                yield from failing

    run(block())
    depth, traceback = 0, error.__traceback__
    while traceback is not None:
        depth, traceback = depth + 1, traceback.tb_next
    assert depth < 5


# ---- values and errors -------------------------------------------------------------------------------------


def test_values_are_chained_and_combined() -> None:
    """The methods on values do what they say."""
    one = Effect.succeed(1)
    assert run(one.map(str)) == Success("1")
    assert run(one.and_then(Effect.succeed(2))) == Success(2)
    assert run(one.tap(lambda n: Effect.succeed(n + 1))) == Success(1)
    assert run(one.tap(lambda n: Effect.fail("e"))) == Failure(Cause.fail("e"))
    assert run(one.as_("x")) == Success("x")
    assert run(one.as_void()) == Success(None)
    assert run(one.zip(Effect.succeed("b"))) == Success((1, "b"))
    assert run(one.zip_with(Effect.succeed(3), lambda a, b: a + b)) == Success(4)
    assert run(Effect.succeed(one).flatten()) == Success(1)
    assert one.pipe(lambda e: e.map(str), run) == Success("1")


def test_handlers_see_typed_errors_only() -> None:
    """`catch_all` and its like let defects and interruptions pass."""
    failing: Effect[int, NotFound] = Effect.fail(NotFound("k"))
    assert run(failing.catch_all(lambda e: Effect.succeed(e.key))) == Success("k")
    assert run(failing.catch_if(lambda e: e.key == "k", lambda e: Effect.succeed(0))) == Success(0)
    assert run(failing.catch_if(lambda e: e.key != "k", lambda e: Effect.succeed(0))) == Failure(
        Cause.fail(NotFound("k"))
    )
    assert run(failing.or_else_succeed(lambda: 7)) == Success(7)
    assert run(failing.map_error(lambda e: e.key)) == Failure(Cause.fail("k"))
    assert run(failing.or_die()) == Failure(Cause.die(NotFound("k")))
    assert run(failing.ignore()) == Success(None)
    assert run(failing.is_success()) == Success(False)
    assert run(Effect.void.is_success()) == Success(True)
    for other in (Effect.sync(boom), Effect.interrupt()):
        assert not run(other.catch_all(lambda _: Effect.void).ignore().result()).is_success


def test_causes_are_seen_whole() -> None:
    """`catch_cause` and `exit` see defects and ordinary interruptions."""
    assert isinstance(run(Effect.sync(boom).exit()).value.cause.reasons[0], Die)
    assert run(Effect.interrupt().catch_cause(lambda c: Effect.succeed(c.is_interrupted_only))) == Success(
        True
    )
    assert run(Effect.succeed(1).exit()) == Success(Success(1))
    assert run(Effect.fail("e").exit()) == Success(Failure(Cause.fail("e")))


def test_taps_keep_the_failure() -> None:
    """`tap_error` and `tap_cause` look on, and their own failures count."""
    seen: list[object] = []

    def note(x: object) -> Effect[None]:
        return Effect.sync(lambda: seen.append(x))

    assert run(Effect.fail("e").tap_error(note)) == Failure(Cause.fail("e"))
    assert run(Effect.fail("e").tap_cause(lambda c: note(c.failures))) == Failure(Cause.fail("e"))
    assert seen == ["e", ("e",)]
    assert run(Effect.fail("e").tap_error(lambda _: Effect.fail("f"))) == Failure(Cause.fail("f"))


def test_outcomes_are_folded() -> None:
    """The folds take one way or the other, and the success way's own failures are not caught."""
    assert run(Effect.fail("e").fold(lambda e: e + "!", lambda n: n)) == Success("e!")
    assert run(Effect.succeed(1).fold(lambda e: e, lambda n: n + 1)) == Success(2)
    assert run(Effect.succeed(1).fold_effect(Effect.succeed, lambda n: Effect.fail("late"))) == Failure(
        Cause.fail("late")
    )
    assert run(Effect.fail("e").fold_effect(lambda e: Effect.succeed(e), Effect.succeed)) == Success("e")
    assert run(
        Effect.sync(boom).fold_cause(lambda c: Effect.succeed(len(c.defects)), Effect.succeed)
    ) == Success(1)


def test_results_and_maybes_come_out() -> None:
    """`result` and `option` speak the types of `returns`."""
    assert run(Effect.succeed(1).result()) == Success(Ok(1))
    assert run(Effect.fail("e").result()) == Success(Err("e"))
    assert run(Effect.succeed(1).option()) == Success(Some(1))
    assert run(Effect.fail("e").option()) == Success(Nothing)


def test_one_error_type_is_taken_out() -> None:
    """`catch` and `on` handle their own types and let the others pass."""
    missing: Effect[int, NotFound | Denied] = Effect.fail(NotFound("k"))
    denied: Effect[int, NotFound | Denied] = Effect.fail(Denied())
    handler = catch(NotFound, lambda e: Effect.succeed(e.key))
    assert run(missing | handler) == Success("k")
    assert run(denied | handler) == Failure(Cause.fail(Denied()))
    assert run(missing.pipe(on(NotFound)(lambda e: Effect.succeed(e.key)))) == Success("k")
    assert run(denied | catch((NotFound, Denied), lambda e: Effect.succeed(type(e)))) == Success(Denied)


# ---- running -----------------------------------------------------------------------------------------------


def test_run_sync_raises_what_went_wrong() -> None:
    """A typed error is raised as itself, a defect as the exception that was raised."""
    error = NotFound("k")
    with pytest.raises(NotFound) as caught:
        Effect.run_sync(Effect.fail(error))
    assert caught.value is error
    with pytest.raises(ZeroDivisionError) as defect:
        Effect.run_sync(Effect.sync(boom))
    assert [frame.name for frame in defect.traceback][-1] == "boom"
    with pytest.raises(Interrupted):
        Effect.run_sync(Effect.interrupt())


def test_run_sync_refuses_to_wait() -> None:
    """Work that has to wait is refused with advice, and what it had acquired is released."""
    released: list[int] = []
    for waiting in (Effect.sleep("1 second"), Effect.never, Effect.from_async(lambda: turn())):
        with pytest.raises(NotSynchronousError, match=r"Effect\.run"):
            Effect.run_sync(waiting.ensuring(Effect.sync(lambda: released.append(1))))
    assert released == [1, 1, 1]


def test_run_sync_runs_fibers() -> None:
    """Fibers that wait for each other only need no loop."""

    @Effect.gen
    def program() -> Do[int]:
        fiber = yield from Effect.fork(Effect.yield_now().as_(2))
        return (yield from fiber.join()) + 1

    assert Effect.run_sync(program()) == 3


def test_run_has_a_loop() -> None:
    """`Effect.run` awaits awaitables, and interrupts at its end what still runs in the background."""
    left: list[str] = []

    async def hello() -> str:
        await turn()
        return "hello"

    background = Effect.never.ensuring(Effect.sync(lambda: left.append("released"))).fork_detach()
    assert Effect.run(background.and_then(Effect.yield_now()).and_then(Effect.from_async(hello))) == "hello"
    assert left == ["released"]


def test_effects_are_awaitable() -> None:
    """`await effect` gives the value or raises, and `run_async_exit` answers the exit."""

    async def main() -> None:
        assert await Effect.succeed(1) == 1
        assert await Effect.sleep("1 ms").as_(2) == 2
        with pytest.raises(NotFound):
            await Effect.fail(NotFound("k"))
        assert await Effect.run_async_exit(Effect.fail("e")) == Failure(Cause.fail("e"))

    asyncio.run(main())


def test_one_effect_runs_on_many_loops_at_once() -> None:
    """Every run has a queue of its own, bound to its loop."""

    @Effect.gen
    def program(n: int) -> Do[int]:
        for _ in range(5):
            yield from Effect.from_async(lambda: turn())
        return n

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda n: Effect.run(program(n)), range(8))) == list(range(8))


def test_callbacks_come_from_any_thread() -> None:
    """`resume` may be called from another thread; only the first call counts."""

    def register(resume: Callable[[Effect[int]], None]) -> None:
        def call() -> None:
            resume(Effect.succeed(1))
            resume(Effect.succeed(2))

        threading.Thread(target=call).start()

    assert Effect.run(Effect.async_(register)) == 1


def test_callbacks_may_come_at_once() -> None:
    """`resume` may be called before `register` returns."""

    def register(resume: Callable[[Effect[int]], None]) -> None:
        resume(Effect.succeed(1))

    assert Effect.run_sync(Effect.async_(register)) == 1


def test_blocking_calls_run_on_a_thread() -> None:
    """`from_thread` keeps the loop free and brings value or exception back."""
    here = threading.get_ident()
    assert Effect.run(Effect.from_thread(threading.get_ident)) != here
    with ThreadPoolExecutor(1, thread_name_prefix="mine") as pool:
        name = Effect.from_thread(lambda: threading.current_thread().name, executor=pool)
        assert Effect.run(name).startswith("mine")
    assert Effect.run(Effect.from_thread(boom, catch=lambda _: Denied()).exit()) == Failure(
        Cause.fail(Denied())
    )
    assert isinstance(Effect.run(Effect.from_thread(boom).exit()), Failure)


def test_defects_are_values_too(world: TestRuntime) -> None:
    """`Cause.error` answers the typed error, or the defect as a value."""
    ended = world.run_exit(Effect.sync(boom))
    assert isinstance(ended, Failure)
    error = ended.cause.error()
    assert isinstance(error, Defect)
    assert isinstance(error.exception, ZeroDivisionError)
    assert Cause((Fail("e"),)).error() == "e"
    assert Cause((Interrupt(1),)).error() is None

"""What both type checkers must say about combinators, layers and shared things: checked, never run.

Wrong lines carry `type: ignore[code]` for mypy and `pyright: ignore[rule]`, as in `core_programs`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Never, assert_type

from returns.future import FutureResult
from returns.io import IOResult
from returns.maybe import Maybe
from returns.result import Result

from durable_effect import (
    Cause,
    Do,
    Effect,
    Exit,
    Fail,
    Fiber,
    Latch,
    Layer,
    ManagedRuntime,
    Need,
    Queue,
    QueueEnded,
    Random,
    Reference,
    Schedule,
    Scope,
    SynchronizedRef,
    Tag,
    TestClock,
    TypedError,
    provide,
    provide_service_effect,
)


class NotFound(TypedError):
    """No such thing."""


class Denied(TypedError):
    """Not allowed."""


class Db:
    """A service."""


class Log:
    """Another one."""


class Mail:
    """A third one."""


def _find() -> Effect[int, NotFound, Need[Db]]:
    return Effect.succeed(1)


def _plain() -> Effect[int, NotFound]:
    return Effect.succeed(1)


find = _find()
plain = _plain()

# ---- errors and values -------------------------------------------------------------------------------------

assert_type(Effect.fail_sync(NotFound), Effect[Never, NotFound])
assert_type(find.catch_defect(lambda d: Effect.succeed("")), Effect[int | str, NotFound, Need[Db]])
assert_type(find.sandbox(), Effect[int, Cause[NotFound], Need[Db]])
assert_type(find.map_both(lambda e: Denied(), str), Effect[str, Denied, Need[Db]])
assert_type(find.tap_defect(lambda d: Effect.service(Log)), Effect[int, NotFound, Need[Db] | Need[Log]])
assert_type(
    find.filter_or_fail(lambda n: n > 1, lambda n: Denied()), Effect[int, NotFound | Denied, Need[Db]]
)
assert_type(find.when(Effect.succeed(True)), Effect[Maybe[int], NotFound, Need[Db]])
find.when(Effect.succeed(1))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
find.filter_or_fail(lambda s: s.upper() == "", lambda n: Denied())  # type: ignore[attr-defined] # pyright: ignore

# ---- many --------------------------------------------------------------------------------------------------


def visit(n: int) -> Effect[str, NotFound, Need[Db]]:
    return find.map(str)


assert_type(Effect.validate([1], visit), Effect[list[str], list[NotFound], Need[Db]])
assert_type(Effect.validate([1], visit, discard=True), Effect[None, list[NotFound], Need[Db]])
assert_type(Effect.partition([1], visit), Effect[tuple[list[str], list[NotFound]], Never, Need[Db]])
assert_type(Effect.first_success_of([find, find]), Effect[int, NotFound, Need[Db]])
assert_type(Effect.find_first(["a"], lambda s: Effect.succeed(True)), Effect[Maybe[str]])
assert_type(Effect.all([find], discard=True), Effect[None, NotFound, Need[Db]])
assert_type(Effect.all([find], mode="result"), Effect[list[Result[int, NotFound]], Never, Need[Db]])
assert_type(Effect.all({"a": find}, mode="result"), Effect[dict[str, Result[int, NotFound]], Never, Need[Db]])
assert_type(Effect.race_all([find, find]), Effect[int, NotFound, Need[Db]])
assert_type(Effect.race_all_first([find]), Effect[int, NotFound, Need[Db]])
assert_type(find.race_first(Effect.succeed("")), Effect[int | str, NotFound, Need[Db]])
assert_type(Effect.race_first(find, Effect.succeed("")), Effect[int | str, NotFound, Need[Db]])
Effect.validate(["a"], visit)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
Effect.find_first([1], lambda n: Effect.succeed(n))  # type: ignore # pyright: ignore[reportArgumentType]
Effect.race_all(find)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]

# ---- time and repetition -----------------------------------------------------------------------------------

assert_type(find.timed(), Effect[tuple[timedelta, int], NotFound, Need[Db]])
assert_type(
    find.timeout_or_else("1 s", lambda: Effect.fail(Denied())), Effect[int, NotFound | Denied, Need[Db]]
)
assert_type(find.repeat(times=3), Effect[int, NotFound, Need[Db]])
assert_type(find.repeat(until=lambda n: n > 3), Effect[int, NotFound, Need[Db]])
assert_type(find.repeat(Schedule.exponential("1 s")), Effect[timedelta, NotFound, Need[Db]])
assert_type(find.retry(times=3), Effect[int, NotFound, Need[Db]])
assert_type(
    find.retry_or_else(Schedule.recurs(1), lambda e, n: Effect.succeed(str(n))),
    Effect[int | str, Never, Need[Db]],
)
assert_type(
    find.repeat_or_else(Schedule.recurs(1), lambda e, n: Effect.succeed("")),
    Effect[int | str, Never, Need[Db]],
)
assert_type(find.schedule(Schedule.recurs(1)), Effect[int, NotFound, Need[Db]])
assert_type(Effect.while_loop(lambda: True, lambda: find, print), Effect[None, NotFound, Need[Db]])
assert_type(find.cached(), Effect[Effect[int, NotFound, Need[Db]]])
assert_type(find.cached_with_ttl("1 s"), Effect[Effect[int, NotFound, Need[Db]]])
assert_type(find.cached_invalidate(), Effect[tuple[Effect[int, NotFound, Need[Db]], Effect[None]]])
find.retry(while_=lambda e: e.nope)  # type: ignore[attr-defined] # pyright: ignore
find.repeat(Schedule.recurs(1), times=3)  # type: ignore[call-overload] # pyright: ignore

both = Schedule.recurs(3).max(Schedule.exponential("1 s"))
assert_type(both, Schedule[object, tuple[int, timedelta]])
assert_type(Schedule.recurs(3).union(Schedule.fibonacci("1 s")), Schedule[object, tuple[int, timedelta]])
assert_type(Schedule.windowed("1 s").tap(lambda n: Effect.void), Schedule[object, int])
Schedule.recurs(3).tap(lambda n: Effect.fail(n))  # type: ignore # pyright: ignore[reportArgumentType]

# ---- fibers and scopes -------------------------------------------------------------------------------------

assert_type(find.fork(start_immediately=True), Effect[Fiber[int, NotFound], Never, Need[Db]])
assert_type(Effect.fork(find, start_immediately=True), Effect[Fiber[int, NotFound], Never, Need[Db]])


def fibers(many: list[Fiber[int, NotFound]], scope: Scope) -> None:
    assert_type(Fiber.join_all(many), Effect[list[int], NotFound])
    assert_type(Fiber.await_all(many), Effect[list[Exit[int, NotFound]]])
    assert_type(many[0].run_in(scope), Effect[Fiber[int, NotFound]])


acquired = Effect.acquire_release(find, lambda n: Effect.void, interruptible=True)
assert_type(acquired, Effect[int, NotFound, Need[Db] | Need[Scope]])
assert_type(Effect.interruptible_mask(lambda restore: restore(find)), Effect[int, NotFound, Need[Db]])

# ---- services ----------------------------------------------------------------------------------------------

db_live = Layer.effect(Db, Effect.succeed(Db()))
log_live = Layer.effect(Log, Effect.service(Db).flat_map(lambda _: Effect.fail(Denied())))
mail_live = Layer.succeed(Mail, Mail())
merged = Layer.merge_all(db_live, mail_live)
assert_type(merged, Layer[Need[Db] | Need[Mail]])
assert_type(
    Layer.merge_all(db_live, log_live, mail_live),
    Layer[Need[Db] | Need[Log] | Need[Mail], Denied, Need[Db]],
)
assert_type(find.provide(merged, local=True), Effect[int, NotFound])
assert_type(find | provide(merged, local=True), Effect[int, NotFound])
assert_type(find | provide_service_effect(Db, Effect.succeed(Db())), Effect[int, NotFound])
assert_type(find.update_service(Log, lambda log: log), Effect[int, NotFound, Need[Db] | Need[Log]])
assert_type(Layer.suspend(lambda: db_live), Layer[Need[Db]])
assert_type(Layer.unwrap(Effect.service(Log).map(lambda _: mail_live)), Layer[Need[Mail], Never, Need[Log]])
assert_type(Layer.mock(Db, find=1), Layer[Need[Db]])
find.update_service(Log, lambda log: 3)  # type: ignore # pyright: ignore
find.provide(Layer.merge_all(mail_live, mail_live))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]

with ManagedRuntime(merged) as runtime:
    assert_type(runtime, ManagedRuntime[Need[Db] | Need[Mail], Never])
    assert_type(runtime.run_sync(find), int)
    assert_type(runtime.run_sync_exit(find), Exit[int, NotFound])
    runtime.run_sync(Effect.service(Log))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def edge() -> None:
    assert_type(await plain.run_async(), int)
    assert_type(await Effect.run_async(plain), int)
    await Effect.run_async(find)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@Effect.fn("load")
def load(n: int) -> Do[str, NotFound, Need[Db]]:
    return str((yield from find) + n)


assert_type(load(1), Effect[str, NotFound, Need[Db]])
load("1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]

# ---- what fibers share -------------------------------------------------------------------------------------


def cells(ref: SynchronizedRef[int], queue: Queue[int, NotFound], latch: Latch) -> None:
    assert_type(ref.update_and_get_effect(lambda n: find), Effect[int, NotFound, Need[Db]])
    assert_type(ref.modify_effect(lambda n: Effect.succeed((n, n + 1))), Effect[int])
    assert_type(queue.take_n(2), Effect[list[int], NotFound | QueueEnded])
    assert_type(queue.poll(), Effect[Maybe[int]])
    assert_type(queue.offer_all([1]), Effect[list[int]])
    assert_type(latch.when_open(find), Effect[int, NotFound, Need[Db]])
    queue.offer_all(["a"])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
    ref.update_effect(lambda n: Effect.succeed(""))  # type: ignore # pyright: ignore


assert_type(Random.with_seed(find, 7), Effect[int, NotFound, Need[Db]])
assert_type(TestClock.with_live(find), Effect[int, NotFound, Need[Db]])


def causes(cause: Cause[NotFound], name: Tag[Any]) -> None:
    assert_type(cause.find_error(), NotFound | None)
    assert_type(cause.find_fail(), Fail[NotFound] | None)
    assert_type(cause.to_exception_group(), BaseExceptionGroup[BaseException])


# ---- unions of nothing -------------------------------------------------------------------------------------


def still() -> Effect[str]:
    return Effect.succeed("")


def ask() -> Effect[str, Never, Need[Log]]:
    return Effect.succeed("")


def deny() -> Effect[str, Denied]:
    return Effect.succeed("")


def done(_: object) -> Effect[None]:
    return Effect.void


def mailed(_: object) -> Effect[None, Never, Need[Mail]]:
    return Effect.void


needy = Effect.service(Db).as_(1)
assert_type(Effect.race(Effect.succeed(1), still()), Effect[int | str])
assert_type(Effect.succeed(1).race(still()), Effect[int | str])
assert_type(Effect.race_first(needy, ask()), Effect[int | str, Never, Need[Db] | Need[Log]])
assert_type(needy.race_first(ask()), Effect[int | str, Never, Need[Db] | Need[Log]])
assert_type(Effect.race(plain, deny()), Effect[int | str, NotFound | Denied])
assert_type(plain.race(deny()), Effect[int | str, NotFound | Denied])
assert_type(Effect.race(plain, ask()), Effect[int | str, NotFound, Need[Log]])
assert_type(Effect.race(find, deny()), Effect[int | str, NotFound | Denied, Need[Db]])

assert_type(plain.fold_effect(lambda e: still(), lambda n: Effect.succeed(n)), Effect[str | int])
assert_type(
    find.fold_effect(lambda e: still(), lambda n: Effect.succeed(n)), Effect[str | int, Never, Need[Db]]
)
assert_type(find.fold_effect(lambda e: ask(), lambda n: still()), Effect[str, Never, Need[Db] | Need[Log]])
assert_type(plain.fold_effect(lambda e: deny(), lambda n: still()), Effect[str, Denied])
assert_type(
    find.fold_effect(lambda e: deny(), lambda n: find), Effect[str | int, Denied | NotFound, Need[Db]]
)
assert_type(plain.fold_cause(lambda c: still(), lambda n: Effect.succeed(n)), Effect[str | int])
assert_type(find.fold_cause(lambda c: ask(), lambda n: still()), Effect[str, Never, Need[Db] | Need[Log]])
assert_type(plain.fold_cause(lambda c: deny(), lambda n: plain), Effect[str | int, Denied | NotFound])
assert_type(
    find.fold_cause(lambda c: ask(), lambda n: find), Effect[str | int, NotFound, Need[Db] | Need[Log]]
)
plain.fold_effect(lambda e: e.nope, lambda n: still())  # type: ignore[attr-defined] # pyright: ignore

assert_type(Effect.acquire_use_release(Effect.succeed(1), lambda n: still(), done), Effect[str])
assert_type(Effect.acquire_use_release(plain, lambda n: still(), done), Effect[str, NotFound])
assert_type(Effect.acquire_use_release(plain, lambda n: deny(), done), Effect[str, NotFound | Denied])
assert_type(Effect.acquire_use_release(needy, lambda n: still(), done), Effect[str, Never, Need[Db]])
assert_type(
    Effect.acquire_use_release(needy, lambda n: ask(), done), Effect[str, Never, Need[Db] | Need[Log]]
)
assert_type(
    Effect.acquire_use_release(find, lambda n: ask(), mailed),
    Effect[str, NotFound, Need[Db] | Need[Log] | Need[Mail]],
)
Effect.acquire_use_release(plain, lambda n: still(), lambda n: deny())  # type: ignore # pyright: ignore

assert_type(Layer.unwrap(Effect.succeed(mail_live)), Layer[Need[Mail]])
assert_type(Layer.unwrap(plain.as_(mail_live)), Layer[Need[Mail], NotFound])
assert_type(Layer.unwrap(find.as_(log_live)), Layer[Need[Log], NotFound | Denied, Need[Db]])

# ---- services that always exist ----------------------------------------------------------------------------

page_size = Reference("page_size", 50)
assert_type(Effect.service(page_size), Effect[int])
assert_type(find.update_service(page_size, lambda n: n + 1), Effect[int, NotFound, Need[Db]])
Effect.run_sync(Effect.service(page_size))

# ---- returns -----------------------------------------------------------------------------------------------


def far(n: int) -> FutureResult[int, NotFound]:
    return FutureResult.from_value(n)


def near(n: int) -> IOResult[int, NotFound]:
    return IOResult.from_value(n)


assert_type(Effect.from_io_result(near(1)), Effect[int, NotFound])
assert_type(Effect.from_future_result(lambda: far(1)), Effect[int, NotFound])
assert_type(plain.to_future_result(), FutureResult[int, NotFound])
find.to_future_result()  # type: ignore[misc] # pyright: ignore

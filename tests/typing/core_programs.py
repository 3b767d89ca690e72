"""What both type checkers must say about programs: checked by mypy and pyright, never run.

Wrong lines carry `type: ignore[code]` for mypy and `pyright: ignore[rule]`; both checkers report an ignore
that is not needed, so a line that stops being an error fails the check.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Never, Protocol, assert_type

import attrs
from returns.maybe import Maybe
from returns.result import Result
from returns.result import Success as Ok

from durable_effect import (
    Clock,
    Do,
    Effect,
    EffectTimeout,
    Exit,
    Failure,
    Fiber,
    Layer,
    Need,
    Schedule,
    Scope,
    Success,
    Tag,
    TypedError,
    catch,
    on,
    provide,
    provide_service,
)
from durable_effect.effect import Op


@attrs.frozen
class NotFound(TypedError):
    """No such thing."""

    key: str = ""


class Denied(TypedError):
    """Not allowed."""


class Timeout(TypedError):
    """Too slow."""


class Db(Protocol):
    """A service known by a Protocol."""

    def get(self, key: str) -> int: ...


class Db2(Protocol):
    """Structurally a subtype of Db, and yet another service."""

    def get(self, key: str) -> int: ...
    def put(self, key: str, v: int) -> None: ...


class Log(ABC):
    """A service known by an ABC."""

    @abstractmethod
    def info(self, msg: str) -> None: ...


class Config:
    """A service known by its class."""

    url = "x"


class DbLive:
    """A Db."""

    def get(self, key: str) -> int:
        return len(key)


class LogLive(Log):
    """A Log."""

    def info(self, msg: str) -> None: ...


def _find() -> Effect[int, NotFound | Denied, Need[Db]]:
    return Effect.service(Db).flat_map(lambda db: Effect.succeed(db.get("k")))


def _three() -> Effect[int, NotFound | Denied | Timeout, Need[Db]]:
    return _find()


find = _find()
three = _three()
one = find.pipe(catch(Denied, lambda e: Effect.succeed(0)))
assert_type(one, Effect[int, NotFound, Need[Db]])


# ---- do-blocks ---------------------------------------------------------------------------------------------


@Effect.gen
def program(key: str, *, times: int = 1) -> Do[str, NotFound | Denied, Need[Db] | Need[Log]]:
    log = yield from Effect.service(Log)
    assert_type(log, Log)
    n = yield from find
    assert_type(n, int)
    log.info(key)
    if n > times:
        yield from Effect.fail(NotFound(key))
    return str(n)


assert_type(program("a"), Effect[str, NotFound | Denied, Need[Db] | Need[Log]])
program(1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
program("a", time=3)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


@Effect.gen
def undeclared_error() -> Do[str, NotFound, Need[Db]]:
    yield from Effect.fail(Denied())  # type: ignore[misc] # pyright: ignore[reportReturnType]
    return ""


@Effect.gen
def undeclared_requirement() -> Do[str, NotFound, Need[Db]]:
    yield from Effect.service(Config)  # type: ignore[misc] # pyright: ignore[reportReturnType]
    return ""


@Effect.gen
def bare_yield() -> Do[int, NotFound]:
    n = yield Effect.succeed(1)  # type: ignore[misc] # pyright: ignore[reportReturnType]
    return int(n)


@Effect.gen
def wrong_result() -> Do[int]:
    s = yield from Effect.succeed("x")
    return s  # type: ignore[return-value] # pyright: ignore[reportReturnType]


@Effect.gen
def returned_effect() -> Do[int]:
    yield from Effect.void
    return Effect.succeed(1)  # type: ignore[return-value] # pyright: ignore[reportReturnType]


@Effect.gen  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
def no_generator() -> int:
    return 3


@Effect.gen
def pure() -> Do[int]:
    a = yield from Effect.succeed(1)
    b = yield from Effect.succeed(2)
    return a + b


assert_type(pure(), Effect[int, Never, Never])


@Effect.gen
def nested() -> Do[str, NotFound | Denied, Need[Db] | Need[Log] | Need[Config]]:
    s = yield from program("x")
    assert_type(s, str)
    c = yield from Effect.service(Config)
    return s + c.url


class Repo:
    """Do-blocks as methods."""

    def __init__(self, key: str) -> None:
        self.key = key

    @Effect.gen
    def load(self, n: int) -> Do[int, NotFound]:
        if n < 0:
            return (yield from Effect.fail(NotFound(self.key)))
        return n


assert_type(Repo("a").load(3), Effect[int, NotFound, Never])


# ---- values ------------------------------------------------------------------------------------------------

assert_type(find.map(str), Effect[str, NotFound | Denied, Need[Db]])
assert_type(
    find.flat_map(lambda n: Effect.fail(Timeout()) if n else Effect.succeed(0)),
    Effect[int, NotFound | Denied | Timeout, Need[Db]],
)
assert_type(find.tap(lambda n: Effect.service(Log)), Effect[int, NotFound | Denied, Need[Db] | Need[Log]])
assert_type(find.zip(Effect.succeed("a")), Effect[tuple[int, str], NotFound | Denied, Need[Db]])
assert_type(find.as_("x"), Effect[str, NotFound | Denied, Need[Db]])
assert_type(find.as_void(), Effect[None, NotFound | Denied, Need[Db]])
assert_type(find.and_then(pure()), Effect[int, NotFound | Denied, Need[Db]])
assert_type(Effect.succeed(pure()).flatten(), Effect[int])
assert_type(Effect.all((find, Effect.succeed("a"))), Effect[tuple[int, str], NotFound | Denied, Need[Db]])
assert_type(Effect.all((pure(), pure(), Effect.succeed(""))), Effect[tuple[int, int, str]])
assert_type(Effect.all([one, one]), Effect[list[int], NotFound, Need[Db]])
assert_type(Effect.all(Effect.succeed(i) for i in range(3)), Effect[list[int], Never, Never])
assert_type(Effect.all({"a": one}), Effect[dict[str, int], NotFound, Need[Db]])
assert_type(Effect.for_each([1, 2], lambda n: Repo("").load(n)), Effect[list[int], NotFound])
assert_type(
    Effect.for_each([1, 2], lambda n: Repo("").load(n), discard=True, concurrency="unbounded"),
    Effect[None, NotFound],
)

# ---- errors ------------------------------------------------------------------------------------------------


def on_missing(e: NotFound) -> Effect[str]:
    return Effect.succeed(e.key)


assert_type(find.pipe(catch(NotFound, on_missing)), Effect[int | str, Denied, Need[Db]])
assert_type(one.pipe(catch(NotFound, on_missing)), Effect[int | str, Never, Need[Db]])
assert_type(find | on(NotFound)(lambda e: Effect.succeed(e.key)), Effect[int | str, Denied, Need[Db]])
assert_type(find.pipe(catch((NotFound, Denied), lambda e: Effect.succeed(1))), Effect[int, Never, Need[Db]])
assert_type(
    three.pipe(catch((NotFound, Denied), lambda e: Effect.succeed(1))), Effect[int, Timeout, Need[Db]]
)
all_gone = find.pipe(catch(NotFound, lambda e: Effect.succeed(1))).pipe(
    catch(Denied, lambda e: Effect.succeed(2))
)
assert_type(
    find | catch(NotFound, lambda e: Effect.succeed(1)) | catch(Denied, lambda e: Effect.succeed(2)),
    Effect[int, Never, Need[Db]],
)
assert_type(all_gone, Effect[int, Never, Need[Db]])
assert_type(
    find.pipe(catch(NotFound, lambda e: Effect.fail(Timeout()))), Effect[int, Denied | Timeout, Need[Db]]
)
assert_type(find.catch_all(lambda e: Effect.succeed(0)), Effect[int, Never, Need[Db]])
assert_type(find.map_error(lambda e: Timeout()), Effect[int, Timeout, Need[Db]])
assert_type(find.or_die(), Effect[int, Never, Need[Db]])
assert_type(find.option(), Effect[Maybe[int], Never, Need[Db]])
assert_type(find.exit(), Effect[Exit[int, NotFound | Denied], Never, Need[Db]])
assert_type(one.flip(), Effect[NotFound, int, Need[Db]])
assert_type(find.or_else_succeed(lambda: ""), Effect[int | str, Never, Need[Db]])
assert_type(find.fold(lambda e: "", lambda n: 1.0), Effect[str | float, Never, Need[Db]])
find.pipe(catch(NotFound, lambda e: Effect.succeed(e.nope)))  # type: ignore[attr-defined] # pyright: ignore


@Effect.gen
def narrowed() -> Do[int, Denied, Need[Db]]:
    r = yield from find.result()
    assert_type(r, Result[int, NotFound | Denied])
    if isinstance(r, Ok):
        value: int = r.unwrap()
        return value
    e = r.failure()
    if isinstance(e, NotFound):
        return 0
    return (yield from Effect.fail(e))


@Effect.gen
def by_exit() -> Do[int, NotFound, Need[Db]]:
    ended = yield from one.exit()
    match ended:
        case Success(n):
            return n
        case Failure(cause):
            return (yield from Effect.fail_cause(cause))


# ---- exceptions and awaitables -----------------------------------------------------------------------------


async def fetch() -> bytes:
    return b""


assert_type(Effect.attempt(lambda: 1), Effect[int, Exception])
assert_type(Effect.attempt(lambda: 1, catch=lambda e: Denied()), Effect[int, Denied])
assert_type(Effect.from_async(fetch), Effect[bytes])
assert_type(Effect.from_async(fetch, catch=lambda e: Denied()), Effect[bytes, Denied])
assert_type(Effect.from_thread(lambda: 1), Effect[int])
assert_type(Effect.from_thread(lambda: 1, catch=lambda e: Denied()), Effect[int, Denied])
assert_type(Effect.from_optional(Repo("").key, lambda: Denied()), Effect[str, Denied])

# ---- time and fibers ---------------------------------------------------------------------------------------

assert_type(one.timeout("1 second"), Effect[int, NotFound | EffectTimeout, Need[Db]])
assert_type(one.delay("1 second"), Effect[int, NotFound, Need[Db]])
assert_type(one.retry(Schedule.recurs(3)), Effect[int, NotFound, Need[Db]])
assert_type(one.repeat(Schedule.recurs(3)), Effect[int, NotFound, Need[Db]])
assert_type(one.fork(), Effect[Fiber[int, NotFound], Never, Need[Db]])
assert_type(Effect.fork(one), Effect[Fiber[int, NotFound], Never, Need[Db]])
assert_type(Effect.race(one, Effect.succeed("")), Effect[int | str, NotFound, Need[Db]])
assert_type(one.ensuring(Effect.service(Log)), Effect[int, NotFound, Need[Db] | Need[Log]])
one.ensuring(Effect.fail(Denied()))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@Effect.gen
def joined() -> Do[int, NotFound, Need[Db]]:
    fiber = yield from Effect.fork(one)
    return (yield from fiber.join())


# ---- requirements ------------------------------------------------------------------------------------------

db_live = Layer.succeed(Db, DbLive())
log_live = Layer.succeed(Log, LogLive())
assert_type(db_live, Layer[Need[Db], Never, Never])


@Effect.gen
def make_db() -> Do[Db, Timeout, Need[Config]]:
    cfg = yield from Effect.service(Config)
    if not cfg.url:
        yield from Effect.fail(Timeout())
    return DbLive()


db_from_config = Layer.effect(Db, make_db())
assert_type(db_from_config, Layer[Need[Db], Timeout, Need[Config]])
config_live = Layer.succeed(Config, Config())

p = program("x")
assert_type(p.pipe(provide(db_live)), Effect[str, NotFound | Denied, Need[Log]])
assert_type(p | provide(db_live) | provide(log_live), Effect[str, NotFound | Denied, Never])
assert_type(
    p.pipe(provide(db_from_config)), Effect[str, NotFound | Denied | Timeout, Need[Log] | Need[Config]]
)
app = db_live.merge(log_live)
assert_type(app, Layer[Need[Db] | Need[Log], Never, Never])
assert_type(p.pipe(provide(app)), Effect[str, NotFound | Denied, Never])
assert_type(p.provide(app), Effect[str, NotFound | Denied, Never])
p.provide(db_live)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
assert_type(find.provide(app), Effect[int, NotFound | Denied, Never])
assert_type(find.pipe(provide(app)), Effect[int, NotFound | Denied, Never])
assert_type(pure().pipe(provide(app)), Effect[int, Never, Never])
assert_type(p.pipe(provide_service(Db, DbLive())), Effect[str, NotFound | Denied, Need[Log]])
# A wrong implementation widens the key, so that Db still is needed and the program cannot be run.
Effect.run_sync(find | provide_service(Db, 3))  # type: ignore # pyright: ignore
assert_type(db_from_config.pipe(provide(config_live)), Layer[Need[Db], Timeout, Never])
assert_type(db_from_config.provide(config_live), Layer[Need[Db], Timeout, Never])
assert_type(
    nested().pipe(provide(db_from_config.merge(log_live))).pipe(provide(config_live)),
    Effect[str, NotFound | Denied | Timeout, Never],
)

both = Effect.service(Db).flat_map(lambda _: Effect.service(Db2))
assert_type(both, Effect[Db2, Never, Need[Db] | Need[Db2]])
assert_type(both.pipe(provide_service(Db, DbLive())), Effect[Db2, Never, Need[Db2]])

# ---- running -----------------------------------------------------------------------------------------------

assert_type(p.provide(app).run_sync(), str)
assert_type(Effect.run_sync(p.provide(app)), str)
assert_type(Effect.run(p.provide(app)), str)
assert_type(Effect.run_sync_exit(p.provide(app)), Exit[str, NotFound | Denied])
p.run_sync()  # type: ignore[arg-type] # pyright: ignore
Effect.run_sync(p)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
Effect.run(p.pipe(provide(db_live)))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def edge() -> None:
    assert_type(await p.provide(app), str)
    await p  # type: ignore[misc] # pyright: ignore


# ---- services ----------------------------------------------------------------------------------------------

Url = Tag[str]("Url")
assert_type(Effect.service(Db), Effect[Db, Never, Need[Db]])
assert_type(Effect.service(Log), Effect[Log, Never, Need[Log]])
assert_type(Effect.service(Url), Effect[str, Never, Need[str]])
assert_type(Effect.service_option(Db), Effect[Maybe[Db]])
now = Clock.now()
Effect.run_sync(now)

res = Effect.service(Scope).flat_map(lambda _: find)
assert_type(res, Effect[int, NotFound | Denied, Need[Scope] | Need[Db]])
assert_type(res.scoped(), Effect[int, NotFound | Denied, Need[Db]])
assert_type(Effect.service(Scope).scoped(), Effect[Scope])
assert_type(Effect.succeed(1).scoped(), Effect[int])
acquired = Effect.acquire_release(one, lambda n: Effect.void)
assert_type(acquired, Effect[int, NotFound, Need[Db] | Need[Scope]])
assert_type(
    Layer.scoped(Config, Effect.acquire_release(Effect.succeed(Config()), lambda _: Effect.void)),
    Layer[Need[Config]],
)

# ---- constants ---------------------------------------------------------------------------------------------


def nothing() -> Effect[None]:
    return Effect.void


def nothing_called() -> Effect[None]:
    return Effect.void()


def forever() -> Effect[Never]:
    return Effect.never


# ---- variance ----------------------------------------------------------------------------------------------

wider: Effect[object, Exception, Need[Db] | Need[Log]] = find
less: Effect[int, NotFound, Need[Db]] = find  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
op: Op[NotFound | Denied, Need[Db]] = Op[NotFound, Never]()


def takes_any(e: Effect[Any, Any, Any]) -> None: ...


takes_any(find)


def many() -> Iterator[Effect[int, NotFound]]:
    yield Effect.succeed(1)


assert_type(Effect.all(many()), Effect[list[int], NotFound])

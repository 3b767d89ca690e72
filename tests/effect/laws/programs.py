"""Generated programs: how they are drawn, and how each is made into an effect, in several styles.

`build` says what every operation of the reference interpreter is in `durable_effect`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import cycle
from typing import Any

import attrs
from hypothesis import strategies as st

from durable_effect import (
    Cause,
    Die,
    Do,
    Effect,
    EffectTimeout,
    Fail,
    Failure,
    Fiber,
    Success,
    Tag,
    TypedError,
    provide_service,
)
from durable_effect.errors import DeadlockError
from durable_effect.testing import TestRuntime

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
Program = tuple[Any, ...]
AnyEffect = Effect[Any, Any, Any]
Setting = Tag[str]("Setting")
PLAIN, BLOCKS, MIXED = "combinators", "do-blocks", "both in turn"


@attrs.frozen(repr=False)
class Oops(TypedError):
    """Went wrong, as was to be expected."""

    name: str


class Bug(Exception):
    """Went wrong, and nobody expected it. Two of one name are the same, as for the reference interpreter."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bug) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


# ---- drawing -----------------------------------------------------------------------------------------------

errors = st.sampled_from(["e1", "e2"])
defects = st.sampled_from(["d1", "d2"])
spans = st.integers(1, 3)
names = st.sampled_from("abcd")
indexes = st.integers(0, 3)

LEAVES: dict[str, Any] = {
    "succeed": st.tuples(st.just("succeed"), st.integers(0, 9)),
    "fail": st.tuples(st.just("fail"), errors),
    "die": st.tuples(st.just("die"), defects),
    "log": st.tuples(st.just("log"), names),
    "ask": st.just(("ask",)),
    "give up": st.just(("give up",)),
    "sleep": st.tuples(st.just("sleep"), spans),
    "yield": st.just(("yield",)),
    "never": st.just(("never",)),
    "join": st.tuples(st.just("join"), indexes),
    "await": st.tuples(st.just("await"), indexes),
    "interrupt": st.tuples(st.just("interrupt"), indexes),
}
"""How an operation without parts is drawn."""

NODES = {
    **dict.fromkeys(["exit", "map error", "or die", "mask", "window", "scoped"], 1),
    **dict.fromkeys(["map", "provide", "timeout"], 1),
    **dict.fromkeys(["then", "catch", "cause", "try", "finally", "ensuring", "restore", "fork", "race"], 2),
    "acquire": 2,
    "all": 3,
}
"""How many parts an operation has."""

SEQUENTIAL = "succeed fail die log ask give_up map then catch cause exit map_error or_die try provide"
FINAL = f"{SEQUENTIAL} ensuring finally scoped acquire mask window restore yield sleep"
FORKING = f"{FINAL} fork join await interrupt never"
WIDE = f"{FORKING} all race timeout"


@st.composite
def programs(draw: st.DrawFn, operations: str, size: int) -> Program:
    """Programs of up to `size` operations, out of these."""
    chosen = [name.replace("_", " ") for name in operations.split()]
    leaves = [name for name in chosen if name in LEAVES]
    nodes = [name for name in chosen if name in NODES]
    any_leaf, anything = st.sampled_from(leaves), st.sampled_from([*leaves, *nodes * 3])

    def part(budget: int) -> Program:
        name = draw(any_leaf if budget < 2 else anything)
        if name in LEAVES:
            leaf: Program = draw(LEAVES[name])
            return leaf
        parts: list[Program] = []
        left = budget - 1
        for others in reversed(range(NODES[name])):
            share = draw(st.integers(0, left)) if others else left
            parts.append(part(share))
            left -= share
        return _put_together(draw, name, parts)

    return "scoped", part(size)


def _put_together(draw: st.DrawFn, name: str, parts: list[Program]) -> Program:
    match name:
        case "map":
            return name, *parts, draw(names)
        case "provide":
            return name, draw(names), *parts
        case "acquire":
            return name, parts[0], draw(names), parts[1]
        case "timeout":
            return name, draw(spans), *parts
        case "all":
            return name, tuple(parts[: draw(indexes)]), draw(st.integers(1, 3))
        case _:
            return name, *parts


@st.composite
def called_off(draw: st.DrawFn, operations: str, size: int) -> Program:
    """Programs that run in a child, which is interrupted at some moment."""
    program, span, turns = draw(programs(operations, size)), draw(st.integers(0, 4)), draw(st.integers(0, 4))
    moment: Program = ("sleep", span) if span else ("succeed", 0)
    for _ in range(turns):
        moment = ("then", moment, ("yield",))
    return "fork", program, ("then", moment, ("then", ("interrupt", 1), ("await", 1)))


# ---- making effects ----------------------------------------------------------------------------------------


class Builder:
    """Makes an effect of a program; `log` is what it writes when it runs.

    Do-blocks directly inside each other are one Python generator: what a `finally` raises during an
    interruption is an exception like any other to the `try` around it. With `apart` every `try` stands alone.
    """

    def __init__(self, style: str, apart: bool) -> None:
        self.apart = apart
        self.log: list[Any] = []
        self.first = 0
        self._blocks = {PLAIN: cycle([False]), BLOCKS: cycle([True]), MIXED: cycle([True, False])}[style]

    def main(self, program: Program) -> AnyEffect:
        """Make the whole program, which knows its own fiber."""
        return self.around(lambda: Effect.with_fiber(lambda me: self.build(program, (me,))))

    def around(self, make: Callable[[], AnyEffect]) -> AnyEffect:
        """Make what programs find around them, and keep the number of the first fiber."""

        def begin(me: Fiber[Any, Any]) -> AnyEffect:
            self.first = me.id
            return make()

        return Effect.with_fiber(begin) | provide_service(Setting, "outside")

    def note(self, what: Any) -> AnyEffect:
        """Write something down, and answer it."""
        return Effect.sync(lambda: (self.log.append(what), what)[1])

    def build(self, program: Program, fibers: tuple[Fiber[Any, Any], ...]) -> AnyEffect:
        """Make one part, which knows these fibers."""
        name, *parts = program
        make = getattr(self, "_" + name.replace(" ", "_"))
        as_block = getattr(self, f"_{name}_block", None)
        if as_block is not None and next(self._blocks):
            make = as_block
        effect: AnyEffect = make(fibers, *parts)
        return effect.map(lambda value: value) if self.apart and name in ("try", "finally") else effect

    def _succeed(self, fibers: Any, value: Any) -> AnyEffect:
        return Effect.succeed(value)

    def _fail(self, fibers: Any, error: str) -> AnyEffect:
        return Effect.fail(Oops(error))

    def _die(self, fibers: Any, defect: str) -> AnyEffect:
        return Effect.die(Bug(defect))

    def _die_block(self, fibers: Any, defect: str) -> AnyEffect:
        @Effect.gen
        def block() -> Do[None]:
            yield from Effect.void
            raise Bug(defect)

        return block()

    def _log(self, fibers: Any, what: str) -> AnyEffect:
        return self.note(what)

    def _ask(self, fibers: Any) -> AnyEffect:
        return Effect.service(Setting)

    def _give_up(self, fibers: Any) -> AnyEffect:
        return Effect.interrupt()

    def _sleep(self, fibers: Any, span: int) -> AnyEffect:
        return Effect.sleep(f"{span} s")

    def _yield(self, fibers: Any) -> AnyEffect:
        return Effect.yield_now()

    def _never(self, fibers: Any) -> AnyEffect:
        return Effect.never

    def _join(self, fibers: Any, index: int) -> AnyEffect:
        return fibers[index % len(fibers)].join()

    def _await(self, fibers: Any, index: int) -> AnyEffect:
        return fibers[index % len(fibers)].await_()

    def _interrupt(self, fibers: Any, index: int) -> AnyEffect:
        return fibers[index % len(fibers)].interrupt()

    def _map(self, fibers: Any, p: Program, tag: str) -> AnyEffect:
        return self.build(p, fibers).map(lambda value: (value, tag))

    def _map_block(self, fibers: Any, p: Program, tag: str) -> AnyEffect:
        @Effect.gen
        def block() -> Do[Any, Any, Any]:
            return (yield from self.build(p, fibers)), tag

        return block()

    def _then(self, fibers: Any, p: Program, q: Program) -> AnyEffect:
        return self.build(p, fibers).flat_map(lambda a: self.build(q, fibers).map(lambda b: (a, b)))

    def _then_block(self, fibers: Any, p: Program, q: Program) -> AnyEffect:
        @Effect.gen
        def block() -> Do[Any, Any, Any]:
            first = yield from self.build(p, fibers)
            return first, (yield from self.build(q, fibers))

        return block()

    def _exit(self, fibers: Any, p: Program) -> AnyEffect:
        return self.build(p, fibers).exit()

    def _catch(self, fibers: Any, p: Program, q: Program) -> AnyEffect:
        handle = lambda error: self.note(error).and_then(self.build(q, fibers))  # noqa: E731
        return self.build(p, fibers).catch_all(handle)

    def _cause(self, fibers: Any, p: Program, q: Program) -> AnyEffect:
        handle = lambda cause: self.note(Failure(cause)).and_then(self.build(q, fibers))  # noqa: E731
        return self.build(p, fibers).catch_cause(handle)

    def _map_error(self, fibers: Any, p: Program) -> AnyEffect:
        return self.build(p, fibers).map_error(lambda error: Oops(name_of(error) + "'"))

    def _or_die(self, fibers: Any, p: Program) -> AnyEffect:
        return self.build(p, fibers).or_die()

    def _try(self, fibers: Any, p: Program, q: Program) -> AnyEffect:
        @Effect.gen
        def block() -> Do[Any, Any, Any]:
            try:
                return (yield from self.build(p, fibers))
            except TypedError as error:
                self.log.append(error)
                return (yield from self.build(q, fibers))

        return block()

    def _finally(self, fibers: Any, p: Program, q: Program) -> AnyEffect:
        @Effect.gen
        def block() -> Do[Any, Any, Any]:
            try:
                return (yield from self.build(p, fibers))
            finally:
                yield from self.build(q, fibers)

        return block()

    def _ensuring(self, fibers: Any, p: Program, q: Program) -> AnyEffect:
        return self.build(p, fibers).on_exit(lambda end: self.note(end).and_then(self.build(q, fibers)))

    def _mask(self, fibers: Any, p: Program) -> AnyEffect:
        return self.build(p, fibers).uninterruptible()

    def _window(self, fibers: Any, p: Program) -> AnyEffect:
        return self.build(p, fibers).interruptible()

    def _restore(self, fibers: Any, p: Program, q: Program) -> AnyEffect:
        return Effect.uninterruptible_mask(
            lambda restore: self.build(p, fibers).zip(restore(self.build(q, fibers)))
        )

    def _scoped(self, fibers: Any, p: Program) -> AnyEffect:
        return self.build(p, fibers).scoped()

    def _acquire(self, fibers: Any, p: Program, name: str, q: Program) -> AnyEffect:
        return Effect.acquire_release(
            self.build(p, fibers).and_then(self.note(("acquired", name))).as_(name),
            lambda name: self.note(("released", name)).and_then(self.build(q, fibers)),
        )

    def _provide(self, fibers: Any, service: str, p: Program) -> AnyEffect:
        return self.build(p, fibers) | provide_service(Setting, service)

    def _fork(self, fibers: Any, p: Program, q: Program) -> AnyEffect:
        return self.build(p, fibers).fork().flat_map(lambda child: self.build(q, (*fibers, child)))

    def _fork_block(self, fibers: Any, p: Program, q: Program) -> AnyEffect:
        @Effect.gen
        def block() -> Do[Any, Any, Any]:
            child = yield from self.build(p, fibers).fork()
            return (yield from self.build(q, (*fibers, child)))

        return block()

    def _all(self, fibers: Any, parts: tuple[Program, ...], at_once: int) -> AnyEffect:
        effects: Any = tuple(self.build(part, fibers) for part in parts)
        return Effect.all(effects, concurrency=at_once)

    def _race(self, fibers: Any, p: Program, q: Program) -> AnyEffect:
        return self.build(p, fibers).race(self.build(q, fibers))

    def _timeout(self, fibers: Any, span: int, p: Program) -> AnyEffect:
        return self.build(p, fibers).timeout(f"{span} s")


# ---- watching ----------------------------------------------------------------------------------------------


def name_of(error: object) -> str:
    """The name by which the reference interpreter knows an error or a defect."""
    if isinstance(error, Oops | Bug):
        return error.name
    return "timeout" if isinstance(error, EffectTimeout) else repr(error)


def plain(value: Any, first: int) -> Any:
    """A value as the reference interpreter writes it; fibers are counted from `first`."""
    match value:
        case Success(inner):
            return "ok", plain(inner, first)
        case Failure(Cause(reasons)):
            return "bad", tuple(_reason(reason, first) for reason in reasons)
        case tuple():
            return tuple(plain(item, first) for item in value)
        case BaseException():
            return name_of(value)
        case _:
            return value


def _reason(reason: Any, first: int) -> tuple[str, Any]:
    match reason:
        case Fail(error):
            return "fail", name_of(error)
        case Die(defect):
            return "die", name_of(defect)
        case _:
            return "interrupt", reason.fiber_id - first


def observe(program: Program, style: str, apart: bool = True) -> tuple[Any, list[Any], float]:
    """Run a program: how it ends, what it wrote, and how many seconds passed."""
    builder = Builder(style, apart)
    with TestRuntime(NEW_YEAR) as world:
        try:
            end = plain(world.run_exit(builder.main(program)), builder.first)
        except DeadlockError:
            end = "deadlock", None
            world.abandon()
        log = [plain(entry, builder.first) for entry in builder.log]
        return end, log, (world.now - NEW_YEAR).total_seconds()

"""What a step of an effect program costs, against a plain ``await`` of a coroutine, a plain call, and what
other libraries need for the same: `stateless`, `returns` and, if asked for, Effect-TS on Node.

    python benchmarks/effect_core.py [--quick] [--json] [--effect-ts]

Nanoseconds per operation, on one asyncio loop; the ``for`` loop around the operation is included on both
sides. The best of many short rounds, in the processor's time (on Node, by the clock): what other work on the
machine adds is never negative.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, replace

from measure import Effort, Measurement, Row, effort, in_turns, nanoseconds, report
from other_libraries import Loop, NotInstalled, effect_ts_figures, returns_loops, stateless_loops

from durable_effect import Do, Effect, Env, Need, TypedError, provide_service

DEPTH = 500
LINKS = 1_000
EFFECT_TS = "effect-ts"


@dataclass(frozen=True, slots=True)
class Case:
    """An operation, and what it is measured against: loops over the same thing done without effects."""

    name: str
    ours: Loop
    against: dict[str, Loop]
    repeats: int = 20_000
    of: int = 1
    """How many operations each repetition does."""


# ---- one step of a do-block --------------------------------------------------------------------------------

READY = Effect.succeed(1)
SYNC = Effect.sync(lambda: 1)


async def leaf() -> int:
    return 1


def function() -> int:
    return 1


async def await_leaf(repeats: int) -> None:
    for _ in range(repeats):
        await leaf()


async def call_function(repeats: int) -> None:
    for _ in range(repeats):
        function()


@Effect.gen
def ready(repeats: int) -> Do[None]:
    for _ in range(repeats):
        yield from READY


@Effect.gen
def prebuilt_sync(repeats: int) -> Do[None]:
    for _ in range(repeats):
        yield from SYNC


@Effect.gen
def fresh_succeed(repeats: int) -> Do[None]:
    for number in range(repeats):
        yield from Effect.succeed(number)


async def echo(value: int) -> int:
    return value


async def await_echo(repeats: int) -> None:
    for number in range(repeats):
        await echo(number)


@Effect.gen
def fresh_sync(repeats: int) -> Do[None]:
    for number in range(repeats):
        yield from Effect.sync(lambda: number)  # noqa: B023 - called before the loop goes on


async def called(thunk: Callable[[], int]) -> int:
    return thunk()


async def await_called(repeats: int) -> None:
    for number in range(repeats):
        await called(lambda: number)  # noqa: B023 - called before the loop goes on


async def call_lambda(repeats: int) -> None:
    for number in range(repeats):
        (lambda: number)()


GUARDED = READY.catch_all(lambda _: READY)


@Effect.gen
def bounce(repeats: int) -> Do[None]:
    for _ in range(repeats):
        yield from GUARDED


async def guarded() -> int:
    try:
        return await leaf()
    except LookupError:
        return 1


async def await_guarded(repeats: int) -> None:
    for _ in range(repeats):
        await guarded()


# ---- do-blocks inside of do-blocks -------------------------------------------------------------------------


@Effect.gen
def helper(number: int) -> Do[int]:
    return number + (yield from READY)


@Effect.gen
def helpers(repeats: int) -> Do[None]:
    for number in range(repeats):
        yield from helper(number)


async def coroutine_helper(number: int) -> int:
    return number + await leaf()


async def await_helper(repeats: int) -> None:
    for number in range(repeats):
        await coroutine_helper(number)


def function_helper(number: int) -> int:
    return number + function()


async def call_helper(repeats: int) -> None:
    for number in range(repeats):
        function_helper(number)


@Effect.gen
def nested(depth: int) -> Do[int]:
    return (yield from (nested(depth - 1) if depth else READY))


@Effect.gen
def nested_blocks(repeats: int) -> Do[None]:
    for _ in range(repeats):
        yield from nested(DEPTH)


async def coroutine_nested(depth: int) -> int:
    return await (coroutine_nested(depth - 1) if depth else leaf())


async def await_nested(repeats: int) -> None:
    for _ in range(repeats):
        await coroutine_nested(DEPTH)


# ---- services ----------------------------------------------------------------------------------------------


class Users:
    """A service."""


USERS = Users()
CURRENT_USERS: ContextVar[Users] = ContextVar("current_users", default=USERS)


@Effect.gen
def _look_up(repeats: int) -> Do[None, object, Need[Users]]:
    for _ in range(repeats):
        yield from Effect.service(Users)


def services(repeats: int) -> Effect[None, object]:
    return _look_up(repeats) | provide_service(Users, USERS)


async def current_users() -> Users:
    return CURRENT_USERS.get()


async def await_current(repeats: int) -> None:
    for _ in range(repeats):
        await current_users()


SERVICES = Env().add(Users, USERS)


@Effect.gen
def provided(repeats: int) -> Do[None]:
    for _ in range(repeats):
        yield from Effect.service(Users).provide_env(SERVICES)


async def with_current() -> Users:
    token = CURRENT_USERS.set(USERS)
    try:
        return await current_users()
    finally:
        CURRENT_USERS.reset(token)


async def await_with_current(repeats: int) -> None:
    for _ in range(repeats):
        await with_current()


# ---- failures and finalizers -------------------------------------------------------------------------------


class NotThere(TypedError):
    """A typed error."""


@Effect.gen
def fail_and_catch(repeats: int) -> Do[None]:
    for _ in range(repeats):
        yield from Effect.fail(NotThere()).catch_all(lambda _: READY)


@Effect.gen
def fail_and_except(repeats: int) -> Do[None, NotThere]:
    for _ in range(repeats):
        try:  # noqa: SIM105 - the statement is what is measured
            yield from Effect.fail(NotThere())
        except NotThere:
            pass


async def fail() -> int:
    raise NotThere


async def caught() -> int:
    try:
        return await fail()
    except NotThere:
        return 1


async def await_caught(repeats: int) -> None:
    for _ in range(repeats):
        await caught()


async def await_except(repeats: int) -> None:
    for _ in range(repeats):
        try:  # noqa: SIM105 - the statement is what is measured
            await fail()
        except NotThere:
            pass


@Effect.gen
def ensured(repeats: int) -> Do[None]:
    for _ in range(repeats):
        yield from READY.ensuring(SYNC)


async def finally_leaf() -> int:
    try:
        return await leaf()
    finally:
        await leaf()


async def await_finally(repeats: int) -> None:
    for _ in range(repeats):
        await finally_leaf()


# ---- chains ------------------------------------------------------------------------------------------------


def _next(value: int) -> Effect[int]:
    return Effect.succeed(value + 1)


async def following(value: int) -> int:
    return value + 1


def _chain(links: int) -> Effect[int]:
    chain = READY
    for _ in range(links):
        chain = chain.flat_map(_next)
    return chain


def _chain_to_the_right(links: int) -> Effect[int]:
    return READY.flat_map(lambda _: _chain_to_the_right(links - 1)) if links else READY


CHAIN = _chain(LINKS)


@Effect.gen
def flat_maps(repeats: int) -> Do[None]:
    for _ in range(repeats):
        yield from CHAIN


@Effect.gen
def flat_maps_made(repeats: int) -> Do[None]:
    for _ in range(repeats):
        yield from _chain(LINKS)


@Effect.gen
def flat_maps_to_the_right(repeats: int) -> Do[None]:
    for _ in range(repeats):
        yield from _chain_to_the_right(LINKS)


async def await_following(repeats: int) -> None:
    for _ in range(repeats):
        value = 1
        for _ in range(LINKS):
            value = await following(value)


# ---- fibers, tasks and running -----------------------------------------------------------------------------


@Effect.gen
def fork_and_join(repeats: int) -> Do[None]:
    for _ in range(repeats):
        fiber = yield from READY.fork()
        yield from fiber.join()


async def await_task(repeats: int) -> None:
    for _ in range(repeats):
        await asyncio.create_task(leaf())


@Effect.gen
def asyncs(repeats: int) -> Do[None]:
    for _ in range(repeats):
        yield from Effect.from_async(leaf)


async def run_sync(repeats: int) -> None:
    for number in range(repeats):
        Effect.run_sync(helper(number))


async def send_by_hand(repeats: int) -> None:
    for number in range(repeats):
        _result(coroutine_helper(number))


def _result(coroutine: Coroutine[object, None, int]) -> int:
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: int = stop.value
        return result
    raise AssertionError("it waits for something")


async def await_effect(repeats: int) -> None:
    for number in range(repeats):
        await helper(number)


CASES = (
    Case("step: ready effect", ready, {"await coroutine": await_leaf, "plain call": call_function}),
    Case("step: sync effect", prebuilt_sync, {"await coroutine": await_leaf, "plain call": call_function}),
    Case("step: new succeed", fresh_succeed, {"await coroutine": await_echo}),
    Case(
        "step: new sync",
        fresh_sync,
        {"await coroutine of lambda": await_called, "plain call of lambda": call_lambda},
    ),
    Case("step: bounce (catch_all)", bounce, {"await in try/except": await_guarded}),
    Case("do-block in a do-block", helpers, {"await in await": await_helper, "call in call": call_helper}),
    Case(
        f"do-blocks {DEPTH} deep, each",
        nested_blocks,
        {f"awaits {DEPTH} deep, each": await_nested},
        repeats=20,
        of=DEPTH,
    ),
    Case("service", services, {"await ContextVar.get": await_current}),
    Case("provide_env + service", provided, {"await with ContextVar.set": await_with_current}),
    Case("fail + catch_all", fail_and_catch, {"await raise + except": await_caught}),
    Case("fail + except", fail_and_except, {"await raise + except": await_except}),
    Case("ensuring", ensured, {"await in try/finally": await_finally}),
    Case("flat_map, each link run", flat_maps, {"await coroutine": await_following}, repeats=10, of=LINKS),
    Case(
        "flat_map, each link made + run",
        flat_maps_made,
        {"await coroutine": await_following},
        repeats=10,
        of=LINKS,
    ),
    Case(
        "flat_map to the right, each link",
        flat_maps_to_the_right,
        {"await coroutine": await_following},
        repeats=10,
        of=LINKS,
    ),
    Case("fork + join", fork_and_join, {"await create_task": await_task}, repeats=2_000),
    Case("from_async", asyncs, {"await create_task": await_task}, repeats=2_000),
    Case("run_sync of a do-block", run_sync, {"send to a coroutine": send_by_hand}),
    Case("await of a do-block", await_effect, {"await coroutine": await_helper}, repeats=2_000),
)


def _with_other_libraries(case: Case, loops: dict[str, dict[str, Loop]]) -> Case:
    theirs = {library: known[case.name] for library, known in loops.items() if case.name in known}
    return replace(case, against={**case.against, **theirs})


async def _rows(case: Case, wanted: Effort) -> list[Row]:
    repeats = wanted.of(case.repeats)
    loops = (case.ours, *case.against.values())
    measured = await in_turns(wanted.rounds, *(_measurement(loop, repeats, case.of) for loop in loops))
    ours, *theirs = measured
    return [
        Row.of_best(case.name, ours, "ns", baseline, figures)
        for baseline, figures in zip(case.against, theirs, strict=True)
    ]


def _measurement(loop: Loop, repeats: int, of: int) -> Measurement:
    return lambda: nanoseconds(repeats * of, lambda: loop(repeats))


async def _on_node(wanted: Effort) -> dict[str, float]:
    if EFFECT_TS not in wanted.switches:
        raise NotInstalled(f"ask for it with --{EFFECT_TS}")
    return await effect_ts_figures(wanted.rounds, wanted.scale, DEPTH, LINKS)


async def main() -> None:
    wanted = effort(
        __doc__,
        rounds=40,
        quick_rounds=10,
        switches={EFFECT_TS: "compare with Effect-TS too, which npm installs in a temporary directory"},
    )
    gc.disable()  # its pauses hit whoever is measured
    loops = {"returns": returns_loops(LINKS)}
    absent: dict[str, str] = {}
    on_node: dict[str, float] = {}
    try:
        loops["stateless"] = stateless_loops(DEPTH)
    except NotInstalled as why:
        absent["stateless"] = str(why)
    try:
        on_node = await _on_node(wanted)
    except NotInstalled as why:
        absent["Effect-TS"] = str(why)
    rows: list[Row] = []
    for case in CASES:
        rows += (of_case := await _rows(_with_other_libraries(case, loops), wanted))
        if case.name in on_node:
            ours, theirs = [of_case[0].figure], [on_node[case.name]]
            rows.append(Row.of_best(case.name, ours, "ns", "Effect-TS on Node", theirs))
    report(rows, as_json=wanted.as_json, absent=absent)


if __name__ == "__main__":
    asyncio.run(main())

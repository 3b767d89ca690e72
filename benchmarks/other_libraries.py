"""The operations of `effect_core.py` done with other libraries of effects, under the same names.

What is not installed is told, with the way to get it. `stateless` and `returns` run in this process, in turns
with everything else; Effect-TS runs on Node, at once and on its own.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import Any

from durable_effect import TypedError

Loop = Callable[[int], Awaitable[object]]

EFFECT_TS = Path(__file__).parent / "effect_ts"
INSTALL_SECONDS = 180


class NotInstalled(Exception):
    """A library is not there; the message says how to get it."""


# ---- stateless ---------------------------------------------------------------------------------------------


def stateless_loops(depth: int) -> dict[str, Loop]:
    """Loops over effects of `stateless`, which are generators that run once."""
    try:
        import stateless
    except ImportError:
        raise NotInstalled("pip install 'durable-effect[bench]'") from None
    Steps = Generator[Any, Any, Any]

    class Users:
        """A service."""

    class NotThere(TypedError):
        """A typed error."""

    ready = stateless.success(1)

    def readies(repeats: int) -> Steps:
        for _ in range(repeats):
            yield from ready

    def succeeds(repeats: int) -> Steps:
        for number in range(repeats):
            yield from stateless.success(number)

    def helper(number: int) -> Steps:
        return number + (yield from ready)

    def helpers(repeats: int) -> Steps:
        for number in range(repeats):
            yield from helper(number)

    def nested(levels: int) -> Steps:
        return (yield from (nested(levels - 1) if levels else ready))

    def nested_blocks(repeats: int) -> Steps:
        for _ in range(repeats):
            yield from nested(depth)

    @stateless.supply(Users())
    def services(repeats: int) -> Steps:
        for _ in range(repeats):
            yield from stateless.need(Users)

    def need_users() -> Steps:
        return (yield from stateless.need(Users))

    def provided(repeats: int) -> Steps:
        for _ in range(repeats):
            yield from stateless.supply(Users())(need_users)()

    def fail() -> Steps:
        return (yield from stateless.throw(NotThere()))

    def caught(repeats: int) -> Steps:
        for _ in range(repeats):
            yield from stateless.catch(NotThere)(fail)()

    def running(loop: Callable[[int], Steps]) -> Loop:
        return lambda repeats: stateless.run_async(loop(repeats))

    return {
        "step: ready effect": running(readies),
        "step: new succeed": running(succeeds),
        "do-block in a do-block": running(helpers),
        f"do-blocks {depth} deep, each": running(nested_blocks),
        "service": running(services),
        "provide_env + service": running(provided),
        "fail + catch_all": running(caught),
    }


# ---- returns -----------------------------------------------------------------------------------------------


def returns_loops(links: int) -> dict[str, Loop]:
    """Loops over the containers of `returns`, which do their work when they are made."""
    from returns.context import RequiresContext
    from returns.future import FutureSuccess
    from returns.result import Failure, Result, Success

    class NotThere(TypedError):
        """A typed error."""

    def following(value: int) -> Result[int, Any]:
        return Success(value + 1)

    async def readies(repeats: int) -> None:
        for number in range(repeats):
            await FutureSuccess(number)

    async def helpers(repeats: int) -> None:
        for number in range(repeats):
            Result.do(number + value for value in Success(1))

    async def services(repeats: int) -> None:
        ask: RequiresContext[Any, Any] = RequiresContext(lambda users: users)
        for _ in range(repeats):
            ask(None)

    async def caught(repeats: int) -> None:
        failed: Result[int, NotThere]
        for _ in range(repeats):
            failed = Failure(NotThere())
            failed.lash(lambda _: Success(1))

    async def chains(repeats: int) -> None:
        for _ in range(repeats):
            chain: Result[int, Any] = Success(1)
            for _ in range(links):
                chain = chain.bind(following)

    return {
        "step: new succeed": readies,
        "do-block in a do-block": helpers,
        "service": services,
        "fail + catch_all": caught,
        "flat_map, each link made + run": chains,
    }


# ---- Effect-TS ---------------------------------------------------------------------------------------------


async def effect_ts_figures(rounds: int, scale: float, depth: int, links: int) -> dict[str, float]:
    """Nanoseconds of each operation, by name, done by Effect-TS, which `npm` installs for this."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise NotInstalled("it needs node and npm")
    with tempfile.TemporaryDirectory() as directory:
        for file in EFFECT_TS.iterdir():
            shutil.copy(file, directory)
        await _output("npm", "install", "--silent", "--no-audit", "--no-fund", cwd=directory)
        numbers = (str(number) for number in (rounds, scale, depth, links))
        printed = await _output("node", "effect_core.mjs", *numbers, cwd=directory)
    figures: dict[str, float] = json.loads(printed)
    return figures


async def _output(*command: str, cwd: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), INSTALL_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise NotInstalled(f"{command[0]} took longer than {INSTALL_SECONDS} s") from None
    if process.returncode:
        raise NotInstalled(f"{command[0]}: {err.decode().strip()[-200:]}")
    return out.decode()

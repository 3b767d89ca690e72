"""Jobs in processes that are killed, and the ledger of what they promised and did.

The ledger is the other end of a pipe: a line that was written is in it, whatever becomes of the process.

    R                                 ready
    S key n / A key n                 operation n on an instance was begun / was acknowledged
    X key run_key n                   an account was settled up to its event n
    F key run_key attempt ok n,n,...  a batch was flushed, with this success
    T key run_key run attempt         a ticker ticked
    B key                             a bomb goes off
    E text                            something happened that must not

Every process is a fork of one that has imported everything already.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import attrs

from durable_effect import Do, Effect, Random, TypedError
from durable_effect_jobs import (
    Continuous,
    ContinuousContext,
    ContinuousStatus,
    Debounce,
    DebounceEventContext,
    DebounceExecuteContext,
    DuplicateEventError,
    InvalidStateError,
    JobsClient,
    Retry,
    Task,
    TaskEventContext,
    TaskExecuteContext,
    create_durable_jobs,
)

A = TypeVar("A")

ACCOUNTS = [f"a{n}" for n in range(4)]
BATCHES = [f"b{n}" for n in range(4)]
TICKERS = [f"t{n}" for n in range(3)]
BOMBS = [f"x{n}" for n in range(2)]
BYSTANDERS = [f"i{n}" for n in range(20)]

LIFE = 25
"""Each such operation on an account ends its life."""
POISONED = 7
"""Batches that begin with an event whose number is a multiple of this can never be flushed."""


def tell(*words: object) -> None:
    """Write a line into the ledger, at once and whole."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


@attrs.frozen
class Broken(TypedError):
    """What a handler fails with that is to be run again."""


@Effect.gen
def _linger() -> Do[None]:
    """Up to 3 ms, so that runs overlap and are killed in their midst."""
    yield from Effect.sleep(f"{yield from Random.integer(0, 3)} ms")


# -- accounts: tasks that count what they are sent ------------------------------------------------------


@attrs.frozen
class Account:
    """Events ``first`` to ``last`` in order; those up to ``settled`` were settled, in ``runs`` runs."""

    first: int
    last: int
    settled: int = 0
    runs: int = 0


@Effect.gen
def _receive(number: int, ctx: TaskEventContext[Account]) -> Do[None, Any]:
    account = yield from ctx.state
    if account is None:
        account = Account(first=number, last=number)
    elif number == account.last + 1:
        account = attrs.evolve(account, last=number)
    else:
        tell("E", ctx.id, "got", number, "after", account.last)
    yield from ctx.set_state(account)
    if (yield from ctx.get_scheduled_time()) is None:
        yield from ctx.schedule("5 ms")


@Effect.gen
def _settle(ctx: TaskExecuteContext[Account]) -> Do[None, Any]:
    account = yield from ctx.state
    assert account is not None
    tell("X", ctx.id, ctx.run_key, account.last)
    yield from _linger()
    if (yield from Random.random()) < 0.1:
        yield from Effect.fail(Broken())
    yield from ctx.set_state(attrs.evolve(account, settled=account.last, runs=account.runs + 1))


account = Task.make(
    state_schema=Account,
    event_schema=int,
    on_event=_receive,
    execute=_settle,
    retry=Retry(max_attempts=1000, delay="3 ms"),
    logging="none",
)


# -- batches: debounces, some of which are never flushed -------------------------------------------------


def _collect(ctx: DebounceEventContext[int, list[int]]) -> Effect[list[int]]:
    return Effect.succeed([*ctx.state, ctx.event])


@Effect.gen
def _flush(ctx: DebounceExecuteContext[list[int]]) -> Do[None, Any]:
    events = yield from ctx.state
    ok = events[0] % POISONED != 0
    yield from _linger()
    tell("F", ctx.id, ctx.run_key, ctx.attempt, int(ok), ",".join(map(str, events)))
    if not ok:
        yield from Effect.fail(Broken())


batch = Debounce.make(
    event_schema=int,
    state_schema=list[int],
    initial_state=list[int],
    flush_after="15 ms",
    max_events=5,
    on_event=_collect,
    execute=_flush,
    retry=Retry(max_attempts=3, delay="3 ms"),
    logging="none",
)


# -- tickers: continuous jobs, each fifth run of which fails at first ------------------------------------


@Effect.gen
def _tick(ctx: ContinuousContext[int]) -> Do[None, Any]:
    ticks = yield from ctx.state
    tell("T", ctx.id, ctx.run_key, ctx.run_count, ctx.attempt)
    if ticks + 1 != ctx.run_count:
        tell("E", ctx.id, "has", ticks, "ticks in its run", ctx.run_count)
    yield from _linger()
    if ctx.run_count % 5 == 0 and ctx.attempt == 1:
        yield from Effect.fail(Broken())
    yield from ctx.set_state(ticks + 1)


ticker = Continuous.make(
    state_schema=int,
    schedule=Continuous.every("25 ms"),
    execute=_tick,
    retry=Retry(max_attempts=3, delay="3 ms"),
    logging="none",
)


# -- bombs: tasks that kill their process, and those who are there when it happens ------------------------


@Effect.gen
def _light(_: int, ctx: TaskEventContext[int]) -> Do[None, Any]:
    yield from ctx.set_state(0)
    yield from ctx.schedule("20 ms")


@Effect.gen
def _explode(ctx: TaskExecuteContext[int]) -> Do[None, Any]:
    yield from _linger()
    tell("B", ctx.id)
    os.kill(os.getpid(), signal.SIGKILL)


@Effect.gen
def _stand_by(ctx: TaskExecuteContext[int]) -> Do[None, Any]:
    for _ in range(5):
        yield from _linger()
    yield from ctx.update_state(lambda runs: (runs or 0) + 1)


bomb = Task.make(state_schema=int, event_schema=int, on_event=_light, execute=_explode, logging="none")
bystander = Task.make(state_schema=int, event_schema=int, on_event=_light, execute=_stand_by, logging="none")

jobs = create_durable_jobs(
    {"account": account, "batch": batch, "ticker": ticker, "bomb": bomb, "bystander": bystander}
)


# -- clients -------------------------------------------------------------------------------------------


def operation(client: JobsClient, key: str, number: int) -> Effect[Any, Any]:
    """The operation with this number on this instance; after a crash it is asked for again."""
    if key in ACCOUNTS and number % LIFE == 0:
        return client.task(account).terminate(key)
    if key in ACCOUNTS:
        return client.task(account).send(id=key, event=number, event_id=str(number))
    if key in BATCHES:
        return client.debounce(batch).add(id=key, event=number, event_id=str(number))
    return client.continuous(ticker).start(id=key, input=0)


async def ask(client: JobsClient, key: str, number: int) -> None:
    """One operation after the other, for as long as the connection is open. Tickers are started once."""
    while True:
        tell("S", key, number)
        try:
            await operation(client, key, number)
        except DuplicateEventError:
            pass  # it was applied, and the answer was lost with the process
        except InvalidStateError:
            return  # closing
        except Exception as error:
            tell("E", key, number, repr(error))
            return
        tell("A", key, number)
        if key in TICKERS:
            return
        number += 1


async def work(url: str, following: dict[str, int]) -> None:
    """Ask for operations on all instances, until SIGTERM; then let what runs end."""
    dismissed = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, dismissed.set)
    async with jobs.connect(url) as client:
        tell("R")
        clients = [asyncio.create_task(ask(client, *operation)) for operation in following.items()]
        await dismissed.wait()
    await asyncio.gather(*clients)


async def finish(url: str) -> None:
    """Run alarms only, until nothing waits: accounts are settled, batches flushed, and tickers ticked again.

    What is quarantined is not waited for.
    """
    async with jobs.connect(url) as client:
        tell("R")
        tickers = client.continuous(ticker)
        runs = {key: (await tickers.status(key)).run_count for key in TICKERS}
        for key in ACCOUNTS:
            await _until(client.task(account).status(key), lambda found: found.status != "active")
        for key in BATCHES:
            await _until(client.debounce(batch).status(key), lambda found: found.status != "debouncing")
        for key in TICKERS:
            await _until(tickers.status(key), _stopped_or_beyond(runs[key]))


def _stopped_or_beyond(run: int | None) -> Callable[[ContinuousStatus], bool]:
    return lambda found: found.status == "stopped" or found.run_count != run


async def light(url: str, event: int) -> None:
    """Set off all bombs in the midst of bystanders, with an event for each, and wait for what comes of it."""
    async with jobs.connect(url) as client:
        tell("R")
        tasks = {key: client.task(bomb if key in BOMBS else bystander) for key in [*BOMBS, *BYSTANDERS]}
        for key, task in tasks.items():
            await task.send(id=key, event=event)
        for key, task in tasks.items():
            await _until(task.status(key), lambda found: found.status != "active")


async def _until(look: Effect[A, Any], enough: Callable[[A], bool]) -> None:
    while not enough(await look):
        await Effect.sleep("5 ms")


# -- processes -----------------------------------------------------------------------------------------


def fork_on_request(requests: socket.socket) -> None:
    """For each request a process, whose ledger comes with it; then its id and, when it has ended, how."""
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, 1 << 16, 1)
        if not request:
            return
        (ledger,) = descriptors
        child = os.fork()
        if child == 0:
            os.dup2(ledger, 1)
            os.close(ledger)
            requests.close()
            life(**json.loads(request))
        os.close(ledger)
        requests.send(f"{child}\n".encode())
        requests.send(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n".encode())


def life(does: str, url: str, following: dict[str, int]) -> NoReturn:
    """All of a process, from its birth to an exit with nothing of its parent's to clean up."""
    main = (
        work(url, following)
        if does == "work"
        else finish(url)
        if does == "finish"
        else light(url, following["event"])
    )
    try:
        asyncio.run(main)
    except BaseException:
        tell("E", traceback.format_exc().replace("\n", " | "))
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    fork_on_request(socket.socket(fileno=int(sys.argv[1])))

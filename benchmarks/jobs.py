"""What durable jobs cost on a SQLite file, against bare ``sqlite3`` transactions that are as durable.

    python benchmarks/jobs.py [--calls] [--quick] [--json]

Files are in the temporary directory, set with ``TMPDIR``: on a RAM disk the figures say nothing. Every call
writes rows as large as an instance's, with a write-ahead log and ``synchronous=FULL``, and is measured beside
the same rows written without this library:

    bare transaction     BEGIN IMMEDIATE, one upsert, COMMIT, one after the other in the calling thread
    bare group commit    a thread that upserts all that wait in one transaction, in a SAVEPOINT each, and
                         answers the callers' futures: as many callers, each waiting for its own answer

Medians of the rounds and of their ratios; latencies (p50, p99) are those of all rounds together.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from sqlite3 import Connection, connect
from typing import TypeAlias

import attrs
from measure import Answers, Effort, Measurement, Row, answers, effort, in_turns, per_second, report

from durable_effect import Do, Effect
from durable_effect_jobs import (
    Continuous,
    ContinuousContext,
    Debounce,
    DebounceExecuteContext,
    JobsClient,
    Task,
    TaskEventContext,
    TaskExecuteContext,
    create_durable_jobs,
)

IDS = 1_000
"""How many instances "many ids" are."""

CALLERS = 128
ALONE = 50
"""Calls of one caller in a round, and transactions of one row."""

TOGETHER = 1_280
"""Calls of many callers in a round."""

BACKLOG = 2_000
AT_A_TIME = 100
"""Alarms that an engine runs at the same time."""

IDLE = 10_000


# ---- the jobs ----------------------------------------------------------------------------------------------


@attrs.frozen
class Order:
    """An ordinary state and event: a few hundred bytes."""

    number: int
    note: str


NOTE = "a box of forty, to be left with the neighbour on the left; " * 4


def run(context: ContinuousContext[Order]) -> Effect[None]:
    """One durable change."""
    return context.update_state(lambda order: attrs.evolve(order, number=order.number + 1))


def keep(event: Order, context: TaskEventContext[Order]) -> Effect[None]:
    """The event becomes the state."""
    return context.set_state(event)


def count_up(context: TaskExecuteContext[Order]) -> Effect[None]:
    """One durable change."""
    return context.update_state(lambda order: attrs.evolve(order, number=order.number + 1))


def nothing(_: DebounceExecuteContext[Order]) -> Effect[None]:
    """A flush that does not come while this runs."""
    return Effect.void


waiting = Continuous.make(
    state_schema=Order, schedule=Continuous.every("1 day"), start_immediately=False, execute=run
)
at_once = Continuous.make(state_schema=Order, schedule=Continuous.every("1 day"), execute=run)
batch = Debounce.make(event_schema=Order, flush_after="1 day", execute=nothing)
order = Task.make(state_schema=Order, event_schema=Order, on_event=keep, execute=count_up)

jobs = create_durable_jobs({"waiting": waiting, "atOnce": at_once, "batch": batch, "order": order})


# ---- the baseline ------------------------------------------------------------------------------------------


class Bare:
    """A table with nothing but a key and a body, and one connection to it."""

    def __init__(self, path: Path, row_bytes: int) -> None:
        self._bodies = _bodies(row_bytes)
        self._connection = _open(path)
        self._connection.execute(_UPSERT, ("one", next(self._bodies)))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    async def write(self, its_id: str) -> None:
        """Upsert a row in a transaction of its own."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute(_UPSERT, (its_id, next(self._bodies)))
        self._connection.execute("COMMIT")

    async def read(self, its_id: str) -> None:
        """Look a row up."""
        self._connection.execute("SELECT body FROM row WHERE id = ?", (its_id,)).fetchone()


class Grouped:
    """Such a table, and a thread that writes whatever waits for it in one transaction."""

    def __init__(self, path: Path, row_bytes: int) -> None:
        self._bodies = _bodies(row_bytes)
        self._waiting: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._serve, args=(path,))
        self._thread.start()

    def close(self) -> None:
        """End the thread, and close its connection."""
        self._waiting.put(None)
        self._thread.join()

    async def write(self, its_id: str) -> None:
        """Upsert a row; returns when it is durable."""
        durable: asyncio.Future[None] = self._loop.create_future()
        self._waiting.put((its_id, durable))
        await durable

    def _serve(self, path: Path) -> None:
        with closing(_open(path)) as connection:
            while batch := self._take():
                self._transact(connection, batch)
                self._loop.call_soon_threadsafe(_answer, batch)

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        waiting = self._waiting.get()
        while waiting is not None:
            batch.append(waiting)
            try:
                waiting = self._waiting.get_nowait()
            except Empty:
                return batch
        return []  # closed: nobody waits any more

    def _transact(self, connection: Connection, batch: list[_Waiting]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        for its_id, _ in batch:
            connection.execute("SAVEPOINT one")
            connection.execute(_UPSERT, (its_id, next(self._bodies)))
            connection.execute("RELEASE one")
        connection.execute("COMMIT")


_Waiting: TypeAlias = "tuple[str, asyncio.Future[None]]"


def _answer(batch: list[_Waiting]) -> None:
    for _, durable in batch:
        durable.set_result(None)


def _open(path: Path) -> Connection:
    connection = connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE row (id TEXT PRIMARY KEY, body BLOB) WITHOUT ROWID")
    return connection


def _bodies(row_bytes: int) -> Iterator[bytes]:
    """Each body is another one: SQLite does not write what is there already."""
    return (number.to_bytes(8, "big") + bytes(row_bytes - 8) for number in count())


_UPSERT = """
    INSERT INTO row (id, body) VALUES (?, ?) ON CONFLICT DO UPDATE SET body = excluded.body
"""


async def bytes_per_row(directory: Path) -> int:
    """How large the row of an instance is."""
    path = directory / "one.db"
    async with jobs.connect(f"sqlite:///{path}") as client:
        await client.task(order).send(id="one", event=Order(1, NOTE))
    with closing(connect(path)) as connection:
        (size,) = connection.execute("SELECT sum(length(record) + length(state)) FROM instance").fetchone()
    return int(size)


# ---- calls -------------------------------------------------------------------------------------------------

Call = Callable[[JobsClient, str], Effect[object, object]]


@dataclass(frozen=True, slots=True)
class Case:
    """A call, and the ids that it is made on."""

    name: str
    call: Call
    ids: Callable[[], Iterator[str]]
    commits: int = 1


def one_id() -> Iterator[str]:
    """The same id again and again."""
    return ("one" for _ in count())


def many_ids() -> Iterator[str]:
    """A thousand ids in turn."""
    return (f"id-{number % IDS}" for number in count())


def new_ids() -> Iterator[str]:
    """Ids that were never used before."""
    return (f"new-{number}" for number in _numbers)


_numbers = count()


def start(client: JobsClient, its_id: str) -> Effect[object, object]:
    return client.continuous(waiting).start(id=its_id, input=Order(1, NOTE))


def start_and_run(client: JobsClient, its_id: str) -> Effect[object, object]:
    return client.continuous(at_once).start(id=its_id, input=Order(1, NOTE))


def send(client: JobsClient, its_id: str) -> Effect[object, object]:
    return client.task(order).send(id=its_id, event=Order(1, NOTE))


def add(client: JobsClient, its_id: str) -> Effect[object, object]:
    return client.debounce(batch).add(id=its_id, event=Order(1, NOTE))


CASES = (
    Case("start, one id (there already)", start, one_id, commits=0),
    Case("start, many ids", start, new_ids),
    Case("start + first run, many ids", start_and_run, new_ids, commits=2),
    Case("send, one id", send, one_id),
    Case("send, many ids", send, many_ids),
    Case("add, one id", add, one_id),
    Case("add, many ids", add, many_ids),
)


async def calls(client: JobsClient, call: Call, ids: Iterator[str], number: int, callers: int) -> Answers:
    """That many calls, by callers who each wait for an answer before they call again."""
    return await answers(number, callers, lambda: call(client, next(ids)).run_async())


async def rows_of_calls(wanted: Effort, directory: Path, row_bytes: int) -> list[Row]:
    """Every case, with one caller and with many."""
    with (
        closing(Bare(directory / "bare.db", row_bytes)) as bare,
        closing(Grouped(directory / "grouped.db", row_bytes)) as grouped,
    ):
        async with jobs.connect(f"sqlite:///{directory / 'jobs.db'}") as client:
            return [
                row
                for case in CASES
                for callers, number in ((1, wanted.of(ALONE)), (CALLERS, wanted.of(TOGETHER)))
                for row in await _rows_of_case(wanted, client, bare, grouped, case, callers, number)
            ]


async def _rows_of_case(
    wanted: Effort,
    client: JobsClient,
    bare: Bare,
    grouped: Grouped,
    case: Case,
    callers: int,
    number: int,
) -> list[Row]:
    ids, alone = case.ids(), wanted.of(ALONE)
    name = f"{case.name}, {callers} caller{'s' if callers > 1 else ''}"

    def ours() -> Awaitable[Answers]:
        return calls(client, case.call, ids, number, callers)

    if case.commits == 0:
        measured = await in_turns(
            wanted.rounds, ours, lambda: answers(number, 1, lambda: bare.read(next(ids)))
        )
        return [Answers.throughput(name, measured[0], "bare SELECT", measured[1])]
    single, group = _writing(bare.write, case), _writing(grouped.write, case)
    measured = await in_turns(
        wanted.rounds, ours, lambda: answers(alone, 1, single), lambda: answers(number, callers, group)
    )
    figures, singles, groups = measured
    of_writes = "bare" if case.commits == 1 else f"{case.commits} x bare"
    return [
        Answers.throughput(name, figures, f"{of_writes} transaction", singles),
        Answers.throughput(name, figures, f"{of_writes} group commit", groups),
        *Answers.latencies(name, figures, f"{of_writes} group commit", groups),
    ]


def _writing(write: Callable[[str], Awaitable[None]], case: Case) -> Callable[[], Awaitable[None]]:
    """As many writes as a call commits, each when the one before it is durable."""
    ids = case.ids()

    async def write_all() -> None:
        its_id = next(ids)
        for _ in range(case.commits):
            await write(its_id)

    return write_all


# ---- alarms ------------------------------------------------------------------------------------------------


class Backlog:
    """Tasks that fall due while nobody runs them, and their execution after a restart."""

    def __init__(self, path: Path, number: int) -> None:
        self._url = f"sqlite:///{path}"
        self._number = number
        self._left = number
        self._executed = asyncio.Event()
        self._reminder = Task.make(
            state_schema=Order, event_schema=Order, on_event=self._schedule, execute=self._execute
        )
        self._jobs = create_durable_jobs({"reminder": self._reminder})

    @Effect.gen
    def _schedule(self, event: Order, context: TaskEventContext[Order]) -> Do[None]:
        yield from context.set_state(event)
        yield from context.schedule("1 ms")

    @Effect.gen
    def _execute(self, context: TaskExecuteContext[Order]) -> Do[None]:
        yield from count_up(context)
        self._left -= 1
        if self._left == 0:
            self._executed.set()

    def _send(self, client: JobsClient, its_id: str) -> Effect[object, object]:
        return client.task(self._reminder).send(id=its_id, event=Order(1, NOTE))

    async def fire(self) -> float:
        """Let it pile up, then fire it; alarms a second, from opening the file until it is closed."""
        async with self._jobs.connect(self._url, alarms=False) as client:
            await calls(client, self._send, new_ids(), self._number, CALLERS)
        return await per_second(self._number, self._restart)

    async def _restart(self) -> None:
        async with self._jobs.connect(self._url):
            await self._executed.wait()


async def rows_of_alarms(wanted: Effort, directory: Path, row_bytes: int) -> list[Row]:
    """Alarms that fell due while nobody ran them. Each commits twice: it is taken for its run, and over."""
    number, alone = wanted.of(BACKLOG), wanted.of(ALONE)
    case = Case("alarms", send, new_ids, commits=2)
    backlogs = (Backlog(directory / f"backlog-{n}.db", number) for n in count())
    with (
        closing(Bare(directory / "bare-alarms.db", row_bytes)) as bare,
        closing(Grouped(directory / "grouped-alarms.db", row_bytes)) as grouped,
    ):
        single, group = _writing(bare.write, case), _writing(grouped.write, case)

        async def fire() -> float:
            return await next(backlogs).fire()

        async def one_by_one() -> float:
            return (await answers(alone, 1, single)).per_second

        async def in_groups() -> float:
            return (await answers(number, AT_A_TIME, group)).per_second

        ours, *theirs = await in_turns(wanted.rounds, fire, one_by_one, in_groups)
    name = f"alarms, backlog of {number:,}"
    return [
        Row.of_rounds(name, ours, "alarms/s", f"2 x bare {baseline}", of_baseline)
        for baseline, of_baseline in zip(("transaction", "group commit"), theirs, strict=True)
    ]


# ---- memory and import time, each in a process of its own --------------------------------------------------

IMPORTS = "asyncio, sqlite3, attrs, cattrs"


async def rows_of_memory(wanted: Effort, directory: Path) -> list[Row]:
    """What instances that wait take at most while they come to be."""
    number = wanted.of(IDLE)
    urls = {"memory://": "memory://", "sqlite:///": f"sqlite:///{directory / 'idle.db'}"}
    plain = [_idle_mib("dict", number)]
    baseline = "their states in a dict"
    return [
        Row.of_best(f"peak memory, {number:,} idle, {name}", [_idle_mib(url, number)], "MiB", baseline, plain)
        for name, url in urls.items()
    ]


def _idle_mib(holder: str, number: int) -> float:
    script = Path(__file__).with_name("idle_instances.py")
    return float(_run(str(script), holder, str(number)))


async def rows_of_imports(wanted: Effort) -> list[Row]:
    """What importing a package takes in a new process."""
    names = (IMPORTS, "durable_effect", "durable_effect_jobs")
    baseline, *ours = await in_turns(wanted.rounds, *map(_import_measurement, names))
    return [
        Row.of_rounds(f"import {name}", figures, "ms", f"import {IMPORTS}", baseline)
        for name, figures in zip(names[1:], ours, strict=True)
    ]


def _import_measurement(names: str) -> Measurement:
    program = f"import time; b = time.perf_counter(); import {names}; print((time.perf_counter() - b) * 1e3)"

    async def measure() -> float:
        return float(_run("-c", program))

    return measure


def _run(*arguments: str) -> str:
    return subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True).stdout


async def main() -> None:
    wanted = effort(
        __doc__, rounds=15, quick_rounds=4, switches={"calls": "calls and alarms, without memory and imports"}
    )
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        row_bytes = await bytes_per_row(directory)
        rows = [
            *await rows_of_calls(wanted, directory, row_bytes),
            *await rows_of_alarms(wanted, directory, row_bytes),
        ]
        if "calls" not in wanted.switches:
            rows += [*await rows_of_memory(wanted, directory), *await rows_of_imports(wanted)]
    report(rows, as_json=wanted.as_json)


if __name__ == "__main__":
    asyncio.run(main())

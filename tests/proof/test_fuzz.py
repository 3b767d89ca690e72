"""Hostile requests and damaged bytes: refused with a documented error, and nothing else happens."""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import attrs
import pytest
from fuzz_values import CANARY, NUMBERS, TEXTS, Hostile, spoiled

from durable_effect import Backoff, Duration, Effect, Exit, Scope, Success, TypedError
from durable_effect_jobs import Continuous, Debounce, Retry, Task, Tracker, create_durable_jobs
from durable_effect_jobs import errors as jobs_errors
from durable_effect_jobs.instance import Commit, Instance, Key
from durable_effect_jobs.step import Limits
from durable_effect_jobs.storage import Storage
from durable_effect_jobs.storage.memory import MemoryStorage
from durable_effect_jobs.storage.sqlite import SqliteStorage

NOW = datetime(2026, 1, 1, tzinfo=UTC)

DOCUMENTED = tuple(
    error
    for error in (getattr(jobs_errors, name) for name in jobs_errors.__all__)
    if isinstance(error, type) and issubclass(error, TypedError)
)


@attrs.frozen
class Note:
    """What the jobs here keep."""

    title: str
    amount: int
    ratio: float
    tags: list[str]
    more: Any = None


def _jobs(*, tracker: Tracker | None = None, **limits: Any) -> Any:
    """A job of each kind that keeps notes; the handlers do nothing that could fail."""
    return create_durable_jobs(
        {
            "note": Continuous.make(
                state_schema=Note,
                schedule=Continuous.every("1 day"),
                start_immediately=False,
                logging=True,
                execute=lambda ctx: Effect.void,
            ),
            "notes": Debounce.make(
                event_schema=Note, flush_after="1 day", logging=True, execute=lambda ctx: ctx.state.as_void()
            ),
            "tasks": Task.make(
                state_schema=Note,
                event_schema=Note,
                logging=True,
                on_event=lambda event, ctx: ctx.set_state(event).and_then(ctx.schedule("1 day")),
                execute=lambda ctx: ctx.update_state(lambda note: attrs.evolve(note, amount=note.amount + 1)),
            ),
        },
        tracker=tracker,
        limits=Limits(**limits),
    )


# -- what is watched -------------------------------------------------------------------------------


class Watch(Protocol):
    """Sees whether anything was written."""

    async def dump(self) -> object:
        """All that is stored; two of them are equal if nothing was written between them."""
        ...


class FileWatch:
    """Looks at a database file through a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._version = -1
        self._dumped: object = None

    async def dump(self) -> object:
        """Every row of every table; SQLite's own counter says when there is no need to read them again."""
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        if version != self._version:
            self._version, self._dumped = version, self.rows()
        return self._dumped

    def rows(self) -> dict[str, list[Any]]:
        """Every row of every table."""
        tables = self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return {table: self._connection.execute(f'SELECT * FROM "{table}"').fetchall() for (table,) in tables}

    def execute(self, statement: str, *values: object) -> list[Any]:
        """Run a statement behind the back of the storage."""
        return self._connection.execute(statement, values).fetchall()

    def places(self) -> set[tuple[str, str]]:
        """The job and id of every instance."""
        return {*self.execute("SELECT job, id FROM instance")}

    def columns(self, place: tuple[str, str]) -> Any:
        """The record and the state of an instance; nothing when it is gone."""
        found = self.execute("SELECT record, state FROM instance WHERE job = ? AND id = ?", *place)
        return found[0] if found else ()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


class MemoryWatch:
    """Looks at what a memory storage shows of itself."""

    def __init__(self, storage: MemoryStorage) -> None:
        self._storage = storage

    async def dump(self) -> object:
        """All records, dead letters and events."""
        storage = self._storage
        return (
            await storage.instances(limit=1 << 30),
            await storage.dead_letters(limit=1 << 30),
            await storage.pending_events(limit=1 << 30),
        )


class Ears(logging.Handler):
    """Listens for the canary in everything that is logged."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.heard: list[str] = []
        self.records = 0
        self._form = logging.Formatter("%(message)s %(name)s")

    def emit(self, record: logging.LogRecord) -> None:
        self.records += 1
        text = self._form.format(record) + repr(record.__dict__)
        if CANARY in text:
            self.heard.append(text)


@contextmanager
def listening() -> Iterator[Ears]:
    """Everything that is logged meanwhile is listened to, and not shown."""
    ears, root = Ears(), logging.getLogger("durable_effect_jobs")
    before = root.level, root.propagate
    root.addHandler(ears)
    root.setLevel(logging.DEBUG)
    root.propagate = False
    try:
        yield ears
    finally:
        root.removeHandler(ears)
        root.level, root.propagate = before


@asynccontextmanager
async def sqlite(path: Path, **options: Any) -> Any:
    """A storage on a real file."""
    scope = await Scope.make()
    try:
        yield await scope.extend(SqliteStorage.open(path, **options))
    finally:
        await scope.close(Success(None))


# -- requests --------------------------------------------------------------------------------------


def _request(client: Any, hostile: Hostile) -> Effect[Any, Any]:
    """A call of the client with hostile arguments."""
    dice = hostile.dice
    kind = dice.choice(("continuous", "debounce", "task"))
    name: Any = {"continuous": "note", "debounce": "notes", "task": "tasks"}[kind]
    if dice.randrange(20) == 0:
        name = hostile.anything()
    handle = getattr(client, kind)(name)
    methods = {
        "continuous": ("start", "start", "start", "trigger", "status", "get_state", "terminate"),
        "debounce": ("add", "add", "add", "add", "flush", "status", "get_state", "clear"),
        "task": ("send", "send", "send", "send", "trigger", "status", "get_state", "terminate"),
    }
    method = dice.choice(methods[kind])
    call = getattr(handle, method)
    if method == "start":
        return call(id=hostile.id(), input=hostile.input())  # type: ignore[no-any-return]
    if method in ("add", "send"):
        return call(id=hostile.id(), event=hostile.input(), event_id=hostile.event_id())  # type: ignore[no-any-return]
    if method == "terminate":
        return call(hostile.id(), hostile.anything())  # type: ignore[no-any-return]
    return call(hostile.id())  # type: ignore[no-any-return]


def _said(exit: Exit[Any, Any]) -> str:
    """How a call ended: ``ok``, the name of its documented error, or what it must not end with."""
    if isinstance(exit, Success):
        return "ok"
    error = exit.cause.squash()
    assert not exit.cause.defects, f"a foreign exception: {error!r}"
    assert isinstance(error, DOCUMENTED), f"an error that is not documented: {error!r}"
    assert CANARY not in f"{error} {error!r}", f"{type(error).__name__} tells the secret"
    return type(error).__name__


async def _storm(
    client: Any, storage: Storage, watch: Watch, hostile: Hostile, requests: int
) -> Counter[str]:
    """Hostile requests, one after the other; what is refused leaves all that is stored as it was."""
    said: Counter[str] = Counter()
    for number in range(requests):
        before = await watch.dump()
        request = _request(client, hostile)
        answer = _said(await request.run_async_exit())
        said[answer] += 1
        if answer != "ok":
            assert await watch.dump() == before, f"request {number} was refused ({answer}) and left traces"
        elif number % 25 == 0:
            await _tidy(client, storage)
    return said


async def _tidy(client: Any, storage: Storage) -> None:
    """End whatever lives and deliver all events, or there would soon be more than can be compared."""
    for number in range(6):
        await client.continuous("note").terminate(f"user-{number}")
        await client.debounce("notes").clear(f"user-{number}")
        await client.task("tasks").terminate(f"user-{number}")
    events = await storage.pending_events(limit=1 << 30)
    assert CANARY not in repr(events), "an event tells the secret"
    await storage.events_sent([event.event_id for event in events])


@pytest.mark.parametrize("url", ["memory", "sqlite"])
def test_hostile_requests_are_refused_and_leave_no_trace(
    url: str, tmp_path: Path, tier: int, report: Callable[..., None]
) -> None:
    """The answer to whatever is sent is a result, or a documented error with nothing changed."""
    hostile, jobs = Hostile(20_26), _jobs(tracker=Tracker())

    async def scene() -> Counter[str]:
        if url == "memory":
            memory = MemoryStorage()
            async with jobs.connect(memory) as client:
                return await _storm(client, memory, MemoryWatch(memory), hostile, 26_000 * tier)
        path = tmp_path / "jobs.db"
        async with sqlite(path) as file, jobs.connect(file) as client:
            watch = FileWatch(path)
            try:
                return await _storm(client, file, watch, hostile, 12_000 * tier)
            finally:
                watch.close()

    with listening() as ears:
        said = asyncio.run(scene())
    assert ears.heard == []
    assert {"ok", "ValidationError", "JobNotFoundError", "InstanceNotFoundError", "DuplicateEventError"} <= {
        *said
    }
    assert said["StorageError"] == 0
    report(f"hostile requests, {url}", requests=said.total(), refused=said.total() - said["ok"])


class Careless(MemoryStorage):
    """Leaves an empty record behind, at one look in three that finds nothing."""

    looks = 0

    def load(self, key: Key) -> Effect[Any, Any]:
        return super().load(key).tap(lambda found: Effect.void if found else self._leave(key))

    def _leave(self, key: Key) -> Effect[Any, Any]:
        Careless.looks += 1
        if Careless.looks % 3:
            return Effect.void
        after = Instance(key=key, incarnation="none", created_at=NOW, state=b"{}")
        commit = Commit(key=key, before=None, after=after, at=NOW, token="none")
        return super().commit(commit)


def test_traces_of_a_refused_request_are_found() -> None:
    """A storage that leaves empty records behind is told from a good one."""

    async def scene() -> None:
        memory = Careless()
        async with _jobs().connect(memory) as client:
            await _storm(client, memory, MemoryWatch(memory), Hostile(1), 200)

    with listening(), pytest.raises(AssertionError, match="left traces"):
        asyncio.run(scene())


def test_a_secret_in_a_log_is_heard() -> None:
    """In its text or in what goes with it."""
    with listening() as ears:
        logging.getLogger("durable_effect_jobs.task.any").info("%s", CANARY)
        logging.getLogger("durable_effect_jobs.engine").debug("nothing", extra={"state": {"title": CANARY}})
    assert len(ears.heard) == 2


# -- definitions -----------------------------------------------------------------------------------


def _definition(hostile: Hostile) -> Callable[[], object]:
    """A definition with hostile options."""
    span, any_ = hostile.span, hostile.anything
    execute = lambda ctx: Effect.void  # noqa: E731 - one word for what all of them do
    every = Continuous.every("1 day")
    match hostile.dice.randrange(16):
        case 0:
            value = span()
            return lambda: Continuous.every(value).next_after(NOW)
        case 1 | 2 | 3 | 4:
            cron, zone = hostile.cron(), hostile.zone() if hostile.dice.randrange(3) == 0 else "UTC"
            return lambda: _next(Continuous.cron(cron, tz=zone))
        case 5:
            value = span()
            return lambda: Debounce.make(event_schema=Note, flush_after=value, execute=execute)
        case 6:
            value = any_()
            return lambda: Debounce.make(
                event_schema=Note, flush_after="1 s", max_events=value, execute=execute
            )
        case 7:
            options: dict[str, Any] = {"max_attempts": any_(), "delay": span(), "max_duration": span()}
            name = hostile.dice.choice(tuple(options))
            return lambda: Retry(**{"max_attempts": 3, name: options[name]})
        case 8:
            base, factor, most = span(), any_(), span()
            return lambda: Backoff.exponential(base, factor=factor, max=most).delay(3)
        case 9:
            base, increment = _given(span()), _given(span())
            return lambda: Backoff.linear(base, increment).delay(3)
        case 10:
            value = span()
            return lambda: Duration.parse(value)
        case 11:
            name = hostile.dice.choice((*TEXTS, *NUMBERS, hostile.text(), None, b"name", ("a", "b")))
            job = Continuous.make(state_schema=Note, schedule=every, execute=execute)
            return lambda: create_durable_jobs({name: job})
        case 12:
            names = ("max_state_bytes", "concurrency", "poll_interval", "drain_timeout", "event_id_window")
            name, value = hostile.dice.choice(names), any_()
            return lambda: Limits(**{name: value})
        case 13:
            value = any_()
            return lambda: Tracker(value)
        case 14:
            options = {"state_schema": any_(), "schedule": any_(), "execute": any_(), "logging": any_()}
            name = hostile.dice.choice(tuple(options))
            good: dict[str, Any] = {"state_schema": Note, "schedule": every, "execute": execute}
            return lambda: Continuous.make(**{**good, name: options[name]})
        case _:
            value = any_()
            return lambda: _jobs().connect(value)


def _given(span: Any) -> Any:
    """Something: without an argument at all it is another call."""
    return "1 s" if span is None else span


def _next(schedule: Any) -> None:
    """What was accepted answers with a later time."""
    assert schedule.next_after(NOW) > NOW


def test_hostile_definitions_are_refused_when_they_are_made(tier: int, report: Callable[..., None]) -> None:
    """Spans, cron expressions, zones, names and options are accepted, or refused with ValueError or typed."""
    hostile = Hostile(7)
    said: Counter[str] = Counter()
    foreign: dict[str, str] = {}
    for number in range(10_000 * tier):
        define = _definition(hostile)
        try:
            define()
            said["ok"] += 1
        except (ValueError, TypedError) as error:
            said[type(error).__name__] += 1
        except Exception as error:
            if _is_the_values_own(error):
                continue
            where = _where(error)
            foreign.setdefault(where, f"number {number}: {error!r:.200}")
    assert foreign == {}
    report("hostile definitions", definitions=said.total(), refused=said.total() - said["ok"])


def _is_the_values_own(error: Exception) -> bool:
    """Raised by a value when it is looked at, or because it is nested too deeply to be shown."""
    return "boom" in str(error) or isinstance(error, RecursionError)


def _where(error: Exception) -> str:
    """The innermost line."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno} {last.line}"


# -- stored bytes ----------------------------------------------------------------------------------


Place: TypeAlias = tuple[str, str]
"""A job and an id."""
Columns: TypeAlias = tuple[bytes, bytes | None]
"""A record and its state."""


@attrs.frozen
class Shelf:
    """Many instances in one file."""

    client: Any
    storage: SqliteStorage
    watch: FileWatch
    ran: set[Place]

    async def fill(self, number: int) -> None:
        """So many instances of each kind, none of them due."""
        note = Note(CANARY, 3, 0.5, ["a"], {"k": [1]})
        births = [
            call
            for n in range(number)
            for call in (
                self.client.continuous("note").start(id=f"{n}", input=note),
                self.client.debounce("notes").add(id=f"{n}", event=note),
                self.client.task("tasks").send(id=f"{n}", event=note),
            )
        ]
        await Effect.all(births, concurrency="unbounded")

    def _handle(self, job: str) -> Any:
        kinds = {"note": self.client.continuous, "notes": self.client.debounce, "tasks": self.client.task}
        return kinds[job](job)

    def reads(self, job: str, id: str) -> list[Effect[Any, Any]]:
        """What changes nothing."""
        handle = self._handle(job)
        return [handle.status(id), handle.get_state(id)]

    def writes(self, job: str, id: str) -> list[Effect[Any, Any]]:
        """What changes an instance that is whole."""
        handle, note = self._handle(job), Note(CANARY, 4, 0.5, [], None)
        match job:
            case "note":
                return [handle.start(id=id, input=note), handle.trigger(id)]
            case "notes":
                return [handle.add(id=id, event=note), handle.flush(id)]
            case _:
                return [handle.trigger(id), handle.send(id=id, event=note)]


@asynccontextmanager
async def shelf(path: Path) -> Any:
    """An empty shelf. Nothing is remembered in memory, so that damage is seen."""
    ran: set[tuple[str, str]] = set()

    def execute(ctx: Any) -> Effect[Any, Any]:
        return Effect.sync(lambda: ran.add((ctx.job_name, ctx.id)))

    options: dict[str, Any] = {"logging": True, "execute": execute}
    jobs = create_durable_jobs(
        {
            "note": Continuous.make(
                state_schema=Note, schedule=Continuous.every("1 day"), start_immediately=False, **options
            ),
            "notes": Debounce.make(event_schema=Note, flush_after="1 day", **options),
            "tasks": Task.make(
                state_schema=Note,
                event_schema=Note,
                on_event=lambda event, ctx: ctx.set_state(event).and_then(ctx.schedule("1 day")),
                **options,
            ),
        },
        tracker=Tracker(),
        limits=Limits(poll_interval="10 ms", concurrency=1000),
    )
    async with sqlite(path, cache_size=0) as storage, jobs.connect(storage) as client:
        watch = FileWatch(path)
        try:
            yield Shelf(client, storage, watch, ran)
        finally:
            watch.close()


async def _round(path: Path, hostile: Hostile, problems: Counter[str]) -> tuple[int, int]:
    """Fill a shelf, damage some, call all of those, and let every alarm fall due."""
    async with shelf(path) as opened:
        await opened.fill(_ON_A_SHELF)
    damaged = _damage(path, hostile)
    async with shelf(path) as opened:
        calls = [await _call_damaged(opened, place, damaged[place], problems) for place in sorted(damaged)]
        healthy = opened.watch.places() - {*damaged}
        await _check_listing(opened, healthy, problems)
    replaced = {place for place, changed in zip(sorted(damaged), calls, strict=True) if changed}
    _make_all_due(path, {*damaged} - replaced)
    async with shelf(path) as opened:
        await _check_alarms(opened, healthy, problems)
    watch = FileWatch(path)
    for place in {*damaged} - replaced - opened.ran:
        if watch.columns(place)[1:] != damaged[place][1:]:
            problems["the alarm of a damaged instance lost its state"] += 1
    watch.close()
    return 4 * len(damaged), len(damaged)


_WRITE = "UPDATE instance SET record = ?, state = ?"


def _damage(path: Path, hostile: Hostile) -> dict[Place, Columns]:
    """Spoil the record or the state of one instance in three; what stands there now."""
    watch = FileWatch(path)
    damaged: dict[Place, Columns] = {}
    for place in sorted(watch.places()):
        record, state = watch.columns(place)
        if hostile.dice.randrange(3) == 0:
            if hostile.dice.randrange(2):
                record = spoiled(record, hostile)
            else:
                state = None if hostile.dice.randrange(14) == 0 else spoiled(state, hostile)
            watch.execute(f"{_WRITE} WHERE job = ? AND id = ?", record, state, *place)
            damaged[place] = record, state
    watch.close()
    return damaged


async def _call_damaged(opened: Shelf, place: Place, columns: Columns, problems: Counter[str]) -> bool:
    """Reads and writes of a damaged instance; whether one of them could make something of it."""
    for call in opened.reads(*place):
        _said(await call.run_async_exit())
    for call in opened.writes(*place):
        answer = _said(await call.run_async_exit())
        if opened.watch.columns(place) != columns:
            if answer not in ("ok", "ExecutionError"):
                problems[f"a failing call ({answer}) changed what was damaged"] += 1
            return True
    return False


def _make_all_due(path: Path, damaged: Collection[Place]) -> None:
    """Set every alarm to a time that is long gone: in the column, and in the record if that is whole."""
    watch = FileWatch(path)
    for place in watch.places():
        record, _ = watch.columns(place)
        if place not in damaged:
            record = re.sub(rb'"alarm":\[\d+,', b'"alarm":[1,', record)
        watch.execute("UPDATE instance SET alarm_us = 1, record = ? WHERE job = ? AND id = ?", record, *place)
    watch.close()


async def _check_alarms(opened: Shelf, healthy: Collection[Place], problems: Counter[str]) -> None:
    """Wait until all that are whole have run."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            while not {*healthy} <= opened.ran:
                await Effect.sleep("5 ms")
    except TimeoutError:
        problems[f"{len({*healthy} - opened.ran)} of {len(healthy)} whole instances did not fire"] += 1


async def _check_listing(opened: Shelf, healthy: Collection[Place], problems: Counter[str]) -> None:
    listed = await opened.storage.instances(limit=1 << 30).run_async_exit()
    if not isinstance(listed, Success):
        problems[f"a damaged record breaks the listing of all: {_said(listed)}"] += 1
    elif not {*healthy} <= {(one.key.job, one.key.id) for one in listed.value}:
        problems["whole instances are missing in the listing"] += 1


_ON_A_SHELF = 60
_PATIENCE_S = 15


def test_damaged_records_stay_as_they_are_and_hold_up_nobody(
    tmp_path: Path, tier: int, report: Callable[..., None]
) -> None:
    """What cannot be read is an error of its own calls alone: never reset, and all others go on."""
    hostile = Hostile(99)
    problems: Counter[str] = Counter()
    made = damaged = 0
    with listening() as ears:
        for number in range(16 * tier):
            calls, spoilt = asyncio.run(_round(tmp_path / f"{number}.db", hostile, problems))
            made, damaged = made + calls, damaged + spoilt
    assert problems == {}
    assert ears.heard == []
    report("damaged records", damaged=damaged, requests=made)


def test_damaged_dead_letters_and_events_hide_no_others(
    tmp_path: Path, tier: int, report: Callable[..., None]
) -> None:
    """One that cannot be read keeps nobody from seeing the rest."""
    hostile = Hostile(5)
    hidden: Counter[str] = Counter()
    damaged = 0
    with listening() as ears:
        for number in range(4 * tier):
            path = tmp_path / f"{number}.db"
            asyncio.run(_bury(path))
            spoilt = {
                "dead letters": _spoil(path, "dead_letter", "number", "record", hostile),
                "events": _spoil(path, "outbox", "seq", "body", hostile),
            }
            damaged += sum(len(numbers) for numbers in spoilt.values())
            asyncio.run(_look(path, spoilt, hidden))
    assert hidden == {}
    assert ears.heard == []
    report("damaged dead letters and events", damaged=damaged)


async def _bury(path: Path) -> None:
    """Many dead letters, and the events that tell of them."""
    jobs = create_durable_jobs(
        {
            "note": Continuous.make(
                state_schema=Note,
                schedule=Continuous.every("1 day"),
                retry=Retry(max_attempts=1),
                logging="none",
                execute=lambda ctx: Effect.fail(RuntimeError("no")),
            )
        },
        tracker=Tracker(),
    )
    note = Note(CANARY, 3, 0.5, ["a"])
    async with sqlite(path) as storage, jobs.connect(storage) as client:
        starts = [client.continuous("note").start(id=f"{n}", input=note).exit() for n in range(100)]
        await Effect.all(starts, concurrency="unbounded")


def _spoil(path: Path, table: str, number: str, column: str, hostile: Hostile) -> set[int]:
    """Damage one row in five; their numbers."""
    watch, spoilt = FileWatch(path), set[int]()
    for its, data in watch.execute(f"SELECT {number}, {column} FROM {table}"):
        if hostile.dice.randrange(5) == 0:
            watch.execute(f"UPDATE {table} SET {column} = ? WHERE {number} = ?", spoiled(data, hostile), its)
            spoilt.add(its)
    watch.close()
    return spoilt


async def _look(path: Path, spoilt: dict[str, set[int]], hidden: Counter[str]) -> None:
    """All rows that are whole must be shown."""
    watch = FileWatch(path)
    whole = {
        "dead letters": len(watch.rows()["dead_letter"]) - len(spoilt["dead letters"]),
        "events": len(watch.rows()["outbox"]) - len(spoilt["events"]),
    }
    watch.close()
    assert whole["dead letters"] > 0 and whole["events"] > 0  # noqa: PT018 - one scene
    async with sqlite(path) as storage:
        reads = {
            "dead letters": storage.dead_letters(limit=1 << 30),
            "events": storage.pending_events(limit=1 << 30),
        }
        for name, read in reads.items():
            shown = await read.run_async_exit()
            if not isinstance(shown, Success):
                hidden[f"{name}: {_said(shown)}"] += 1
            elif len(shown.value) < whole[name]:
                hidden[name] += 1

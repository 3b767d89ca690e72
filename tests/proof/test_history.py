"""Many callers on one SQLite file: whatever they were told could have happened one call at a time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast

import attrs
import pytest
from history import FILLED, Call, Fact, Ledger, Run, check

from durable_effect import Do, Effect, Exit, Random, Scope, Success, TypedError
from durable_effect_jobs import (
    Continuous,
    ContinuousContext,
    Debounce,
    DebounceEventContext,
    DebounceExecuteContext,
    JobsClient,
    Task,
    TaskEventContext,
    TaskExecuteContext,
    Tracker,
    create_durable_jobs,
)
from durable_effect_jobs.errors import (
    DuplicateEventError,
    ExecutionError,
    InstanceBusy,
    InstanceNotFoundError,
    InvalidStateError,
    StorageError,
)
from durable_effect_jobs.events import JobStarted, JobTerminated
from durable_effect_jobs.instance import Commit, Instance, Key
from durable_effect_jobs.step import Limits
from durable_effect_jobs.storage import Storage
from durable_effect_jobs.storage.sqlite import SqliteStorage

Pause: TypeAlias = Callable[[int], Effect[None]]

IDS = ("a", "b:c", "d", "e")
"""Few, so that callers meet."""
CALLERS = 48
IN_THREADS = 8
THREADS = 2
_FAILS = 97
"""One event in so many is refused by its handler."""


@attrs.frozen
class Refused(TypedError):
    """What handlers say of an event that they do not want."""


@attrs.define
class World:
    """The jobs, what their handlers noted, and what their callers were told."""

    calls: list[Call] = attrs.field(factory=list[Call])
    runs: list[Run] = attrs.field(factory=list[Run])
    stamps: Iterator[int] = attrs.field(factory=itertools.count)
    """One counter for all threads: ``next`` on it is one step of the interpreter."""
    numbers: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))

    def note(
        self, place: tuple[Any, str], number: int, before: Ledger, began: int, *, on_event: bool
    ) -> Ledger:
        """A handler comes to its end."""
        after = before.then(number)
        self.runs.append(Run(place, number, before, after, began, next(self.stamps), on_event))
        return after

    @Effect.gen
    def on_event(self, event: int, ctx: TaskEventContext[Ledger]) -> Do[None, Refused]:
        began = next(self.stamps)
        before = (yield from ctx.state) or Ledger.born(next(self.numbers))
        yield from _pause(event)
        if event % _FAILS == 0:
            yield from Effect.fail(Refused())
        after = self.note((cast("Any", ctx.job_name), ctx.id), event, before, began, on_event=True)
        yield from ctx.set_state(after)
        if ctx.job_name == "timed":
            yield from ctx.schedule("3 ms")

    @Effect.gen
    def execute(self, ctx: TaskExecuteContext[Ledger] | ContinuousContext[Ledger]) -> Do[None]:
        began, number = next(self.stamps), next(self.numbers)
        before = yield from ctx.state
        assert before is not None
        yield from _pause(number)
        after = self.note((cast("Any", ctx.job_name), ctx.id), number, before, began, on_event=False)
        yield from ctx.set_state(after)

    @Effect.gen
    def collect(self, ctx: DebounceEventContext[int, Ledger]) -> Do[Ledger, Refused]:
        began = next(self.stamps)
        yield from _pause(ctx.event)
        if ctx.event % _FAILS == 0:
            yield from Effect.fail(Refused())
        return self.note(("basket", ctx.id), ctx.event, ctx.state, began, on_event=True)

    @Effect.gen
    def empty(self, ctx: DebounceExecuteContext[Ledger]) -> Do[None]:
        began, number = next(self.stamps), next(self.numbers)
        before = yield from ctx.state
        yield from _pause(number)
        self.note(("basket", ctx.id), number, before, began, on_event=False)

    def jobs(self, **limits: Any) -> Any:
        """Tasks with and without alarms of their own, a continuous job and a debounce job."""
        task = {"state_schema": Ledger, "event_schema": int, "logging": "none"}
        return create_durable_jobs(
            {
                "tape": Task.make(**task, on_event=self.on_event, execute=self.execute),
                "timed": Task.make(**task, on_event=self.on_event, execute=self.execute),
                "pulse": Continuous.make(
                    state_schema=Ledger,
                    schedule=Continuous.every("1 day"),
                    start_immediately=False,
                    logging="none",
                    execute=self.execute,
                ),
                "basket": Debounce.make(
                    event_schema=int,
                    state_schema=Ledger,
                    initial_state=lambda: Ledger.born(next(self.numbers)),
                    flush_after="1 day",
                    max_events=FILLED,
                    logging="none",
                    on_event=self.collect,
                    execute=self.empty,
                ),
            },
            tracker=Tracker(include_state=True),
            limits=Limits(**limits),
        )


def _pause(number: int) -> Effect[None]:
    """Handlers let others go on in their midst, in one way or another."""
    match number % 8:
        case 0 | 1 | 2:
            return Effect.yield_now()
        case 3 | 4:
            return Effect.from_async(_one_turn)
        case 5:
            return Effect.sleep("1 ms")
        case _:
            return Effect.void


async def _one_turn() -> None:
    """Asyncio work that takes one turn of the loop."""
    loop = asyncio.get_running_loop()
    turned = loop.create_future()
    loop.call_soon(lambda: turned.done() or turned.set_result(None))
    await turned


# -- callers ---------------------------------------------------------------------------------------

_OPERATIONS = {
    "tape": ("send", "send", "send", "trigger", "status", "get_state", "terminate"),
    "timed": ("send", "send", "send", "send", "status", "get_state", "terminate"),
    "pulse": ("start", "trigger", "trigger", "trigger", "status", "get_state", "terminate"),
    "basket": ("add", "add", "add", "add", "flush", "status", "get_state", "clear"),
}
JOBS = tuple(_OPERATIONS)
_HANDLES = {"tape": "task", "timed": "task", "pulse": "continuous", "basket": "debounce"}


class Caller:
    """Makes one call after the other, on dice of its own."""

    def __init__(
        self, world: World, seed: int, client: Callable[[], JobsClient], jobs: tuple[str, ...] = JOBS
    ) -> None:
        self._world = world
        self._jobs = jobs
        self._dice = Random.seeded(seed).source
        self._client = client

    async def make(self, number_of_calls: int, *, calls_off: bool = False) -> None:
        """So many calls; with ``calls_off`` one in fifty is given up in its midst."""
        dice = self._dice
        for _ in range(number_of_calls):
            job = dice.choice(self._jobs)
            call = self._call(job, dice.choice(IDS), dice.choice(_OPERATIONS[job]))
            if calls_off and dice.randrange(50) == 0:
                await self._give_up(call, dice.randrange(1, 12))
            else:
                await self.ask(call)

    def _call(self, job: Any, id: str, operation: str) -> Call:
        number = next(self._world.numbers)
        call = Call(number, (job, id), operation, next(self._world.stamps))
        if operation in ("send", "add") and self._dice.randrange(4) == 0:
            call.event_id = f"{job} {id} {self._dice.randrange(number // 40, number // 40 + 8)}"
        self._world.calls.append(call)
        return call

    async def ask(self, call: Call) -> None:
        """Make the call and write down the answer."""
        exit = await self._effect(call).run_async_exit()
        call.ended = next(self._world.stamps)
        _write_down(call, exit)

    async def _give_up(self, call: Call, turns: int) -> None:
        asking = asyncio.ensure_future(self._effect(call).run_async_exit())
        for _ in range(turns):
            await _one_turn()
        if not asking.done():
            asking.cancel()
        await asyncio.wait([asking])
        if not asking.cancelled():
            call.ended = next(self._world.stamps)
            _write_down(call, asking.result())

    def _effect(self, call: Call) -> Effect[Any, Any]:
        job, id = call.place
        handle: Any = getattr(self._client(), _HANDLES[job])(job)
        match call.operation:
            case "send" | "add":
                named = {"id": id, "event": call.number, "event_id": call.event_id}
                return cast("Effect[Any, Any]", getattr(handle, call.operation)(**named))
            case "start":
                return cast("Effect[Any, Any]", handle.start(id=id, input=Ledger.born(call.number)))
            case "terminate":
                return cast("Effect[Any, Any]", handle.terminate(id, str(call.number)))
            case _:
                return cast("Effect[Any, Any]", getattr(handle, call.operation)(id))


def _write_down(call: Call, exit: Exit[Any, Any]) -> None:
    call.told = repr(exit)
    if isinstance(exit, Success):
        call.outcome = "answered"
        _write_reply(call, exit.value)
        return
    error = exit.cause.squash()
    call.outcome = "refused"
    match error:
        case InstanceNotFoundError():
            call.outcome, call.absent = "answered", True
        case DuplicateEventError():
            call.repeated = True
        case InvalidStateError() if _never_began(call, error):
            pass
        case ExecutionError(cause=Refused()) | InstanceBusy():
            pass
        case InvalidStateError() if not _never_began(call, error):
            call.outcome, call.ended = "unknown", 1 << 62
        case StorageError():
            call.outcome, call.ended = "unknown", 1 << 62
        case _:
            raise error


def _never_began(call: Call, error: InvalidStateError) -> bool:
    """A run that was called off may be made up for later; all else that is refused has changed nothing."""
    return call.operation not in ("trigger", "flush") or error.actual == "the connection was closed"


def _write_reply(call: Call, reply: Any) -> None:
    match call.operation:
        case "get_state":
            call.saw, call.absent = reply.state, reply.state is None
        case "status":
            call.absent = reply.status == "not_found"
            if not call.absent:
                counted = ("run_count", "event_count", "execute_count")
                call.count = sum(getattr(reply, name, 0) for name in counted)
        case "terminate":
            call.absent = not reply.terminated
        case "clear":
            call.absent, call.count = not reply.cleared, reply.discarded_events
        case "flush":
            call.absent, call.count = reply.reason == "empty", reply.event_count
            if not reply.flushed and not call.absent:  # ended, or called off, in the midst of it
                call.outcome, call.ended = "unknown", 1 << 62
        case "add":
            call.created, call.count = reply.created, reply.event_count
            call.filled = reply.will_flush_at is None
        case "send" | "start":
            call.created = reply.created
        case _:
            call.absent = reply.terminated  # somebody ended it in the midst of the run


# -- a history -------------------------------------------------------------------------------------


@asynccontextmanager
async def sqlite(path: Path) -> Any:
    """A storage on a real file."""
    scope = await Scope.make()
    try:
        yield await scope.extend(SqliteStorage.open(path))
    finally:
        await scope.close(Success(None))


async def looks(world: World, client: JobsClient) -> None:
    """One last look at every instance, when all is quiet."""
    caller = Caller(world, 0, lambda: client)
    for job, id in itertools.product(_OPERATIONS, IDS):
        await caller.ask(caller._call(job, id, "get_state"))


async def all_at_once(
    world: World, client: Callable[[], JobsClient], calls: int, *, jobs: tuple[str, ...] = JOBS, **how: Any
) -> None:
    """Callers on this loop and on loops in other threads."""
    each = calls // (CALLERS + THREADS * IN_THREADS)
    seeds = itertools.count(1)
    callers = [Caller(world, next(seeds), client, jobs) for _ in range(CALLERS)]
    apart = [[Caller(world, next(seeds), client, jobs) for _ in range(IN_THREADS)] for _ in range(THREADS)]
    loop = asyncio.get_running_loop()

    def run(group: list[Caller]) -> None:
        asyncio.run(_together(group, each, how))

    threads = [loop.run_in_executor(None, run, group) for group in apart]
    await asyncio.gather(_together(callers, each, how), *threads)


async def _together(callers: list[Caller], each: int, how: dict[str, Any]) -> None:
    await asyncio.gather(*(caller.make(each, **how) for caller in callers))


async def facts(storage: Storage) -> list[Fact]:
    """Births and ends, as the outbox tells them in the order of their commits."""
    return [fact for event in await storage.pending_events(limit=1 << 40) for fact in _facts_of(event)]


def _facts_of(event: Any) -> Iterator[Fact]:
    place = (event.job, event.id)
    if isinstance(event, JobStarted):
        born = event.input["life"] if event.job == "pulse" else event.input
        yield Fact(place, True, born)
    elif isinstance(event, JobTerminated) and event.job != "basket":
        yield Fact(place, False, int(event.reason or 0))


def play(scene: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(scene())


def test_every_history_on_a_file_is_one_of_calls_one_at_a_time(
    tmp_path: Path, tier: int, report: Callable[..., None]
) -> None:
    """Tens of thousands of calls from tasks and threads on few instances: each has its place in one order."""
    world = World()

    async def scene() -> list[Fact]:
        async with sqlite(tmp_path / "jobs.db") as storage:
            async with world.jobs().connect(storage) as client:
                await all_at_once(world, lambda: client, 40_000 * tier)
                await looks(world, client)
            return await facts(storage)

    told = play(scene)
    assert check(world.calls, world.runs, told) == []
    # Only of flushes that a clear cut short is it not known what became of them.
    assert {call.operation for call in world.calls if call.outcome == "unknown"} <= {"flush"}
    report("histories", calls=len(world.calls), runs=len(world.runs), violations=0)


def test_histories_hold_across_connections_that_close_in_their_midst(
    tmp_path: Path, tier: int, report: Callable[..., None]
) -> None:
    """Connections are cut off and opened again, callers give up: still nothing is lost and nothing twice."""
    world = World()
    told: list[Fact] = []
    lives = 10

    async def life(enough: int, cut: bool) -> None:
        jobs = world.jobs(drain_timeout="1 ms", call_timeout="1 second")
        async with sqlite(tmp_path / "jobs.db") as storage:
            async with jobs.connect(storage) as client:
                calls = all_at_once(world, lambda: client, 10_000 * tier // lives, calls_off=True)
                calling = asyncio.ensure_future(calls)
                await _until(lambda: len(world.calls) >= enough)
            # The engine is gone, and with a cut the file is closed as well, while callers wait for answers.
            if not cut:
                await calling
        await calling

    async def finish() -> None:
        async with sqlite(tmp_path / "jobs.db") as storage:
            async with world.jobs().connect(storage) as client:
                await looks(world, client)
            told.extend(await facts(storage))

    for number in range(lives):
        enough = len(world.calls) + 500 * tier + 40 * number
        play(partial(life, enough, number == lives // 2))
    play(finish)
    assert check(world.calls, world.runs, told) == []
    unknown = sum(call.outcome == "unknown" for call in world.calls)
    report("histories with closings", calls=len(world.calls), closings=lives, unknown=unknown, violations=0)


def test_a_run_that_closing_called_off_is_not_acknowledged(tmp_path: Path) -> None:
    """A trigger whose run is still to be made up for when its connection has closed does not say it ran."""

    async def scene() -> tuple[Any, bytes | None]:
        begun, gate = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            begun.set()
            await gate.wait()

        task = Task.make(
            state_schema=int,
            event_schema=int,
            logging="none",
            on_event=lambda event, ctx: ctx.set_state(event),
            execute=lambda ctx: Effect.from_async(wait).and_then(ctx.set_state(2)),
        )
        jobs = create_durable_jobs({"task": task}, limits=Limits(drain_timeout="1 ms"))
        async with sqlite(tmp_path / "jobs.db") as storage:
            async with jobs.connect(storage) as client:
                await client.task(task).send(id="a", event=1)
                call = asyncio.ensure_future(client.task(task).trigger("a").run_async_exit())
                await begun.wait()
            gate.set()
            exit = await call
            return exit, (await storage.instances())[0].state

    exit, state = play(scene)
    assert isinstance(exit, Success) == (state == b"2")


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():
        await _one_turn()


def test_histories_hold_with_two_engines_on_one_storage(tmp_path: Path, tier: int) -> None:
    """Two connections that know nothing of each other share a storage: its fences keep the order."""
    world = World()
    told = play(lambda: two_engines(world, tmp_path, 4_000 * tier, lambda storage: storage))
    assert check(world.calls, world.runs, told) == []


async def two_engines(world: World, path: Path, calls: int, broken: Callable[[Any], Any]) -> list[Fact]:
    """Half of the callers use one engine, half another, on the same storage."""
    async with sqlite(path / "jobs.db") as storage:
        seen = broken(storage)
        jobs = world.jobs(call_timeout="2 seconds")
        async with jobs.connect(seen) as one, jobs.connect(seen) as other:
            clients = itertools.cycle((one, other))
            # Baskets are numbered in the order of their handlers, which two engines do not share.
            await all_at_once(world, lambda: next(clients), calls, jobs=("tape", "timed", "pulse"))
        async with world.jobs().connect(storage) as client:
            await looks(world, client)
        return await facts(storage)


# -- what the checker must not let through -------------------------------------------------------------


class _Broken:
    """A storage that does most things right."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._dice = Random.seeded(7).source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


class Careless(_Broken):
    """Writes without looking whether the record is still the one that was loaded."""

    def commit(self, commit: Commit) -> Effect[Any, Any]:
        return self._storage.load(commit.key).flat_map(
            lambda stored: self._storage.commit(attrs.evolve(commit, before=stored))
        )


class Stale(_Broken):
    """Now and then shows the record as it was a while ago."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self._earlier: dict[Key, Instance | None] = {}

    def load(self, key: Key) -> Effect[Instance | None, StorageError]:
        if self._dice.randrange(20) == 0 and key in self._earlier:
            return Effect.succeed(self._earlier[key])
        return self._storage.load(key).tap(lambda found: Effect.sync(lambda: self._keep(key, found)))

    def _keep(self, key: Key, found: Instance | None) -> None:
        if self._dice.randrange(4) == 0:
            self._earlier[key] = found


class Forgetful(_Broken):
    """Acknowledges one write in a hundred without doing it."""

    def commit(self, commit: Commit) -> Effect[Any, Any]:
        if self._dice.randrange(100):
            return self._storage.commit(commit)
        return Effect.succeed(0 if commit.before is None else commit.before.fence)


@pytest.mark.parametrize("broken", [Careless, Stale, Forgetful])
def test_a_broken_storage_is_found_out(tmp_path: Path, broken: Callable[[Any], Any]) -> None:
    """The checker tells a storage that loses updates, shows old records or forgets writes from a good one."""
    world = World()
    try:
        told = play(lambda: two_engines(world, tmp_path, 2_000, broken))
    except AssertionError:  # a handler or a caller was told what cannot be
        return
    assert check(world.calls, world.runs, told) != []


A_LIFE = Ledger.born(1)
ONE, TWO = A_LIFE.then(1), A_LIFE.then(1).then(2)
PLACE: Any = ("tape", "a")


def _sent(number: int, before: Ledger, began: int, ended: int) -> tuple[Call, Run]:
    created = before.count == 0
    call = Call(number, PLACE, "send", began, ended, "answered", created=created)
    return call, Run(PLACE, number, before, before.then(number), began + 1, began + 2, True)


def _history(*more: Call, second: Ledger = ONE) -> list[str]:
    """Two sends, one after the other, a last look, and whatever is added."""
    first, first_run = _sent(1, A_LIFE, 0, 10)
    then, then_run = _sent(2, second, 20, 30)
    look = Call(9, PLACE, "get_state", 100, 110, "answered", saw=TWO)
    return check([first, then, look, *more], [first_run, then_run], [Fact(PLACE, True, 1)])


def _read(saw: Ledger | None, began: int, ended: int) -> Call:
    return Call(5, PLACE, "get_state", began, ended, "answered", saw=saw, absent=saw is None)


@pytest.mark.parametrize(
    "read",
    [_read(ONE, 12, 15), _read(ONE, 12, 25), _read(TWO, 12, 25), _read(None, 0, 5), _read(ONE, 4, 25)],
    ids=["between", "beside", "early in the next", "before all", "beside both"],
)
def test_a_read_may_see_what_was_there_at_one_of_its_moments(read: Call) -> None:
    """Reads that overlap with a write may see the state before it or after it."""
    assert _history(read) == []


@pytest.mark.parametrize(
    "read",
    [_read(ONE, 31, 35), _read(TWO, 12, 18), _read(None, 11, 15), _read(ONE.then(7), 40, 50)],
    ids=["stale", "of the future", "of nothing", "never written"],
)
def test_a_read_of_another_time_is_found_out(read: Call) -> None:
    """Reads of what was replaced, of what is to come, and of what never was are violations."""
    assert _history(read) != []


@pytest.mark.parametrize(
    "call",
    [
        Call(3, PLACE, "send", 40, 50, "answered", created=False),
        Call(1, PLACE, "terminate", 40, 50, "answered"),
        Call(3, PLACE, "trigger", 40, 50, "answered"),
        Call(3, PLACE, "trigger", 40, 50, "answered", absent=True),
        Call(3, PLACE, "status", 40, 50, "answered", count=1),
        Call(3, PLACE, "send", 40, 50, "refused", event_id="e", repeated=True),
    ],
    ids=["send", "terminate", "trigger", "absence", "count", "repeat"],
)
def test_an_acknowledgement_of_nothing_is_found_out(call: Call) -> None:
    """Calls whose answers have no write behind them are violations."""
    assert _history(call) != []


def test_a_lost_update_is_found_out() -> None:
    """Two writes upon the same state are a violation."""
    assert _history(second=A_LIFE) != []

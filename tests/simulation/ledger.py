"""The workload of the simulation: jobs of all kinds that keep books, and clients that disturb them.

Events carry ids and are accumulated in state. Handlers write what they do into a log outside that no crash
touches. Two clients send the same events with the same ids, and retry until they know that they arrived.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from datetime import timedelta
from typing import Any

import attrs

from durable_effect import Backoff, Effect, Random, TypedError
from durable_effect_jobs import (
    Continuous,
    ContinuousContext,
    Debounce,
    DebounceEventContext,
    DebounceExecuteContext,
    JobsClient,
    Retry,
    Task,
    TaskEventContext,
    TaskExecuteContext,
    create_durable_jobs,
)
from durable_effect_jobs.errors import (
    DuplicateEventError,
    ExecutionError,
    InstanceBusy,
    InvalidStateError,
    Overloaded,
    StorageError,
)
from durable_effect_jobs.simulation.faults import Dice
from durable_effect_jobs.simulation.world import kill_process

Do = Generator[Any, Any, Any]

_AT_ONCE, _MOMENT, _LATER = timedelta(), timedelta(milliseconds=10), timedelta(milliseconds=400)


@attrs.frozen
class Entry:
    id: str
    act: str = ""


@attrs.frozen
class Ledger:
    ids: tuple[str, ...] = ()
    done: int = 0


@attrs.frozen
class Meter:
    count: int = 0


@attrs.frozen
class Unlucky(TypedError):
    run_key: str


@attrs.define(eq=False)
class Books:
    """The world outside: what handlers did, what clients were told, and how this seed behaves."""

    entries: tuple[tuple[str, str, Entry], ...] = ()
    failing: float = 0.0
    slow_ms: int = 0
    thinking_ms: int = 10
    began: Counter[str] = attrs.field(factory=Counter[str])
    """How often a run was begun, by ``run_key``."""
    ended: Counter[str] = attrs.field(factory=Counter[str])
    """How often its handler came to its end, well or not."""
    counted: Counter[str] = attrs.field(factory=Counter[str])
    """How many outcomes of it were committed."""
    acknowledged: dict[str, tuple[str, str]] = attrs.field(factory=dict[str, tuple[str, str]])
    refused: set[str] = attrs.field(factory=set[str])
    applied: dict[str, str] = attrs.field(factory=dict[str, str])
    """Event ids to the incarnation that took them."""
    gone: dict[str, str] = attrs.field(factory=dict[str, str])
    """Event ids to how they left: flushed, cleared, terminated or kept as a dead letter."""
    done: set[tuple[int, str]] = attrs.field(factory=set[tuple[int, str]])
    """What a client need not do again when it is started again."""
    clients: int = 0
    model: dict[str, Any] = attrs.field(factory=dict[str, Any])

    def settle(self, dice: Dice) -> None:
        """The first client that comes decides how this seed behaves."""
        if self.entries:
            return
        self.failing = dice.choice((0.0, 0.0, 0.0, 0.1, 0.4))
        self.slow_ms = dice.choice((0, 0, 5, 50, 300, 1_500))
        self.thinking_ms = dice.choice((1, 5, 20))
        acts = ("", "", "", "", "later", "cancel", "bad", "end")
        jobs = ("ledger", "ledger", "batch", "loose")
        self.entries = tuple(
            (
                job,
                f"{job[0]}{dice.randint(1, 2)}",
                Entry(f"e{n}", dice.choice(acts) if job == "ledger" else ""),
            )
            for n, job in enumerate(dice.choice(jobs) for _ in range(dice.choice((20, 60, 60, 100))))
        )

    def run(self, run_key: str, id: str) -> Do:
        """What every handler does: take its time, note what it did, now and then fail or take all with it."""
        self.began[run_key] += 1
        if self.slow_ms:
            part = yield from _dice()
            yield from Effect.sleep(timedelta(milliseconds=max(1, int(self.slow_ms * part))))
        if id == "poison":
            yield from kill_process()
        roll = yield from _dice()
        self.ended[run_key] += 1
        if roll < self.failing:
            yield from Effect.fail(Unlucky(run_key))


def _dice() -> Effect[float]:
    return Random.random()


_RETRY = Retry(max_attempts=3, delay=Backoff.exponential("20 millis", factor=3))


# -- the jobs


@Effect.gen
def take(event: Entry, ctx: TaskEventContext[Ledger]) -> Do:
    if event.act == "bad":
        yield from Effect.fail(Unlucky(event.id))
    state = (yield from ctx.state) or Ledger()
    yield from ctx.set_state(attrs.evolve(state, ids=(*state.ids, event.id)))
    if event.act == "end":
        yield from ctx.terminate("enough")
    if event.act == "cancel":
        yield from ctx.cancel_schedule()
    else:
        yield from ctx.schedule(_LATER if event.act == "later" else _AT_ONCE)


@Effect.gen
def settle(ctx: TaskExecuteContext[Ledger]) -> Do:
    books = yield from Effect.service(Books)
    yield from books.run(ctx.run_key, ctx.id)
    yield from ctx.update_state(lambda state: attrs.evolve(state, done=len(state.ids)))


ledger = Task.make(
    state_schema=Ledger,
    event_schema=Entry,
    on_event=take,
    execute=settle,
    retry=attrs.evolve(_RETRY, on_exhausted="stop"),
)


def collect(ctx: DebounceEventContext[Entry, Ledger]) -> Effect[Ledger]:
    return Effect.succeed(attrs.evolve(ctx.state, ids=(*ctx.state.ids, ctx.event.id)))


@Effect.gen
def flush(ctx: DebounceExecuteContext[Ledger]) -> Do:
    books = yield from Effect.service(Books)
    yield from books.run(ctx.run_key, ctx.id)


batch = Debounce.make(
    event_schema=Entry,
    state_schema=Ledger,
    initial_state=Ledger(),
    on_event=collect,
    execute=flush,
    flush_after="60 millis",
    max_events=4,
    retry=_RETRY,
)
loose = Debounce.make(
    event_schema=Entry,
    state_schema=Ledger,
    initial_state=Ledger(),
    on_event=collect,
    execute=flush,
    flush_after="40 millis",
    mode="trailing",
    max_wait="150 millis",
    max_events=6,
)


@Effect.gen
def tick(ctx: ContinuousContext[Meter]) -> Do:
    books = yield from Effect.service(Books)
    yield from books.run(ctx.run_key, ctx.id)
    yield from ctx.update_state(lambda meter: Meter(meter.count + 1))


meter = Continuous.make(
    state_schema=Meter, schedule=Continuous.every("120 millis"), execute=tick, retry=_RETRY
)
plain = Continuous.make(
    state_schema=Meter, schedule=Continuous.every("90 millis"), execute=tick, start_immediately=False
)

JOBS = {"ledger": ledger, "batch": batch, "loose": loose, "meter": meter, "plain": plain}
jobs = create_durable_jobs(JOBS)


# -- the clients

_AGAIN = (StorageError, InstanceBusy, Overloaded)


@Effect.gen
def patiently(call: Effect[Any, Any]) -> Do:
    """Ask until there is an answer that says something; a typed error of the call is an answer too."""
    while True:
        answer = yield from call.catch_all(Effect.succeed)
        if not isinstance(answer, _AGAIN):
            return answer
        yield from Effect.sleep(_MOMENT)


@Effect.gen
def send(client: JobsClient, books: Books, job: str, id: str, entry: Entry) -> Do:
    if job == "ledger":
        call: Any = client.task(ledger).send(id=id, event=entry, event_id=entry.id)
    else:
        call = client.debounce(job).add(id=id, event=entry, event_id=entry.id)
    answer = yield from patiently(call)
    while isinstance(answer, InvalidStateError) and job != "loose":  # which nobody ends but its own flush
        answer = yield from patiently(call)
    if entry.act == "bad":
        assert isinstance(answer, ExecutionError), answer
        return
    if isinstance(answer, ExecutionError):  # its own run failed; was the event kept?
        answer = yield from patiently(call)
        assert isinstance(answer, DuplicateEventError | ExecutionError), answer
    if isinstance(answer, ExecutionError):
        return
    assert not isinstance(answer, InvalidStateError), answer
    assert isinstance(answer, DuplicateEventError) or answer.instance_id.endswith(f":{id}"), answer
    assert entry.id in books.applied, f"{entry.id} was acknowledged and is nowhere: {answer}"
    books.acknowledged[entry.id] = (job, id)
    yield from look(client, books, job, id, entry)


@Effect.gen
def look(client: JobsClient, books: Books, job: str, id: str, entry: Entry) -> Do:
    """Read one's own write: it is there, or it was processed or ended since."""
    reads: Any = client.task(ledger) if job == "ledger" else client.debounce(job)
    seen = yield from patiently(reads.get_state(id))
    held = seen.state is not None and entry.id in seen.state.ids
    assert held or entry.id in books.gone, f"{entry.id} was acknowledged and cannot be read"


@Effect.gen
def unless_busy(call: Effect[Any, Any]) -> Do:
    """The same for a call that may be left: an instance whose runs follow each other lets nobody else in."""
    yield from patiently(call.catch_all(_left_if_busy))


def _left_if_busy(error: Any) -> Effect[None, Any]:
    return Effect.void if isinstance(error, InstanceBusy) else Effect.fail(error)


@Effect.gen
def disturb(client: JobsClient, dice: Dice) -> Do:
    """Any other call, to any instance. Its answer depends on who else was there."""
    match dice.randint(0, 13):
        case 0:
            yield from unless_busy(client.continuous(meter).start(id="m", input=Meter()))
        case 1:
            yield from unless_busy(client.continuous(plain).start(id="p", input=Meter()))
        case 2 | 3:
            job = dice.choice((meter, plain))
            yield from unless_busy(client.continuous(job).trigger("m" if job is meter else "p"))
        case 4:
            yield from unless_busy(client.task(ledger).trigger(f"l{dice.randint(1, 2)}"))
        case 5 | 6:
            job, id = dice.choice((("batch", "b1"), ("batch", "b2"), ("loose", "l1"), ("loose", "l2")))
            yield from unless_busy(client.debounce(job).flush(id))
        case 7:
            yield from unless_busy(client.debounce(batch).clear(f"b{dice.randint(1, 2)}"))
        case 8:
            yield from unless_busy(client.task(ledger).terminate(f"l{dice.randint(1, 2)}"))
        case 9:
            yield from unless_busy(client.continuous(meter).terminate("m"))
        case 10:
            yield from unless_busy(client.task(ledger).status(f"l{dice.randint(1, 2)}"))
        case 11:
            yield from unless_busy(client.continuous(meter).status("m"))
        case 12:
            yield from Effect.sleep(timedelta(milliseconds=dice.randint(50, 400)))
        case _:
            pass


@Effect.gen
def workload(client: JobsClient, dice: Dice) -> Do:
    books: Books = yield from Effect.service(Books)
    books.settle(dice)
    me = dice.randint(0, 1 << 60)
    for n, (job, id, entry) in enumerate(dice.sample(books.entries, len(books.entries))):
        if (me, entry.id) in books.done:
            continue
        yield from Effect.sleep(timedelta(milliseconds=1 + int(books.thinking_ms * dice.random())))
        quietly = dice.random() < 0.5
        if not quietly:
            yield from disturb(client, dice)
        yield from send(client, books, job, id, entry)
        books.done.add((me, entry.id))
        if n == 5 and dice.random() < 0.1:
            yield from patiently(
                client.task(ledger).send(id="poison", event=Entry(f"p{me}"), event_id=f"p{me}")
            )
    yield from end(client, books)


@Effect.gen
def end(client: JobsClient, books: Books) -> Do:
    """The last client to come here ends what would go on for ever."""
    yield from patiently(client.continuous(meter).terminate("m"))
    yield from patiently(client.continuous(plain).terminate("p"))


__all__ = ["JOBS", "Books", "Entry", "Ledger", "Meter", "jobs", "workload"]

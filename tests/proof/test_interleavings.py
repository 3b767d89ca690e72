"""Every order of six calls on one instance, with handlers that take their time: nothing lost, nothing twice.

A word such as ``aftac`` says what is asked, without waiting for answers: ``a`` adds an event, ``f`` flushes,
``c`` clears, and ``t`` lets 600 ms go by, where a handler takes a second. So calls come before a handler,
in its midst, and after it. All words of six letters are played, each on an instance of its own.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import attrs
import pytest

from durable_effect import Do, Effect, Exit, Fiber, Success, TypedError
from durable_effect_jobs import (
    Continuous,
    ContinuousContext,
    Debounce,
    DebounceEventContext,
    DebounceExecuteContext,
    Retry,
    Task,
    TaskEventContext,
    TaskExecuteContext,
    create_durable_jobs,
)
from durable_effect_jobs.errors import ExecutionError, InstanceNotFoundError, InvalidStateError
from durable_effect_jobs.events import DebounceFlushed, JobTerminated
from durable_effect_jobs.instance import Commit
from durable_effect_jobs.storage.memory import MemoryStorage
from durable_effect_jobs.testing import JobsTestKit

TICK, RUN, WINDOW = "600 ms", "1 second", "20 seconds"
_AT_ONCE = 256
_RAN = -1
"""What a run of ``execute`` leaves in the state."""


@attrs.frozen
class Unwilling(TypedError):
    """The flush did not work."""


@attrs.define
class Asked:
    """A call of a word, and what came of it."""

    letter: str
    number: int
    began: int
    fiber: Fiber[Any, Any]
    ended: int = -1

    @property
    def exit(self) -> Exit[Any, Any]:
        assert self.fiber.exit is not None
        return self.fiber.exit

    @property
    def reply(self) -> Any:
        """The answer, or the error of a call whose own run failed."""
        return self.exit.value if isinstance(self.exit, Success) else self.exit.cause.squash()


Ask: TypeAlias = Callable[[Any, str, str, int], Effect[Any, Any]]


def words(letters: str) -> list[str]:
    """All words of six letters."""
    return ["".join(word) for word in itertools.product(letters, repeat=6)]


class Play:
    """Plays words, many at once, each on an instance that bears its name."""

    def __init__(self, kit: JobsTestKit, ask: Ask) -> None:
        self.kit = kit
        self._ask = ask
        self._stamps = itertools.count()

    def all(self, some: list[str]) -> dict[str, list[Asked]]:
        """What was asked and answered, by word."""
        played = self.kit.run(Effect.for_each(some, self._word, concurrency="unbounded"))
        return dict(zip(some, played, strict=True))

    @Effect.gen
    def _word(self, word: str) -> Do[list[Asked]]:
        asked: list[Asked] = []
        for number, letter in enumerate(word):
            if letter == "t":
                yield from Effect.sleep(TICK)
                continue
            call = self._ask(self.kit.client, letter, word, number)
            began = next(self._stamps)
            asked.append(Asked(letter, number, began, (yield from call.fork_detach())))
            yield from Effect.yield_now()
        for one in asked:
            yield from one.fiber.await_()
        return asked


def in_parts(some: list[str]) -> Iterator[list[str]]:
    """As many words as are played at once."""
    return (some[at : at + _AT_ONCE] for at in range(0, len(some), _AT_ONCE))


# -- debounce --------------------------------------------------------------------------------------


class Batches:
    """A debounce job whose flushes take a second, and what they saw."""

    def __init__(self, fails: Callable[[int], bool], retry: Retry | None, max_events: int | None) -> None:
        self.seen: defaultdict[str, list[list[int]]] = defaultdict(list)
        self._fails = fails
        self._attempts: defaultdict[str, int] = defaultdict(int)
        self.jobs = create_durable_jobs(
            {
                "batch": Debounce.make(
                    event_schema=int,
                    state_schema=list[int],
                    initial_state=list,
                    flush_after=WINDOW,
                    max_events=max_events,
                    retry=retry,
                    logging="none",
                    on_event=self._collect,
                    execute=self._flush,
                )
            }
        )

    @Effect.gen
    def _collect(self, ctx: DebounceEventContext[int, list[int]]) -> Do[list[int]]:
        yield from Effect.yield_now()
        return [*ctx.state, ctx.event]

    @Effect.gen
    def _flush(self, ctx: DebounceExecuteContext[list[int]]) -> Do[None, Unwilling]:
        events = yield from ctx.state
        yield from Effect.sleep(RUN)
        self._attempts[ctx.id] += 1
        if self._fails(self._attempts[ctx.id]):
            yield from Effect.fail(Unwilling())
        self.seen[ctx.id].append(events)

    @staticmethod
    def ask(client: Any, letter: str, word: str, number: int) -> Effect[Any, Any]:
        batch = client.debounce("batch")
        match letter:
            case "a":
                return batch.add(id=word, event=number)  # type: ignore[no-any-return]
            case "f":
                return batch.flush(word)  # type: ignore[no-any-return]
            case _:
                return batch.clear(word)  # type: ignore[no-any-return]


def _problem(
    word: str, asked: list[Asked], kit: JobsTestKit, batches: Batches, facts: list[Any]
) -> str | None:
    """What is wrong with a word that was played to its end; ``facts`` are its events, in order."""
    waiting: list[int] = []
    for one in asked:
        if one.letter != "a":
            continue
        if isinstance(one.reply, InvalidStateError):
            continue  # a clear came while its handler ran: it is not kept
        if not isinstance(one.exit, Success) and not isinstance(one.reply, ExecutionError):
            return f"add {one.number} answered {one.reply!r}"
        waiting.append(one.number)  # also if the flush that it set off failed: the event is kept
    flushed, cleared = (
        iter(batches.seen[word]),
        [one.reply.discarded_events for one in asked if one.letter == "c" and one.reply.cleared],
    )
    dead = kit.run(kit.storage.dead_letters(limit=1 << 30))
    letters = iter([letter for letter in dead if letter.instance.key.id == word])
    for fact in facts:
        if isinstance(fact, DebounceFlushed):
            batch, waiting = waiting[: fact.event_count], waiting[fact.event_count :]
            if all(batch != seen for seen in flushed):
                return f"a flush committed {batch}, handlers saw {batches.seen[word]}"
        elif isinstance(fact, JobTerminated) and fact.reason == "cleared":
            waiting = waiting[cleared.pop(0) :]
        elif isinstance(fact, JobTerminated):
            letter = next(letters, None)
            if letter is None:
                return "retries were exhausted and no dead letter is there"
            kept = letter.instance.state
            batch, waiting = waiting[: letter.instance.event_count], waiting[letter.instance.event_count :]
            if kept != str(batch).replace(" ", "").encode():
                return f"the dead letter holds {kept!r} and not {batch}"
    if cleared:
        return f"clears told of {cleared} that the outbox does not know"
    if waiting:
        return f"{waiting} went nowhere"
    status = kit.run(kit.client.debounce("batch").status(word))
    return None if status.status == "not_found" else f"still there: {status}"


@pytest.mark.parametrize(
    ("fails", "retry", "max_events"),
    [
        (lambda attempt: False, None, None),
        (lambda attempt: False, None, 3),
        (lambda attempt: attempt == 1, None, 3),
        (lambda attempt: attempt == 1, Retry(max_attempts=2, delay="700 ms", jitter=False), None),
        (lambda attempt: attempt <= 2, Retry(max_attempts=2, delay="700 ms", jitter=False), 3),
    ],
    ids=["works", "works, fills", "fails once", "fails once, retried", "fails until exhausted"],
)
def test_every_order_of_add_flush_and_clear_loses_no_event(
    fails: Callable[[int], bool], retry: Retry | None, max_events: int | None, report: Callable[..., None]
) -> None:
    """Each accepted event is flushed once, or cleared, or in a dead letter, and none is left behind."""
    wrong: dict[str, str] = {}
    for some in in_parts(words("afct")):
        batches = Batches(fails, retry, max_events)
        with JobsTestKit(batches.jobs) as kit:
            played = Play(kit, batches.ask).all(some)
            kit.advance("10 minutes")  # what nobody flushes flushes itself
            facts: defaultdict[str, list[Any]] = defaultdict(list)
            for event in kit.events:
                facts[event.id].append(event)
            for word, asked in played.items():
                problem = _problem(word, asked, kit, batches, facts[word])
                if problem is not None:
                    wrong[word] = problem
    assert wrong == {}
    report("orders of add, flush and clear", words=4**6)


class Careless(MemoryStorage):
    """Writes without looking whether the record is still the one that was loaded."""

    def commit(self, commit: Commit) -> Effect[Any, Any]:
        write = super().commit
        return self.load(commit.key).flat_map(lambda stored: write(attrs.evolve(commit, before=stored)))


def test_a_storage_that_resurrects_what_was_cleared_is_found_out() -> None:
    """With a storage that does not compare, some order brings back what a clear had ended."""
    wrong: list[str] = []
    some = [word for word in words("afct") if word.startswith("at") and word.count("c") == 1][:_AT_ONCE]
    batches = Batches(lambda attempt: False, None, None)
    with JobsTestKit(batches.jobs, storage=Careless()) as kit:
        played = Play(kit, batches.ask).all(some)
        kit.advance("10 minutes")
        for word, asked in played.items():
            facts = [event for event in kit.events if event.id == word]
            wrong.extend([word] if _problem(word, asked, kit, batches, facts) else [])
    assert wrong != []


# -- tasks and continuous jobs ---------------------------------------------------------------------


@Effect.gen
def _on_event(event: int, ctx: TaskEventContext[list[int]]) -> Do[None]:
    known = (yield from ctx.state) or []
    yield from Effect.sleep(RUN)
    yield from ctx.set_state([*known, event])


@Effect.gen
def _execute(ctx: TaskExecuteContext[list[int]] | ContinuousContext[list[int]]) -> Do[None]:
    known = yield from ctx.state
    yield from Effect.sleep(RUN)
    yield from ctx.set_state([*(known or []), _RAN])


def _slow_jobs() -> Any:
    return create_durable_jobs(
        {
            "task": Task.make(
                state_schema=list[int], event_schema=int, logging="none", on_event=_on_event, execute=_execute
            ),
            "pulse": Continuous.make(
                state_schema=list[int],
                schedule=Continuous.every("1 day"),
                start_immediately=False,
                logging="none",
                execute=_execute,
            ),
        }
    )


def _ask_task(client: Any, letter: str, word: str, number: int) -> Effect[Any, Any]:
    return _ask(client.task("task"), letter, word, number)


def _ask_pulse(client: Any, letter: str, word: str, number: int) -> Effect[Any, Any]:
    return _ask(client.continuous("pulse"), letter, word, number)


def _ask(handle: Any, letter: str, word: str, number: int) -> Effect[Any, Any]:
    match letter:
        case "s":
            return handle.send(id=word, event=number)  # type: ignore[no-any-return]
        case "b":
            return handle.start(id=word, input=[number])  # type: ignore[no-any-return]
        case "g":
            return handle.trigger(word)  # type: ignore[no-any-return]
        case _:
            return handle.terminate(word)  # type: ignore[no-any-return]


def _state_problem(word: str, asked: list[Asked], state: list[int] | None) -> str | None:
    """The state holds what was acknowledged since the last termination, in order, and no more."""
    done: list[tuple[int, int]] = []
    ended_at = -1
    for one in asked:
        if not isinstance(one.exit, Success):
            if not isinstance(one.reply, InstanceNotFoundError | InvalidStateError):
                return f"{one.letter} {one.number} answered {one.reply!r}"
        elif one.letter == "x":
            ended_at = one.began if one.reply.terminated else ended_at
        elif one.letter != "b" or one.reply.created:
            done.append((one.began, _RAN if one.letter == "g" else one.number))
    found = state or []
    known = [value for _, value in done]
    if found != known[len(known) - len(found) :]:
        return f"the state is {state} after {known}"
    since = sum(began > ended_at for began, _ in done)
    return None if len(found) >= since else f"the state is {state}, and {since} of {known} came since the end"


@pytest.mark.parametrize(
    ("letters", "ask"), [("sgxt", _ask_task), ("bgxt", _ask_pulse)], ids=["task", "continuous"]
)
def test_every_order_of_events_runs_and_terminations_loses_no_update(
    letters: str, ask: Ask, report: Callable[..., None]
) -> None:
    """What was acknowledged is in the state unless the instance was ended since; what ended stays ended."""
    wrong: dict[str, str] = {}
    for some in in_parts(words(letters)):
        with JobsTestKit(_slow_jobs()) as kit:
            played = Play(kit, ask).all(some)
            kit.advance("1 hour")
            for word, asked in played.items():
                handle: Any = kit.client.task("task") if "s" in letters else kit.client.continuous("pulse")
                problem = _state_problem(word, asked, kit.run(handle.get_state(word)).state)
                if problem is not None:
                    wrong[word] = problem
    assert wrong == {}
    report(f"orders of {letters}", words=4**6)

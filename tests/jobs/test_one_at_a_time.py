"""One step at a time per instance, others at the same time, reads at any time, and no call to oneself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable_effect import Clock, Do, Effect, catch
from durable_effect_jobs import (
    Continuous,
    ContinuousContext,
    Debounce,
    DebounceExecuteContext,
    Task,
    TaskEventContext,
    TaskExecuteContext,
    create_durable_jobs,
)
from durable_effect_jobs.errors import DuplicateEventError, ExecutionError, InvalidStateError
from durable_effect_jobs.testing import JobsTestKit

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@attrs.frozen
class Word:
    text: str


@attrs.frozen
class Words:
    said: list[str] = attrs.field(factory=list)


OpenKit = Callable[..., JobsTestKit]


@pytest.fixture
def open_kit() -> Iterator[OpenKit]:
    """Opens a kit of the given jobs at noon."""
    with ExitStack() as stack:

        def open_one(**jobs: Any) -> JobsTestKit:
            return stack.enter_context(JobsTestKit(create_durable_jobs(jobs), now=NOON))

        yield open_one


@Effect.gen
def together(*calls: Effect[Any, Any]) -> Do[list[Any], Any]:
    """Begins all calls in their order, then waits for all of them."""
    fibers = []
    for call in calls:
        fibers.append((yield from Effect.fork(call)))
    results = []
    for fiber in fibers:
        results.append((yield from fiber.join()))
    return results


class Speaker:
    """A task that takes ten seconds to hear a word and ten to run, and notes when it begins and ends."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.job = Task.make(state_schema=Words, event_schema=Word, on_event=self.hear, execute=self.repeat)

    @Effect.gen
    def hear(self, event: Word, ctx: TaskEventContext[Words]) -> Do[None]:
        self.log.append(f"{ctx.id} begins {event.text}")
        before = yield from ctx.state
        yield from Effect.sleep("10 seconds")
        yield from ctx.set_state(Words([*(before.said if before else []), event.text]))
        self.log.append(f"{ctx.id} ends {event.text}")

    @Effect.gen
    def repeat(self, ctx: TaskExecuteContext[Words]) -> Do[None]:
        self.log.append(f"{ctx.id} begins to run")
        yield from Effect.sleep("10 seconds")
        yield from ctx.update_state(lambda words: Words([*words.said, "ran"]))
        self.log.append(f"{ctx.id} ends to run")


@pytest.fixture
def speaker() -> Speaker:
    """The slow task."""
    return Speaker()


def say(kit: JobsTestKit, text: str, key: str = "s1") -> Any:
    return kit.client.task("speaker").send(id=key, event=Word(text))


def said(kit: JobsTestKit, key: str = "s1") -> list[str]:
    return kit.run(kit.client.task("speaker").get_state(key)).state.said


def test_steps_of_one_instance_follow_each_other(open_kit: OpenKit, speaker: Speaker) -> None:
    """Two events at the same time are handled one after the other, in the order they came."""
    kit = open_kit(speaker=speaker.job)

    kit.run(together(say(kit, "a"), say(kit, "b"), say(kit, "c")))

    assert speaker.log == [
        "s1 begins a",
        "s1 ends a",
        "s1 begins b",
        "s1 ends b",
        "s1 begins c",
        "s1 ends c",
    ]
    assert kit.now == NOON + timedelta(seconds=30)


def test_no_update_is_lost_between_steps(open_kit: OpenKit, speaker: Speaker) -> None:
    """A handler that reads, waits and writes does not overwrite another's work."""
    kit = open_kit(speaker=speaker.job)

    results = kit.run(together(say(kit, "a"), say(kit, "b"), kit.client.task("speaker").trigger("s1")))

    assert [results[0].created, results[1].created] == [True, False]
    assert said(kit) == ["a", "b", "ran"]
    assert kit.run(kit.client.task("speaker").status("s1")).event_count == 2


def test_different_instances_step_at_the_same_time(open_kit: OpenKit, speaker: Speaker) -> None:
    """Handlers of two ids overlap; together they take as long as one."""
    kit = open_kit(speaker=speaker.job)

    kit.run(together(say(kit, "a", "s1"), say(kit, "b", "s2")))

    assert speaker.log == ["s1 begins a", "s2 begins b", "s1 ends a", "s2 ends b"]
    assert kit.now == NOON + timedelta(seconds=10)


def test_a_terminate_of_what_is_about_to_begin_waits_for_its_turn(
    open_kit: OpenKit, speaker: Speaker
) -> None:
    """A termination that comes during the first handler leaves nothing of the handler's work behind."""
    kit = open_kit(speaker=speaker.job)

    _, ended = kit.run(together(say(kit, "a"), kit.client.task("speaker").terminate("s1")))

    assert ended.terminated is True
    assert kit.run(kit.client.task("speaker").status("s1")).status == "not_found"
    kit.advance("1 hour")
    assert kit.run(kit.client.task("speaker").status("s1")).status == "not_found"


def test_a_terminate_waits_for_no_handler(open_kit: OpenKit, speaker: Speaker) -> None:
    """An instance that is ended while a handler works on an event is gone at once, and stays gone."""
    kit = open_kit(speaker=speaker.job)
    kit.run(say(kit, "a"))
    began = kit.now

    @Effect.gen
    def end() -> Do[datetime, Any]:
        ended = yield from kit.client.task("speaker").terminate("s1")
        assert ended.terminated is True
        return (yield from Clock.now())

    refused, ended_at = kit.run(together(say(kit, "b").flip(), end()))

    assert ended_at == began
    assert "was ended while its handler ran" in str(refused)
    assert kit.run(kit.client.task("speaker").status("s1")).status == "not_found"


def test_reads_do_not_wait_for_a_handler(open_kit: OpenKit, speaker: Speaker) -> None:
    """While a handler runs, status and state answer at once, from the last commit."""
    kit = open_kit(speaker=speaker.job)
    kit.run(say(kit, "a"))
    began = kit.now
    seen: list[tuple[datetime, int, list[str]]] = []

    @Effect.gen
    def look() -> Do[None, Any]:
        yield from Effect.sleep("1 second")
        status = yield from kit.client.task("speaker").status("s1")
        got = yield from kit.client.task("speaker").get_state("s1")
        seen.append((kit.now, status.event_count, got.state.said))

    kit.run(together(say(kit, "b"), look()))

    assert seen == [(began + timedelta(seconds=1), 1, ["a"])]
    assert said(kit) == ["a", "b"]


def test_a_read_during_the_first_step_finds_nothing(open_kit: OpenKit, speaker: Speaker) -> None:
    """Before its first commit an instance does not exist."""
    kit = open_kit(speaker=speaker.job)
    seen: list[str] = []

    @Effect.gen
    def look() -> Do[None, Any]:
        yield from Effect.sleep("1 second")
        status = yield from kit.client.task("speaker").status("s1")
        seen.append(status.status)

    kit.run(together(say(kit, "a"), look()))

    assert seen == ["not_found"]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(min_value=0, max_value=3)), max_size=12)
)
def test_concurrent_events_are_all_kept_in_their_order(story: list[tuple[str, int]]) -> None:
    """However long each handler takes, every instance has all of its events, in the order they came."""

    @Effect.gen
    def hear(event: Word, ctx: TaskEventContext[Words]) -> Do[None]:
        before = yield from ctx.state
        number, seconds = event.text.split()
        yield from Effect.sleep(f"{seconds} seconds")
        yield from ctx.set_state(Words([*(before.said if before else []), number]))

    speaker = Task.make(state_schema=Words, event_schema=Word, on_event=hear, execute=lambda ctx: Effect.void)
    with JobsTestKit(create_durable_jobs({"speaker": speaker}), now=NOON) as kit:
        calls = [say(kit, f"{number} {seconds}", key) for number, (key, seconds) in enumerate(story)]
        kit.run(together(*calls))
        kit.restart()
        for key in {key for key, _ in story}:
            assert said(kit, key) == [str(number) for number, (to, _) in enumerate(story) if to == key]


def test_one_of_two_equal_events_at_the_same_time_is_the_repeat(open_kit: OpenKit, speaker: Speaker) -> None:
    """Two callers that send the same event id together: one is handled, the other is told."""
    kit = open_kit(speaker=speaker.job)

    def send() -> Effect[str, Any]:
        call = kit.client.task("speaker").send(id="s1", event=Word("a"), event_id="e1")
        return call.map(lambda _: "handled").pipe(
            catch(DuplicateEventError, lambda _: Effect.succeed("repeat"))
        )

    assert kit.run(together(send(), send())) == ["handled", "repeat"]
    assert said(kit) == ["a"]


# -- handlers that call the client -------------------------------------------------------------------


class Caller:
    """A task whose event handler makes a call of the client and notes the answer or the refusal."""

    def __init__(self, call: Callable[[JobsTestKit], Effect[Any, Any]]) -> None:
        self.kit: JobsTestKit
        self.call = call
        self.answers: list[Any] = []
        self.refusals: list[InvalidStateError] = []
        self.job = Task.make(
            state_schema=Words, event_schema=Word, on_event=self.on_event, execute=lambda ctx: Effect.void
        )

    @Effect.gen
    def on_event(self, event: Word, ctx: TaskEventContext[Words]) -> Do[None, Any]:
        yield from ctx.set_state(Words([event.text]))
        if event.text == "call":
            yield from (
                self.call(self.kit)
                .map(self.answers.append)
                .pipe(
                    catch(InvalidStateError, lambda error: Effect.sync(lambda: self.refusals.append(error)))
                )
            )


def open_caller(open_kit: OpenKit, call: Callable[[JobsTestKit], Effect[Any, Any]]) -> tuple[Any, Caller]:
    caller = Caller(call)
    caller.kit = open_kit(caller=caller.job)
    return caller.kit, caller


@pytest.mark.parametrize(
    "call",
    [
        lambda kit: kit.client.task("caller").send(id="c1", event=Word("again")),
        lambda kit: kit.client.task("caller").trigger("c1"),
        lambda kit: kit.client.task("caller").terminate("c1"),
    ],
    ids=["send", "trigger", "terminate"],
)
def test_a_handler_that_would_change_its_own_instance_is_refused(open_kit: OpenKit, call: Any) -> None:
    """A call to oneself is an error, not a deadlock; the handler may go on."""
    kit, caller = open_caller(open_kit, call)

    kit.run(kit.client.task("caller").send(id="c1", event=Word("call")))

    (refusal,) = caller.refusals
    assert isinstance(refusal.operation, str)
    assert caller.answers == []
    assert kit.run(kit.client.task("caller").get_state("c1")).state == Words(["call"])


def test_a_refused_call_to_oneself_fails_a_handler_that_lets_it(open_kit: OpenKit) -> None:
    """A handler that does not catch the refusal fails with it."""
    kits: list[JobsTestKit] = []

    def on_event(event: Word, ctx: TaskEventContext[Words]) -> Effect[Any, Any]:
        return kits[0].client.task("caller").trigger("c1")

    caller = Task.make(
        state_schema=Words, event_schema=Word, on_event=on_event, execute=lambda ctx: Effect.void
    )
    kits.append(open_kit(caller=caller))

    with pytest.raises(ExecutionError) as caught:
        kits[0].run(kits[0].client.task(caller).send(id="c1", event=Word("call")))

    assert "InvalidStateError" in repr(caught.value.cause)


def test_a_continuous_handler_cannot_call_itself(open_kit: OpenKit) -> None:
    """A run cannot trigger, start or terminate its own instance through the client."""
    refused: list[str] = []
    kits: list[JobsTestKit] = []

    @Effect.gen
    def tick(ctx: ContinuousContext[Words]) -> Do[None, Any]:
        client = kits[0].client.continuous("clock")
        for name, call in [
            ("trigger", client.trigger(ctx.id)),
            ("terminate", client.terminate(ctx.id)),
        ]:
            yield from call.map(lambda _: None).pipe(
                catch(InvalidStateError, lambda _, name=name: Effect.sync(lambda: refused.append(name)))
            )

    clock = Continuous.make(state_schema=Words, schedule=Continuous.every("1 hour"), execute=tick)
    kits.append(open_kit(clock=clock))

    kits[0].run(kits[0].client.continuous(clock).start(id="c1", input=Words()))

    assert refused == ["trigger", "terminate"]
    assert kits[0].run(kits[0].client.continuous(clock).status("c1")).run_count == 1


def test_a_flush_cannot_call_its_own_batch(open_kit: OpenKit) -> None:
    """A flush cannot add to, flush or clear the batch that it is flushing."""
    refused: list[str] = []
    kits: list[JobsTestKit] = []

    @Effect.gen
    def flush(ctx: DebounceExecuteContext[Word]) -> Do[None, Any]:
        client = kits[0].client.debounce("batcher")
        for name, call in [
            ("add", client.add(id=ctx.id, event=Word("more"))),
            ("flush", client.flush(ctx.id)),
            ("clear", client.clear(ctx.id)),
        ]:
            yield from call.map(lambda _: None).pipe(
                catch(InvalidStateError, lambda _, name=name: Effect.sync(lambda: refused.append(name)))
            )

    batcher = Debounce.make(event_schema=Word, flush_after="5 seconds", execute=flush)
    kits.append(open_kit(batcher=batcher))
    kits[0].run(kits[0].client.debounce(batcher).add(id="c1", event=Word("a")))

    kits[0].advance("5 seconds")

    assert refused == ["add", "flush", "clear"]
    assert kits[0].run(kits[0].client.debounce(batcher).status("c1")).status == "not_found"


def test_a_handler_may_read_its_own_instance(open_kit: OpenKit) -> None:
    """A read of oneself answers from the last commit, not from the step at hand."""
    kit, caller = open_caller(open_kit, lambda kit: kit.client.task("caller").get_state("c1"))
    kit.run(kit.client.task("caller").send(id="c1", event=Word("before")))

    kit.run(kit.client.task("caller").send(id="c1", event=Word("call")))

    assert [answer.state for answer in caller.answers] == [Words(["before"])]
    assert caller.refusals == []


def test_a_handler_may_read_its_own_status(open_kit: OpenKit) -> None:
    """In its first step an instance is not there yet, not even for itself."""
    kit, caller = open_caller(open_kit, lambda kit: kit.client.task("caller").status("c1"))

    kit.run(kit.client.task("caller").send(id="c1", event=Word("call")))

    assert [answer.status for answer in caller.answers] == ["not_found"]


def test_a_handler_may_call_another_instance(open_kit: OpenKit) -> None:
    """Another id of the same job is another instance."""
    kit, caller = open_caller(
        open_kit, lambda kit: kit.client.task("caller").send(id="c2", event=Word("hello"))
    )

    kit.run(kit.client.task("caller").send(id="c1", event=Word("call")))

    assert [answer.created for answer in caller.answers] == [True]
    assert caller.refusals == []
    assert kit.run(kit.client.task("caller").get_state("c2")).state == Words(["hello"])


def test_a_fork_of_a_handler_is_still_the_handler(open_kit: OpenKit) -> None:
    """A fiber that a handler waits for cannot change the handler's instance either."""

    def forked(kit: JobsTestKit) -> Effect[Any, Any]:
        return Effect.fork(kit.client.task("caller").trigger("c1")).flat_map(lambda fiber: fiber.join())

    kit, caller = open_caller(open_kit, forked)

    kit.run(kit.client.task("caller").send(id="c1", event=Word("call")))

    assert len(caller.refusals) == 1


def test_a_coroutine_of_a_handler_is_still_the_handler(open_kit: OpenKit) -> None:
    """Neither can a coroutine that the handler runs and that awaits a call."""
    refused: list[str] = []

    def awaited(kit: JobsTestKit) -> Effect[Any, Any]:
        async def trigger() -> None:
            try:
                await kit.client.task("caller").trigger("c1")
            except InvalidStateError as refusal:
                refused.append(refusal.operation)

        return Effect.from_async(trigger)

    kit, _ = open_caller(open_kit, awaited)

    kit.run(kit.client.task("caller").send(id="c1", event=Word("call")))

    assert refused == ["trigger"]


def test_a_call_that_comes_round_to_its_own_instance_is_refused(open_kit: OpenKit) -> None:
    """A handler whose call makes another handler call back waits for itself: refused, not a deadlock."""
    kits: list[JobsTestKit] = []

    def calls(name: str) -> Any:
        return Task.make(
            state_schema=Words,
            event_schema=Word,
            on_event=lambda event, ctx: kits[0].client.task(name).send(id="c1", event=event),
            execute=lambda ctx: Effect.void,
        )

    kits.append(open_kit(ping=calls("pong"), pong=calls("ping")))

    with pytest.raises(ExecutionError) as caught:
        kits[0].run(kits[0].client.task("ping").send(id="c1", event=Word("hello")))

    assert "InvalidStateError" in repr(caught.value.cause)
    for name in ["ping", "pong"]:
        assert kits[0].run(kits[0].client.task(name).status("c1")).status == "not_found"

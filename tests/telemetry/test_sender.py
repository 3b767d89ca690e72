"""The sender, on virtual time: what it sends when, in which order, and what it does when that fails."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telemetry_scene import (
    NOON,
    Connected,
    Sending,
    Told,
    first_arrivals,
    names,
    pending,
    report,
    with_events,
)

from durable_effect import Effect, Scope, Success
from durable_effect.testing import TestRuntime
from durable_effect_jobs import Continuous, ContinuousContext, StorageError, Tracker, create_durable_jobs
from durable_effect_jobs.events import Event
from durable_effect_jobs.storage.memory import MemoryStorage
from durable_effect_jobs.telemetry import SendError, start_sender

LATER = Effect.fail(SendError("not now", retryable=True))
NEVER = Effect.fail(SendError("never", retryable=False))
TOO_LARGE = Effect.fail(SendError("too large", retryable=False, too_large=True))


def sending(told: Told, storage: MemoryStorage, size: int = 100) -> Sending:
    """A sender to this sink."""
    return Sending(storage, told.runtime, Effect.succeed(told), size)


def test_a_backlog_goes_out_in_full_batches_oldest_first(runtime: TestRuntime) -> None:
    """Full batches follow each other without a pause."""
    told = Told(runtime)
    storage = with_events(250)
    sending(told, storage)
    assert [len(batch) for batch in told.batches] == [100, 100, 50]
    assert told.sent == names(*range(250))
    assert told.at == [0, 0, 0]
    assert pending(storage) == []


def test_new_events_are_gathered_for_a_second(runtime: TestRuntime) -> None:
    """What comes after a batch that was not full goes out together, one second later."""
    told = Told(runtime)
    storage = with_events(1)
    sending(told, storage)
    report(storage, [1])
    runtime.advance("500 ms")
    report(storage, [2])
    runtime.advance("500 ms")
    assert told.batches == [names(0), names(1, 2)]
    assert told.at == [0, 1]


def test_only_what_was_delivered_is_removed(runtime: TestRuntime) -> None:
    """Events that are committed while a batch is under way stay, and are sent next."""
    storage = with_events(2)
    told = Told(runtime, Effect.sync(lambda: report(storage, [2, 3])))
    sending(told, storage)
    assert told.batches == [names(0, 1)]
    assert pending(storage) == names(2, 3)
    runtime.advance("1 second")
    assert told.batches == [names(0, 1), names(2, 3)]


def test_failures_are_followed_by_longer_and_longer_waits(runtime: TestRuntime) -> None:
    """About 1, 2, 4 ... seconds, never more than a minute; the same events come each time."""
    told = Told(runtime, *[LATER] * 12)
    storage = with_events(3)
    sending(told, storage)
    runtime.advance("15 minutes")
    waits = [round(after - before, 6) for before, after in pairwise(told.at)]
    expected = [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60]
    assert len(waits) == 12
    assert all(0.9 * span <= wait <= min(1.1 * span, 60) for span, wait in zip(expected, waits, strict=True))
    assert told.batches == [names(0, 1, 2)] * 13
    assert pending(storage) == []


def test_after_a_success_waits_are_short_again(
    runtime: TestRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    """Failures are counted from the last success; the log says when it goes on."""
    told = Told(runtime, LATER, LATER, LATER, None, LATER)
    storage = with_events(1)
    sending(told, storage)
    with caplog.at_level(logging.INFO, "durable_effect_jobs.telemetry"):
        runtime.advance("10 seconds")
    assert "sent again, after 3 failures" in caplog.text
    report(storage, [1])
    runtime.advance("10 seconds")
    assert 0.9 <= told.at[-1] - told.at[-2] <= 1.1


@pytest.mark.parametrize(("asked", "waited"), [("30 seconds", 30), ("2 hours", 600)])
def test_the_other_side_says_how_long_to_wait(runtime: TestRuntime, asked: str, waited: float) -> None:
    """A requested wait is kept, up to ten minutes."""
    told = Told(runtime, Effect.fail(SendError("busy", True, retry_after=Tracker(timeout=asked).timeout)))
    sending(told, with_events(1))
    runtime.advance("3 hours")
    assert told.at == [0, waited]


def test_what_is_refused_for_good_is_dropped_and_counted(
    runtime: TestRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    """It leaves the outbox after one try, at once for the next batch; the log counts what was lost."""
    told = Told(runtime, NEVER, NEVER)
    storage = with_events(5)
    with caplog.at_level(logging.ERROR, "durable_effect_jobs.telemetry"):
        sending(told, storage, size=2)
    assert told.batches == [names(0, 1), names(2, 3), names(4)]
    assert told.at == [0, 0, 0]
    assert [record.getMessage() for record in caplog.records] == [
        "2 events were refused and are dropped, 2 so far: never",
        "2 events were refused and are dropped, 4 so far: never",
    ]
    assert pending(storage) == []


class Narrow:
    """A sink that takes no batch of more than so many events, and one event not at all."""

    def __init__(self, most: int, poison: str = "") -> None:
        self.most = most
        self.poison = poison
        self.taken: list[str] = []
        self.tries: list[int] = []

    def send(self, events: Sequence[Event]) -> Effect[None, SendError]:
        """The sink."""

        def look() -> Effect[None, SendError]:
            ids = [event.event_id for event in events]
            self.tries.append(len(ids))
            if len(ids) > self.most or self.poison in ids:
                return TOO_LARGE
            self.taken += ids
            return Effect.void

        return Effect.suspend(look)


def test_a_batch_that_is_too_large_is_halved(runtime: TestRuntime) -> None:
    """Everything arrives in its order, at once, and few batches are sent in vain."""
    narrow = Narrow(30)
    storage = with_events(1000)
    Sending(storage, runtime, Effect.succeed(narrow))
    runtime.advance("1 minute")
    assert narrow.taken == names(*range(1000))
    assert narrow.tries[:3] == [100, 50, 25]
    assert sum(tried > 30 for tried in narrow.tries) < len(narrow.tries) / 4
    assert pending(storage) == []


def test_an_event_that_is_too_large_by_itself_is_dropped(
    runtime: TestRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    """The others around it arrive; batches grow back to the size asked for."""
    narrow = Narrow(100, poison=names(7)[0])
    storage = with_events(500)
    with caplog.at_level(logging.ERROR, "durable_effect_jobs.telemetry"):
        Sending(storage, runtime, Effect.succeed(narrow))
        runtime.advance("1 minute")
    assert narrow.taken == names(*(number for number in range(500) if number != 7))
    assert "1 events were refused and are dropped, 1 so far: too large" in caplog.text
    report(storage, range(500, 1000))
    runtime.advance("1 minute")
    assert max(narrow.tries[-4:]) == 100


def test_a_sink_with_a_defect_loses_nothing(runtime: TestRuntime, caplog: pytest.LogCaptureFixture) -> None:
    """An exception out of a sink is logged with its traceback, and the batch is sent again later."""
    told = Told(runtime, Effect.sync(lambda: 1 / 0).as_void(), Effect.die(ValueError("odd")))
    storage = with_events(2)
    with caplog.at_level(logging.ERROR, "durable_effect_jobs.telemetry"):
        sending(told, storage)
        runtime.advance("10 seconds")
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [
        ZeroDivisionError,
        ValueError,
    ]
    assert told.batches == [names(0, 1)] * 3
    assert pending(storage) == []


def test_a_sink_that_calls_itself_off_does_not_end_the_sender(runtime: TestRuntime) -> None:
    """A request that somebody else cancels is one that failed."""
    told = Told(runtime, Effect.interrupt())
    storage = with_events(1)
    sending(told, storage)
    runtime.advance("2 seconds")
    assert told.batches == [names(0)] * 2
    assert pending(storage) == []


def test_a_sink_that_does_not_answer_is_given_up_after_ten_seconds(runtime: TestRuntime) -> None:
    """Then it counts as failed, and the batch is sent again."""
    told = Told(runtime, Effect.never)
    storage = with_events(1)
    sending(told, storage)
    runtime.advance("9 seconds")
    assert (told.batches, pending(storage)) == ([names(0)], names(0))
    runtime.advance("3 seconds")
    assert told.batches == [names(0)] * 2
    assert 10.9 <= told.at[1] <= 11.1
    assert pending(storage) == []


def test_a_sink_that_hangs_delays_no_call_and_no_alarm(runtime: TestRuntime) -> None:
    """While no batch is ever answered, every alarm runs at its own instant and every call ends at once."""
    ran: list[float] = []

    def execute(ctx: ContinuousContext[int]) -> Effect[None]:
        return Effect.sync(lambda: ran.append((runtime.now - NOON).total_seconds()))

    job = Continuous.make(
        state_schema=int, schedule=Continuous.every("7 seconds"), start_immediately=False, execute=execute
    )
    told = Told(runtime, *[Effect.never] * 1000)
    jobs = create_durable_jobs({"job": job}, tracker=Tracker(sink=told))
    connected = Connected(jobs, MemoryStorage(), runtime)
    runtime.run(connected.client.continuous(job).start(id="a", input=0))
    runtime.advance("3 seconds")
    assert len(told.batches) == 1  # and it hangs from here on
    runtime.run(connected.client.continuous(job).start(id="b", input=0))
    assert runtime.now == NOON.replace(second=3)
    runtime.advance("57 seconds")
    assert ran == sorted([*range(7, 61, 7), *range(10, 61, 7)])
    before = runtime.now
    assert runtime.run(connected.client.continuous(job).trigger("a")).triggered
    assert runtime.run(connected.client.continuous(job).terminate("b")).terminated
    assert runtime.now == before
    connected.close()
    assert (runtime.now - before).total_seconds() <= 2


class Forgetful(MemoryStorage):
    """A storage that fails to remove events, so often."""

    failing = 0

    def events_sent(self, event_ids: Collection[str]) -> Effect[None, StorageError]:
        """The failure, or the removal."""

        def remove() -> Effect[None, StorageError]:
            if self.failing:
                self.failing -= 1
                return Effect.fail(StorageError("events_sent", "the disk is full"))
            return super(Forgetful, self).events_sent(event_ids)

        return Effect.suspend(remove)


def test_what_was_delivered_and_could_not_be_removed_is_not_sent_again(runtime: TestRuntime) -> None:
    """Only the removal is tried again, and nothing is sent before it has worked."""
    storage = Forgetful()
    storage.failing = 3
    report(storage, range(4))
    told = Told(runtime)
    sending(told, storage, size=2)
    assert (told.batches, pending(storage)) == ([names(0, 1)], names(0, 1, 2, 3))
    runtime.advance("10 seconds")
    assert told.batches == [names(0, 1), names(2, 3)]
    assert pending(storage) == []


def test_a_full_outbox_drops_the_oldest_and_the_rest_arrives(
    runtime: TestRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    """While the other side is down the outbox stays bounded, says what it dropped, and loses no more."""
    storage = MemoryStorage(outbox_limit=10)
    told = Told(runtime, *[LATER] * 3)
    sending(told, storage)
    with caplog.at_level(logging.WARNING, "durable_effect_jobs.storage"):
        report(storage, range(25))
    assert "outbox is full" in caplog.text
    assert storage.dropped_events == 15
    runtime.advance("1 minute")
    assert told.batches[-1] == names(*range(15, 25))
    assert pending(storage) == []


def test_closing_sends_what_is_left(runtime: TestRuntime) -> None:
    """All batches of it, without waiting for the next look."""
    told = Told(runtime)
    storage = MemoryStorage()
    open_sender = sending(told, storage, size=10)
    report(storage, range(35))
    open_sender.close()
    assert [len(batch) for batch in told.batches] == [10, 10, 10, 5]
    assert runtime.now == NOON


def test_closing_lets_the_batch_under_way_arrive(runtime: TestRuntime) -> None:
    """It is not cut off and sent twice, and what came meanwhile goes out too."""
    told = Told(runtime, Effect.sleep("1500 ms"))
    storage = with_events(2)
    open_sender = sending(told, storage)
    report(storage, [2])
    open_sender.close()
    assert told.batches == [names(0, 1), names(2)]
    assert pending(storage) == []


def test_closing_tries_once_more_and_keeps_the_rest(runtime: TestRuntime) -> None:
    """One last try while it waits after a failure; when that fails too it closes at once."""
    told = Told(runtime, LATER, LATER, LATER)
    storage = with_events(3)
    open_sender = sending(told, storage)
    open_sender.close()
    assert len(told.batches) == 2
    assert pending(storage) == names(0, 1, 2)
    assert runtime.now == NOON


def test_closing_waits_no_longer_than_two_seconds(runtime: TestRuntime) -> None:
    """A sink that does not answer cannot keep a connection from closing; its batch is kept."""
    told = Told(runtime, Effect.never)
    storage = with_events(1)
    sending(told, storage).close()
    assert (runtime.now - NOON).total_seconds() == 2
    assert pending(storage) == names(0)


def test_a_sender_that_was_started_uninterruptibly_can_be_closed(runtime: TestRuntime) -> None:
    """As the services of a layer are: a sink that does not answer is given up at the end all the same."""
    told = Told(runtime, Effect.never)
    scope = Scope()
    runtime.run(scope.extend(start_sender(with_events(1), told).uninterruptible()))
    runtime.settle()
    runtime.run(scope.close(Success(None)))
    assert (runtime.now - NOON).total_seconds() == 2


def test_after_a_crash_the_same_events_come_again() -> None:
    """A process that dies between delivery and removal sends the batch twice, with the same ids."""
    storage = Forgetful()
    storage.failing = 1
    report(storage, range(3))
    crashed = TestRuntime(NOON)
    before = Told(crashed)
    sending(before, storage)
    crashed.abandon()
    with TestRuntime(NOON) as runtime:
        after = Told(runtime)
        sending(after, storage)
        assert before.batches == after.batches == [names(0, 1, 2)]
    assert pending(storage) == []


DEEDS = st.sampled_from(["take", "take late", "take and fail", "fail", "too large", "die", "hang"])


@given(
    deeds=st.lists(DEEDS, max_size=12),
    happenings=st.lists(st.sampled_from(["a", "b", "c", "wait", "crash", "close"]), max_size=40),
    size=st.integers(1, 5),
)
def test_every_event_arrives_in_the_order_of_its_instance(
    deeds: list[str], happenings: list[str], size: int
) -> None:
    """Whatever the sink does and whenever the process dies: nothing is lost, no event overtakes another of
    its instance, and what comes twice has the same id and content."""
    storage = MemoryStorage()
    taken: list[Event] = []
    sent: dict[str, int] = {"a": 0, "b": 0, "c": 0}
    left = list(deeds)

    class Moody:
        def send(self, events: Sequence[Event]) -> Effect[None, SendError]:
            take = Effect.sync(lambda: taken.extend(events))
            deed = left.pop(0) if left else "take"
            if deed == "too large" and len(events) == 1:
                deed = "take"  # or it would be dropped, rightly
            return {
                "take": take,
                "take late": take.delay("3 seconds"),
                "take and fail": take.and_then(LATER),
                "fail": LATER,
                "too large": TOO_LARGE,
                "die": Effect.die(ValueError("odd")),
                "hang": take.and_then(Effect.never),
            }[deed]

    def boot() -> Sending:
        return Sending(storage, TestRuntime(NOON), Effect.succeed(Moody()), size)

    running = boot()
    for happening in happenings:
        if happening == "wait":
            running.runtime.advance("2 seconds")
        elif happening == "crash":
            running.runtime.abandon()
            running = boot()
        elif happening == "close":
            running.close()
            running.runtime.close()
            running = boot()
        else:
            report(storage, [sent[happening]], instance=happening)
            sent[happening] += 1
    running.runtime.advance("15 minutes")
    running.close()
    running.runtime.close()
    arrived = first_arrivals((event.id, event.event_id) for event in taken)
    assert arrived == {name: names(*range(n), instance=name) for name, n in sent.items() if n}
    contents = {event.event_id: event for event in taken}
    assert all(event == contents[event.event_id] for event in taken)
    assert pending(storage) == []

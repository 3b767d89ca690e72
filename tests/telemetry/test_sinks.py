"""Sinks for the log, for memory and of one's own, in connections on virtual time."""

from __future__ import annotations

import json
import logging

import pytest
from telemetry_scene import Connected, Told, pending

from durable_effect import Effect
from durable_effect.testing import TestRuntime
from durable_effect_jobs import Continuous, Tracker, create_durable_jobs
from durable_effect_jobs.events import to_wire
from durable_effect_jobs.storage.memory import MemoryStorage
from durable_effect_jobs.telemetry import LogSink, MemorySink

JOB = Continuous.make(
    state_schema=int, schedule=Continuous.every("1 hour"), execute=lambda ctx: ctx.set_state(1)
)


def run_a_job(runtime: TestRuntime, tracker: Tracker, *, its_id: str = "a") -> MemoryStorage:
    """Start an instance, let three seconds pass, close; answers the storage."""
    jobs = create_durable_jobs({"counter": JOB}, tracker=tracker)
    storage = MemoryStorage()
    connected = Connected(jobs, storage, runtime)
    runtime.run(connected.client.continuous(JOB).start(id=its_id, input=7))
    runtime.advance("3 seconds")
    connected.close()
    return storage


def test_events_go_to_memory(runtime: TestRuntime) -> None:
    """A memory sink has the events themselves, in their order; the outbox is empty."""
    sink = MemorySink()
    storage = run_a_job(runtime, Tracker(sink=sink))
    assert [event.type for event in sink.events] == ["job.started", "job.executed"]
    assert pending(storage) == []


def test_memory_is_bounded(runtime: TestRuntime) -> None:
    """A memory sink keeps the latest events only."""
    sink = MemorySink(limit=3)
    run_a_job(runtime, Tracker(sink=sink), its_id="a")
    run_a_job(runtime, Tracker(sink=sink), its_id="b")
    assert [(event.id, event.type) for event in sink.events] == [
        ("a", "job.executed"),
        ("b", "job.started"),
        ("b", "job.executed"),
    ]
    with pytest.raises(ValueError, match="at least 1"):
        MemorySink(limit=0)


def test_events_go_to_the_log(runtime: TestRuntime, caplog: pytest.LogCaptureFixture) -> None:
    """A log sink writes each as a line of JSON in its wire form, which handlers find as an object too."""
    with caplog.at_level(logging.INFO, "durable_effect_jobs.telemetry.events"):
        storage = run_a_job(runtime, Tracker(sink=LogSink()))
    records = [record for record in caplog.records if record.name == "durable_effect_jobs.telemetry.events"]
    lines = [json.loads(record.getMessage()) for record in records]
    assert [line["type"] for line in lines] == ["job.started", "job.executed"]
    assert "input" not in lines[0]
    assert [record.__dict__["event"] for record in records] == lines
    assert pending(storage) == []


def test_a_log_sink_has_any_logger_and_level(runtime: TestRuntime, caplog: pytest.LogCaptureFixture) -> None:
    """Both can be chosen; where the level is off nothing is written and nothing is kept."""
    logger = logging.getLogger("my.audit")
    with caplog.at_level(logging.WARNING, "my.audit"):
        storage = run_a_job(runtime, Tracker(sink=LogSink("my.audit", logging.WARNING)))
        run_a_job(runtime, Tracker(sink=LogSink(logger, logging.DEBUG)))
    assert [record.levelname for record in caplog.records if record.name == "my.audit"] == ["WARNING"] * 2
    assert pending(storage) == []


def test_states_are_shown_to_sinks_only_when_asked_for(runtime: TestRuntime) -> None:
    """Inputs and states reach a sink with include_state, and else do not."""
    silent, telling = MemorySink(), MemorySink()
    run_a_job(runtime, Tracker(sink=silent))
    run_a_job(runtime, Tracker(sink=telling, include_state=True))
    assert "input" not in to_wire(silent.events[0])
    assert to_wire(telling.events[0])["input"] == 7


def test_batches_are_as_large_as_the_tracker_says(runtime: TestRuntime) -> None:
    """A sink of one's own is given no more than that at once."""
    told = Told(runtime)
    run_a_job(runtime, Tracker(sink=told, batch_size=1))
    assert [len(batch) for batch in told.batches] == [1, 1]


def test_the_timeout_of_a_tracker_holds_for_sinks(runtime: TestRuntime) -> None:
    """A sink that hangs is called off in the time that the tracker gives."""
    told = Told(runtime, Effect.never)
    storage = run_a_job(runtime, Tracker(sink=told, timeout="200 ms"))
    assert told.batches[0] == told.batches[1]
    assert 1.1 <= told.at[1] - told.at[0] <= 1.3
    assert pending(storage) == []


def test_without_an_endpoint_and_a_sink_events_stay(runtime: TestRuntime) -> None:
    """A tracker of neither only records."""
    assert len(pending(run_a_job(runtime, Tracker()))) == 2


def test_a_process_that_only_calls_sends_nothing(runtime: TestRuntime) -> None:
    """With alarms=False the events wait for a process that runs alarms."""
    told = Told(runtime)
    jobs = create_durable_jobs({"counter": JOB}, tracker=Tracker(sink=told))
    storage = MemoryStorage()
    program = jobs.open(storage, alarms=False).flat_map(
        lambda client: client.continuous(JOB).start(id="a", input=7)
    )
    runtime.run(program.scoped())
    assert told.batches == []
    assert pending(storage) != []

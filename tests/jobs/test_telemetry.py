"""Sending telemetry: to a real HTTP endpoint that is fine, slow, broken, absent, or of another opinion."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from durable_effect import Effect
from durable_effect.testing import TestRuntime
from durable_effect_jobs import (
    Continuous,
    ContinuousContext,
    JobTerminated,
    Tracker,
    create_durable_jobs,
)
from durable_effect_jobs.instance import Commit, Key
from durable_effect_jobs.storage.memory import MemoryStorage
from durable_effect_jobs.telemetry import start_sender
from durable_effect_jobs.telemetry.http import HttpSink

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

Answer = Callable[[BaseHTTPRequestHandler], None]


def status(code: int) -> Answer:
    """An answer with this status."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        request.send_header("content-length", "0")
        request.end_headers()

    return answer


def cut(request: BaseHTTPRequestHandler) -> None:
    """No answer: the connection is cut."""
    request.connection.shutdown(socket.SHUT_RDWR)


class Endpoint:
    """A real HTTP server, which notes what it is posted and answers as it is told; the last answer lasts."""

    def __init__(self, *answers: Answer, port: int = 0) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        told = list(answers or [status(200)])
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                endpoint.requests.append(body)
                endpoint.headers.append({name.lower(): value for name, value in self.headers.items()})
                answer = told.pop(0) if len(told) > 1 else told[0]
                answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """The test looks at the requests instead."""

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/ingest"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    def ids(self) -> list[str]:
        """The event ids in the order in which they came."""
        return [event["eventId"] for request in self.requests for event in request["events"]]


@pytest.fixture
def endpoints() -> Iterator[Callable[..., Endpoint]]:
    """Makes endpoints that are closed at the end of the test."""
    made: list[Endpoint] = []

    def make(*answers: Answer, port: int = 0) -> Endpoint:
        made.append(Endpoint(*answers, port=port))
        return made[-1]

    yield make
    for endpoint in made:
        endpoint.close()


def with_events(count: int) -> MemoryStorage:
    """A storage in whose outbox this many events wait."""
    storage = MemoryStorage()
    key = Key("task", "job", "t")
    for number in range(count):
        event = JobTerminated(
            timestamp=NOON,
            instance_id=key.instance_id,
            kind="task",
            job="job",
            id="t",
            event_id=f"event-{number:03}",
            run_count=number,
            reason=None,
        )
        commit = Commit(key=key, before=None, after=None, at=NOON, events=(event,))
        storage.commit(commit).run_sync()
    return storage


class Sending:
    """A sender on virtual time, to a real endpoint."""

    def __init__(self, storage: MemoryStorage, tracker: Tracker) -> None:
        self.storage = storage
        self.runtime = TestRuntime(NOON)
        assert tracker.endpoint is not None
        sink = HttpSink.open(tracker, tracker.endpoint)
        sender = sink.flat_map(lambda opened: start_sender(storage, opened, tracker.batch_size))
        self.fiber = self.runtime.fork(sender.flat_map(lambda _: Effect.never).scoped())
        self.runtime.settle()

    def pending(self) -> list[str]:
        """The events that wait."""
        return [event.event_id for event in self.storage.pending_events(1000).run_sync()]

    def close(self) -> None:
        """End the sender."""
        self.runtime.close()


def test_events_are_posted_with_their_envelope(endpoints: Callable[..., Endpoint], tmp_path: Path) -> None:
    """What a job reports arrives by itself, signed with the tracker's env and key, and leaves the outbox."""
    endpoint = endpoints()
    tracker = Tracker(
        endpoint=endpoint.url, env="test", service_key="svc", headers={"authorization": "Bearer t"}
    )
    job = Continuous.make(
        state_schema=int, schedule=Continuous.every("1 hour"), execute=lambda ctx: ctx.set_state(1)
    )
    jobs = create_durable_jobs({"counter": job}, tracker=tracker)
    url = f"sqlite:///{tmp_path / 'jobs.db'}"

    async def scene() -> None:
        async with jobs.connect(url) as client:
            await client.continuous(job).start(id="a", input=0)
        async with jobs.connect(url):
            pass

    asyncio.run(scene())
    events = [event for request in endpoint.requests for event in request["events"]]
    assert [event["type"] for event in events] == ["job.started", "job.executed"]
    assert {(event["env"], event["serviceKey"], event["instanceId"]) for event in events} == {
        ("test", "svc", "continuous:counter:a")
    }
    assert "input" not in events[0]
    assert endpoint.headers[0]["authorization"] == "Bearer t"
    assert endpoint.headers[0]["content-type"] == "application/json"


def test_batches_are_of_the_size_asked_for_and_in_order(endpoints: Callable[..., Endpoint]) -> None:
    """A backlog goes out in full batches, oldest first, without a pause between them."""
    endpoint = endpoints()
    sending = Sending(with_events(250), Tracker(endpoint=endpoint.url))
    assert [len(request["events"]) for request in endpoint.requests] == [100, 100, 50]
    assert endpoint.ids() == [f"event-{number:03}" for number in range(250)]
    assert sending.pending() == []
    sending.close()


@pytest.mark.parametrize(
    "answer", [status(500), status(503), status(429), cut], ids=["500", "503", "429", "cut"]
)
def test_what_may_help_is_tried_again(endpoints: Callable[..., Endpoint], answer: Answer) -> None:
    """The same batch is sent again after about a second, then two; it stays in the outbox until then."""
    endpoint = endpoints(answer, answer, status(200))
    sending = Sending(with_events(2), Tracker(endpoint=endpoint.url))
    assert sending.pending() == ["event-000", "event-001"]
    sending.runtime.advance("1.2 seconds")
    assert len(endpoint.requests) == 2
    sending.runtime.advance("2.4 seconds")
    assert endpoint.requests[0] == endpoint.requests[1] == endpoint.requests[2]
    assert sending.pending() == []
    sending.close()


def test_what_was_refused_for_good_does_not_stand_in_the_way(
    endpoints: Callable[..., Endpoint], caplog: pytest.LogCaptureFixture
) -> None:
    """A 4xx drops its batch, with an error in the log, and the next one goes out."""
    endpoint = endpoints(status(400), status(200))
    with caplog.at_level(logging.ERROR, "durable_effect_jobs.telemetry"):
        sending = Sending(with_events(3), Tracker(endpoint=endpoint.url, batch_size=2))
    assert [len(request["events"]) for request in endpoint.requests] == [2, 1]
    assert sending.pending() == []
    assert "2 events were refused" in caplog.text
    sending.close()


def test_a_slow_endpoint_is_given_up_in_time(endpoints: Callable[..., Endpoint]) -> None:
    """An endpoint that does not answer in time counts as unreachable; the next try gets through."""
    let_go = threading.Event()

    def slow(request: BaseHTTPRequestHandler) -> None:
        let_go.wait(20)

    endpoint = endpoints(slow, status(200))
    sending = Sending(with_events(1), Tracker(endpoint=endpoint.url, timeout="100 ms"))
    assert sending.pending() == ["event-000"]
    sending.runtime.advance("1.2 seconds")
    assert sending.pending() == []
    let_go.set()
    sending.close()


def test_an_endpoint_that_is_down_for_an_hour_gets_everything_later(
    endpoints: Callable[..., Endpoint],
) -> None:
    """While nobody listens the sender tries at most once a minute, and nothing is lost."""
    gone = endpoints()
    port = gone.port
    sending = Sending(with_events(0), Tracker(endpoint=gone.url))
    gone.close()
    again = with_events(5).pending_events(10).run_sync()
    key = Key("task", "job", "t")
    for event in again:
        sending.storage.commit(Commit(key=key, before=None, after=None, at=NOON, events=(event,))).run_sync()
    sending.runtime.advance("1 hour")
    assert len(sending.pending()) == 5
    back = endpoints(port=port)
    sending.runtime.advance("1.2 minutes")
    assert back.ids() == [f"event-{number:03}" for number in range(5)]
    assert sending.pending() == []
    sending.close()


def test_a_slow_endpoint_delays_no_call(endpoints: Callable[..., Endpoint]) -> None:
    """Calls and alarms go on while a batch hangs at the endpoint."""
    came, let_go, ran = threading.Event(), threading.Event(), asyncio.Event()

    def hang(request: BaseHTTPRequestHandler) -> None:
        came.set()
        let_go.wait(20)
        status(200)(request)

    def execute(ctx: ContinuousContext[int]) -> Effect[None]:
        if came.is_set() and not let_go.is_set():
            ran.set()
        return Effect.void

    endpoint = endpoints(hang, status(200))
    job = Continuous.make(state_schema=int, schedule=Continuous.every("20 ms"), execute=execute)
    jobs = create_durable_jobs({"counter": job}, tracker=Tracker(endpoint=endpoint.url))

    async def scene() -> None:
        async with asyncio.timeout(15), jobs.connect("memory://") as client:
            await client.continuous(job).start(id="a", input=0)
            await asyncio.to_thread(came.wait)
            await ran.wait()  # an alarm, after the request came and before it was answered
            assert (await client.continuous(job).trigger("a")).triggered
            assert not let_go.is_set()
            let_go.set()

    asyncio.run(scene())

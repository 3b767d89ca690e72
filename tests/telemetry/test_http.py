"""Events to a real HTTP endpoint on 127.0.0.1 that is fine, slow, broken, absent, or of another opinion."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from telemetry_scene import (
    NOON,
    Answer,
    Connected,
    Endpoint,
    Sending,
    cut,
    cut_in_the_body,
    cut_in_the_head,
    first_arrivals,
    names,
    pending,
    report,
    status,
    with_events,
)

from durable_effect import Effect
from durable_effect.testing import TestRuntime
from durable_effect_jobs import Continuous, ContinuousContext, Tracker, create_durable_jobs
from durable_effect_jobs.storage.memory import MemoryStorage
from durable_effect_jobs.telemetry.http import HttpSink

Endpoints = Callable[..., Endpoint]


@pytest.fixture
def let_go() -> Iterator[threading.Event]:
    """What a hanging endpoint waits for; set at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


def posting(
    storage: MemoryStorage, runtime: TestRuntime, url: str, *, size: int = 100, timeout: str = "10 seconds"
) -> Sending:
    """A sender to this endpoint."""
    return Sending(storage, runtime, HttpSink.open(url, timeout=timeout), size)


def test_events_are_posted_with_their_envelope(endpoints: Endpoints, tmp_path: Path) -> None:
    """What a job reports arrives by itself, signed with the tracker's env and key, and leaves the outbox."""
    endpoint = endpoints()
    tracker = Tracker(
        endpoint=endpoint.url, env="test", service_key="svc", headers={"Authorization": "Bearer t"}
    )
    job = Continuous.make(
        state_schema=int, schedule=Continuous.every("1 hour"), execute=lambda ctx: ctx.set_state(1)
    )
    jobs = create_durable_jobs({"counter": job}, tracker=tracker)
    url = f"sqlite:///{tmp_path / 'jobs.db'}"

    async def scene() -> None:
        async with jobs.connect(url) as client:
            await client.continuous(job).start(id="a", input=0)

    asyncio.run(scene())
    started, executed = endpoint.events
    assert [started["type"], executed["type"]] == ["job.started", "job.executed"]
    envelope = {"source": "job", "jobType": "continuous", "jobName": "counter", "id": "a"}
    signed = {**envelope, "instanceId": "continuous:counter:a", "env": "test", "serviceKey": "svc"}
    assert signed.items() <= started.items()
    assert started.keys() - signed.keys() == {"eventId", "timestamp", "type"}
    assert endpoint.headers[0]["authorization"] == "Bearer t"
    assert endpoint.headers[0]["content-type"] == "application/json"


def test_the_outbox_survives_restarts(endpoints: Endpoints, tmp_path: Path) -> None:
    """A process that ends while the endpoint is down leaves its events; the next one sends them."""
    gone = endpoints()
    gone.close()
    job = Continuous.make(
        state_schema=int, schedule=Continuous.every("1 hour"), execute=lambda ctx: ctx.set_state(1)
    )
    jobs = create_durable_jobs({"counter": job}, tracker=Tracker(endpoint=gone.url))
    url = f"sqlite:///{tmp_path / 'jobs.db'}"

    async def work(its_id: str) -> None:
        async with jobs.connect(url) as client:
            await client.continuous(job).start(id=its_id, input=0)

    asyncio.run(work("a"))
    asyncio.run(work("b"))
    back = endpoints(port=gone.port)
    asyncio.run(work("c"))
    arrived = [(event["id"], event["type"]) for event in back.events]
    assert arrived == [(its_id, type_) for its_id in "abc" for type_ in ("job.started", "job.executed")]
    assert len(set(back.ids())) == 6


@pytest.mark.parametrize(
    "answer",
    [status(500), status(503), status(429), status(302), cut, cut_in_the_head, cut_in_the_body],
    ids=["500", "503", "429", "302", "cut", "cut in the head", "cut in the body"],
)
def test_what_may_help_is_tried_again(endpoints: Endpoints, runtime: TestRuntime, answer: Answer) -> None:
    """The same batch is sent again after about a second, then two; it stays in the outbox until then."""
    endpoint = endpoints(answer, answer, status(200))
    storage = with_events(2)
    posting(storage, runtime, endpoint.url)
    assert pending(storage) == names(0, 1)
    runtime.advance("1.2 seconds")
    assert len(endpoint.requests) == 2
    runtime.advance("2.4 seconds")
    assert endpoint.requests[0] == endpoint.requests[1] == endpoint.requests[2]
    assert pending(storage) == []


@pytest.mark.parametrize("code", [400, 401, 403, 404, 409, 410, 422])
def test_what_was_refused_for_good_does_not_stand_in_the_way(
    endpoints: Endpoints, runtime: TestRuntime, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    """A 4xx drops its batch, with an error in the log, and the next one goes out."""
    endpoint = endpoints(status(code), status(200))
    storage = with_events(3)
    with caplog.at_level(logging.ERROR, "durable_effect_jobs.telemetry"):
        posting(storage, runtime, endpoint.url, size=2)
    assert endpoint.ids() == names(0, 1, 2)
    assert [len(request["events"]) for request in endpoint.requests] == [2, 1]
    assert pending(storage) == []
    origin = f"http://127.0.0.1:{endpoint.port}"
    assert f"2 events were refused and are dropped, 2 so far: {origin} answered {code}" in caplog.text


@pytest.mark.parametrize(
    ("said", "waited"),
    [
        ("90", 90),
        ("Thu, 01 Jan 2026 12:02:00 GMT", 120),
        ("86400", 600),
        ("9" * 40, 600),
        ("0", 1),
        ("soon", 1),
    ],
    ids=["seconds", "date", "bounded", "absurd", "zero", "unreadable"],
)
def test_retry_after_is_honoured_within_bounds(
    endpoints: Endpoints, runtime: TestRuntime, said: str, waited: int
) -> None:
    """A 429 may ask for seconds or name a date; more than ten minutes is not waited, nor less than usual."""
    endpoint = endpoints(status(429, retry_after=said), status(200))
    storage = with_events(1)
    posting(storage, runtime, endpoint.url)
    runtime.advance(f"{waited * 0.89:.2f} seconds")
    assert len(endpoint.requests) == 1
    runtime.advance(f"{waited * 0.22:.2f} seconds")
    assert len(endpoint.requests) == 2
    assert pending(storage) == []


def test_a_batch_that_is_too_large_for_the_endpoint_is_cut(
    endpoints: Endpoints, runtime: TestRuntime
) -> None:
    """A 413 is answered with the first half; all arrives, in order."""
    endpoint = endpoints(status(413), status(413), status(200))
    storage = with_events(8)
    posting(storage, runtime, endpoint.url)
    runtime.advance("1 minute")
    assert [len(request["events"]) for request in endpoint.requests[:3]] == [8, 4, 2]
    accepted = [event["eventId"] for request in endpoint.requests[2:] for event in request["events"]]
    assert accepted == names(*range(8))
    assert pending(storage) == []


def test_bodies_stay_below_a_mebibyte(endpoints: Endpoints, runtime: TestRuntime) -> None:
    """Large events go in smaller batches, before the endpoint has to say so."""
    endpoint = endpoints()
    storage = MemoryStorage()
    report(storage, range(1000), size=4000)
    posting(storage, runtime, endpoint.url, size=1000)
    runtime.advance("1 minute")
    assert endpoint.ids() == names(*range(1000))
    assert len(endpoint.sizes) >= 4
    assert max(endpoint.sizes) <= 1 << 20


def test_a_slow_endpoint_is_given_up_in_time(
    endpoints: Endpoints, runtime: TestRuntime, let_go: threading.Event
) -> None:
    """An endpoint that does not answer in time counts as unreachable; the next try gets through."""
    endpoint = endpoints(lambda request: (let_go.wait(20), None)[1], status(200))
    storage = with_events(1)
    posting(storage, runtime, endpoint.url, timeout="100 ms")
    assert pending(storage) == names(0)
    runtime.advance("1.2 seconds")
    assert endpoint.ids() == names(0, 0)
    assert pending(storage) == []


def test_an_endpoint_that_dribbles_is_given_up_in_time(endpoints: Endpoints, let_go: threading.Event) -> None:
    """Each byte comes in time and the answer never ends: the limit holds for the whole."""
    over = threading.Event()

    def dribble(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("content-length", "1000")
        request.end_headers()
        try:
            while not let_go.wait(0.01):
                request.wfile.write(b"x")
        except OSError:
            over.set()  # the sender has hung up
        request.close_connection = True

    endpoint = endpoints(dribble, status(200))
    job = Continuous.make(
        state_schema=int, schedule=Continuous.every("1 hour"), execute=lambda ctx: Effect.void
    )
    jobs = create_durable_jobs({"job": job}, tracker=Tracker(endpoint=endpoint.url, timeout="200 ms"))

    async def scene() -> None:
        async with jobs.connect("memory://") as client:
            await client.continuous(job).start(id="a", input=0)
            assert await asyncio.to_thread(over.wait, 20)

    asyncio.run(scene())
    assert len(endpoint.requests) >= 2
    assert endpoint.requests[0] == endpoint.requests[1]


def test_an_answer_without_end_is_not_read_to_its_end(endpoints: Endpoints, runtime: TestRuntime) -> None:
    """After 64 KiB of answer the rest is left alone: the status has said all."""

    def flood(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            while True:
                request.wfile.write(b"x" * 65536)
        except OSError:
            request.close_connection = True

    endpoint = endpoints(flood)
    storage = with_events(2)
    posting(storage, runtime, endpoint.url)
    assert endpoint.ids() == names(0, 1)
    assert pending(storage) == []


def test_redirects_are_not_followed(
    endpoints: Endpoints, runtime: TestRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    """Events and headers go to the host that was named and no other; they wait until it takes them."""
    elsewhere = endpoints()
    endpoint = endpoints(
        status(307, location=elsewhere.url), status(308, location=elsewhere.url), status(200)
    )
    storage = with_events(1)
    with caplog.at_level(logging.WARNING, "durable_effect_jobs.telemetry"):
        posting(storage, runtime, endpoint.url)
        assert pending(storage) == names(0)
        runtime.advance("4 seconds")
    assert "answered 307" in caplog.text
    assert endpoint.ids() == names(0, 0, 0)
    assert elsewhere.requests == []
    assert pending(storage) == []


def test_secrets_stay_out_of_the_log(
    endpoints: Endpoints, runtime: TestRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    """No line of any logger, at any level, shows headers, passwords, paths or queries of the endpoint."""
    endpoint = endpoints(status(500), status(404), cut, status(200))
    url = f"http://me:sesame@127.0.0.1:{endpoint.port}/hook/s3cret-path?key=s3cret-key"
    tracker = Tracker(endpoint=url, service_key="s3cret-service", headers={"x-token": "s3cret-header"})
    job = Continuous.make(
        state_schema=int, schedule=Continuous.every("1 minute"), execute=lambda ctx: Effect.void
    )
    jobs = create_durable_jobs({"job": job}, tracker=tracker)
    with caplog.at_level(logging.DEBUG):
        connected = Connected(jobs, MemoryStorage(), runtime)
        runtime.run(connected.client.continuous(job).start(id="a", input=0))
        runtime.advance("5 minutes")
        endpoint.close()
        runtime.advance("5 minutes")
        connected.close()
    assert endpoint.headers[0]["x-token"] == "s3cret-header"
    assert endpoint.headers[0]["authorization"].startswith("Basic ")
    assert f"HTTP Request: POST http://127.0.0.1:{endpoint.port} " in caplog.text  # httpx2's own line, masked
    assert "answered 500" in caplog.text
    assert "were refused" in caplog.text
    assert "ConnectError" in caplog.text
    assert "s3cret" not in caplog.text
    assert "sesame" not in caplog.text
    assert "s3cret" not in repr(tracker)
    assert "sesame" not in repr(tracker)


def test_a_hanging_endpoint_delays_no_call_and_no_alarm(
    endpoints: Endpoints, let_go: threading.Event
) -> None:
    """Calls and alarms go on while a batch hangs at the endpoint."""
    came, ran = threading.Event(), asyncio.Event()

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


def test_a_bad_hour_loses_nothing(
    endpoints: Endpoints, runtime: TestRuntime, let_go: threading.Event
) -> None:
    """Jobs run on while the endpoint hangs, fails, cuts, refuses for now, is down for an hour and comes back:
    every event arrives, repeats have the same id and content, and each instance's come in their order."""
    bad = endpoints(
        status(200),
        cut_in_the_body,
        status(500),
        lambda request: (let_go.wait(20), None)[1],
        status(429, retry_after="45"),
        cut,
        status(503),
        status(413),
        status(200),
        cut_in_the_head,
        status(502),
    )
    ran: list[tuple[str, float]] = []

    def execute(ctx: ContinuousContext[int]) -> Effect[None]:
        ran.append((ctx.id, (runtime.now - NOON).total_seconds()))
        return Effect.void

    job = Continuous.make(state_schema=int, schedule=Continuous.every("30 seconds"), execute=execute)
    jobs = create_durable_jobs({"job": job}, tracker=Tracker(endpoint=bad.url, timeout="200 ms"))
    storage = MemoryStorage()
    connected = Connected(jobs, storage, runtime)
    for its_id in "abc":
        runtime.run(connected.client.continuous(job).start(id=its_id, input=0))
    runtime.advance("15 minutes")
    assert len(bad.answers) == 1  # all of it has happened
    bad.close()
    runtime.advance("1 hour")
    waiting = pending(storage)
    assert len(waiting) >= 3 * 120
    back = endpoints(port=bad.port)
    runtime.advance("2 minutes")
    connected.close()

    assert pending(storage) == []
    assert ran == [(its_id, at) for at in range(0, 77 * 60 + 1, 30) for its_id in "abc"]  # none was late
    came = [*bad.events, *back.events]
    arrived = first_arrivals((event["id"], event["eventId"]) for event in came)
    told = {event["eventId"]: event for event in came}
    assert all(event == told[event["eventId"]] for event in came)
    for its_id in "abc":
        its = [told[event_id] for event_id in arrived[its_id]]
        assert [event["type"] for event in its] == ["job.started", *["job.executed"] * 155]
        assert [event["runCount"] for event in its[1:]] == list(range(1, 156))


def test_an_endpoint_needs_the_http_extra_and_a_sink_does_not() -> None:
    """Without httpx2 an endpoint is refused at connecting, with what to do; sinks work."""
    program = """
import asyncio, sys
sys.modules["httpx2"] = None
from durable_effect import Effect
from durable_effect_jobs import Continuous, Tracker, create_durable_jobs
from durable_effect_jobs.telemetry import MemorySink

job = Continuous.make(state_schema=int, schedule=Continuous.every("1 hour"), execute=lambda ctx: Effect.void)

async def start(tracker):
    async with create_durable_jobs({"job": job}, tracker=tracker).connect("memory://") as client:
        await client.continuous(job).start(id="a", input=0)

sink = MemorySink()
asyncio.run(start(Tracker(sink=sink)))
print([event.type for event in sink.events])
try:
    asyncio.run(start(Tracker("http://127.0.0.1:9")))
except ImportError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [
        "['job.started', 'job.executed']",
        "sending telemetry to an endpoint needs httpx2: pip install 'durable-effect[http]',"
        " or give the tracker a sink= instead",
    ]

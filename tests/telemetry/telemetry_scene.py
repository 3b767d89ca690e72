"""What the tests of telemetry have in common: outboxes, senders on virtual time, and real HTTP endpoints."""

from __future__ import annotations

import json
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from durable_effect import Effect, Scope, Success
from durable_effect.testing import TestRuntime
from durable_effect_jobs import DurableJobs, JobTerminated
from durable_effect_jobs.events import Event
from durable_effect_jobs.instance import Commit, Key
from durable_effect_jobs.storage import Storage
from durable_effect_jobs.storage.memory import MemoryStorage
from durable_effect_jobs.telemetry import SendError, Sink, start_sender

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

Answer = Callable[[BaseHTTPRequestHandler], None]


def report(storage: Storage, numbers: Iterable[int], *, instance: str = "t", size: int = 0) -> None:
    """Commit an event for each number, with a reason of this size."""
    key = Key("task", "job", instance)
    for number in numbers:
        event = JobTerminated(
            timestamp=NOON,
            instance_id=key.instance_id,
            kind="task",
            job="job",
            id=instance,
            event_id=f"{instance}-{number:03}",
            run_count=number,
            reason="x" * size or None,
        )
        commit = Commit(key=key, before=None, after=None, at=NOON, token=event.event_id, events=(event,))
        Effect.run_sync(storage.commit(commit))


def with_events(count: int, *, size: int = 0) -> MemoryStorage:
    """A storage in whose outbox this many events wait."""
    storage = MemoryStorage()
    report(storage, range(count), size=size)
    return storage


def names(*numbers: int, instance: str = "t") -> list[str]:
    """The ids that `report` gives."""
    return [f"{instance}-{number:03}" for number in numbers]


def pending(storage: Storage) -> list[str]:
    """The ids of the events that wait."""
    return [event.event_id for event in Effect.run_sync(storage.pending_events(1_000_000))]


class Told:
    """A sink that does with each batch what it is told next, and notes when; at the end it takes all."""

    def __init__(self, runtime: TestRuntime, *deeds: Effect[None, SendError] | None) -> None:
        self.runtime = runtime
        self.deeds = list(deeds)
        self.batches: list[list[str]] = []
        self.at: list[float] = []

    @property
    def sent(self) -> list[str]:
        """The ids in the order in which they came."""
        return [event_id for batch in self.batches for event_id in batch]

    def send(self, events: Sequence[Event]) -> Effect[None, SendError]:
        """The sink."""

        def begin() -> Effect[None, SendError]:
            self.batches.append([event.event_id for event in events])
            self.at.append((self.runtime.now - NOON).total_seconds())
            deed = self.deeds.pop(0) if self.deeds else None
            return Effect.void if deed is None else deed

        return Effect.suspend(begin)


class Sending:
    """A sender on virtual time."""

    def __init__(
        self, storage: Storage, runtime: TestRuntime, sink: Effect[Sink, Any, Any], size: int = 100
    ) -> None:
        self.runtime = runtime
        self.storage = storage
        self._scope = Scope()
        sender = sink.flat_map(lambda opened: start_sender(storage, opened, batch_size=size))
        runtime.run(self._scope.extend(sender))
        runtime.settle()

    def close(self) -> None:
        """End the sender, as a connection does that is closed."""
        self.runtime.run(self._scope.close(Success(None)))


class Connected:
    """A connection of jobs on virtual time: the engine, its alarms and its sender, as in production."""

    def __init__(self, jobs: DurableJobs[Any], storage: Storage, runtime: TestRuntime) -> None:
        self.runtime = runtime
        self.storage = storage
        self._scope = Scope()
        self.client = runtime.run(self._scope.extend(jobs.open(storage)))
        runtime.settle()

    def close(self) -> None:
        """Close the connection."""
        self.runtime.run(self._scope.close(Success(None)))


# -- endpoints


def status(code: int, **headers: str) -> Answer:
    """An answer with this status; an underscore in a header's name stands for a dash."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("content-length", "0")
        request.end_headers()

    return answer


def cut(request: BaseHTTPRequestHandler) -> None:
    """No answer: the connection is cut."""
    request.close_connection = True
    request.connection.shutdown(socket.SHUT_RDWR)


def cut_in_the_head(request: BaseHTTPRequestHandler) -> None:
    """The connection is cut in the midst of the status line."""
    request.wfile.write(b"HTTP/1.1 20")
    cut(request)


def cut_in_the_body(request: BaseHTTPRequestHandler) -> None:
    """The connection is cut in the midst of an answer that began well."""
    request.send_response(200)
    request.send_header("content-length", "100")
    request.end_headers()
    request.wfile.write(b'{"accepted":')
    cut(request)


class Endpoint:
    """A real HTTP server, which notes what it is posted and answers as it is told; the last answer lasts."""

    def __init__(self, *answers: Answer, port: int = 0) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.sizes: list[int] = []
        self.answers = list(answers or [status(200)])
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                endpoint.sizes.append(len(body))
                endpoint.requests.append(json.loads(body))
                endpoint.headers.append({name.lower(): value for name, value in self.headers.items()})
                endpoint.next_answer()(self)

            def log_message(self, format: str, *args: object) -> None:
                """The test looks at the requests instead."""

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/ingest"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self._closed = False

    def next_answer(self) -> Answer:
        """What to do with this request."""
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def close(self) -> None:
        """Stop listening."""
        if not self._closed:
            self._closed = True
            self.server.shutdown()
            self.server.server_close()
            self._thread.join()

    @property
    def events(self) -> list[dict[str, Any]]:
        """All events in the order in which they came, repeats included."""
        return [event for request in self.requests for event in request["events"]]

    def ids(self) -> list[str]:
        """The event ids in the order in which they came."""
        return [event["eventId"] for event in self.events]


def first_arrivals(ids: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """From (instance, event id): the ids of each instance in the order in which each came first."""
    arrived: dict[str, dict[str, None]] = defaultdict(dict)
    for instance, event_id in ids:
        arrived[instance].setdefault(event_id)
    return {instance: list(its) for instance, its in arrived.items()}

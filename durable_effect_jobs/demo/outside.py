"""The world around the jobs: a token endpoint, services, a carrier, and somebody who receives webhooks.

It is an HTTP server on this machine, in the process of the demo and not in the one that gets killed, so what
it has seen is a second opinion on what the jobs say that they did. It fails by count and not by dice: two of
seven token requests, one of nine batches, the first question about each parcel.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket
from typing import Any, cast
from urllib.parse import unquote

import attrs

from durable_effect import Effect, Need, Scope

__all__ = ["Ledger", "Outside"]


@attrs.define
class Ledger:
    """What the world has seen."""

    token_requests: int = 0
    tokens_granted: int = 0
    health_checks: Counter[str] = attrs.field(factory=Counter[str])
    batch_requests: int = 0
    batches: dict[str, list[int]] = attrs.field(factory=dict[str, list[int]])
    """The webhooks of each batch by the batch's key; one that is put again replaces itself."""
    reminders: Counter[str] = attrs.field(factory=Counter[str])
    questions: Counter[str] = attrs.field(factory=Counter[str])
    """How often the carrier was asked about each order."""

    def answer(self, method: str, path: str, body: Any) -> Any:
        """The answer to a request; ``None`` when the world is unable to give one."""
        _, place, *rest = path.split("/")
        match method, place, *map(unquote, rest):
            case "POST", "token":
                return self._token()
            case "GET", "health", service:
                return self._health(service)
            case "PUT", "batches", key:
                return self._batch(key, body)
            case "POST", "reminders":
                self.reminders[body["order"]] += 1
                return {}
            case "GET", "deliveries", order:
                return self._delivery(order)
            case _:
                return None

    def delivered(self, order: str) -> bool:
        """Whether the carrier has said so."""
        return self.questions[order] >= 3

    def _token(self) -> Any:
        self.token_requests += 1
        if self.token_requests % 7 in (4, 5):
            return None
        self.tokens_granted += 1
        return {"access_token": f"at_{self.tokens_granted}", "expires_in": 3600}

    def _health(self, service: str) -> Any:
        self.health_checks[service] += 1
        return {"healthy": service != "legacy" and self.health_checks[service] % 5 != 4}

    def _batch(self, key: str, numbers: list[int]) -> Any:
        self.batch_requests += 1
        if self.batch_requests % 9 == 4:
            return None
        self.batches[key] = numbers
        return {}

    def _delivery(self, order: str) -> Any:
        self.questions[order] += 1
        return None if self.questions[order] == 1 else {"delivered": self.delivered(order)}


class Outside(ThreadingHTTPServer):
    """The server of a ledger, on a free port of the loopback interface."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Visit)
        self.ledger = Ledger()
        self._one_at_a_time = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    @staticmethod
    def open() -> Effect[Outside, OSError, Need[Scope]]:
        """Serve until the scope ends; fails when no port can be had."""
        return Effect.acquire_release(
            Effect.attempt(_started, _as_os_error), lambda outside: Effect.from_thread(outside.close)
        )

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, method: str, path: str, body: Any) -> Any:
        """What the ledger answers, one request at a time."""
        with self._one_at_a_time:
            return self.ledger.answer(method, path, body)

    def handle_error(self, request: object, client_address: object) -> None:
        """Overlook a client that is gone: it was killed. What else goes wrong is a mistake here, and told."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(cast("socket", request), client_address)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def close(self) -> None:
        """Serve no more."""
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Visit(BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self) -> None:
        self._reply(None)

    def do_POST(self) -> None:
        self._reply(self._body())

    do_PUT = do_POST

    def _body(self) -> Any:
        length = int(self.headers["Content-Length"])
        data = self.rfile.read(length)
        if len(data) < length:
            raise ConnectionResetError("the client was killed while it sent this")
        return json.loads(data)

    def _reply(self, body: Any) -> None:
        answer = cast("Outside", self.server).answer(self.command, self.path, body)
        data = json.dumps(answer).encode()
        self.send_response(HTTPStatus.OK if answer is not None else HTTPStatus.SERVICE_UNAVAILABLE)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the terminal belongs to the demo."""


def _started() -> Outside:
    outside = Outside()
    outside.start()
    return outside


def _as_os_error(error: Exception) -> OSError:
    return error if isinstance(error, OSError) else OSError(str(error))

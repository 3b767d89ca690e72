"""Events to an HTTP endpoint: ``POST {"events": [...]}`` to the URL of a :class:`Tracker`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from typing_extensions import Never

from durable_effect import Do, Effect, Need, Scope
from durable_effect.canonical_json import to_json_bytes
from durable_effect_jobs.events import Event, to_wire
from durable_effect_jobs.telemetry import SendError
from durable_effect_jobs.tracker import Tracker

try:
    import httpx2
except ImportError as missing:
    raise ImportError("sending telemetry needs httpx2: pip install 'durable-effect[http]'") from missing

__all__ = ["HttpSink"]

_TOO_MANY_REQUESTS = 429
_SERVER_ERRORS = 500


class HttpSink:
    """Posts batches. Network errors, timeouts, 429 and 5xx are worth another try; other answers are final."""

    def __init__(self, tracker: Tracker, endpoint: str, client: httpx2.AsyncClient) -> None:
        self._tracker = tracker
        self._endpoint = endpoint
        self._client = client
        own = {"env": tracker.env, "serviceKey": tracker.service_key}
        self._signature = {name: value for name, value in own.items() if value is not None}

    @staticmethod
    @Effect.gen
    def open(tracker: Tracker, endpoint: str) -> Do[HttpSink, Never, Need[Scope]]:
        """A sink whose connections are closed with the scope."""
        client = yield from Effect.sync(lambda: httpx2.AsyncClient(timeout=tracker.timeout.total_seconds()))
        yield from Effect.add_finalizer(lambda _: Effect.from_async(client.aclose))
        return HttpSink(tracker, endpoint, client)

    def send(self, events: Sequence[Event]) -> Effect[None, SendError]:
        """One request for the batch."""
        body = to_json_bytes({"events": [{**to_wire(event), **self._signature} for event in events]})

        async def post() -> int:
            # The client's own limit is for each read and write; an endpoint that dribbles would outlast it.
            async with asyncio.timeout(self._tracker.timeout.total_seconds()):
                headers = {"content-type": "application/json", **self._tracker.headers}
                answer = await self._client.post(self._endpoint, content=body, headers=headers)
                return int(answer.status_code)

        return Effect.from_async(post, _unreached).flat_map(self._judge)

    def _judge(self, status: int) -> Effect[None, SendError]:
        if 200 <= status < 300:
            return Effect.void
        retryable = status == _TOO_MANY_REQUESTS or status >= _SERVER_ERRORS
        return Effect.fail(SendError(f"{self._endpoint} answered {status}", retryable))


def _unreached(error: Exception) -> SendError:
    if isinstance(error, httpx2.HTTPError | TimeoutError | OSError):
        return SendError(f"{type(error).__name__}: {error}", retryable=True)
    raise error

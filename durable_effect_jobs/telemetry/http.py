"""Events to an HTTP endpoint: ``POST {"events": [...]}``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TypeAlias

from typing_extensions import Never

from durable_effect import Clock, Do, Effect, Need, Scope
from durable_effect.canonical_json import to_json_bytes
from durable_effect.duration import Span, to_timedelta
from durable_effect_jobs.events import Event, to_wire
from durable_effect_jobs.telemetry.sink import SendError

try:
    import httpx2
except ImportError as missing:
    raise ImportError(
        "sending telemetry to an endpoint needs httpx2: pip install 'durable-effect[http]',"
        " or give the tracker a sink= instead"
    ) from missing

__all__ = ["HttpSink"]

_TOO_LARGE = 413
_TOO_MANY_REQUESTS = 429
_MOST_BODY_BYTES = 1 << 20
_MOST_ANSWER_BYTES = 1 << 16
_LONGEST_DELAY_DIGITS = 9

_Answer: TypeAlias = tuple[int, str | None]
"""The status, and what ``Retry-After`` says."""


class HttpSink:
    """Posts batches. Network errors, timeouts, 429 and 5xx are worth another try; a 4xx is final.

    A body holds at most 1 MiB, unless a single event is larger. Redirects are not followed: the batch waits
    until the endpoint takes it. Log lines name only the endpoint's scheme, host and port.
    """

    def __init__(
        self, client: httpx2.AsyncClient, endpoint: httpx2.URL, signature: Mapping[str, str]
    ) -> None:
        self._client = client
        self._endpoint = endpoint
        self._signature = signature
        self._origin = _origin(endpoint)

    @staticmethod
    @Effect.gen
    def open(
        endpoint: str,
        *,
        env: str | None = None,
        service_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: Span = "10 seconds",
    ) -> Do[HttpSink, Never, Need[Scope]]:
        """A sink whose connections are closed with the scope.

        ``env`` and ``service_key`` are added to each event. ``timeout`` is for each step of a request:
        connecting, each read, each write.
        """
        url = httpx2.URL(endpoint)
        all_headers = httpx2.Headers({"content-type": "application/json"})
        all_headers.update(headers or {})
        limit = to_timedelta(timeout).total_seconds()
        client = yield from Effect.sync(
            lambda: httpx2.AsyncClient(headers=all_headers, timeout=limit, follow_redirects=False)
        )
        yield from Effect.add_finalizer(lambda _: Effect.from_async(client.aclose))
        yield from _keep_out_of_the_log(url)
        signature = {"env": env, "serviceKey": service_key}
        return HttpSink(client, url, {name: value for name, value in signature.items() if value is not None})

    def send(self, events: Sequence[Event]) -> Effect[None, SendError]:
        """One request for the batch."""
        return Effect.suspend(lambda: self._post(self._body(events))).flat_map(self._judge)

    def _body(self, events: Sequence[Event]) -> bytes | None:
        """The request's body, or nothing when it would be too large for several events."""
        parts: list[bytes] = []
        size = 0
        for event in events:
            parts.append(to_json_bytes({**to_wire(event), **self._signature}))
            size += len(parts[-1]) + 1
            if size > _MOST_BODY_BYTES and len(events) > 1:
                return None  # the rest need not be encoded: others wait for this thread
        return b'{"events":[' + b",".join(parts) + b"]}"

    def _post(self, body: bytes | None) -> Effect[_Answer, SendError]:
        if body is None:
            return Effect.fail(SendError("the batch is too large for a request", False, too_large=True))

        async def post() -> _Answer:
            async with self._client.stream("POST", self._endpoint, content=body) as answer:
                await _read_some(answer)
                return answer.status_code, answer.headers.get("retry-after")

        return Effect.from_async(post, self._unreached)

    @Effect.gen
    def _judge(self, answer: _Answer) -> Do[None, SendError]:
        status, requested_wait = answer
        if 200 <= status < 300:
            return
        now = yield from Clock.now()
        yield from Effect.fail(
            SendError(
                f"{self._origin} answered {status}",
                status == _TOO_MANY_REQUESTS or not 400 <= status < 500,
                retry_after=_wait(requested_wait, now),
                too_large=status == _TOO_LARGE,
            )
        )

    def _unreached(self, error: Exception) -> SendError:
        if isinstance(error, httpx2.NetworkError | httpx2.ProxyError):
            return SendError(f"{self._origin}: {type(error).__name__}: {error}", True)
        if isinstance(error, httpx2.HTTPError | OSError):
            return SendError(f"{self._origin}: {type(error).__name__}", True)  # its text may quote headers
        raise error


async def _read_some(answer: httpx2.Response) -> None:
    """To the end, so that the connection can be used again and a cut one shows; but not without bounds."""
    size = 0
    async for chunk in answer.aiter_raw():
        size += len(chunk)
        if size > _MOST_ANSWER_BYTES:
            return


def _wait(requested: str | None, now: datetime) -> timedelta | None:
    """What ``Retry-After`` says (RFC 9110, 10.2.3): seconds or a date. What cannot be read is ignored."""
    if requested is None:
        return None
    text = requested.strip()
    if text.isascii() and text.isdigit():
        return timedelta(seconds=int(text[:_LONGEST_DELAY_DIGITS]))
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(timedelta(0), (at if at.tzinfo is not None else at.replace(tzinfo=UTC)) - now)


def _origin(url: httpx2.URL) -> str:
    """All of the endpoint that may be logged: what comes behind it, or before an ``@``, is often secret."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


@Effect.gen
def _keep_out_of_the_log(url: httpx2.URL) -> Do[None, Never, Need[Scope]]:
    """httpx2 logs the URL of each request, with all that stands in it."""

    def mask(record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(_origin(url) if argument == url else argument for argument in record.args)
        return True

    logger = logging.getLogger(httpx2.__name__)
    logger.addFilter(mask)
    yield from Effect.add_finalizer(lambda _: Effect.sync(lambda: logger.removeFilter(mask)))

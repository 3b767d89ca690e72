"""Where telemetry goes: the endpoint or sink of an application, and what it may be told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import attrs

from durable_effect.duration import Span, to_timedelta
from durable_effect_jobs.telemetry import Sink

__all__ = ["Tracker"]

# RFC 9110, 5.1 and 5.5: the name is a token, the value has no control characters but the tab.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def _http(_: object, __: object, value: str | None) -> None:
    if value is None:
        return
    if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise ValueError(f"endpoint= takes an http or https URL, got {value!r}")
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"endpoint= takes an http or https URL, got {_shown(value)!r}")


def _shown(endpoint: str) -> str:
    """Without what stands before an ``@`` and behind the host: these often hold tokens."""
    parts = urlsplit(endpoint)
    if not parts.netloc:
        return endpoint.partition("?")[0].rpartition("@")[2]
    origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    return f"{origin}/..." if parts.path.strip("/") or parts.query else origin


def _endpoint_repr(endpoint: str | None) -> str:
    return repr(None if endpoint is None else _shown(endpoint))


def _sendable(_: object, __: object, headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"headers= has {name!r}, which cannot be the name of a header")
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"headers= has a value for {name!r} that cannot be sent")


def _sends(_: object, __: object, sink: Any) -> None:
    if sink is not None and (isinstance(sink, type) or not callable(getattr(sink, "send", None))):
        raise TypeError(f"sink= takes something that can send(events), such as LogSink(), got {sink!r}")


def _span(value: Span) -> timedelta:
    return to_timedelta(value, positive=True, name="timeout")


def _copied(headers: Mapping[str, str]) -> dict[str, str]:
    return dict(headers)


@attrs.frozen
class Tracker:
    """Send events to ``endpoint`` as ``POST {"events": [...]}``, each with this ``env`` and ``service_key``.

    Or give them to a ``sink``, such as ``LogSink()`` of ``durable_effect_jobs.telemetry``; ``env``,
    ``service_key`` and ``headers`` are for an endpoint. With neither, events stay in the storage's outbox,
    which is bounded: beyond that the oldest are dropped.

    States and inputs are left out unless ``include_state=True``: they may hold tokens.
    """

    endpoint: str | None = attrs.field(default=None, validator=_http, repr=_endpoint_repr)
    env: str | None = None
    service_key: str | None = attrs.field(default=None, repr=False)
    sink: Sink | None = attrs.field(default=None, validator=_sends, kw_only=True)
    batch_size: int = attrs.field(default=100, validator=attrs.validators.ge(1), kw_only=True)
    headers: Mapping[str, str] = attrs.field(
        factory=dict[str, str], converter=_copied, validator=_sendable, repr=False, kw_only=True
    )
    timeout: timedelta = attrs.field(default=timedelta(seconds=10), converter=_span, kw_only=True)
    """How long a batch may take, until it is tried again."""
    include_state: bool = attrs.field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.endpoint is not None and self.sink is not None:
            raise ValueError("a Tracker takes endpoint= or sink=, not both")

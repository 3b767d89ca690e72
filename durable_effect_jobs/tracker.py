"""Where telemetry goes: the endpoint of an application, and what it may be told."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import urlsplit

import attrs

from durable_effect.duration import Span, to_timedelta

__all__ = ["Tracker"]


def _http(_: object, __: object, value: str | None) -> None:
    if value is None:
        return
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"endpoint= takes an http or https URL, got {value!r}")


def _span(value: Span) -> timedelta:
    return to_timedelta(value, positive=True, name="timeout")


@attrs.frozen
class Tracker:
    """Send events to ``endpoint`` as ``POST {"events": [...]}``, each with this ``env`` and ``service_key``.

    States and inputs are left out unless ``include_state=True``: they may hold tokens. Without an endpoint
    events stay in the storage's outbox, for a sender of your own.
    """

    endpoint: str | None = attrs.field(default=None, validator=_http)
    env: str | None = None
    service_key: str | None = None
    batch_size: int = attrs.field(default=100, validator=attrs.validators.ge(1), kw_only=True)
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False, kw_only=True)
    timeout: timedelta = attrs.field(default=timedelta(seconds=10), converter=_span, kw_only=True)
    include_state: bool = attrs.field(default=False, kw_only=True)

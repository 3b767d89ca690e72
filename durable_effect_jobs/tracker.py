"""Where telemetry goes: the endpoint of an application, and what it may be told."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import urlsplit

import attrs

from durable_effect.duration import Span, to_timedelta

__all__ = ["Tracker"]


def _http(_: object, __: object, value: str) -> None:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"endpoint= takes an http or https URL, got {value!r}")


def _span(value: Span) -> timedelta:
    return to_timedelta(value, positive=True, name="timeout")


@attrs.frozen(kw_only=True)
class Tracker:
    """Send events to ``endpoint`` as ``POST {"events": [...]}``, each with this ``env`` and ``service_key``.

    States and inputs are left out unless ``include_state=True``: they may hold tokens.
    """

    endpoint: str = attrs.field(validator=_http)
    env: str
    service_key: str
    batch_size: int = attrs.field(default=100, validator=attrs.validators.ge(1))
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)
    timeout: timedelta = attrs.field(default=timedelta(seconds=10), converter=_span)
    include_state: bool = False

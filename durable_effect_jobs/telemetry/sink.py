"""The port to where events go."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

import attrs

from durable_effect import Effect, TypedError
from durable_effect_jobs.events import Event

__all__ = ["SendError", "Sink"]


@attrs.frozen
class SendError(TypedError):
    """A batch was not delivered; ``retryable`` when trying again may help.

    The problem is logged: it must not hold credentials.
    """

    problem: str
    retryable: bool
    retry_after: timedelta | None = attrs.field(default=None, kw_only=True)
    """How long the other side asked to be left alone."""
    too_large: bool = attrs.field(default=False, kw_only=True)
    """Whether a smaller batch may be taken; the sender cuts it in half until it holds one event."""

    def __str__(self) -> str:
        return self.problem


class Sink(Protocol):
    """Where events go. Batches come one at a time."""

    def send(self, events: Sequence[Event]) -> Effect[None, SendError]:
        """Deliver a batch, all of it or nothing that counts: after a failure the same events come again."""
        ...

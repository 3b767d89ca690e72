"""Telemetry: what steps reported, brought to where it is watched.

Events commit with their step, in the storage's outbox, and are sent afterwards: in batches, oldest first, so
each instance's are in order. An event leaves the outbox when it was delivered, so every one is delivered at
least once, and ``event_id`` tells repeats. Nothing here delays a call or an alarm.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

import attrs
from typing_extensions import Never

from durable_effect import Backoff, Do, Effect, Need, Random, Scope, TypedError
from durable_effect_jobs.errors import StorageError
from durable_effect_jobs.events import Event
from durable_effect_jobs.storage import Storage

__all__ = ["SendError", "Sink", "deliver_batch", "start_sender"]

_logger = logging.getLogger("durable_effect_jobs.telemetry")

_LOOK_AGAIN = timedelta(seconds=1)
_LAST_TRY = timedelta(seconds=2)
_AFTER_FAILURES = Backoff.exponential("1 second", max="1 minute")


@attrs.frozen
class SendError(TypedError):
    """A batch was not delivered; ``retryable`` when trying again may help."""

    problem: str
    retryable: bool

    def __str__(self) -> str:
        return self.problem


class Sink(Protocol):
    """Where events go."""

    def send(self, events: Sequence[Event]) -> Effect[None, SendError]:
        """Deliver a batch, all of it or nothing that counts."""
        ...


@Effect.gen
def start_sender(storage: Storage, sink: Sink, batch_size: int) -> Do[None, Never, Need[Scope]]:
    """Deliver in the background until the scope ends; then try once more, briefly. The rest is kept."""
    rest = deliver_batch(storage, sink, batch_size).ignore().timeout_option(_LAST_TRY).interruptible()
    yield from Effect.add_finalizer(lambda _: rest)
    yield from _deliver(storage, sink, batch_size).fork_scoped()


@Effect.gen
def _deliver(storage: Storage, sink: Sink, batch_size: int) -> Do[Never]:
    failures = 0
    while True:
        delivered = yield from deliver_batch(storage, sink, batch_size).catch_all(_report)
        if delivered is None:
            failures += 1
            roll = yield from Random.uniform(-1.0, 1.0)
            yield from Effect.sleep(_AFTER_FAILURES.jittered(failures, roll))
            continue
        failures = 0
        if delivered < batch_size:
            yield from Effect.sleep(_LOOK_AGAIN)


def _report(error: SendError | StorageError) -> Effect[None]:
    return Effect.sync(lambda: _logger.warning("events wait to be sent: %s", error))


@Effect.gen
def deliver_batch(storage: Storage, sink: Sink, batch_size: int) -> Do[int, SendError | StorageError]:
    """Send the oldest events and take them out of the outbox; answers how many there were.

    A batch that the other side refuses for good is dropped, with an error in the log: it would stand in the
    way of all others.
    """
    events = yield from storage.pending_events(batch_size)
    if not events:
        return 0

    def refused(error: SendError) -> Effect[None, SendError]:
        if error.retryable:
            return Effect.fail(error)
        return Effect.sync(
            lambda: _logger.error("%d events were refused and are dropped: %s", len(events), error)
        )

    yield from sink.send(events).catch_all(refused)
    yield from storage.events_sent([event.event_id for event in events])
    return len(events)

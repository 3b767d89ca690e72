"""From the outbox to the sink, in the background.

    look ──> send ──> remove ──> look
     │        │                   nothing left: again in a second
     │        ├ too large         the first half of it, at once
     │        ├ refused for good  given up, counted, and removed like a delivered one
     │        └ may work later    again after 1 s, 2 s, 4 s ... a minute, or when the other side said
     └ end of the scope           once more until all is sent or something fails, within two seconds

There is one batch under way at a time and none overtakes another, so each instance's events stay in order.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta

from typing_extensions import Never

from durable_effect import (
    Backoff,
    Cause,
    Do,
    Duration,
    Effect,
    EffectTimeout,
    Fiber,
    Latch,
    Need,
    Random,
    Scope,
)
from durable_effect.duration import Span, to_timedelta
from durable_effect_jobs.errors import StorageError
from durable_effect_jobs.events import Event
from durable_effect_jobs.storage import Storage
from durable_effect_jobs.telemetry.sink import SendError, Sink

__all__ = ["start_sender"]

_logger = logging.getLogger("durable_effect_jobs.telemetry")

_AT_ONCE = timedelta(0)
_LOOK_AGAIN = timedelta(seconds=1)
_AFTER_FAILURES = Backoff.exponential("1 second", max="1 minute")
_LONGEST_REQUESTED_WAIT = timedelta(minutes=10)


@Effect.gen
def start_sender(
    storage: Storage,
    sink: Sink,
    *,
    batch_size: int = 100,
    timeout: Span = "10 seconds",
    last_try: Span = "2 seconds",
) -> Do[None, Never, Need[Scope]]:
    """Deliver the storage's events in the background until the scope ends; then try once more, briefly.

    ``timeout`` is for each batch, ``last_try`` for all that is tried at the end. What is not delivered by
    then stays in the storage, for the next sender.
    """
    sender = _Sender(storage, sink, batch_size, to_timedelta(timeout))
    fiber = yield from sender.run().fork_scoped()
    yield from Effect.add_finalizer(lambda _: sender.finish(fiber, to_timedelta(last_try)))


class _Sender:
    """What is known between two batches."""

    __slots__ = (
        "_dropped",
        "_failures",
        "_finishing",
        "_more",
        "_most",
        "_settled",
        "_sink",
        "_size",
        "_storage",
        "_timeout",
    )

    def __init__(self, storage: Storage, sink: Sink, batch_size: int, timeout: timedelta) -> None:
        self._storage = storage
        self._sink = sink
        self._timeout = timeout
        self._most = batch_size
        self._size = batch_size
        """How many events the next batch holds: fewer than asked for after one that was too large."""
        self._settled: list[str] = []
        """The ids of what was delivered or given up, until they are removed: that may take several tries."""
        self._more = False
        """Whether there was more in the outbox than what was settled."""
        self._failures = 0
        self._dropped = 0
        self._finishing = Latch()

    @Effect.gen
    def run(self) -> Do[None]:
        """Go on until told to finish."""
        while True:
            last = self._finishing.is_open
            rest = yield from self._round().catch_all(self._failed).catch_cause(self._died)
            if rest and last:
                return
            if rest:
                yield from self._finishing.await_().timeout_option(rest)

    @Effect.gen
    def finish(self, running: Fiber[None, Never], within: timedelta) -> Do[None]:
        """Let it empty the outbox if that can be done in this time."""
        yield from self._finishing.open()
        yield from running.await_().interruptible().timeout_option(within)

    @Effect.gen
    def _round(self) -> Do[timedelta, SendError | EffectTimeout | StorageError]:
        """One batch, from the outbox to its removal; answers how long to rest before the next."""
        if not self._settled:
            asked = self._size
            events = yield from self._storage.pending_events(asked)
            settled = (yield from self._send(events)) if events else 0
            self._settled = [event.event_id for event in events[:settled]]
            self._more = settled < len(events) or len(events) == asked
        if self._settled:
            yield from self._storage.events_sent(self._settled)
            self._settled = []
        self._recovered()
        return _AT_ONCE if self._more else _LOOK_AGAIN

    def _send(self, events: Sequence[Event]) -> Effect[int, SendError | EffectTimeout]:
        """Answers how many of these, from the first, need no more sending."""

        def refused(error: SendError) -> Effect[int, SendError | EffectTimeout]:
            if error.too_large and len(events) > 1:
                self._size = len(events) // 2
                return self._send(events[: self._size])
            return Effect.fail(error) if error.retryable else Effect.sync(lambda: self._drop(events, error))

        def delivered(_: None) -> int:
            # Carefully back to the size asked for: each batch that is too large is sent in vain.
            self._size = min(self._most, self._size + 1 + self._size // 10)
            return len(events)

        sent = self._sink.send(events).map(delivered)
        return sent.timeout(self._timeout).catch_all(
            lambda error: refused(error) if isinstance(error, SendError) else Effect.fail(error)
        )

    def _drop(self, events: Sequence[Event], error: SendError) -> int:
        """Give up what the other side will never take: it would stand in the way of all others."""
        self._dropped += len(events)
        _logger.error(
            "%d events were refused and are dropped, %d so far: %s", len(events), self._dropped, error
        )
        return len(events)

    @Effect.gen
    def _failed(self, error: SendError | EffectTimeout | StorageError) -> Do[timedelta]:
        rest = yield from self._rest()
        if isinstance(error, SendError) and error.retry_after is not None:
            rest = max(rest, min(error.retry_after, _LONGEST_REQUESTED_WAIT))
        late = isinstance(error, EffectTimeout)
        problem = f"no answer within {Duration.format(self._timeout)}" if late else error
        _logger.warning(
            "events wait to be sent, tried %d times, again in %.1f s: %s",
            self._failures,
            rest.total_seconds(),
            problem,
        )
        return rest

    def _died(self, cause: Cause[Never]) -> Effect[timedelta]:
        """A sink or a storage with a defect keeps its events: the next version may be without."""
        _logger.error("events wait to be sent: sending them has a defect", exc_info=cause.squash())
        return self._rest()

    @Effect.gen
    def _rest(self) -> Do[timedelta]:
        self._failures += 1
        roll = yield from Random.uniform(-1.0, 1.0)
        return _AFTER_FAILURES.jittered(self._failures, roll)

    def _recovered(self) -> None:
        if self._failures:
            _logger.info("events are sent again, after %d failures", self._failures)
        self._failures = 0

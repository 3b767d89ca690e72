"""Events to the log."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from durable_effect import Effect
from durable_effect.canonical_json import to_json_bytes
from durable_effect_jobs.events import Event, to_wire

__all__ = ["LogSink"]


class LogSink:
    """Write each event to a logger, as one line of JSON in its wire form: ``Tracker(sink=LogSink())``.

    The logger is ``durable_effect_jobs.telemetry.events`` and the level INFO, unless told otherwise; where
    that level is off, events are let go unseen. Handlers find the JSON object as ``record.event``.
    """

    def __init__(
        self, logger: str | logging.Logger = "durable_effect_jobs.telemetry.events", level: int = logging.INFO
    ) -> None:
        self._logger = logging.getLogger(logger) if isinstance(logger, str) else logger
        self._level = level

    def send(self, events: Sequence[Event]) -> Effect[None]:
        """Log the events in their order."""
        return Effect.sync(lambda: self._log(events))

    def _log(self, events: Sequence[Event]) -> None:
        if self._logger.isEnabledFor(self._level):
            for event in events:
                wire = to_wire(event)
                self._logger.log(self._level, "%s", to_json_bytes(wire).decode(), extra={"event": wire})

"""Telemetry: what steps reported, brought to where it is watched.

Events commit with their step, in the storage's outbox, and are sent afterwards: in batches, oldest first, so
each instance's are in order. An event leaves the outbox when it was delivered, so every one is delivered at
least once, and ``event_id`` tells repeats. Nothing here delays a call or an alarm.

A :class:`Sink` is where they go: :class:`LogSink`, :class:`MemorySink`, ``telemetry.http.HttpSink`` (which
needs httpx2), or one of your own.
"""

from __future__ import annotations

from durable_effect_jobs.telemetry.log import LogSink
from durable_effect_jobs.telemetry.memory import MemorySink
from durable_effect_jobs.telemetry.sender import start_sender
from durable_effect_jobs.telemetry.sink import SendError, Sink

__all__ = ["LogSink", "MemorySink", "SendError", "Sink", "start_sender"]

"""Calls from outside, kept until a worker has acknowledged them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any, Protocol

import attrs

__all__ = ["ORDERS", "WEBHOOKS", "Courier", "Recipient"]

WEBHOOKS = "webhookBatcher"
ORDERS = "orderProcessor"


class Recipient(Protocol):
    """Who takes calls."""

    def write(self, request: dict[str, Any]) -> None:
        """Take this one; whether it arrives shows when it is acknowledged."""
        ...


@attrs.define
class Courier:
    """Brings calls to the worker, and keeps each until it is acknowledged, whoever the worker is by then."""

    accepted: dict[int, dict[str, Any]] = attrs.field(factory=dict[int, dict[str, Any]])
    waiting: dict[int, dict[str, Any]] = attrs.field(factory=dict[int, dict[str, Any]])
    refused: dict[int, str] = attrs.field(factory=dict[int, str])
    worker: Recipient | None = None
    _refs: Iterator[int] = attrs.field(factory=lambda: count(1))

    def start(self, job: str, name: str, initial: dict[str, Any]) -> None:
        """Start a recurring job."""
        self._send(next(self._refs), "start", job, {"id": name, "input": initial})

    def add_webhook(self, contact: str) -> None:
        """Bring a webhook. Its number is that of the call, by which a repeated call is known."""
        ref = next(self._refs)
        webhook = {"number": ref, "type": "contact.updated"}
        self._send(ref, "add", WEBHOOKS, {"id": contact, "event": webhook, "event_id": str(ref)})

    def send_order(self, order: str, event: dict[str, Any]) -> None:
        """Tell what became of an order."""
        ref = next(self._refs)
        self._send(ref, "send", ORDERS, {"id": order, "event": event, "event_id": str(ref)})

    def _send(self, ref: int, call: str, job: str, what: dict[str, Any]) -> None:
        request = {"ref": ref, "call": call, "job": job, "what": what}
        self.waiting[ref] = request
        if self.worker is not None:
            self.worker.write(request)

    def serve(self, worker: Recipient | None) -> None:
        """Go to this worker from now on, with everything that the last one did not acknowledge."""
        self.worker = worker
        if worker is not None:
            for request in self.waiting.values():
                worker.write(request)

    def acknowledged(self, ref: int) -> None:
        """The call is durable."""
        self.accepted[ref] = self.waiting.pop(ref)

    def refuse(self, ref: int, reason: str) -> None:
        """The call failed."""
        del self.waiting[ref]
        self.refused[ref] = reason

    def refs(self, job: str) -> set[int]:
        """The calls to a job that were acknowledged."""
        return {ref for ref, request in self.accepted.items() if request["job"] == job}

"""What happens in the demo: calls come in, the worker is killed, another takes over, the books are checked.

    Outside (HTTP)  <-- handlers --  worker process  -- records -->  SQLite file
         |                             ^        |
      ledger                        calls   acknowledgements
         |                             |        v
         +--------- checked ---------  Courier, in this process

The file belongs to the worker while it runs. Here it is opened once, when no worker is left, to be checked
against two other witnesses: the calls that were acknowledged, and the ledger of the world outside.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import attrs

from durable_effect import Clock, Do, Effect, Need, Scope
from durable_effect_jobs.demo.books import Check, audit
from durable_effect_jobs.demo.child import DemoFailed, Worker
from durable_effect_jobs.demo.courier import WEBHOOKS, Courier
from durable_effect_jobs.demo.outside import Outside
from durable_effect_jobs.demo.worker import instance_from_json
from durable_effect_jobs.errors import StorageError
from durable_effect_jobs.instance import Instance
from durable_effect_jobs.storage.open import open_storage

__all__ = ["Outcome", "Scene", "Stage", "play"]


@attrs.frozen(kw_only=True)
class Scene:
    """What there is to see at one moment."""

    now: datetime
    elapsed_s: float
    worker: str
    instances: tuple[Instance, ...]
    accepted: int
    waiting: int
    delivered: int
    batches: int


class Stage(Protocol):
    """Where the demo is shown."""

    def show(self, scene: Scene) -> None:
        """A new moment, several times a second."""
        ...

    def tell(self, elapsed_s: float, who: str, what: str, *, alarming: bool = False) -> None:
        """Something happened."""
        ...


@attrs.frozen
class Outcome:
    """How it ended."""

    killed_pid: int
    checks: tuple[Check, ...]

    @property
    def all_hold(self) -> bool:
        """Whether nothing was lost."""
        return all(check.holds for check in self.checks)


@Effect.gen
def play(
    url: str, seconds: float, log: Path, stage: Stage
) -> Do[Outcome, DemoFailed | StorageError, Need[Scope]]:
    """Play for about so long, on a new storage at ``url``, and answer what the books say.

    What workers write to their standard error goes to ``log``.
    """
    yield from _records(url)  # a file that cannot be used is found here, before anything starts
    outside = yield from Outside.open().map_error(lambda error: DemoFailed(f"could not serve: {error}"))
    started_at = yield from Clock.now()
    show = _Show(url=url, outside=outside, log=log, stage=stage, started_at=started_at)
    half = timedelta(seconds=seconds / 2)
    yield from show.present().fork_scoped()
    first = yield from show.hire()
    traffic = yield from show.traffic().fork_scoped()
    yield from first.outlives(Effect.sleep(half))
    before = show.instances
    yield from show.kill(first)
    yield from Effect.sleep("800 ms")
    second = yield from show.hire()
    yield from second.outlives(Effect.sleep(half))
    yield from traffic.interrupt()
    yield from second.dismiss()
    after = yield from _records(url)
    return Outcome(first.pid, audit(show.courier, outside.ledger, before, after))


def _records(url: str) -> Effect[tuple[Instance, ...], StorageError]:
    """What is stored, now that no worker has the file."""
    return open_storage(url).flat_map(lambda storage: storage.instances(limit=1000)).map(tuple).scoped()


# -- the show ----------------------------------------------------------------------------------------


@attrs.define(kw_only=True)
class _Show:
    """Everything that goes on at once."""

    url: str
    outside: Outside
    log: Path
    stage: Stage
    started_at: datetime
    courier: Courier = attrs.field(factory=Courier)
    instances: tuple[Instance, ...] = ()
    worker: str = "starting"

    @Effect.gen
    def hire(self) -> Do[Worker, DemoFailed, Need[Scope]]:
        """Start a worker, and give it the calls that wait."""
        worker = yield from Worker.start(self.url, self.outside.url, self.log)
        self.worker = f"worker {worker.pid} is starting"
        yield from self._listen(worker).ensuring(Effect.sync(worker.heard_out.set)).fork_scoped()
        yield from worker.outlives(Effect.from_async(worker.ready.wait))
        self.worker = f"worker {worker.pid} is running"
        yield from self._tell(f"worker {worker.pid}", f"has {Path(self.url).name} and runs the jobs")
        self.courier.serve(worker)
        return worker

    @Effect.gen
    def kill(self, worker: Worker) -> Do[None]:
        """Kill the worker in the middle of whatever it is doing."""
        code = yield from worker.kill()
        self.courier.serve(None)
        yield from Effect.from_async(worker.heard_out.wait)
        self.worker = f"worker {worker.pid} is dead"
        yield from self._tell(f"worker {worker.pid}", f"killed with SIGKILL: exit code {code}", alarming=True)

    @Effect.gen
    def _listen(self, worker: Worker) -> Do[None]:
        while line := (yield from worker.lines()):
            if line.endswith(b"\n"):  # a killed worker may leave half a line
                yield from self._hear(worker, json.loads(line))

    @Effect.gen
    def _hear(self, worker: Worker, said: dict[str, Any]) -> Do[None]:
        match said:
            case {"ready": True}:
                worker.ready.set()
            case {"acknowledged": ref}:
                self.courier.acknowledged(ref)
            case {"refused": ref, "reason": reason}:
                self.courier.refuse(ref, reason)
                yield from self._tell(f"call {ref}", f"was refused: {reason}", alarming=True)
            case {"instances": instances}:
                self.instances = tuple(instance_from_json(told) for told in instances)
            case {"log": text, "instance_id": who, "level": level}:
                yield from self._tell(who, text.removeprefix(f"{who} "), alarming=level > 20)
            case _:
                raise ValueError(f"a worker said {said!r}")

    @Effect.gen
    def _tell(self, who: str, what: str, *, alarming: bool = False) -> Do[None]:
        now = yield from Clock.now()
        self.stage.tell((now - self.started_at).total_seconds(), who, what, alarming=alarming)

    @Effect.gen
    def present(self) -> Do[None]:
        """Show where things stand, ten times a second."""
        while True:
            now = yield from Clock.now()
            self.stage.show(self._scene(now))
            yield from Effect.sleep("100 ms")

    def _scene(self, now: datetime) -> Scene:
        delivered = list(self.outside.ledger.batches.values())
        return Scene(
            now=now,
            elapsed_s=(now - self.started_at).total_seconds(),
            worker=self.worker,
            instances=self.instances,
            accepted=len(self.courier.refs(WEBHOOKS)),
            waiting=len(self.courier.waiting),
            delivered=sum(map(len, delivered)),
            batches=len(delivered),
        )

    # -- what comes in

    @Effect.gen
    def traffic(self) -> Do[None]:
        """Start the recurring jobs, then send webhooks and orders for ever."""
        self.courier.start("tokenRefresher", "user-123", {"refresh_token": "rt_abc"})
        self.courier.start("healthChecker", "api", {})
        self.courier.start("healthChecker", "legacy", {})
        streams = [
            self._webhooks("contact-1", "120 ms"),
            self._webhooks("contact-2", "350 ms"),
            self._webhooks("contact-3", "1300 ms"),
            self._orders(),
        ]
        yield from Effect.all(streams, concurrency="unbounded")

    @Effect.gen
    def _webhooks(self, contact: str, every: str) -> Do[None]:
        while True:
            self.courier.add_webhook(contact)
            yield from Effect.sleep(every)

    @Effect.gen
    def _orders(self) -> Do[None]:
        """A new order every so often; each is paid late, and then shipped."""
        for number in count(1):
            yield from self._order(f"order-{number}").fork()
            yield from Effect.sleep("1600 ms")

    @Effect.gen
    def _order(self, order: str) -> Do[None]:
        self.courier.send_order(order, {"_tag": "OrderPlaced"})
        yield from Effect.sleep("900 ms")
        self.courier.send_order(order, {"_tag": "PaymentReceived"})
        yield from Effect.sleep("500 ms")
        self.courier.send_order(order, {"_tag": "Shipped", "tracking_number": f"1Z-{order}"})

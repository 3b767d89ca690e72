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

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import IO, Any, Protocol, cast

import attrs

from durable_effect import Clock, Do, Effect, Need, Scope, TypedError
from durable_effect_jobs.demo.jobs import WEB_URL
from durable_effect_jobs.demo.outside import Ledger, Outside
from durable_effect_jobs.demo.worker import instance_from_json
from durable_effect_jobs.errors import StorageError
from durable_effect_jobs.instance import Instance
from durable_effect_jobs.storage.open import open_storage

__all__ = ["Check", "DemoFailed", "Outcome", "Scene", "Stage", "play"]

_WEBHOOKS = "webhookBatcher"
_ORDERS = "orderProcessor"
_LONGEST_LINE_BYTES = 1 << 22


@attrs.frozen
class DemoFailed(TypedError):
    """The demo could not go on."""

    reason: str

    def __str__(self) -> str:
        return self.reason


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
class Check:
    """A claim, whether it holds, and the figures behind it."""

    claim: str
    holds: bool
    figures: str


@attrs.frozen(kw_only=True)
class Outcome:
    """How it ended."""

    killed_pid: int
    runs_before: dict[str, int]
    runs_after: dict[str, int]
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
    return Outcome(
        killed_pid=first.pid,
        runs_before=_runs(before),
        runs_after=_runs(after),
        checks=(
            _every_webhook_once(show.courier, outside.ledger, after),
            _runs_go_on(before, after),
            _tokens_match_runs(outside.ledger, after),
            _orders_are_delivered_or_open(show.courier, outside.ledger, after),
        ),
    )


def _records(url: str) -> Effect[tuple[Instance, ...], StorageError]:
    """What is stored, now that no worker has the file."""
    return open_storage(url).flat_map(lambda storage: storage.instances(limit=1000)).map(tuple).scoped()


# -- calls -----------------------------------------------------------------------------------------


@attrs.define
class Courier:
    """Brings calls to the worker, and keeps each until it is acknowledged, whoever the worker is by then."""

    accepted: dict[int, dict[str, Any]] = attrs.field(factory=dict[int, dict[str, Any]])
    waiting: dict[int, dict[str, Any]] = attrs.field(factory=dict[int, dict[str, Any]])
    refused: dict[int, str] = attrs.field(factory=dict[int, str])
    worker: _Worker | None = None
    _refs: Iterator[int] = attrs.field(factory=lambda: count(1))

    def start(self, job: str, name: str, initial: dict[str, Any]) -> None:
        """Start a recurring job."""
        self._send(next(self._refs), "start", job, {"id": name, "input": initial})

    def add_webhook(self, contact: str) -> None:
        """Bring a webhook. Its number is that of the call, by which a repeated call is known."""
        ref = next(self._refs)
        webhook = {"number": ref, "type": "contact.updated"}
        self._send(ref, "add", _WEBHOOKS, {"id": contact, "event": webhook, "event_id": str(ref)})

    def send_order(self, order: str, event: dict[str, Any]) -> None:
        """Tell what became of an order."""
        ref = next(self._refs)
        self._send(ref, "send", _ORDERS, {"id": order, "event": event, "event_id": str(ref)})

    def _send(self, ref: int, call: str, job: str, what: dict[str, Any]) -> None:
        request = {"ref": ref, "call": call, "job": job, "what": what}
        self.waiting[ref] = request
        if self.worker is not None:
            self.worker.write(request)

    def serve(self, worker: _Worker | None) -> None:
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


# -- the worker, seen from here ----------------------------------------------------------------------


class _Worker:
    """A child process that hosts the jobs."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._calls = cast("asyncio.StreamWriter", process.stdin)
        self._said = cast("asyncio.StreamReader", process.stdout)
        self._log = log
        self.ready = asyncio.Event()
        self.heard_out = asyncio.Event()

    @staticmethod
    def start(url: str, web_url: str, log: Path) -> Effect[_Worker, DemoFailed, Need[Scope]]:
        """Start one. It is killed when the scope ends, should it still be there."""

        async def spawn() -> _Worker:
            with log.open("ab") as errors:
                return _Worker(await _spawn(url, web_url, errors), log)

        starting = Effect.from_async(spawn, lambda error: DemoFailed(f"could not start a worker: {error}"))
        return Effect.acquire_release(starting, lambda worker: worker.kill())

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def write(self, request: dict[str, Any]) -> None:
        """Send a call. What a dead worker does not read is sent again to the next."""
        if self._process.returncode is None and not self._calls.is_closing():
            self._calls.write(json.dumps(request).encode() + b"\n")

    def lines(self) -> Effect[bytes]:
        """Its next line; empty when there will be no more."""
        return Effect.from_async(self._said.readline)

    @Effect.gen
    def kill(self) -> Do[int]:
        """Kill it, with the signal that no process can catch, and answer how it ended."""
        if self._process.returncode is None:
            self._process.kill()
        return (yield from Effect.from_async(self._process.wait))

    @Effect.gen
    def dismiss(self) -> Do[None, DemoFailed]:
        """Let it finish what it is doing, and listen to its last words."""
        self._calls.close()
        code = yield from Effect.from_async(self._process.wait)
        yield from Effect.from_async(self.heard_out.wait)
        if code != 0:
            yield from Effect.fail(self._died_of(code))

    @Effect.gen
    def outlives(self, effect: Effect[Any]) -> Do[None, DemoFailed]:
        """Run ``effect``; fails as soon as the worker ends before it."""
        ended = Effect.from_async(self._process.wait).map(self._died_of)
        failed = yield from effect.as_(None).race(ended)
        if failed is not None:
            yield from Effect.fail(failed)

    def _died_of(self, code: int) -> DemoFailed:
        last_words = self._log.read_text(errors="replace").strip().splitlines()[-12:]
        return DemoFailed("\n".join([f"the worker ended by itself, with exit code {code}", *last_words]))


async def _spawn(url: str, web_url: str, errors: IO[bytes]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "durable_effect_jobs.demo.worker",
        url,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=errors,
        env={**os.environ, WEB_URL: web_url},
        limit=_LONGEST_LINE_BYTES,
        start_new_session=True,  # Ctrl-C is for the demo, which then ends its worker
    )


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
    def hire(self) -> Do[_Worker, DemoFailed, Need[Scope]]:
        """Start a worker, and give it the calls that wait."""
        worker = yield from _Worker.start(self.url, self.outside.url, self.log)
        self.worker = f"worker {worker.pid} is starting"
        yield from self._listen(worker).fork_scoped()
        yield from worker.outlives(Effect.from_async(worker.ready.wait))
        self.worker = f"worker {worker.pid} is running"
        yield from self._tell(f"worker {worker.pid}", f"has {Path(self.url).name} and runs the jobs")
        self.courier.serve(worker)
        return worker

    @Effect.gen
    def kill(self, worker: _Worker) -> Do[None]:
        """Kill the worker in the middle of whatever it is doing."""
        code = yield from worker.kill()
        self.courier.serve(None)
        yield from Effect.from_async(worker.heard_out.wait)
        self.worker = f"worker {worker.pid} is dead"
        yield from self._tell(f"worker {worker.pid}", f"killed with SIGKILL: exit code {code}", alarming=True)

    @Effect.gen
    def _listen(self, worker: _Worker) -> Do[None]:
        while line := (yield from worker.lines()):
            if line.endswith(b"\n"):  # a killed worker may leave half a line
                yield from self._hear(worker, json.loads(line))
        worker.heard_out.set()

    @Effect.gen
    def _hear(self, worker: _Worker, said: dict[str, Any]) -> Do[None]:
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
        yield from Effect.void

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
            accepted=len(self.courier.refs(_WEBHOOKS)),
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


# -- the books ---------------------------------------------------------------------------------------


def _every_webhook_once(courier: Courier, ledger: Ledger, after: tuple[Instance, ...]) -> Check:
    """Each acknowledged webhook is in exactly one delivered batch, or in one that still waits."""
    accepted = courier.refs(_WEBHOOKS)
    delivered = Counter(number for batch in ledger.batches.values() for number in batch)
    buffered = Counter(
        webhook["number"]
        for instance in after
        if instance.key.kind == "debounce"
        for webhook in json.loads(instance.state or b"{}")["webhooks"]
    )
    found = delivered + buffered
    lost = accepted - found.keys()
    twice = [number for number, times in found.items() if times > 1]
    return Check(
        "every acknowledged webhook was delivered once, or still waits",
        not lost and not twice and not courier.waiting and not courier.refused,
        f"{len(accepted)} acknowledged = {delivered.total()} delivered in {len(ledger.batches)} batches"
        f" + {buffered.total()} waiting; {len(lost)} lost, {len(twice)} twice",
    )


def _runs_go_on(before: tuple[Instance, ...], after: tuple[Instance, ...]) -> Check:
    """The recurring jobs that were there at the kill are there at the end, with more runs."""
    then, now = _runs(before), _runs(after)
    surviving = {name: (runs, now[name]) for name, runs in then.items() if name in now}
    went_on = bool(surviving) and all(late > early for early, late in surviving.values())
    figures = ", ".join(f"{name} {early} -> {late}" for name, (early, late) in surviving.items())
    return Check("recurring jobs went on counting where they were", went_on, figures)


def _tokens_match_runs(ledger: Ledger, after: tuple[Instance, ...]) -> Check:
    """A run that the kill cut off may have got its token and is done again: the endpoint may be one ahead."""
    (refresher,) = (instance for instance in after if instance.key.job == "tokenRefresher")
    finished = refresher.run_count - (1 if refresher.failed_attempts else 0)
    return Check(
        "the token endpoint saw the runs that the job counts",
        finished <= ledger.tokens_granted <= finished + 1,
        f"{ledger.tokens_granted} tokens granted, {finished} refreshes finished",
    )


def _orders_are_delivered_or_open(courier: Courier, ledger: Ledger, after: tuple[Instance, ...]) -> Check:
    """An order is gone once the carrier has delivered it, and not before; events are counted once."""
    events = Counter(courier.accepted[ref]["what"]["id"] for ref in courier.refs(_ORDERS))
    still_open = {instance.key.id: instance for instance in after if instance.key.kind == "task"}
    done = events.keys() - still_open.keys()
    right = all(ledger.delivered(order) for order in done) and all(
        instance.event_count == events[order] for order, instance in still_open.items()
    )
    return Check(
        "every order was followed to its delivery, or still is",
        right,
        f"{len(events)} orders = {len(done)} delivered + {len(still_open)} open; "
        f"{events.total()} events, {ledger.reminders.total()} reminders",
    )


def _runs(instances: tuple[Instance, ...]) -> dict[str, int]:
    return {i.key.instance_id: i.run_count for i in instances if i.key.kind == "continuous"}

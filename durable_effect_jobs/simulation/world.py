"""One thread, virtual time: the processes of a simulation, their storage, and what happens between them.

The world is a queue of what will happen, in the order of virtual time; what happens at the same time comes in
an order that the seed rolls. Each process is a runtime of its own, with a real engine on it. It only goes on
when something that it waits for happens: it then runs until all of its fibers wait again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from types import GeneratorType
from typing import Any, cast
from zlib import crc32

import attrs

from durable_effect import Clock, Effect, Env, Exit, Failure, Layer, Random, Scope, Success
from durable_effect.exit import Cause
from durable_effect.ops import VOID, AnyEffect, Wait
from durable_effect.runtime import EMPTY, Fiber, Runtime, Waiter, from_exit
from durable_effect_jobs.client import JobsClient
from durable_effect_jobs.engine import Engine
from durable_effect_jobs.errors import StorageError
from durable_effect_jobs.instance import Instance, Key
from durable_effect_jobs.registry import Registry
from durable_effect_jobs.simulation.faults import FaultKind, Faults, FaultWindow, Injector, roll
from durable_effect_jobs.simulation.storage import SimulatedStorage, Statement
from durable_effect_jobs.simulation.watch import Broken, Watch, short_record
from durable_effect_jobs.storage import Storage

__all__ = ["Process", "World", "kill_process"]

_START = datetime(2026, 1, 1, tzinfo=UTC)
_NOTHING = timedelta()
_PATIENCE = 200
"""How often a program may fail with a typed error and begin again."""
_MOST_SLICES = 4096
_TRACED = 4000
_JUMPS = (timedelta(seconds=5), timedelta(seconds=-3))
_OUTAGES = (timedelta(milliseconds=200), timedelta(milliseconds=2_500))
_DOWNTIMES = (timedelta(milliseconds=5), timedelta(milliseconds=300), timedelta(seconds=2))


class World:
    """Everything that a seed decides. ``step`` lets the next thing happen."""

    def __init__(
        self,
        seed: int,
        faults: Faults,
        storage: Storage,
        registry: Registry,
        layer: Layer[Any, Any, Any],
        *,
        services: Env = EMPTY,
        window: FaultWindow | None = None,
        traced: bool = False,
    ) -> None:
        self.seed = seed
        self.weather = faults
        self.registry = registry
        self.layer = layer
        self.services = services
        self.faults = Injector(faults, roll(seed, 2), window or FaultWindow())
        self.processes: list[Process] = []
        self.began = _START
        self.now = _START
        """The time that nobody can set."""
        self.wall = _START
        """The time that the clocks of the processes show."""
        self.last_trouble = _START
        self.steps = 0
        self.digest = 0
        """A checksum of all that happened."""
        self.trace: list[str] | None = [] if traced else None
        self.watch = Watch(storage, registry, self)
        self._dice = roll(seed, 3)
        self._latency_us = faults.latency // timedelta(microseconds=1)
        self._skew = _NOTHING
        self._down_until = _START
        self._queue: list[tuple[datetime, float, int, Callable[[], None]]] = []
        self._number = 0
        self._graves: list[Runtime] = []

    # -- what happens

    def at(self, time: datetime, happens: Callable[[], None]) -> None:
        """Let something happen at this time."""
        self._number += 1
        heappush(self._queue, (time, self._dice.random(), self._number, happens))

    def step(self) -> bool:
        """Let the next thing happen; ``False`` when there is none."""
        if not self._queue:
            return False
        time, _, _, happens = heappop(self._queue)
        if time > self.now:
            self.now = time
            self.wall = time + self._skew
        self.steps += 1
        happens()
        return True

    def run_for(self, span: timedelta, *, until_at_rest: bool = False) -> None:
        """Let all happen that happens in this time; or stop as soon as no instance waits for anything."""
        until = self.now + span
        records = self.watch.records
        while self._queue and self._queue[0][0] <= until:
            if until_at_rest and not any(record.wake_at for record in records.values()):
                return
            self.step()
        self.now = until
        self.wall = until + self._skew

    def jump_clock(self, span: timedelta) -> None:
        """Set the clocks on or back, as an operator or a time server does."""
        self._skew += span
        self.wall = self.now + self._skew
        self.trouble(f"the clock jumps by {span.total_seconds():+g} s")

    def outage(self, span: timedelta) -> None:
        """Let the storage fail for so long."""
        self._down_until = self.now + span
        self.trouble(f"the storage is down for {span.total_seconds():g} s")

    def calm_down(self) -> None:
        """From now on nothing goes wrong: what was dead or stood still goes on."""
        self.faults.calm = True
        self._down_until = self.now
        self.trouble("calm")
        for process in self.processes:
            process.paused_until = None
            if not process.alive:
                process.boot()

    def trouble(self, what: str, until: datetime | None = None) -> None:
        """Something goes wrong, now or until then: what takes long may be excused for a while."""
        self.last_trouble = max(self.last_trouble, until or self.now)
        self.note("", what)

    def note(self, who: str, what: str) -> None:
        """Write down what happened."""
        self.digest = crc32(f"{who}{what}{self.now.microsecond}".encode(), self.digest)
        self._write(who, what)

    def _write(self, who: str, what: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{(self.now - _START) / timedelta(seconds=1):10.6f} {who:9} {what}")
            if len(self.trace) > 2 * _TRACED:
                del self.trace[:_TRACED]

    def told(self, who: str, verb: str, key: Key, record: Instance | None, answer: str = "") -> None:
        """Write down a statement, and the record that it was about."""
        if self.trace is not None:
            end = f" -> {answer}" if answer else ""
            self._write(who, f"{verb} {key.instance_id}: {short_record(record)}{end}")
        state = "" if record is None else f"{record.revision}:{record.fence}:{record.incarnation}"
        self.digest = crc32(f"{who}{verb}{key.id}{state}{self.now.microsecond}".encode(), self.digest)

    # -- statements

    def send(self, process: Process, waiter: Waiter, statement: Statement) -> None:
        """A process sends a statement to the storage."""
        arrives = self.now + self._latency()
        if self.faults.at_sending():
            arrives += self.weather.lease * self._dice.uniform(1.0, 2.0)
            self.trouble(f"{statement} of {process.name} is delayed beyond the lease", until=arrives)
        life = process.life
        self.at(arrives, lambda: self._arrive(process, life, waiter, statement))

    def _latency(self) -> timedelta:
        return timedelta(microseconds=int(self._latency_us * self._dice.random() ** 3))

    def _arrive(self, process: Process, life: int, waiter: Waiter, statement: Statement) -> None:
        alive = process.life == life
        if not alive and (self.only_process or self.faults.chance()):
            return
        fault = self.faults.at_arrival() if alive else None
        if fault == "crash":
            process.crash()
            alive = False
            if self.only_process or self.faults.chance():
                return
        if fault == "outage":
            self.outage(self.faults.span(*_OUTAGES))
        if fault == "lost statement" or self.now < self._down_until:
            self.trouble(f"{statement} of {process.name} fails")
            answer = from_exit(_unreachable(statement))
        else:
            exit = self.watch.perform(process.name, statement)
            if fault == "lost answer":
                self.trouble(f"the answer to {statement} of {process.name} is lost")
                exit = _unreachable(statement)
            answer = from_exit(exit)
        if alive:
            self._answer(process, life, waiter, answer)

    def _answer(self, process: Process, life: int, waiter: Waiter, answer: AnyEffect) -> None:
        if self._dice.random() < 0.5:
            process.resume(life, waiter, answer)
        else:
            self.at(self.now + self._latency(), lambda: process.resume(life, waiter, answer))

    @property
    def only_process(self) -> bool:
        """Whether there is one process, as on a SQLite file: what it sent and leased dies with it."""
        return len(self.processes) == 1

    # -- the end

    def bury(self, runtime: Runtime) -> None:
        """Keep what a crash left as it stands: Python would run its ``finally`` when it frees it."""
        self._graves.append(runtime)

    def close(self) -> None:
        """Free everything, when nobody looks any more."""
        self._queue.clear()
        for process in self.processes:
            self._graves.append(process.runtime)
        for runtime in self._graves:
            for block in sorted(_blocks(runtime), key=lambda found: -found[0]):
                with suppress(BaseException):
                    block[1].close()
        self._graves.clear()


def _unreachable(statement: Statement) -> Exit[Any, Any]:
    return Failure(Cause.fail(StorageError(statement.name, "the storage does not answer")))


def _blocks(runtime: Runtime) -> Generator[tuple[int, GeneratorType[Any, Any, Any]]]:
    """All suspended do-blocks, with a number that grows the deeper they are."""
    fibers = sorted(runtime.roots, key=lambda fiber: fiber.id)
    number = 0
    while fibers:
        fiber = fibers.pop()
        fibers.extend(sorted(fiber.children or (), key=lambda child: child.id))
        for frame in fiber.stack:
            if isinstance(frame, GeneratorType):
                number += 1
                yield number, frame


class Process:
    """A process of the simulation: it boots, runs programs, can be paused, crashes, and is started again."""

    def __init__(self, world: World, name: str, *, alarms: bool, programs: tuple[Program, ...] = ()) -> None:
        self.world = world
        self.name = name
        self.alarms = alarms
        self.programs = programs
        self.life = 0
        """Which life this is: what was meant for an earlier one does not reach it."""
        self.alive = False
        self.paused_until: datetime | None = None
        self.runtime = Runtime()
        self.engine: Engine | None = None
        self.broken: Broken | None = None
        """What one of its programs found; raised when the process has come to wait."""
        self._number = len(world.processes)
        self._doomed = False
        self._stopping = False
        self._scope: Scope | None = None
        self._env = EMPTY
        world.processes.append(self)

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop: its programs will begin again in its next life."""
        return self._stopping

    def boot(self) -> None:
        """Start it: services, engine, programs."""
        world = self.world
        self.life += 1
        self.alive = True
        self._doomed = False
        self._stopping = False
        self.engine = None
        self.runtime = Runtime()
        dice = Random.seeded((world.seed * 1_009 + self._number) * 1_000_003 + self.life)
        self._env = Env.of(Clock, _Clock(self)).add(Random, dice).add(Process, self)
        world.note(self.name, "boots")
        if world.only_process:
            world.watch.take_over(world.wall)
        self.start(self._main())
        self.go_on()

    @Effect.gen
    def _main(self) -> Generator[Any, Any, None]:
        world = self.world
        scope = self._scope = Scope()
        services = yield from scope.extend(world.layer.build())
        around = yield from Effect.env()
        opened = Engine.open(world.registry, SimulatedStorage(self.send), alarms=self.alarms, polls=True)
        env = around.merge(services).merge(world.services).add(Scope, scope)
        self.engine = yield from opened.provide_env(env)
        client = JobsClient(self.engine)
        for program in self.programs:
            if not program.done:
                program.start(self, client)

    def start(self, effect: AnyEffect) -> Fiber[Any, Any]:
        """Start a fiber in this process; it first runs when the process goes on."""
        fiber = self.runtime.start(effect, self._env.merge(self.world.services))
        fiber.observe(self._look_at)
        return fiber

    def _look_at(self, exit: Exit[Any, Any]) -> None:
        """A process that cannot start gives up, and is started again."""
        if isinstance(exit, Failure) and self.engine is None:
            self.kill()

    def send(self, waiter: Waiter, statement: Statement) -> None:
        """Send a statement to the storage."""
        self.world.send(self, waiter, statement)

    def resume(self, life: int, waiter: Waiter, effect: AnyEffect) -> None:
        """Something that a fiber waits for has happened, unless the process died or stands still."""
        if life != self.life or waiter.gone:
            return
        world = self.world
        if self.paused_until is not None:
            if world.now < self.paused_until:
                world.at(self.paused_until, lambda: self.resume(life, waiter, effect))
                return
            self.paused_until = None
            world.trouble(f"{self.name} goes on")
        fault = world.faults.at_step()
        if fault is not None:
            self._suffer(fault)
            if fault == "crash":
                return
            if fault == "pause":
                self.resume(life, waiter, effect)
                return
        waiter.resume(effect)
        self.go_on()

    def _suffer(self, fault: FaultKind) -> None:
        world = self.world
        if fault == "crash":
            self.crash()
        elif fault == "restart":
            self.stop()
        elif fault == "pause":
            self.pause(world.faults.span(world.weather.lease / 2, world.weather.lease * 3))
        else:
            world.jump_clock(_JUMPS[world.faults.chance()])

    def go_on(self) -> None:
        """Run until all fibers wait."""
        runtime = self.runtime
        runtime.run_ready(_MOST_SLICES)
        if runtime.ready:
            raise Broken("liveness", f"{self.name} goes round and round without waiting for anything")
        if self.broken is not None:
            raise self.broken
        if self._doomed:
            self.crash()

    def doom(self, _: Waiter) -> None:
        """Die here and now, from within."""
        self.world.faults.counts["crash"] += 1
        self.kill()

    def pause(self, span: timedelta) -> None:
        """Stand still for so long, while the others and time go on."""
        until = self.paused_until = self.world.now + span
        others = any(
            other.alarms and other.alive and other.paused_until is None for other in self.world.processes
        )
        what = f"{self.name} stands still for {span.total_seconds():g} s"
        self.world.trouble(what, until=None if others else until)

    def stop(self) -> None:
        """End in an orderly way, as for a deployment: programs are interrupted, the engine drains."""
        if self._stopping or self.engine is None:
            return
        self._stopping = True
        self.world.trouble(f"{self.name} is asked to stop")
        self.start(self._stop(self.engine.owner)).observe(lambda _: self.kill())

    @Effect.gen
    def _stop(self, owner: str) -> Generator[Any, Any, None]:
        running = [program.fiber for program in self.programs if program.fiber is not None]
        yield from Fiber.interrupt_all(running)
        asked_at, world = self.world.now, self.world
        yield from cast("Scope", self._scope).close(Success(None))
        if world.last_trouble <= asked_at:
            world.watch.holds_nothing(owner)

    def kill(self) -> None:
        """Die as soon as what runs now waits."""
        self._doomed = True
        self.runtime.ready.clear()

    def crash(self) -> None:
        """Die without a last word, and be started again later."""
        if not self.alive:
            return
        self.alive = False
        self.life += 1
        self.paused_until = None
        world = self.world
        world.bury(self.runtime)
        self.runtime = Runtime()
        world.trouble(f"{self.name} crashes")
        life = self.life
        downtime = _DOWNTIMES[0] if world.faults.calm else world.faults.span(*_DOWNTIMES)
        world.at(world.now + downtime, lambda: self._restart(life))

    def _restart(self, life: int) -> None:
        if self.life == life and not self.alive:
            self.world.trouble(f"{self.name} is started again")
            self.boot()


@attrs.define(eq=False)
class Program:
    """A client program: it is run again from its beginning when its process crashed, until it ended once."""

    make: Callable[[JobsClient], AnyEffect]
    done: bool = False
    failures: int = 0
    fiber: Fiber[Any, Any] | None = None

    def start(self, process: Process, client: JobsClient) -> None:
        """Begin; a program that fails with a typed error is begun again after a moment."""
        effect = Effect.suspend(lambda: self.make(client))
        self.fiber = process.start(effect)
        self.fiber.observe(lambda ended: self._ended(process, client, ended))

    def _ended(self, process: Process, client: JobsClient, exit: Exit[Any, Any]) -> None:
        if not isinstance(exit, Failure):
            self.done = True
            return
        if process.stopping:
            return
        error = exit.cause.squash()
        self.failures += 1
        if not exit.cause.recoverable() or self.failures > _PATIENCE:
            process.broken = Broken("the workload", f"fails with {type(error).__name__}: {error}")
            process.broken.__cause__ = error
            return
        process.world.note(process.name, f"its program fails and begins again: {error}")
        life = process.life

        def again() -> None:
            if process.life == life and process.alive:
                self.start(process, client)
                process.go_on()

        process.world.at(process.world.now + timedelta(milliseconds=50), again)


class _Clock(Clock):
    """The clock of one process: it sleeps by the time that nobody can set."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def current(self) -> datetime:
        """The time on the wall."""
        return self._process.world.wall

    def sleep(self, span: timedelta) -> Effect[None]:
        """Wait for so long, longer if the process stands still meanwhile."""
        return Wait(lambda waiter: self._register(waiter, span)) if span > _NOTHING else VOID

    def _register(self, waiter: Waiter, span: timedelta) -> None:
        process = self._process
        life = process.life
        process.world.at(process.world.now + span, lambda: process.resume(life, waiter, VOID))


def kill_process() -> Effect[None]:
    """Kill the process that this runs in, as a segmentation fault in a handler does. Only in simulations."""

    def die(env: Env) -> AnyEffect:
        return Wait(env.get(Process).doom)

    return Effect.env().flat_map(die)

"""One process's host: the order of each instance's steps, the alarm loop, leases, and draining.

A step has its instance to itself: calls and alarms of one instance queue up in the order in which they
arrive, those of different instances run concurrently. The alarm loop asks the storage what is due, runs
that, and sleeps until the next alarm, a wake-up, or the end of the poll interval. Storage is the truth:
a lost wake-up costs at most that interval. While a run is in progress its lease is renewed; one that could
not be renewed in time, or is another's by now, is called off before that other begins.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, cast

import attrs
from typing_extensions import Never, TypeVar

from durable_effect import Cause, Clock, Deferred, Do, Effect, Env, Exit, Failure, Fiber, Need, Random, Scope
from durable_effect_jobs.admission import Admission
from durable_effect_jobs.attempt import Inside, within
from durable_effect_jobs.errors import InstanceBusy, InvalidStateError, Overloaded, StorageError
from durable_effect_jobs.instance import Due, Instance, Key, Lease
from durable_effect_jobs.interpreter import Alarms, CallError, dispatch, fire_if_due, inspect
from durable_effect_jobs.registry import Registry
from durable_effect_jobs.step import Command, StepError
from durable_effect_jobs.storage import Storage
from durable_effect_jobs.turnstile import Place, Turnstile
from durable_effect_jobs.worker import WORKER

__all__ = ["Engine"]

A = TypeVar("A")
E = TypeVar("E")
R = TypeVar("R")

_logger = logging.getLogger("durable_effect_jobs.engine")
_ALWAYS: Effect[bool] = Effect.succeed(True)
_REST_AFTER_FAILURE = timedelta(seconds=1)


class Engine:
    """Runs steps in order and alarms in time. Made by :meth:`open`, ended by its scope."""

    def __init__(self, registry: Registry, storage: Storage, env: Env, *, owner: str, polls: bool) -> None:
        self.registry = registry
        self.storage = storage
        self.owner = owner
        """The name on this engine's leases."""
        # An engine that a handler opens is no part of that handler.
        self._env = env.add(Storage, storage).add(Alarms, self).add(WORKER, self).add(Inside, Inside())
        self._polls = polls
        self._loop: asyncio.AbstractEventLoop | None = None
        self._order: dict[Key, Turnstile] = {}
        self._admission = Admission()
        self._held: dict[Key, _Held] = {}
        self._calls = 0
        self._running: dict[Key, Fiber[Any, Any]] = {}
        self._behind_calls: set[Key] = set()
        self._closed = False
        self._idle: Deferred[None, Never] | None = None
        self._wake_up: Deferred[None, Never] | None = None
        self._sleeps_until: datetime | None = None

    @staticmethod
    @Effect.gen
    def open(
        registry: Registry, storage: Storage, *, alarms: bool = True, polls: bool = True
    ) -> Do[Engine, StorageError, Need[Scope]]:
        """Start the alarm loop in the current scope, whose end drains it."""
        env = yield from Effect.env()
        owner = yield from Random.uuid7()
        engine = Engine(registry, storage, env, owner=owner.hex, polls=polls)
        engine._loop = yield from Effect.with_fiber(lambda fiber: Effect.succeed(fiber.runtime.loop))
        if polls:
            heart = yield from engine._renew_leases().provide_env(engine._env).fork_scoped()
            yield from Effect.add_finalizer(lambda _: heart.interrupt())
        if alarms:
            yield from engine._report_strangers()
            loop = yield from engine._run_alarms().fork_scoped()
            yield from Effect.add_finalizer(lambda _: engine._drain(loop))
        else:
            yield from Effect.add_finalizer(lambda _: engine._drain(None))
        return engine

    @property
    def running(self) -> tuple[Fiber[Any, Any], ...]:
        """The runs of alarms that are in progress."""
        return tuple(self._running.values())

    # -- calls

    def call(self, key: Key, operation: str, command: Command[A]) -> Effect[A, CallError]:
        """A command, in its instance's order."""
        commanded = dispatch(self.registry, key, operation, command)
        if key.problem() is None:  # or it may not even have a place in an order; it is refused below
            if command.preempts:
                commanded = self._ahead(key, operation, commanded)
            else:
                commanded = self._in_order(key, operation, commanded, self.registry.limits.queue_timeout)
        return self._at_home(operation, self._hosted(operation, commanded))

    def read(
        self, key: Key, operation: str, look: Callable[[Any, Instance | None], Effect[A, StepError]]
    ) -> Effect[A, CallError]:
        """A read, answered from the last commit without waiting."""
        return self._at_home(operation, self._hosted(operation, inspect(self.registry, key, operation, look)))

    def _at_home(self, operation: str, effect: Effect[A, E]) -> Effect[A, E | InvalidStateError]:
        """Run on the loop that the engine lives on: callers in other threads have loops of their own."""

        def run(fiber: Fiber[Any, Any]) -> Effect[A, E | InvalidStateError]:
            home, here = self._loop, fiber.runtime.loop
            if home is None or home is here:
                return effect
            if home.is_closed():
                return Effect.fail(_closed(operation))
            env = fiber.env

            async def call() -> Exit[A, E]:
                there = asyncio.run_coroutine_threadsafe(effect.provide_env(env).run_async_exit(), home)
                return await asyncio.wrap_future(there)

            return Effect.from_async(call).flat_map(Effect.from_exit)

        return Effect.with_fiber(run)

    def _hosted(
        self, operation: str, effect: Effect[A, E, Any]
    ) -> Effect[A, E | InvalidStateError | Overloaded]:
        """Run with the engine's services in place of the caller's, and be waited for when closing."""
        limit = self.registry.limits.max_calls

        def begin(around: Inside) -> Effect[A, E | InvalidStateError | Overloaded]:
            """Counting it and seeing to its end is one step: between two the caller could be called off."""
            if self._closed and not around.keys:  # handlers that are being waited for may still call others
                return Effect.fail(_closed(operation))
            if self._calls >= limit:
                return Effect.fail(Overloaded("the queue of this connection", limit))
            self._calls += 1
            env = self._env.add(Inside, around) if around.handlers else self._env
            hosted = effect.provide_env(env)
            return hosted.ensuring(Effect.suspend(self._call_ended))

        return within(begin)

    def _call_ended(self) -> Effect[None]:
        self._calls -= 1
        return self._signal_idle()

    def _in_order(
        self, key: Key, operation: str, effect: Effect[A, E, R], patience: timedelta | None
    ) -> Effect[A, E | InvalidStateError | InstanceBusy | Overloaded, R]:
        """One step at a time per instance, first come first served."""

        def queue(around: Inside) -> Effect[A, E | InvalidStateError | InstanceBusy | Overloaded, R]:
            callers = around.keys
            if key in callers:
                return effect  # refused by the interpreter; waiting for itself would never end
            if callers and not callers.isdisjoint(self._waited_for_by(key)):
                circle = InvalidStateError(
                    "an instance that does not wait for the caller",
                    f"the handler of {key.instance_id} waits for the one that called it",
                    operation,
                )
                return Effect.fail(circle)
            return self._enter(key, callers, effect, patience)

        return within(queue)

    def _ahead(self, key: Key, operation: str, effect: Effect[A, E, R]) -> Effect[A, E | CallError, R]:
        """What ends an instance waits for nobody. While there is none yet, its turn comes in order."""
        return self._overtake(key, operation, effect)  # apart, as above

    @Effect.gen
    def _overtake(self, key: Key, operation: str, effect: Effect[Any, Any, Any]) -> Do[Any, Any, Any]:
        if key in self._order and (yield from self.storage.load(key)) is not None:
            return (yield from effect)
        patience = self.registry.limits.call_timeout
        in_turn = self._in_order(key, operation, effect, patience)
        return (
            yield from in_turn.catch_all(
                lambda error: effect if isinstance(error, InstanceBusy) else Effect.fail(error)
            )
        )

    def _enter(
        self,
        key: Key,
        callers: frozenset[Key],
        effect: Effect[A, E, R],
        patience: timedelta | None,
    ) -> Effect[A, E | InstanceBusy | Overloaded, R]:
        """Joining the queue and seeing to leaving it is one step: between two it could be called off."""
        turnstile = self._order.get(key) or self._order.setdefault(key, Turnstile(key))
        waiting = [self._order[caller] for caller in callers if caller in self._order]
        for caller in waiting:
            caller.waits_for.append(key)
        place = Place()
        in_turn = turnstile.enter(place, self.registry.limits.max_waiting, patience).and_then(effect)
        return in_turn.ensuring(Effect.suspend(lambda: self._leave(turnstile, place, waiting)))

    def _leave(self, turnstile: Turnstile, place: Place, waiting: list[Turnstile]) -> Effect[None]:
        for caller in waiting:
            caller.waits_for.remove(turnstile.key)
        following = turnstile.leave(place)
        self._forget(turnstile)
        return following

    def _forget(self, turnstile: Turnstile) -> None:
        if turnstile.empty and self._order.get(turnstile.key) is turnstile:
            del self._order[turnstile.key]

    def _waited_for_by(self, key: Key) -> set[Key]:
        """Every instance that the running handler of this one waits for, at first or second hand."""
        found: set[Key] = set()
        looking = [key]
        while looking:
            turnstile = self._order.get(looking.pop())
            further = set(turnstile.waits_for) - found if turnstile is not None else set[Key]()
            found |= further
            looking.extend(further)
        return found

    # -- runs

    def admit(self, suspect: bool, run: Effect[A, E, R]) -> Effect[A, E, R]:
        """The ``Worker`` port: a suspect runs alone. A handler's own calls are a part of its run."""

        def begin(around: Inside) -> Effect[A, E, R]:
            if around.keys:
                return run
            return self._admission.alone(run, _ALWAYS) if suspect else self._admission.together(run)

        return within(begin)

    def supervise(self, held: Instance, run: Effect[A, E, R]) -> Effect[A | None, E, R]:
        """The ``Worker`` port: the run has a fiber of its own, which can be called off."""
        return self._supervise(held, run)  # apart, because mypy loses the A and E of a generic do-block

    @Effect.gen
    def _supervise(self, held: Instance, run: Effect[Any, Any, Any]) -> Do[Any, Any, Any]:
        began = cast("Lease", held.lease).until - self.registry.limits.lease
        fiber = yield from run.fork()
        entry = _Held(held.fence, fiber, began)

        def watch() -> Effect[Exit[Any, Any]]:
            """Entering it and seeing to its removal is one step: between two it could be called off."""
            self._held[held.key] = entry
            ended = fiber.await_().on_interrupt(fiber.interrupt)
            return ended.ensuring(Effect.sync(lambda: self._let_go(held.key, entry)))

        exit = yield from Effect.suspend(watch)
        if entry.lost and isinstance(exit, Failure):
            return None
        return (yield from Effect.from_exit(exit))

    def _let_go(self, key: Key, entry: _Held) -> None:
        if self._held.get(key) is entry:
            del self._held[key]

    def holds(self, held: Instance) -> bool:
        """The ``Worker`` port: whether the run under this fence is in progress here."""
        entry = self._held.get(held.key)
        return entry is not None and entry.fence == held.fence

    @Effect.gen
    def preempt(self, ended: Instance) -> Do[None]:
        """The ``Worker`` port: nobody waits for the run of an instance that is gone.

        Who is inside without running it may be about to begin another life of the same id, and stays.
        """
        if not self.holds(ended):
            return
        yield from self._call_off(ended.key)
        turnstile = self._order.get(ended.key)
        if turnstile is not None:
            yield from turnstile.put_out()
            self._forget(turnstile)

    @Effect.gen
    def _call_off(self, key: Key) -> Do[None]:
        entry = self._held.get(key)
        if entry is not None and not entry.lost:
            entry.lost = True
            yield from entry.fiber.interrupt_fork()

    @Effect.gen
    def _renew_leases(self) -> Do[Never, Never]:
        """Renew the leases of runs that take long. Short ones cost nothing."""
        while True:
            yield from Effect.sleep(self.registry.limits.lease / 10)
            if self._held:
                yield from self._renew().catch_cause(_rest)

    @Effect.gen
    def _renew(self) -> Do[None]:
        """Leases are renewed at a third of their time. A run that has lost its own ends before it is over."""
        lease = self.registry.limits.lease
        began = yield from Clock.now()
        old = {key: entry for key, entry in self._held.items() if began - entry.renewed_at >= lease / 3}
        if not old:
            return
        asked = [(key, entry.fence) for key, entry in old.items()]
        renewal = self.storage.renew(self.owner, asked, began + lease).timeout_option(lease / 10)
        answer = yield from renewal.map(lambda held: held.value_or(None)).catch_all(_unanswered)
        now = yield from Clock.now()
        for key, entry in old.items():
            if answer is not None and key in answer:
                entry.renewed_at = began
            elif (answer is not None or now - entry.renewed_at >= lease * 0.7) and (
                self._held.get(key) is entry
            ):
                _logger.error("the lease of %s is lost: its run is called off", key.instance_id)
                yield from self._call_off(key)

    # -- alarms

    def wake(self, key: Key, at: datetime) -> Effect[None]:
        """The ``Alarms`` port: look again at ``at`` at the latest."""

        def run() -> Effect[None]:
            if self._wake_up is not None and (self._sleeps_until is None or at < self._sleeps_until):
                return self._wake_up.succeed(None).as_void()
            return Effect.void

        return Effect.suspend(run)

    @Effect.gen
    def _run_alarms(self) -> Do[Never, Never]:
        while True:
            yield from self._pass().provide_env(self._env).catch_all(_rest).catch_cause(_rest)

    @Effect.gen
    def _pass(self) -> Do[None, StorageError, Any]:
        """Start what is due, then sleep until there may be more."""
        wake_up = self._wake_up = yield from Deferred.make()
        self._sleeps_until = None
        busy = len(self._running) - len(self._behind_calls)
        room = self.registry.limits.concurrency - busy
        if room <= 0:
            yield from wake_up.await_()
            return
        now = yield from Clock.now()
        jobs = self.registry.jobs.keys()
        due = yield from self.storage.due(now, room + len(self._running), jobs)
        starting = [found for found in due if found.key not in self._running][:room]
        for found in starting:
            yield from self._start(found)
        if len(starting) < room:
            # All that is due by now runs, and what comes of it wakes the loop.
            following = yield from self.storage.next_due(jobs, after=now)
            yield from self._sleep(wake_up, now, following)

    @Effect.gen
    def _sleep(self, wake_up: Deferred[None, Never], now: datetime, following: datetime | None) -> Do[None]:
        latest = now + self.registry.limits.poll_interval if self._polls else None
        until = min((at for at in (following, latest) if at is not None), default=None)
        self._sleeps_until = until
        if until is None:
            yield from wake_up.await_()
        else:
            yield from wake_up.await_().timeout_option(until - now)

    @Effect.gen
    def _start(self, due: Due) -> Do[None, Never, Any]:
        key = due.key
        if key in self._order:
            # Its turn comes when they are done; until then it is no work in progress.
            self._behind_calls.add(key)

        def fire() -> Effect[Any, Any, Any]:
            self._behind_calls.discard(key)
            run = fire_if_due(self.registry, key, alone=due.suspect)
            if due.suspect:
                return self._admission.alone(run, self._is_suspect(key))
            return self._admission.together(run)

        in_turn = self._in_order(key, "fire", Effect.suspend(fire), None)
        run = in_turn.as_void().catch_all(_rest).catch_cause(_rest)
        over = Effect.suspend(lambda: self._run_ended(key))
        self._running[key] = yield from run.ensuring(over).fork_detach()

    @Effect.gen
    def _is_suspect(self, key: Key) -> Do[bool, StorageError]:
        """Whether it still is one: another process may have run it well meanwhile."""
        stored = yield from self.storage.load(key)
        return stored is not None and (stored.crashes > 0 or stored.lease is not None)

    def _run_ended(self, key: Key) -> Effect[None]:
        """Make room, and look again: after a failure of the storage the alarm is still due."""
        del self._running[key]
        self._behind_calls.discard(key)
        wake_up = self._wake_up
        woken = Effect.void if wake_up is None else wake_up.succeed(None).as_void()
        return woken.and_then(self._signal_idle())

    @Effect.gen
    def _report_strangers(self) -> Do[None, StorageError]:
        """Instances of jobs that are not registered keep their alarms, until their job is back."""
        stored = yield from self.storage.jobs()
        for (kind, name), count in stored.items():
            if self.registry.find(kind, name) is None:
                _logger.warning(
                    "%d instances of the %s job %r are kept; no such job is registered, so their alarms wait",
                    count,
                    kind,
                    name,
                )

    # -- the end

    @Effect.gen
    def _drain(self, loop: Fiber[Any, Any] | None) -> Do[None]:
        """Start nothing new, let what runs end, and interrupt what takes too long: it will run again."""
        if loop is not None:
            yield from loop.interrupt()
        self._closed = True
        if self._running or self._calls:
            self._idle = yield from Deferred.make()
            idle = self._idle.await_().interruptible()  # or the limit would not be one: this is a finalizer
            yield from idle.timeout_option(self.registry.limits.drain_timeout)
        yield from self._interrupt(self.running)
        yield from self.storage.release(self.owner).ignore()  # what could not be interrupted is fenced off

    @Effect.gen
    def _interrupt(self, runs: tuple[Fiber[Any, Any], ...]) -> Do[None]:
        """Call runs off, all at once. One that will not end cannot keep the connection from closing."""
        for run in runs:
            yield from run.interrupt_fork()
        ended = Effect.for_each(runs, lambda run: run.await_(), discard=True).interruptible()
        yield from ended.timeout_option(self.registry.limits.drain_timeout)
        left = sum(run.exit is None for run in runs)
        if left:
            _logger.error("%d handlers cannot be interrupted: the connection closes without them", left)

    def _signal_idle(self) -> Effect[None]:
        if self._idle is None or self._running or self._calls:
            return Effect.void
        return self._idle.succeed(None).as_void()


def _closed(operation: str) -> InvalidStateError:
    return InvalidStateError("an open connection", "the connection was closed", operation)


@attrs.define(eq=False)
class _Held:
    """A run in progress, and the lease that it needs."""

    fence: int
    fiber: Fiber[Any, Any]
    renewed_at: datetime
    lost: bool = False


def _unanswered(error: StorageError) -> Effect[None]:
    _logger.warning("leases could not be renewed: %s", error)
    return Effect.succeed(None)


def _rest(error: object) -> Effect[None]:
    """The storage failed, or the engine has a defect: say so and wait a moment. What was due still is."""
    if isinstance(error, Cause):
        if error.is_interrupted_only:
            return Effect.fail_cause(cast("Cause[Never]", error))
        _logger.error("alarms wait a moment", exc_info=error.squash())
    else:
        _logger.error("alarms wait a moment: %s", error)
    return Effect.sleep(_REST_AFTER_FAILURE)

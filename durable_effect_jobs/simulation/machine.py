"""A hypothesis state machine over the simulation: hypothesis says what happens next, and shrinks failures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, ClassVar, TypeVar, cast

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from durable_effect import Effect, Env, Exit
from durable_effect.duration import Span, to_timedelta
from durable_effect_jobs.client import JobsClient
from durable_effect_jobs.jobs import DurableJobs
from durable_effect_jobs.simulation.faults import FaultKind, Faults
from durable_effect_jobs.simulation.run import View, quietly, simulated_registry
from durable_effect_jobs.simulation.world import Process, World
from durable_effect_jobs.storage.memory import MemoryStorage

__all__ = ["JobsMachine"]

T = TypeVar("T")
A = TypeVar("A")

_LONGEST_CALL = timedelta(minutes=5)


class JobsMachine(RuleBasedStateMachine):
    """Jobs under hypothesis: subclass it, set ``jobs``, and add rules that make calls.

    ``self.call(program)`` runs ``program(client)`` in a process that only calls and answers its exit, or
    ``None`` when that process died of it. Two workers run the alarms. Rules that are there: time goes by, a
    worker crashes or stands still, the caller crashes, the next statement or its answer is lost, the storage
    is down for a while. What the engine promises is checked at every statement. ``check(view)``, which you
    may override, is called after every rule and once more at the end, when all has come to rest.
    """

    jobs: ClassVar[DurableJobs[Any]]
    """The jobs under test."""
    outside: ClassVar[Mapping[Any, Callable[[], Any]]] = {}
    """Services that are made anew for each run and that no crash touches, as for ``simulate``."""
    speed: ClassVar[Faults] = Faults()
    """Latency, lease and poll interval. Rates are ignored: the rules say what goes wrong."""
    workers: ClassVar[int] = 2

    def __init__(self) -> None:
        super().__init__()
        speed = Faults(
            latency=self.speed.latency, lease=self.speed.lease, poll_interval=self.speed.poll_interval
        )
        made = {key: make() for key, make in self.outside.items()}
        self._world = World(
            0,
            speed,
            MemoryStorage(),
            simulated_registry(self.jobs.registry, speed),
            self.jobs.services,
            services=Env(made),
        )
        self.view = View(self._world, made)
        """What is stored, and the world outside."""
        self._workers = [
            Process(self._world, f"worker {number + 1}", alarms=True) for number in range(self.workers)
        ]
        self._caller = Process(self._world, "caller", alarms=False)
        with quietly():
            for process in self._world.processes:
                process.boot()
            self._until(lambda: all(process.engine is not None for process in self._world.processes))

    # -- what rules do

    def call(self, program: Callable[[JobsClient], Effect[A, Any, Any]]) -> Exit[A, Any] | None:
        """Run a program in the calling process until it ends; ``None`` when the process died before."""
        with quietly():
            caller = self._caller
            self._until(lambda: caller.engine is not None)
            life, engine = caller.life, caller.engine
            assert engine is not None  # noqa: S101 - waited for above
            fiber = caller.start(program(JobsClient(engine)))
            caller.go_on()
            self._until(lambda: fiber.exit is not None or caller.life != life)
            return fiber.exit

    def advance(self, span: Span) -> None:
        """Let time go by; everything that falls due happens at its time."""
        with quietly():
            self._world.run_for(to_timedelta(span))

    def fail_next(self, fault: FaultKind) -> None:
        """Have this happen to the next statement: a lost statement, a lost answer, a crash or an outage."""
        self._world.faults.forced.append(fault)

    def _until(self, done: Callable[[], bool]) -> None:
        latest = self._world.now + _LONGEST_CALL
        while not done():
            if not self._world.step() or self._world.now > latest:
                raise TimeoutError(f"a call has not ended after {_LONGEST_CALL}")

    def check(self, view: View) -> None:
        """What must hold after every rule, and when ``view.ended``; fails by raising."""

    # -- rules

    @rule(milliseconds=st.integers(1, 5_000))
    def time_goes_by(self, milliseconds: int) -> None:
        """Up to five seconds pass."""
        self.advance(timedelta(milliseconds=milliseconds))

    @rule(number=st.integers(0, 7))
    def worker_crashes(self, number: int) -> None:
        """A worker dies where it stands, and is started again a little later."""
        with quietly():
            self._workers[number % len(self._workers)].crash()

    @rule(number=st.integers(0, 7), milliseconds=st.integers(100, 10_000))
    def worker_stands_still(self, number: int, milliseconds: int) -> None:
        """A worker does nothing for a while, perhaps beyond its leases."""
        self._workers[number % len(self._workers)].pause(timedelta(milliseconds=milliseconds))

    @rule()
    def caller_crashes(self) -> None:
        """The calling process dies and is started again."""
        with quietly():
            self._caller.crash()

    @rule(fault=st.sampled_from(("lost statement", "lost answer", "crash")))
    def next_statement_fails(self, fault: str) -> None:
        """The next statement is lost, or its answer, or its sender dies."""
        self.fail_next(cast("FaultKind", fault))

    @rule(milliseconds=st.integers(10, 3_000))
    def storage_is_down(self, milliseconds: int) -> None:
        """Nothing can be read or written for a while."""
        self._world.outage(timedelta(milliseconds=milliseconds))

    @invariant()
    def holds(self) -> None:
        """What must hold after every rule."""
        self.check(self.view)

    def teardown(self) -> None:
        """Let all come to rest without faults, check once more, and free everything."""
        try:
            with quietly():
                self._world.calm_down()
                self._world.run_for(timedelta(minutes=3), until_at_rest=True)
                self._world.watch.look_for_late_wake_ups()
            self.view.ended = True
            self.check(self.view)
        finally:
            self._world.close()

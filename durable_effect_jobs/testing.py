"""Jobs under test: everything on virtual time and memory, synchronous and reproducible."""

from __future__ import annotations

from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from typing_extensions import Never, Self

from durable_effect import Effect, Env, Exit, Layer, Random, Scope, Success
from durable_effect.duration import Span, to_timedelta
from durable_effect.testing import TestRuntime
from durable_effect_jobs.client import JobsClient
from durable_effect_jobs.engine import Engine
from durable_effect_jobs.events import Event
from durable_effect_jobs.jobs import DurableJobs, start_engine
from durable_effect_jobs.simulation import (
    FAULT_KINDS,
    Broken,
    Dice,
    FaultKind,
    Faults,
    SeedReport,
    SimulationFailure,
    SimulationReport,
    View,
    kill_process,
    simulate,
)
from durable_effect_jobs.storage.memory import MemoryStorage
from durable_effect_jobs.storage_contract import STORAGE_CHECKS, check_storage

if TYPE_CHECKING:
    from durable_effect_jobs.simulation import JobsMachine

__all__ = [
    "FAULT_KINDS",
    "STORAGE_CHECKS",
    "Broken",
    "Dice",
    "FaultKind",
    "Faults",
    "JobsMachine",
    "JobsTestKit",
    "SeedReport",
    "SimulationFailure",
    "SimulationReport",
    "View",
    "check_storage",
    "kill_process",
    "simulate",
]


def __getattr__(name: str) -> Any:
    """``JobsMachine`` needs hypothesis, which is imported only for those who use it."""
    if name != "JobsMachine":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from durable_effect_jobs.simulation import JobsMachine

    return JobsMachine


A = TypeVar("A")

_START = datetime(2026, 1, 1, tzinfo=UTC)


class JobsTestKit:
    """A whole engine on a virtual clock: ``with JobsTestKit(jobs, now=...) as kit: kit.run(kit.client...)``.

    The engine, its alarm loop and the handlers are those that run in production; only the clock, the dice
    and the storage are the test's. ``layer`` takes the place of the layer of ``jobs``. ``seed`` fixes the
    dice.
    ``storage`` takes over what another kit left: the next deployment of an application.
    """

    __test__ = False

    def __init__(
        self,
        jobs: DurableJobs[Any],
        *,
        now: datetime = _START,
        layer: Layer[Any, Any, Never] | None = None,
        storage: MemoryStorage | None = None,
        seed: int = 0,
    ) -> None:
        self._jobs = jobs
        self._services = jobs.services if layer is None else layer
        self.storage = MemoryStorage() if storage is None else storage
        """What survives :meth:`restart`."""
        told = len(Effect.run_sync(self.storage.pending_events(limit=1 << 62)))
        # The same dice again would give out the ids of the kit before once more.
        self._env = Env.of(Random, Random.seeded(seed + told))
        try:
            self._boot(now)
        except BaseException:
            self.close()
            raise

    def _boot(self, now: datetime) -> None:
        self.storage.take_over(now)
        self._runtime = TestRuntime(now, self._env)
        self._scope = Scope()
        services = self._runtime.run(self._scope.extend(self._services.build()))
        registry = self._jobs.registry.with_telemetry()
        opened = start_engine(registry, self.storage, services, alarms=True, polls=False)
        self._engine: Engine = self._runtime.run(self._scope.extend(opened))
        self.client = JobsClient(self._engine)
        """The client of the engine; a new one after :meth:`restart`."""
        self._runtime.settle()

    @property
    def now(self) -> datetime:
        """The time on the virtual clock."""
        return self._runtime.now

    @property
    def events(self) -> list[Event]:
        """The telemetry events so far, with or without a tracker."""
        return self._runtime.run(self.storage.pending_events(limit=1 << 62))

    def run(self, effect: Effect[A, Any, Never]) -> A:
        """Run an effect to its end and let what it set off settle; its error is raised.

        The clock moves only as far as a sleeping handler needs.
        """
        try:
            return self._runtime.run(effect)
        finally:
            self._runtime.settle()

    def run_exit(self, effect: Effect[A, Any, Never]) -> Exit[A, Any]:
        """The same, with the error as a value."""
        exit = self._runtime.run_exit(effect)
        self._runtime.settle()
        return exit

    def advance(self, span: Span) -> None:
        """Let time go by: every alarm that falls due fires at its own time, in order.

        Handlers that still sleep at the end are waited for, so the clock may go further than asked.
        """
        self._runtime.advance(to_timedelta(span))
        begun = self._engine.running
        while any(run.exit is None for run in begun):
            following = self._runtime.next_sleeper(among=begun)
            if following is None:
                return  # they wait for something that no clock will bring
            self._runtime.jump_to(following)

    def restart(self) -> None:
        """What a crash leaves: all memory is gone, the storage is kept, services are built anew."""
        now = self.now
        self._runtime.abandon()
        self._boot(now)

    def close(self) -> None:
        """Release the services and end what still runs."""
        self._runtime.run(self._scope.close(Success(None)))
        self._runtime.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

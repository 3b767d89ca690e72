"""``simulate``: an application's own jobs under every fault that a seed can draw."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar

import attrs

from durable_effect import Effect, Env
from durable_effect.duration import Span, to_timedelta
from durable_effect_jobs.client import JobsClient
from durable_effect_jobs.events import Event
from durable_effect_jobs.instance import Commit, DeadLetter, Instance, Key
from durable_effect_jobs.jobs import DurableJobs
from durable_effect_jobs.registry import Registry
from durable_effect_jobs.simulation.faults import FAULT_KINDS, Dice, FaultKind, Faults, FaultWindow, roll
from durable_effect_jobs.simulation.watch import Broken
from durable_effect_jobs.simulation.world import Process, Program, World
from durable_effect_jobs.step import Job
from durable_effect_jobs.storage import Storage
from durable_effect_jobs.storage.memory import MemoryStorage

__all__ = [
    "Invariant",
    "SeedReport",
    "Simulation",
    "SimulationFailure",
    "SimulationReport",
    "View",
    "Workload",
    "simulate",
]

T = TypeVar("T")

_CLIENTS = 10
_MOST_STEPS = 2_000_000
_SHOWN = 40


class View:
    """What an invariant looks at: the storage as of the last commit, and the world outside."""

    __slots__ = ("_outside", "_world", "ended")

    def __init__(self, world: World, outside: Mapping[Any, Any]) -> None:
        self._world = world
        self._outside = outside
        self.ended = False
        """Whether the workload has ended, all faults are over, and everything had time to come to rest."""

    @property
    def now(self) -> datetime:
        """The time on the clocks of the processes."""
        return self._world.wall

    @property
    def seed(self) -> int:
        """The seed of this run."""
        return self._world.seed

    @property
    def faultless(self) -> bool:
        """Whether nothing has gone wrong so far: then everything happened exactly once."""
        return not self._world.faults.counts

    @property
    def commit(self) -> Commit | None:
        """The step that was committed last."""
        return self._world.watch.commit

    @property
    def events(self) -> list[Event]:
        """Telemetry, in the order of its commits."""
        return self._world.watch.events

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """What is kept of instances whose retries were exhausted."""
        return self._world.watch.letters

    def instances(self, job: Job[Any, Any] | None = None) -> list[Instance]:
        """The records, of one job or of all."""
        records = self._world.watch.records
        if job is None:
            return [records[key] for key in sorted(records)]
        name = self._world.registry.name_of(job)
        return [records[key] for key in sorted(records) if (key.kind, key.job) == (job.kind, name)]

    def state(self, job: Any, id: str) -> Any:
        """The decoded state of an instance; ``None`` when there is none."""
        name = self._world.registry.name_of(job)
        record = self._world.watch.records.get(Key(job.kind, str(name), id))
        return None if record is None or record.state is None else job.codec.decode(record.state)

    def outside(self, key: Callable[..., T]) -> T:
        """What ``outside=`` made for this seed."""
        made: T = self._outside[key]
        return made


Workload = Callable[[JobsClient, Dice], Effect[Any, Any, Any]]
Invariant = Callable[[View], None]


@attrs.frozen(kw_only=True)
class SeedReport:
    """What happened under one seed."""

    seed: int
    turns: int
    """Commits that were applied: each a load, a decision and a write."""
    steps: int
    """Commands and reads that were carried out, with or without a write, and runs that were begun."""
    statements: int
    virtual_time: timedelta
    faults: Mapping[FaultKind, int]
    digest: int
    """A checksum of everything that happened, in order: the same for the same seed."""


@attrs.frozen(kw_only=True)
class SimulationReport:
    """What happened under all seeds; nothing that must not."""

    seeds: tuple[SeedReport, ...]

    @property
    def turns(self) -> int:
        """Commits that were applied: each a load, a decision and a write."""
        return sum(seed.turns for seed in self.seeds)

    @property
    def steps(self) -> int:
        """Commands and reads that were carried out, with or without a write, and runs that were begun."""
        return sum(seed.steps for seed in self.seeds)

    @property
    def statements(self) -> int:
        """What was asked of the storage."""
        return sum(seed.statements for seed in self.seeds)

    @property
    def virtual_time(self) -> timedelta:
        """How much time went by for the jobs."""
        return sum((seed.virtual_time for seed in self.seeds), timedelta())

    @property
    def faults(self) -> Mapping[FaultKind, int]:
        """How often what went wrong."""
        counts: Counter[FaultKind] = Counter()
        for seed in self.seeds:
            counts.update(seed.faults)
        return counts


class SimulationFailure(AssertionError):
    """Something that must never happen, happened. Says what, under which seed, and what led to it."""

    def __init__(
        self, seed: int, broken: Broken, faults: Faults, window: FaultWindow, trace: list[str]
    ) -> None:
        self.seed = seed
        """The seed under which it happens again, every time."""
        self.promise = broken.promise
        self.detail = broken.detail
        self.window = window
        """The faults that are needed for it, as far as they could be reduced."""
        self.trace = trace
        """What happened, up to that point: the minimised run."""
        super().__init__(_told(seed, broken, window, trace))


def _told(seed: int, broken: Broken, window: FaultWindow, trace: list[str]) -> str:
    where = "" if broken.key is None else f" ({broken.key.instance_id})"
    kinds = ", ".join(sorted(window.kinds)) or "no faults at all"
    about = [line for line in trace if broken.key is None or _concerns(line, broken.key)]
    shown = "\n".join(f"  {line}" for line in about[-_SHOWN:])
    return (
        f"seed {seed}: {broken.promise}{where}: {broken.detail}\n"
        f"again: simulate(..., seeds=[{seed}])\n"
        f"it takes {kinds}; what led to it:\n{shown}"
    )


def _concerns(line: str, key: Key) -> bool:
    return ":" not in line or key.instance_id in line


@attrs.define(kw_only=True, eq=False)
class Simulation:
    """What is simulated: see :func:`simulate`, which makes one and runs it under many seeds."""

    jobs: DurableJobs[Any]
    workload: Workload
    invariant: Invariant | None = None
    callers: int = 2
    outside: Mapping[Any, Callable[[], Any]] = attrs.field(factory=dict[Any, Callable[[], Any]])
    faults: Faults | None = None
    storage: Callable[[], Storage] = MemoryStorage
    longest: timedelta = timedelta(hours=1)
    rest: timedelta = timedelta(minutes=3)
    slow: timedelta = timedelta(seconds=5)

    def run(self, seed: int, window: FaultWindow | None = None, traced: bool = False) -> SeedReport:
        """One seed, from the first process to rest. Raises :class:`Broken`."""
        report, broken, _ = self.attempt(seed, window, traced)
        if broken is not None:
            raise broken
        return report

    def attempt(
        self, seed: int, window: FaultWindow | None = None, traced: bool = False
    ) -> tuple[SeedReport, Broken | None, World]:
        """The same, with what was broken as a value, and the world as it was then."""
        weather = Faults.drawn(seed) if self.faults is None else self.faults
        made = {key: make() for key, make in self.outside.items()}
        world = World(
            seed,
            weather,
            self.storage(),
            simulated_registry(self.jobs.registry, weather),
            self.jobs.services,
            services=Env(made),
            window=window,
            traced=traced,
        )
        world.watch.slow = self.slow
        view = View(world, made)
        broken: Broken | None = None
        with quietly():
            try:
                self._play(world, view)
            except Broken as found:
                broken = found
            finally:
                world.close()
        return _report(world), broken, world

    def _play(self, world: World, view: View) -> None:
        invariant = self.invariant
        if invariant is not None:
            check = invariant  # bound, because the attribute may change
            world.watch.on_commit = lambda: _hold(check, view)
        programs = _populate(world, self.workload, self.callers)
        while not all(program.done for program in programs):
            self._step(world)
        world.calm_down()
        self._rest(world)
        view.ended = True
        if invariant is not None:
            _hold(invariant, view)

    def _step(self, world: World) -> None:
        if not world.step():
            raise Broken("liveness", "nothing will ever happen again, and the workload has not ended")
        if world.now - world.began > self.longest or world.steps > _MOST_STEPS:
            raise Broken("liveness", f"the workload has not ended after {self.longest}")

    def _rest(self, world: World) -> None:
        """Let everything come to rest, without faults: leases end, alarms fire, retries are made."""
        world.run_for(self.rest, until_at_rest=True)
        world.watch.look_for_late_wake_ups()
        world.watch.survey()


def simulated_registry(registry: Registry, weather: Faults) -> Registry:
    """The same jobs, with telemetry recorded and the lease and poll interval of a simulation."""
    simulated = registry.with_telemetry()
    simulated.limits = attrs.evolve(registry.limits, lease=weather.lease, poll_interval=weather.poll_interval)
    return simulated


def _populate(world: World, workload: Workload, callers: int) -> list[Program]:
    """One to three workers and up to two processes that only call; each caller is in one of them."""
    dice = roll(world.seed, 4)
    programs = [_program(world.seed, number, workload) for number in range(callers)]
    names = [("worker", True)] * dice.choice((1, 2, 2, 3)) + [("caller", False)] * dice.choice((0, 1, 2))
    homes: list[list[Program]] = [[] for _ in names]
    for program in programs:
        dice.choice(homes).append(program)
    for number, ((role, alarms), home) in enumerate(zip(names, homes, strict=True)):
        process = Process(world, f"{role} {number + 1}", alarms=alarms, programs=tuple(home))
        world.at(world.now + timedelta(milliseconds=dice.randint(0, 50)), process.boot)
    return programs


def _program(seed: int, number: int, workload: Workload) -> Program:
    return Program(lambda client: workload(client, roll(seed, _CLIENTS + number)))


def _hold(invariant: Invariant, view: View) -> None:
    try:
        invariant(view)
    except Broken:
        raise
    except Exception as error:
        commit = view.commit
        raise Broken(
            "the invariant", f"{type(error).__name__}: {error}", None if commit is None else commit.key
        ) from error


def _report(world: World) -> SeedReport:
    return SeedReport(
        seed=world.seed,
        turns=world.watch.turns,
        steps=world.watch.steps,
        statements=world.watch.statements,
        virtual_time=world.now - world.began,
        faults=dict(world.faults.counts),
        digest=world.digest,
    )


@contextmanager
def quietly() -> Generator[None]:
    """Without the logs of thousands of failures that were meant to happen."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def simulate(
    jobs: DurableJobs[Any],
    workload: Workload,
    invariant: Invariant | None = None,
    *,
    seeds: Iterable[int] = range(100),
    callers: int = 2,
    outside: Mapping[Any, Callable[[], Any]] | None = None,
    faults: Faults | None = None,
    storage: Callable[[], Storage] = MemoryStorage,
    longest: Span = "1 hour",
    rest: Span = "3 minutes",
    slow: Span = "5 seconds",
    shrink: int = 60,
) -> SimulationReport:
    """Run jobs under faults: processes that crash, stand still and lose answers, on virtual time.

    For each seed some worker processes and some that only call are started; ``callers`` of them run
    ``workload(client, dice)``, which begins again when its process crashed or it failed with a typed error.
    ``invariant(view)`` is called after every commit and, with ``view.ended``, at the end when all has come
    to rest; it fails by raising. What the engine promises is checked besides. ``outside`` makes services anew
    for each seed that handlers, workload and ``view.outside`` share and no crash touches.

    ``faults`` fixes what goes wrong, instead of what each seed draws. ``longest`` bounds the virtual time of
    a workload, ``rest`` is how long it then may take to come to rest, ``slow`` how long handlers take at
    most. A seed that fails is run again with fewer faults, at most ``shrink`` times, and then
    :class:`SimulationFailure` is raised.
    """
    simulation = Simulation(
        jobs=jobs,
        workload=workload,
        invariant=invariant,
        callers=callers,
        outside=outside or {},
        faults=faults,
        storage=storage,
        longest=to_timedelta(longest),
        rest=to_timedelta(rest),
        slow=to_timedelta(slow),
    )
    return SimulationReport(seeds=tuple(checked(simulation, seed, shrink) for seed in seeds))


def checked(simulation: Simulation, seed: int, shrink: int) -> SeedReport:
    """Run one seed; a failure is minimised and raised."""
    report, broken, world = simulation.attempt(seed)
    if broken is None:
        return report
    window = _shrunk(simulation, seed, broken, world.faults.rolled, shrink)
    _, again, world = simulation.attempt(seed, window, traced=True)
    raise SimulationFailure(seed, again or broken, world.weather, window, world.trace or []) from (
        again or broken
    )


def _shrunk(simulation: Simulation, seed: int, broken: Broken, rolled: int, effort: int) -> FaultWindow:
    """Leave out faults as long as the same promise is broken: whole kinds, then the last, then the first."""
    window = FaultWindow(last=rolled)
    left = effort

    def still(smaller: FaultWindow) -> bool:
        nonlocal left
        left -= 1
        found = simulation.attempt(seed, smaller)[1]
        return found is not None and found.promise == broken.promise

    for kind in FAULT_KINDS:
        fewer = attrs.evolve(window, kinds=window.kinds - {kind})
        if left > 0 and still(fewer):
            window = fewer
    width = rolled
    while width > 1 and left > 0:
        width = (width + 1) // 2
        for fewer in (
            attrs.evolve(window, last=window.last - width),
            attrs.evolve(window, first=window.first + width),
        ):
            if left > 0 and fewer.first <= fewer.last and still(fewer):
                window = fewer
    return window

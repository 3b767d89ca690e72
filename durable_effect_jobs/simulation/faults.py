"""What goes wrong in a simulation, and how often: every seed draws its own weather."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, get_args

import attrs

from durable_effect import Random

__all__ = ["FAULT_KINDS", "Dice", "FaultKind", "FaultWindow", "Faults", "Injector", "roll"]

T = TypeVar("T")

FaultKind: TypeAlias = Literal[
    "crash", "restart", "pause", "lost statement", "lost answer", "delay", "outage", "clock jump"
]
"""A process dies; it is stopped and started again, as for a deployment; it stands still while others go on; a
statement never reaches the storage; it does, and its answer is lost; it arrives when the lease is over; the
storage is down for a while; the clock is set."""

FAULT_KINDS: tuple[FaultKind, ...] = get_args(FaultKind)

_CALM_SEEDS = 8
"""One seed in so many has no faults at all: there everything happens exactly once."""


class Dice(Protocol):
    """What a workload rolls: the part of the standard library's ``random.Random`` that it may use."""

    def random(self) -> float:
        """A float in [0, 1)."""
        ...

    def randint(self, a: int, b: int) -> int:
        """An integer from ``a`` to ``b``, both included."""
        ...

    def uniform(self, a: float, b: float) -> float:
        """A float between ``a`` and ``b``."""
        ...

    def choice(self, seq: Sequence[T]) -> T:
        """One of them."""
        ...

    def sample(self, population: Sequence[T], k: int) -> list[T]:
        """``k`` different ones of them."""
        ...

    def shuffle(self, x: list[Any]) -> None:
        """Put a list in any order."""
        ...


def roll(seed: int, stream: int) -> Dice:
    """Dice of one purpose: streams of the same seed know nothing of each other."""
    return Random.seeded(seed * 1_000_003 + stream).source


@attrs.frozen(kw_only=True)
class Faults:
    """How often what goes wrong, and how fast things are. Rates are per step of a process, from 0 to 1.

    ``Faults.drawn(seed)`` is what ``simulate`` takes by default: some rates are 0, others high.
    """

    crash: float = 0.0
    restart: float = 0.0
    pause: float = 0.0
    lost_statement: float = 0.0
    lost_answer: float = 0.0
    delay: float = 0.0
    outage: float = 0.0
    clock_jump: float = 0.0
    latency: timedelta = timedelta(milliseconds=5)
    """A statement takes at most so long to arrive, and so does its answer; most are faster."""
    lease: timedelta = timedelta(seconds=2)
    poll_interval: timedelta = timedelta(milliseconds=500)

    @staticmethod
    def drawn(seed: int) -> Faults:
        """The weather of a seed."""
        dice = roll(seed, 1)
        speed: dict[str, Any] = {
            "latency": timedelta(milliseconds=dice.choice((0, 1, 5, 5, 40))),
            "lease": timedelta(milliseconds=dice.choice((600, 1_000, 2_000, 4_000))),
            "poll_interval": timedelta(milliseconds=dice.choice((200, 500, 1_000))),
        }
        if seed % _CALM_SEEDS == 0:
            return Faults(**speed)
        return Faults(
            crash=dice.choice((0, 0.0005, 0.002, 0.01)),
            restart=dice.choice((0, 0, 0.0005, 0.002)),
            pause=dice.choice((0, 0.0005, 0.003)),
            lost_statement=dice.choice((0, 0.002, 0.02)),
            lost_answer=dice.choice((0, 0.005, 0.03)),
            delay=dice.choice((0, 0.001, 0.005)),
            outage=dice.choice((0, 0, 0.0005)),
            clock_jump=dice.choice((0, 0, 0, 0.0005)),
            **speed,
        )

    @property
    def none(self) -> bool:
        """Whether nothing goes wrong."""
        return not any(
            (
                self.crash,
                self.restart,
                self.pause,
                self.lost_statement,
                self.lost_answer,
                self.delay,
                self.outage,
                self.clock_jump,
            )
        )


@attrs.frozen(kw_only=True)
class FaultWindow:
    """Which of the faults that are rolled strike: with fewer of them a failing run is easier to read."""

    kinds: frozenset[FaultKind] = frozenset(FAULT_KINDS)
    first: int = 0
    last: int = 1 << 60


class Injector:
    """Rolls for faults at every boundary."""

    __slots__ = (
        "_dice",
        "_faults",
        "_none",
        "_rolled",
        "_step",
        "_steps",
        "_window",
        "calm",
        "counts",
        "forced",
    )

    def __init__(self, faults: Faults, dice: Dice, window: FaultWindow) -> None:
        self._faults = faults
        self._dice = dice
        self._window = window
        self._rolled = 0
        self._none = faults.none
        self._steps: tuple[tuple[FaultKind, float], ...] = (
            ("crash", faults.crash),
            ("restart", faults.restart),
            ("pause", faults.pause),
            ("clock jump", faults.clock_jump),
        )
        self._step = sum(rate for _, rate in self._steps)
        self.counts: Counter[FaultKind] = Counter()
        self.calm = False
        """Once set nothing goes wrong any more."""
        self.forced: list[FaultKind] = []
        """Faults that strike the next statements, whatever the dice say."""

    def at_step(self) -> FaultKind | None:
        """What happens to a process that is about to go on."""
        if self.calm or not self._step:
            return None
        return self._struck(self._dice.random(), self._steps)

    def at_sending(self) -> FaultKind | None:
        """What happens to a statement on its way."""
        return self._either((("delay", self._faults.delay),))

    def at_arrival(self) -> FaultKind | None:
        """What happens to a statement at the storage."""
        if self.forced and not self.calm:
            kind = self.forced.pop(0)
            self.counts[kind] += 1
            return kind
        faults = self._faults
        return self._either(
            (
                ("lost statement", faults.lost_statement),
                ("lost answer", faults.lost_answer),
                ("outage", faults.outage),
                ("crash", faults.crash),
            )
        )

    def _either(self, rates: Collection[tuple[FaultKind, float]]) -> FaultKind | None:
        if self.calm or self._none:
            return None
        return self._struck(self._dice.random(), rates)

    def _struck(self, rolled: float, rates: Collection[tuple[FaultKind, float]]) -> FaultKind | None:
        for kind, rate in rates:
            if rolled < rate:
                return kind if self._strikes(kind) else None
            rolled -= rate
        return None

    def _strikes(self, kind: FaultKind) -> bool:
        window, number = self._window, self._rolled
        self._rolled += 1
        if kind not in window.kinds or not window.first <= number < window.last:
            return False
        self.counts[kind] += 1
        return True

    @property
    def rolled(self) -> int:
        """How many faults were due so far, whether they struck or not."""
        return self._rolled

    def span(self, *of: timedelta) -> timedelta:
        """How long one lasts: anything up to one of these."""
        return self._dice.choice(of) * self._dice.uniform(0.1, 1.0)

    def chance(self) -> bool:
        """Heads or tails."""
        return self._dice.random() < 0.5

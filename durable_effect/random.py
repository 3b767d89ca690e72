"""Random: the only one who rolls dice, so that a seed makes a whole program reproducible."""

from __future__ import annotations

import builtins
import os
import random  # noqa: TID251 - this is the one place that rolls
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from durable_effect.clock import clock_of
from durable_effect.effect import Effect
from durable_effect.ops import AnyEffect, Look, Provide

A = TypeVar("A")
E = TypeVar("E")
R = TypeVar("R")


class Random:
    """Dice. A service that always exists: it adds nothing to `R`; `Random.seeded(n)` is a reproducible one.

    The default one is seeded by the operating system, again in every forked process. It is not for secrets.
    """

    __slots__ = ("source",)

    def __init__(self, source: random.Random) -> None:
        self.source = source

    @staticmethod
    def seeded(seed: int) -> Random:
        """Make dice that roll the same for the same seed."""
        return Random(random.Random(seed))  # noqa: S311 - not for secrets

    @staticmethod
    def with_seed(effect: Effect[A, E, R], seed: int) -> Effect[A, E, R]:
        """Run an effect with dice that roll the same in every run."""
        return Provide(effect, lambda env: env.add(Random, Random.seeded(seed)))

    @staticmethod
    def random() -> Effect[float]:
        """Roll a float in [0, 1)."""
        return _roll(lambda source: source.random())

    @staticmethod
    def uniform(low: float, high: float) -> Effect[float]:
        """Roll a float between `low` and `high`."""
        return _roll(lambda source: source.uniform(low, high))

    @staticmethod
    def integer(low: int, high: int) -> Effect[int]:
        """Roll an integer from `low` to `high`, both included."""
        return _roll(lambda source: source.randint(low, high))

    @staticmethod
    def bytes(n: int) -> Effect[builtins.bytes]:
        """Roll `n` bytes."""
        return _roll(lambda source: source.randbytes(n))

    @staticmethod
    def uuid7() -> Effect[UUID]:
        """Make a UUID of version 7: the `Clock`'s milliseconds, then dice."""
        return Look(lambda fiber: _uuid7(clock_of(fiber).current(), random_of(fiber).source))


DEFAULT_RANDOM = Random(random.Random())  # noqa: S311 - not for secrets
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=DEFAULT_RANDOM.source.seed)


def random_of(fiber: Any) -> Random:
    """Answer the dice that a fiber sees."""
    dice: Random = fiber.env.services.get(Random, DEFAULT_RANDOM)
    return dice


def _roll(f: Callable[[random.Random], Any]) -> AnyEffect:
    return Look(lambda fiber: f(random_of(fiber).source))


_EPOCH_MS = 1000


def _uuid7(now: datetime, source: random.Random) -> UUID:
    """RFC 9562, 5.7: 48 bits of milliseconds, version, 12 bits, variant, 62 bits."""
    milliseconds = int(now.timestamp() * _EPOCH_MS) & (1 << 48) - 1
    high = milliseconds << 16 | 0x7 << 12 | source.getrandbits(12)
    low = 0b10 << 62 | source.getrandbits(62)
    return UUID(int=high << 64 | low)

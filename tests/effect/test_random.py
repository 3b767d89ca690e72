"""Dice: seeded, they make a program reproducible."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from durable_effect import Clock, Do, Effect, Random, TestClock, provide_service

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


@Effect.gen
def rolls() -> Do[list[Any]]:
    """Roll everything there is to roll."""
    return [
        (yield from Random.random()),
        (yield from Random.uniform(5, 6)),
        (yield from Random.integer(1, 6)),
        (yield from Random.bytes(4)),
        (yield from Random.uuid7()),
    ]


def seeded(seed: int) -> list[Any]:
    clock = TestClock(NEW_YEAR)
    return Effect.run_sync(
        rolls() | provide_service(Random, Random.seeded(seed)) | provide_service(Clock, clock)
    )


def test_a_seed_decides_everything() -> None:
    """The same seed rolls the same, another one something else."""
    assert seeded(1) == seeded(1)
    assert seeded(1) != seeded(2)


def test_rolls_are_in_their_ranges() -> None:
    """Bounds hold, also without a seed."""
    unit, between, die, raw, _ = Effect.run_sync(rolls())
    assert 0 <= unit < 1
    assert 5 <= between <= 6
    assert die in range(1, 7)
    assert len(raw) == 4


def test_uuids_are_of_version_seven_and_ordered_in_time() -> None:
    """The time is in front: version, variant and milliseconds are where RFC 9562 says."""
    clock = TestClock(NEW_YEAR)
    make = Random.uuid7() | provide_service(Random, Random.seeded(1))

    @Effect.gen
    def program() -> Do[list[Any]]:
        made = []
        for _ in range(3):
            made.append((yield from make))
            yield from clock.adjust(timedelta(milliseconds=1))
        return made

    made = Effect.run_sync(program() | provide_service(Clock, clock))
    assert made == sorted(made)
    assert {(uuid.version, uuid.variant) for uuid in made} == {(7, "specified in RFC 4122")}
    assert made[0].int >> 80 == int(NEW_YEAR.timestamp() * 1000)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_processes_roll_differently() -> None:
    """A child process does not repeat its parent's dice."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, Effect.run_sync(Random.bytes(16)))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 16) != Effect.run_sync(Random.bytes(16))
    os.close(reader)
    os.close(writer)

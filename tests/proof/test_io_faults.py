"""Faults of the disk: each call that SQLite makes fails once, and then every later one fails with it.

Whatever fails and when, callers hear of it, nothing that was acknowledged is lost, a step that is sent again
happens once, and when the disk is repaired the same storage goes on as if nothing had been.
"""

from __future__ import annotations

import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from storage_steps import Task, check_known, step_on

from durable_effect import Do, Effect, Need, Random, Scope
from durable_effect_jobs.errors import StorageError
from durable_effect_jobs.storage import Storage
from durable_effect_jobs.storage.sqlite import SqliteStorage

pytest.importorskip("apsw", reason="apsw stands between SQLite and the disk, and is not installed")

import apsw
from apsw_connection import connector
from faulty_vfs import Fault, FaultyVfs, Lasting

TASKS = 3
ROUNDS = 10
SEED = 22
"""With these dice the steps are of every kind, and tasks are removed and born again."""
FAILURES_UNTIL_REPAIRED = 4


class Worker:
    """Takes its steps on a storage whose disk fails, and sends each again until it is answered."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self.tasks = [Task.named(f"k{n}") for n in range(TASKS)]
        self.failures = 0

    @Effect.gen
    def work(self, storage: Storage) -> Do[None, Any]:
        """Rounds of steps on one to three tasks at once, so that a fault meets batches of each size."""
        dice = Random.seeded(SEED).source
        for _ in range(ROUNDS):
            chosen = dice.sample(self.tasks, 1 + dice.randrange(TASKS))
            steps = [self.insist(step_on(task, storage, dice)) for task in chosen]
            yield from Effect.all(steps, concurrency="unbounded")
        yield from self.insist(check_known(self.tasks, storage))

    @Effect.gen
    def insist(self, step: Effect[Any, Any, Any]) -> Do[Any, Any, Any]:
        """Again and again until it succeeds. Only the storage's own error may be a reason to."""
        while True:
            outcome = yield from step.map(_Answer).catch_all(Effect.succeed)
            if isinstance(outcome, _Answer):
                return outcome.value
            assert isinstance(outcome, StorageError), outcome
            self.failures += 1
            assert self.failures < 100, f"it never serves again: {outcome}"
            if self.failures == FAILURES_UNTIL_REPAIRED:
                self._fault.repair()


class _Answer:
    def __init__(self, value: Any) -> None:
        self.value = value


def work_through(directory: Path, vfs: FaultyVfs, fault: Fault) -> list[Task]:
    """A storage from the making of its file to its end on a disk with this fault, and then what is left."""
    vfs.fault = fault
    path = directory / "jobs.db"
    worker = Worker(fault)
    opened = SqliteStorage.open(path, connector=connector("faulty", "PRAGMA wal_autocheckpoint = 8"))

    @Effect.gen
    def life() -> Do[None, Any, Need[Scope]]:
        storage = yield from worker.insist(opened)
        yield from worker.work(storage)

    life().scoped().run()
    fault.repair()
    SqliteStorage.open(path).flat_map(lambda storage: check_known(worker.tasks, storage)).scoped().run()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    for file in directory.iterdir():
        file.unlink()
    return worker.tasks


@pytest.fixture(autouse=True)
def _expected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of SQLite's calls have nobody to tell of a failure: apsw tells the interpreter then."""
    others = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if not isinstance(unraisable.exc_value, apsw.Error):
            others(unraisable)

    monkeypatch.setattr(sys, "unraisablehook", hook)


def test_no_fault_of_the_disk_loses_or_repeats_a_step(fast_path: Path, report: Callable[..., None]) -> None:
    """Every call of a storage's whole life, from the making of its file, fails: once, and until repaired."""
    vfs = FaultyVfs("faulty", Fault(0))
    sound = Fault(0)
    assert sum(task.letters for task in work_through(fast_path, vfs, sound)) > 1
    injected: Counter[str] = Counter()
    lastings: tuple[Lasting, ...] = ("once", "until repaired")
    for lasting in lastings:
        for at in range(1, sound.calls + 1):
            fault = Fault(at, lasting)
            try:
                work_through(fast_path, vfs, fault)
            except BaseException as error:
                error.add_note(f"call {at} of {sound.calls} failed {lasting}: {dict(fault.injected)}")
                raise
            assert fault.injected.total() > 0
            injected += fault.injected
    report("I/O faults", positions=2 * sound.calls, violations=0, **injected)

"""kill -9, again and again: what a process promised is kept by the next, and kept once.

Processes host jobs of every kind on one file and tell an outside ledger what was acknowledged to their
clients and what their handlers did. They are killed at any moment, dismissed, or kill themselves; another
one takes over at once, and its clients ask again for what was not answered. In the end ledger and file agree.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sqlite3
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import attrs
import pytest
from ledger_child import ACCOUNTS, BATCHES, BOMBS, BYSTANDERS, LIFE, POISONED, TICKERS

from durable_effect import Clock, Do, Effect, Random
from durable_effect_jobs.instance import DeadLetter, Instance, to_micros
from durable_effect_jobs.step import Limits
from durable_effect_jobs.storage import Storage, Survey
from durable_effect_jobs.storage.sqlite import SqliteStorage

if not hasattr(os, "fork"):
    pytest.skip("the processes are forks, which this system does not have", allow_module_level=True)

ENDS = 200
FILES = 2
"""At the same time, each with its own processes one after the other."""
MOST_LINES = 300
"""That a process may write before its end."""
DISMISSED = 0.1
"""So many are asked to end, by SIGTERM, instead of being killed."""


# -- processes ----------------------------------------------------------------------------------------


class Nursery:
    """Makes processes quickly: forks of one that has imported everything."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair()
        with theirs:
            script = str(Path(__file__).with_name("ledger_child.py"))
            command = [sys.executable, script, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        self._answers = self._requests.makefile()

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self._requests.close()
        self._process.wait()

    @contextmanager
    def process(self, does: str, path: Path, following: dict[str, int]) -> Iterator[Process]:
        """A process, which has to have ended at the end of the block; then its exit code is known."""
        ledger, theirs = os.pipe()
        request = {"does": does, "url": f"sqlite:///{path}", "following": following}
        socket.send_fds(self._requests, [json.dumps(request).encode()], [theirs])
        os.close(theirs)
        with os.fdopen(ledger) as lines:
            process = Process(int(self._answers.readline()), lines)
            try:
                yield process
            except BaseException:  # nobody waits for a process whose ledger was found to be wrong
                process.end(signal.SIGKILL)
                raise
        process.exit_code = int(self._answers.readline())


class Process:
    """A process and what it writes into the ledger."""

    exit_code: int

    def __init__(self, pid: int, lines: IO[str]) -> None:
        self._pid = pid
        self._lines = lines

    def lines(self) -> Iterator[str]:
        """Line after line, until it has ended and all is read."""
        for line in self._lines:
            yield line.removesuffix("\n")

    def until_it_speaks(self, longest: float) -> None:
        """Wait for its first line, but not longer than so many seconds."""
        select.select([self._lines], [], [], longest)

    def end(self, by: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self._pid, by)


# -- the ledger ---------------------------------------------------------------------------------------


@attrs.define
class Ledger:
    """What all processes on one file have written."""

    begun: Counter[str] = attrs.field(factory=Counter[str])
    """The last operation that each instance was asked for."""
    acknowledged: Counter[str] = attrs.field(factory=Counter[str])
    """The last operation of each that was answered."""
    settlements: dict[str, set[str]] = attrs.field(factory=lambda: defaultdict[str, set[str]](set))
    """The runs of each account, by their keys."""
    flushes: dict[tuple[str, int], set[str]] = attrs.field(
        factory=lambda: defaultdict[tuple[str, int], set[str]](set)
    )
    """The runs that flushed each event of each batch."""
    ticks: dict[str, dict[int, str]] = attrs.field(factory=lambda: defaultdict[str, dict[int, str]](dict))
    """The runs of each ticker, by their numbers."""
    attempts: dict[str, list[int]] = attrs.field(factory=lambda: defaultdict[str, list[int]](list))
    """The attempts of each run, in the order in which they were made."""
    explosions: Counter[str] = attrs.field(factory=Counter[str])
    lines: int = 0

    def following(self) -> dict[str, int]:
        """What is to be asked for next: what was not answered is asked for again."""
        return {key: self.acknowledged[key] + 1 for key in [*ACCOUNTS, *BATCHES, *TICKERS]}

    def read(self, line: str) -> None:
        """One line more."""
        self.lines += 1
        match line.split():
            case ["R"]:
                pass
            case ["S", key, number]:
                self.begun[key] = int(number)
            case ["A", key, number]:
                self.acknowledged[key] = int(number)
            case ["X", key, run_key, _]:
                self.settlements[key].add(run_key)
            case ["F", key, run_key, attempt, ok, events]:
                self.attempts[run_key].append(int(attempt))
                for event in events.split(",") if ok == "1" else ():
                    self.flushes[key, int(event)].add(run_key)
            case ["T", key, run_key, run, attempt]:
                self.attempts[run_key].append(int(attempt))
                assert self.ticks[key].setdefault(int(run), run_key) == run_key
            case ["B", key]:
                self.explosions[key] += 1
            case _:
                pytest.fail(line)

    def last(self, key: str) -> range:
        """The operations that may have been the last to happen: one may have been begun and not answered."""
        assert self.begun[key] - self.acknowledged[key] in (0, 1)
        return range(self.acknowledged[key], self.begun[key] + 1)


# -- what is left in the file -------------------------------------------------------------------------


@attrs.frozen
class Left:
    """What a file holds after all its processes have ended."""

    survey: Survey
    instances: dict[str, Instance]
    letters: list[DeadLetter]


def left_in(path: Path) -> Left:
    """Open the file as the next process would."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    @Effect.gen
    def read(storage: Storage) -> Do[Left, Any]:
        survey = yield from storage.survey((yield from Clock.now()), lease=Limits().lease)
        instances = yield from storage.instances(limit=1_000)
        letters = yield from storage.dead_letters(limit=1_000_000)
        return Left(survey, {instance.key.id: instance for instance in instances}, letters)

    return SqliteStorage.open(path).flat_map(read).scoped().run()


def leases_in(path: Path) -> dict[str, tuple[str, int]]:
    """The instances whose lease is not over, with their incarnation and the crashes that they had before.

    Leases of processes that were killed end when the next one begins.
    """
    query = """
        SELECT id, json_extract(CAST(record AS TEXT), '$.incarnation'), crashes FROM instance
        WHERE lease_until_us > ?
    """
    now_us = to_micros(Clock.now().run_sync())
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return {key: (life, crashes) for key, life, crashes in connection.execute(query, (now_us,))}


# -- ledger and file ----------------------------------------------------------------------------------


def check(ledger: Ledger, left: Left) -> None:
    """Nothing lost, nothing twice, nothing stuck."""
    assert left.survey.violations == ()
    assert left.survey.leased == left.survey.suspects == left.survey.quarantined == 0
    for key in ACCOUNTS:
        check_account(ledger, key, left.instances.get(key))
    check_batches(ledger, left)
    for key in TICKERS:
        check_ticker(ledger, key, left.instances[key])
    check_attempts(ledger)


def check_account(ledger: Ledger, key: str, found: Instance | None) -> None:
    """Its life began after the last that was ended, and counts each event and each run of it once."""
    ended = 0 if found is None else state(found)["last"]
    if found is None:
        assert any(last % LIFE == 0 for last in ledger.last(key)), key
        return
    assert ended in ledger.last(key)
    assert found.alarm is None
    assert found.event_count == (ended - 1) % LIFE + 1
    runs = {run for run in ledger.settlements[key] if run.startswith(f"{found.incarnation}:")}
    assert runs == {f"{found.incarnation}:{run}" for run in range(1, found.run_count + 1)}
    assert state(found) == {
        "first": ended - (ended - 1) % LIFE,
        "last": ended,
        "settled": ended,
        "runs": found.run_count,
    }


def check_batches(ledger: Ledger, left: Left) -> None:
    """Each event was flushed by one run, or is in one dead letter."""
    dead = Counter(
        (letter.instance.key.id, event) for letter in left.letters for event in state(letter.instance)
    )
    for key in BATCHES:
        assert key not in left.instances
        for number in range(1, ledger.begun[key] + 1):
            times = len(ledger.flushes[key, number]) + dead[key, number]
            assert times == 1 or (times == 0 and number > ledger.acknowledged[key]), (key, number, times)
    for letter in left.letters:
        assert state(letter.instance)[0] % POISONED == 0
        assert letter.reason == "max_attempts"
    assert dead.total() > 0


def check_ticker(ledger: Ledger, key: str, found: Instance) -> None:
    """Its runs are numbered without a gap, and its state counts each once."""
    ticks = ledger.ticks[key]
    assert ticks == {run: f"{found.incarnation}:{run}" for run in range(1, len(ticks) + 1)}
    assert state(found) == len(ticks) - (found.failed_attempts > 0)
    assert found.alarm is not None


def check_attempts(ledger: Ledger) -> None:
    """Attempts count up from 1 without a gap; one that was killed is made again."""
    for run, attempts in ledger.attempts.items():
        assert attempts[0] == 1, run
        assert all(after - before in (0, 1) for before, after in pairwise(attempts)), run
        assert attempts[-1] <= 3, run


def state(instance: Instance) -> Any:
    """Its state, decoded."""
    return json.loads(instance.state or b"null")


# -- the claims ---------------------------------------------------------------------------------------


def ends_of_processes(path: Path, number: int, seed: int) -> tuple[Ledger, Counter[str]]:
    """Processes on one file, so many of which are ended at any moment; the last is let come to an end."""
    ledger, ends, dice = Ledger(), Counter[str](), Random.seeded(seed).source
    condemned: set[tuple[str, str]] = set()
    with Nursery() as nursery:
        for _ in range(number):
            by = signal.SIGTERM if dice.random() < DISMISSED else signal.SIGKILL
            ends[by.name] += 1
            with nursery.process("work", path, ledger.following()) as process:
                end_sometime(process, by, ledger, dice.random())
            assert process.exit_code == (0 if by is signal.SIGTERM else -by)
            leases = leases_in(path) if path.exists() else {}
            assert by is signal.SIGKILL or not leases
            condemned |= {(key, life) for key, (life, crashes) in leases.items() if crashes >= 2}
        come_to_an_end(nursery, path, ledger)
        ends["quarantined"] = resume_quarantined(path, condemned)
        come_to_an_end(nursery, path, ledger)
    return ledger, ends


def end_sometime(process: Process, by: signal.Signals, ledger: Ledger, draw: float) -> None:
    """Early more often than late; before its first line now and then, unless it has to know the signal."""
    lines = process.lines()
    heard = int(MOST_LINES * draw * draw)
    if heard == 0 and by is signal.SIGKILL:
        process.until_it_speaks(draw / 2)
    for _ in range(max(heard, by is signal.SIGTERM)):
        ledger.read(next(lines))
    process.end(by)
    for line in lines:
        ledger.read(line)


def come_to_an_end(nursery: Nursery, path: Path, ledger: Ledger) -> None:
    """A process that nobody kills, and which ends when nothing waits any more."""
    with nursery.process("finish", path, {}) as process:
        for line in process.lines():
            ledger.read(line)
    assert process.exit_code == 0


def resume_quarantined(path: Path, condemned: set[tuple[str, str]]) -> int:
    """What an operator does; whoever was killed in three runs in a row needs it, and nobody else."""
    left = left_in(path)
    living = {(key, instance.incarnation): instance for key, instance in left.instances.items()}
    quarantined = {name for name, instance in living.items() if instance.quarantined}
    assert quarantined == condemned & living.keys()
    if quarantined:
        command = [sys.executable, "-m", "durable_effect_jobs.cli", "resume", "--all", "--yes"]
        subprocess.run([*command, "--storage", f"sqlite:///{path}"], check=True, capture_output=True)
    return len(quarantined)


def test_what_was_acknowledged_survives_kill_9(
    tmp_path: Path, tier: int, report: Callable[..., None]
) -> None:
    """Two hundred ends of processes: 0 acknowledged operations lost, 0 done twice, 0 instances stuck."""
    paths = [tmp_path / f"{number}.db" for number in range(FILES)]
    with ThreadPoolExecutor(FILES) as threads:
        ended = list(
            threads.map(ends_of_processes, paths, [ENDS * tier // FILES] * FILES, range(1, FILES + 1))
        )
    for path, (ledger, _) in zip(paths, ended, strict=True):
        check(ledger, left_in(path))
    ends = sum((ends for _, ends in ended), Counter[str]())
    assert ends["SIGKILL"] + ends["SIGTERM"] == ENDS * tier
    report(
        "kill -9",
        killed=ends["SIGKILL"],
        dismissed=ends["SIGTERM"],
        killed_three_times_in_a_row=ends["quarantined"],
        acknowledged=sum(ledger.acknowledged.total() for ledger, _ in ended),
        lost=0,
        repeated=0,
        stuck=0,
    )


def test_a_handler_that_kills_its_process_is_quarantined(tmp_path: Path, report: Callable[..., None]) -> None:
    """After three deaths of the process in its run, whatever else it was sent; those beside it never are."""
    path, ledger, deaths, exit_code = tmp_path / "jobs.db", Ledger(), 0, -signal.SIGKILL
    with Nursery() as nursery:
        while exit_code == -signal.SIGKILL and deaths <= 3 * len(BOMBS):
            with nursery.process("light", path, {"event": deaths}) as process:
                for line in process.lines():
                    ledger.read(line)
            exit_code = process.exit_code
            deaths += exit_code == -signal.SIGKILL
    assert exit_code == 0
    left = left_in(path)
    assert left.survey.violations == ()
    assert {key for key, instance in left.instances.items() if instance.quarantined} == set(BOMBS)
    assert 3 <= deaths <= 3 * len(BOMBS)
    for key in BOMBS:
        assert 1 <= ledger.explosions[key] <= 3
        assert left.instances[key].crashes == 3
    for key in BYSTANDERS:
        assert 1 <= state(left.instances[key]) <= left.instances[key].event_count <= deaths + 1
        assert left.instances[key].crashes == 0
    report("poison", deaths=deaths, quarantined=len(BOMBS), innocents_quarantined=0)

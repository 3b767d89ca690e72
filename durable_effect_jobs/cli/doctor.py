"""Whether a storage is well, and what to do where it is not.

Facts are gathered by reading only, beside a host that may be at work; what follows from them is decided by
rules that need nothing but the facts.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Literal, TypeAlias, TypeVar

import attrs

from durable_effect import Clock, Do, Effect, Need, Scope
from durable_effect_jobs.cli import sqlite_health
from durable_effect_jobs.cli.arguments import storage_from
from durable_effect_jobs.cli.instance_view import countdown
from durable_effect_jobs.cli.selection import State, tally
from durable_effect_jobs.cli.sqlite_health import SqliteHealth
from durable_effect_jobs.errors import StorageError
from durable_effect_jobs.storage import Survey

__all__ = ["Facts", "Finding", "diagnose", "examine"]

A = TypeVar("A")

Level: TypeAlias = Literal["problem", "note"]

_OLDEST_SQLITE = (3, 37, 0)
_WITHOUT_WAL_RESET_BUG = (3, 51, 3)
_TOLERANCE = timedelta(seconds=5)  # clocks are adjusted by a little all the time
_MOST_DETAILS = 100
_SLOW_OUTBOX = timedelta(hours=1)


@attrs.frozen(kw_only=True)
class Finding:
    """Something that an operator should know."""

    check: str
    """``I1`` to ``I8``, or what was looked at."""
    level: Level
    """A problem needs somebody to act; a note does not."""
    summary: str
    details: tuple[str, ...] = ()
    """What and where, up to 100."""
    advice: str
    """What to do."""
    page: str
    """Where the documentation says more."""


@attrs.frozen(kw_only=True)
class Facts:
    """What was found out."""

    now: datetime
    sqlite: tuple[int, ...]
    survey: Survey | None = None
    states: Mapping[State, int] = {}
    """How many instances are stopped, parked, and so on."""
    health: SqliteHealth | None = None
    errors: tuple[StorageError, ...] = ()
    """What could not be looked at."""


# -- gathering -------------------------------------------------------------------------------------


@Effect.gen
def examine(
    url: str, *, deep: bool, lease: timedelta, looked_at: Callable[[int], object]
) -> Do[Facts, StorageError, Need[Scope]]:
    """Read all that there is. A file that is not there or not ours is an error; a damaged one is a fact."""
    if sqlite_health.version < _OLDEST_SQLITE:
        return Facts(now=(yield from Clock.now()), sqlite=sqlite_health.version)
    storage = yield from storage_from(url, read_only=True)
    errors: list[StorageError] = []
    health = yield from _noting(errors, sqlite_health.examine(url, deep=deep, lease=lease))
    now = yield from Clock.now()  # and not before: a host may write while the file is read
    survey = yield from _noting(errors, storage.survey(now, lease=lease))
    states = yield from _noting(errors, tally(storage, now, looked_at))
    return Facts(
        now=now,
        sqlite=sqlite_health.version,
        survey=survey,
        states=states or {},
        health=health,
        errors=tuple(errors),
    )


def _noting(errors: list[StorageError], look: Effect[A, StorageError]) -> Effect[A | None]:
    """A look that fails is told of, and does not keep the others from being taken."""

    def note(error: StorageError) -> Effect[None]:
        errors.append(error)
        return Effect.void

    return look.catch_all(note)


# -- deciding --------------------------------------------------------------------------------------


def diagnose(facts: Facts, url: str) -> tuple[Finding, ...]:
    """What follows from the facts, problems first."""
    found = [finding for rule in _RULES for finding in rule(facts)]
    option = f"--storage {shlex.quote(url)}"
    told = (attrs.evolve(finding, advice=finding.advice.format(storage=option)) for finding in found)
    return tuple(sorted(told, key=lambda finding: finding.level == "note"))


def _finding(
    check: str, summary: str, advice: str, *, level: Level = "problem", details: Sequence[str] = ()
) -> Finding:
    page = f"docs/operations.md#{check.lower().replace(' ', '-')}"
    return Finding(
        check=check, level=level, summary=summary, details=tuple(details), advice=advice, page=page
    )


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


# -- what the library and the machine are


def _sqlite_too_old(facts: Facts) -> Iterator[Finding]:
    """Older libraries cannot open a file; some newer ones have a bug that needs a second writer."""
    version = ".".join(map(str, facts.sqlite))
    if facts.sqlite < _OLDEST_SQLITE:
        yield _finding(
            "sqlite",
            f"SQLite {version} is too old: 3.37 is needed",
            "Use a Python that has a newer SQLite library.",
        )
    elif facts.sqlite < _WITHOUT_WAL_RESET_BUG:
        yield _finding(
            "sqlite",
            f"SQLite {version} may have the WAL-reset bug, which does not matter to one process",
            "Nothing, as long as only the host writes to the file. The bug needs two connections that"
            " write or checkpoint at the same time, and a host has one. Do not open the file to write with"
            " another program while a host has it (sqlite3 -readonly is safe). SQLite 3.51.3 has it fixed.",
            level="note",
        )


def _clock_went_back(facts: Facts) -> Iterator[Finding]:
    latest = None if facts.health is None else facts.health.latest
    if latest is not None and latest > facts.now + _TOLERANCE:
        yield _finding(
            "clock",
            f"the clock went back: the last write is {countdown(latest - facts.now)} in its future",
            f"Set the clock of this machine right (it says {facts.now:%Y-%m-%d %H:%M:%S} UTC) and keep"
            " it so with NTP. Until it has caught up, alarms are late by as much; nothing is lost.",
        )


# -- the file


def _damaged(facts: Facts) -> Iterator[Finding]:
    if facts.health is not None and facts.health.damages:
        yield _finding(
            "integrity",
            "the file is damaged",
            "Stop the host, keep a copy of the file with its -wal, and restore a backup. Without one, try"
            " `sqlite3 jobs.db .recover`. Look at the disk before you use it again.",
            details=facts.health.damages,
        )


def _unreadable(facts: Facts) -> Iterator[Finding]:
    records = () if facts.health is None else facts.health.unreadable
    if facts.errors or records:
        yield _finding(
            "unreadable",
            "not all of the storage could be read: what follows may lack something",
            "See to the other findings first, above all to I2 and integrity. If there are none, a record"
            " is not what durable-effect writes: restore a backup, or remove the row.",
            details=[*(str(error) for error in facts.errors), *records],
        )


# -- the invariants


_INVARIANTS = {
    "I1": (
        "an instance has an alarm or a lease, but nobody looks for it",
        "Something else wrote to the file. Stop the host; `durable-effect trigger INSTANCE_ID {storage}`"
        " arms it again. Where I2 is broken too, see to that first.",
    ),
    "I2": (
        "a lease has no owner or no end",
        "Something else wrote to the file. Stop the host and give these leases up with the statement on"
        " the page; the next host runs what is due.",
    ),
    "I3": (
        "an instance was never committed",
        "Something else wrote to the file. Stop the host; `durable-effect trigger INSTANCE_ID {storage}`"
        " commits it, and the next host runs it.",
    ),
    "I4": (
        "a run holds a fence that was never given",
        "The counter was set back, as by files that were mixed. Stop the host at once: runs can overwrite"
        " each other. Restore a backup, or set the counter with the statement on the page.",
    ),
    "I5": (
        "a lease is long over, and nobody took the instance",
        "Start a host that knows these jobs: `durable-effect run MODULE:JOBS {storage}`. If one runs, it"
        " hangs: restart it. If its limit `lease` is not 30 seconds, tell doctor with --lease.",
    ),
    "I6": (
        "an alarm is overdue",
        "Start a host that knows these jobs: `durable-effect run MODULE:JOBS {storage}`. If one runs: are"
        " these jobs registered in it? Does a handler block the event loop? Is Limits(concurrency=...) too"
        " low?",
    ),
    "I7": (
        "an event waits for more than 7 days",
        "Its endpoint does not take events, or no host with this tracker runs: look for warnings of"
        " durable_effect_jobs.telemetry in the host's log. A host without a tracker sends nothing.",
    ),
    "I8": (
        "a continuous job has neither alarm nor lease",
        "It will not run again by itself. Stop the host; `durable-effect trigger INSTANCE_ID {storage}`"
        " brings it back to its schedule.",
    ),
}


def _broken(facts: Facts) -> Iterator[Finding]:
    violations = () if facts.survey is None else facts.survey.violations
    for check, group in groupby(sorted(violations, key=lambda v: v.invariant), lambda v: v.invariant):
        details = [violation.detail for violation in group]
        summary, advice = _INVARIANTS[check]
        yield _finding(check, f"{summary} ({_times(len(details))})", advice, details=details)


def _times(number: int) -> str:
    if number == 1:
        return "once"
    return f"{number} times" if number < _MOST_DETAILS else f"{number} times or more"


# -- what waits for somebody


def _counted(facts: Facts) -> Iterator[Finding]:
    survey, states = facts.survey, facts.states
    quarantined = 0 if survey is None else survey.quarantined
    if quarantined:
        yield _finding(
            "quarantined",
            f"{_number(quarantined, 'instance')} took the process down too often",
            "Find out why their runs end the process (memory, a crashing extension, os._exit), then"
            " `durable-effect resume --all {storage}`, or `purge INSTANCE_ID`. `ls --state quarantined`"
            " shows them.",
        )
    if states.get("parked"):
        yield _finding(
            "parked",
            f"{_number(states['parked'], 'instance')} cannot be run with the state that is stored",
            "Deploy a schema that reads the stored state; they are tried again by themselves within the"
            " hour, or at once after `durable-effect retry --state parked {storage}`. `ls --state parked`"
            " shows them.",
        )
    if states.get("stopped"):
        yield _finding(
            "stopped",
            f"the retries of {_number(states['stopped'], 'instance')} are exhausted",
            "See to the cause that `durable-effect ls --state stopped {storage}` shows, then"
            " `durable-effect retry --state stopped {storage}`, or `purge --state stopped`.",
        )
    if survey is not None and survey.dead_letters:
        yield _finding(
            "dead letters",
            f"{_number(survey.dead_letters, 'instance')} died of exhausted retries",
            "See to the cause that `durable-effect dead {storage}` shows, then bring them back with"
            " `durable-effect replay --all {storage}`, or `purge --all`. After 30 days they are removed.",
        )


def _died(facts: Facts) -> Iterator[Finding]:
    survey = facts.survey
    if survey is None:
        return
    if survey.suspects:
        yield _finding(
            "suspects",
            f"the last run of {_number(survey.suspects, 'instance')} took the process down",
            "Nothing yet: they run alone from now on, and are quarantined if it happens again."
            " `durable-effect ls --state suspect {storage}` shows them.",
            level="note",
        )
    if survey.expired_leases:
        yield _finding(
            "leases",
            f"{_number(survey.expired_leases, 'run')} ended without giving the instance back",
            "Nothing if a host runs: it takes them over. Otherwise start one, and they run at once.",
            level="note",
        )


def _late(facts: Facts) -> Iterator[Finding]:
    survey = facts.survey
    if survey is not None and survey.oldest_due is not None and facts.now - survey.oldest_due > _TOLERANCE:
        lag = countdown(facts.now - survey.oldest_due)
        yield _finding(
            "overdue",
            f"waiting to be run: {_number(survey.overdue, 'instance')}, the longest for {lag}",
            "Start a host if none runs: `durable-effect run MODULE:JOBS {storage}`. Beyond a minute this"
            " is I6.",
            level="note",
        )


def _unsent(facts: Facts) -> Iterator[Finding]:
    survey = facts.survey
    if survey is None or survey.oldest_event is None:
        return
    age = facts.now - survey.oldest_event
    if age > _SLOW_OUTBOX:
        yield _finding(
            "outbox",
            f"unsent: {_number(survey.outbox, 'event')}, the oldest for {countdown(age)}",
            "The endpoint of the tracker does not take them, or no host with this tracker runs: look for"
            " warnings of durable_effect_jobs.telemetry in the host's log. The outbox drops the oldest"
            " when it is full.",
        )


_RULES = (
    _damaged,
    _unreadable,
    _broken,
    _sqlite_too_old,
    _clock_went_back,
    _counted,
    _unsent,
    _died,
    _late,
)
"""In the order in which an operator should look."""

"""What an operator has to know of a SQLite storage, counted by SQLite at one moment.

The table of instances is read once, for the counts and for how often each invariant is broken; what breaks
one is then looked for by itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from durable_effect_jobs.events import event_from_bytes
from durable_effect_jobs.instance import Key, from_micros, to_micros
from durable_effect_jobs.storage import Survey, Violation

__all__ = ["survey"]

_DETAILS = 100
_LEASES = 3
_OVERDUE = timedelta(seconds=60)
_OUTBOX_AGE = timedelta(days=7)


def survey(connection: sqlite3.Connection, now: datetime, lease: timedelta) -> Survey:
    """Count, in one read transaction: another process may write meanwhile."""
    connection.execute("BEGIN")
    try:
        return _survey(connection, now, lease)
    finally:
        connection.execute("ROLLBACK")


def _survey(connection: sqlite3.Connection, now: datetime, lease: timedelta) -> Survey:
    (last_fence,) = connection.execute("SELECT value FROM counter WHERE name = 'fence'").fetchone()
    values = {
        "now_us": to_micros(now),
        "leased_before_us": to_micros(now - _LEASES * lease),
        "armed_before_us": to_micros(now - _OVERDUE),
        "last_fence": last_fence,
    }
    row = connection.execute(_COUNTS, values).fetchone()
    instances, overdue, oldest_due_us, leased, expired_leases, suspects, quarantined, *broken = row
    outbox, oldest_event_us = connection.execute("SELECT count(*), min(at_us) FROM outbox").fetchone()
    return Survey(
        instances=instances,
        overdue=overdue,
        oldest_due=_instant(oldest_due_us),
        leased=leased,
        expired_leases=expired_leases,
        suspects=suspects,
        quarantined=quarantined,
        outbox=outbox,
        oldest_event=_instant(oldest_event_us),
        dead_letters=connection.execute("SELECT count(*) FROM dead_letter").fetchone()[0],
        marks=connection.execute("SELECT count(*) FROM mark").fetchone()[0],
        violations=(
            *(
                violation
                for invariant, times_broken in zip(_INVARIANTS, broken, strict=True)
                if times_broken
                for violation in _broken(connection, invariant, values)
            ),
            *_waiting_too_long(connection, to_micros(now - _OUTBOX_AGE)),
        ),
    )


def _instant(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)


def _broken(connection: sqlite3.Connection, invariant: str, values: dict[str, int]) -> Iterator[Violation]:
    condition, told = _INVARIANTS[invariant]
    statement = f"SELECT kind, job, id, {_TOLD} FROM instance WHERE {condition} LIMIT {_DETAILS}"  # noqa: S608 - constants
    for kind, job, its_id, *rest in connection.execute(statement, values).fetchall():
        detail = f"{Key(kind, job, its_id).instance_id} {told(dict(zip(_TOLD_NAMES, rest, strict=True)))}"
        yield Violation(invariant=invariant, detail=detail)


def _waiting_too_long(connection: sqlite3.Connection, before_us: int) -> Iterator[Violation]:
    statement = "SELECT body FROM outbox WHERE at_us < ? ORDER BY seq LIMIT ?"
    for (body,) in connection.execute(statement, (before_us, _DETAILS)).fetchall():
        event = event_from_bytes(body)
        detail = f"{event.instance_id}: event {event.event_id} of {event.timestamp.isoformat()} waits"
        yield Violation(invariant="I7", detail=detail)


# -- invariants ------------------------------------------------------------------------------------

_Told = Callable[[dict[str, Any]], str]

_TOLD_NAMES = ("revision", "fence", "lease_owner", "lease_until_us", "alarm_us", "last_fence")
_TOLD = "revision, fence, lease_owner, lease_until_us, alarm_us, :last_fence"


def _since(micros: int) -> str:
    return from_micros(micros).isoformat()


# Records are canonical JSON, in which a quote inside of a text is escaped: these stand for the members.
_HAS_ALARM = """instr(record, CAST('"alarm":[' AS BLOB))"""
_IS_STOPPED = """instr(record, CAST('"stopped":true' AS BLOB))"""

_INVARIANTS: dict[str, tuple[str, _Told]] = {
    "I1": (
        f"NOT quarantined AND wake_us IS NULL AND (lease_owner IS NOT NULL OR {_HAS_ALARM})",
        lambda _: "has an alarm or a lease, but nobody looks for it",
    ),
    "I2": (
        "(lease_owner IS NULL) <> (lease_until_us IS NULL)",
        lambda row: (
            "has the end of a lease without its owner"
            if row["lease_owner"] is None
            else f"is leased by {row['lease_owner']} without an end"
        ),
    ),
    "I3": ("revision < 1", lambda row: f"has revision {row['revision']}"),
    "I4": (
        "fence > :last_fence",
        lambda row: f"has fence {row['fence']}, but the last one given is {row['last_fence']}",
    ),
    "I5": (
        "lease_owner IS NOT NULL AND lease_until_us < :leased_before_us",
        lambda row: (
            f"is leased by {row['lease_owner']} until {_since(row['lease_until_us'])},"
            " and nobody took it since"
        ),
    ),
    "I6": (
        "NOT quarantined AND lease_owner IS NULL AND alarm_us < :armed_before_us",
        lambda row: f"is due since {_since(row['alarm_us'])}",
    ),
    "I8": (
        "kind = 'continuous' AND NOT quarantined AND lease_owner IS NULL AND alarm_us IS NULL"
        f" AND NOT {_IS_STOPPED}",
        lambda _: "has neither alarm nor lease",
    ),
}
"""What must never be, as a condition on a row, and how it is told."""

_BROKEN = ", ".join(f"total({condition})" for condition, _ in _INVARIANTS.values())

_COUNTS = f"""
    SELECT
      count(*),
      count(CASE WHEN wake_us <= :now_us THEN 1 END),
      min(CASE WHEN wake_us <= :now_us THEN wake_us END),
      count(lease_owner),
      count(CASE WHEN lease_until_us <= :now_us THEN 1 END),
      count(CASE WHEN crashes > 0 THEN 1 END),
      count(CASE WHEN quarantined THEN 1 END),
      {_BROKEN}
    FROM instance
"""  # noqa: S608 - made of constants

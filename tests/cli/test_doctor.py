"""``doctor`` on real files: it names what is wrong, and what it says to do puts it right."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from terminal import Said, Terminal

from durable_effect_jobs.cli.doctor import Facts, diagnose

STORAGE = ("--storage", "sqlite:///jobs.db")
PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
FUTURE_US = 4_102_444_800_000_000  # 2100
FUTURE_TOKEN = f"{FUTURE_US // 1000:012x}7000" + "8" * 16

APP = """
import asyncio
from durable_effect import Effect
from durable_effect_jobs import Continuous, Debounce, Task, Tracker, create_durable_jobs

poll = Continuous.make(
    state_schema=int, schedule=Continuous.every("1 hour"),
    execute=lambda ctx: ctx.update_state(lambda runs: runs + 1),
)
jobs = create_durable_jobs({"poll": poll})
tracked = create_durable_jobs({"poll": poll}, tracker=Tracker("http://127.0.0.1:9", "test", "test"))

async def main():
    async with tracked.connect("sqlite:///jobs.db", alarms=False) as client:
        for its_id in ("well", "ill"):
            await client.continuous(poll).start(id=its_id, input=0)

if __name__ == "__main__":
    asyncio.run(main())
"""

AN_OLD_EVENT = """
INSERT INTO outbox (event_id, at_us, body) VALUES ('old', 1577836800000000, CAST(
  '{"type":"job.started","timestamp":"2020-01-01T00:00:00+00:00","instance_id":"continuous:poll:ill",
    "kind":"continuous","job":"poll","id":"ill","event_id":"old","input":null}' AS BLOB))
"""
WITHOUT_ALARM = """
UPDATE instance SET alarm_us = NULL,
  record = CAST(json_remove(CAST(record AS TEXT), '$.alarm') AS BLOB) WHERE id = 'ill'
"""
BREAKS = {
    "I1": "UPDATE instance SET alarm_us = NULL WHERE id = 'ill'",
    "I2": "UPDATE instance SET lease_owner = 'nobody' WHERE id = 'ill'",
    "I3": "UPDATE instance SET revision = 0 WHERE id = 'ill'",
    "I4": "UPDATE instance SET fence = 1000000 WHERE id = 'ill'",
    "I5": "UPDATE instance SET lease_owner = 'dead', lease_until_us = 1 WHERE id = 'ill'",
    "I6": "UPDATE instance SET alarm_us = 1 WHERE id = 'ill'",
    "I7": AN_OLD_EVENT,
    "I8": WITHOUT_ALARM,
}
CONDITIONS = {
    "quarantined": "UPDATE instance SET crashes = 3, quarantined = 1 WHERE id = 'ill'",
    "suspects": "UPDATE instance SET crashes = 1 WHERE id = 'ill'",
    "parked": (
        "UPDATE instance SET record ="
        " CAST(json_set(CAST(record AS TEXT), '$.undecodable_count', 2) AS BLOB) WHERE id = 'ill'"
    ),
    "stopped": (
        "UPDATE instance SET alarm_us = NULL, record = CAST("
        "json_set(json_remove(CAST(record AS TEXT), '$.alarm'), '$.stopped', json('true')) AS BLOB)"
        " WHERE id = 'ill'"
    ),
    "dead letters": (
        "INSERT INTO dead_letter (kind, job, id, reason, at_us, expires_us, revision, record)"
        " SELECT kind, job, id, 'max_attempts', 1, 2, revision, record FROM instance WHERE id = 'ill'"
    ),
    "outbox": "UPDATE outbox SET at_us = at_us - 86400000000",
    "leases": (
        "UPDATE instance SET lease_owner = 'dead', lease_until_us = alarm_us - 3600000000 WHERE id = 'ill'"
    ),
    "overdue": "UPDATE instance SET alarm_us = alarm_us - 3630000000 WHERE id = 'ill'",
}
NOTES = {"suspects", "leases", "overdue"}


@pytest.fixture
def stored(terminal: Terminal) -> Terminal:
    """A terminal in a directory with an application and the file of its two instances."""
    terminal.write("app.py", APP)
    terminal.python(APP)
    return terminal


def change(stored: Terminal, *statements: str) -> None:
    """Write to the file around the product, and around its checks."""
    path = stored.directory / "jobs.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for statement in statements:
            connection.execute(statement)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def examined(stored: Terminal, *options: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and the findings by what was looked at; the library's version aside."""
    said = stored.run("doctor", *STORAGE, "--json", *options)
    assert "Traceback" not in said.stderr
    findings = {finding["check"]: finding for finding in json.loads(said.stdout)["findings"]}
    findings.pop("sqlite", None)
    return said.returncode, findings


def statement_of(check: str) -> str:
    """The SQL that the page gives for a finding."""
    section = PAGE.read_text().split(f"\n### {check}\n")[1].split("\n### ")[0]
    found = re.search(r"```sql\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


# -- what is well ----------------------------------------------------------------------------------


def test_a_storage_that_is_well_is_healthy_also_beside_its_host(stored: Terminal) -> None:
    """Nothing but notes is found, and the figures are told."""
    with stored.start("run", "app:jobs", *STORAGE) as host:
        host.until("hosting")
        said = stored.run("doctor", *STORAGE, "--json")

    report = json.loads(said.stdout)
    assert (said.returncode, report["healthy"]) == (0, True)
    assert {finding["level"] for finding in report["findings"]} <= {"note"}
    assert report["figures"]["instances"] == 2
    assert report["figures"]["outbox"] > 0
    assert report["figures"]["oldest_event"] is not None


def test_doctor_says_that_there_is_nothing_to_do(stored: Terminal) -> None:
    """In a line of its own, below the figures."""
    said = stored.run("doctor", *STORAGE, "--deep")

    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith(f"SQLite {sqlite3.sqlite_version}, instances 2,")
    assert said.stdout.endswith("healthy: nothing to do\n")


def test_doctor_changes_nothing(stored: Terminal) -> None:
    """No byte of the file, and no file beside it."""
    (stored.directory / "jobs.db.lock").unlink()
    change(stored)
    before = (stored.directory / "jobs.db").read_bytes()

    assert stored.run("doctor", *STORAGE, "--deep").returncode == 0

    assert (stored.directory / "jobs.db").read_bytes() == before
    assert not (stored.directory / "jobs.db.lock").exists()


# -- the invariants --------------------------------------------------------------------------------


@pytest.mark.parametrize("invariant", BREAKS)
def test_each_broken_invariant_is_named(stored: Terminal, invariant: str) -> None:
    """With the instance that breaks it, what to do, and where the page says more; the exit code is 1."""
    change(stored, BREAKS[invariant])

    code, findings = examined(stored)

    assert code == 1
    finding = findings[invariant]
    assert finding["level"] == "problem"
    assert "continuous:poll:ill" in finding["details"][0]
    assert len(finding["details"]) == 1
    assert len(finding["advice"]) > 40
    text = stored.run("doctor", *STORAGE)
    assert text.returncode == 1
    assert f"PROBLEM {invariant}\n" in text.stdout
    assert f"See docs/operations.md#{invariant.lower()}\n" in text.stdout
    assert max(map(len, text.stdout.splitlines())) <= 120


def test_a_record_that_is_not_ours_is_named(stored: Terminal) -> None:
    """Listings leave such a record out; doctor says which one it is."""
    change(stored, "UPDATE instance SET record = x'5b' WHERE id = 'ill'")

    code, findings = examined(stored)

    assert code == 1
    assert "continuous:poll:ill" in findings["unreadable"]["details"][0]


def test_all_broken_invariants_are_named_at_once(stored: Terminal) -> None:
    """One does not hide the others."""
    ids = {invariant: invariant.lower() for invariant in BREAKS}
    copy = (
        "INSERT INTO instance (kind, job, id, incarnation, revision, token, fence, alarm_us, record, state)"
        " SELECT kind, job, '{}', incarnation, revision, token, fence, alarm_us, record, state"
        " FROM instance WHERE id = 'well'"
    )
    change(
        stored,
        *(copy.format(its_id) for its_id in ids.values()),
        *(BREAKS[invariant].replace("'ill'", f"'{its_id}'") for invariant, its_id in ids.items()),
    )

    code, findings = examined(stored)

    assert code == 1
    assert set(BREAKS) <= set(findings)
    assert {finding["level"] for name, finding in findings.items() if name in BREAKS} == {"problem"}


@pytest.mark.parametrize("invariant", ["I1", "I3", "I8"])
def test_a_trigger_repairs_what_the_page_says_that_it_repairs(stored: Terminal, invariant: str) -> None:
    """The command of the advice, with the instance in it, makes the storage healthy."""
    change(stored, BREAKS[invariant])
    advice = examined(stored)[1][invariant]["advice"]
    assert "`durable-effect trigger INSTANCE_ID --storage sqlite:///jobs.db`" in advice

    assert stored.run("trigger", "continuous:poll:ill", *STORAGE).returncode == 0

    assert examined(stored)[0] == 0


@pytest.mark.parametrize("invariant", ["I2", "I4"])
def test_the_statement_on_the_page_repairs_the_rest(stored: Terminal, invariant: str) -> None:
    """It is run as it stands there."""
    change(stored, BREAKS[invariant])
    assert examined(stored)[0] == 1

    change(stored, statement_of(invariant))

    assert examined(stored)[0] == 0


@pytest.mark.parametrize("invariant", ["I5", "I6"])
def test_a_host_repairs_what_waits_for_one(stored: Terminal, invariant: str) -> None:
    """It runs what is overdue, and takes over what a dead one left."""
    change(stored, BREAKS[invariant], "UPDATE instance SET alarm_us = 1 WHERE id = 'ill'")
    change(
        stored, "UPDATE instance SET record = CAST(json_set(CAST(record AS TEXT), '$.alarm[0]', 1) AS BLOB)"
    )
    assert examined(stored)[0] == 1

    with stored.start("run", "app:jobs", *STORAGE) as host:
        host.until("hosting")
        stored.until_shown("continuous:poll:ill", "2 runs")

    assert examined(stored)[0] == 0


# -- the rest --------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", CONDITIONS)
def test_what_waits_for_somebody_is_named(stored: Terminal, check: str) -> None:
    """What needs nobody is a note, and leaves the exit code alone."""
    change(stored, CONDITIONS[check])

    code, findings = examined(stored)

    level = "note" if check in NOTES else "problem"
    assert findings[check]["level"] == level
    assert len(findings[check]["advice"]) > 40
    assert code == (0 if level == "note" else 1)


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE instance SET token = '{FUTURE_TOKEN}' WHERE id = 'ill'",
        f"UPDATE outbox SET at_us = {FUTURE_US}",
        f"INSERT INTO receipt (token, expires_us) VALUES ('x', {FUTURE_US})",
        f"UPDATE instance SET lease_owner = 'x', lease_until_us = {FUTURE_US} WHERE id = 'ill'",
        "INSERT INTO dead_letter (kind, job, id, reason, at_us, expires_us, revision, record)"
        f" SELECT kind, job, id, 'max_attempts', {FUTURE_US}, {FUTURE_US}, 1, record FROM instance",
    ],
)
def test_a_clock_that_went_back_is_noticed(stored: Terminal, statement: str) -> None:
    """By whatever was written when it was later than it is now."""
    change(stored, statement)

    code, findings = examined(stored)

    assert code == 1
    assert "the clock went back" in findings["clock"]["summary"]


def test_a_damaged_file_is_named_as_such(stored: Terminal) -> None:
    """Whatever else can still be told is told."""
    change(stored)
    path = stored.directory / "jobs.db"
    content = bytearray(path.read_bytes())
    content[2 * 4096 : 2 * 4096 + 100] = b"\xff" * 100
    path.write_bytes(content)

    code, findings = examined(stored)

    assert code == 1
    assert findings["integrity"]["details"]
    assert "restore a backup" in findings["integrity"]["advice"]


def test_deep_compares_the_indexes_with_their_tables(stored: Terminal) -> None:
    """An index that misses rows is found by --deep, and not without."""
    with closing(sqlite3.connect(stored.directory / "jobs.db", isolation_level=None)) as connection:
        row = connection.execute("SELECT * FROM sqlite_schema WHERE name = 'instance_wake'").fetchone()
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("DELETE FROM sqlite_schema WHERE name = 'instance_wake'")
        connection.execute("PRAGMA writable_schema = RESET")
        connection.execute("UPDATE instance SET alarm_us = alarm_us + 1")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)", row)

    assert "integrity" not in examined(stored)[1]
    code, findings = examined(stored, "--deep")
    assert (code, "instance_wake" in findings["integrity"]["details"][0]) == (1, True)


def test_a_longer_lease_is_not_taken_for_a_crash(stored: Terminal) -> None:
    """With --lease, what the host's limits allow is no finding."""
    change(
        stored,
        "UPDATE instance SET lease_owner = 'x', lease_until_us = alarm_us - 3900000000 WHERE id = 'ill'",
    )

    assert "I5" in examined(stored)[1]
    assert "I5" not in examined(stored, "--lease", "1 hour")[1]


def test_the_sqlite_library_is_judged_by_its_version() -> None:
    """Too old to open a file; old enough for a bug that one process does not meet; and neither."""
    now = datetime(2026, 1, 1, tzinfo=UTC)

    def judged(*version: int) -> list[tuple[str, str]]:
        return [
            (found.check, found.level) for found in diagnose(Facts(now=now, sqlite=version), "sqlite:///x")
        ]

    assert judged(3, 36, 0) == [("sqlite", "problem")]
    assert judged(3, 37, 0) == judged(3, 51, 2) == [("sqlite", "note")]
    assert judged(3, 51, 3) == []


@pytest.mark.parametrize("content", [None, b"", b"not a database at all, but a text"])
def test_what_is_no_storage_is_a_failure(
    typed: Callable[..., Said], tmp_path: Path, content: bytes | None
) -> None:
    """One message, exit code 1, and nothing is made."""
    if content is not None:
        (tmp_path / "jobs.db").write_bytes(content)

    said = typed("doctor", *STORAGE)

    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr.startswith("durable-effect: storage could not open: ")
    assert not (tmp_path / "jobs.db.lock").exists()


def test_every_finding_has_its_place_on_the_page() -> None:
    """What doctor refers to is there."""
    headings = re.findall(r"^### (.*)$", PAGE.read_text(), re.MULTILINE)

    assert {*BREAKS, *CONDITIONS, "sqlite", "clock", "integrity", "unreadable"} == set(headings)

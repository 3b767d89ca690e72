"""``retry``, ``resume``, ``replay`` and ``purge`` on real files: one by one, by filter, not beside a host."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from terminal import Terminal

STORAGE = ("--storage", "sqlite:///jobs.db")

APP = """
import asyncio, os
import attrs
from durable_effect import Effect, TypedError
from durable_effect_jobs import Continuous, Debounce, Retry, Task, Tracker, create_durable_jobs

@attrs.frozen
class Down(TypedError):
    pass

def run(ctx):
    return Effect.fail(Down()) if os.environ.get("DOWN") else ctx.update_state(lambda runs: runs + 1)

def flush(ctx):
    return Effect.fail(Down()) if os.environ.get("DOWN") else Effect.void

def place(event, ctx):
    return ctx.set_state(event).and_then(ctx.schedule(1_000_000_000_000))

kept = Retry(max_attempts=1, on_exhausted="stop")
later = Retry(max_attempts=5, delay="1 day")
hourly = Continuous.every("1 hour")
well = Continuous.make(state_schema=int, schedule=hourly, execute=lambda ctx: Effect.void)
poll = Continuous.make(state_schema=int, schedule=hourly, retry=kept, execute=run)
slow = Continuous.make(state_schema=int, schedule=hourly, retry=later, execute=run)
gone = Continuous.make(state_schema=int, schedule=hourly, retry=Retry(max_attempts=1), execute=run)
batch = Debounce.make(event_schema=int, flush_after="1 day", retry=kept, execute=flush)
order = Task.make(state_schema=int, event_schema=int, on_event=place, retry=kept, execute=run)
defined = {"well": well, "poll": poll, "slow": slow, "gone": gone, "batch": batch, "order": order}
jobs = create_durable_jobs(defined)
tracked = create_durable_jobs(defined, tracker=Tracker("http://127.0.0.1:9", "test", "test"))

async def main():
    async with jobs.connect("sqlite:///jobs.db", alarms=False) as client:
        for its_id in ("a", "b"):
            await client.continuous(poll).start(id=its_id, input=0).result()
        for job in (well, slow, gone):
            await client.continuous(job).start(id="a", input=0).result()
        await client.continuous(gone).start(id="b", input=0).result()
        await client.continuous(well).start(id="poison", input=0)
        await client.continuous(well).start(id="unread", input=0)
        await client.debounce(batch).add(id="a", event=1)
        await client.debounce(batch).flush("a").result()
        await client.task(order).send(id="a", event=1).result()

if __name__ == "__main__":
    os.environ["DOWN"] = "yes"
    asyncio.run(main())
"""

IN_STATE = {
    "stopped": ["continuous:poll:a", "continuous:poll:b", "debounce:batch:a", "task:order:a"],
    "retrying": ["continuous:slow:a"],
    "quarantined": ["continuous:well:poison"],
    "parked": ["continuous:well:unread"],
    "suspect": ["continuous:well:poison"],
    "executing": [],
    "due": [],
    "dead": ["continuous:gone:a", "continuous:gone:b"],
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an application and the file that an outage left."""
    terminal = Terminal(tmp_path_factory.mktemp("outage"))
    terminal.write("app.py", APP)
    terminal.python(APP)
    with closing(sqlite3.connect(terminal.directory / "jobs.db", isolation_level=None)) as connection:
        connection.execute("UPDATE instance SET crashes = 3, quarantined = 1 WHERE id = 'poison'")
        connection.execute(
            "UPDATE instance SET record ="
            " CAST(json_set(CAST(record AS TEXT), '$.undecodable_count', 2) AS BLOB) WHERE id = 'unread'"
        )
    return terminal.directory


@pytest.fixture
def stored(original: Path, tmp_path: Path) -> Terminal:
    """A terminal in a copy of that directory."""
    return Terminal(Path(shutil.copytree(original, tmp_path / "copy")))


def ids(stored: Terminal, *options: str) -> list[str]:
    """The instances that ``ls`` lists."""
    return [one["instance_id"] for one in listed(stored, *options)]


def listed(stored: Terminal, *options: str) -> list[dict[str, Any]]:
    """What ``ls --json`` prints."""
    said = stored.run("ls", *STORAGE, "--json", *options)
    assert said.returncode == 0, said.stderr
    rows: list[dict[str, Any]] = json.loads(said.stdout)
    return rows


# -- which -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", IN_STATE)
def test_ls_narrows_to_a_state(stored: Terminal, state: str) -> None:
    """Each state lists those that are in it, and nothing else."""
    assert ids(stored, "--state", state) == IN_STATE[state]


def test_ls_shows_the_state_of_each(stored: Terminal) -> None:
    """In a column of the table, and as a member of the JSON."""
    conditions = {one["instance_id"]: one["condition"] for one in listed(stored)}

    assert conditions["continuous:well:a"] == "running"
    for state in ("stopped", "retrying", "quarantined", "parked"):
        assert {conditions[name] for name in IN_STATE[state]} == {state}
    lines = stored.run("ls", *STORAGE).stdout.splitlines()
    assert {tuple(line.split()[:2]) for line in lines[1:]} == set(conditions.items())


def test_ls_takes_an_error_and_an_age(stored: Terminal) -> None:
    """Filters narrow each other."""
    assert ids(stored, "--error", "Down") == [
        *IN_STATE["stopped"][:2],
        *IN_STATE["retrying"],
        *IN_STATE["stopped"][2:],
    ]
    assert ids(stored, "--error", "Down", "--kind", "task") == ["task:order:a"]
    assert ids(stored, "--error", "Up") == []
    assert ids(stored, "--older-than", "1 hour") == []
    assert len(ids(stored, "--older-than", "1 ms")) == 8
    assert ids(stored, "--state", "dead", "--older-than", "1 hour") == []


def test_show_tells_what_keeps_an_instance_from_running(stored: Terminal) -> None:
    """Quarantine, crashes, and states that were not read."""
    assert (
        "\n  quarantined until it is resumed\n"
        in stored.run("show", "continuous:well:poison", *STORAGE).stdout
    )
    assert "3 runs in a row" in stored.run("show", "continuous:well:poison", *STORAGE).stdout
    assert (
        "  parked      its state was not read 2 times"
        in stored.run("show", "continuous:well:unread", *STORAGE).stdout
    )


# -- retry -----------------------------------------------------------------------------------------


def test_what_is_retried_runs_under_the_next_host(stored: Terminal) -> None:
    """Stopped instances of every kind, and what waits for its retry or for another schema."""
    said = stored.run("retry", "--all", *STORAGE)

    assert (said.returncode, said.stderr) == (0, "")
    wanted = [*IN_STATE["stopped"], *IN_STATE["retrying"], *IN_STATE["parked"]]
    assert sorted(said.stdout.splitlines()) == sorted(f"{name} is due now" for name in wanted)
    assert {one["instance_id"] for one in listed(stored, "--state", "due")} == set(wanted)
    assert [one["failed_attempts"] for one in listed(stored, "--state", "due")] == [0] * 6
    with stored.start("run", "app:jobs", *STORAGE) as host:
        host.until("hosting")
        for name in ("continuous:poll:a", "continuous:poll:b", "continuous:slow:a"):
            stored.until_shown(name, "2 runs")
        stored.until_shown("task:order:a", "  state\n    2")
        stored.until_gone("debounce:batch:a")
    assert ids(stored, "--state", "stopped") == []


@pytest.mark.parametrize(
    ("members", "next_alarm"),
    [
        ("""'$.alarm', json('[4102444800000000,"schedule"]'), '$.undecodable_count', 1""", None),
        (
            """'$.alarm', json('[4102444700000000,"retry"]'), '$.failed_attempts', 1,"""
            """ '$.pending', json('[4102444800000000,"schedule"]')""",
            "2100-01-01T00:00:00+00:00",
        ),
    ],
)
def test_a_retried_task_keeps_its_own_schedule_and_nothing_else(
    stored: Terminal, members: str, next_alarm: str | None
) -> None:
    """What was put off is run in place of later, and what was kept aside stays."""
    change = f"json_set(json_remove(CAST(record AS TEXT), '$.stopped'), {members})"
    with closing(sqlite3.connect(stored.directory / "jobs.db", isolation_level=None)) as connection:
        connection.execute(
            f"UPDATE instance SET alarm_us = 4102444800000000, record = CAST({change} AS BLOB)"
            " WHERE kind = 'task'"
        )

    assert stored.run("retry", "task:order:a", *STORAGE).returncode == 0

    with stored.start("run", "app:jobs", *STORAGE) as host:
        host.until("hosting")
        stored.until_shown("task:order:a", "  state\n    2")
    assert stored.record("task:order:a")["alarm_at"] == next_alarm


def test_retry_takes_names_and_does_what_it_can(stored: Terminal) -> None:
    """Those that it is not for are told of one by one, with what is, and the exit code is 1."""
    said = stored.run(
        "retry",
        "continuous:poll:a",
        "continuous:well:a",
        "continuous:well:poison",
        "continuous:poll:c",
        "1",
        "99",
        *STORAGE,
    )

    assert said.returncode == 1
    assert said.stdout == "continuous:poll:a is due now\n"
    assert said.stderr.splitlines() == [
        "durable-effect: continuous:well:a has not failed: trigger runs it",
        "durable-effect: continuous:well:poison is quarantined: resume lifts that",
        "durable-effect: there is no instance continuous:poll:c",
        "durable-effect: dead letter 1 of continuous:gone:a is none of the living: replay brings it back",
        "durable-effect: there is no dead letter 99",
    ]


def test_outcomes_are_json_for_programs(stored: Terminal) -> None:
    """One for each that was named, whether it was done or not."""
    said = stored.run("retry", "continuous:poll:a", "continuous:poll:c", "9", *STORAGE, "--json")

    outcomes = {(one["instance_id"], one["number"]): one for one in json.loads(said.stdout)}
    assert outcomes["continuous:poll:a", None]["done"] is True
    assert outcomes["continuous:poll:a", None]["problem"] is None
    assert outcomes["continuous:poll:c", None]["problem"] == "there is no instance continuous:poll:c"
    assert outcomes[None, 9]["done"] is False
    assert said.returncode == 1


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--state", "stopped", "--job", "poll"), ["continuous:poll:a", "continuous:poll:b"]),
        (("--kind", "task"), ["task:order:a"]),
        (("--state", "parked"), ["continuous:well:unread"]),
        (("--error", "Down", "--state", "retrying"), ["continuous:slow:a"]),
        (("--older-than", "1 day"), []),
    ],
)
def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    stored: Terminal, options: tuple[str, ...], names: list[str]
) -> None:
    """Also beside a host that has the file."""
    before = listed(stored)
    with stored.start("run", "app:jobs", *STORAGE) as host:
        host.until("hosting")
        said = stored.run("retry", *options, *STORAGE, "--dry-run")

    assert said.returncode == 0
    assert said.stdout.splitlines() == [f"would retry {name}" for name in names]
    assert listed(stored) == before


@pytest.mark.parametrize(
    "command",
    [
        ("retry", "--all"),
        ("resume", "continuous:well:poison"),
        ("replay", "1"),
        ("purge", "1"),
        ("trigger", "continuous:well:a"),
        ("terminate", "continuous:well:a"),
    ],
)
def test_beside_a_host_nothing_is_changed_and_it_is_said_how(
    stored: Terminal, command: tuple[str, ...]
) -> None:
    """One message, that says to stop the host and what needs no stop."""
    with stored.start("run", "app:jobs", *STORAGE) as host:
        host.until("hosting")
        before = listed(stored), listed(stored, "--state", "dead")
        said = stored.run(*command, *STORAGE)
        after = listed(stored), listed(stored, "--state", "dead")

    assert said.returncode == 1
    assert said.stderr.count("\n") == 1
    assert "stop the process that hosts its jobs first" in said.stderr
    assert after == before


# -- resume, replay, purge -------------------------------------------------------------------------


def test_resume_lifts_a_quarantine(stored: Terminal) -> None:
    """Crashes are forgotten, the alarm is as it was; what is not quarantined is told of."""
    before = stored.record("continuous:well:poison")

    said = stored.run("resume", "continuous:well:poison", "continuous:well:a", *STORAGE)

    assert said.stdout == "continuous:well:poison is resumed\n"
    assert (said.returncode, said.stderr) == (1, "durable-effect: continuous:well:a is not quarantined\n")
    after = stored.record("continuous:well:poison")
    assert (after["quarantined"], after["crashes"], after["condition"]) == (False, 0, "running")
    assert after["alarm_at"] == before["alarm_at"]
    assert stored.run("resume", "--all", *STORAGE).stderr == "there is nothing to resume\n"


def test_what_is_resumed_without_an_alarm_is_due_now(stored: Terminal) -> None:
    """Nobody would look for it otherwise."""
    with closing(sqlite3.connect(stored.directory / "jobs.db", isolation_level=None)) as connection:
        connection.execute(
            "UPDATE instance SET alarm_us = NULL,"
            " record = CAST(json_remove(CAST(record AS TEXT), '$.alarm') AS BLOB) WHERE id = 'poison'"
        )

    assert stored.run("resume", "--state", "quarantined", *STORAGE).returncode == 0

    assert ids(stored, "--state", "due") == ["continuous:well:poison"]


def test_replay_takes_the_name_of_an_instance_or_a_filter(stored: Terminal) -> None:
    """The letter is gone, and what it was is due."""
    by_name = stored.run("replay", "continuous:gone:b", *STORAGE)
    by_filter = stored.run("replay", "--error", "Down", *STORAGE)

    assert by_name.stdout == "continuous:gone:b lives again and is due now\n"
    assert by_filter.stdout == "continuous:gone:a lives again and is due now\n"
    assert ids(stored, "--state", "due") == ["continuous:gone:a", "continuous:gone:b"]
    missing = stored.run("replay", "continuous:gone:b", *STORAGE)
    assert missing.stderr == "durable-effect: there is no dead letter of continuous:gone:b\n"


def test_purge_by_filter_means_the_dead(stored: Terminal) -> None:
    """Instances are left alone, unless their state is asked for."""
    living = ids(stored)

    said = stored.run("purge", "--all", *STORAGE)

    assert (
        said.stdout
        == "dead letter 1 of continuous:gone:a is gone\ndead letter 2 of continuous:gone:b is gone\n"
    )
    assert ids(stored) == living
    assert stored.run("purge", "--state", "stopped", "--job", "poll", *STORAGE).returncode == 0
    assert ids(stored) == [name for name in living if ":poll:" not in name]


def test_purge_ends_an_instance_and_reports_it_where_there_is_a_tracker(stored: Terminal) -> None:
    """The reason is in the event, which is committed together with the end."""
    tracked = ("--jobs", "app:tracked", "--reason", "the customer left")

    quiet = stored.run("purge", "continuous:poll:a", *STORAGE)
    told = stored.run("purge", "continuous:well:poison", *STORAGE, *tracked)
    refused = stored.run("purge", "continuous:well:a", *STORAGE, *tracked)

    assert (quiet.stdout, told.stdout) == ("continuous:poll:a is gone\n", "continuous:well:poison is gone\n")
    assert stored.pending_events() == [["job.terminated", "continuous:well:poison", "the customer left"]]
    assert refused.returncode == 1
    assert "is neither stopped nor quarantined: terminate ends it" in refused.stderr


# -- on a terminal ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "code", "left"), [("y", 0, []), ("n", 1, ["continuous:poll:a", "continuous:poll:b"])]
)
def test_on_a_terminal_what_a_filter_found_is_shown_and_asked_for(
    stored: Terminal, answer: str, code: int, left: list[str]
) -> None:
    """Without a yes nothing is changed."""
    with stored.start_on_a_tty("retry", "--job", "poll", *STORAGE) as command:
        command.until("continuous:poll:b")
        command.type(f"{answer}\n")
        assert command.end() == code

    assert "retry these 2? [y/N]" in command.output
    assert ids(stored, "--state", "stopped", "--job", "poll") == left


def test_yes_asks_nothing(stored: Terminal) -> None:
    """And neither does a name."""
    for options in (("--state", "retrying", "--yes"), ("continuous:poll:a",)):
        with stored.start_on_a_tty("retry", *options, *STORAGE) as command:
            assert command.end() == 0
        assert "[y/N]" not in command.output


def test_what_was_changed_since_it_was_shown_is_left_as_it_is(stored: Terminal) -> None:
    """The others are done all the same, and the exit code is 1."""
    with stored.start_on_a_tty("retry", "--job", "poll", *STORAGE) as command:
        command.until("continuous:poll:b")
        assert stored.run("trigger", "continuous:poll:a", *STORAGE).returncode == 0
        changed = stored.record("continuous:poll:a")
        command.type("y\n")
        assert command.end() == 1

    assert "continuous:poll:a was changed meanwhile, and is left as it is: look again" in command.output
    assert "continuous:poll:b is due now" in command.output
    assert stored.record("continuous:poll:a") == changed


def test_tables_fit_eighty_columns(stored: Terminal) -> None:
    """On a narrow terminal they are told in fewer words."""
    for arguments in (("ls", *STORAGE), ("dead", *STORAGE)):
        with stored.start_on_a_tty(*arguments, COLUMNS="80") as command:
            assert command.end() == 0
        lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip("\r\n") for line in command.lines]
        assert len(lines) > 2
        assert max(map(len, lines)) <= 80
        assert any("Down" in line for line in command.lines)


def test_a_long_change_shows_how_far_it_is(stored: Terminal) -> None:
    """On a terminal there is a bar while thousands are retried; it is gone at the end."""
    copies = (
        "INSERT INTO instance (kind, job, id, incarnation, revision, token, fence, alarm_us, record, state)"
        " WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)"
        " SELECT kind, job,"
        " printf('copy-%05d', i), incarnation, revision, token || i, fence, alarm_us, record,"
        " state FROM instance, n WHERE job = 'poll' AND id = 'a'"
    )
    with closing(sqlite3.connect(stored.directory / "jobs.db", isolation_level=None)) as connection:
        connection.execute(copies)

    with stored.start_on_a_tty("retry", "--job", "poll", "--yes", *STORAGE) as command:
        assert command.end() == 0

    assert "retry" in command.output.split("is due now")[0]
    assert "/3002" in command.output
    assert command.output.count("is due now") == 3002
    assert ids(stored, "--state", "stopped", "--job", "poll") == []

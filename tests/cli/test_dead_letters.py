"""Dead letters: what was purged can be listed, brought back to life, and removed."""

from __future__ import annotations

import json
from typing import Any

from terminal import Terminal

STORAGE = ("--storage", "sqlite:///jobs.db")

APP = """
import asyncio, sys
import attrs
from durable_effect import Effect, TypedError
from durable_effect_jobs import Continuous, Debounce, Retry, Task, create_durable_jobs

@attrs.frozen
class Down(TypedError):
    pass

once = Retry(max_attempts=1)
down = "down" in sys.argv
run = (lambda ctx: Effect.fail(Down())) if down else (lambda ctx: Effect.void)
poll = Continuous.make(state_schema=int, schedule=Continuous.every("1 hour"), retry=once, execute=run)
batch = Debounce.make(event_schema=str, flush_after="1 hour", retry=once, execute=run)
task = Task.make(state_schema=int, event_schema=int, retry=once, execute=run,
                 on_event=lambda event, ctx: ctx.set_state(event).and_then(ctx.schedule(1_000_000_000_000)))
jobs = create_durable_jobs({"poll": poll, "batch": batch, "task": task})

async def main():
    async with jobs.connect("sqlite:///jobs.db", alarms=False) as client:
        if down:
            await client.continuous(poll).start(id="p", input=7)
            await client.debounce(batch).add(id="b", event="kept")
            await client.debounce(batch).flush("b")
            await client.task(task).send(id="t", event=9)
        else:
            print((await client.continuous(poll).get_state("p")).state)

if __name__ == "__main__":
    asyncio.run(main())
"""


def after_an_outage(terminal: Terminal) -> list[dict[str, Any]]:
    """An application whose every run failed for the last time, and the letters it left."""
    terminal.write("app.py", APP)
    terminal.python(APP.replace("sys.argv", '["down"]'))
    letters: list[dict[str, Any]] = json.loads(terminal.run("dead", *STORAGE, "--json").stdout)
    return letters


def test_dead_lists_what_was_purged(terminal: Terminal) -> None:
    """Each letter has its number, its reason, its state and the error that ended it."""
    letters = after_an_outage(terminal)
    assert [(one["number"], one["instance_id"], one["state"]) for one in letters] == [
        (1, "continuous:poll:p", 7),
        (2, "debounce:batch:b", "kept"),
        (3, "task:task:t", 9),
    ]
    assert {(one["reason"], one["last_error"]["type"]) for one in letters} == {("max_attempts", "Down")}
    table = terminal.run("dead", *STORAGE).stdout.splitlines()
    assert "debounce:batch:b" in table[2]
    assert terminal.run("ls", *STORAGE).stderr == "no instances\n3 dead: --state dead shows them\n"
    by_state = terminal.run("ls", *STORAGE, "--state", "dead", "--json").stdout
    assert json.loads(by_state) == letters
    assert {one["condition"] for one in letters} == {"dead"}


def test_a_letter_is_replayed_once(terminal: Terminal) -> None:
    """A replayed instance is there again, due, with its state; its letter is gone."""
    after_an_outage(terminal)
    for number, kind in ((1, "continuous:poll:p"), (2, "debounce:batch:b"), (3, "task:task:t")):
        said = terminal.run("replay", str(number), *STORAGE)
        assert (said.returncode, said.stdout) == (0, f"{kind} lives again and is due now\n")
    again = terminal.run("replay", "1", *STORAGE)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "there is no dead letter 1" in again.stderr
    instances = json.loads(terminal.run("ls", *STORAGE, "--json").stdout)
    assert [one["status"] for one in instances] == ["running", "debouncing", "active"]
    with terminal.start("run", "app:jobs", *STORAGE):
        terminal.until_gone("debounce:batch:b")  # flushed


def test_an_id_in_use_is_not_overwritten(terminal: Terminal) -> None:
    """When the id was given away meanwhile the letter stays where it is."""
    after_an_outage(terminal)
    terminal.python(
        "import asyncio\nfrom app import jobs, poll\n"
        "async def main():\n"
        '    async with jobs.connect("sqlite:///jobs.db") as client:\n'
        '        await client.continuous(poll).start(id="p", input=1)\n'
        "asyncio.run(main())\n"
    )
    said = terminal.run("replay", "1", *STORAGE)
    assert said.returncode == 1
    assert "there is an instance continuous:poll:p again" in said.stderr
    assert len(json.loads(terminal.run("dead", *STORAGE, "--json").stdout)) == 3


def test_purge_removes_a_letter_for_good(terminal: Terminal) -> None:
    """What was purged is not listed any more."""
    after_an_outage(terminal)
    assert terminal.run("purge", "2", *STORAGE).stdout == "dead letter 2 of debounce:batch:b is gone\n"
    left = json.loads(terminal.run("dead", *STORAGE, "--json").stdout)
    assert [one["number"] for one in left] == [1, 3]
    assert terminal.run("purge", "2", *STORAGE).returncode == 1

"""From what goes wrong in a host to what an operator does about it, with nothing arranged by hand."""

from __future__ import annotations

import json

from terminal import Terminal

STORAGE = ("--storage", "sqlite:///jobs.db")

APP = """
import asyncio, os
from durable_effect import Effect
from durable_effect_jobs import Continuous, create_durable_jobs

def run(ctx):
    if os.path.exists("poison"):
        os._exit(9)
    return ctx.update_state(lambda runs: runs + 1)

poll = Continuous.make(
    state_schema=int, schedule=Continuous.every("1 hour"), start_immediately=False, execute=run
)
jobs = create_durable_jobs({"poll": poll})
words = create_durable_jobs({"poll": Continuous.make(
    state_schema=str, schedule=Continuous.every("1 hour"), execute=lambda ctx: Effect.void
)})

async def main():
    async with jobs.connect("sqlite:///jobs.db", alarms=False) as client:
        await client.continuous(poll).start(id="a", input=0)

if __name__ == "__main__":
    asyncio.run(main())
"""

NAME = "continuous:poll:a"


def begin(terminal: Terminal) -> None:
    """An application and its instance, which is due."""
    terminal.write("app.py", APP)
    terminal.python(APP)
    assert terminal.run("trigger", NAME, *STORAGE).returncode == 0


def problems(terminal: Terminal) -> set[str]:
    """What doctor says needs somebody."""
    report = json.loads(terminal.run("doctor", *STORAGE, "--json").stdout)
    return {finding["check"] for finding in report["findings"] if finding["level"] == "problem"}


def test_what_kills_its_host_is_quarantined_named_resumed_and_runs(terminal: Terminal) -> None:
    """Three hosts die of it, the fourth one stays; once the cause is gone it is resumed and runs."""
    begin(terminal)
    terminal.write("poison", "")
    for crashes in range(3):
        with terminal.start("run", "app:jobs", *STORAGE) as host:
            assert host.end() == 9
        assert terminal.record(NAME)["crashes"] == crashes
    with terminal.start("run", "app:jobs", *STORAGE) as host:
        host.until("hosting")
        terminal.until_shown(NAME, "quarantined until it is resumed")
    assert problems(terminal) == {"quarantined"}
    (terminal.directory / "poison").unlink()

    said = terminal.run("resume", "--all", *STORAGE)

    assert said.stdout == f"{NAME} is resumed\n"
    with terminal.start("run", "app:jobs", *STORAGE) as host:
        host.until("hosting")
        terminal.until_shown(NAME, "1 run")
    assert terminal.state(NAME) == 1
    assert problems(terminal) == set()


def test_what_a_deployment_cannot_read_is_parked_named_retried_and_runs(terminal: Terminal) -> None:
    """The state is kept as it is; the code that reads it runs it at once."""
    begin(terminal)
    with terminal.start("run", "app:words", *STORAGE) as host:
        host.until("hosting")
        terminal.until_shown(NAME, "its state was not read 1 time")
    assert problems(terminal) == {"parked"}

    said = terminal.run("retry", "--state", "parked", *STORAGE)

    assert said.stdout == f"{NAME} is due now\n"
    with terminal.start("run", "app:jobs", *STORAGE) as host:
        host.until("hosting")
        terminal.until_shown(NAME, "1 run")
    assert terminal.state(NAME) == 1
    assert problems(terminal) == set()

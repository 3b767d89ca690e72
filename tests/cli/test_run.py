"""``durable-effect run``: hosting jobs in a process that may be told to stop, or killed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from terminal import Terminal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and named pipes are POSIX")

STORAGE = ("--storage", "sqlite:///jobs.db")

# The handler says that it has begun, and waits for a word: opening a pipe waits for the other end.
GATED = """
import attrs
from durable_effect import Do, Effect
from durable_effect_jobs import Continuous, ContinuousContext, create_durable_jobs

@attrs.frozen
class Log:
    words: tuple[str, ...] = ()

def ask():
    with open("begun", "w") as begun:
        begun.write("begun")
    with open("answer") as answer:
        return answer.read()

@Effect.gen
def execute(ctx: ContinuousContext[Log]) -> Do[None]:
    word = yield from Effect.from_thread(ask)
    yield from ctx.update_state(lambda log: Log((*log.words, f"{ctx.run_count}.{ctx.attempt} {word}")))
    yield from Effect.log_info(f"heard {word}")

gated = Continuous.make(
    state_schema=Log,
    schedule=Continuous.every("1 hour"),
    start_immediately=False,
    logging="INFO",
    execute=execute,
)
jobs = create_durable_jobs({"gated": gated})
"""

BIRTH = """
import asyncio
from app import Log, gated, jobs

async def main():
    async with jobs.connect("sqlite:///jobs.db", alarms=False) as client:
        await client.continuous(gated).start(id="g", input=Log())

asyncio.run(main())
"""


@pytest.fixture
def gate(terminal: Terminal) -> Terminal:
    """A directory with one instance whose run is due and waits to be let through."""
    terminal.write("app.py", GATED)
    os.mkfifo(terminal.directory / "begun")
    os.mkfifo(terminal.directory / "answer")
    terminal.python(BIRTH)
    assert terminal.run("trigger", "continuous:gated:g", *STORAGE).returncode == 0
    return terminal


def has_begun(terminal: Terminal) -> None:
    """Wait until a run has begun."""
    assert Path(terminal.directory / "begun").read_text() == "begun"


def let_through(terminal: Terminal, word: str) -> None:
    """Let the run that waits go on."""
    Path(terminal.directory / "answer").write_text(word)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_host_that_is_told_to_stop_drains(gate: Terminal, number: signal.Signals) -> None:
    """What runs comes to its end and is committed before the process ends, with 0."""
    with gate.start("run", "app:jobs", *STORAGE) as host:
        host.until("hosting gated")
        has_begun(gate)
        host.send(number)
        host.until("stopping")
        let_through(gate, "hello")
        assert host.end() == 0

    assert "Traceback" not in host.output
    assert "heard hello" in host.output
    assert gate.state("continuous:gated:g") == {"words": ["1.1 hello"]}


def test_a_host_that_is_killed_loses_nothing(gate: Terminal) -> None:
    """The next host does the run that was cut off again, as the same run."""
    with gate.start("run", "app:jobs", *STORAGE) as host:
        has_begun(gate)
        host.send(signal.SIGKILL)
        assert host.end() == -signal.SIGKILL

    with gate.start("run", "app:jobs", *STORAGE) as host:
        has_begun(gate)
        let_through(gate, "again")
        host.until("heard again")
        host.send(signal.SIGTERM)
        assert host.end() == 0

    assert gate.state("continuous:gated:g") == {"words": ["1.1 again"]}


def test_a_second_signal_does_not_wait(gate: Terminal) -> None:
    """Who is in a hurry may ask twice; the run is done again by the next host."""
    with gate.start("run", "app:jobs", *STORAGE) as host:
        host.until("hosting gated")
        has_begun(gate)
        host.send(signal.SIGTERM)
        host.until("stopping")
        host.send(signal.SIGTERM)
        assert host.end() == -signal.SIGTERM

    assert gate.state("continuous:gated:g") == {"words": []}


def test_beside_a_host_one_may_look_but_not_reach(gate: Terminal) -> None:
    """``ls`` and ``show`` read what is committed; what would change the file is refused with the reason."""
    with gate.start("run", "app:jobs", *STORAGE) as host:
        host.until("hosting gated")
        has_begun(gate)

        assert "continuous:gated:g" in gate.run("ls", *STORAGE).stdout
        assert gate.state("continuous:gated:g") == {"words": []}
        for command in ("trigger", "terminate"):
            said = gate.run(command, "continuous:gated:g", *STORAGE)
            assert said.returncode == 1
            assert "One process at a time can use a SQLite" in said.stderr
            assert "Traceback" not in said.stderr
        second = gate.run("run", "app:jobs", *STORAGE)
        assert second.returncode == 1
        assert "One process at a time can use a SQLite" in second.stderr

        let_through(gate, "hello")
        host.until("heard hello")
        gate.until_shown("continuous:gated:g", "1.1 hello")
        host.send(signal.SIGTERM)
        assert host.end() == 0


def test_a_host_without_a_service_says_which(terminal: Terminal) -> None:
    """Handlers say what they need; what ``layer=`` does not provide is found before anything runs."""
    terminal.write(
        "app.py",
        """
from durable_effect import Do, Effect, Need
from durable_effect_jobs import Continuous, create_durable_jobs

class Mailer:
    pass

@Effect.gen
def execute(ctx) -> Do[None, None, Need[Mailer]]:
    yield from Effect.service(Mailer)

jobs = create_durable_jobs(
    {"mail": Continuous.make(state_schema=dict, schedule=Continuous.every("1 hour"), execute=execute)}
)
""",
    )

    said = terminal.run("run", "app:jobs", *STORAGE)

    assert said.returncode == 1
    assert "Mailer" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_host_without_the_extra_for_telemetry_says_what_to_install(terminal: Terminal) -> None:
    """One line, no traceback, when the tracker's endpoint needs a package that is not there."""
    terminal.write("httpx2.py", "raise ImportError('hidden')\n")
    terminal.write(
        "app.py",
        "from durable_effect_jobs import Tracker, create_durable_jobs\n"
        'jobs = create_durable_jobs({}, tracker=Tracker("http://127.0.0.1:9/events"))\n',
    )
    said = terminal.run(
        "run", "app:jobs", "--storage", "sqlite:///jobs.db", PYTHONPATH=str(terminal.directory)
    )
    assert (said.returncode, said.stdout) == (1, "")
    last = said.stderr.splitlines()[-1]
    assert last.startswith("durable-effect: sending telemetry")
    assert "needs httpx2: pip install 'durable-effect[http]'" in last
    assert "Traceback" not in said.stderr

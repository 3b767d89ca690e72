"""``ls``, ``show``, ``trigger`` and ``terminate`` on a stored file, with the user's code and without."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from terminal import Terminal

STORAGE = ("--storage", "sqlite:///jobs.db")

APP = """
import asyncio
import attrs
from durable_effect import Do, Effect, TypedError
from durable_effect_jobs import *

@attrs.frozen
class Count:
    runs: int = 0

@attrs.frozen
class Order:
    status: str

@attrs.frozen
class Refused(TypedError):
    why: str

@Effect.gen
def count(ctx: ContinuousContext[Count]) -> Do[None]:
    yield from ctx.update_state(lambda state: Count(state.runs + 1))

@Effect.gen
def refuse(ctx: ContinuousContext[Count]) -> Do[None, Refused]:
    yield from Effect.fail(Refused("not today"))

@Effect.gen
def place(event: Order, ctx: TaskEventContext[Order]) -> Do[None]:
    yield from ctx.set_state(event)
    yield from ctx.schedule("1 day")

@Effect.gen
def finish(ctx: TaskExecuteContext[Order]) -> Do[None]:
    yield from ctx.set_state(Order("done"))

@Effect.gen
def deliver(ctx: DebounceExecuteContext[Order]) -> Do[None]:
    order = yield from ctx.state
    print(f"delivered {order.status}", flush=True)

counter = Continuous.make(state_schema=Count, schedule=Continuous.every("1 hour"), execute=count)
failing = Continuous.make(state_schema=Count, schedule=Continuous.every("1 hour"), execute=refuse)
batch = Debounce.make(event_schema=Order, flush_after="1 day", execute=deliver)
order = Task.make(state_schema=Order, event_schema=Order, on_event=place, execute=finish)
jobs = create_durable_jobs({"counter": counter, "failing": failing, "batch": batch, "order": order})
"""

TRACKED = """
from app import *

tracker = Tracker(endpoint="http://127.0.0.1:9/events", env="test", service_key="test")
jobs = create_durable_jobs({"order": order, "batch": batch}, tracker=tracker)
"""

BIRTHS = """
import asyncio
from app import Count, Order, batch, counter, failing, jobs, order

async def main():
    async with jobs.connect("sqlite:///jobs.db", alarms=False) as client:
        await client.continuous(counter).start(id="u1", input=Count())
        await client.continuous(counter).start(id="a:b:c", input=Count())
        await client.continuous(failing).start(id="u1", input=Count()).result()
        await client.debounce(batch).add(id="b1", event=Order("first"))
        await client.task(order).send(id="o1", event=Order("placed"))
        await client.task(order).send(id="line\\nbreak \\x1b[31m", event=Order("placed"))

asyncio.run(main())
"""

NAMES = [
    "continuous:counter:a:b:c",
    "continuous:counter:u1",
    "continuous:failing:u1",
    "debounce:batch:b1",
    "task:order:line\\nbreak \\x1b[31m",
    "task:order:o1",
]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an application and its file, in which there are instances of every kind."""
    terminal = Terminal(tmp_path_factory.mktemp("original"))
    terminal.write("app.py", APP)
    terminal.python(BIRTHS)
    return terminal.directory


@pytest.fixture
def stored(original: Path, terminal: Terminal) -> Terminal:
    """A terminal in a copy of that directory."""
    shutil.copytree(original, terminal.directory, dirs_exist_ok=True)
    return terminal


def listed(stored: Terminal, *options: str) -> list[str]:
    """The names that ``ls`` prints."""
    said = stored.run("ls", *STORAGE, *options)
    assert said.returncode == 0
    return [line.split("  ")[0] for line in said.stdout.splitlines()[1:]]


# -- looking ---------------------------------------------------------------------------------------


def test_ls_lists_every_instance_without_the_users_code(stored: Terminal) -> None:
    """In the order of their keys, and with nothing in them that commands the terminal."""
    (stored.directory / "app.py").unlink()

    assert listed(stored) == NAMES


def test_ls_shows_where_each_instance_stands(stored: Terminal) -> None:
    """State, next alarm, counts and last error."""
    said = stored.run("ls", *STORAGE)

    header, *lines = said.stdout.splitlines()
    by_name = {line.split("  ")[0]: line for line in lines}
    assert header.split() == ["INSTANCE", "STATE", "NEXT", "ALARM", "COUNTS", "LAST", "ERROR"]
    assert by_name["continuous:counter:u1"].split()[1:4] == ["running", "59", "min"]
    assert by_name["continuous:counter:u1"].endswith(" s (schedule)    1 run")
    assert by_name["continuous:failing:u1"].endswith("  1 run            Refused: why='not today'")
    assert "debouncing  23 h 59 min (flushAfter)  1 event" in by_name["debounce:batch:b1"]
    assert "active      23 h 59 min (schedule)    1 event, 0 runs" in by_name["task:order:o1"]


def test_ls_takes_a_kind_a_job_and_a_limit(stored: Terminal) -> None:
    """Each narrows the list; what is left out by the limit is told of."""
    assert listed(stored, "--kind", "task") == NAMES[4:]
    assert listed(stored, "--job", "counter") == NAMES[:2]
    assert listed(stored, "--job", "counter", "--kind", "continuous", "--limit", "1") == NAMES[:1]
    assert listed(stored, "--limit", "4") == NAMES[:4]

    assert "there are more than 4" in stored.run("ls", *STORAGE, "--limit", "4").stderr
    assert stored.run("ls", *STORAGE, "--limit", "6").stderr == ""
    none = stored.run("ls", *STORAGE, "--job", "nothing")
    assert (none.returncode, none.stdout, none.stderr) == (0, "", "no instances\n")


def test_ls_prints_json_for_programs(stored: Terminal) -> None:
    """Everything but the states, with ids as they are."""
    said = stored.run("ls", "--json", DURABLE_EFFECT_STORAGE="sqlite:///jobs.db")

    instances = {instance["instance_id"]: instance for instance in json.loads(said.stdout)}
    assert list(instances) == [name.encode().decode("unicode_escape") for name in NAMES]
    failing = instances["continuous:failing:u1"]
    assert (failing["kind"], failing["job"], failing["id"]) == ("continuous", "failing", "u1")
    assert (failing["status"], failing["run_count"], failing["alarm_reason"]) == ("running", 1, "schedule")
    assert failing["last_error"]["type"] == "Refused"
    assert "state" not in failing


def test_show_shows_an_instance_with_its_state(stored: Terminal) -> None:
    """The id may hold colons; the state is JSON that can be read."""
    said = stored.run("show", "continuous:counter:a:b:c", *STORAGE)

    assert said.returncode == 0
    assert said.stdout.startswith("continuous:counter:a:b:c\n  status      running\n")
    assert said.stdout.endswith('  state\n    {\n      "runs": 1\n    }\n')


def test_show_shows_the_traceback_of_the_last_error(stored: Terminal) -> None:
    """What is needed to find out why it fails."""
    said = stored.run("show", "continuous:failing:u1", *STORAGE)

    assert "  last error  Refused: why='not today'\n" in said.stdout
    assert 'app.py", line' in said.stdout
    assert "in refuse" in said.stdout


def test_show_prints_json_for_programs(stored: Terminal) -> None:
    """The state included."""
    assert stored.state("task:order:o1") == {"status": "placed"}


@pytest.mark.parametrize("command", ["show", "trigger", "terminate"])
def test_an_instance_that_is_not_there_is_a_failure(stored: Terminal, command: str) -> None:
    """With the id in the message, and exit code 1."""
    said = stored.run(command, "task:order:o2", *STORAGE)

    assert said.returncode == 1
    assert "there is no instance task:order:o2" in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize(
    "arguments",
    [("ls",), ("show", "task:order:o1"), ("trigger", "task:order:o1"), ("terminate", "task:order:o1")],
)
def test_a_file_that_is_not_there_is_a_failure_and_is_not_made(
    terminal: Terminal, arguments: tuple[str, ...]
) -> None:
    """A typing mistake in the storage does not leave a new, empty storage."""
    said = terminal.run(*arguments, *STORAGE)

    assert said.returncode == 1
    assert "there is no database" in said.stderr
    assert list(terminal.directory.iterdir()) == []


# -- reaching, without the user's code -------------------------------------------------------------


def test_trigger_without_the_code_leaves_the_run_to_the_next_host(stored: Terminal) -> None:
    """The alarm is due now; nothing ran yet, and what ran before is as it was."""
    said = stored.run("trigger", "continuous:counter:u1", *STORAGE)

    assert said.returncode == 0
    assert "is due now: the process that hosts its job next will run it" in said.stdout
    assert stored.state("continuous:counter:u1") == {"runs": 1}
    with stored.start("run", "app:jobs", *STORAGE) as host:
        host.until("hosting")
        stored.until_shown("continuous:counter:u1", '"runs": 2')


def test_trigger_without_the_code_flushes_a_batch_and_executes_a_task(stored: Terminal) -> None:
    """The host does for each kind what its client's call would have done."""
    stored.run("trigger", "debounce:batch:b1", *STORAGE)
    stored.run("trigger", "task:order:o1", *STORAGE)

    with stored.start("run", "app:jobs", *STORAGE) as host:
        host.until("delivered first")
        stored.until_shown("task:order:o1", '"status": "done"')
        stored.until_gone("debounce:batch:b1")

    assert stored.record("task:order:o1")["alarm_reason"] == "schedule"


def test_terminate_deletes_the_record(stored: Terminal) -> None:
    """And nothing else."""
    (stored.directory / "app.py").unlink()

    said = stored.run("terminate", "task:order:o1", *STORAGE, "--reason", "the customer left")

    assert (said.returncode, said.stdout) == (0, "task:order:o1 is terminated\n")
    assert listed(stored) == NAMES[:5]


# -- reaching, with the user's code ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("continuous:counter:u1", "triggered=True, terminated=False, retry_scheduled=False"),
        ("task:order:o1", "triggered=True, terminated=False"),
        (
            "debounce:batch:b1",
            "flushed=True, event_count=1, reason=manual, retry_scheduled=False",
        ),
    ],
)
def test_trigger_with_the_code_runs_here_and_now(stored: Terminal, name: str, answer: str) -> None:
    """It says what the client is told."""
    said = stored.run("trigger", name, *STORAGE, "--jobs", "app:jobs")

    assert said.returncode == 0
    assert said.stdout.splitlines()[-1] == f"{name} ran: {answer}"


def test_a_triggered_run_that_fails_is_a_failure(stored: Terminal) -> None:
    """With the cause in the message."""
    said = stored.run("trigger", "continuous:failing:u1", *STORAGE, "--jobs", "app:jobs")

    assert said.returncode == 1
    assert "continuous:failing:u1 failed: Refused: why='not today'" in said.stderr
    assert stored.record("continuous:failing:u1")["run_count"] == 2


def test_trigger_with_code_that_lacks_the_job_is_a_failure(stored: Terminal) -> None:
    """The jobs that there are are named."""
    stored.write("other.py", "from durable_effect_jobs import *\njobs = create_durable_jobs({})")

    said = stored.run("trigger", "task:order:o1", *STORAGE, "--jobs", "other:jobs")

    assert said.returncode == 1
    assert "no task job is registered as 'order'" in said.stderr


@pytest.mark.parametrize(("name", "reason"), [("task:order:o1", "late"), ("debounce:batch:b1", "cleared")])
def test_terminate_with_the_code_reports_the_end_to_a_tracker(
    stored: Terminal, name: str, reason: str
) -> None:
    """The event is committed together with the deletion."""
    stored.write("tracked.py", TRACKED)

    said = stored.run("terminate", name, *STORAGE, "--jobs", "tracked:jobs", "--reason", "late")

    assert said.returncode == 0
    assert stored.pending_events() == [["job.terminated", name, reason]]

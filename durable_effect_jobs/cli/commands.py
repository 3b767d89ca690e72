"""The commands, as they are typed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, TypeVar

import attrs
from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.table import Table

from durable_effect import Clock, Effect, Need, Scope, TypedError
from durable_effect_jobs.cli import operate
from durable_effect_jobs.cli.arguments import (
    UsageError,
    checked_url,
    cron_from,
    instant_from,
    jobs_from,
    key_from,
)
from durable_effect_jobs.cli.host import host, log_to_stderr
from durable_effect_jobs.cli.instance_view import (
    instance_page,
    instance_table,
    letter_table,
    letter_to_json,
    printable,
    to_json,
)
from durable_effect_jobs.cli.theatre import perform
from durable_effect_jobs.errors import Kind

__all__ = ["run"]

A = TypeVar("A")

_DONE, _FAILED, _MISUSED, _INTERRUPTED = 0, 1, 2, 130
_WIDE = 10_000  # columns are for people: what reads a pipe gets whole lines

app = App(
    name="durable-effect",
    help="Durable jobs: run them, look at them, and see them survive.",
    version=version("durable-effect"),
)

StorageUrl: TypeAlias = Annotated[
    str,
    Parameter(
        env_var="DURABLE_EFFECT_STORAGE",
        help="Where instances live: sqlite:///jobs.db, or sqlite:////var/lib/jobs.db if absolute.",
    ),
]
Jobs: TypeAlias = Annotated[
    str, Parameter(help="What create_durable_jobs(...) made, as module:attribute, such as myapp.jobs:jobs.")
]
InstanceId: TypeAlias = Annotated[
    str, Parameter(help="kind:job:id, such as continuous:tokenRefresher:user-123.")
]
AsJson: TypeAlias = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON.")]


def run(arguments: list[str]) -> int:
    """Do what the arguments say, and answer the exit code. What was expected to go wrong is one message."""
    try:
        command, bound, _ = app.parse_args(arguments, print_error=False, exit_on_error=False)
        return command(*bound.args, **bound.kwargs) or _DONE
    except CycloptsError as error:
        return _complain(f"{error} (durable-effect --help)", _MISUSED)
    except UsageError as error:
        return _complain(str(error), _MISUSED)
    except (TypedError, ImportError) as error:  # an extra is missing; a user's module is explained elsewhere
        return _complain(str(error), _FAILED)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for what is still to be flushed; nobody reads it
        return _FAILED


def _complain(problem: str, code: int) -> int:
    print(f"durable-effect: {problem}", file=sys.stderr)
    return code


# -- running ---------------------------------------------------------------------------------------


@app.command
def demo(
    *,
    seconds: Annotated[float, Parameter(help="For about how long.", validator=Number(gte=2, lte=600))] = 12,
    db: Annotated[Path | None, Parameter(help="A new SQLite file to use, and to keep.")] = None,
) -> int:
    """See four jobs at work, their worker killed, and nothing lost.

    A token refresher, a health checker, a webhook batcher and an order processor run in a worker process on a
    SQLite file. Half way through the worker is killed with SIGKILL and another one takes over. At the end the
    books are checked; the exit code is 1 if they do not add up.
    """
    return _DONE if perform(seconds, db) else _FAILED


@app.command(name="run")
def run_jobs(
    jobs: Jobs,
    /,
    *,
    storage: StorageUrl,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Parameter(help="The least that is logged.")
    ] = "info",
) -> int:
    """Host jobs until SIGTERM or SIGINT, then let what runs end.

    A job's own logging= says how much it logs; what it says goes to the standard error.
    """
    checked_url(storage)
    log_to_stderr(log_level.upper())
    asyncio.run(host(jobs_from(jobs), storage))
    return _DONE


# -- looking ---------------------------------------------------------------------------------------


@app.command
def ls(
    *,
    storage: StorageUrl,
    job: Annotated[str | None, Parameter(help="Only instances of jobs with this name.")] = None,
    kind: Annotated[Kind | None, Parameter(help="Only instances of this kind of job.")] = None,
    limit: Annotated[int, Parameter(help="At most so many.", validator=Number(gte=1))] = 100,
    as_json: AsJson = False,
) -> int:
    """List instances. This may be done while a host has the storage."""
    found = _run(operate.instances(storage, kind=kind, job=job, limit=limit + 1))
    shown = found[:limit]
    if as_json:
        print(json.dumps([to_json(instance) for instance in shown], indent=2))
    elif shown:
        _print_table(instance_table(shown, Clock.now().run_sync()))
    else:
        print("no instances", file=sys.stderr)
    if len(found) > limit:
        print(f"there are more than {limit}: --limit shows them", file=sys.stderr)
    return _DONE


@app.command
def show(instance_id: InstanceId, /, *, storage: StorageUrl, as_json: AsJson = False) -> int:
    """Show an instance: its state, counts, alarm and last error.

    This may be done while a host has the storage.
    """
    instance = _run(operate.find(storage, key_from(instance_id)))
    if as_json:
        state = None if instance.state is None else json.loads(instance.state)
        print(json.dumps({**to_json(instance), "state": state}, indent=2))
    else:
        print(instance_page(instance, Clock.now().run_sync()))
    return _DONE


# -- changing --------------------------------------------------------------------------------------


@app.command
def trigger(instance_id: InstanceId, /, *, storage: StorageUrl, jobs: Jobs | None = None) -> int:
    """Run an instance now: here with --jobs, or else by the host that opens the storage next.

    A batch is flushed, and what was stopped is revived. No host may have the SQLite file meanwhile.
    """
    key = key_from(instance_id)
    if jobs is None:
        _run(operate.trigger(storage, key))
        print(f"{printable(instance_id)} is due now: the process that hosts its job next will run it")
        return _DONE
    log_to_stderr("INFO")
    result = _run(operate.trigger_here(jobs_from(jobs), storage, key))
    fields = (f"{name}={value}" for name, value in attrs.asdict(result).items())
    print(f"{printable(instance_id)} ran: {', '.join(fields)}")
    return _DONE


@app.command
def terminate(
    instance_id: InstanceId,
    /,
    *,
    storage: StorageUrl,
    reason: Annotated[str | None, Parameter(help="Why; it is part of the job.terminated event.")] = None,
    jobs: Jobs | None = None,
) -> int:
    """End an instance: its state and alarm are deleted, and its id is free again.

    A job.terminated event is sent only with --jobs, where these have a tracker. No host may have the SQLite
    file meanwhile.
    """
    key = key_from(instance_id)
    if jobs is None:
        _run(operate.terminate(storage, key, reason))
    else:
        _run(operate.terminate_here(jobs_from(jobs), storage, key, reason))
    print(f"{printable(instance_id)} is terminated")
    return _DONE


# -- dead letters ----------------------------------------------------------------------------------


LetterNumber: TypeAlias = Annotated[
    int, Parameter(help="The number that `dead` shows.", validator=Number(gte=1))
]


@app.command
def dead(
    *,
    storage: StorageUrl,
    limit: Annotated[int, Parameter(help="At most so many.", validator=Number(gte=1))] = 100,
    as_json: AsJson = False,
) -> int:
    """List dead letters: instances that were purged because their retries were exhausted.

    They are kept for 30 days. This may be done while a host has the storage.
    """
    letters = _run(operate.dead_letters(storage, limit=limit))
    if as_json:
        print(json.dumps([letter_to_json(letter) for letter in letters], indent=2))
    elif letters:
        _print_table(letter_table(letters))
    else:
        print("no dead letters", file=sys.stderr)
    return _DONE


@app.command
def replay(number: LetterNumber, /, *, storage: StorageUrl) -> int:
    """Bring a dead letter back to life, due at once: the process that hosts its job next runs it.

    Its attempts begin anew; its state and counts are as they were. No host may have the SQLite file
    meanwhile.
    """
    key = _run(operate.replay(storage, number))
    print(f"{printable(key.instance_id)} lives again and is due now")
    return _DONE


@app.command
def purge(number: LetterNumber, /, *, storage: StorageUrl) -> int:
    """Remove a dead letter for good. No host may have the SQLite file meanwhile."""
    key = _run(operate.purge(storage, number))
    print(f"dead letter {number} of {printable(key.instance_id)} is gone")
    return _DONE


# -- schedules -------------------------------------------------------------------------------------


@app.command(name="next")
def next_times(
    cron: Annotated[str, Parameter(help='A cron expression in quotes, such as "30 9 * * MON-FRI".')],
    /,
    *,
    tz: Annotated[str, Parameter(help="The time zone whose clock it follows.")] = "UTC",
    count: Annotated[int, Parameter(help="How many times.", validator=Number(gte=1, lte=10_000))] = 5,
    after: Annotated[
        str | None, Parameter(help="From when on, in ISO; without an offset in the time zone. Default: now.")
    ] = None,
) -> int:
    """Print when a cron expression is due next: in its time zone, and in UTC."""
    schedule, zone = cron_from(cron, tz)
    instant = Clock.now().run_sync() if after is None else instant_from(after, zone)
    for _ in range(count):
        try:
            instant = schedule.next_after(instant)
        except OverflowError as error:
            return _complain(str(error), _FAILED)
        local = instant.astimezone(zone)
        print(f"{local:%a} {local.isoformat(sep=' ')} {local:%Z}  {instant:%Y-%m-%dT%H:%M:%SZ}")
    return _DONE


def _run(program: Effect[A, TypedError, Need[Scope]]) -> A:
    return program.scoped().run()


def _print_table(table: Table) -> None:
    console = Console(width=None if sys.stdout.isatty() else _WIDE)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())

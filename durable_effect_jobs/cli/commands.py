"""The commands, as they are typed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import attrs
from cyclopts import CycloptsError, Parameter
from cyclopts.validators import Number

from durable_effect import Clock, TypedError
from durable_effect_jobs.cli import doctor_command as doctor_command
from durable_effect_jobs.cli import operate
from durable_effect_jobs.cli import repair_commands as repair_commands
from durable_effect_jobs.cli.app import (
    DONE,
    FAILED,
    INTERRUPTED,
    MISUSED,
    AsJson,
    InstanceId,
    Jobs,
    Limit,
    StorageUrl,
    app,
    complain,
    finish,
    is_wide,
    print_table,
)
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
    found_table,
    found_to_json,
    instance_page,
    letter_table,
    letter_to_json,
    printable,
    to_json,
)
from durable_effect_jobs.cli.look import look
from durable_effect_jobs.cli.selection import EVERYTHING, Filter
from durable_effect_jobs.cli.theatre import perform

__all__ = ["run"]


def run(arguments: list[str]) -> int:
    """Do what the arguments say, and answer the exit code. What was expected to go wrong is one message."""
    try:
        command, bound, _ = app.parse_args(arguments, print_error=False, exit_on_error=False)
        return command(*bound.args, **bound.kwargs) or DONE
    except CycloptsError as error:
        return complain(f"{error} (durable-effect --help)", MISUSED)
    except UsageError as error:
        return complain(str(error), MISUSED)
    except (TypedError, ImportError) as error:  # an extra is missing; a user's module is explained elsewhere
        return complain(str(error), FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for what is still to be flushed; nobody reads it
        return FAILED


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
    return DONE if perform(seconds, db) else FAILED


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
    return DONE


# -- looking ---------------------------------------------------------------------------------------


@app.command
def ls(
    *, storage: StorageUrl, which: Filter = EVERYTHING, limit: Limit = 100, as_json: AsJson = False
) -> int:
    """List instances; with --state dead those that died of their retries.

    STATE says what is most remarkable: quarantined, stopped, executing, suspect (its last run took its
    process down), parked (its state cannot be read), retrying, due; or else what the client says. This may be
    done while a host has the storage.
    """
    now = Clock.now().run_sync()
    seen = look(storage, which, now, limit=limit + 1)
    shown = seen.found[:limit]
    if as_json:
        print(json.dumps([found_to_json(one, now) for one in shown], indent=2))
    elif shown:
        print_table(found_table(shown, now, wide=is_wide()))
    else:
        print("no dead letters" if which.state == "dead" else "no instances", file=sys.stderr)
    if len(seen.found) > limit:
        print(f"there are more than {limit}: --limit shows them", file=sys.stderr)
    if seen.other_letters:
        print(f"{seen.other_letters} dead: --state dead shows them", file=sys.stderr)
    return DONE


@app.command
def show(instance_id: InstanceId, /, *, storage: StorageUrl, as_json: AsJson = False) -> int:
    """Show an instance: its state, counts, alarm and last error.

    This may be done while a host has the storage.
    """
    instance = finish(operate.find(storage, key_from(instance_id)))
    now = Clock.now().run_sync()
    if as_json:
        state = None if instance.state is None else json.loads(instance.state)
        print(json.dumps({**to_json(instance, now), "state": state}, indent=2))
    else:
        print(instance_page(instance, now))
    return DONE


# -- changing --------------------------------------------------------------------------------------


@app.command
def trigger(instance_id: InstanceId, /, *, storage: StorageUrl, jobs: Jobs | None = None) -> int:
    """Run an instance now: here with --jobs, or else by the host that opens the storage next.

    A batch is flushed, and what was stopped is revived. No host may have the SQLite file meanwhile.
    """
    key = key_from(instance_id)
    if jobs is None:
        finish(operate.trigger(storage, key))
        print(f"{printable(instance_id)} is due now: the process that hosts its job next will run it")
        return DONE
    log_to_stderr("INFO")
    result = finish(operate.trigger_here(jobs_from(jobs), storage, key))
    fields = (f"{name}={value}" for name, value in attrs.asdict(result).items())
    print(f"{printable(instance_id)} ran: {', '.join(fields)}")
    return DONE


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
        finish(operate.terminate(storage, key, reason))
    else:
        finish(operate.terminate_here(jobs_from(jobs), storage, key, reason))
    print(f"{printable(instance_id)} is terminated")
    return DONE


# -- dead letters ----------------------------------------------------------------------------------


@app.command
def dead(
    *,
    storage: StorageUrl,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> int:
    """List dead letters: instances that were purged because their retries were exhausted.

    They are kept for 30 days. This may be done while a host has the storage.
    """
    letters = look(storage, Filter(state="dead"), Clock.now().run_sync(), limit=limit).letters
    if as_json:
        print(json.dumps([letter_to_json(letter) for letter in letters], indent=2))
    elif letters:
        print_table(letter_table(letters, wide=is_wide()))
    else:
        print("no dead letters", file=sys.stderr)
    return DONE


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
            return complain(str(error), FAILED)
        local = instant.astimezone(zone)
        print(f"{local:%a} {local.isoformat(sep=' ')} {local:%Z}  {instant:%Y-%m-%dT%H:%M:%SZ}")
    return DONE

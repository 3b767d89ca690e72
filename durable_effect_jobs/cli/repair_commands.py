"""``retry``, ``resume``, ``replay`` and ``purge``: one by one, or all that have something in common."""

from __future__ import annotations

import json
import sys
from typing import Annotated, TypeAlias

import attrs
from cyclopts import Parameter

from durable_effect_jobs.cli.app import (
    DONE,
    FAILED,
    AsJson,
    Jobs,
    StorageUrl,
    app,
    complain,
    finish,
    is_wide,
    print_table,
)
from durable_effect_jobs.cli.arguments import UsageError, jobs_from, target_from
from durable_effect_jobs.cli.instance_view import found_table, printable
from durable_effect_jobs.cli.progress import progress
from durable_effect_jobs.cli.remedies import Purge, Remedy, Replay, Resume, RetryNow
from durable_effect_jobs.cli.repair import Outcome, Plan, carry_out, find_all, find_each
from durable_effect_jobs.cli.selection import EVERYTHING, Filter

__all__ = ["purge", "replay", "resume", "retry"]

_SHOWN_BEFORE = 10

Instances: TypeAlias = Annotated[
    str, Parameter(help="Instances by their ids, kind:job:id. Or say with the options below which.")
]
Letters: TypeAlias = Annotated[
    str, Parameter(help="Dead letters by their numbers, or instances by their ids, kind:job:id.")
]


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class How:
    """What is to be asked and said."""

    everything: Annotated[
        bool, Parameter(name="--all", negative=(), help="All that this command is for.")
    ] = False
    dry_run: Annotated[bool, Parameter(negative=(), help="Only say what would be done.")] = False
    yes: Annotated[bool, Parameter(negative=(), help="Do not ask on a terminal.")] = False
    as_json: AsJson = False


_AS_USUAL = How()


@app.command
def retry(*targets: Instances, storage: StorageUrl, which: Filter = EVERYTHING, how: How = _AS_USUAL) -> int:
    """Run what is stopped, parked or failed again: now, and with a fresh attempt count.

    It is due at once, and the host that opens the storage next runs it. No host may have the SQLite file
    meanwhile, except with --dry-run.
    """
    return _repair(RetryNow(), targets, storage, which, how)


@app.command
def resume(*targets: Instances, storage: StorageUrl, which: Filter = EVERYTHING, how: How = _AS_USUAL) -> int:
    """Let quarantined instances run again.

    An instance is quarantined when its runs took their process down several times in a row. Its crashes are
    forgotten, and its alarm fires as it was set. No host may have the SQLite file meanwhile, except with
    --dry-run.
    """
    return _repair(Resume(), targets, storage, which, how)


@app.command
def replay(*targets: Letters, storage: StorageUrl, which: Filter = EVERYTHING, how: How = _AS_USUAL) -> int:
    """Bring dead letters back to life, due at once: the process that hosts their job next runs them.

    Their attempts begin anew; state and counts are as they were. An id that is in use again is not
    overwritten. No host may have the SQLite file meanwhile, except with --dry-run.
    """
    return _repair(Replay(), targets, storage, which, how)


@app.command
def purge(
    *targets: Letters,
    storage: StorageUrl,
    which: Filter = EVERYTHING,
    how: How = _AS_USUAL,
    reason: Annotated[
        str | None, Parameter(help="Why an instance ends; it is part of its job.terminated event.")
    ] = None,
    jobs: Jobs | None = None,
) -> int:
    """Remove dead letters for good; by id or with --state, instances that are stopped or quarantined too.

    A job.terminated event is sent for instances only with --jobs, where these have a tracker. No host may
    have the SQLite file meanwhile, except with --dry-run.
    """
    reports = jobs is not None and jobs_from(jobs).registry.telemetry
    return _repair(Purge(reason, reports), targets, storage, which, how)


def _repair(remedy: Remedy, targets: tuple[str, ...], url: str, which: Filter, how: How) -> int:
    plan = _plan(remedy, targets, url, which, how)
    if how.dry_run:
        return _tell(plan.refused + plan.intended(remedy.verb), how)
    if not plan.found:
        if not plan.refused and not how.as_json:
            print(f"there is nothing to {remedy.verb}", file=sys.stderr)
        return _tell(plan.refused, how)
    if not targets and not how.yes and not _agreed(remedy, plan):
        return complain("nothing was changed", FAILED)
    with progress(remedy.verb, len(plan.found)) as done:
        outcomes = finish(carry_out(url, remedy, plan.found, done))
    return _tell((*plan.refused, *outcomes), how)


def _plan(remedy: Remedy, targets: tuple[str, ...], url: str, which: Filter, how: How) -> Plan:
    if targets and (which.is_given or how.everything):
        raise UsageError(f"{remedy.verb} either the ones that are named, or all that pass a filter")
    if targets:
        return finish(find_each(url, remedy, [target_from(target) for target in targets]))
    if not which.is_given and not how.everything:
        raise UsageError(f"{remedy.verb} which? Name them, or say what they have in common, or --all")
    if which.state not in (None, *remedy.states):
        known = ", ".join(remedy.states)
        raise UsageError(f"--state: {remedy.verb} is not for what is {which.state}, but for {known}")
    with progress("looking") as looked_at:
        return finish(find_all(url, remedy, which, looked_at))


def _agreed(remedy: Remedy, plan: Plan) -> bool:
    """What a filter found is shown before it is changed, where there is somebody to look at it."""
    if not sys.stdin.isatty():
        return True
    print_table(found_table(plan.found[:_SHOWN_BEFORE], plan.at, wide=is_wide()))
    if len(plan.found) > _SHOWN_BEFORE:
        print(f"and {len(plan.found) - _SHOWN_BEFORE} more")
    number = "this one" if len(plan.found) == 1 else f"these {len(plan.found)}"
    print(f"{remedy.verb} {number}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _tell(outcomes: tuple[Outcome, ...], how: How) -> int:
    if how.as_json:
        print(json.dumps([attrs.asdict(outcome) for outcome in outcomes], indent=2))
    else:
        for outcome in outcomes:
            if outcome.problem is None:
                print(printable(outcome.message or ""))
            else:
                complain(printable(outcome.problem), FAILED)
    return DONE if all(outcome.problem is None for outcome in outcomes) else FAILED

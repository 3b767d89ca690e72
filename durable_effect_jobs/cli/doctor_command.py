"""``doctor``: whether a storage is well, and what to do where it is not."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated, Any

import attrs
from cyclopts import Parameter
from rich.console import Console

from durable_effect_jobs.cli.app import DONE, FAILED, AsJson, StorageUrl, app, finish
from durable_effect_jobs.cli.doctor import Facts, Finding, diagnose, examine
from durable_effect_jobs.cli.instance_view import countdown, printable, printed
from durable_effect_jobs.cli.progress import progress
from durable_effect_jobs.cli.selection import span
from durable_effect_jobs.step import Limits

__all__ = ["doctor"]

_LEASE = Limits().lease
_SHOWN = 5
_NARROW, _WIDE = 60, 100


@app.command
def doctor(
    *,
    storage: StorageUrl,
    deep: Annotated[
        bool, Parameter(negative=(), help="Compare every index with its table too; takes longer.")
    ] = False,
    lease: Annotated[
        timedelta,
        Parameter(
            converter=span,
            n_tokens=1,
            accepts_keys=False,
            show_default=False,
            help="The limit of this name, if the host sets another one than 30 seconds.",
        ),
    ] = _LEASE,
    as_json: AsJson = False,
) -> int:
    """Check a storage, and say what to do about what is found. This may be done while a host has it.

    The invariants I1 to I8, the file, the SQLite library, the clock, late alarms, runs that died, instances
    that wait for somebody, unsent events. Exit code 0: healthy; 1: there is something to do.
    """
    with progress("looking at instances") as looked_at:
        facts = finish(examine(storage, deep=deep, lease=lease, looked_at=looked_at))
    findings = diagnose(facts, storage)
    problems = sum(finding.level == "problem" for finding in findings)
    if as_json:
        print(json.dumps(_to_json(facts, findings, healthy=not problems), indent=2))
    else:
        _print(facts, findings, problems)
    return FAILED if problems else DONE


def _to_json(facts: Facts, findings: tuple[Finding, ...], *, healthy: bool) -> dict[str, Any]:
    return {
        "healthy": healthy,
        "at": facts.now.isoformat(),
        "sqlite": ".".join(map(str, facts.sqlite)),
        "figures": _figures(facts),
        "findings": [attrs.asdict(finding) for finding in findings],
    }


def _figures(facts: Facts) -> dict[str, Any]:
    survey, states = facts.survey, facts.states
    counted = {state: states.get(state, 0) for state in ("stopped", "parked", "retrying")}
    if survey is None:
        return {**counted}
    figures = attrs.asdict(survey, filter=lambda field, _: field.name != "violations")
    return {name: _plain(value) for name, value in {**figures, **counted}.items()}


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


def _print(facts: Facts, findings: tuple[Finding, ...], problems: int) -> None:
    console = Console(width=min(max(shutil.get_terminal_size().columns, _NARROW), _WIDE), highlight=False)
    for line, style in _lines(facts, findings, console.width):
        if sys.stdout.isatty():
            console.print(printed(line, style), soft_wrap=True)
        else:
            print(printable(line))
    verdict = "healthy: nothing to do" if not problems else f"{problems} to see to"
    print(verdict)


def _lines(facts: Facts, findings: tuple[Finding, ...], width: int) -> Iterator[tuple[str, str]]:
    yield from ((line, "") for line in _overview(facts, width))
    yield "", ""
    for finding in findings:
        style = "bold red" if finding.level == "problem" else "bold"
        yield f"{finding.level.upper()} {finding.check}", style
        yield from ((line, "") for line in _wrapped(finding.summary, width))
        for detail in finding.details[:_SHOWN]:
            yield f"    {detail}", "dim"
        if len(finding.details) > _SHOWN:
            yield f"    and {len(finding.details) - _SHOWN} more: --json shows up to 100", "dim"
        yield from ((line, "") for line in _wrapped(f"What to do: {finding.advice}", width))
        yield f"  See {finding.page}", "dim"
        yield "", ""


def _overview(facts: Facts, width: int) -> list[str]:
    words = [f"SQLite {'.'.join(map(str, facts.sqlite))}"]
    for name, value in _figures(facts).items():
        if isinstance(value, int):
            words.append(f"{name.replace('_', ' ')} {value}")
    survey = facts.survey
    if survey is not None and survey.oldest_due is not None:
        words.append(f"oldest due for {countdown(facts.now - survey.oldest_due)}")
    if survey is not None and survey.oldest_event is not None:
        words.append(f"oldest event {countdown(facts.now - survey.oldest_event)} old")
    return textwrap.wrap(", ".join(words), width)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )

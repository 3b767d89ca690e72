"""How a record looks in a terminal, and as JSON. It is all read off the record: no user code is needed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, cast

import attrs
from rich.table import Table
from rich.text import Text

from durable_effect_jobs.cli.selection import condition, status
from durable_effect_jobs.errors import described
from durable_effect_jobs.instance import DeadLetter, Instance

__all__ = [
    "STYLES",
    "countdown",
    "found_table",
    "found_to_json",
    "instance_page",
    "instance_table",
    "last_error",
    "letter_table",
    "letter_to_json",
    "next_alarm",
    "printable",
    "printed",
    "runs",
    "state_line",
    "to_json",
]

_LONGEST_STATE = 200
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def next_alarm(instance: Instance, now: datetime) -> str:
    """When it is woken next, and what for."""
    if instance.alarm is None:
        return "-"
    return f"{countdown(instance.alarm.at - now)} ({instance.alarm.reason})"


def countdown(left: timedelta) -> str:
    """A span as one says it: the two units that matter."""
    if left < timedelta():
        return f"{countdown(-left)} late" if left < timedelta(seconds=-1) else "now"
    if left < timedelta(seconds=10):
        return f"{left.total_seconds():.1f} s"
    minutes, seconds = divmod(left // timedelta(seconds=1), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def runs(instance: Instance) -> str:
    """What its kind counts."""
    if instance.key.kind == "continuous":
        return _counted(instance.run_count, "run")
    events = _counted(instance.event_count, "event")
    return (
        events if instance.key.kind == "debounce" else f"{events}, {_counted(instance.execute_count, 'run')}"
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def last_error(instance: Instance) -> str:
    """Type and message of the last failure, on one line."""
    error = instance.last_error
    return "" if error is None else described(error.type, error.message)


def instance_table(instances: Sequence[Instance], now: datetime, *, wide: bool = True) -> Table:
    """One line for each instance. Where there is little room it is told in fewer words."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("INSTANCE", overflow="fold")
    table.add_column("STATE", no_wrap=True, min_width=10)
    table.add_column("NEXT ALARM", no_wrap=True, min_width=18 if wide else 10)
    if wide:
        table.add_column("COUNTS", no_wrap=True, min_width=15)
    table.add_column("LAST ERROR", no_wrap=True, max_width=None if wide else 20)
    for instance in instances:
        state, alarm = condition(instance, now), next_alarm(instance, now)
        table.add_row(
            printed(instance.key.instance_id),
            printed(state, STYLES.get(state, "")),
            alarm if wide else alarm.split(" (")[0],
            *([runs(instance)] if wide else []),
            printed(last_error(instance), "red"),
        )
    return table


def letter_table(letters: Sequence[DeadLetter], *, wide: bool = True) -> Table:
    """One line for each dead letter. Where there is little room it is told in fewer words."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("NUMBER", justify="right", no_wrap=True)
    table.add_column("INSTANCE", overflow="fold")
    table.add_column("SINCE", no_wrap=True)
    table.add_column("REASON", no_wrap=True)
    if wide:
        table.add_column("COUNTS", no_wrap=True)
    table.add_column("LAST ERROR", no_wrap=True, max_width=None if wide else 18)
    for letter in letters:
        table.add_row(
            str(letter.number),
            printed(letter.instance.key.instance_id),
            _utc(letter.at) if wide else f"{letter.at:%Y-%m-%d}",
            letter.reason,
            *([runs(letter.instance)] if wide else []),
            printed(last_error(letter.instance), "red"),
        )
    return table


def found_table(found: Sequence[Instance | DeadLetter], now: datetime, *, wide: bool = True) -> Table:
    """What a look found: instances or dead letters."""
    letters = [one for one in found if isinstance(one, DeadLetter)]
    if letters:
        return letter_table(letters, wide=wide)
    return instance_table([one for one in found if isinstance(one, Instance)], now, wide=wide)


STYLES = {
    "running": "green",
    "debouncing": "green",
    "active": "green",
    "executing": "bold green",
    "idle": "dim",
    "due": "yellow",
    "retrying": "yellow",
    "suspect": "yellow",
    "parked": "red",
    "stopped": "red",
    "quarantined": "bold red",
}
"""How the words for what an instance is in are printed."""


def printed(text: str, style: str = "") -> Text:
    """Text as it is: without markup, and without anything that commands the terminal."""
    return Text(printable(text), style)


def instance_page(instance: Instance, now: datetime) -> str:
    """Everything about one instance, its state included."""
    alarm, error = instance.alarm, instance.last_error
    lines = [
        printable(instance.key.instance_id),
        f"  status      {status(instance)}",
        f"  next alarm  {next_alarm(instance, now)}" + (f" at {_utc(alarm.at)}" if alarm else ""),
        f"  counts      {runs(instance)}",
        f"  created     {_utc(instance.created_at)}",
    ]
    if instance.lease is not None:
        lines.append(f"  executing   until {_utc(instance.lease.until)} at the latest, or its worker died")
    if instance.failed_attempts:
        lines.append(f"  retrying    {_counted(instance.failed_attempts, 'attempt')} failed")
    if instance.parked:
        lines.append(f"  parked      its state was not read {_counted(instance.undecodable_count, 'time')}")
    if instance.crashes:
        lines.append(f"  crashes     {_counted(instance.crashes, 'run')} in a row took the process down")
    if instance.quarantined:
        lines.append("  quarantined until it is resumed")
    if error is not None:
        lines.append(f"  last error  {printable(last_error(instance))}")
        lines += [f"    {printable(line)}" for line in (error.stack or "").splitlines()]
    lines.append("  state")
    state = None if instance.state is None else json.loads(instance.state)
    lines += [
        f"    {printable(line)}" for line in json.dumps(state, indent=2, ensure_ascii=False).splitlines()
    ]
    return "\n".join(lines)


def _utc(instant: datetime) -> str:
    return instant.isoformat(sep=" ", timespec="milliseconds").replace("+00:00", " UTC")


def state_line(instance: Instance) -> str:
    """The state in a few words: lists are told by their length, and what is empty or zero is not told."""
    state: Any = None if instance.state is None else json.loads(instance.state)
    if not isinstance(state, dict):
        return "" if state is None else printable(json.dumps(state))[:_LONGEST_STATE]
    fields = cast("dict[str, Any]", state)
    words = (f"{name}={_word(value)}" for name, value in fields.items() if value)
    return printable(" ".join(words))[:_LONGEST_STATE]


def _word(value: object) -> str:
    if isinstance(value, list | dict):
        return f"[{len(cast('list[Any]', value))}]"
    if isinstance(value, str) and _INSTANT.fullmatch(value):
        return f"{datetime.fromisoformat(value):%H:%M:%S}"
    return str(value)


def printable(text: str) -> str:
    """Text that cannot command the terminal: what is stored may come from anywhere."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def letter_to_json(letter: DeadLetter) -> dict[str, Any]:
    """Everything about a dead letter, its state included."""
    state = letter.instance.state
    return {
        "number": letter.number,
        "reason": letter.reason,
        "at": letter.at.isoformat(),
        "expires_at": letter.expires_at.isoformat(),
        **_plain(letter.instance),
        "condition": "dead",
        "state": None if state is None else json.loads(state),
    }


def found_to_json(found: Instance | DeadLetter, now: datetime) -> dict[str, Any]:
    """What a look found. Dead letters are shown whole, with the state that they saved."""
    return letter_to_json(found) if isinstance(found, DeadLetter) else to_json(found, now)


def to_json(instance: Instance, now: datetime) -> dict[str, Any]:
    """Everything but the encoded state, as JSON takes it; ``condition`` is the word of the STATE column."""
    return {**_plain(instance), "condition": condition(instance, now)}


def _plain(instance: Instance) -> dict[str, Any]:
    alarm, lease, error = instance.alarm, instance.lease, instance.last_error
    return {
        "instance_id": instance.key.instance_id,
        "kind": instance.key.kind,
        "job": instance.key.job,
        "id": instance.key.id,
        "status": status(instance),
        "created_at": instance.created_at.isoformat(),
        "alarm_at": None if alarm is None else alarm.at.isoformat(),
        "alarm_reason": None if alarm is None else alarm.reason,
        "run_count": instance.run_count,
        "event_count": instance.event_count,
        "execute_count": instance.execute_count,
        "failed_attempts": instance.failed_attempts,
        "crashes": instance.crashes,
        "quarantined": instance.quarantined,
        "parked": instance.parked,
        "leased_until": None if lease is None else lease.until.isoformat(),
        "last_error": None if error is None else attrs.asdict(error),
    }

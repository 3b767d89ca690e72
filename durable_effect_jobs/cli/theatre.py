"""The demo on a terminal: a table that lives, or plain lines where there is no terminal."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from urllib.parse import quote

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from durable_effect_jobs.cli.arguments import UsageError
from durable_effect_jobs.cli.instance_view import (
    STYLES,
    last_error,
    next_alarm,
    printable,
    printed,
    runs,
    state_line,
)
from durable_effect_jobs.cli.selection import status
from durable_effect_jobs.demo.play import Outcome, Scene, play

__all__ = ["perform"]

_LATEST = 9
_WIDE = 110  # columns


def perform(seconds: float, db: Path | None) -> bool:
    """Play the demo, and answer whether the books add up."""
    if db is not None and db.exists():
        raise UsageError(f"--db: {db} is there already, and the demo needs a new file")
    console = Console()
    stage = _Live(console) if sys.stdout.isatty() and not console.is_dumb_terminal else _Lines()
    with tempfile.TemporaryDirectory(prefix="durable-effect-") as scratch:
        path = Path(scratch) / "demo.db" if db is None else db.absolute()
        url = f"sqlite:///{quote(str(path))}"
        program = play(url, seconds, Path(scratch) / "worker.log", stage).scoped()
        with stage.open():
            outcome = program.run()
    _sum_up(outcome, db)
    return outcome.all_hold


def _sum_up(outcome: Outcome, db: Path | None) -> None:
    print()
    for check in outcome.checks:
        print(f"{'ok  ' if check.holds else 'NOT '}  {check.claim}")
        print(f"      {check.figures}")
    print()
    if outcome.all_hold:
        print(f"Worker {outcome.killed_pid} was killed in the middle of all this, and nothing was lost.")
    else:
        print("The books do not add up: this is a bug in durable-effect.", file=sys.stderr)
    if db is not None:
        print(f"The file is kept: durable-effect ls --storage sqlite:///{quote(str(db))}")


class _Lines:
    """One line for each thing that happens, and one a second for where things stand."""

    def __init__(self) -> None:
        self._last_shown_s = -1.0

    def open(self) -> AbstractContextManager[object]:
        return nullcontext()

    def show(self, scene: Scene) -> None:
        if scene.elapsed_s >= self._last_shown_s + 1:
            self._last_shown_s = scene.elapsed_s
            self._say(f"{scene.elapsed_s:5.1f} s  {scene.worker}; {_figures(scene)}")

    def tell(self, elapsed_s: float, who: str, what: str, *, alarming: bool = False) -> None:
        self._say(f"{elapsed_s:5.1f} s  {'!' if alarming else ' '} {printable(who)} {printable(what)}")

    def _say(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # the show goes on when nobody looks
            print(line, flush=True)


class _Live:
    """The table of instances, and the latest that happened below it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False)
        self._told: deque[Text] = deque(maxlen=_LATEST)

    def open(self) -> AbstractContextManager[object]:
        return self._live

    def show(self, scene: Scene) -> None:
        style = "bold red" if "dead" in scene.worker else "bold"
        head = Text(f"{scene.elapsed_s:5.1f} s  {scene.worker}", style)
        table = _table(scene, wide=self._console.width >= _WIDE)
        lines = Text("\n", no_wrap=True, overflow="ellipsis").join(self._told)
        told = Panel(lines, title="what happens", title_align="left", border_style="dim")
        self._live.update(Group(head, Text(_figures(scene)), Text(), table, Text(), told), refresh=True)

    def tell(self, elapsed_s: float, who: str, what: str, *, alarming: bool = False) -> None:
        who = who.removeprefix("continuous:").removeprefix("debounce:").removeprefix("task:")
        line = printed(f"{elapsed_s:5.1f} s  {who} {what}", "red" if alarming else "")
        self._told.append(line)


def _table(scene: Scene, *, wide: bool) -> Table:
    """One line for each instance; where there is little room, status and error are left to what is told."""
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    table.add_column("INSTANCE", no_wrap=True, min_width=24)
    if wide:
        table.add_column("STATUS", no_wrap=True, min_width=10)
    table.add_column("STATE", no_wrap=True, ratio=3)
    table.add_column("NEXT ALARM", no_wrap=True, min_width=18 if wide else 12)
    table.add_column("COUNTS", no_wrap=True, min_width=16)
    if wide:
        table.add_column("LAST ERROR", no_wrap=True, ratio=2)
    for instance in scene.instances:
        now = status(instance)
        table.add_row(
            printed(f"{instance.key.job}:{instance.key.id}"),
            *([printed(now, STYLES[now])] if wide else []),
            printed(state_line(instance), "dim"),
            next_alarm(instance, scene.now) if wide else next_alarm(instance, scene.now).split(" (")[0],
            runs(instance),
            *([printed(last_error(instance), "red")] if wide else []),
        )
    return table


def _figures(scene: Scene) -> str:
    return (
        f"{scene.accepted} webhooks accepted, {scene.delivered} delivered in {scene.batches} batches; "
        f"{scene.waiting} calls wait"
    )

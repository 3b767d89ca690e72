"""How far a long look or change has come, on a terminal and only there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["progress"]


_LONG = 2_000  # what takes no time needs no bar


@contextmanager
def progress(what: str, total: int | None = None) -> Generator[Callable[[int], None]]:
    """Show a bar on the standard error, if that is a terminal and there is much to do; it leaves no trace.

    What is given is to be called with the number of those that were done since the last time.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    task = bar.add_task(what, total=total)

    def advance(number: int) -> None:
        bar.advance(task, number)
        if bar.tasks[0].completed > _LONG:
            bar.start()

    try:
        yield advance
    finally:
        bar.stop()

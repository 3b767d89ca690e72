"""What all commands have in common: the application, the arguments that many take, exit codes, tables."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated, TypeAlias, TypeVar

from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.table import Table

from durable_effect import Effect, Need, Scope, TypedError

__all__ = [
    "DONE",
    "FAILED",
    "INTERRUPTED",
    "MISUSED",
    "AsJson",
    "InstanceId",
    "Jobs",
    "Limit",
    "StorageUrl",
    "app",
    "complain",
    "finish",
    "is_wide",
    "print_table",
]

A = TypeVar("A")

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
_WIDE = 10_000  # columns are for people: what reads a pipe gets whole lines
_ROOMY = 110

app = App(
    name="durable-effect",
    help="Durable jobs: run them, look at them, repair them, and see them survive.",
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
Limit: TypeAlias = Annotated[int, Parameter(help="At most so many.", validator=Number(gte=1))]


def finish(program: Effect[A, TypedError, Need[Scope]]) -> A:
    """Run a program to its end; its error is raised as itself."""
    return program.scoped().run()


def complain(problem: str, code: int) -> int:
    """Say on the standard error what is wrong."""
    print(f"durable-effect: {problem}", file=sys.stderr)
    return code


def is_wide() -> bool:
    """Whether there is room for tables with everything in them."""
    return _console().width >= _ROOMY


def print_table(table: Table) -> None:
    """Print a table without what fills its lines up at the right."""
    console = _console()
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _WIDE)

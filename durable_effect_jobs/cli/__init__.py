"""The command line, ``durable-effect``. It needs the extra ``cli``; nothing else of the package does."""

from __future__ import annotations

import sys

__all__ = ["main"]

_NEEDED = ("cyclopts", "rich")


def main() -> int:
    """Do what the arguments say. Answers the exit code: 0 done, 1 failed, 2 a mistake in the arguments."""
    try:
        from durable_effect_jobs.cli.commands import run
    except ModuleNotFoundError as missing:
        if (missing.name or "").split(".")[0] not in _NEEDED:
            raise
        print(
            "durable-effect needs its extra for the terminal: pip install 'durable-effect[cli]'",
            file=sys.stderr,
        )
        return 2
    return run(sys.argv[1:])

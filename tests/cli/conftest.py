"""Where commands are typed: a terminal with real processes, and a quick way without."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from terminal import Said, Terminal

from durable_effect_jobs.cli.commands import run


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """A terminal in an empty directory; Ctrl-C works on it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores it,
    yield Terminal(tmp_path)  # and what is started would inherit that
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """Runs a command in this process and in an empty directory, for what needs no process of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("DURABLE_EFFECT_STORAGE", raising=False)

    def type_in(*arguments: str) -> Said:
        code = run(list(arguments))
        printed = capsys.readouterr()
        return Said(code, printed.out, printed.err)

    return type_in

"""A terminal for tests: real processes of the real command, in a directory of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import attrs

COMMAND = (sys.executable, "-m", "durable_effect_jobs.cli")
_PATIENCE_S = 60.0
_LOOKS = 100
_ON_A_TTY = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
_PENDING = """
import json
from durable_effect_jobs.storage.open import open_storage
storage = open_storage("sqlite:///jobs.db", read_only=True)
events = storage.flat_map(lambda opened: opened.pending_events(100)).scoped().run()
print(json.dumps([[event.type, event.instance_id, event.reason] for event in events]))
"""


@attrs.frozen
class Said:
    """What became of a command."""

    returncode: int
    stdout: str
    stderr: str


class Terminal:
    """Runs ``durable-effect`` in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = "sqlite:///jobs.db"

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.directory,
            env=_environment(environment),
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
        )

    def start(self, *arguments: str) -> Running:
        """Start a command that goes on; leaving the ``with`` block kills it, should it still be there."""
        return Running(self.directory, [*COMMAND, *arguments])

    def start_on_a_tty(self, *arguments: str, **environment: str) -> Running:
        """Start it where somebody looks: its output is a terminal's, and what is typed reaches it."""
        command = [sys.executable, "-c", _ON_A_TTY, *COMMAND, *arguments]
        return Running(self.directory, command, environment)

    def write(self, name: str, text: str) -> None:
        """Put a file into the directory."""
        (self.directory / name).write_text(text)

    def python(self, program: str) -> str:
        """Run a program in the directory, and answer what it prints."""
        return subprocess.run(
            [sys.executable, "-c", program],
            cwd=self.directory,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=_PATIENCE_S,
        ).stdout

    def record(self, instance_id: str) -> dict[str, Any]:
        """What ``show --json`` prints."""
        said = self.run("show", instance_id, "--storage", self.url, "--json")
        assert said.returncode == 0, said.stderr
        return cast("dict[str, Any]", json.loads(said.stdout))

    def state(self, instance_id: str) -> Any:
        """The state of an instance, as of its last commit."""
        return self.record(instance_id)["state"]

    def until_shown(self, instance_id: str, text: str) -> None:
        """Look at an instance until this is to be seen."""
        looks = (self.run("show", instance_id, "--storage", self.url) for _ in range(_LOOKS))
        assert any(text in look.stdout for look in looks)

    def until_gone(self, instance_id: str) -> None:
        """Look for an instance until there is none."""
        looks = (self.run("show", instance_id, "--storage", self.url) for _ in range(_LOOKS))
        assert any("there is no instance" in look.stderr for look in looks)

    def pending_events(self) -> list[list[str]]:
        """Type, instance and reason of the events that wait to be sent."""
        return cast("list[list[str]]", json.loads(self.python(_PENDING)))


class Running:
    """A command that goes on, whose output is read as it comes. One that hangs is killed."""

    def __init__(
        self, directory: Path, command: list[str], environment: dict[str, str] | None = None
    ) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=directory,
            stdin=subprocess.PIPE,
            env=_environment(environment or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",  # on a terminal, the echo of a key may come in the middle of a character
        )
        self.lines: list[str] = []
        self._watchdog = threading.Timer(_PATIENCE_S, self.process.kill)

    def __enter__(self) -> Self:
        self._watchdog.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watchdog.cancel()
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def until(self, text: str) -> str:
        """Read on until a line has this text in it, and answer the line."""
        for line in self._read():
            if text in line:
                return line
        raise AssertionError(f"{text!r} never came, but this did:\n{self.output}")

    def type(self, keys: str) -> None:
        """Press keys."""
        assert self.process.stdin is not None
        self.process.stdin.write(keys)
        self.process.stdin.flush()

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def end(self) -> int:
        """Read on until it ends, and answer its exit code."""
        for _ in self._read():
            pass
        return self.process.wait()

    @property
    def output(self) -> str:
        """What was read so far."""
        return "".join(self.lines)

    def _read(self) -> Iterator[str]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            yield line


def _environment(more: dict[str, str]) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if name != "DURABLE_EFFECT_STORAGE"}
    return {**clean, "COLUMNS": "200", "TERM": "xterm", "NO_COLOR": "1", **more}

"""The worker as a child process: started, written to, listened to, killed or dismissed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import IO, Any, cast

import attrs

from durable_effect import Do, Effect, Need, Scope, TypedError
from durable_effect_jobs.demo.jobs import WEB_URL

__all__ = ["DemoFailed", "Worker"]

_LONGEST_LINE_BYTES = 1 << 22


@attrs.frozen
class DemoFailed(TypedError):
    """The demo could not go on."""

    reason: str

    def __str__(self) -> str:
        return self.reason


class Worker:
    """A child process that hosts the jobs."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._calls = cast("asyncio.StreamWriter", process.stdin)
        self._said = cast("asyncio.StreamReader", process.stdout)
        self._log = log
        self.ready = asyncio.Event()
        self.heard_out = asyncio.Event()

    @staticmethod
    def start(url: str, web_url: str, log: Path) -> Effect[Worker, DemoFailed, Need[Scope]]:
        """Start one. It is killed when the scope ends, should it still be there."""

        async def spawn() -> Worker:
            with log.open("ab") as errors:
                return Worker(await _spawn(url, web_url, errors), log)

        starting = Effect.from_async(spawn, lambda error: DemoFailed(f"could not start a worker: {error}"))
        return Effect.acquire_release(starting, lambda worker: worker.kill())

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def write(self, request: dict[str, Any]) -> None:
        """Send a call. What a dead worker does not read is sent again to the next."""
        if self._process.returncode is None and not self._calls.is_closing():
            self._calls.write(json.dumps(request).encode() + b"\n")

    def lines(self) -> Effect[bytes]:
        """Its next line; empty when there will be no more."""
        return Effect.from_async(self._said.readline)

    @Effect.gen
    def kill(self) -> Do[int]:
        """Kill it, with the signal that no process can catch, and answer how it ended."""
        with contextlib.suppress(ProcessLookupError):  # it is gone already
            self._process.kill()
        return (yield from Effect.from_async(self._process.wait))

    @Effect.gen
    def dismiss(self) -> Do[None, DemoFailed]:
        """Let it finish what it is doing, and listen to its last words."""
        self._calls.close()
        code = yield from Effect.from_async(self._process.wait)
        yield from Effect.from_async(self.heard_out.wait)
        if code != 0:
            yield from Effect.fail(self._died_of(code))

    @Effect.gen
    def outlives(self, effect: Effect[Any]) -> Do[None, DemoFailed]:
        """Run ``effect``; fails as soon as the worker ends before it."""
        ended = Effect.from_async(self._process.wait).map(self._died_of)
        failed = yield from effect.as_(None).race(ended)
        if failed is not None:
            yield from Effect.fail(failed)

    def _died_of(self, code: int) -> DemoFailed:
        last_words = self._log.read_text(errors="replace").strip().splitlines()[-12:]
        return DemoFailed("\n".join([f"the worker ended by itself, with exit code {code}", *last_words]))


async def _spawn(url: str, web_url: str, errors: IO[bytes]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "durable_effect_jobs.demo.worker",
        url,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=errors,
        env={**os.environ, WEB_URL: web_url},
        limit=_LONGEST_LINE_BYTES,
        start_new_session=True,  # Ctrl-C is for the demo, which then ends its worker
    )

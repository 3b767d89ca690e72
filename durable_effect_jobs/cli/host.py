"""Hosting a user's jobs until the process is told to stop, then draining."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any

from rich.console import Console
from rich.logging import RichHandler

from durable_effect_jobs.jobs import DurableJobs
from durable_effect_jobs.storage import Storage

__all__ = ["host", "log_to_stderr"]

_log = logging.getLogger("durable_effect_jobs.host")

_STOPPING = (signal.SIGINT, signal.SIGTERM)


async def host(jobs: DurableJobs[Any], storage: str | Storage) -> None:
    """Run the jobs' alarms until SIGTERM or SIGINT, then let what runs end. A second signal does not wait."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    with _on_stop(lambda: loop.call_soon_threadsafe(told.set)) as restore:
        async with jobs.connect(storage):
            names = ", ".join(name for _, name in jobs.registry.jobs)
            _log.info("hosting %s", names)
            await told.wait()
            restore()
            _log.info("stopping: what runs may end first")
    _log.info("stopped")


@contextlib.contextmanager
def _on_stop(stop: Callable[[], object]) -> Generator[Callable[[], None], None, None]:
    def told(_number: int, _frame: FrameType | None) -> None:
        stop()

    before = {number: signal.signal(number, told) for number in _STOPPING}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield restore
    finally:
        restore()


def log_to_stderr(level: str) -> None:
    """Send logs to the standard error: coloured on a terminal, else plain lines."""
    if sys.stderr.isatty():
        handler: logging.Handler = RichHandler(console=Console(stderr=True), show_path=False)
        handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])

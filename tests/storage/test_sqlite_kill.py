"""kill -9: what was acknowledged is there afterwards, and nothing is there by halves."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from kill_child import WRITERS
from storage_scene import NOON, on_file, task

from durable_effect import Do, Effect
from durable_effect_jobs.storage.sqlite import SqliteStorage

KILLS = 20


def kill_after(path: Path, acknowledgements: int) -> dict[int, int]:
    """Let a process commit, kill it after some acknowledgements, and answer the last one of each writer."""
    command = [sys.executable, str(Path(__file__).with_name("kill_child.py")), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(acknowledgements)]
        child.kill()
        lines += child.stdout.readlines()
    assert child.returncode == -9
    return {int(writer): int(number) for writer, number in (line.split() for line in lines)}


@Effect.gen
def whole(storage: SqliteStorage, acknowledged: dict[int, int]) -> Do[int, Any]:
    """Check every writer's record, events and marks against each other and against what was acknowledged."""
    events = {event.event_id for event in (yield from storage.pending_events(1_000_000))}
    last: dict[int, int] = {}
    for writer in range(WRITERS):
        record = yield from storage.load(task(str(writer)))
        if record is not None:
            last[writer] = record.run_count
            assert record.revision == record.run_count + 1
            assert len(record.state or b"") == (2 if record.run_count == 0 else record.run_count % 3 * 5000)
            assert (yield from storage.is_marked(record.key, str(record.run_count), NOON))
            assert not (yield from storage.is_marked(record.key, str(record.run_count + 1), NOON))
    assert {writer: number for writer, number in acknowledged.items() if last.get(writer, -1) < number} == {}
    assert events == {f"{writer}-{number}" for writer in last for number in range(last[writer] + 1)}
    return sum(last.values())


def test_nothing_that_was_acknowledged_is_lost(tmp_path: Path) -> None:
    """Twenty kills of a busy process on one file; each next one takes over at once."""
    path = tmp_path / "jobs.db"
    steps = 0
    for n in range(KILLS):
        acknowledged = kill_after(path, 1 + n * 37 % 101)
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        before, steps = steps, on_file(path, lambda storage: whole(storage, acknowledged))  # noqa: B023
        assert steps > before or n == 0

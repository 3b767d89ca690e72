"""The locks of a database file that this process has open."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

HOST = """
import os, subprocess, sys
from storage_scene import birth, born, task
from durable_effect import Do, Effect
from durable_effect_jobs.storage.sqlite import SqliteStorage
path, read_only, look = sys.argv[1], sys.argv[2] == "True", sys.argv[3]

@Effect.gen
def host(storage):
    yield from storage.commit(birth(born(task("1")), token="1"))
    yield from SqliteStorage.open(path, read_only=read_only).scoped().exit()   # refused, or only looks
    subprocess.run([sys.executable, "-c", look], check=True)                   # a tool of somebody else
    yield from storage.commit(birth(born(task("2")), token="2"))               # acknowledged
    os._exit(0)                                                                # and killed

SqliteStorage.open(path).flat_map(host).scoped().run()
"""


@pytest.mark.parametrize("read_only", [False, True])
def test_opening_a_file_twice_leaves_the_locks_of_the_first_alone(tmp_path: Path, read_only: bool) -> None:
    """Opening it again, in vain or to look, takes none away: a tool of others finds the file in use."""
    path = tmp_path / "jobs.db"
    look = (
        f"import sqlite3; c = sqlite3.connect({str(path)!r}); "
        "c.execute('SELECT * FROM instance').fetchall(); c.close()"
    )
    scene = str(Path(__file__).parent)
    subprocess.run(
        [sys.executable, "-c", HOST, str(path), str(read_only), look],
        check=True,
        env={**os.environ, "PYTHONPATH": scene},
    )
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT id FROM instance ORDER BY id").fetchall() == [("1",), ("2",)]

"""The benchmarks run and report every figure that they name; how large it is, is not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TINY = ("--scale", "0.001", "--rounds", "1")


def run(name: str, *options: str) -> str:
    """What a benchmark prints, done as little as it can be."""
    command = [sys.executable, str(BENCHMARKS / name), *TINY, *options]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def reported(name: str) -> dict[str, dict[str, Any]]:
    """The rows of a benchmark, by name and baseline."""
    return {f"{row['name']} / {row['baseline']}": row for row in json.loads(run(name, "--json"))["rows"]}


def test_every_row_of_the_core_is_positive_and_beside_a_baseline() -> None:
    """The benchmark of the core names steps, services, failures, fibers and runs, and their baselines."""
    rows = reported("effect_core.py")
    expected = {
        "step: ready effect / await coroutine",
        "step: ready effect / plain call",
        "step: new sync / await coroutine of lambda",
        "step: bounce (catch_all) / await in try/except",
        "do-block in a do-block / await in await",
        "service / await ContextVar.get",
        "fail + catch_all / await raise + except",
        "flat_map, each link run / await coroutine",
        "fork + join / await create_task",
        "flat_map to the right, each link / await coroutine",
        "flat_map, each link made + run / returns",
        "run_sync of a do-block / send to a coroutine",
    }
    assert expected <= rows.keys()
    assert all(row["figure"] > 0 and row["ratio"] > 0 for row in rows.values())


def test_every_row_of_the_jobs_is_positive_and_beside_a_baseline() -> None:
    """The benchmark of jobs names each call, the backlog, the memory and the imports, and their baselines."""
    rows = reported("jobs.py")
    writes = {
        f"{call}, {callers}"
        for call in ("start, many ids", "send, one id", "send, many ids", "add, one id", "add, many ids")
        for callers in ("1 caller", "128 callers")
    }
    calls = {
        row
        for write in writes
        for row in (
            f"{write} / bare transaction",
            f"{write} / bare group commit",
            f"{write}, p50 / bare group commit",
            f"{write}, p99 / bare group commit",
        )
    }
    others = {
        "start, one id (there already), 1 caller / bare SELECT",
        "start + first run, many ids, 128 callers / 2 x bare group commit",
        "alarms, backlog of 2 / 2 x bare transaction",
        "alarms, backlog of 2 / 2 x bare group commit",
        "peak memory, 10 idle, sqlite:/// / their states in a dict",
        "peak memory, 10 idle, memory:// / their states in a dict",
        "import durable_effect_jobs / import asyncio, sqlite3, attrs, cattrs",
    }
    assert calls | others <= rows.keys()
    assert all(row["figure"] > 0 and row["ratio"] > 0 for row in rows.values())


def test_calls_alone_leave_out_what_takes_processes_of_its_own() -> None:
    """With --calls the benchmark of jobs reports calls and alarms, and neither memory nor imports."""
    names = {row["name"] for row in json.loads(run("jobs.py", "--calls", "--json"))["rows"]}
    assert "send, one id, 128 callers" in names
    assert not any(name.startswith(("peak memory", "import ")) for name in names)


def test_percentiles_are_those_of_all_rounds_together() -> None:
    """Half of the calls took up to p50; a slow call in a hundred is beyond p99, whichever round it was in."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        answers = import_module("measure").Answers
    finally:
        sys.path.remove(str(BENCHMARKS))
    rounds = [answers(1.0, tuple(map(float, range(100, 150)))), answers(1.0, (*map(float, range(49)), 1e6))]
    assert answers.percentile(rounds, 50) == 101.0
    assert answers.percentile(rounds, 99) == 1e6
    assert answers.percentile([answers(1.0, (5.0,))], 99) == 5.0


def test_the_table_says_where_it_was_measured() -> None:
    """Without --json there is one line about the machine, one of headings, and one for each row."""
    table, *absent = run("effect_core.py").split("\n\nnot compared with ")
    machine, empty, heading, *rows = table.splitlines()
    assert [part.split()[0] for part in machine.split(", ")] == ["python", "sqlite", "cpus", "fsync_p50_us"]
    assert empty == ""
    assert heading.split() == ["name", "figure", "unit", "baseline", "figure", "ratio"]
    assert rows[0].startswith("step: ready effect")
    assert len(rows) == len(reported("effect_core.py"))
    assert absent[-1].startswith("Effect-TS: ask for it with --effect-ts")

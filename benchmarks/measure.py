"""How the benchmarks measure and report.

A figure means little on a machine that does other things as well, its ratio to a baseline a lot more: so
what is measured and what it is measured against take turns (A B A B), and every row names its baseline.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time_ns
from typing import TypeVar

A = TypeVar("A")

Measurement = Callable[[], Awaitable[float]]

_FSYNCS = 50
_QUICK = 0.25


@dataclass(frozen=True, slots=True)
class Row:
    """One figure beside that of its baseline."""

    name: str
    figure: float
    unit: str
    baseline: str
    baseline_figure: float
    ratio: float
    """The figure in terms of its baseline."""

    @staticmethod
    def of_best(name: str, ours: Sequence[float], unit: str, baseline: str, theirs: Sequence[float]) -> Row:
        """The shortest times: for work of the processor alone, to which noise can only add."""
        return Row(name, min(ours), unit, baseline, min(theirs), min(ours) / min(theirs))

    @staticmethod
    def of_rounds(name: str, ours: Sequence[float], unit: str, baseline: str, theirs: Sequence[float]) -> Row:
        """The medians, and the median of the ratios of each round: what slows a round slows both."""
        ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
        return Row(name, median(ours), unit, baseline, median(theirs), median(ratios))


@dataclass(frozen=True, slots=True)
class Answers:
    """How many calls were answered a second, and after how many milliseconds each of them was."""

    per_second: float
    ms: tuple[float, ...]

    @staticmethod
    def percentile(rounds: Sequence[Answers], percent: int) -> float:
        """So many percent of the calls of all rounds were answered within this time, in milliseconds."""
        ms = sorted(ms for answers in rounds for ms in answers.ms)
        return ms[min(len(ms) * percent // 100, len(ms) - 1)]

    @staticmethod
    def throughput(name: str, ours: Sequence[Answers], baseline: str, theirs: Sequence[Answers]) -> Row:
        """Calls a second."""
        figures = ([answers.per_second for answers in rounds] for rounds in (ours, theirs))
        return Row.of_rounds(name, next(figures), "calls/s", baseline, next(figures))

    @staticmethod
    def latencies(name: str, ours: Sequence[Answers], baseline: str, theirs: Sequence[Answers]) -> list[Row]:
        """How long a call takes, at the median and when it takes long."""
        return [
            Row(f"{name}, p{percent}", our, "ms", baseline, their, our / their)
            for percent in (50, 99)
            for our, their in [(Answers.percentile(ours, percent), Answers.percentile(theirs, percent))]
        ]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to do: the share of each size in the sources, and how often in turn."""

    scale: float
    rounds: int
    as_json: bool
    switches: frozenset[str]
    """The switches of this benchmark that are on."""

    def of(self, size: int) -> int:
        """That size at this scale, at least 1."""
        return max(1, round(size * self.scale))


def effort(
    description: str | None, *, rounds: int, quick_rounds: int, switches: Mapping[str, str] | None = None
) -> Effort:
    """What the command line asks for. `switches` are more options, each with its explanation."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a run of some seconds: less, and less often")
    parser.add_argument("--scale", type=float, default=1.0, help="multiply every size by this (default 1)")
    parser.add_argument("--rounds", type=int, help=f"how often each is measured (default {rounds})")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    for switch, meaning in (switches or {}).items():
        parser.add_argument(f"--{switch}", action="store_true", help=meaning)
    given = parser.parse_args()
    return Effort(
        scale=given.scale * (_QUICK if given.quick else 1),
        rounds=given.rounds or (quick_rounds if given.quick else rounds),
        as_json=given.json,
        switches=frozenset(switch for switch in switches or {} if getattr(given, switch.replace("-", "_"))),
    )


async def in_turns(rounds: int, *measurements: Callable[[], Awaitable[A]]) -> list[list[A]]:
    """Measure each once, then each again, and so on; answers the figures of each."""
    figures: list[list[A]] = [[] for _ in measurements]
    for _ in range(rounds):
        for measure, of_this in zip(measurements, figures, strict=True):
            of_this.append(await measure())
    return figures


async def per_second(count: int, work: Callable[[], Awaitable[object]]) -> float:
    """How many a second, when ``work`` does ``count`` of them."""
    begin = perf_counter()
    await work()
    return count / (perf_counter() - begin)


async def answers(number: int, callers: int, call: Callable[[], Awaitable[object]]) -> Answers:
    """That many calls, by callers who each wait for an answer before they call again."""
    ms: list[float] = []
    tickets = iter(range(number))

    async def caller() -> None:
        for _ in tickets:
            begin = perf_counter()
            await call()
            ms.append((perf_counter() - begin) * 1e3)

    rate = await per_second(number, lambda: asyncio.gather(*(caller() for _ in range(callers))))
    return Answers(rate, tuple(ms))


async def nanoseconds(count: int, work: Callable[[], Awaitable[object]]) -> float:
    """How much of the processor's time each takes, when ``work`` does ``count`` of them."""
    begin = process_time_ns()
    await work()
    return (process_time_ns() - begin) / count


def machine() -> dict[str, str | int | float]:
    """Where the figures come from."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "cpus": os.cpu_count() or 1,
        "fsync_p50_us": round(_fsync_p50_us()),
    }


def _fsync_p50_us() -> float:
    """How long the disk under the temporary directory takes to keep one page, at the median."""
    with tempfile.TemporaryDirectory() as directory, Path(directory, "page").open("wb", buffering=0) as file:
        return median(_fsync_us(file.fileno()) for _ in range(_FSYNCS))


def _fsync_us(descriptor: int) -> float:
    os.write(descriptor, bytes(4096))
    begin = perf_counter()
    os.fsync(descriptor)
    return (perf_counter() - begin) * 1e6


def report(rows: Sequence[Row], *, as_json: bool, absent: Mapping[str, str] | None = None) -> None:
    """Print everything that was measured, and why some of it was not."""
    if as_json:
        print(_json(rows, absent or {}))
        return
    print(_table(rows))
    for name, why in (absent or {}).items():
        print(f"\nnot compared with {name}: {why}")


def _json(rows: Sequence[Row], absent: Mapping[str, str]) -> str:
    measured = [
        {
            "name": row.name,
            "figure": row.figure,
            "unit": row.unit,
            "baseline": row.baseline,
            "baseline_figure": row.baseline_figure,
            "ratio": row.ratio,
        }
        for row in rows
    ]
    return json.dumps({"machine": machine(), "rows": measured, "absent": dict(absent)}, indent=2)


def _table(rows: Sequence[Row]) -> str:
    heading = ("name", "figure", "unit", "baseline", "figure", "ratio")
    lines = [heading, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(_aligned(line, widths)).rstrip() for line in lines]
    return "\n".join([", ".join(f"{key} {value}" for key, value in machine().items()), "", *text])


def _cells(row: Row) -> tuple[str, ...]:
    figures = _number(row.figure), _number(row.baseline_figure)
    return row.name, figures[0], row.unit, row.baseline, figures[1], f"{row.ratio:.2f}"


def _number(figure: float) -> str:
    if figure >= 100:
        return f"{figure:,.0f}"
    return f"{figure:.1f}" if figure >= 10 else f"{figure:.2f}"


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Numbers to the right, words to the left."""
    return [
        cell.rjust(width) if column in (1, 4, 5) else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]

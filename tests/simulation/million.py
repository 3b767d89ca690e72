"""Simulate a million steps, on all cores: ``python tests/simulation/million.py [STEPS] [--first SEED]``.

A step is a command or a read that the interpreter carries out, or a run that it begins. Ends with the
figures; the first seed that fails ends it with that seed's failure.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import sys
from collections import Counter
from datetime import timedelta
from time import perf_counter

import attrs
from checks import check
from ledger import Books, jobs, workload

from durable_effect_jobs.simulation import SeedReport, SimulationFailure, simulate

__all__ = ["Total", "run_seeds", "simulate_steps"]

_CHUNK = 25
"""Seeds for which one process lives: garbage is left to its end."""
_FEWEST_STEPS = 50
"""Seeds have more steps than this, on average."""


@attrs.define
class Total:
    """The figures of a run."""

    seeds: int = 0
    turns: int = 0
    steps: int = 0
    statements: int = 0
    virtual_time: timedelta = timedelta()
    faults: Counter[str] = attrs.field(factory=Counter[str])
    faultless_seeds: int = 0

    def add(self, report: SeedReport) -> None:
        """Count one seed."""
        self.seeds += 1
        self.turns += report.turns
        self.steps += report.steps
        self.statements += report.statements
        self.virtual_time += report.virtual_time
        self.faults.update(report.faults)
        self.faultless_seeds += not report.faults


def run_seeds(first: int) -> list[SeedReport] | str:
    """Some seeds; the text of the failure if one fails."""
    gc.disable()
    try:
        return [run_seed(seed) for seed in range(first, first + _CHUNK)]
    except SimulationFailure as failure:
        return str(failure)


def run_seed(seed: int) -> SeedReport:
    """The ledger under one seed, with three clients."""
    report = simulate(
        jobs,
        workload,
        check,
        seeds=[seed],
        outside={Books: Books},
        callers=3,
        longest="10 minutes",
        slow="1 millis",
    )
    return report.seeds[0]


def simulate_steps(steps: int, first: int = 0, processes: int | None = None) -> Total:
    """As many seeds as it takes for so many steps."""
    total = Total()
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes or os.cpu_count(), maxtasksperchild=1) as pool:
        for reports in pool.imap_unordered(run_seeds, _firsts(first, steps)):
            if isinstance(reports, str):
                raise AssertionError(reports)
            for report in reports:
                total.add(report)
            if total.steps >= steps:
                return total
    raise AssertionError(f"{total.seeds} seeds had only {total.steps} steps")


def _firsts(first: int, steps: int) -> range:
    """Where chunks of seeds begin, for as many seeds as could be needed."""
    return range(first, first + steps // _FEWEST_STEPS + _CHUNK, _CHUNK)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--first", type=int, default=0, help="the seed to begin with")
    asked = parser.parse_args()
    began = perf_counter()
    try:
        total = simulate_steps(asked.steps, asked.first)
    except AssertionError as failure:
        sys.exit(str(failure))
    seconds = perf_counter() - began
    faults = ", ".join(f"{count:,} {kind}" for kind, count in sorted(total.faults.items()))
    print(
        f"simulation: {total.steps:,} steps, {total.turns:,} of them with a commit\n"
        f"seeds: {total.seeds:,}, {total.faultless_seeds:,} of them without faults\n"
        f"statements: {total.statements:,} in {total.virtual_time} of virtual time\n"
        f"faults: {faults}\nviolations: 0\n{seconds:.0f} s, {total.steps / seconds:,.0f} steps/s"
    )


if __name__ == "__main__":
    main()

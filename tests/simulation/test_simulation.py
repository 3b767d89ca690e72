"""The real engine under every fault: nothing that must not happen, happens."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from million import run_seed, simulate_steps

from durable_effect_jobs.simulation import FAULT_KINDS

_DIGESTS = (
    "import sys; sys.path.insert(0, sys.argv[1]); from million import run_seed; "
    "print([run_seed(seed).digest for seed in (3, 8)])"
)


def test_no_promise_is_broken_under_any_fault(tier: int, report: Callable[..., None]) -> None:
    """Tens of thousands of steps of several processes, with every kind of fault, break no promise."""
    total = simulate_steps(60_000 * tier, first=1_000_000)
    assert set(total.faults) == set(FAULT_KINDS)
    assert total.faultless_seeds > 0
    report(
        "simulation",
        steps=total.steps,
        commits=total.turns,
        seeds=total.seeds,
        statements=total.statements,
        virtual_time=str(total.virtual_time),
        **{kind.replace(" ", "_"): total.faults[kind] for kind in FAULT_KINDS},
        violations=0,
    )


@pytest.mark.parametrize("seed", [16, 24, 32, 40, 304])
def test_without_faults_every_run_happens_exactly_once(seed: int) -> None:
    """Where nothing goes wrong, the checks of the ledger allow no handler to begin twice for one outcome."""
    assert not run_seed(seed).faults


@pytest.mark.parametrize("seed", [15, 23, 52, 55, 301, 328, 436, 458, 465])
def test_seeds_that_once_found_something(seed: int) -> None:
    """What these seeds found, in the engine or in the simulation itself, stays found."""
    assert run_seed(seed).turns > 0


@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_the_same_seed_does_the_same(hash_seed: str) -> None:
    """Another process, with another order of sets, does exactly the same things at the same times."""
    told = subprocess.run(
        [sys.executable, "-c", _DIGESTS, str(Path(__file__).parent)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == str([run_seed(seed).digest for seed in (3, 8)])

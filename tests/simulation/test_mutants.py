"""The simulation is tested itself: it has to notice every safeguard that is taken away."""

from __future__ import annotations

import pytest
from checks import check
from ledger import Books, jobs, workload
from mutants import CAUGHT, EQUIVALENT, Mutant

from durable_effect_jobs.simulation import Broken
from durable_effect_jobs.simulation.run import Simulation

_SEEDS = 60
_FEW_SEEDS = 5


def _simulation(mutant: Mutant) -> Simulation:
    return Simulation(
        jobs=jobs,
        workload=workload,
        invariant=check,
        callers=3,
        outside={Books: Books},
        storage=mutant.storage,
        faults=mutant.faults,
    )


def _noticed(mutant: Mutant) -> int | None:
    """The first seed that fails."""
    simulation = _simulation(mutant)
    with mutant.applied():
        for seed in range(1, _SEEDS + 1):
            try:
                broken = simulation.attempt(seed)[1]
            except Exception:  # the engine itself may stumble over what a mutant left
                return seed
            if broken is not None:
                return seed
    return None


@pytest.mark.parametrize("mutant", CAUGHT, ids=lambda mutant: mutant.name)
def test_a_broken_protocol_is_noticed(mutant: Mutant) -> None:
    """Without this safeguard, one of the first seeds fails."""
    seed = _noticed(mutant)
    assert seed is not None, f"{mutant.name} was not noticed within {_SEEDS} seeds"


@pytest.mark.parametrize("mutant", EQUIVALENT, ids=lambda mutant: mutant.name)
def test_an_equivalent_protocol_breaks_no_promise(mutant: Mutant) -> None:
    """What changes nothing that is promised is not reported either."""
    assert mutant.why
    simulation = _simulation(mutant)
    with mutant.applied():
        for seed in range(1, _FEW_SEEDS + 1):
            broken: Broken | None = simulation.attempt(seed)[1]
            assert broken is None, broken

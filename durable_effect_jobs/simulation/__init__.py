"""Simulations of an application's own jobs: one thread, virtual time, every fault, all from one seed.

``simulate`` runs a workload under many seeds; with ``JobsMachine`` hypothesis chooses what happens next. Both
run the engine and the handlers that run in production.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from durable_effect_jobs.simulation.faults import FAULT_KINDS, Dice, FaultKind, Faults
from durable_effect_jobs.simulation.run import (
    SeedReport,
    SimulationFailure,
    SimulationReport,
    View,
    simulate,
)
from durable_effect_jobs.simulation.watch import Broken
from durable_effect_jobs.simulation.world import kill_process

if TYPE_CHECKING:
    from durable_effect_jobs.simulation.machine import JobsMachine

__all__ = [
    "FAULT_KINDS",
    "Broken",
    "Dice",
    "FaultKind",
    "Faults",
    "JobsMachine",
    "SeedReport",
    "SimulationFailure",
    "SimulationReport",
    "View",
    "kill_process",
    "simulate",
]


def __getattr__(name: str) -> Any:
    """``JobsMachine`` needs hypothesis, which not everybody has."""
    if name == "JobsMachine":
        from durable_effect_jobs.simulation.machine import JobsMachine

        return JobsMachine
    raise AttributeError(name)

"""What a simulation says when something that must not happen, happens."""

from __future__ import annotations

import attrs
import pytest
from checks import check
from hypothesis import Phase, settings
from hypothesis.stateful import rule
from ledger import Books, Do, Entry, ledger, workload
from ledger import jobs as ledger_jobs
from mutants import CAUGHT

from durable_effect import Effect
from durable_effect_jobs import JobsClient, Task, TaskEventContext, TaskExecuteContext, create_durable_jobs
from durable_effect_jobs.simulation import (
    FAULT_KINDS,
    Dice,
    Faults,
    JobsMachine,
    SimulationFailure,
    View,
    kill_process,
    simulate,
)


@attrs.frozen
class Nothing:
    pass


@Effect.gen
def plan(event: Nothing, ctx: TaskEventContext[Nothing]) -> Do:
    yield from ctx.set_state(event)
    yield from ctx.schedule("0 seconds")


@Effect.gen
def die(ctx: TaskExecuteContext[Nothing]) -> Do:
    yield from kill_process()


deadly = Task.make(state_schema=Nothing, event_schema=Nothing, on_event=plan, execute=die)
deadly_jobs = create_durable_jobs({"deadly": deadly})


@Effect.gen
def one_event(client: JobsClient, dice: Dice) -> Do:
    yield from client.task(deadly).send(id="t", event=Nothing(), event_id="e").ignore()


def test_a_failing_seed_says_what_and_how_to_run_it_again() -> None:
    """The failure names the seed, the promise and the faults that it takes, and shows what led to it."""
    mutant = next(mutant for mutant in CAUGHT if mutant.name == "commit without fence")
    with mutant.applied(), pytest.raises(SimulationFailure) as failed:
        simulate(ledger_jobs, workload, check, seeds=range(1, 30), outside={Books: Books}, callers=3)
    failure = failed.value
    assert failure.promise == "single writer"
    assert f"simulate(..., seeds=[{failure.seed}])" in str(failure)
    assert len(failure.window.kinds) < len(FAULT_KINDS)
    assert any("commit" in line for line in failure.trace)


def test_what_an_invariant_raises_is_the_failure() -> None:
    """An assertion of the user's own ends the seed, with its words."""

    def never(view: View) -> None:
        assert view.ended, "not like this"

    with pytest.raises(SimulationFailure, match=r"the invariant.*not like this"):
        simulate(ledger_jobs, workload, never, seeds=[16], outside={Books: Books})


def test_what_kills_its_process_is_quarantined() -> None:
    """A handler that takes its process down each time ends in quarantine, and nothing else is stuck."""

    def quarantined(view: View) -> None:
        if view.ended:
            (record,) = view.instances(deadly)
            assert record.quarantined
            assert record.crashes == 3

    simulate(deadly_jobs, one_event, quarantined, seeds=range(3), faults=Faults(), callers=1)


class Careless(JobsMachine):
    jobs = ledger_jobs
    outside = {Books: Books}  # noqa: RUF012 - a constant

    @rule()
    def send(self) -> None:
        """One event."""
        self.call(lambda client: client.task(ledger).send(id="l1", event=Entry("e"), event_id="e"))

    def check(self, view: View) -> None:
        assert view.state(ledger, "l1") is None, "there is a state"


def test_a_machine_finds_what_its_check_forbids() -> None:
    """Hypothesis finds the one rule that breaks the check."""
    machine = Careless.TestCase
    machine.settings = settings(
        max_examples=200,
        stateful_step_count=10,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
    )
    with pytest.raises(AssertionError, match="there is a state"):
        machine().runTest()

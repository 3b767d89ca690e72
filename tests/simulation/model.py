"""The reference model: what the rules say of an instance, step by step, in less than a page.

It knows nothing of records, leases or alarms. It is told what happened (an event was taken, a run ended this
way) and says what state, counts and status must be after it; the record that was committed has to agree.
"""

from __future__ import annotations

from typing import Literal

import attrs

Outcome = Literal["done", "failed", "retrying", "exhausted"]
Wake = Literal["", "schedule", "retry", "trigger"]


@attrs.frozen(kw_only=True)
class Expected:
    """An instance, as the rules see it."""

    kind: Literal["continuous", "debounce", "task"]
    ids: tuple[str, ...] = ()
    done: int = 0
    count: int = 0
    """The state of a meter."""
    events: int = 0
    runs: int = 0
    executions: int = 0
    failed: int = 0
    """Failed attempts of the run in progress."""
    stopped: bool = False
    wakes: Wake = "schedule"
    """What it waits for: its schedule, a retry, a run that was asked for, or nothing. For a task only."""
    aside: Wake = ""
    """What a task waited for when it was asked to run at once."""

    @staticmethod
    def started() -> Expected:
        """A continuous job begins with its input, and no run."""
        return Expected(kind="continuous")

    @staticmethod
    def opened(kind: Literal["debounce", "task"], event: str, act: str = "") -> Expected:
        """The others begin with their first event."""
        return Expected(kind=kind).takes(event, act)

    def takes(self, event: str, act: str = "") -> Expected:
        """An event is added to the state, once. For a task it is a new schedule, in place of any retry."""
        taken = attrs.evolve(self, ids=(*self.ids, event), events=self.events + 1)
        if self.kind == "debounce":
            return taken
        cancelled = act == "cancel"
        stopped = self.stopped and cancelled
        return attrs.evolve(taken, failed=0, wakes="" if cancelled else "schedule", aside="", stopped=stopped)

    def asked_to_run(self) -> Expected:
        """``trigger`` and ``flush`` restart the attempts, and revive. A task's own schedule is kept aside."""
        if self.kind != "task":
            return attrs.evolve(self, failed=0, wakes="schedule", stopped=False)
        aside = self.aside if self.aside or self.wakes == "trigger" else self.wakes
        return attrs.evolve(self, failed=0, wakes="trigger", aside=aside)

    def ran(self, outcome: Outcome, attempt: int) -> Expected | None:
        """A run ended. Attempts of the same run share its number; a failed one leaves the state alone."""
        first = self.failed == 0
        after = attrs.evolve(self, runs=self.runs + first, executions=self.executions + (self.kind == "task"))
        if outcome == "done":
            return after._done()
        assert attempt == self.failed + 1, f"attempt {attempt} follows {self.failed} failed ones"
        if outcome == "retrying":
            wakes: Wake = "retry" if self.kind == "task" else "schedule"
            return attrs.evolve(after, failed=attempt, wakes=wakes, stopped=False)
        if outcome == "exhausted":
            return attrs.evolve(after, failed=0, wakes="", aside="", stopped=True)
        if self.kind == "task":  # its caller was told, and what was scheduled stays
            return attrs.evolve(after, failed=0, wakes=self.aside, aside="")
        return attrs.evolve(after, failed=0, wakes="schedule", stopped=False)

    def _done(self) -> Expected | None:
        if self.kind == "debounce":
            return None
        settled = attrs.evolve(self, failed=0, stopped=False, aside="")
        if self.kind == "continuous":
            return attrs.evolve(settled, count=self.count + 1, wakes="schedule")
        # The run stands for one whose retry was waiting; a schedule of its own is another run.
        return attrs.evolve(settled, done=len(self.ids), wakes="schedule" if self.aside == "schedule" else "")

"""The reference model: what the rules say of an instance, step by step, in less than a page.

It knows nothing of records, leases or alarms. It is told what happened (an event was taken, a run ended this
way) and says what state, counts and status must be after it; the record that was committed has to agree.
"""

from __future__ import annotations

from typing import Literal

import attrs
from typing_extensions import Self

Outcome = Literal["done", "failed", "retrying", "exhausted", "ended"]


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
    scheduled: bool = True

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
        scheduled = act != "cancel"
        return attrs.evolve(taken, failed=0, scheduled=scheduled, stopped=self.stopped and not scheduled)

    def asked_to_run(self) -> Expected:
        """``trigger`` and ``flush`` restart the attempts; a stopped batch or schedule is revived."""
        revived = self.kind != "task"
        return attrs.evolve(self, failed=0, scheduled=True, stopped=self.stopped and not revived)

    def ran(self, outcome: Outcome, attempt: int, scheduled: bool) -> Expected | None:
        """A run ended. Attempts of the same run share its number; a failed one leaves the state alone."""
        first = self.failed == 0
        after = attrs.evolve(self, runs=self.runs + first, executions=self.executions + (self.kind == "task"))
        match outcome:
            case "done":
                return after._done(scheduled)
            case "retrying":
                self._expects(attempt)
                return attrs.evolve(after, failed=self.failed + 1, scheduled=True, stopped=False)
            case "failed":
                self._expects(attempt)
                stopped = self.stopped if self.kind == "task" else False
                return attrs.evolve(after, failed=0, scheduled=scheduled, stopped=stopped)
            case "exhausted":
                self._expects(attempt)
                return attrs.evolve(after, failed=0, scheduled=False, stopped=True)
            case "ended":
                return None

    def _done(self, scheduled: bool) -> Expected | None:
        if self.kind == "debounce":
            return None
        settled = attrs.evolve(self, failed=0, stopped=False, scheduled=scheduled)
        if self.kind == "task":
            return attrs.evolve(settled, done=len(self.ids))
        return attrs.evolve(settled, count=self.count + 1, scheduled=True)

    def _expects(self, attempt: int) -> Self:
        """Attempts count 1, 2, 3 without a gap."""
        assert attempt == self.failed + 1, f"attempt {attempt} follows {self.failed} failed ones"
        return self

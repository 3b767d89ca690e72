"""Ending an instance from outside: the command that continuous jobs and tasks share."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs

from durable_effect import Effect
from durable_effect_jobs.events import JobTerminated
from durable_effect_jobs.instance import Instance
from durable_effect_jobs.step import Command, Step, StepError, Turn

__all__ = ["Terminate", "TerminateResult"]


@attrs.frozen
class TerminateResult:
    """``terminated`` is ``False``, with the reason ``"not_found"``, when there was no such instance."""

    terminated: bool
    reason: str | None


@attrs.frozen
class Terminate(Command[TerminateResult]):
    """Delete the record and its alarm; the id is free again."""

    preempts: ClassVar[bool] = True

    reason: str | None = None

    def decide(self, job: Any, before: Instance | None, turn: Turn) -> Effect[Step, StepError, Any]:
        """Remove the record, whatever it is doing."""
        if before is None:
            return Effect.succeed(Step.nothing(None))
        count = before.execute_count if turn.key.kind == "task" else before.run_count
        fact = turn.fact(JobTerminated, run_count=count, reason=self.reason)
        return Effect.succeed(Step(before=before, after=None, events=(fact,)))

    def answer(self, turn: Turn, step: Step, fired: Step | None) -> TerminateResult:
        """Whether there was one."""
        found = step.before is not None
        return TerminateResult(found, self.reason if found else "not_found")

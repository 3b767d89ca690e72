"""What follows a failed attempt, for all kinds: another one, the resting place, or the end."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from durable_effect_jobs.attempt import Failed
from durable_effect_jobs.errors import ExecutionError
from durable_effect_jobs.events import Failure, JobFailed, JobRetryExhausted, JobTerminated
from durable_effect_jobs.instance import Alarm, DeadLetter, Instance
from durable_effect_jobs.retry import Again, Exhausted, ExhaustedReason, Retry
from durable_effect_jobs.step import Fired, Step, Turn

__all__ = ["SETTLED", "after_failure", "execution_error"]

SETTLED: Mapping[str, Any] = {"failed_attempts": 0, "first_attempt_at": None, "undecodable_count": 0}
"""The retry bookkeeping of a record that is not in the middle of a run."""


def execution_error(turn: Turn, failed: Failed) -> ExecutionError:
    """What the caller of a handler that failed gets."""
    return ExecutionError(turn.key.kind, turn.key.job, turn.key.instance_id, failed.error)


def after_failure(
    before: Instance,
    turn: Turn,
    failed: Failed,
    *,
    retry: Retry | None,
    number: int,
    attempt: int,
    now: datetime,
    roll: float,
    counted: Mapping[str, Any],
    resting: Mapping[str, Any],
) -> Step:
    """The step of an attempt that began at ``turn.now`` and failed by ``now``.

    ``counted`` is what the record carries from now on whatever follows; ``resting`` what it looks like
    beyond that when the job has no retry.
    """
    failure = Failure.of(failed.error)
    first = before.first_attempt_at or turn.now
    verdict = (
        None
        if retry is None
        else retry.verdict(
            failed.error, attempt=attempt, started_at=turn.now, first_attempt_at=first, now=now, roll=roll
        )
    )
    fact = turn.fact(
        JobFailed,
        error=failure,
        run_count=number,
        attempt=attempt,
        will_retry=isinstance(verdict, Again),
    )
    carried = {**counted, "last_error": failure, "undecodable_count": 0, "stopped": False}
    if retry is None or verdict is None:
        after = before.evolve(**{**carried, **SETTLED, **resting})
        fired = Fired(result="failed", error=execution_error(turn, failed), defect=failed.defect)
        return Step(before=before, after=after, events=(fact,), fired=fired)
    if isinstance(verdict, Again):
        after = before.evolve(
            **carried,
            alarm=Alarm(verdict.at, "retry"),
            failed_attempts=attempt,
            first_attempt_at=first,
        )
        fired = Fired(result="retrying", defect=failed.defect)
        return Step(before=before, after=after, events=(fact,), fired=fired)
    stopped = before.evolve(**{**carried, **SETTLED, "alarm": None, "pending": None, "stopped": True})
    exhausted = turn.fact(JobRetryExhausted, attempts=attempt, reason=verdict.reason)
    if retry.on_exhausted == "stop":
        fired = Fired(result="stopped", defect=failed.defect)
        return Step(before=before, after=stopped, events=(fact, exhausted), fired=fired)
    return Step(
        before=before,
        after=None,
        events=(fact, exhausted, turn.fact(JobTerminated, run_count=number, reason="retry exhausted")),
        dead_letter=_dead_letter(stopped, turn, verdict),
        fired=Fired(result="exhausted", defect=failed.defect),
    )


def _dead_letter(instance: Instance, turn: Turn, exhausted: Exhausted) -> DeadLetter:
    """What is kept of an instance that is purged because its retries are exhausted."""
    reason: ExhaustedReason = exhausted.reason
    until = turn.now + turn.limits.dead_letter_retention
    return DeadLetter(instance=instance, reason=reason, at=turn.now, expires_at=until)

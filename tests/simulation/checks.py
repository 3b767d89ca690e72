"""What is checked of the ledger after every commit, and at the end of a seed."""

from __future__ import annotations

from typing import Any, cast

from ledger import JOBS, Books, Entry
from model import Expected, Outcome, Wake

from durable_effect.canonical_json import from_json_bytes
from durable_effect_jobs.events import JobExecuted, JobFailed, JobRetryExhausted, JobTerminated
from durable_effect_jobs.instance import Alarm, Commit, Instance
from durable_effect_jobs.simulation.run import View

__all__ = ["check"]


def check(view: View) -> None:
    """The invariant of the ledger."""
    books = view.outside(Books)
    if view.ended:
        _at_rest(view, books)
        return
    commit = cast("Commit", view.commit)
    if commit.after is not None and commit.after.quarantined:
        assert commit.after.crashes >= 3, f"quarantined without crashes: {commit.after}"
        assert not view.faultless, f"quarantined without faults: {commit.after}"
    _replay(books, commit)
    _events(books, commit)
    _side_effects(view, books, commit)


# -- the model


def _replay(books: Books, commit: Commit) -> None:
    """The history of every instance, in the order of its revisions, is what the rules say."""
    after = commit.after
    if after is None and commit.before is None:
        return  # its first event ended it
    incarnation = cast("Instance", after or commit.before).incarnation
    before = books.model.pop(incarnation, None)
    expected = _expected(books, before, commit)
    if after is None:
        dead = commit.dead_letter
        left = None if dead is None else _seen(dead.instance)
        assert left == expected, f"what is left of it is {left}, the rules say {expected}"
        return
    seen = _seen(after)
    assert seen == expected, f"the record says {seen}, the rules say {expected}"
    books.model[incarnation] = expected


def _expected(books: Books, before: Expected | None, commit: Commit) -> Expected | None:
    kind = commit.key.kind
    told = {type(event): event for event in commit.events}
    if commit.before is None:
        assert before is None
        if kind == "continuous":
            return Expected.started()
        mark = cast("Any", commit.mark)
        return Expected.opened(kind, mark.event_id, _entry(books, mark.event_id).act)
    assert before is not None, "a step of an instance that was never begun"
    failed: JobFailed | None = told.get(JobFailed)  # type: ignore[assignment] # by its type
    after = commit.after
    if JobExecuted in told:
        return before.ran("done", 0)
    if failed is not None and after is not None and after.quarantined:
        return before
    if failed is not None:
        outcome: Outcome = "failed"
        if failed.will_retry:
            outcome = "retrying"
        elif JobRetryExhausted in told:
            outcome = "exhausted"
        return before.ran(outcome, failed.attempt)
    if JobTerminated in told:
        return None
    if commit.mark is not None:
        return before.takes(commit.mark.event_id, _entry(books, commit.mark.event_id).act)
    if after is not None and after.alarm is not None and after.alarm.reason in ("trigger", "manual"):
        return before if commit.before.lease is not None else before.asked_to_run()
    return before  # put off


def _entry(books: Books, event_id: str) -> Entry:
    return next((entry for _, _, entry in books.entries if entry.id == event_id), Entry(event_id))


def _seen(record: Instance) -> Expected:
    """A record, in the words of the model."""
    state = (
        {}
        if record.state is None
        else cast("dict[str, Any]", from_json_bytes(record.state, max_bytes=1 << 20))
    )
    return Expected(
        kind=record.key.kind,
        ids=tuple(state.get("ids", ())),
        done=state.get("done", 0),
        count=state.get("count", 0),
        events=record.event_count,
        runs=record.run_count,
        executions=record.execute_count,
        failed=record.failed_attempts,
        stopped=record.stopped,
        wakes=_wake(record, record.alarm),
        aside=_wake(record, record.pending),
    )


def _wake(record: Instance, alarm: Alarm | None) -> Wake:
    if alarm is None:
        return ""
    return cast("Wake", alarm.reason) if record.key.kind == "task" else "schedule"


# -- events


def _ids(record: Instance | None) -> tuple[str, ...]:
    if record is None or record.state is None:
        return ()
    state = cast("dict[str, Any]", from_json_bytes(record.state, max_bytes=1 << 20))
    return tuple(state.get("ids", ()))


def _events(books: Books, commit: Commit) -> None:
    """Every event is applied once, and leaves once: flushed, ended or kept as a dead letter."""
    before, after = _ids(commit.before), _ids(commit.after)
    if commit.mark is not None:
        event = commit.mark.event_id
        assert event not in books.applied, f"{event} is applied twice"
        books.applied[event] = cast("Instance", commit.after or commit.before or _nobody).incarnation
        assert commit.after is None or after == (*before, event), f"{before} became {after} with {event}"
        if commit.after is None:
            books.gone[event] = "ended at once"
    elif commit.after is not None:
        assert after == before, f"{before} became {after} without an event"
    if commit.after is None:
        how = "processed" if any(isinstance(event, JobExecuted) for event in commit.events) else "ended"
        if commit.dead_letter is not None:
            how = "kept"
            assert _ids(commit.dead_letter.instance) == before, "a dead letter without its events"
        for event in before:
            assert event not in books.gone, f"{event} is {how}, and was {books.gone[event]} before"
            books.gone[event] = how


_nobody = Instance(key=cast("Any", None), incarnation="", created_at=cast("Any", None))


# -- side effects


def _side_effects(view: View, books: Books, commit: Commit) -> None:
    """A run that counts was run; without faults it was run exactly once."""
    quarantined = commit.after is not None and commit.after.quarantined
    for event in commit.events:
        if isinstance(event, JobExecuted) or (isinstance(event, JobFailed) and not quarantined):
            before = cast("Instance", commit.before)
            number = before.run_count + (0 if before.failed_attempts else 1)
            _count(view, books, f"{before.incarnation}:{number}")


def _count(view: View, books: Books, run_key: str) -> None:
    books.counted[run_key] += 1
    began, counted = books.began[run_key], books.counted[run_key]
    assert began, f"{run_key} counts as run, and never was"
    assert began == counted or not view.faultless, f"{run_key} was begun {began} times for {counted} outcomes"


# -- the end


def _at_rest(view: View, books: Books) -> None:
    """Every event that was acknowledged is where it belongs, and nobody waits for anything."""
    for event, (job, id) in books.acknowledged.items():
        assert event in books.applied, f"{event} of {job} {id} was acknowledged and never applied"
        if event in books.gone:
            continue
        state = view.state(JOBS[job], id)
        held = () if state is None else state.ids
        assert event in held, f"{event} of {job} {id} was acknowledged and is lost"
    for record in view.instances():
        assert record.lease is None, f"{record} is still leased"
        assert record.alarm is None or record.quarantined, f"{record} never came to rest"
        assert record.key.kind == "task" or record.stopped or record.quarantined, f"{record} is stuck"

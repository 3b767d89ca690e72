"""The record itself: copies with changes, and its stored form."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
import pytest

from durable_effect_jobs.events import Failure
from durable_effect_jobs.instance import Alarm, Instance, Key, Lease

NOW = datetime(2030, 1, 1, tzinfo=UTC)
PLAIN = Instance(key=Key("task", "job", "one"), incarnation="life", created_at=NOW)
FULL = Instance(
    key=Key("continuous", "job", "two"),
    incarnation="life",
    created_at=NOW,
    revision=2,
    fence=3,
    lease=Lease("worker", NOW + timedelta(seconds=30)),
    crashes=1,
    quarantined=True,
    state=b"{}",
    alarm=Alarm(NOW, "retry"),
    pending=Alarm(NOW, "schedule"),
    run_count=4,
    event_count=5,
    execute_count=6,
    scheduled_for=NOW,
    missed_count=7,
    next_tick=NOW,
    flush_reason="manual",
    failed_attempts=8,
    first_attempt_at=NOW,
    undecodable_count=9,
    stopped=True,
    last_error=Failure("E", "message"),
)


def test_the_full_record_has_another_value_than_the_plain_one_in_every_field() -> None:
    """Or what the tests below say of every field would not be said of a new one."""
    same = {f.name for f in attrs.fields(Instance) if getattr(FULL, f.name) == getattr(PLAIN, f.name)}
    assert same == {"incarnation", "created_at"}


@pytest.mark.parametrize("name", [field.name for field in attrs.fields(Instance)])
def test_replace_answers_what_evolve_does(name: str) -> None:
    """Changing any field leaves all others as they are, and the record that is copied as it was."""
    before = attrs.asdict(FULL, recurse=False)
    copy = FULL.replace(**{name: getattr(PLAIN, name)})
    assert copy == attrs.evolve(FULL, **{name: getattr(PLAIN, name)})
    assert type(copy) is Instance
    assert attrs.asdict(FULL, recurse=False) == before


def test_replace_refuses_a_field_that_there_is_not() -> None:
    """A misspelt field is a mistake of the program, and no copy."""
    with pytest.raises(AttributeError, match="alrm"):
        PLAIN.replace(alrm=None)


def test_evolve_is_a_revision_more_and_nobodys() -> None:
    """A step leaves a record that no run holds, under the same fence."""
    after = FULL.evolve(run_count=5)
    assert after == FULL.replace(run_count=5, revision=3, lease=None)


def test_the_stored_form_leaves_defaults_out() -> None:
    """A plain record is its life and birth, whatever else records may have."""
    assert PLAIN.to_bytes() == b'{"created_at":1893456000000000,"incarnation":"life"}'


@pytest.mark.parametrize("record", [PLAIN, FULL], ids=["plain", "full"])
def test_what_was_stored_is_read(record: Instance) -> None:
    """The bytes and the columns beside them are the whole record."""
    columns = {name: getattr(record, name) for name in ("fence", "lease", "crashes", "quarantined")}
    read = Instance.from_bytes(record.key, record.revision, record.state, record.to_bytes(), **columns)
    assert read == record

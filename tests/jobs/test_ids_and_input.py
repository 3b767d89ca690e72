"""Ids, input and stored state: what may be given, what is refused, and what a refusal leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, cast

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable_effect import Backoff, Do, Effect, Schema, TypedError, catch
from durable_effect_jobs import (
    Continuous,
    ContinuousContext,
    Debounce,
    DebounceEventContext,
    JobsClient,
    Retry,
    Task,
    TaskEventContext,
    TaskExecuteContext,
    create_durable_jobs,
)
from durable_effect_jobs.errors import DuplicateEventError, ExecutionError, InvalidStateError, ValidationError
from durable_effect_jobs.testing import JobsTestKit

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MIB = 1024 * 1024


def after(**span: float) -> datetime:
    return NOON + timedelta(**span)


@attrs.frozen
class Visit:
    page: str
    seconds: int


@attrs.frozen
class Visits:
    pages: list[str] = attrs.field(factory=list)


@attrs.frozen
class Opened:
    at: datetime
    mode: Literal["read", "write"]


@attrs.frozen
class Closed:
    pass


@attrs.frozen
class Refused(TypedError):
    what: str


def stay(ctx: Any) -> Effect[None]:
    """A handler that leaves everything as it is."""
    return Effect.void


counter = Continuous.make(state_schema=Visit, schedule=Continuous.every("30 minutes"), execute=stay)


def add_page(ctx: DebounceEventContext[Visit, Visits]) -> Effect[Visits, Refused]:
    if ctx.event.page == "refused":
        return Effect.fail(Refused("page"))
    return Effect.succeed(Visits([*ctx.state.pages, ctx.event.page]))


collector = Debounce.make(
    event_schema=Visit,
    state_schema=Visits,
    initial_state=Visits,
    flush_after="5 seconds",
    on_event=add_page,
    execute=stay,
)


@Effect.gen
def keep_page(event: Visit, ctx: TaskEventContext[Visits]) -> Do[None, Refused]:
    if event.page == "refused":
        yield from Effect.fail(Refused("page"))
    state = yield from ctx.state
    yield from ctx.set_state(Visits([*(state.pages if state else []), event.page]))


keeper = Task.make(state_schema=Visits, event_schema=Visit, on_event=keep_page, execute=stay)

JOBS = {"counter": counter, "collector": collector, "keeper": keeper}
OpenKit = Callable[..., JobsTestKit]


@pytest.fixture
def open_kit() -> Iterator[OpenKit]:
    """Opens a kit of the given jobs, or of the three of this file."""
    with ExitStack() as stack:

        def open_one(jobs: dict[str, Any] = JOBS) -> JobsTestKit:
            return stack.enter_context(JobsTestKit(create_durable_jobs(jobs), now=NOON))

        yield open_one


@pytest.fixture
def kit(open_kit: OpenKit) -> JobsTestKit:
    """The three jobs of this file on virtual time."""
    return open_kit()


# -- input and events (rule 25) ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "given", [Visit("home", 3), {"page": "home", "seconds": 3}], ids=["value", "encoded"]
)
def test_start_takes_a_value_or_its_encoded_form(kit: JobsTestKit, given: Any) -> None:
    """Either way the state is a value of the schema's type."""
    kit.run(kit.client.continuous(counter).start(id="c1", input=given))

    assert kit.run(kit.client.continuous(counter).get_state("c1")).state == Visit("home", 3)


@pytest.mark.parametrize(
    "given", [Visit("home", 3), {"page": "home", "seconds": 3}], ids=["value", "encoded"]
)
def test_add_takes_a_value_or_its_encoded_form(kit: JobsTestKit, given: Any) -> None:
    """The reducer sees a value of the event schema's type either way."""
    kit.run(kit.client.debounce(collector).add(id="c1", event=given))

    assert kit.run(kit.client.debounce(collector).get_state("c1")).state == Visits(["home"])


@pytest.mark.parametrize(
    "given", [Visit("home", 3), {"page": "home", "seconds": 3}], ids=["value", "encoded"]
)
def test_send_takes_a_value_or_its_encoded_form(kit: JobsTestKit, given: Any) -> None:
    """The handler sees a value of the event schema's type either way."""
    kit.run(kit.client.task(keeper).send(id="c1", event=given))

    assert kit.run(kit.client.task(keeper).get_state("c1")).state == Visits(["home"])


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        (Opened(NOON, "read"), Opened(NOON, "read")),
        ({"_tag": "Opened", "at": "2026-01-01T12:00:00Z", "mode": "write"}, Opened(NOON, "write")),
        (Closed(), Closed()),
        ({"_tag": "Closed"}, Closed()),
    ],
    ids=["value", "encoded", "empty value", "empty encoded"],
)
def test_events_of_a_union_are_told_apart_by_their_tag(open_kit: OpenKit, given: Any, seen: Any) -> None:
    """A union of classes takes their values, or encoded forms that carry the class name as `_tag`."""
    got: list[Any] = []

    def on_event(event: Opened | Closed, ctx: TaskEventContext[Visits]) -> Effect[None]:
        return Effect.sync(lambda: got.append(event))

    door = Task.make(
        state_schema=Visits, event_schema=Schema.union(Opened, Closed), on_event=on_event, execute=stay
    )
    kit = open_kit({"door": door})

    kit.run(kit.client.task(door).send(id="d1", event=given))

    assert got == [seen]


@pytest.mark.parametrize(
    "given",
    [
        {"_tag": "Burnt"},
        {"at": "2026-01-01T12:00:00Z", "mode": "read"},
        {"_tag": "Opened", "at": "2026-01-01T12:00:00", "mode": "read"},
        {"_tag": "Opened", "at": "noon", "mode": "read"},
        {"_tag": "Opened", "at": "2026-01-01T12:00:00Z", "mode": "append"},
        Opened(datetime(2026, 1, 1, 12), "read"),
        Visit("home", 3),
    ],
    ids=str,
)
def test_events_outside_of_a_union_are_refused(open_kit: OpenKit, given: Any) -> None:
    """An unknown or missing tag, a naive or malformed time, an unknown literal, a foreign class: refused."""
    door = Task.make(
        state_schema=Visits,
        event_schema=Schema.union(Opened, Closed),
        on_event=lambda event, ctx: Effect.void,
        execute=stay,
    )
    kit = open_kit({"door": door})

    with pytest.raises(ValidationError):
        kit.run(kit.client.task(door).send(id="d1", event=given))

    assert kit.run(kit.client.task(door).status("d1")).status == "not_found"


bad_input = pytest.mark.parametrize(
    ("given", "paths"),
    [
        ({"page": "home", "seconds": "3"}, ["$.seconds"]),
        ({"page": "home", "seconds": 3.5}, ["$.seconds"]),
        ({"page": "home", "seconds": True}, ["$.seconds"]),
        ({"page": "home", "seconds": None}, ["$.seconds"]),
        ({"page": 7, "seconds": "3"}, ["$.page", "$.seconds"]),
        ({"page": "home"}, ["$.seconds"]),
        ({}, ["$.page", "$.seconds"]),
        (Visit("home", "3"), ["$.seconds"]),  # type: ignore[arg-type]
        ("home", ["$"]),
        (None, ["$"]),
    ],
    ids=str,
)


@bad_input
def test_invalid_input_names_every_problem(kit: JobsTestKit, given: Any, paths: list[str]) -> None:
    """A refused input says where each of its problems is; nothing is coerced."""
    with pytest.raises(ValidationError) as caught:
        kit.run(kit.client.continuous(counter).start(id="c1", input=given))

    assert len(caught.value.problems) == len(paths)
    assert all(path in str(caught.value) for path in paths)


@bad_input
def test_invalid_input_starts_nothing(kit: JobsTestKit, given: Any, paths: list[str]) -> None:
    """After a refused start the id is as free as before."""
    counters = kit.client.continuous(counter)

    with pytest.raises(ValidationError):
        kit.run(counters.start(id="c1", input=given))

    assert kit.run(counters.status("c1")).status == "not_found"
    assert kit.events == []
    assert kit.run(counters.start(id="c1", input=Visit("home", 3))).created is True


def test_an_existing_id_does_not_look_at_the_input(kit: JobsTestKit) -> None:
    """A second start is answered without validating, moving or reporting anything."""
    counters = kit.client.continuous(counter)
    kit.run(counters.start(id="c1", input=Visit("home", 3)))
    events = len(kit.events)

    again = kit.run(counters.start(id="c1", input={"nonsense": object()}))

    assert again.created is False
    assert kit.run(counters.get_state("c1")).state == Visit("home", 3)
    assert len(kit.events) == events


def test_unknown_keys_are_dropped(kit: JobsTestKit) -> None:
    """A key that the schema does not know is not kept and is no problem."""
    counters = kit.client.continuous(counter)

    kit.run(counters.start(id="c1", input={"page": "home", "seconds": 3, "extra": 1}))

    assert kit.run(counters.get_state("c1")).state == Visit("home", 3)


def test_a_strict_schema_refuses_unknown_keys(open_kit: OpenKit) -> None:
    """A strict schema names the key that it does not know."""
    strict = Continuous.make(
        state_schema=Schema.of(Visit, strict=True), schedule=Continuous.every("1 hour"), execute=stay
    )
    kit = open_kit({"strict": strict})

    with pytest.raises(ValidationError, match="extra"):
        kit.run(
            kit.client.continuous(strict).start(id="c1", input={"page": "home", "seconds": 3, "extra": 1})
        )


def test_what_was_given_is_not_what_is_kept(kit: JobsTestKit) -> None:
    """The state is a copy: changing the object that was given changes nothing."""
    pages = ["home"]
    given = {"page": "home", "seconds": 3}
    kit.run(kit.client.continuous(counter).start(id="c1", input=given))
    given["seconds"] = 99
    tasks = kit.client.task(keeper)
    kit.run(tasks.send(id="c1", event=Visit("home", 3)))

    kit.run(tasks.get_state("c1")).state.pages.append("mischief")

    assert kit.run(kit.client.continuous(counter).get_state("c1")).state == Visit("home", 3)
    assert kit.run(tasks.get_state("c1")).state == Visits(pages)


def test_a_handler_cannot_store_what_its_schema_refuses(open_kit: OpenKit) -> None:
    """A state that is not of the schema fails the handler; the old state stays."""

    @Effect.gen
    def spoil(ctx: TaskExecuteContext[Visits]) -> Do[None]:
        yield from ctx.set_state(Visits([7]))  # type: ignore[list-item]

    spoiler = Task.make(state_schema=Visits, event_schema=Visit, on_event=keep_page, execute=spoil)
    kit = open_kit({"spoiler": spoiler})
    tasks = kit.client.task(spoiler)
    kit.run(tasks.send(id="c1", event=Visit("home", 3)))

    with pytest.raises(TypedError):
        kit.run(tasks.trigger("c1"))

    assert kit.run(tasks.get_state("c1")).state == Visits(["home"])


# -- stored state that no longer fits (rules 25 and 40) ----------------------------------------------


class Deployment:
    """A task whose state schema can be tightened and loosened, as a later deployment would."""

    def __init__(self) -> None:
        self.limit = 10
        self.looks = 0
        self.runs: list[datetime] = []
        self.kit: JobsTestKit
        size = Schema.integer.filter(self.fits, "at most the limit")
        self.job = Task.make(
            state_schema=Schema.struct({"size": size}),
            event_schema=Schema.integer,
            on_event=self.on_event,
            execute=self.execute,
        )

    @Effect.gen
    def on_event(self, event: int, ctx: TaskEventContext[Any]) -> Do[None]:
        yield from ctx.set_state({"size": event})
        yield from ctx.schedule("10 minutes")

    def execute(self, ctx: TaskExecuteContext[Any]) -> Effect[None]:
        return Effect.sync(lambda: self.runs.append(self.kit.now))

    def deploy(self, limit: int) -> None:
        self.limit = limit
        self.kit.restart()

    def fits(self, size: int) -> bool:
        self.looks += 1
        return size <= self.limit


@pytest.fixture
def deployment(open_kit: OpenKit) -> Deployment:
    """One task with a state of size 7 that will run in ten minutes."""
    deployment = Deployment()
    deployment.kit = open_kit({"sized": deployment.job})
    deployment.kit.run(deployment.kit.client.task("sized").send(id="s1", event=7))
    return deployment


def test_state_that_no_longer_fits_is_an_error_with_its_path(deployment: Deployment) -> None:
    """A read of state that the deployed schema refuses names the place."""
    deployment.deploy(limit=5)

    with pytest.raises(ValidationError) as caught:
        deployment.kit.run(deployment.kit.client.task("sized").get_state("s1"))

    assert "$.size" in str(caught.value)


def test_state_that_no_longer_fits_is_never_reset(deployment: Deployment) -> None:
    """An event for it is refused and the old state is there again when the schema fits."""
    deployment.deploy(limit=5)
    tasks = deployment.kit.client.task("sized")
    with pytest.raises(ValidationError):
        deployment.kit.run(tasks.trigger("s1"))
    deployment.deploy(limit=10)

    assert deployment.kit.run(deployment.kit.client.task("sized").get_state("s1")).state == {"size": 7}


def test_an_alarm_waits_until_its_state_fits(deployment: Deployment) -> None:
    """An alarm whose state does not decode does not run, is kept, and fires once the state fits."""
    deployment.deploy(limit=5)
    deployment.kit.advance("10 minutes")
    assert deployment.runs == []

    deployment.deploy(limit=10)
    deployment.kit.advance("30 seconds")

    assert len(deployment.runs) == 1
    assert after(minutes=10) <= deployment.runs[0] <= after(minutes=10, seconds=30)


def test_an_alarm_waits_for_days_if_it_must(deployment: Deployment) -> None:
    """Trying again never ends, however long the state does not fit."""
    deployment.deploy(limit=5)
    deployment.kit.advance("3 days")
    assert deployment.runs == []

    deployment.deploy(limit=10)
    deployment.kit.advance("7 days")

    assert len(deployment.runs) == 1


def test_waiting_for_state_to_fit_grows_rare(deployment: Deployment) -> None:
    """The second day of waiting looks at the state less often than the first, but still looks."""
    deployment.deploy(limit=5)
    looks = []
    for _ in range(2):
        before = deployment.looks
        deployment.kit.advance("1 day")
        looks.append(deployment.looks - before)

    assert 0 < looks[1] < looks[0]


# -- jobs that come and go (rule 29) -----------------------------------------------------------------


def alarm_clock(rang: list[str]) -> Any:
    """A task that rings ten minutes after each event."""
    return Task.make(
        state_schema=Visits,
        event_schema=Visit,
        on_event=lambda event, ctx: ctx.schedule("10 minutes"),
        execute=lambda ctx: Effect.sync(lambda: rang.append(ctx.id)),
    )


Redeploy = Callable[..., JobsTestKit]


@pytest.fixture
def redeploy() -> Iterator[Redeploy]:
    """Opens a kit of other jobs, one second later, on what another kit has stored."""
    with ExitStack() as stack:

        def open_later(kit: JobsTestKit, **jobs: Any) -> JobsTestKit:
            now = kit.now + timedelta(seconds=1)
            later = stack.enter_context(JobsTestKit(create_durable_jobs(jobs), now=now))
            later.storage = kit.storage
            later.restart()
            return later

        yield open_later


def test_an_alarm_waits_for_its_job_to_come_back(open_kit: OpenKit, redeploy: Redeploy) -> None:
    """A deployment that forgot a job keeps its alarms; they fire in the one that has it again."""
    rang: list[str] = []
    kit = open_kit({"clock": alarm_clock(rang)})
    kit.run(kit.client.task("clock").send(id="c1", event=Visit("home", 0)))

    without = redeploy(kit, other=alarm_clock([]))
    without.advance("3 days")
    assert rang == []
    again = redeploy(without, clock=alarm_clock(rang))
    again.advance("1 hour")

    assert rang == ["c1"]


def test_alarms_of_a_job_that_is_gone_do_not_hold_up_others(open_kit: OpenKit, redeploy: Redeploy) -> None:
    """The other jobs of the deployment run at their times."""
    rang: list[str] = []
    kit = open_kit({"clock": alarm_clock([])})
    for number in range(50):
        kit.run(kit.client.task("clock").send(id=f"c{number}", event=Visit("home", 0)))

    without = redeploy(kit, other=alarm_clock(rang))
    without.advance("1 hour")
    without.run(without.client.task("other").send(id="o1", event=Visit("home", 0)))
    without.advance("10 minutes")

    assert rang == ["o1"]


def test_a_job_that_is_gone_is_reported_once(
    open_kit: OpenKit, redeploy: Redeploy, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning per process names the job whose alarms wait, however many alarms and days there are."""
    kit = open_kit({"clock": alarm_clock([])})
    for key in ["c1", "c2", "c3"]:
        kit.run(kit.client.task("clock").send(id=key, event=Visit("home", 0)))

    redeploy(kit, other=alarm_clock([])).advance("3 days")

    warnings = [record for record in caplog.records if "clock" in record.getMessage()]
    assert [record.levelname for record in warnings] == ["WARNING"]


# -- ids (rule 26) -----------------------------------------------------------------------------------


def test_an_instance_id_is_kind_job_and_id(kit: JobsTestKit) -> None:
    """The three parts are joined by colons, the id as it is."""
    started = kit.run(kit.client.continuous(counter).start(id="user:1:a", input=Visit("home", 3)))

    assert started.instance_id == "continuous:counter:user:1:a"


@pytest.mark.parametrize(
    "key", ["x" * 512, "ü" * 512, " ", ":", "a/b?c=d&e", "'; drop table x; --", "日本", "🙂"]
)
def test_any_text_is_an_id(kit: JobsTestKit, key: str) -> None:
    """Length up to 512 characters, any script, any punctuation."""
    counters = kit.client.continuous(counter)

    kit.run(counters.start(id=key, input=Visit("home", 3)))

    assert kit.run(counters.status(key)).status == "running"


@pytest.mark.parametrize("key", ["", "x" * 513], ids=["empty", "too long"])
def test_an_empty_or_endless_id_is_refused(kit: JobsTestKit, key: str) -> None:
    """An id has one to 512 characters; all three kinds say so and nothing is written."""
    calls = [
        lambda: kit.client.continuous(counter).start(id=key, input=Visit("home", 3)),
        lambda: kit.client.debounce(collector).add(id=key, event=Visit("home", 3)),
        lambda: kit.client.task(keeper).send(id=key, event=Visit("home", 3)),
    ]
    for call in calls:
        with pytest.raises((TypedError, ValueError)):
            kit.run(call())

    assert kit.events == []


def test_kinds_and_jobs_do_not_share_ids(open_kit: OpenKit) -> None:
    """The same id in two jobs, or in two kinds, is two instances."""
    other = Continuous.make(state_schema=Visit, schedule=Continuous.every("1 hour"), execute=stay)
    kit = open_kit({**JOBS, "counter2": other})
    kit.run(kit.client.continuous(counter).start(id="x", input=Visit("one", 1)))
    kit.run(kit.client.continuous(other).start(id="x", input=Visit("two", 2)))
    kit.run(kit.client.task(keeper).send(id="x", event=Visit("three", 3)))
    kit.run(kit.client.debounce(collector).add(id="x", event=Visit("four", 4)))

    assert kit.run(kit.client.continuous(counter).get_state("x")).state == Visit("one", 1)
    assert kit.run(kit.client.continuous(other).get_state("x")).state == Visit("two", 2)
    assert kit.run(kit.client.task(keeper).get_state("x")).state == Visits(["three"])
    assert kit.run(kit.client.debounce(collector).get_state("x")).state == Visits(["four"])


tricky_text = st.text(
    st.one_of(st.sampled_from(":%_/ '\"\\\x00aA"), st.characters(exclude_categories=["Cs"]))
)


@settings(max_examples=40, deadline=None)
@given(
    keys=st.lists(tricky_text.filter(lambda key: 0 < len(key) <= 512), min_size=1, max_size=6, unique=True)
)
def test_different_ids_never_share_a_record(keys: list[str]) -> None:
    """Whatever two ids look like, what is sent to one is never seen by the other."""
    with JobsTestKit(create_durable_jobs(JOBS), now=NOON) as kit:
        tasks = kit.client.task(keeper)
        for number, key in enumerate(keys):
            assert kit.run(tasks.send(id=key, event=Visit(str(number), 0))).created is True
        kit.restart()
        tasks = kit.client.task(keeper)

        states = [kit.run(tasks.get_state(key)).state for key in keys]

    assert states == [Visits([str(number)]) for number in range(len(keys))]


@pytest.mark.parametrize("name", ["", ":", "a:b"])
def test_a_job_name_has_no_colon_and_is_not_empty(name: str) -> None:
    """A name that would make instance ids ambiguous is refused when the jobs are created."""
    with pytest.raises((TypedError, ValueError)):
        create_durable_jobs({name: counter})


# -- definitions and limits (rule 27) ----------------------------------------------------------------


@pytest.mark.parametrize(
    "define",
    [
        lambda: Continuous.every("0 seconds"),
        lambda: Continuous.every(timedelta(0)),
        lambda: Continuous.every(timedelta(seconds=-1)),
        lambda: Continuous.every("-1 second"),
        lambda: Continuous.every("often"),
        lambda: Continuous.every("inf seconds"),
        lambda: Continuous.cron("* * *"),
        lambda: Continuous.cron("61 * * * *"),
        lambda: Continuous.cron("0 0 30 2 *"),
        lambda: Continuous.cron("0 0 * * *", tz="Mars/Olympus"),
        lambda: Retry(max_attempts=0),
        lambda: Retry(max_attempts=-1),
        lambda: Retry(max_attempts=3, max_duration="0 seconds"),
        lambda: Retry(max_attempts=3, max_duration=timedelta(seconds=-1)),
        lambda: Retry(max_attempts=3, on_exhausted="shrug"),
        lambda: Backoff.fixed("0 seconds"),
        lambda: Backoff.fixed(timedelta(seconds=-1)),
        lambda: Backoff.exponential("0 seconds"),
        lambda: Backoff.exponential("1 second", factor=float("inf")),
        lambda: Backoff.exponential("1 second", factor=float("nan")),
        lambda: Backoff.exponential("1 second", max="0 seconds"),
        lambda: Backoff.linear("1 second", "-1 second"),
        lambda: Schema.of(Callable[[], int]),
    ],
)
def test_a_definition_that_cannot_be_is_refused(define: Callable[[], Any]) -> None:
    """Spans, counts and limits are checked where they are written, not where they first hurt."""
    with pytest.raises((TypedError, ValueError)):
        define()


def _define(**options: Any) -> Any:
    return Continuous.make(
        **{"state_schema": Visit, "schedule": Continuous.every("1 hour"), "execute": rest, **options}
    )


def _batch(**options: Any) -> Any:
    return Debounce.make(**{"event_schema": Visit, "flush_after": "1 second", "execute": rest, **options})


def _task(**options: Any) -> Any:
    return Task.make(state_schema=Visit, event_schema=Visit, on_event=rest, execute=rest, **options)


def rest(*_: Any) -> Effect[None]:
    """Does nothing."""
    return Effect.void


@pytest.mark.parametrize(
    ("define", "says"),
    [
        (lambda: _define(retry=3), "retry= takes a Retry"),
        (lambda: _batch(retry=3), "retry= takes a Retry"),
        (lambda: _task(retry="3 times"), "retry= takes a Retry"),
        (lambda: _define(logging=None), "logging= takes"),
        (lambda: _define(logging=0.5), "logging= takes"),
        (lambda: _batch(max_events="3"), "max_events= takes a number"),
        (
            lambda: _batch(state_schema=Visit, on_event=rest),
            "initial_state= is not a valid Visit: .* found None",
        ),
        (
            lambda: _batch(state_schema=Visit, on_event=rest, initial_state=3),
            "initial_state= is not a valid Visit: .* found int",
        ),
        (lambda: Retry(on_exhausted=cast("Any", "retry")), 'on_exhausted= takes "terminate" or "stop"'),
        (lambda: Retry(retryable=cast("Any", OSError)), "retryable= takes a predicate"),
        (lambda: Retry(retryable=cast("Any", (OSError,))), "retryable= takes a predicate"),
        (lambda: create_durable_jobs(cast("Any", [_define()])), "definitions= takes a mapping"),
        (lambda: create_durable_jobs({}, layer=cast("Any", Visit("a", 1))), "layer= takes a Layer"),
        (lambda: create_durable_jobs({}, tracker=cast("Any", "https://x")), "tracker= takes a Tracker"),
        (lambda: create_durable_jobs({}, limits=cast("Any", {"concurrency": 1})), "limits= takes Limits"),
        (
            lambda: create_durable_jobs({}).connect(cast("Any", Path("jobs.db"))),
            "expected text, got PosixPath",
        ),
        (lambda: create_durable_jobs({}).connect(cast("Any", None)), "expected text, got NoneType"),
    ],
)
def test_an_option_that_cannot_be_is_refused_by_name(define: Callable[[], Any], says: str) -> None:
    """What was meant for something else is refused where it is written, and what goes there is said."""
    with pytest.raises(ValueError, match=says):
        define()


def huge(size: int) -> Visit:
    return Visit("x" * size, 0)


def test_a_state_of_just_under_a_mebibyte_is_kept(kit: JobsTestKit) -> None:
    """A state whose encoding stays below the limit is stored and read back."""
    counters = kit.client.continuous(counter)

    kit.run(counters.start(id="c1", input=huge(MIB - 1024)))

    assert kit.run(counters.get_state("c1")).state == huge(MIB - 1024)


def test_a_start_with_too_large_a_state_starts_nothing(kit: JobsTestKit) -> None:
    """A state of more than a mebibyte is refused with a typed error."""
    counters = kit.client.continuous(counter)

    with pytest.raises(TypedError):
        kit.run(counters.start(id="c1", input=huge(MIB)))

    assert kit.run(counters.status("c1")).status == "not_found"
    assert kit.events == []


def test_an_event_that_makes_the_state_too_large_changes_nothing(kit: JobsTestKit) -> None:
    """The batch and its count stay as they were, and smaller events are welcome."""
    batches = kit.client.debounce(collector)
    kit.run(batches.add(id="c1", event=huge(MIB // 2)))

    with pytest.raises(TypedError):
        kit.run(batches.add(id="c1", event=huge(MIB // 2)))

    assert kit.run(batches.status("c1")).event_count == 1
    assert kit.run(batches.add(id="c1", event=Visit("small", 0))).event_count == 2


def test_a_handler_that_makes_the_state_too_large_changes_nothing(open_kit: OpenKit) -> None:
    """A run whose state grew over the limit fails; state and schedule stay."""

    @Effect.gen
    def grow(ctx: ContinuousContext[Visit]) -> Do[None]:
        yield from ctx.set_state(huge(MIB))

    growing = Continuous.make(
        state_schema=Visit, schedule=Continuous.every("1 hour"), start_immediately=False, execute=grow
    )
    kit = open_kit({"growing": growing})
    counters = kit.client.continuous(growing)
    kit.run(counters.start(id="c1", input=Visit("home", 3)))

    with pytest.raises(TypedError):
        kit.run(counters.trigger("c1"))

    assert kit.run(counters.get_state("c1")).state == Visit("home", 3)
    assert kit.run(counters.status("c1")).status == "running"


# -- event ids (rules 28 and 38) ---------------------------------------------------------------------


def adds(kit: JobsTestKit, page: str = "home", key: str = "c1", event_id: str | None = "e1") -> Any:
    return kit.run(kit.client.debounce(collector).add(id=key, event=Visit(page, 0), event_id=event_id))


def sends(kit: JobsTestKit, page: str = "home", key: str = "c1", event_id: str | None = "e1") -> Any:
    return kit.run(kit.client.task(keeper).send(id=key, event=Visit(page, 0), event_id=event_id))


def pages(kit: JobsTestKit, call: Any, key: str = "c1") -> Any:
    client = kit.client.debounce(collector) if call is adds else kit.client.task(keeper)
    state = kit.run(client.get_state(key)).state
    return None if state is None else state.pages


both_kinds = pytest.mark.parametrize("call", [adds, sends], ids=["add", "send"])


@both_kinds
def test_a_repeated_event_id_is_refused(kit: JobsTestKit, call: Any) -> None:
    """The second event of the same id fails and the error names the id."""
    call(kit)

    with pytest.raises(DuplicateEventError) as caught:
        call(kit)

    assert caught.value.event_id == "e1"


@both_kinds
def test_a_repeated_event_changes_nothing(kit: JobsTestKit, call: Any) -> None:
    """State, counts and telemetry stay as they were, whatever the repeated event holds."""
    call(kit)
    events = len(kit.events)

    with pytest.raises(DuplicateEventError):
        call(kit, page="other")

    assert pages(kit, call) == ["home"]
    assert call(kit, page="next", event_id="e2").created is False
    assert pages(kit, call) == ["home", "next"]
    assert len(kit.events) == events


@both_kinds
def test_events_without_an_id_are_never_repeats(kit: JobsTestKit, call: Any) -> None:
    """Two equal events without an id are two events."""
    call(kit, event_id=None)
    call(kit, event_id=None)

    assert pages(kit, call) == ["home", "home"]


@both_kinds
def test_event_ids_are_remembered_per_instance(kit: JobsTestKit, call: Any) -> None:
    """The same event id for another instance is another event."""
    call(kit, key="c1")
    call(kit, key="c2")

    assert (pages(kit, call, "c1"), pages(kit, call, "c2")) == (["home"], ["home"])


def test_event_ids_are_remembered_per_kind(kit: JobsTestKit) -> None:
    """The same id and event id in two jobs are two events."""
    adds(kit)
    sends(kit)

    assert (pages(kit, adds), pages(kit, sends)) == (["home"], ["home"])


@both_kinds
def test_event_ids_survive_a_restart(kit: JobsTestKit, call: Any) -> None:
    """A repeat after a restart is still a repeat."""
    call(kit)
    kit.restart()

    with pytest.raises(DuplicateEventError):
        call(kit)


@both_kinds
def test_event_ids_are_remembered_for_a_day(kit: JobsTestKit, call: Any) -> None:
    """A second before the day is over the id is known; after it the id is new."""
    call(kit)
    kit.advance(timedelta(days=1, seconds=-1))
    with pytest.raises(DuplicateEventError):
        call(kit)

    kit.advance("2 seconds")

    assert call(kit, page="again").instance_id.endswith(":c1")


def test_event_ids_outlive_a_flush(kit: JobsTestKit) -> None:
    """After the batch is gone a repeat of one of its events opens no new one."""
    adds(kit)
    kit.advance("5 seconds")

    with pytest.raises(DuplicateEventError):
        adds(kit)

    assert kit.run(kit.client.debounce(collector).status("c1")).status == "not_found"


def test_event_ids_outlive_a_clear(kit: JobsTestKit) -> None:
    """A cleared batch still remembers its events."""
    adds(kit)
    kit.run(kit.client.debounce(collector).clear("c1"))

    with pytest.raises(DuplicateEventError):
        adds(kit)


def test_event_ids_outlive_a_termination(kit: JobsTestKit) -> None:
    """A repeat of an event of a terminated task does not bring the task back."""
    sends(kit)
    kit.run(kit.client.task(keeper).terminate("c1"))

    with pytest.raises(DuplicateEventError):
        sends(kit)

    assert kit.run(kit.client.task(keeper).status("c1")).status == "not_found"


@both_kinds
def test_a_failed_event_is_not_remembered(kit: JobsTestKit, call: Any) -> None:
    """The caller still holds an event whose handler failed, and may send it again under its id."""
    with pytest.raises(ExecutionError):
        call(kit, page="refused")

    call(kit, page="mended")

    assert pages(kit, call) == ["mended"]


@both_kinds
def test_an_invalid_event_is_not_remembered(kit: JobsTestKit, call: Any) -> None:
    """A refused event leaves its id free."""
    with pytest.raises(ValidationError):
        call(kit, page=7)

    call(kit)

    assert pages(kit, call) == ["home"]


def test_an_event_that_was_kept_is_remembered_although_its_flush_failed(open_kit: OpenKit) -> None:
    """The caller got an error but the event is in the batch; sending it again is a repeat."""
    failing = Debounce.make(
        event_schema=Visit,
        flush_after="5 seconds",
        max_events=1,
        execute=lambda ctx: Effect.fail(Refused("flush")),
    )
    kit = open_kit({"failing": failing})
    batches = kit.client.debounce(failing)
    with pytest.raises(ExecutionError):
        kit.run(batches.add(id="c1", event=Visit("home", 0), event_id="e1"))

    with pytest.raises(DuplicateEventError):
        kit.run(batches.add(id="c1", event=Visit("home", 0), event_id="e1"))

    assert kit.run(batches.status("c1")).event_count == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["e1", "e2", "e3"]), st.booleans()), max_size=15))
def test_each_event_id_is_applied_once(story: list[tuple[str, bool]]) -> None:
    """However often events are sent again, restarts in between, each id is in the state once, in order."""
    with JobsTestKit(create_durable_jobs(JOBS), now=NOON) as kit:
        for event_id, restart in story:
            with suppress(DuplicateEventError):
                sends(kit, page=event_id, event_id=event_id)
            if restart:
                kit.restart()
        applied = pages(kit, sends)

    assert (applied or []) == list(dict.fromkeys(event_id for event_id, _ in story))


def test_handlers_that_call_each_other_do_not_wait_for_ever() -> None:
    """Two handlers that call each other's instance at once: one call is refused, and both handlers end."""
    refused: list[InvalidStateError] = []
    client: list[JobsClient] = []

    @Effect.gen
    def execute(ctx: TaskExecuteContext[int]) -> Do[None, Any]:
        yield from Effect.sleep("1 second")
        other = "b" if ctx.id == "a" else "a"
        call = client[0].task("pair").send(id=other, event=1)
        note = catch(InvalidStateError, lambda error: Effect.sync(lambda: refused.append(error)))
        yield from call.pipe(note)

    pair = Task.make(
        state_schema=int,
        event_schema=int,
        on_event=lambda event, ctx: ctx.schedule("1 minute") if event == 0 else Effect.void,
        execute=execute,
    )
    with JobsTestKit(create_durable_jobs({"pair": pair})) as kit:
        client.append(kit.client)
        for name in "ab":
            kit.run(kit.client.task(pair).send(id=name, event=0))
        kit.advance("5 minutes")
        counts = [kit.run(kit.client.task(pair).status(name)) for name in "ab"]
    assert len(refused) == 1
    assert [count.execute_count for count in counts] == [1, 1]
    assert sorted(count.event_count or 0 for count in counts) == [1, 2]

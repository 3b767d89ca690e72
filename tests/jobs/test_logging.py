"""Logging: every job has a logger of the standard library, and says how much it wants to tell."""

import logging
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from durable_effect import Do, Effect, TypedError
from durable_effect_jobs import (
    Continuous,
    ContinuousContext,
    Debounce,
    Retry,
    Task,
    create_durable_jobs,
)
from durable_effect_jobs.errors import ExecutionError
from durable_effect_jobs.testing import JobsTestKit

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REFUSED = (ValueError, TypedError)
LOGGER = "durable_effect_jobs.continuous.worker"


@attrs.frozen
class Boom(TypedError):
    reason: str


@pytest.fixture(autouse=True)
def _everything_is_captured(caplog: pytest.LogCaptureFixture) -> None:
    """The loggers of the jobs pass on whatever the jobs let through."""
    caplog.set_level(logging.DEBUG)


@Effect.gen
def chatty(ctx: ContinuousContext[int]) -> Do[None, Boom]:
    """Says something on each level; fails when its state says so."""
    yield from Effect.log_debug("a detail")
    yield from Effect.log_info("some news")
    yield from Effect.log_warning("a doubt")
    yield from Effect.log_error("a complaint")
    if (yield from ctx.state) < 0:
        yield from Effect.fail(Boom("no luck"))


def worker(execute: Any = chatty, **options: Any) -> JobsTestKit:
    """A kit with one continuous job."""
    job = Continuous.make(state_schema=int, schedule=Continuous.every("1 hour"), execute=execute, **options)
    return JobsTestKit(create_durable_jobs({"worker": job}), now=NOW)


def run_once(kit: JobsTestKit, state: int = 0) -> None:
    """Starts the instance `u1`, whose first run is the only one; a negative state makes it fail."""
    with kit:
        start = kit.client.continuous("worker").start(id="u1", input=state)
        if state < 0:
            with pytest.raises(ExecutionError):
                kit.run(start)
        else:
            kit.run(start)


def told(caplog: pytest.LogCaptureFixture, logger: str = LOGGER) -> list[logging.LogRecord]:
    """The records of one job's logger."""
    return [record for record in caplog.records if record.name == logger]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the handler itself has said, in order."""
    words = {"a detail", "some news", "a doubt", "a complaint"}
    return [record.getMessage() for record in told(caplog) if record.getMessage() in words]


class TestHowMuch:
    """`logging=` says what comes through."""

    def test_by_default_a_success_is_silent(self, caplog: pytest.LogCaptureFixture) -> None:
        """A job that says nothing of its logging tells nothing of its successes."""
        run_once(worker(lambda ctx: Effect.void))
        assert told(caplog) == []

    @pytest.mark.parametrize("options", [{}, {"logging": False}])
    def test_failures_are_told_by_default(
        self, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
    ) -> None:
        """A failure is told, as an error, with its reason."""
        run_once(worker(lambda ctx: Effect.fail(Boom("no luck")), **options), state=-1)
        (record,) = told(caplog)
        assert record.levelno == logging.ERROR
        assert "no luck" in caplog.text

    @pytest.mark.parametrize("retry", [None, Retry(max_attempts=2), Retry(max_attempts=1)])
    def test_an_exception_is_told_with_the_place_where_it_was_raised(
        self, caplog: pytest.LogCaptureFixture, retry: Retry | None
    ) -> None:
        """The record of a raised exception has its traceback, whatever follows."""

        def divide(ctx: ContinuousContext[int]) -> Effect[None]:
            return Effect.sync(lambda: print(1 // 0))

        with worker(divide, retry=retry) as kit:
            kit.run_exit(kit.client.continuous("worker").start(id="u1", input=1))
        (record,) = told(caplog)
        assert record.exc_info is not None
        assert "print(1 // 0)" in caplog.text

    def test_a_typed_error_is_told_without_a_traceback(self, caplog: pytest.LogCaptureFixture) -> None:
        """A typed error is expected, so a line is enough."""
        run_once(worker(lambda ctx: Effect.fail(Boom("no luck"))), state=-1)
        (record,) = told(caplog)
        assert record.exc_info is None

    def test_an_error_without_a_message_is_its_type(self, caplog: pytest.LogCaptureFixture) -> None:
        """Nothing follows a colon that would have nothing behind it."""

        class Silent(TypedError):
            pass

        run_once(worker(lambda ctx: Effect.fail(Silent())), state=-1)
        (record,) = told(caplog)
        assert record.getMessage() == "continuous:worker:u1 failed: Silent"

    def test_by_default_a_handler_is_heard_from_error_on(self, caplog: pytest.LogCaptureFixture) -> None:
        """Of a handler's own words only errors come through by default."""
        run_once(worker())
        assert said(caplog) == ["a complaint"]

    def test_everything(self, caplog: pytest.LogCaptureFixture) -> None:
        """With `logging=True` all words of the handler come through, and the run itself is told."""
        run_once(worker(logging=True))
        assert said(caplog) == ["a detail", "some news", "a doubt", "a complaint"]
        assert len(told(caplog)) > 4

    def test_everything_of_a_failure(self, caplog: pytest.LogCaptureFixture) -> None:
        """With `logging=True` failures are told as well."""
        run_once(worker(logging=True), state=-1)
        assert "no luck" in caplog.text

    @pytest.mark.parametrize(
        ("level", "words"),
        [
            (logging.DEBUG, ["a detail", "some news", "a doubt", "a complaint"]),
            (logging.INFO, ["some news", "a doubt", "a complaint"]),
            (logging.WARNING, ["a doubt", "a complaint"]),
            (logging.ERROR, ["a complaint"]),
            (logging.CRITICAL, []),
        ],
    )
    def test_a_level(self, caplog: pytest.LogCaptureFixture, level: int, words: list[str]) -> None:
        """A level lets through what is at least that important."""
        run_once(worker(logging=level))
        assert said(caplog) == words
        assert all(record.levelno >= level for record in told(caplog))

    @pytest.mark.parametrize("state", [0, -1])
    def test_none_is_silent(self, caplog: pytest.LogCaptureFixture, state: int) -> None:
        """With `logging="none"` neither the handler nor a failure is heard."""
        run_once(worker(logging="none"), state=state)
        assert told(caplog) == []

    def test_a_wrong_word_is_refused(self) -> None:
        """A logging that means nothing is refused when the job is defined."""
        with pytest.raises(REFUSED):
            worker(logging="loudly")

    def test_each_job_decides_for_itself(self, caplog: pytest.LogCaptureFixture) -> None:
        """Two jobs side by side may be silent and talkative."""
        jobs = create_durable_jobs(
            {
                name: Continuous.make(
                    state_schema=int,
                    schedule=Continuous.every("1 hour"),
                    logging=level,
                    execute=lambda ctx: Effect.log_info(f"news of {ctx.job_name}"),
                )
                for name, level in {"loud": True, "quiet": False}.items()
            }
        )
        with JobsTestKit(jobs, now=NOW) as kit:
            for name in ("loud", "quiet"):
                kit.run(kit.client.continuous(name).start(id="u1", input=0))
        assert "news of loud" in caplog.text
        assert "news of quiet" not in caplog.text

    def test_the_loggers_of_the_user_have_the_last_word(self, caplog: pytest.LogCaptureFixture) -> None:
        """The level that the application sets on a job's logger holds: nobody overwrites it."""
        caplog.set_level(logging.ERROR, logger=LOGGER)
        run_once(worker(logging=True))
        assert said(caplog) == ["a complaint"]


class TestWhere:
    """Which logger, and what a record carries."""

    def test_a_logger_per_kind_and_job(self, caplog: pytest.LogCaptureFixture) -> None:
        """A job's logger is named after its kind and its own name."""

        def speak(*_: Any) -> Any:
            return Effect.log_error("here")

        jobs = create_durable_jobs(
            {
                "worker": Continuous.make(
                    state_schema=int, schedule=Continuous.every("1 day"), execute=speak
                ),
                "batch": Debounce.make(event_schema=str, flush_after="1 second", execute=speak),
                "order": Task.make(state_schema=str, event_schema=str, on_event=speak, execute=speak),
            }
        )
        with JobsTestKit(jobs, now=NOW) as kit:
            kit.run(kit.client.continuous("worker").start(id="u1", input=0))
            kit.run(kit.client.debounce("batch").add(id="u1", event="hello"))
            kit.advance("1 second")
            kit.run(kit.client.task("order").send(id="u1", event="placed"))
        assert [record.name for record in caplog.records if record.getMessage() == "here"] == [
            "durable_effect_jobs.continuous.worker",
            "durable_effect_jobs.debounce.batch",
            "durable_effect_jobs.task.order",
        ]

    def test_a_handler_s_record_says_whose_it_is(self, caplog: pytest.LogCaptureFixture) -> None:
        """A record carries the instance and the run as `extra`."""
        run_once(worker())
        (record,) = told(caplog)
        extra = vars(record)
        assert "continuous:worker:u1" in extra.values()
        assert any(name.startswith("run") for name in extra)

    def test_a_failure_s_record_says_whose_it_is(self, caplog: pytest.LogCaptureFixture) -> None:
        """A failure's record carries the instance and the run too."""
        run_once(worker(lambda ctx: Effect.fail(Boom("no luck"))), state=-1)
        (record,) = told(caplog)
        extra = vars(record)
        assert "continuous:worker:u1" in extra.values()
        assert any(name.startswith("run") for name in extra)

    def test_both_name_the_same_run(self, caplog: pytest.LogCaptureFixture) -> None:
        """The record of a failure names the run that the failing handler's own records name."""
        with worker() as kit:
            kit.run(kit.client.continuous("worker").start(id="u1", input=1))
            caplog.clear()
            with pytest.raises(ExecutionError):
                kit.run(kit.client.continuous("worker").start(id="u2", input=-1))
        complaint, failure = told(caplog)

        shared = {name for name in vars(complaint).keys() & vars(failure).keys() if name.startswith("run")}
        assert shared
        assert [vars(complaint)[name] for name in shared] == [vars(failure)[name] for name in shared]

    def test_annotations_of_the_handler(self, caplog: pytest.LogCaptureFixture) -> None:
        """What the handler annotates its log with is on its records."""
        run_once(worker(lambda ctx: Effect.log_error("a complaint").annotate_logs(customer="c-1", amount=42)))
        (record,) = told(caplog)
        extra = vars(record)
        assert (extra["customer"], extra["amount"]) == ("c-1", 42)
        assert "continuous:worker:u1" in extra.values()

    def test_annotations_end_with_their_effect(self, caplog: pytest.LogCaptureFixture) -> None:
        """Annotations reach as far as the effect that they were put on."""

        @Effect.gen
        def execute(ctx: ContinuousContext[int]) -> Do[None]:
            yield from Effect.log_error("with").annotate_logs(customer="c-1")
            yield from Effect.log_error("without")

        run_once(worker(execute))
        first, second = told(caplog)
        assert vars(first)["customer"] == "c-1"
        assert "customer" not in vars(second)

    def test_what_is_said_outside_of_handlers_goes_elsewhere(self, caplog: pytest.LogCaptureFixture) -> None:
        """A caller's own log lines are not the job's."""
        with worker(logging=True) as kit:
            kit.run(Effect.log_error("by the caller"))
        assert "by the caller" in caplog.text
        assert told(caplog) == []


class TestFailures:
    """Failures are told whether somebody waits for them or not."""

    def test_of_a_tick(self, caplog: pytest.LogCaptureFixture) -> None:
        """A run that nobody waits for tells its failure to the log."""
        with worker(lambda ctx: Effect.fail(Boom("no luck")), start_immediately=False) as kit:
            kit.run(kit.client.continuous("worker").start(id="u1", input=0))
            assert told(caplog) == []
            kit.advance("1 hour")
        (record,) = told(caplog)
        assert record.levelno == logging.ERROR
        assert "no luck" in caplog.text

    def test_of_a_raised_exception(self, caplog: pytest.LogCaptureFixture) -> None:
        """A bug is told with its own type and message."""
        run_once(worker(lambda ctx: Effect.sync(lambda: 1 // 0)), state=-1)
        assert len(told(caplog)) == 1
        assert "ZeroDivisionError" in caplog.text

    def test_of_an_exhausted_retry(self, caplog: pytest.LogCaptureFixture) -> None:
        """What ends an instance is an error in the log."""
        with worker(
            lambda ctx: Effect.fail(Boom("no luck")),
            retry=Retry(max_attempts=2, delay="1 second", jitter=False),
        ) as kit:
            kit.run(kit.client.continuous("worker").start(id="u1", input=0))
            kit.advance("1 second")
        assert any(record.levelno >= logging.ERROR for record in told(caplog))
        assert "no luck" in caplog.text

    def test_terminating_is_none(self, caplog: pytest.LogCaptureFixture) -> None:
        """A handler that ends its instance has not failed."""
        run_once(worker(lambda ctx: ctx.terminate("done")))
        assert told(caplog) == []

"""Log lines go to the stdlib, with the annotations around them."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from durable_effect import Effect, Logger, provide_service


def field(record: logging.LogRecord, name: str) -> Any:
    return record.__dict__[name]


def test_levels_and_messages(caplog: pytest.LogCaptureFixture) -> None:
    """Each method has its level; values are put behind the message, and percent signs mean nothing."""
    with caplog.at_level(logging.DEBUG, "durable_effect"):
        for log in (Effect.log_debug, Effect.log_info, Effect.log_warning, Effect.log_error):
            Effect.run_sync(log("100%s", 1, "x"))
    assert [(r.name, r.levelname, r.getMessage()) for r in caplog.records] == [
        ("durable_effect", level, "100%s 1 x") for level in ("DEBUG", "INFO", "WARNING", "ERROR")
    ]


def test_annotations_are_attributes_of_the_record(caplog: pytest.LogCaptureFixture) -> None:
    """Inner annotations win, fields of the line win over both; what `logging` itself sets is left alone."""
    line = Effect.log_warning("hello", c=3, message="mine", name="other")
    Effect.run_sync(line.annotate_logs(a=1, b=1).annotate_logs(a=0, c=0))
    record = caplog.records[0]
    assert [field(record, name) for name in ("a", "b", "c", "message_", "name_")] == [
        1,
        1,
        3,
        "mine",
        "other",
    ]
    assert (record.name, record.getMessage()) == ("durable_effect", "hello")


def test_annotations_end_with_their_effect(caplog: pytest.LogCaptureFixture) -> None:
    """What is logged outside does not carry them."""
    Effect.run_sync(Effect.log_error("in").annotate_logs(a=1).and_then(Effect.log_error("out")))
    assert [hasattr(record, "a") for record in caplog.records] == [True, False]


def test_exceptions_are_shown_with_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """An exception among the values becomes `exc_info`."""
    raised = ValueError("no")
    Effect.run_sync(Effect.log_error("failed", raised, 5))
    record = caplog.records[0]
    assert record.getMessage() == "failed 5"
    assert record.exc_info is not None
    assert record.exc_info[1] is raised


def test_the_logger_is_a_service(caplog: pytest.LogCaptureFixture) -> None:
    """Another stdlib logger, a least level and annotations can be provided."""
    mine = Logger(logging.getLogger("mine"), level=logging.ERROR, annotations={"job": "j"})
    both = Effect.log_warning("quiet").and_then(Effect.log_error("loud"))
    Effect.run_sync(both.annotate_logs(run=1) | provide_service(Logger, mine))
    assert [(r.name, r.getMessage(), field(r, "job"), field(r, "run")) for r in caplog.records] == [
        ("mine", "loud", "j", 1)
    ]


def test_spans_name_their_part_of_the_work(caplog: pytest.LogCaptureFixture) -> None:
    """Lines inside carry the span, and its end is logged."""
    with caplog.at_level(logging.DEBUG, "durable_effect"):
        Effect.run_sync(Effect.log_info("work").with_span("load", size=2))
        Effect.run_sync_exit(Effect.fail("e").with_span("load"))
    assert [(r.getMessage(), field(r, "span")) for r in caplog.records] == [
        ("work", "load"),
        ("span load ended", "load"),
        ("span load failed", "load"),
    ]
    assert field(caplog.records[0], "size") == 2


def test_silent_loggers_do_not_even_format() -> None:
    """A line below the level costs no text."""

    class Loud:
        def __str__(self) -> str:
            raise AssertionError

    Effect.run_sync(Effect.log_debug(Loud()) | provide_service(Logger, Logger(level=logging.ERROR)))
